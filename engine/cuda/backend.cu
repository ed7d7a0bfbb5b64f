/* Opening and closing: the device's memory is laid out, taken in one piece and filled. See state.h. */
#include "engine/cuda/state.h"

extern "C" {
#include "engine/cpu/rope.h"
#include "engine/model/shard.h"
}

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace cuda {

namespace {

/* Pieces of one allocation, 256 bytes apart at least. With base NULL it only measures. */
struct layout {
    unsigned char *base;
    size_t used;
    template <typename P> P *get(size_t count, size_t size = sizeof(P)) {
        void *p = base ? base + used : nullptr;
        used += (count * size + 255) / 256 * 256;
        return (P *)p;
    }
};

size_t element(const state *b) {
    return dtype_bytes(b->type);
}

linear place_linear(const state *b, layout &l, format kind, int rows, int cols, bool bias) {
    linear w = {kind, rows, cols, linear_pitch(cols), nullptr, nullptr, nullptr};
    const size_t n = (size_t)rows * (size_t)w.pitch;
    w.weights = l.get<unsigned char>(n, kind == format::stored ? element(b) : 1);
    if (kind != format::stored) w.scales = l.get<float>(n / UNIT);
    if (bias) w.bias = l.get<float>((size_t)rows);
    return w;
}

void place_weights(state *b, layout &l) {
    const model_config *c = &b->m->config;
    const int d = c->head_dim;
    for (int i = 0; i < c->layers; i++) {
        const model_layer *from = &b->m->layer[i];
        layer *to = &b->layers[i];
        to->attn_norm = l.get<float>((size_t)c->hidden);
        to->mlp_norm = l.get<float>((size_t)c->hidden);
        to->qkv =
            place_linear(b, l, b->weights, (c->heads + 2 * c->kv_heads) * d, c->hidden, from->q_bias.data);
        to->o = place_linear(b, l, b->weights, c->hidden, c->heads * d, from->o_bias.data);
        to->gate_up = place_linear(b, l, b->weights, 2 * c->intermediate, c->hidden, from->gate_bias.data);
        to->down = place_linear(b, l, b->weights, c->hidden, c->intermediate, from->down_bias.data);
    }
    b->final_norm = l.get<float>((size_t)c->hidden);
    b->head = place_linear(b, l, b->weights, (int)b->m->head.rows, c->hidden, false);
    b->tied = c->tied_embeddings && b->m->head.rows == b->m->embed.rows;
    b->embeddings = b->tied ? b->head : place_linear(b, l, format::stored, c->vocab, c->hidden, false);
}

void place_cache(state *b, layout &l) {
    const model_config *c = &b->m->config;
    attention *a = &b->attend;
    a->heads = c->heads;
    a->kv_heads = c->kv_heads;
    a->head_dim = c->head_dim;
    a->dim = padded_dim(c->head_dim);
    a->block_tokens = b->base.opt.block_tokens;
    a->scale = 1.0f / sqrtf((float)c->head_dim);
    b->cache_layer = (size_t)c->kv_heads * (size_t)(2 * a->block_tokens * a->dim);
    a->block_stride = b->cache_layer * (size_t)c->layers;
    b->cache = l.get<unsigned char>((size_t)b->base.opt.kv_blocks * a->block_stride, element(b));
}

int positions(const state *b) {
    return b->base.opt.max_blocks_per_seq * b->base.opt.block_tokens;
}

/* Partial results of split tiles: room for every sequence's decode at a few thousand positions, 64 MiB at most. When it is used
 * up, tiles are not split, with the same result. */
void size_items(state *b) {
    const backend_options *o = &b->base.opt;
    const model_config *c = &b->m->config;
    const int group = c->heads / c->kv_heads, chunks = (positions(b) + CHUNK - 1) / CHUNK;
    const int64_t room = ((int64_t)64 << 20) / (int64_t)((b->attend.dim + 2) * (int)sizeof(float)),
                  all = (int64_t)o->max_seqs * partial_rows(c->kv_heads, group, chunks);
    b->max_partial = (int)(all < room ? all : room);
    const int tiles = (o->max_tokens * group + TILE_ROWS - 1) / TILE_ROWS + o->max_seqs;
    b->max_items = tiles + b->max_partial / c->kv_heads;
    b->max_merges = tiles;
}

/* Room for penalties on every token of every sequence, 8 MiB at most; rows beyond are drawn by the caller. */
void size_changes(state *b) {
    const int64_t banned = 16, each = std::min(positions(b), b->m->config.vocab) + banned,
                  all = each * b->base.opt.max_seqs;
    b->max_changes = (int)std::min(all, (int64_t)1 << 20);
}

plan place_plan(const state *b, layout &l) {
    const backend_options *o = &b->base.opt;
    const size_t begin = l.used;
    plan p = {};
    p.counts = l.get<int>(2);
    p.ids = l.get<int>((size_t)o->max_tokens);
    p.token_seq = l.get<int>((size_t)o->max_tokens);
    p.token_pos = l.get<int>((size_t)o->max_tokens);
    p.logit_rows = l.get<int>((size_t)o->max_logits);
    p.draws = l.get<draw_row>((size_t)o->max_logits);
    p.seqs = l.get<sequence>((size_t)o->max_seqs);
    p.merges = l.get<merge_item>((size_t)b->max_merges);
    p.items = l.get<attend_item>((size_t)b->max_items);
    p.tables = l.get<int>((size_t)o->max_seqs * (size_t)o->max_blocks_per_seq);
    p.bytes = l.used - begin;
    p.changes = l.get<logit_change>((size_t)b->max_changes);
    p.masks = l.get<uint64_t>((size_t)o->max_seqs * (size_t)mask_words(b->m->config.vocab));
    return p;
}

constexpr size_t SUM_PIECE = (size_t)1 << 20; /* floats of each rank that are gathered at once */

/* What NVIDIA advises for the library; widened weights by pieces of some rows. */
constexpr size_t CUBLAS_WORK = (size_t)32 << 20, CUBLAS_WIDE = (size_t)64 << 20;

cublas_room place_cublas(const state *b, layout &l) {
    const int pitches[] = {b->hidden_pitch, b->att_pitch, b->act_pitch};
    size_t row = 0;
    for (int pitch : pitches) row = std::max((size_t)pitch * element(b), row);
    cublas_room room = {};
    room.work_bytes = CUBLAS_WORK;
    room.work = l.get<unsigned char>(room.work_bytes);
    if (b->weights == format::stored) return room;
    room.wide_bytes = std::max(row, CUBLAS_WIDE);
    room.wide = l.get<unsigned char>(room.wide_bytes);
    return room;
}

rounded place_rounded(layout &l, size_t rows, int pitch) {
    rounded r = {};
    r.bytes = l.get<uint8_t>(rows * (size_t)pitch);
    r.scales = l.get<float>(rows * (size_t)(pitch / UNIT));
    return r;
}

/* The inputs of products; h has also the rows that want logits. */
void place_inputs(state *b, layout &l, size_t tokens, size_t rows) {
    if (b->rounds) {
        b->attend.wide = l.get<float>(tokens * (size_t)b->att_pitch);
        b->h8 = place_rounded(l, rows, b->hidden_pitch);
        b->att8 = place_rounded(l, tokens, b->att_pitch);
        b->act8 = place_rounded(l, tokens, b->act_pitch);
        return;
    }
    b->att = l.get<unsigned char>(tokens * (size_t)b->att_pitch, element(b));
    b->h = l.get<unsigned char>(rows * (size_t)b->hidden_pitch, element(b));
    b->act = l.get<unsigned char>(tokens * (size_t)b->act_pitch, element(b));
}

void place_workspace(state *b, layout &l) {
    const backend_options *o = &b->base.opt;
    const model_config *c = &b->m->config;
    const size_t t = (size_t)o->max_tokens, logits = (size_t)o->max_logits, rows = t > logits ? t : logits;
    const int ranks = o->comm ? o->comm->size : 0;
    size_items(b);
    size_changes(b);
    b->hidden_pitch = linear_pitch(c->hidden);
    b->att_pitch = linear_pitch(c->heads * c->head_dim);
    b->act_pitch = linear_pitch(c->intermediate);
    b->angles = l.get<float>((size_t)positions(b) * (size_t)c->head_dim);
    b->dev = place_plan(b, l);
    b->dev_plan = (unsigned char *)b->dev.counts;
    b->x = l.get<float>(t * (size_t)c->hidden);
    b->y = l.get<float>(t * (size_t)c->hidden);
    b->qkv = l.get<float>(t * (size_t)((c->heads + 2 * c->kv_heads) * c->head_dim));
    b->gate_up = l.get<float>(t * (size_t)(2 * c->intermediate));
    b->q = l.get<unsigned char>(t * (size_t)(c->heads * b->attend.dim), element(b));
    place_inputs(b, l, t, rows);
    b->attend.partial = l.get<float>((size_t)b->max_partial * (size_t)(b->attend.dim + 2));
    b->rank_vocab = ranks ? shard_vocab(c->vocab, ranks) : c->vocab;
    b->gathered = l.get<float>((size_t)ranks * logits * (size_t)b->rank_vocab);
    b->logits = l.get<float>(logits * (size_t)c->vocab);
    b->room.chunks = sample_chunks(c->vocab);
    b->room.highest = l.get<float>(logits * (size_t)b->room.chunks);
    b->room.sum = l.get<double>(logits * (size_t)b->room.chunks);
    b->drawn = l.get<int>(logits);
    if (o->any_order) b->wide = place_cublas(b, l);
    if (o->comm && (!o->comm->ops || o->comm->ops->attach)) { /* without ops: only measured */
        b->sum_piece = t * (size_t)c->hidden < SUM_PIECE ? t * (size_t)c->hidden : SUM_PIECE;
        b->sums = l.get<float>((size_t)ranks * b->sum_piece);
    }
}

void place_all(state *b, layout &l) {
    place_weights(b, l);
    b->weight_bytes = l.used;
    place_cache(b, l);
    b->kv_bytes = l.used - b->weight_bytes;
    place_workspace(b, l);
    b->workspace_bytes = l.used - b->weight_bytes - b->kv_bytes;
}

int take_memory(state *b, engine_error *err) {
    layout measured = {nullptr, 0};
    place_all(b, measured);
    size_t free_bytes = 0, total = 0;
    if (check(cudaMemGetInfo(&free_bytes, &total), "cannot ask the GPU for its memory", err)) return -1;
    if (measured.used > free_bytes) {
        return engine_fail(err, ENGINE_ENOMEM,
                           "GPU %d has %.1f GiB free; this needs %.1f GiB of weights, %.1f of KV cache "
                           "(lower kv_tokens) and "
                           "%.1f of workspace (lower step_tokens)",
                           b->device, (double)free_bytes / 0x1p30, (double)b->weight_bytes / 0x1p30,
                           (double)b->kv_bytes / 0x1p30, (double)b->workspace_bytes / 0x1p30);
    }
    if (check(cudaMalloc((void **)&b->memory, measured.used), "cannot take the GPU's memory", err)) return -1;
    layout placed = {b->memory, 0};
    place_all(b, placed);
    return check(cudaMemsetAsync(b->memory, 0, placed.used, b->stream), "cannot clear the GPU's memory", err);
}

int take_host_memory(state *b, engine_error *err) {
    const size_t rows = (size_t)b->base.opt.max_logits;
    for (turn &t : b->turns) {
        layout measured = {nullptr, 0};
        place_plan(b, measured);
        if (check(cudaHostAlloc((void **)&t.memory, measured.used, cudaHostAllocDefault),
                  "no pinned memory for batches", err) ||
            check(cudaHostAlloc((void **)&t.drawn, rows * sizeof(int), cudaHostAllocDefault),
                  "no pinned memory for tokens", err) ||
            check(cudaEventCreateWithFlags(&t.over, cudaEventDisableTiming), "cannot make an event", err))
            return -1;
        layout placed = {t.memory, 0};
        t.host = place_plan(b, placed);
    }
    return check(cudaHostAlloc((void **)&b->host_logits, rows * (size_t)b->m->config.vocab * sizeof(float),
                               cudaHostAllocDefault),
                 "no pinned memory for logits", err);
}

/* cosines and sines of every position, as the CPU has them */
int fill_angles(state *b, engine_error *err) {
    const model_config *c = &b->m->config;
    const size_t half = (size_t)c->head_dim / 2, n = (size_t)positions(b) * 2 * half;
    float *frequency = (float *)malloc(half * sizeof(float)), *all = (float *)malloc(n * sizeof(float));
    int rc = -1;
    if (!frequency || !all) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
        goto done;
    }
    rope_frequencies(c, frequency);
    for (int p = 0; p < positions(b); p++) {
        float *at = all + (size_t)p * 2 * half;
        rope_angles(c, frequency, p, at, at + half);
    }
    rc = check(cudaMemcpyAsync(b->angles, all, n * sizeof(float), cudaMemcpyHostToDevice, b->stream),
               "angles", err);
    if (!rc) rc = check(cudaStreamSynchronize(b->stream), "angles", err);
done:
    free(frequency);
    free(all);
    return rc;
}

int check_options(state *b, engine_error *err) {
    const backend_options *o = &b->base.opt;
    static const struct {
        const char *name;
        format kind;
        bool rounds;
    } known[] = {{"stored", format::stored, false},
                 {"int8", format::int8, true},
                 {"int8-a16", format::int8, false},
                 {"fp8", format::fp8, true},
                 {"fp8-a16", format::fp8, false}};
    const char *name = o->weights ? o->weights : "stored";
    if (!strcmp(name, "stored") && b->m->config.int8)
        name = b->m->config.int8_activations ? "int8" : "int8-a16";
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(name, known[i].name)) i++;
    if (i == sizeof known / sizeof *known)
        return engine_fail(err, ENGINE_EINVAL,
                           "unknown weights \"%s\": a GPU has stored, int8, int8-a16, fp8 or fp8-a16", name);
    b->weights = known[i].kind;
    b->rounds = known[i].rounds;
    if (o->kv && strcmp(o->kv, "full"))
        return engine_fail(err, ENGINE_EINVAL, "a GPU has no KV cache \"%s\": use full", o->kv);
    if (o->block_tokens < 16 || o->block_tokens % 16)
        return engine_fail(err, ENGINE_EINVAL, "KV blocks must be a multiple of 16 tokens, not %d",
                           o->block_tokens);
    if (!has_dim(padded_dim(b->m->config.head_dim)))
        return engine_fail(err, ENGINE_EINVAL, "heads of %d elements are not supported on a GPU (at most %d)",
                           b->m->config.head_dim, DIM_MAX);
    return 0;
}

int open_device(state *b, engine_error *err) {
    int n = cuda_devices();
    cudaDeviceProp prop;
    b->device = b->base.opt.comm ? b->base.opt.comm->rank : 0;
    if (b->device >= n)
        return engine_fail(err, ENGINE_EINVAL, "GPU %d is wanted, but this machine has %d that can be used",
                           b->device, n);
    if (check(cudaSetDevice(b->device), "cannot use the GPU", err) ||
        check(cudaGetDeviceProperties(&prop, b->device), "cannot ask the GPU what it is", err)) {
        return -1;
    }
    b->sms = prop.multiProcessorCount;
    return check(cudaStreamCreateWithFlags(&b->stream, cudaStreamNonBlocking), "cannot make a stream", err);
}

/* What needs no GPU yet: afterwards place_all may measure. */
int prepare(state *b, const model *m, const backend_options *opt, engine_error *err) {
    b->base.opt = *opt;
    b->base.vocab = m->config.vocab;
    b->m = m;
    b->type = m->config.stored;
    b->layers = (layer *)calloc((size_t)m->config.layers, sizeof *b->layers);
    if (!b->layers) return engine_fail(err, ENGINE_ENOMEM, "out of memory");
    return check_options(b, err);
}

int open_all(state *b, engine_error *err) {
    if (open_device(b, err) || take_memory(b, err) || take_host_memory(b, err)) return -1;
    if (load_weights(b, err) || fill_angles(b, err)) return -1;
    if (b->base.opt.any_order && !(b->library = cublas_new(b->wide, err))) return -1;
    comm *c = b->base.opt.comm;
    if (c && c->ops->attach) c->ops->attach(c, b->stream, b->sums, b->sum_piece);
    return check(cudaStreamSynchronize(b->stream), "cannot load the weights", err);
}

void close(backend *base) {
    state *b = (state *)base;
    if (b->stream) cudaStreamSynchronize(b->stream);
    forward_done(b);
    cublas_free(b->library);
    cudaFree(b->memory);
    for (turn &t : b->turns) {
        cudaFreeHost(t.memory);
        cudaFreeHost(t.drawn);
        if (t.over) cudaEventDestroy(t.over);
    }
    cudaFreeHost(b->host_logits);
    if (b->stream) cudaStreamDestroy(b->stream);
    free(b->layers);
    free(b);
}

int say_failure(const state *b, engine_error *err) {
    if (b->failure.code && err) *err = b->failure;
    return b->failure.code ? -1 : 0;
}

int begin(backend *base, const batch_seq *seqs, int nseqs, engine_error *err) {
    state *b = (state *)base;
    if (!b->failure.code) begin_pass(b, seqs, nseqs, &b->failure);
    return say_failure(b, err);
}

int finish(backend *base, batch_result *result, engine_error *err) {
    state *b = (state *)base;
    if (!b->failure.code) finish_pass(b, result, &b->failure);
    return say_failure(b, err);
}

int forward(backend *base, const batch_seq *seqs, int nseqs, float **logits, engine_error *err) {
    batch_result result;
    if (begin(base, seqs, nseqs, err) || finish(base, &result, err)) return -1;
    *logits = ((state *)base)->host_logits;
    return 0;
}

bool runs_ahead(const backend *base) {
    return draws_all((const state *)base);
}

/* In the order of the stream: before the next pass, and after the last. */
void copy_block(backend *base, int32_t from, int32_t to) {
    state *b = (state *)base;
    const size_t n = b->attend.block_stride * element(b);
    unsigned char *cache = (unsigned char *)b->cache;
    const cudaError_t status = cudaMemcpyAsync(cache + (size_t)to * n, cache + (size_t)from * n, n,
                                               cudaMemcpyDeviceToDevice, b->stream);
    if (status != cudaSuccess) check(status, "cannot copy a KV block", &b->failure);
}

backend_memory memory(const backend *base) {
    const state *b = (const state *)base;
    return {b->weight_bytes, b->kv_bytes, b->workspace_bytes};
}

const char *isa(const backend *) {
    return "cuda";
}

} // namespace

} // namespace cuda

extern "C" int cuda_devices(void) {
    int n = 0;
    return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

extern "C" size_t cuda_free_memory(void) {
    size_t free_bytes = 0, total = 0;
    return cuda_devices() && cudaMemGetInfo(&free_bytes, &total) == cudaSuccess ? free_bytes : 0;
}

extern "C" int backend_measure_cuda(const model *m, const backend_options *opt, backend_memory *out,
                                    engine_error *err) {
    cuda::state b = {};
    const int rc = cuda::prepare(&b, m, opt, err);
    if (!rc) {
        cuda::layout l = {nullptr, 0};
        cuda::place_all(&b, l);
        *out = cuda::memory(&b.base);
    }
    free(b.layers);
    return rc;
}

extern "C" backend *backend_open_cuda(const model *m, const backend_options *opt, engine_error *err) {
    static const backend_ops ops = {cuda::forward,    cuda::begin, cuda::finish, cuda::runs_ahead,
                                    cuda::copy_block, cuda::close, cuda::memory, cuda::isa};
    cuda::state *b = (cuda::state *)calloc(1, sizeof *b);
    if (!b) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
        return NULL;
    }
    b->base.ops = &ops;
    if (!cuda::prepare(b, m, opt, err) && !cuda::open_all(b, err)) return &b->base;
    cuda::close(&b->base);
    return NULL;
}

/* The CPU backend: takes all of its memory, and sets the threads to run each batch.
 *
 * Matrices are read where they lie in the checkpoint's mapping, or quantised from there; norms and biases, which are small,
 * are widened to f32. One caller at a time; its thread is thread 0 of the pass.
 */
#include "engine/cpu/cpu.h"
#include "engine/cpu/rope.h"
#include "engine/model/shard.h"

#include <stdlib.h>
#include <string.h>

static const float *widened(cpu_backend *b, const tensor *t) {
    if (!t->data) return NULL;
    float *out = arena_get(&b->weight_arena, (size_t)t->cols, sizeof *out);
    if (out) b->k->widen(out, t->data, t->type, (int)t->cols);
    return out;
}

static bool is_int8(const cpu_backend *b) {
    return matrix_is_int8(b->weights);
}

static matrix_format format_of(const cpu_backend *b, dtype type) {
    static const matrix_format stored[] = {
        [DTYPE_F32] = MATRIX_F32, [DTYPE_F16] = MATRIX_F16, [DTYPE_BF16] = MATRIX_BF16};
    if (is_int8(b)) return b->weights;
    if (type == DTYPE_I8) return b->model->config.int8_activations ? MATRIX_W8A8 : MATRIX_W8A16;
    return type == DTYPE_BF16 && b->k->matmul[MATRIX_BF16_TILED] ? MATRIX_BF16_TILED : stored[type];
}

/* A view of the stored weights, or the place where the tiled ones will be, or the columns of a shard. */
static matrix place_matrix(cpu_backend *b, const tensor *t, const tensor *bias) {
    matrix m = {.format = format_of(b, t->type),
                .rows = (int)t->rows,
                .cols = (int)t->cols,
                .data = t->data,
                .bias = bias ? widened(b, bias) : NULL};
    if (matrix_is_tiled(m.format)) {
        m.data =
            arena_get(&b->weight_arena, (size_t)matrix_tiles(m.rows), matrix_tile_bytes(m.format, m.cols));
    } else if (t->skip) {
        m.data = arena_get(&b->weight_arena, (size_t)m.rows, (size_t)m.cols * dtype_bytes(t->type));
    }
    if (m.data != t->data) b->copied += tensor_bytes(t);
    return m;
}

static void place_layer(cpu_backend *b, cpu_layer *out, const model_layer *l) {
    *out = (cpu_layer){
        .attn_norm = widened(b, &l->attn_norm),
        .mlp_norm = widened(b, &l->mlp_norm),
        .q = place_matrix(b, &l->q, &l->q_bias),
        .k = place_matrix(b, &l->k, &l->k_bias),
        .v = place_matrix(b, &l->v, &l->v_bias),
        .o = place_matrix(b, &l->o, &l->o_bias),
        .gate = place_matrix(b, &l->gate, &l->gate_bias),
        .up = place_matrix(b, &l->up, &l->up_bias),
        .down = place_matrix(b, &l->down, &l->down_bias),
    };
}

static void place_weights(cpu_backend *b) {
    const model *m = b->model;
    b->copied = 0;
    for (int i = 0; i < m->config.layers; i++) place_layer(b, &b->layer[i], &m->layer[i]);
    b->final_norm = widened(b, &m->final_norm);
    b->head = place_matrix(b, &m->head, NULL);
    b->embed_in_head =
        m->config.tied_embeddings && matrix_is_tiled(b->head.format) && m->head.rows == m->embed.rows;
    float *frequency = arena_get(&b->weight_arena, (size_t)m->config.head_dim / 2, sizeof *frequency);
    if (frequency) rope_frequencies(&m->config, frequency);
    b->rope_frequency = frequency;
}

static int widest_input(const model_config *c) {
    int widest = c->heads * c->head_dim;
    if (widest < c->hidden) widest = c->hidden;
    return widest < c->intermediate ? c->intermediate : widest;
}

static size_t packed_row(int cols) {
    const size_t as_bf16 = matrix_packed_bytes(MATRIX_BF16_TILED, cols),
                 as_int8 = matrix_packed_bytes(MATRIX_W8A8, cols);
    return as_bf16 > as_int8 ? as_bf16 : as_int8;
}

/* h and packed hold a row per token, and later one per row of logits. */
static cpu_rows place_rows(cpu_backend *b, size_t tokens, size_t logits) {
    const model_config *c = &b->model->config;
    arena *w = &b->workspace;
    const size_t half = (size_t)c->head_dim / 2, f = sizeof(float), most = tokens > logits ? tokens : logits;
    cpu_rows r;
    r.cos = arena_get(w, tokens, half * f);
    r.sin = arena_get(w, tokens, half * f);
    r.x = arena_get(w, tokens, (size_t)c->hidden * f);
    r.h = arena_get(w, most, (size_t)c->hidden * f);
    r.packed = arena_get(w, most, packed_row(widest_input(c)));
    return r;
}

static void place_workspace(cpu_backend *b) {
    const model_config *c = &b->model->config;
    arena *w = &b->workspace;
    const size_t t = (size_t)b->base.opt.max_tokens, f = sizeof(float);
    const size_t d = (size_t)c->head_dim, hidden = (size_t)c->hidden, wide = (size_t)c->intermediate;
    const size_t logits = (size_t)b->base.opt.max_logits;
    b->token = arena_get(w, t, sizeof *b->token);
    b->logit_token = arena_get(w, logits, sizeof *b->logit_token);
    b->shared = place_rows(b, t, logits);
    for (int i = 0; i < b->base.opt.threads; i++) b->own[i] = place_rows(b, CPU_FEW_TOKENS, CPU_FEW_TOKENS);
    b->q = arena_get(w, t, (size_t)c->heads * d * f);
    b->att = arena_get(w, t, (size_t)c->heads * d * f);
    b->key = arena_get(w, t, (size_t)c->kv_heads * d * f);
    b->value = arena_get(w, t, (size_t)c->kv_heads * d * f);
    b->y = arena_get(w, t, hidden * f);
    b->gate = arena_get(w, t, wide * f);
    b->up = arena_get(w, t, wide * f);
    b->packed_parts = arena_get(w, t, packed_row(widest_input(c)));
    b->dealt = arena_get(w, (size_t)b->base.opt.threads, sizeof *b->dealt);
    b->scores_stride = (size_t)b->base.opt.max_blocks_per_seq * (size_t)b->base.opt.block_tokens;
    b->scores = arena_get(w, (size_t)b->base.opt.threads * ATTEND_ROWS, b->scores_stride * f);
    b->logits = arena_get(w, logits, (size_t)c->vocab * f);
    b->failure = arena_get(w, 1, sizeof *b->failure);
    const int ranks = b->base.opt.comm ? b->base.opt.comm->size : 0;
    b->rank_vocab = ranks ? shard_vocab(c->vocab, ranks) : c->vocab;
    b->gathered = arena_get(w, (size_t)ranks * logits, (size_t)b->rank_vocab * f);
}

static void place_cache(cpu_backend *b) {
    const model_config *c = &b->model->config;
    b->kv = kv_layout_of(c, b->kv.type, b->base.opt.block_tokens);
    b->kv_layer_bytes = b->kv.block_bytes * (size_t)b->base.opt.kv_blocks;
    b->kv_data = arena_get(&b->cache, b->kv_layer_bytes, (size_t)c->layers);
}

/* Measures with an empty arena, takes it, and places for real. */
static int place(cpu_backend *b, void (*layout)(cpu_backend *), arena *a, const char *what,
                 engine_error *err) {
    layout(b);
    if (arena_take(a, what, err)) return -1;
    layout(b);
    return 0;
}

static int check_options(const backend_options *o, engine_error *err) {
    if (o->threads < 1 || o->threads > 1024) {
        return engine_fail(err, ENGINE_EINVAL, "threads must be from 1 to 1024, not %d", o->threads);
    }
    if (o->block_tokens < KERNEL_LANES || o->block_tokens % KERNEL_LANES || o->block_tokens > 4096) {
        return engine_fail(err, ENGINE_EINVAL,
                           "KV blocks must be a multiple of %d tokens, up to 4096, not %d", KERNEL_LANES,
                           o->block_tokens);
    }
    if (o->kv_blocks < 1 || o->max_tokens < 1 || o->max_logits < 1 || o->max_seqs < 1 ||
        o->max_blocks_per_seq < 1) {
        return engine_fail(err, ENGINE_EINVAL, "the backend's sizes must be above zero");
    }
    if (o->max_blocks_per_seq > INT32_MAX / o->block_tokens) {
        return engine_fail(err, ENGINE_EINVAL, "%d blocks for one sequence are too many",
                           o->max_blocks_per_seq);
    }
    return 0;
}

static int choose_weights(cpu_backend *b, engine_error *err) {
    const char *name = b->base.opt.weights ? b->base.opt.weights : "stored";
    b->weights = !strcmp(name, "int8")       ? MATRIX_W8A8
                 : !strcmp(name, "int8-a16") ? MATRIX_W8A16
                                             : MATRIX_FORMATS;
    if (is_int8(b) || !strcmp(name, "stored")) return 0;
    return engine_fail(err, ENGINE_EINVAL, "unknown weights \"%s\": use stored, int8 or int8-a16", name);
}

/* ---- quantisation and copies at open: the tiles and rows of each matrix are dealt to the threads ---- */

/* Ranks have slices of a model that was fetched, and share its pages. */
static void fetch_rows(const cpu_backend *b, const tensor *t, int64_t first, int64_t end) {
    if (!b->base.opt.comm) model_fetch(b->model, t, first, end < t->rows ? end : t->rows);
}

static void load_rows(const cpu_backend *b, int thread, const tensor *t, const matrix *m, int first,
                      int end) {
    const bool tiled = matrix_is_tiled(m->format);
    const int unit = tiled ? TILE_LANES : 1;
    unsigned char *out = (unsigned char *)m->data;
    for (int row = first + thread * unit; row < end; row += pool_threads(b->pool) * unit) {
        fetch_rows(b, t, row, row + unit);
        if (tiled)
            matrix_make_tile(t, m->format, row / unit, out);
        else if (m->data != t->data)
            matrix_copy_row(t, row, out);
    }
}

/* By pieces, each of which leaves memory when it was copied: the stored and the new model are never there together. */
static void load_matrix(const cpu_backend *b, int thread, const tensor *t, const matrix *m) {
    const size_t row_bytes = (size_t)t->cols * dtype_bytes(t->type), most = (size_t)16 << 20;
    const int piece = ((int)(most / row_bytes) / TILE_LANES + 1) * TILE_LANES;
    for (int first = 0; first < m->rows; first += piece) {
        const int end = m->rows - first < piece ? m->rows : first + piece;
        load_rows(b, thread, t, m, first, end);
        if (m->data == t->data || b->base.opt.comm) continue;
        pool_barrier(b->pool);
        if (thread == 0) model_release(t, first, end);
    }
}

static void load_thread(void *arg, int thread) {
    const cpu_backend *b = arg;
    const model *m = b->model;
    for (int i = 0; i < m->config.layers; i++) {
        const model_layer *from = &m->layer[i];
        const cpu_layer *to = &b->layer[i];
        load_matrix(b, thread, &from->q, &to->q);
        load_matrix(b, thread, &from->k, &to->k);
        load_matrix(b, thread, &from->v, &to->v);
        load_matrix(b, thread, &from->o, &to->o);
        load_matrix(b, thread, &from->gate, &to->gate);
        load_matrix(b, thread, &from->up, &to->up);
        load_matrix(b, thread, &from->down, &to->down);
    }
    load_matrix(b, thread, &m->head, &b->head);
    if (m->embed.data == m->head.data) return;
    for (int64_t row = thread; row < m->embed.rows; row += pool_threads(b->pool)) {
        fetch_rows(b, &m->embed, row, row + 1);
    }
}

static int choose(cpu_backend *b, const model *m, const backend_options *opt, engine_error *err) {
    b->base.opt = *opt;
    b->base.vocab = m->config.vocab;
    b->model = m;
    if (check_options(opt, err) || choose_weights(b, err) || kv_type(&m->config, opt->kv, &b->kv.type, err))
        return -1;
    b->k = kernels_select(opt->isa, err);
    if (!b->k) return -1;
    b->layer = calloc((size_t)m->config.layers, sizeof *b->layer);
    b->own = calloc((size_t)opt->threads, sizeof *b->own);
    return b->layer && b->own ? 0 : engine_fail(err, ENGINE_ENOMEM, "out of memory");
}

static int open_backend(cpu_backend *b, const model *m, const backend_options *opt, engine_error *err) {
    if (choose(b, m, opt, err)) return -1;
    if (place(b, place_weights, &b->weight_arena, "weights", err) ||
        place(b, place_workspace, &b->workspace, "workspace (lower step_tokens)", err) ||
        place(b, place_cache, &b->cache, "KV cache (lower kv_tokens)", err)) {
        return -1;
    }
    b->pool = pool_new(b->base.opt.threads, err);
    if (!b->pool) return -1;
    pool_run(b->pool, load_thread, b);
    return 0;
}

static void cpu_close(backend *base) {
    cpu_backend *b = (cpu_backend *)base;
    pool_free(b->pool);
    arena_done(&b->weight_arena);
    arena_done(&b->workspace);
    arena_done(&b->cache);
    free(b->layer);
    free(b->own);
    free(b);
}

static void set_batch(cpu_backend *b, const batch_seq *seqs, int nseqs) {
    b->seqs = seqs;
    b->nseqs = nseqs;
    b->ntokens = b->nlogits = 0;
    b->first_stage += (unsigned)forward_stages(b);
    for (int i = 0; i < nseqs; i++) {
        const batch_seq *s = &seqs[i];
        for (int t = 0; t < s->ntokens; t++) {
            if (t >= s->ntokens - s->nlogits) b->logit_token[b->nlogits++] = b->ntokens;
            b->token[b->ntokens++] = (cpu_token){.id = s->tokens[t], .pos = s->pos + t, .seq = s};
        }
    }
}

static int cpu_forward(backend *base, const batch_seq *seqs, int nseqs, float **logits, engine_error *err) {
    cpu_backend *b = (cpu_backend *)base;
    set_batch(b, seqs, nseqs);
    *logits = b->logits;
    if (b->ntokens) pool_run(b->pool, forward_thread, b);
    if (b->failure->code && err) *err = *b->failure;
    return b->failure->code ? -1 : 0;
}

static void cpu_copy_block(backend *base, int32_t from, int32_t to) {
    cpu_backend *b = (cpu_backend *)base;
    const size_t n = b->kv.block_bytes;
    for (int i = 0; i < b->model->config.layers; i++) {
        unsigned char *layer = b->kv_data + (size_t)i * b->kv_layer_bytes;
        memcpy(layer + (size_t)to * n, layer + (size_t)from * n, n);
    }
}

static backend_memory cpu_memory(const backend *base) {
    const cpu_backend *b = (const cpu_backend *)base;
    return (backend_memory){.weights = b->model->bytes - b->copied + b->weight_arena.size,
                            .kv = b->cache.size,
                            .workspace = b->workspace.size};
}

static const char *cpu_isa(const backend *base) {
    return ((const cpu_backend *)base)->k->isa;
}

backend *backend_open_cpu(const model *m, const backend_options *opt, engine_error *err) {
    static const backend_ops ops = {.forward = cpu_forward,
                                    .copy_block = cpu_copy_block,
                                    .close = cpu_close,
                                    .memory = cpu_memory,
                                    .isa = cpu_isa};
    cpu_backend *b = calloc(1, sizeof *b);
    if (!b) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
        return NULL;
    }
    b->base.ops = &ops;
    if (!open_backend(b, m, opt, err)) return &b->base;
    cpu_close(&b->base);
    return NULL;
}

int backend_measure_cpu(const model *m, const backend_options *opt, backend_memory *out, engine_error *err) {
    cpu_backend b = {0};
    int rc = choose(&b, m, opt, err);
    if (rc == 0) {
        place_weights(&b);
        place_workspace(&b);
        place_cache(&b);
        *out = (backend_memory){.weights = m->bytes - b.copied + b.weight_arena.used,
                                .kv = b.cache.used,
                                .workspace = b.workspace.used};
    }
    free(b.layer);
    free(b.own);
    return rc;
}

/* Weights from the checkpoint's mapping to the device: through two pinned buffers, so that reading the file, the copy and the
 * conversion on the GPU go on at the same time. What is quantised is quantised there. Each rank reads its own shard only.
 */
#include "engine/cuda/state.h"

#include <cstring>

namespace cuda {

namespace {

constexpr size_t BUFFER_BYTES = (size_t)32 << 20;

struct loader {
    state *b;
    unsigned char *host[2], *device[2];
    cudaEvent_t free_again[2]; /* the GPU has read it */
    int turn;
    size_t bytes;       /* of a buffer: a row fits */
    size_t done, total; /* bytes of the checkpoint */
    bool counts;        /* finds out the total, and loads nothing */
};

size_t widest_row(const model *m) {
    const model_config *c = &m->config;
    size_t widest = (size_t)c->hidden;
    if (widest < (size_t)(c->heads * c->head_dim)) widest = (size_t)(c->heads * c->head_dim);
    if (widest < (size_t)c->intermediate) widest = (size_t)c->intermediate;
    return widest * sizeof(float);
}

int loader_open(loader *l, state *b, engine_error *err) {
    *l = {};
    l->b = b;
    const size_t row = widest_row(b->m);
    l->bytes = row > BUFFER_BYTES ? row : BUFFER_BYTES;
    for (int i = 0; i < 2; i++) {
        if (check(cudaHostAlloc((void **)&l->host[i], l->bytes, cudaHostAllocDefault),
                  "no pinned memory to load with", err) ||
            check(cudaMalloc((void **)&l->device[i], l->bytes), "no memory on the GPU to load with", err) ||
            check(cudaEventCreateWithFlags(&l->free_again[i], cudaEventDisableTiming), "cannot make an event",
                  err)) {
            return -1;
        }
    }
    return 0;
}

void loader_close(loader *l) {
    cudaStreamSynchronize(l->b->stream);
    for (int i = 0; i < 2; i++) {
        cudaFreeHost(l->host[i]);
        cudaFree(l->device[i]);
        if (l->free_again[i]) cudaEventDestroy(l->free_again[i]);
    }
}

/* Bytes of a row as it goes to the device: 8-bit weights go as floats, and are rounded again by the same rule. */
size_t row_bytes(const tensor *t) {
    return (size_t)t->cols * (t->type == DTYPE_I8 ? sizeof(float) : dtype_bytes(t->type));
}

/* Rows of a tensor, side by side. */
void copy_rows(const tensor *t, int64_t first, int64_t n, unsigned char *out) {
    const size_t row = row_bytes(t), stride = (size_t)(t->cols + t->skip) * dtype_bytes(t->type);
    const unsigned char *from = (const unsigned char *)t->data + (size_t)first * stride;
    if (t->type == DTYPE_I8) {
        for (int64_t i = 0; i < n; i++)
            tensor_read(t, first + i, 0, (int)t->cols, (float *)(out + (size_t)i * row));
        return;
    }
    if (!t->skip) {
        memcpy(out, from, (size_t)n * row);
        return;
    }
    for (int64_t i = 0; i < n; i++) memcpy(out + (size_t)i * row, from + (size_t)i * stride, row);
}

template <typename S>
void convert_rows(const state *b, const linear &w, int first, const void *from, int rows, dtype to) {
    if (w.kind != format::stored)
        linear_quantise(w, first, (const S *)from, rows, b->stream);
    else if (to == DTYPE_F32)
        linear_store<S, float>(w, first, (const S *)from, rows, b->stream);
    else if (to == DTYPE_F16)
        linear_store<S, __half>(w, first, (const S *)from, rows, b->stream);
    else
        linear_store<S, __nv_bfloat16>(w, first, (const S *)from, rows, b->stream);
}

/* Of the file, for n rows. */
size_t read_bytes(const tensor *t, int64_t n) {
    return (size_t)n * (size_t)t->cols * dtype_bytes(t->type);
}

/* Of one rank, whose thread is the caller's. */
void say_progress(const loader *l) {
    const backend_options *o = &l->b->base.opt;
    if (o->loading && (!o->comm || o->comm->rank == 0)) o->loading(o->loading_arg, l->done, l->total);
}

/* All rows of t become rows [first, …) of w, whose stored type is `to`. */
int load(loader *l, const tensor *t, const linear &w, int first, dtype to, engine_error *err) {
    state *b = l->b;
    const size_t row = row_bytes(t);
    l->total += l->counts ? read_bytes(t, t->rows) : 0;
    if (l->counts) return 0;
    const int64_t most = (int64_t)(l->bytes / row) < 32768 ? (int64_t)(l->bytes / row) : 32768;
    for (int64_t at = 0; at < t->rows; at += most) {
        const int64_t n = t->rows - at < most ? t->rows - at : most;
        const int i = l->turn++ % 2;
        if (check(cudaEventSynchronize(l->free_again[i]), "cannot load the weights", err)) return -1;
        if (!b->base.opt.comm) model_fetch(b->m, t, at, at + n);
        copy_rows(t, at, n, l->host[i]);
        if (!b->base.opt.comm) model_release(t, at, at + n);
        if (check(
                cudaMemcpyAsync(l->device[i], l->host[i], (size_t)n * row, cudaMemcpyHostToDevice, b->stream),
                "cannot load the weights", err)) {
            return -1;
        }
        switch (t->type) {
        case DTYPE_I8:
        case DTYPE_F32: convert_rows<float>(b, w, first + (int)at, l->device[i], (int)n, to); break;
        case DTYPE_F16: convert_rows<__half>(b, w, first + (int)at, l->device[i], (int)n, to); break;
        case DTYPE_BF16: convert_rows<__nv_bfloat16>(b, w, first + (int)at, l->device[i], (int)n, to); break;
        }
        if (check(cudaGetLastError(), "cannot load the weights", err) ||
            check(cudaEventRecord(l->free_again[i], b->stream), "cannot load the weights", err)) {
            return -1;
        }
        l->done += read_bytes(t, n);
        say_progress(l);
    }
    return 0;
}

/* A vector, to floats; nothing where the model has none. */
int load_vector(loader *l, const tensor *t, float *to, int first, engine_error *err) {
    if (!t->data) return 0;
    const linear w = {format::stored, 1, (int)t->cols, (int)t->cols, to + first, nullptr, nullptr};
    return load(l, t, w, 0, DTYPE_F32, err);
}

int load_matrix(loader *l, const tensor *t, const tensor *bias, const linear &w, int first,
                engine_error *err) {
    return load(l, t, w, first, l->b->type, err) || (bias && load_vector(l, bias, w.bias, first, err)) ? -1
                                                                                                       : 0;
}

int load_layer(loader *l, const model_layer *from, const layer *to, engine_error *err) {
    const model_config *c = &l->b->m->config;
    const int q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    if (load_vector(l, &from->attn_norm, to->attn_norm, 0, err)) return -1;
    if (load_vector(l, &from->mlp_norm, to->mlp_norm, 0, err)) return -1;
    if (load_matrix(l, &from->q, &from->q_bias, to->qkv, 0, err)) return -1;
    if (load_matrix(l, &from->k, &from->k_bias, to->qkv, q, err)) return -1;
    if (load_matrix(l, &from->v, &from->v_bias, to->qkv, q + kv, err)) return -1;
    if (load_matrix(l, &from->o, &from->o_bias, to->o, 0, err)) return -1;
    if (load_matrix(l, &from->gate, &from->gate_bias, to->gate_up, 0, err)) return -1;
    if (load_matrix(l, &from->up, &from->up_bias, to->gate_up, c->intermediate, err)) return -1;
    return load_matrix(l, &from->down, &from->down_bias, to->down, 0, err);
}

int load_model(loader *l, engine_error *err) {
    const state *b = l->b;
    for (int i = 0; i < b->m->config.layers; i++) {
        if (load_layer(l, &b->m->layer[i], &b->layers[i], err)) return -1;
    }
    if (load_vector(l, &b->m->final_norm, b->final_norm, 0, err)) return -1;
    if (load_matrix(l, &b->m->head, NULL, b->head, 0, err)) return -1;
    if (b->tied) return 0;
    return load_matrix(l, &b->m->embed, NULL, b->embeddings, 0, err);
}

} // namespace

int load_weights(state *b, engine_error *err) {
    loader l;
    int rc = loader_open(&l, b, err);
    l.counts = true;
    if (!rc) rc = load_model(&l, err);
    l.counts = false;
    if (!rc) rc = load_model(&l, err);
    loader_close(&l);
    return rc;
}

} // namespace cuda

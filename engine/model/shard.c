/* Slices of a model. Reads no weight: pages come in when a rank first touches its own. Called while a backend opens. */
#include "engine/model/shard.h"

#include <stdio.h>
#include <stdlib.h>

static bool fits(const model_config *c, int ranks) {
    return c->heads % ranks == 0 && c->intermediate % ranks == 0 &&
           (c->kv_heads % ranks == 0 || ranks % c->kv_heads == 0);
}

int shard_check(const model_config *c, int ranks, engine_error *err) {
    char possible[256];
    int n = 0;
    if (ranks >= 1 && ranks <= SHARD_RANKS_MAX && fits(c, ranks)) return 0;
    for (int r = 1; r <= SHARD_RANKS_MAX; r++) {
        if (fits(c, r)) n += snprintf(possible + n, sizeof possible - (size_t)n, "%s%d", n ? ", " : "", r);
    }
    return engine_fail(err, ENGINE_EINVAL,
                       "a model with %d heads, %d for keys and values, and an MLP of %d cannot be split over "
                       "%d ranks: it can over %s",
                       c->heads, c->kv_heads, c->intermediate, ranks, possible);
}

/* ---- slices; all count as the shard's ---- */

static tensor taken(model *m, tensor t) {
    m->parameters += t.rows * t.cols;
    m->bytes += tensor_bytes(&t);
    return t;
}

static const void *element_at(const tensor *t, int64_t i) {
    return (const char *)t->data + (size_t)i * dtype_bytes(t->type);
}

static tensor all(model *m, const tensor *t) {
    return t->data ? taken(m, *t) : *t;
}

static tensor rows(model *m, const tensor *t, int64_t first, int64_t n) {
    tensor part = *t;
    part.data = element_at(t, first * t->cols);
    part.rows = n;
    if (t->scale) {
        part.scale = (const char *)t->scale + (size_t)(first * t->row_scales) * dtype_bytes(t->scale_type);
    }
    return taken(m, part);
}

static tensor columns(model *m, const tensor *t, int64_t first, int64_t n) {
    tensor part = *t;
    if (!t->data) return part;
    part.data = element_at(t, first);
    part.cols = n;
    part.skip = t->cols - n;
    part.first_col = first;
    return taken(m, part);
}

/* A vector that goes with the rows of a matrix. */
static tensor places(model *m, const tensor *t, int64_t first, int64_t n) {
    tensor part = columns(m, t, first, n);
    part.skip = part.first_col = 0;
    return part;
}

static tensor only_of_rank_0(model *m, const tensor *t, int rank) {
    return rank ? (tensor){.rows = t->rows, .cols = t->cols} : all(m, t);
}

static void slice_layer(model *m, model_layer *out, const model_layer *l, int rank, int kv_rank) {
    const model_config *c = &m->config;
    const int64_t q = (int64_t)c->heads * c->head_dim, kv = (int64_t)c->kv_heads * c->head_dim,
                  wide = c->intermediate;
    *out = (model_layer){
        .attn_norm = all(m, &l->attn_norm),
        .q = rows(m, &l->q, rank * q, q),
        .k = rows(m, &l->k, kv_rank * kv, kv),
        .v = rows(m, &l->v, kv_rank * kv, kv),
        .o = columns(m, &l->o, rank * q, q),
        .mlp_norm = all(m, &l->mlp_norm),
        .gate = rows(m, &l->gate, rank * wide, wide),
        .up = rows(m, &l->up, rank * wide, wide),
        .down = columns(m, &l->down, rank * wide, wide),
        .q_bias = places(m, &l->q_bias, rank * q, q),
        .k_bias = places(m, &l->k_bias, kv_rank * kv, kv),
        .v_bias = places(m, &l->v_bias, kv_rank * kv, kv),
        .o_bias = only_of_rank_0(m, &l->o_bias, rank),
        .gate_bias = places(m, &l->gate_bias, rank * wide, wide),
        .up_bias = places(m, &l->up_bias, rank * wide, wide),
        .down_bias = only_of_rank_0(m, &l->down_bias, rank),
    };
}

static tensor slice_head(model *m, const tensor *head, int rank, int ranks) {
    int64_t part = shard_vocab(m->config.vocab, ranks), first = rank * part, vocab = m->config.vocab;
    if (first > vocab) first = vocab;
    return rows(m, head, first, vocab - first < part ? vocab - first : part);
}

int shard_init(model *m, const model *whole, int rank, int ranks, engine_error *err) {
    const int kv_heads = whole->config.kv_heads;
    *m = (model){.config = whole->config, .embed = whole->embed};
    m->config.heads /= ranks;
    m->config.intermediate /= ranks;
    m->config.kv_heads = kv_heads > ranks ? kv_heads / ranks : 1;
    m->layer = calloc((size_t)m->config.layers, sizeof *m->layer);
    if (!m->layer) return engine_fail(err, ENGINE_ENOMEM, "out of memory");
    /* with more ranks than KV heads, neighbours share one */
    const int kv_rank = kv_heads > ranks ? rank : rank * kv_heads / ranks;
    for (int i = 0; i < m->config.layers; i++) {
        slice_layer(m, &m->layer[i], &whole->layer[i], rank, kv_rank);
    }
    m->final_norm = all(m, &whole->final_norm);
    m->head = slice_head(m, &whole->head, rank, ranks);
    /* an embedding of its own lies in the mapping once for all */
    if (!m->config.tied_embeddings && rank == 0) taken(m, m->embed);
    return 0;
}

void shard_done(model *m) {
    free(m->layer);
    *m = (model){0};
}

/* The forward pass, top to bottom as a token flows through it.
 *
 * Every compute thread runs forward_thread() and takes its share of each stage; barriers stand where a stage reads what
 * others wrote. Matmuls are split by rows of weights, so each weight is read by one thread; norms, rope and the cache by
 * tokens; attention by tiles of query rows. No share changes the arithmetic of a token: see kernels.h.
 *
 * One rank of several computes its heads and columns, and meets the others where comm.h says. Nothing is allocated, and
 * nothing can fail here but such a meeting: the batch was checked by backend_forward.
 */
#include "engine/cpu/cpu.h"
#include "engine/cpu/rope.h"

#include <math.h>
#include <string.h>

typedef struct range {
    int begin, end;
} range;

/* Thread t's share of n things, in whole multiples of `unit`. */
static range share(const cpu_backend *b, int thread, int n, int unit) {
    int64_t units = (n + unit - 1) / unit, threads = pool_threads(b->pool);
    int begin = (int)(units * thread / threads) * unit, end = (int)(units * (thread + 1) / threads) * unit;
    return (range){begin, end < n ? end : n};
}

/* Rows of the n of x as the format of w wants them, one by one; nothing to do where that is f32. */
static void pack(const cpu_backend *b, const matrix *w, const float *x, int n, range rows) {
    if (!b->k->pack[w->format]) return;
    const int most = b->k->panel_tokens;
    const size_t bytes = matrix_packed_bytes(w->format, w->cols);
    for (int t = rows.begin; t < rows.end; t++) {
        const int first = t / most * most, width = n - first < most ? n - first : most;
        b->k->pack[w->format](b->packed + (size_t)first * bytes, t - first, width,
                              x + (size_t)t * (size_t)w->cols, w->cols);
    }
}

/* The same for an x that others wrote parts of, between barriers. */
static void pack_shared(const cpu_backend *b, int thread, const matrix *w, const float *x) {
    if (!b->k->pack[w->format]) return;
    pack(b, w, x, b->ntokens, share(b, thread, b->ntokens, 1));
    pool_barrier(b->pool);
}

/* A thread's rows of a matrix: whole cache lines of the result, and whole tiles. */
static range share_of_rows(const cpu_backend *b, int thread, const matrix *w) {
    return share(b, thread, w->rows, KERNEL_LANES);
}

/* What this thread reads first of w; NULL where the layout has no tiles, or there is no w or no share of it. */
static const unsigned char *first_read(const cpu_backend *b, int thread, const matrix *w) {
    if (!w || !matrix_is_tiled(w->format)) return NULL;
    const range rows = share_of_rows(b, thread, w);
    return rows.begin < rows.end ? matrix_tile(w, rows.begin / TILE_LANES) : NULL;
}

/* y [n, w->rows of y_stride] = x [n, w->cols] . w^T: this thread's rows. `next` is the matrix that is read after w, or NULL. */
static void matmul_into(const cpu_backend *b, int thread, const matrix *w, const matrix *next, const float *x,
                        int n, float *y, int y_stride) {
    const range rows = share_of_rows(b, thread, w);
    if (rows.begin == rows.end) return;
    const activations in = {.x = x,
                            .packed = b->packed,
                            .packed_bytes = matrix_packed_bytes(w->format, w->cols),
                            .next = first_read(b, thread, next)};
    b->k->matmul[w->format](w, rows.begin, rows.end, &in, n, y, (size_t)y_stride);
}

static void matmul(const cpu_backend *b, int thread, const matrix *w, const matrix *next, const float *x,
                   int n, float *y) {
    matmul_into(b, thread, w, next, x, n, y, w->rows);
}

/* y, of which every rank has a part, becomes the sum of all ranks', between barriers. */
static void sum_of_ranks(const cpu_backend *b, int thread, float *y) {
    comm *c = b->base.opt.comm;
    if (!c) return;
    const size_t n = (size_t)b->ntokens * (size_t)b->model->config.hidden;
    if (thread == 0 && !b->failure->code) comm_all_reduce(c, y, n, b->failure);
    pool_barrier(b->pool);
}

/* A tied embedding is read where the head's tiles are, so that the stored one need not stay in memory. */
static void embed_token(const cpu_backend *b, int32_t id, float *out) {
    const tensor *e = &b->model->embed;
    const size_t row_bytes = (size_t)b->model->config.hidden * dtype_bytes(e->type);
    if (b->embed_in_head)
        matrix_tiled_row(&b->head, id, out);
    else if (e->type == DTYPE_I8)
        tensor_read(e, id, 0, (int)e->cols, out);
    else
        b->k->widen(out, (const unsigned char *)e->data + (size_t)id * row_bytes, e->type, (int)e->cols);
}

/* x = embedding of each token; and the angles of its position */
static void embed(const cpu_backend *b, int thread) {
    const model_config *c = &b->model->config;
    const size_t hidden = (size_t)c->hidden, half = (size_t)c->head_dim / 2;
    range r = share(b, thread, b->ntokens, 1);
    for (int t = r.begin; t < r.end; t++) {
        embed_token(b, b->token[t].id, b->x + (size_t)t * hidden);
        rope_angles(c, b->rope_frequency, b->token[t].pos, b->cos + (size_t)t * half,
                    b->sin + (size_t)t * half);
    }
}

/* x += add (NULL in the first layer); h = norm(x), ready for the matmul with `next` */
static void norm(const cpu_backend *b, int thread, const float *add, const float *weight,
                 const matrix *next) {
    const model_config *c = &b->model->config;
    range r = share(b, thread, b->ntokens, 1);
    for (int t = r.begin; t < r.end; t++) {
        const size_t at = (size_t)t * (size_t)c->hidden;
        b->k->add_rmsnorm(b->h + at, b->x + at, add ? add + at : NULL, weight, c->hidden, c->norm_eps);
    }
    pack(b, next, b->h, b->ntokens, r);
}

/* Rotates q and k, and puts k and v into the cache; keys lie there rotated. */
static void rope_and_store(const cpu_backend *b, int thread, int layer) {
    const model_config *c = &b->model->config;
    const kv_layout *kv = &b->kv;
    const size_t d = (size_t)c->head_dim, half = d / 2, heads = (size_t)c->heads,
                 kv_heads = (size_t)c->kv_heads;
    range r = share(b, thread, b->ntokens, 1);
    for (int t = r.begin; t < r.end; t++) {
        const cpu_token *token = &b->token[t];
        const float *cos = b->cos + (size_t)t * half, *sin = b->sin + (size_t)t * half;
        const int block = token->seq->blocks[token->pos / kv->block_tokens],
                  slot = token->pos % kv->block_tokens;
        unsigned char *data =
            b->kv_data + (size_t)layer * b->kv_layer_bytes + (size_t)block * kv->block_bytes;
        for (size_t h = 0; h < heads; h++)
            b->k->rope(b->q + ((size_t)t * heads + h) * d, cos, sin, c->head_dim / 2);
        for (size_t h = 0; h < kv_heads; h++) {
            const size_t at = ((size_t)t * kv_heads + h) * d;
            b->k->rope(b->key + at, cos, sin, c->head_dim / 2);
            b->k->kv_put(kv, data + h * kv->head_bytes, slot, b->key + at, b->value + at);
        }
    }
}

/* One tile: query rows [row, row + rows) of a sequence for one KV head, where row = token * group + head in the group. */
static void attend_tile(const cpu_backend *b, int thread, int layer, const batch_seq *s, int first_token,
                        int kv_head, int row, int rows) {
    const model_config *c = &b->model->config;
    const int group = c->heads / c->kv_heads;
    attend_args a = {
        .kv = &b->kv,
        .head = b->kv_data + (size_t)layer * b->kv_layer_bytes + (size_t)kv_head * b->kv.head_bytes,
        .blocks = s->blocks,
        .rows = rows,
        .scale = 1.0f / sqrtf((float)c->head_dim),
        .scores = b->scores + (size_t)thread * ATTEND_ROWS * b->scores_stride,
        .scores_stride = b->scores_stride,
    };
    for (int i = 0; i < rows; i++) {
        const int token = (row + i) / group, head = kv_head * group + (row + i) % group;
        const size_t at =
            ((size_t)(first_token + token) * (size_t)c->heads + (size_t)head) * (size_t)c->head_dim;
        a.q[i] = b->q + at;
        a.out[i] = b->att + at;
        a.limit[i] = s->pos + token + 1;
    }
    b->k->attend(&a);
}

/* Tiles are dealt to the threads in turn: later tokens see more, so neighbours cost about the same. */
static void attention(const cpu_backend *b, int thread, int layer) {
    const model_config *c = &b->model->config;
    const int group = c->heads / c->kv_heads, threads = pool_threads(b->pool);
    int first_token = 0, turn = 0;
    for (int i = 0; i < b->nseqs; i++) {
        const batch_seq *s = &b->seqs[i];
        const int rows = s->ntokens * group;
        for (int h = 0; h < c->kv_heads; h++) {
            for (int row = 0; row < rows; row += ATTEND_ROWS) {
                if (turn++ % threads != thread) continue;
                int n = rows - row < ATTEND_ROWS ? rows - row : ATTEND_ROWS;
                attend_tile(b, thread, layer, s, first_token, h, row, n);
            }
        }
        first_token += s->ntokens;
    }
}

/* gate = silu(gate) * up, over the columns that this thread's matmuls just wrote */
static void activate(const cpu_backend *b, int thread) {
    const int width = b->model->config.intermediate;
    range r = share(b, thread, width, KERNEL_LANES);
    for (int t = 0; t < b->ntokens; t++) {
        const size_t at = (size_t)t * (size_t)width + (size_t)r.begin;
        b->k->swiglu(b->gate + at, b->up + at, r.end - r.begin);
    }
}

/* The last block's sum and the final norm, of the tokens that want logits only. */
static void final_norm(const cpu_backend *b, int thread) {
    const model_config *c = &b->model->config;
    const size_t hidden = (size_t)c->hidden;
    range r = share(b, thread, b->nlogits, 1);
    for (int i = r.begin; i < r.end; i++) {
        const size_t at = (size_t)b->logit_token[i] * hidden;
        b->k->add_rmsnorm(b->h + (size_t)i * hidden, b->x + at, b->y + at, b->final_norm, c->hidden,
                          c->norm_eps);
    }
    pack(b, &b->head, b->h, b->nlogits, r);
}

static void layer_forward(const cpu_backend *b, int thread, int i) {
    const cpu_layer *l = &b->layer[i];
    const matrix *next = i + 1 < b->model->config.layers ? &l[1].q : &b->head;
    const int n = b->ntokens;

    norm(b, thread, i ? b->y : NULL, l->attn_norm, &l->q);
    pool_barrier(b->pool);
    matmul(b, thread, &l->q, &l->k, b->h, n, b->q);
    matmul(b, thread, &l->k, &l->v, b->h, n, b->key);
    matmul(b, thread, &l->v, &l->o, b->h, n, b->value);
    pool_barrier(b->pool);
    rope_and_store(b, thread, i);
    pool_barrier(b->pool);
    attention(b, thread, i);
    pool_barrier(b->pool);
    pack_shared(b, thread, &l->o, b->att);
    matmul(b, thread, &l->o, &l->gate, b->att, n, b->y);
    pool_barrier(b->pool);
    sum_of_ranks(b, thread, b->y);

    norm(b, thread, b->y, l->mlp_norm, &l->gate);
    pool_barrier(b->pool);
    matmul(b, thread, &l->gate, &l->up, b->h, n, b->gate);
    matmul(b, thread, &l->up, &l->down, b->h, n, b->up);
    activate(b, thread);
    pool_barrier(b->pool);
    pack_shared(b, thread, &l->down, b->gate);
    matmul(b, thread, &l->down, next, b->gate, n, b->y);
    pool_barrier(b->pool);
    sum_of_ranks(b, thread, b->y);
}

/* A rank has the logits of its part of the vocabulary; they are gathered rank by rank, and then put side by side. */
static void head_of_ranks(const cpu_backend *b, int thread) {
    comm *c = b->base.opt.comm;
    const int vocab = b->model->config.vocab, part = b->rank_vocab;
    const size_t n = (size_t)b->nlogits * (size_t)part;
    matmul_into(b, thread, &b->head, NULL, b->h, b->nlogits, b->gathered + (size_t)c->rank * n, part);
    pool_barrier(b->pool);
    if (thread == 0) comm_all_gather(c, b->gathered, n, b->failure);
    pool_barrier(b->pool);
    range r = share(b, thread, b->nlogits, 1);
    for (int i = r.begin; i < r.end; i++) {
        for (int first = 0, rank = 0; first < vocab; first += part, rank++) {
            const size_t from = (size_t)rank * n + (size_t)i * (size_t)part;
            const int count = vocab - first < part ? vocab - first : part;
            memcpy(b->logits + (size_t)i * (size_t)vocab + first, b->gathered + from,
                   (size_t)count * sizeof(float));
        }
    }
}

void forward_thread(void *backend_arg, int thread) {
    const cpu_backend *b = backend_arg;
    embed(b, thread);
    for (int i = 0; i < b->model->config.layers; i++) {
        /* all threads see it here: it was set before a barrier, and the next time is some barriers away */
        if (b->failure->code) return;
        layer_forward(b, thread, i);
    }
    if (!b->nlogits || b->failure->code) return;
    final_norm(b, thread);
    pool_barrier(b->pool);
    if (b->base.opt.comm)
        head_of_ranks(b, thread);
    else
        matmul(b, thread, &b->head, NULL, b->h, b->nlogits, b->logits);
}

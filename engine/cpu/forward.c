/* The forward pass, top to bottom as a token flows through it.
 *
 * Every compute thread runs forward_thread() and takes its share of each stage; barriers stand where a stage reads what
 * others wrote. Matmuls are split by rows of weights, so each weight is read by one thread; where nothing hangs on which, rows are
 * dealt (deal.h), for threads are rarely equally quick. Rope, the cache and attention are split by heads, where those can be
 * shared evenly, and norms by tokens; of few tokens, where waiting would weigh most, each thread does the norms for itself: four
 * barriers a layer, or six. No share changes the arithmetic of a token: see kernels.h.
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

/* What a thread works with in this pass. Of few tokens each thread computes the norms and the packed rows for itself, which is
 * sooner done than waiting for who has them; of many, each does a share for all. */
typedef struct pass {
    const cpu_backend *b;
    int thread;
    bool few;
    cpu_rows rows;
} pass;

static pass pass_of(const cpu_backend *b, int thread) {
    const bool few = b->ntokens <= CPU_FEW_TOKENS;
    return (pass){b, thread, few, few ? b->own[thread] : b->shared};
}

/* The n tokens that this thread prepares: all, when it does so for itself. */
static range my_tokens(const pass *p, int n) {
    return p->few ? (range){0, n} : share(p->b, p->thread, n, 1);
}

/* After what each did a share of for all. */
static void join_shares(const pass *p) {
    if (!p->few) pool_barrier(p->b->pool);
}

/* Columns of row t of the n of x into the panels at `to`, as the format of w wants them; nothing to do where that is f32. */
static void pack_row(const cpu_backend *b, const matrix *w, const float *x, int t, int n, range columns,
                     unsigned char *to) {
    if (!b->k->pack[w->format]) return;
    const int most = b->k->panel_tokens, first = t / most * most, width = n - first < most ? n - first : most;
    b->k->pack[w->format](to + (size_t)first * matrix_packed_bytes(w->format, w->cols), t - first, width,
                          x + (size_t)t * (size_t)w->cols, w->cols, columns.begin, columns.end);
}

/* The input of the matmul with w, of which others wrote parts before the last barrier. Returns it packed. */
static const unsigned char *pack_rows(const pass *p, const matrix *w, const float *x) {
    if (!p->b->k->pack[w->format]) return NULL;
    const range r = my_tokens(p, p->b->ntokens);
    for (int t = r.begin; t < r.end; t++)
        pack_row(p->b, w, x, t, p->b->ntokens, (range){0, w->cols}, p->rows.packed);
    join_shares(p);
    return p->rows.packed;
}

/* The same, each thread the columns that it has itself made. */
static void pack_columns(const pass *p, const matrix *w, const float *x, range columns) {
    for (int t = 0; t < p->b->ntokens; t++)
        pack_row(p->b, w, x, t, p->b->ntokens, columns, p->b->packed_parts);
}

/* Where `row` of w is; NULL where the layout has no tiles, or there is no such row. */
static const unsigned char *row_at(const matrix *w, int row) {
    return matrix_is_tiled(w->format) && row < w->rows ? matrix_tile(w, row / TILE_LANES) : NULL;
}

/* What this thread reads first of w, whose rows are shared in units. */
static const unsigned char *first_read(const pass *p, const matrix *w, int unit) {
    return row_at(w, share(p->b, p->thread, w->rows, unit).begin);
}

/* Rows of y [n, w->rows of y_stride] = x [n, w->cols] . w^T. `packed` is x as the format of w wants it; `next` what this thread
 * reads after them, or NULL. */
static void matmul_rows(const cpu_backend *b, const matrix *w, range rows, const unsigned char *next,
                        const float *x, const unsigned char *packed, int n, float *y, int y_stride) {
    if (rows.begin == rows.end) return;
    const activations in = {
        .x = x, .packed = packed, .packed_bytes = matrix_packed_bytes(w->format, w->cols), .next = next};
    b->k->matmul[w->format](w, rows.begin, rows.end, &in, n, y, (size_t)y_stride);
}

/* This thread's share of the rows: whole cache lines of the result, and whole tiles. */
static void matmul_share(const pass *p, const matrix *w, const unsigned char *next, float *y) {
    matmul_rows(p->b, w, share(p->b, p->thread, w->rows, KERNEL_LANES), next, p->rows.h, p->rows.packed,
                p->b->ntokens, y, w->rows);
}

/* Weights in an item are as many as memory gives in some microseconds, and items at least so many for each thread. */
enum { ITEM_WEIGHTS = 1 << 18, THREAD_ITEMS = 16 };

/* Rows of w in an item: pairs of tiles, of which kernels make most. */
static int item_rows(const cpu_backend *b, const matrix *w) {
    const int threads = pool_threads(b->pool), pair = 2 * TILE_LANES;
    const int large = ITEM_WEIGHTS / w->cols / pair * pair,
              even = w->rows / (threads * THREAD_ITEMS) / pair * pair;
    const int rows = large < even ? large : even;
    if (rows) return rows;
    return w->rows < 2 * pair * threads ? TILE_LANES : pair;
}

/* The stages of a pass that are dealt: three of each layer, and the head. */
enum { STAGE_O, STAGE_MLP, STAGE_DOWN, LAYER_STAGES };

int forward_stages(const cpu_backend *b) {
    return b->model->config.layers * LAYER_STAGES + 1;
}

/* n things in items of `unit` */
static deal deal_of(const pass *p, int layer, int stage, int n, int unit) {
    const cpu_backend *b = p->b;
    return (deal){.words = b->dealt,
                  .thread = p->thread,
                  .threads = pool_threads(b->pool),
                  .stage = (uint16_t)(b->first_stage + (unsigned)(layer * LAYER_STAGES + stage)),
                  .items = (n + unit - 1) / unit};
}

static range item_range(int item, int n, int unit) {
    return (range){item * unit, n - item * unit < unit ? n : (item + 1) * unit};
}

/* y = x . w^T, of all rows: of those that this thread takes. */
static void matmul_dealt(const pass *p, int layer, int stage, const matrix *w, const unsigned char *next,
                         const float *x, const unsigned char *packed, int n, float *y, int y_stride) {
    const int unit = item_rows(p->b, w);
    const deal d = deal_of(p, layer, stage, w->rows, unit);
    for (int item; (item = deal_take(&d)) >= 0;) {
        const range rows = item_range(item, w->rows, unit);
        matmul_rows(p->b, w, rows, deal_owns(&d, item + 1) ? row_at(w, rows.end) : next, x, packed, n, y,
                    y_stride);
    }
}

/* y, of which every rank has a part, becomes the sum of all ranks', between barriers. */
static void sum_of_ranks(const pass *p, float *y) {
    const cpu_backend *b = p->b;
    comm *c = b->base.opt.comm;
    if (!c) return;
    const size_t n = (size_t)b->ntokens * (size_t)b->model->config.hidden;
    if (p->thread == 0 && !b->failure->code) comm_all_reduce(c, y, n, b->failure);
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
static void embed(const pass *p) {
    const cpu_backend *b = p->b;
    const model_config *c = &b->model->config;
    const size_t hidden = (size_t)c->hidden, half = (size_t)c->head_dim / 2;
    range r = my_tokens(p, b->ntokens);
    for (int t = r.begin; t < r.end; t++) {
        embed_token(b, b->token[t].id, p->rows.x + (size_t)t * hidden);
        rope_angles(c, b->rope_frequency, b->token[t].pos, p->rows.cos + (size_t)t * half,
                    p->rows.sin + (size_t)t * half);
    }
}

/* x += add (NULL in the first layer); h = norm(x), ready for the matmul with `next` */
static void norm(const pass *p, const float *add, const float *weight, const matrix *next) {
    const cpu_backend *b = p->b;
    const model_config *c = &b->model->config;
    range r = my_tokens(p, b->ntokens);
    for (int t = r.begin; t < r.end; t++) {
        const size_t at = (size_t)t * (size_t)c->hidden;
        b->k->add_rmsnorm(p->rows.h + at, p->rows.x + at, add ? add + at : NULL, weight, c->hidden,
                          c->norm_eps);
        pack_row(b, next, p->rows.h, t, b->ntokens, (range){0, c->hidden}, p->rows.packed);
    }
    join_shares(p);
}

/* Of one token and KV head: rotates its k and the q of its group, and puts k and v into the cache; keys lie there rotated. */
static void rope_and_store(const pass *p, int layer, int t, int kv_head) {
    const cpu_backend *b = p->b;
    const model_config *c = &b->model->config;
    const kv_layout *kv = &b->kv;
    const cpu_token *token = &b->token[t];
    const int half = c->head_dim / 2, group = c->heads / c->kv_heads;
    const int block = token->seq->blocks[token->pos / kv->block_tokens], slot = token->pos % kv->block_tokens;
    const float *cos = p->rows.cos + (size_t)t * (size_t)half, *sin = p->rows.sin + (size_t)t * (size_t)half;
    const size_t d = (size_t)c->head_dim, at = ((size_t)t * (size_t)c->kv_heads + (size_t)kv_head) * d;
    for (int i = 0; i < group; i++) b->k->rope(b->q + (at * (size_t)group + (size_t)i * d), cos, sin, half);
    b->k->rope(b->key + at, cos, sin, half);
    b->k->kv_put(kv,
                 b->kv_data + (size_t)layer * b->kv_layer_bytes + (size_t)block * kv->block_bytes +
                     (size_t)kv_head * kv->head_bytes,
                 slot, b->key + at, b->value + at);
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

/* One KV head of one sequence, by the thread that also puts its tokens into the cache. */
static void attend_head(const pass *p, int layer, const batch_seq *s, int first_token, int kv_head) {
    const cpu_backend *b = p->b;
    const int rows = s->ntokens * (b->model->config.heads / b->model->config.kv_heads);
    for (int t = 0; t < s->ntokens; t++) rope_and_store(p, layer, first_token + t, kv_head);
    for (int row = 0; row < rows; row += ATTEND_ROWS) {
        const int n = rows - row < ATTEND_ROWS ? rows - row : ATTEND_ROWS;
        attend_tile(b, p->thread, layer, s, first_token, kv_head, row, n);
    }
}

/* Does each thread's share of the rows of q, k and v make whole heads? Then it attends to what it has itself computed. */
static bool owns_heads(const cpu_backend *b) {
    const model_config *c = &b->model->config;
    return c->kv_heads % pool_threads(b->pool) == 0 && c->head_dim % KERNEL_LANES == 0;
}

/* Heads that this thread attends to: its own, or in turn. */
static void attention_by_heads(const pass *p, int layer) {
    const cpu_backend *b = p->b;
    const int kv_heads = b->model->config.kv_heads, threads = pool_threads(b->pool);
    const bool own = owns_heads(b);
    int first_token = 0, turn = 0;
    if (!own) pool_barrier(b->pool);
    for (int i = 0; i < b->nseqs; i++) {
        for (int h = 0; h < kv_heads; h++) {
            const int whose = own ? h / (kv_heads / threads) : turn++ % threads;
            if (whose == p->thread) attend_head(p, layer, &b->seqs[i], first_token, h);
        }
        first_token += b->seqs[i].ntokens;
    }
}

/* Tiles are dealt to the threads in turn: later tokens see more, so neighbours cost about the same. */
static void attention_by_tiles(const pass *p, int layer) {
    const cpu_backend *b = p->b;
    const model_config *c = &b->model->config;
    const int group = c->heads / c->kv_heads, threads = pool_threads(b->pool);
    int first_token = 0, turn = 0;
    const range r = my_tokens(p, b->ntokens);
    pool_barrier(b->pool);
    for (int t = r.begin; t < r.end; t++) {
        for (int h = 0; h < c->kv_heads; h++) rope_and_store(p, layer, t, h);
    }
    pool_barrier(b->pool);
    for (int i = 0; i < b->nseqs; i++) {
        const batch_seq *s = &b->seqs[i];
        const int rows = s->ntokens * group;
        for (int h = 0; h < c->kv_heads; h++) {
            for (int row = 0; row < rows; row += ATTEND_ROWS) {
                if (turn++ % threads != p->thread) continue;
                int n = rows - row < ATTEND_ROWS ? rows - row : ATTEND_ROWS;
                attend_tile(b, p->thread, layer, s, first_token, h, row, n);
            }
        }
        first_token += s->ntokens;
    }
}

/* Attention of all tokens; returns its output as the matmul with o wants it. */
static const unsigned char *attention(const pass *p, int layer) {
    const cpu_backend *b = p->b;
    const matrix *o = &b->layer[layer].o;
    const range columns = share(b, p->thread, o->cols, KERNEL_LANES);
    const bool own = owns_heads(b), whole = own && o->cols / pool_threads(b->pool) % INT8_GROUP == 0;
    if (own || p->few)
        attention_by_heads(p, layer);
    else
        attention_by_tiles(p, layer);
    if (whole) pack_columns(p, o, b->att, columns);
    pool_barrier(b->pool);
    return whole ? b->packed_parts : pack_rows(p, o, b->att);
}

/* Are columns of the MLP dealt in groups of 8-bit activations? Not where threads are so many that some would have nothing to do. */
static bool deals_groups(const cpu_backend *b) {
    return b->model->config.intermediate >= 4 * INT8_GROUP * pool_threads(b->pool);
}

static int item_columns(const cpu_backend *b) {
    return deals_groups(b) ? INT8_GROUP : 2 * TILE_LANES;
}

/* gate = silu(x . gate^T) * (x . up^T), by columns of which one thread makes all; and those ready for the matmul with down, where
 * they are whole groups. Between barriers. */
static void gate_and_up(const pass *p, int layer) {
    const cpu_backend *b = p->b;
    const cpu_layer *l = &b->layer[layer];
    const int width = b->model->config.intermediate, unit = item_columns(b);
    const deal d = deal_of(p, layer, STAGE_MLP, width, unit);
    const unsigned char *last = first_read(p, &l->down, item_rows(b, &l->down));
    for (int item; (item = deal_take(&d)) >= 0;) {
        const range r = item_range(item, width, unit);
        const unsigned char *next = deal_owns(&d, item + 1) ? row_at(&l->gate, r.end) : last;
        matmul_rows(b, &l->gate, r, row_at(&l->up, r.begin), p->rows.h, p->rows.packed, b->ntokens, b->gate,
                    width);
        matmul_rows(b, &l->up, r, next, p->rows.h, p->rows.packed, b->ntokens, b->up, width);
        for (int t = 0; t < b->ntokens; t++) {
            const size_t at = (size_t)t * (size_t)width + (size_t)r.begin;
            b->k->swiglu(b->gate + at, b->up + at, r.end - r.begin);
        }
        if (deals_groups(b)) pack_columns(p, &l->down, b->gate, r);
    }
}

/* The last block's sum and the final norm, of the tokens that want logits only. */
static void final_norm(const pass *p) {
    const cpu_backend *b = p->b;
    const model_config *c = &b->model->config;
    const size_t hidden = (size_t)c->hidden;
    range r = my_tokens(p, b->nlogits);
    for (int i = r.begin; i < r.end; i++) {
        const size_t at = (size_t)b->logit_token[i] * hidden;
        b->k->add_rmsnorm(p->rows.h + (size_t)i * hidden, p->rows.x + at, b->y + at, b->final_norm, c->hidden,
                          c->norm_eps);
        pack_row(b, &b->head, p->rows.h, i, b->nlogits, (range){0, c->hidden}, p->rows.packed);
    }
    join_shares(p);
}

static void attention_block(const pass *p, int i) {
    const cpu_backend *b = p->b;
    const cpu_layer *l = &b->layer[i];
    norm(p, i ? b->y : NULL, l->attn_norm, &l->q);
    matmul_share(p, &l->q, first_read(p, &l->k, KERNEL_LANES), b->q);
    matmul_share(p, &l->k, first_read(p, &l->v, KERNEL_LANES), b->key);
    matmul_share(p, &l->v, first_read(p, &l->o, item_rows(b, &l->o)), b->value);
    const unsigned char *packed = attention(p, i);
    matmul_dealt(p, i, STAGE_O, &l->o, first_read(p, &l->gate, item_columns(b)), b->att, packed, b->ntokens,
                 b->y, l->o.rows);
    pool_barrier(b->pool);
    sum_of_ranks(p, b->y);
}

static void mlp_block(const pass *p, int i) {
    const cpu_backend *b = p->b;
    const cpu_layer *l = &b->layer[i];
    const bool last = i + 1 == b->model->config.layers;
    const unsigned char *next =
        last ? first_read(p, &b->head, item_rows(b, &b->head)) : first_read(p, &l[1].q, KERNEL_LANES);
    norm(p, b->y, l->mlp_norm, &l->gate);
    gate_and_up(p, i);
    pool_barrier(b->pool);
    const unsigned char *packed = deals_groups(b) ? b->packed_parts : pack_rows(p, &l->down, b->gate);
    matmul_dealt(p, i, STAGE_DOWN, &l->down, next, b->gate, packed, b->ntokens, b->y, l->down.rows);
    pool_barrier(b->pool);
    sum_of_ranks(p, b->y);
}

static void head_into(const pass *p, float *logits, int stride) {
    const cpu_backend *b = p->b;
    matmul_dealt(p, b->model->config.layers, 0, &b->head, NULL, p->rows.h, p->rows.packed, b->nlogits, logits,
                 stride);
}

/* A rank has the logits of its part of the vocabulary; they are gathered rank by rank, and then put side by side. */
static void head_of_ranks(const pass *p) {
    const cpu_backend *b = p->b;
    comm *c = b->base.opt.comm;
    const int vocab = b->model->config.vocab, part = b->rank_vocab;
    const size_t n = (size_t)b->nlogits * (size_t)part;
    head_into(p, b->gathered + (size_t)c->rank * n, part);
    pool_barrier(b->pool);
    if (p->thread == 0) comm_all_gather(c, b->gathered, n, b->failure);
    pool_barrier(b->pool);
    range r = share(b, p->thread, b->nlogits, 1);
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
    const pass p = pass_of(b, thread);
    embed(&p);
    for (int i = 0; i < b->model->config.layers; i++) {
        /* all threads see it here: it was set before a barrier, and the next time is some barriers away */
        if (b->failure->code) return;
        attention_block(&p, i);
        mlp_block(&p, i);
    }
    if (!b->nlogits || b->failure->code) return;
    final_norm(&p);
    if (b->base.opt.comm)
        head_of_ranks(&p);
    else
        head_into(&p, b->logits, b->head.rows);
}

/* One pass: the batch as a plan, copied to the device in one piece, and the launches, in the order in which a token goes through
 * the layers. Small passes are captured as graphs, by their shape, and launched again.
 *
 *     ids ─> embed ─> x ─┬─> add_norm ─> qkv ─> append (rope, cache) ─> attend, merge ─> o ─┐ y, summed over the ranks
 *                        │<──────────────────────────────────────────────────────────────────┘
 *                        └─> add_norm ─> gate_up ─> gated ─> down ─> y ─> …  ─> add_norm of some rows ─> head ─> logits
 */
#include "engine/cuda/state.h"

extern "C" {
#include "engine/sample.h"
}

#include <cstring>

namespace cuda {

namespace {

enum { GRAPH_TOKENS = 64, GRAPH_ITEMS_UNIT = 256 }; /* larger passes keep the GPU busy without a graph */

int round_up(int n, int unit) {
    return (n + unit - 1) / unit * unit;
}

/* ---- the plan ---- */

struct planner {
    const state *b;
    plan *host;
    int tokens, logits, items, merges, partial, tables, changes, masks;
    int warps; /* tiles are split until about so many are busy */
};

void plan_tile(planner *p, int seq, const batch_seq *s, int row0, int rows, int tiles_of_batch) {
    plan *h = p->host;
    const attention *a = &p->b->attend;
    const int group = a->heads / a->kv_heads, limit = s->pos + (row0 + rows - 1) / group + 1;
    const int chunks = (limit + CHUNK - 1) / CHUNK, room = partial_rows(a->kv_heads, rows, chunks);
    if (chunks == 1 || tiles_of_batch * a->kv_heads >= p->warps || room > p->b->max_partial - p->partial) {
        h->items[p->items++] = {seq, row0, rows, 0, chunks, -1};
        return;
    }
    h->merges[p->merges++] = {seq, row0, rows, chunks, p->partial};
    for (int c = 0; c < chunks; c++)
        h->items[p->items++] = {seq, row0, rows, c, 1, p->partial + c * a->kv_heads * rows};
    p->partial += room;
}

/* The row after token `last` of the batch, of a sequence that then has `tokens`, `later` rows after its first. Not drawn here: what was
 * not asked for, what is changed by a token that was guessed, and what finds no room. */
draw_row draw_of(planner *p, const batch_seq *s, int last, int tokens, int later) {
    plan *h = p->host;
    const batch_draw *d = s->draw;
    const size_t words = (size_t)mask_words(p->b->m->config.vocab);
    if (!d || (later && (d->nchanges || d->allowed)) || d->nchanges > p->b->max_changes - p->changes)
        return {};
    const float t = d->temperature;
    const bool penalties = d->presence != 0 || d->frequency != 0 || d->repetition != 1;
    draw_row r = {d->vocab,
                  t < SAMPLE_GREEDY_BELOW ? 0 : 1 / t,
                  d->top_k,
                  d->top_p,
                  d->min_p,
                  sample_uniform(d->seed, (uint64_t)tokens),
                  p->changes,
                  d->nchanges,
                  d->presence,
                  d->frequency,
                  d->repetition,
                  !s->tokens && penalties ? last : -1,
                  -1};
    if (d->nchanges) memcpy(h->changes + p->changes, d->changes, (size_t)d->nchanges * sizeof *d->changes);
    p->changes += d->nchanges;
    if (!d->allowed) return r;
    r.mask = p->masks++;
    memcpy(h->masks + (size_t)r.mask * words, d->allowed, (size_t)mask_words(d->vocab) * sizeof *d->allowed);
    return r;
}

void plan_seq(planner *p, int seq, const batch_seq *s, int tiles_of_batch) {
    plan *h = p->host;
    const attention *a = &p->b->attend;
    const int rows = s->ntokens * (a->heads / a->kv_heads),
              blocks = (s->pos + s->ntokens - 1) / a->block_tokens + 1;
    h->seqs[seq] = {p->tokens, s->pos, p->tables};
    memcpy(h->tables + p->tables, s->blocks, (size_t)blocks * sizeof(int));
    p->tables += blocks;
    for (int t = 0; t < s->ntokens; t++) {
        if (t >= s->ntokens - s->nlogits) {
            h->draws[p->logits] = draw_of(p, s, p->tokens, s->pos + t + 1, t - (s->ntokens - s->nlogits));
            h->logit_rows[p->logits++] = p->tokens;
        }
        h->ids[p->tokens] = s->tokens ? s->tokens[t] : -1 - s->drawn_row;
        h->token_seq[p->tokens] = seq;
        h->token_pos[p->tokens++] = s->pos + t;
    }
    for (int row = 0; row < rows; row += TILE_ROWS)
        plan_tile(p, seq, s, row, rows - row < TILE_ROWS ? rows - row : TILE_ROWS, tiles_of_batch);
}

int count_tiles(const state *b, const batch_seq *seqs, int nseqs) {
    int tiles = 0;
    for (int i = 0; i < nseqs; i++)
        tiles += (seqs[i].ntokens * (b->attend.heads / b->attend.kv_heads) + TILE_ROWS - 1) / TILE_ROWS;
    return tiles;
}

/* Fills the host's plan; its sizes say what the launches must be made for. */
planner make_plan(const state *b, plan *host, const batch_seq *seqs, int nseqs) {
    planner p = {};
    p.b = b;
    p.host = host;
    p.warps = b->sms * 16;
    const int tiles = count_tiles(b, seqs, nseqs);
    for (int i = 0; i < nseqs; i++) plan_seq(&p, i, &seqs[i], tiles);
    host->counts[0] = p.items;
    host->counts[1] = p.merges;
    return p;
}

/* As much of it as there is: up to the tables in one piece, for most passes have nothing behind them. */
int copy_plan(const planner *p, engine_error *err) {
    const state *b = p->b;
    const plan *from = p->host, *to = &b->dev;
    const struct {
        void *to;
        const void *from;
        size_t bytes;
    } pieces[] = {
        {b->dev_plan, from->counts,
         (size_t)((unsigned char *)(from->tables + p->tables) - (unsigned char *)from->counts)},
        {to->changes, from->changes, (size_t)p->changes * sizeof *from->changes},
        {to->masks, from->masks,
         (size_t)p->masks * (size_t)mask_words(b->m->config.vocab) * sizeof *from->masks},
    };
    for (const auto &piece : pieces) {
        if (piece.bytes &&
            check(cudaMemcpyAsync(piece.to, piece.from, piece.bytes, cudaMemcpyHostToDevice, b->stream),
                  "cannot copy a batch", err))
            return -1;
    }
    return 0;
}

/* The next larger shape of those that graphs are made for. What is added is no token, and its rows of logits are not read. */
shape graph_shape(const state *b, const plan *host, shape s) {
    const backend_options *o = &b->base.opt;
    const int unit = s.tokens <= 8 ? 1 : 8;
    shape g = {min(round_up(s.tokens, unit), o->max_tokens), 0,
               min(round_up(s.items, GRAPH_ITEMS_UNIT), b->max_items), 0};
    g.logits = s.logits ? min(max(s.logits, g.tokens), o->max_logits) : 0;
    g.merges = s.merges ? min(round_up(s.merges, unit), b->max_merges) : 0;
    for (int t = s.tokens; t < g.tokens; t++) {
        host->ids[t] = 0;
        host->token_seq[t] = -1;
    }
    for (int i = s.logits; i < g.logits; i++) {
        host->logit_rows[i] = 0;
        host->draws[i] = {};
    }
    return g;
}

/* ---- the launches ---- */

template <typename T> struct pass {
    state *b;
    shape of;
    attention a;

    T *h() const { return (T *)b->h; }
    T *act() const { return (T *)b->act; }
    T *att() const { return (T *)b->att; }

    void norm(float *add, const float *weight, const int *rows, int n) const {
        const model_config *c = &b->m->config;
        if (b->rounds)
            add_norm(b->x, add, weight, rows, n, c->hidden, c->norm_eps, b->weights, b->h8, b->stream);
        else
            add_norm<T>(b->x, add, weight, rows, n, c->hidden, c->norm_eps, h(), b->hidden_pitch, b->stream);
    }

    void gate() const {
        const int width = b->m->config.intermediate;
        if (b->rounds)
            gated(b->gate_up, of.tokens, width, b->weights, b->act8, b->stream);
        else
            gated<T>(b->gate_up, of.tokens, width, act(), b->act_pitch, b->stream);
    }

    void round_attention() const {
        const model_config *c = &b->m->config;
        if (b->rounds)
            round_rows(a.wide, of.tokens, c->heads * c->head_dim, b->att_pitch, b->weights, b->att8,
                       b->stream);
    }

    /* Of x, or of x8 where activations are rounded. Ours give the same bits in every batch; the library's do where nobody asks
     * for that. */
    int product(const linear &w, const T *x, const rounded &x8, int n, float *y, int y_stride,
                engine_error *err) const {
        const int rc = !b->library ? 0
                       : b->rounds ? cublas_forward(b->library, w, x8, n, y, y_stride, b->stream, err)
                                   : cublas_forward(b->library, w, x, n, y, y_stride, b->stream, err);
        if (rc) return rc < 0 ? -1 : 0;
        if (b->rounds)
            linear_forward(w, x8, n, y, y_stride, b->stream);
        else
            linear_forward<T>(w, x, n, y, y_stride, b->stream);
        return 0;
    }

    int sum_of_ranks(engine_error *err) const {
        comm *c = b->base.opt.comm;
        return c ? comm_all_reduce(c, b->y, (size_t)of.tokens * (size_t)b->m->config.hidden, err) : 0;
    }

    void attend_layer(int layer) const {
        const plan &d = b->dev;
        T *cache = (T *)b->cache + (size_t)layer * b->cache_layer;
        attention_append<T>(a, b->qkv, b->angles, d.token_seq, d.token_pos, of.tokens, (T *)b->q, cache,
                            b->stream);
        attention_forward<T>(a, (const T *)b->q, cache, d.items, of.items, d.counts, att(), b->stream);
        if (of.merges) attention_merge<T>(a, d.merges, of.merges, d.counts, att(), b->stream);
    }

    int run_layer(int i, engine_error *err) const {
        const model_config *c = &b->m->config;
        const layer *l = &b->layers[i];
        norm(i ? b->y : nullptr, l->attn_norm, nullptr, of.tokens);
        if (product(l->qkv, h(), b->h8, of.tokens, b->qkv, l->qkv.rows, err)) return -1;
        attend_layer(i);
        round_attention();
        if (product(l->o, att(), b->att8, of.tokens, b->y, c->hidden, err) || sum_of_ranks(err)) return -1;
        norm(b->y, l->mlp_norm, nullptr, of.tokens);
        if (product(l->gate_up, h(), b->h8, of.tokens, b->gate_up, l->gate_up.rows, err)) return -1;
        gate();
        if (product(l->down, act(), b->act8, of.tokens, b->y, c->hidden, err)) return -1;
        return sum_of_ranks(err);
    }

    /* Of the rows that want logits. A rank has its part of the vocabulary; all parts are put side by side. */
    int run_head(engine_error *err) const {
        const model_config *c = &b->m->config;
        comm *ranks = b->base.opt.comm;
        norm(b->y, b->final_norm, b->dev.logit_rows, of.logits);
        if (!ranks) return product(b->head, h(), b->h8, of.logits, b->logits, c->vocab, err);
        const size_t n = (size_t)of.logits * (size_t)b->rank_vocab;
        float *mine = b->gathered + (size_t)ranks->rank * n;
        if (b->head.rows && product(b->head, h(), b->h8, of.logits, mine, b->rank_vocab, err)) return -1;
        if (comm_all_gather(ranks, b->gathered, n, err)) return -1;
        for (int first = 0, r = 0; first < c->vocab; first += b->rank_vocab, r++) {
            const int width = min(c->vocab - first, b->rank_vocab);
            if (check(cudaMemcpy2DAsync(b->logits + first, (size_t)c->vocab * sizeof(float),
                                        b->gathered + (size_t)r * n, (size_t)b->rank_vocab * sizeof(float),
                                        (size_t)width * sizeof(float), (size_t)of.logits,
                                        cudaMemcpyDeviceToDevice, b->stream),
                      "cannot join the logits", err)) {
                return -1;
            }
        }
        return 0;
    }

    int run(engine_error *err) const {
        embed<T>(b->embeddings, b->dev.ids, b->drawn, of.tokens, b->x, b->stream);
        for (int i = 0; i < b->m->config.layers; i++) {
            if (run_layer(i, err)) return -1;
        }
        if (of.logits) {
            if (run_head(err)) return -1;
            const draw_changes changes = {b->dev.ids, b->dev.changes, b->dev.masks,
                                          mask_words(b->m->config.vocab)};
            sample_rows(b->logits, b->m->config.vocab, b->dev.draws, of.logits, changes, b->room, b->drawn,
                        b->stream);
        }
        return check(cudaGetLastError(), "a kernel could not be launched", err);
    }
};

template <typename T> int launch_as(state *b, shape of, engine_error *err) {
    pass<T> p = {b, of, b->attend};
    p.a.seqs = b->dev.seqs;
    p.a.tables = b->dev.tables;
    p.a.out_pitch = b->att_pitch;
    return p.run(err);
}

int launch_pass(state *b, shape of, engine_error *err) {
    switch (b->type) {
    case DTYPE_F32: return launch_as<float>(b, of, err);
    case DTYPE_F16: return launch_as<__half>(b, of, err);
    case DTYPE_BF16: return launch_as<__nv_bfloat16>(b, of, err);
    case DTYPE_I8: break;
    }
    return engine_fail(err, ENGINE_EINTERNAL, "unknown type of weights");
}

/* ---- graphs ---- */

bool same(shape a, shape b) {
    return a.tokens == b.tokens && a.logits == b.logits && a.items == b.items && a.merges == b.merges;
}

/* The place of this shape, or the one that was used least lately. */
graph *find_graph(state *b, shape of) {
    graph *oldest = &b->graphs[0];
    for (int i = 0; i < GRAPHS; i++) {
        graph *g = &b->graphs[i];
        if (same(g->of, of)) return g;
        if (g->used < oldest->used) oldest = g;
    }
    return oldest;
}

int capture(state *b, graph *g, shape of, engine_error *err) {
    cudaGraph_t recorded = nullptr;
    if (check(cudaStreamBeginCapture(b->stream, cudaStreamCaptureModeThreadLocal), "cannot capture a pass",
              err))
        return -1;
    const int rc = launch_pass(b, of, err);
    const cudaError_t status = cudaStreamEndCapture(b->stream, &recorded);
    if (rc) {
        if (recorded) cudaGraphDestroy(recorded);
        return -1;
    }
    if (check(status, "cannot capture a pass", err)) return -1;
    const cudaError_t made = cudaGraphInstantiate(&g->exec, recorded, 0);
    cudaGraphDestroy(recorded);
    return check(made, "cannot make a graph", err);
}

/* Captured when it comes for the second time: the first loads kernels and lets cuBLASLt choose, which a capture may not bear, and
 * shapes that come once are not worth a graph. */
int run_graph(state *b, shape of, engine_error *err) {
    graph *g = find_graph(b, of);
    g->used = ++b->passes;
    if (!same(g->of, of)) {
        if (g->exec) cudaGraphExecDestroy(g->exec);
        g->exec = nullptr;
        g->of = of;
        return launch_pass(b, of, err);
    }
    if (!g->exec && capture(b, g, of, err)) return -1;
    return check(cudaGraphLaunch(g->exec, b->stream), "cannot launch a graph", err);
}

/* Tokens, and the logits of those rows that are drawn from elsewhere. */
int copy_results(const state *b, turn *t, const batch_seq *seqs, int nseqs, int rows, engine_error *err) {
    const size_t vocab = (size_t)b->m->config.vocab;
    size_t row = 0;
    t->draws = true;
    if (rows && check(cudaMemcpyAsync(t->drawn, b->drawn, (size_t)rows * sizeof(int), cudaMemcpyDeviceToHost,
                                      b->stream),
                      "cannot copy the tokens", err))
        return -1;
    for (int i = 0; i < nseqs; i++) {
        const size_t end = row + (size_t)seqs[i].nlogits;
        while (row < end && t->host.draws[row].vocab) row++; /* of a sequence, drawn ones come first */
        t->draws = t->draws && row == end;
        if (row < end &&
            check(cudaMemcpyAsync(b->host_logits + row * vocab, b->logits + row * vocab,
                                  (end - row) * vocab * sizeof(float), cudaMemcpyDeviceToHost, b->stream),
                  "cannot copy the logits", err))
            return -1;
        row = end;
    }
    return 0;
}

/* A collective whose partner has failed would never end, so ranks look after each other while they wait. */
int wait_for_pass(const state *b, const turn *t, engine_error *err) {
    comm *ranks = b->base.opt.comm;
    if (!ranks || !ranks->ops->check)
        return check(cudaEventSynchronize(t->over), "the GPU failed in a pass", err);
    for (;;) {
        const cudaError_t status = cudaEventQuery(t->over);
        if (ranks->ops->check(ranks, err)) return -1;
        if (status != cudaErrorNotReady) return check(status, "the GPU failed in a pass", err);
    }
}

/* Everything, down to the copies of the results: the turn's plan is read by the first of it. */
int enqueue_pass(state *b, turn *t, const batch_seq *seqs, int nseqs, engine_error *err) {
    const planner p = make_plan(b, &t->host, seqs, nseqs);
    shape of = {p.tokens, p.logits, p.items, p.merges};
    const int rows = of.logits;
    comm *ranks = b->base.opt.comm;
    const bool on_device =
        !ranks || ranks->ops->attach; /* else a sum is made in the call, and cannot be captured */
    const bool graphed = of.tokens <= GRAPH_TOKENS && on_device;
    if (graphed) of = graph_shape(b, &t->host, of);
    if (copy_plan(&p, err)) return -1;
    if (graphed ? run_graph(b, of, err) : launch_pass(b, of, err)) return -1;
    return copy_results(b, t, seqs, nseqs, rows, err);
}

} // namespace

int begin_pass(state *b, const batch_seq *seqs, int nseqs, engine_error *err) {
    turn *t = &b->turns[b->begun++ % 2];
    if (nseqs && enqueue_pass(b, t, seqs, nseqs, err)) return -1;
    return check(cudaEventRecord(t->over, b->stream), "cannot mark the end of a pass", err);
}

int finish_pass(state *b, batch_result *result, engine_error *err) {
    const turn *t = &b->turns[b->finished++ % 2];
    *result = {b->host_logits, t->drawn};
    return wait_for_pass(b, t, err);
}

bool draws_all(const state *b) {
    return b->turns[(b->begun - 1) % 2].draws;
}

void forward_done(state *b) {
    for (int i = 0; i < GRAPHS; i++) {
        if (b->graphs[i].exec) cudaGraphExecDestroy(b->graphs[i].exec);
    }
}

} // namespace cuda

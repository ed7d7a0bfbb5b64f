/* Drives N ranks as one backend. The caller's thread is rank 0's, the others are a pool's; what a rank needs it takes on its
 * own thread, so that its memory lies near it. Shards, ends and rank backends belong to the group.
 */
#include "engine/comm/group.h"
#include "engine/backend_impl.h"
#include "engine/cpu/pool.h"
#include "engine/model/shard.h"

#include <stdlib.h>

_Static_assert((int)SHARD_RANKS_MAX <= (int)COMM_RANKS_MAX, "a model that can be split can be connected");

typedef struct rank {
    model shard;
    comm *comm;
    backend *backend;
    float *logits;       /* of a whole pass… */
    batch_result result; /* …and of one in halves */
    engine_error error;
    bool failed;
} rank;

typedef struct group_backend group_backend;
struct group_backend {
    backend base;
    backend_ops ops; /* its own: halves, where the ranks have them */
    rank *rank;      /* [ranks] */
    int ranks;
    pool *pool; /* a thread a rank */
    const rank_kind *kind;
    const model *model;
    const batch_seq *seqs; /* the batch */
    int nseqs;
    int (*half)(const group_backend *g, rank *r, engine_error *err); /* of a pass: what the ranks are to do */
};

/* ---- a rank's thread ---- */

static int open_rank(const group_backend *g, rank *r, int index) {
    backend_options opt = g->base.opt;
    opt.threads = opt.threads > g->ranks ? opt.threads / g->ranks : 1;
    opt.comm = r->comm;
    if (shard_init(&r->shard, g->model, index, g->ranks, &r->error)) return -1;
    r->backend = g->kind->open(&r->shard, &opt, &r->error);
    return r->backend ? 0 : -1;
}

static void open_thread(void *arg, int index) {
    group_backend *g = arg;
    rank *r = &g->rank[index];
    r->failed = open_rank(g, r, index) != 0;
    if (r->failed) comm_abort(r->comm, &r->error);
}

static int whole_pass(const group_backend *g, rank *r, engine_error *err) {
    return r->backend->ops->forward(r->backend, g->seqs, g->nseqs, &r->logits, err);
}
static int first_half(const group_backend *g, rank *r, engine_error *err) {
    return r->backend->ops->begin(r->backend, g->seqs, g->nseqs, err);
}
static int second_half(const group_backend *g, rank *r, engine_error *err) {
    (void)g;
    return r->backend->ops->finish(r->backend, &r->result, err);
}

static void pass_thread(void *arg, int index) {
    group_backend *g = arg;
    rank *r = &g->rank[index];
    r->failed = g->half(g, r, &r->error) != 0;
    if (!r->failed) return;
    /* the others may be waiting for this one; if it was told of another's failure, that one was first and stays */
    engine_fail_in(&r->error, "rank %d of %d", index, g->ranks);
    comm_abort(r->comm, &r->error);
}

/* ---- the group as a backend ---- */

static const rank *first_failed(const group_backend *g) {
    for (int i = 0; i < g->ranks; i++) {
        if (g->rank[i].failed) return &g->rank[i];
    }
    return NULL;
}

/* The others have no second half any more in which they would see that one has failed, and their devices wait for it. */
static void abort_ranks(const group_backend *g) {
    const rank *failed = first_failed(g);
    for (int i = 0; failed && i < g->ranks; i++) comm_abort(g->rank[i].comm, &failed->error);
}

static int run_ranks(group_backend *g, int (*half)(const group_backend *, rank *, engine_error *),
                     engine_error *err) {
    g->half = half;
    if (!first_failed(g)) {
        pool_run(g->pool, pass_thread, g);
        abort_ranks(g);
    }
    /* a broken group's barrier returns at once, with the reason that came first */
    return first_failed(g) ? comm_barrier(g->rank[0].comm, err) : 0;
}

static int group_forward(backend *base, const batch_seq *seqs, int nseqs, float **logits, engine_error *err) {
    group_backend *g = (group_backend *)base;
    g->seqs = seqs;
    g->nseqs = nseqs;
    const int rc = run_ranks(g, whole_pass, err);
    *logits = g->rank[0].logits;
    return rc;
}

static int group_begin(backend *base, const batch_seq *seqs, int nseqs, engine_error *err) {
    group_backend *g = (group_backend *)base;
    g->seqs = seqs;
    g->nseqs = nseqs;
    return run_ranks(g, first_half, err);
}

static int group_finish(backend *base, batch_result *result, engine_error *err) {
    group_backend *g = (group_backend *)base;
    const int rc = run_ranks(g, second_half, err);
    *result = g->rank[0].result;
    return rc;
}

/* Every rank has all logits, and draws as the others do. */
static bool group_runs_ahead(const backend *base) {
    const backend *first = ((const group_backend *)base)->rank[0].backend;
    return first->ops->runs_ahead && first->ops->runs_ahead(first);
}

static void group_copy_block(backend *base, int32_t from, int32_t to) {
    const group_backend *g = (const group_backend *)base;
    for (int i = 0; i < g->ranks; i++) backend_copy_block(g->rank[i].backend, from, to);
}

static backend_memory group_memory(const backend *base) {
    const group_backend *g = (const group_backend *)base;
    backend_memory sum = {0};
    for (int i = 0; i < g->ranks; i++) {
        const backend_memory m = backend_memory_now(g->rank[i].backend);
        sum.weights += m.weights;
        sum.kv += m.kv;
        sum.workspace += m.workspace;
    }
    return sum;
}

static const char *group_isa(const backend *base) {
    return backend_isa(((const group_backend *)base)->rank[0].backend);
}

static void group_close(backend *base) {
    group_backend *g = (group_backend *)base;
    for (int i = 0; g->rank && i < g->ranks; i++) {
        backend_close(g->rank[i].backend);
        shard_done(&g->rank[i].shard);
        comm_free(g->rank[i].comm);
    }
    pool_free(g->pool);
    free(g->rank);
    free(g);
}

static int connect_ranks(group_backend *g, engine_error *err) {
    comm *ends[COMM_RANKS_MAX];
    if (g->kind->connect(g->ranks, ends, err)) return -1;
    for (int i = 0; i < g->ranks; i++) g->rank[i].comm = ends[i];
    return 0;
}

static int open_group(group_backend *g, engine_error *err) {
    if (shard_check(&g->model->config, g->ranks, err)) return -1;
    g->rank = calloc((size_t)g->ranks, sizeof *g->rank);
    if (!g->rank) return engine_fail(err, ENGINE_ENOMEM, "out of memory");
    if (connect_ranks(g, err)) return -1;
    g->pool = pool_new(g->ranks, err);
    if (!g->pool) return -1;
    pool_run(g->pool, open_thread, g);
    const rank *failed = first_failed(g);
    if (failed && err) *err = failed->error;
    return failed ? -1 : 0;
}

backend *backend_open_group(const rank_kind *kind, const model *m, const backend_options *opt, int ranks,
                            engine_error *err) {
    model_fetch_all(m);
    group_backend *g = calloc(1, sizeof *g);
    if (!g) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
        return NULL;
    }
    g->ops = (backend_ops){.forward = group_forward,
                           .copy_block = group_copy_block,
                           .close = group_close,
                           .memory = group_memory,
                           .isa = group_isa};
    g->base = (backend){.ops = &g->ops, .opt = *opt, .vocab = m->config.vocab};
    g->kind = kind;
    g->model = m;
    g->ranks = ranks;
    if (!open_group(g, err)) {
        if (backend_overlaps(g->rank[0].backend)) {
            g->ops.begin = group_begin;
            g->ops.finish = group_finish;
            g->ops.runs_ahead = group_runs_ahead;
        }
        return &g->base;
    }
    group_close(&g->base);
    return NULL;
}

backend *backend_open_cpu_ranks(const model *m, const backend_options *opt, int ranks, engine_error *err) {
    static const rank_kind cpu = {comm_local_new, backend_open_cpu};
    return backend_open_group(&cpu, m, opt, ranks, err);
}

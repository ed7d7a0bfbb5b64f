/* The engine over backends that compute, a pass begun before the last one's tokens are known: the CUDA backend through the shim or on
 * a GPU (tests/gpu), alone and over two ranks, and the CPU's with halves made for it. Tokens are those of one request after the other, with nothing begun ahead.
 * A shim's stream does nothing before it is waited for, so what a pass needs must outlast the begin of the next.
 */
#include "engine/comm/group.h"
#include "engine/cuda/cuda.h"
#include "tests/unit/engine_sched/cmocka_all.h"
#include "tests/unit/engine_sched/fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef ON_GPU
static void simt_be_lazy(bool lazy) {
    (void)lazy; /* a GPU is */
}
#else
#include "lazy.h"
#endif

enum { REQUESTS = 14, CONTEXT = 96, PROMPT = 40, BLOCK = 16 };

typedef struct world {
    const char *name;
    model *model;
    int ranks; /* of the CUDA backend; 0: the CPU's */
    backend *backend;
    drawer drawer; /* the CPU's halves */
    uint64_t ahead;
    said alone[REQUESTS], now[REQUESTS];
} world;

static int forward(void *w, const batch_seq *seqs, int nseqs, float **logits, engine_error *err) {
    return backend_forward(((world *)w)->backend, seqs, nseqs, logits, err);
}

static int begin(void *owner, const batch_seq *seqs, int nseqs, engine_error *err) {
    world *w = owner;
    for (int i = 0; i < nseqs; i++) w->ahead += !seqs[i].tokens;
    return w->ranks ? backend_begin(w->backend, seqs, nseqs, err)
                    : drawer_begin(&w->drawer, seqs, nseqs, err);
}

static int finish(void *owner, batch_result *result, engine_error *err) {
    world *w = owner;
    return w->ranks ? backend_finish(w->backend, result, err) : drawer_finish(&w->drawer, result, err);
}

static bool runs_ahead(void *owner) {
    world *w = owner;
    return w->ranks ? backend_runs_ahead(w->backend) : drawer_runs_ahead(&w->drawer);
}

static void copy_block(void *w, int32_t from, int32_t to) {
    backend_copy_block(((world *)w)->backend, from, to);
}

static const char *no_text(void *owner, int32_t id, size_t *n, bool *special) {
    (void)owner;
    (void)id;
    *n = 0;
    *special = false;
    return "";
}

static void close_backend(void *owner) {
    world *w = owner;
    backend_close(w->backend);
    if (!w->ranks) drawer_done(&w->drawer);
}

static backend *open_ranks(const world *w, const backend_options *opt, engine_error *err) {
#ifdef ON_GPU
    return backend_open_cuda_ranks(w->model, opt, w->ranks, err);
#else
    static const rank_kind kind = {comm_local_new, backend_open_cuda};
    return backend_open_group(&kind, w->model, opt, w->ranks, err);
#endif
}

static backend *open_backend(const world *w, const engine_limits *l, engine_error *err) {
    const backend_options opt = {.threads = 1,
                                 .kv_blocks = l->kv_blocks,
                                 .block_tokens = BLOCK,
                                 .max_tokens = l->step_tokens,
                                 .max_logits = l->max_seqs,
                                 .max_seqs = l->max_seqs,
                                 .max_blocks_per_seq = CONTEXT / BLOCK};
    if (!w->ranks) return backend_open_cpu(w->model, &opt, err);
    return w->ranks == 1 ? backend_open_cuda(w->model, &opt, err) : open_ranks(w, &opt, err);
}

static engine *open_engine(world *w, const engine_limits *l, bool ahead) {
    const int vocab = w->model->config.vocab;
    engine_error err;
    w->backend = open_backend(w, l, &err);
    if (!w->backend) fail_msg("%s", err.msg);
    w->drawer = (drawer){.forward = forward, .owner = w, .row = vocab, .draws = true, .ahead = true};
    if (!w->ranks) drawer_init(&w->drawer, vocab, l->max_seqs);
    engine_parts parts = {.owner = w,
                          .forward = forward,
                          .begin = begin,
                          .finish = finish,
                          .runs_ahead = ahead ? runs_ahead : NULL,
                          .copy_block = copy_block,
                          .piece = no_text,
                          .close = close_backend,
                          .vocab = vocab,
                          .known_vocab = vocab,
                          .nstop_ids = ENGINE_STOP_IDS_MAX};
    for (int i = 0; i < ENGINE_STOP_IDS_MAX; i++) parts.stop_ids[i] = i * vocab / ENGINE_STOP_IDS_MAX;
    engine *e = engine_open_with(l, &parts, &err);
    assert_non_null(e);
    return e;
}

static engine_request vary(const world *w, uint64_t id, int32_t prompt[PROMPT]) {
    uint64_t r = id * 1000;
    const uint32_t vocab = (uint32_t)w->model->config.vocab;
    const int n = 1 + (int)rnd(&r, PROMPT), common = (int)rnd(&r, (uint32_t)n + 1);
    for (int i = 0; i < n; i++) {
        uint64_t same = (uint64_t)i * 7777;
        prompt[i] = (int32_t)(i < common ? rnd(&same, vocab) : rnd(&r, vocab));
    }
    engine_request q = {.id = id, .prompt = prompt, .nprompt = n};
    engine_sampling_default(&q.sampling);
    q.sampling.seed = id;
    q.sampling.temperature = rnd(&r, 3) ? 0.9f : 0;
    q.sampling.top_k = rnd(&r, 3) ? 0 : 30;
    q.sampling.repetition_penalty = rnd(&r, 3) ? 1 : 1.5f;
    q.sampling.presence_penalty = rnd(&r, 3) ? 0 : 0.5f;
    q.sampling.frequency_penalty = rnd(&r, 2) ? 0 : 2;
    q.sampling.min_tokens = (int)rnd(&r, 12);
    q.sampling.max_tokens = 1 + (int)rnd(&r, 40);
    q.sampling.logprobs = id == 9 ? 1 : -1;
    return q;
}

/* seed 0: one request after the other. */
static engine_load run(world *w, const engine_limits *l, uint64_t seed) {
    engine *e = open_engine(w, l, seed);
    engine_event ev[64];
    engine_error err;
    int32_t prompt[PROMPT];
    int next = 0, ended = 0;
    for (int i = 0; i < REQUESTS; i++) said_init(&w->now[i], (uint64_t)i);
    while (ended < REQUESTS) {
        while (next < REQUESTS && (seed ? rnd(&seed, 3) : next == ended)) {
            const engine_request q = vary(w, (uint64_t)next, prompt);
            if (engine_submit(e, &q, &err)) break;
            next++;
        }
        if (seed && !rnd(&seed, 20)) engine_cancel(e, rnd(&seed, REQUESTS));
        const int n = engine_step(e, ev, 64, &err);
        if (n < 0) fail_msg("%s: %s", w->name, err.msg);
        for (int i = 0; i < n; i++) {
            said_add(&w->now[ev[i].id], &ev[i]);
            ended += ev[i].kind == ENGINE_END;
        }
    }
    const engine_load load = engine_load_now(e);
    assert_int_equal(load.kv_blocks_used, 0);
    engine_close(e);
    return load;
}

static void compare(const world *w, uint64_t seed) {
    for (int i = 0; i < REQUESTS; i++) {
        const said *a = &w->alone[i], *b = &w->now[i];
        const bool cut = b->finish == ENGINE_FINISH_CANCELLED;
        if ((cut ? b->n > a->n : b->n != a->n) || (!cut && a->finish != b->finish) ||
            memcmp(a->token, b->token, (size_t)b->n * sizeof *a->token))
            fail_msg("%s: in schedule %d answer %d is another one", w->name, (int)seed, i);
    }
}

static void check(world *w, const char *dir, int schedules) {
    static const engine_limits limits[] = {
        {.max_seqs = 5, .max_waiting = 20, .step_tokens = 24, .kv_blocks = 30, .reserve_tokens = 16},
        {.max_seqs = 6, .max_waiting = 20, .step_tokens = 64, .kv_blocks = 9, .reserve_tokens = 1},
    };
    engine_error err;
    uint64_t preemptions = 0;
    w->model = model_open(dir, &err);
    if (!w->model) fail_msg("%s", err.msg);
    for (int i = 0; i <= schedules; i++) {
        engine_limits l = limits[i % 2];
        l.max_context = CONTEXT;
        l.block_tokens = BLOCK;
        preemptions += run(w, &l, (uint64_t)i).preemptions;
        if (!i) {
            assert_int_equal(w->ahead, 0);
            memcpy(w->alone, w->now, sizeof w->alone);
        }
        compare(w, (uint64_t)i);
    }
    assert_true(w->ahead > 60 * (uint64_t)schedules && preemptions > 0);
    model_close(w->model);
    free(w);
}

static world *world_new(const char *name, int ranks) {
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->name = name;
    w->ranks = ranks;
    return w;
}

static int be_lazy(void **state) {
    (void)state;
    simt_be_lazy(true);
    return 0;
}

static int be_eager(void **state) {
    (void)state;
    simt_be_lazy(false);
    return 0;
}

static void answers_of_a_gpu_are_the_same_ahead(void **state) {
    (void)state;
    check(world_new("bf16", 1), "tests/golden/models/llama_gqa_bf16", 4);
    check(world_new("f32", 1), "tests/golden/models/qwen2_tied_f32", 2);
}

static void answers_of_two_ranks_are_the_same_ahead(void **state) {
    (void)state;
    if (cuda_devices() < 2) skip();
    check(world_new("two ranks", 2), "tests/golden/models/llama_gqa_f32", 2);
}

static void answers_of_a_cpu_are_the_same_ahead(void **state) {
    (void)state;
    check(world_new("CPU", 0), "tests/golden/models/llama_gqa_bf16", 8);
}

static void a_pass_that_cannot_follow_is_refused(void **state) {
    (void)state;
    engine_error err;
    world *w = world_new("refusals", 1);
    const engine_limits l = {.max_seqs = 2, .step_tokens = 8, .kv_blocks = 4};
    const int32_t token = 3, blocks[] = {0};
    const batch_draw draw = {.vocab = 5, .repetition = 1};
    batch_seq s = {.tokens = &token, .ntokens = 1, .blocks = blocks, .nlogits = 1};
    batch_result r;
    w->model = model_open("tests/golden/models/llama_gqa_f32", &err);
    backend *b = w->model ? open_backend(w, &l, &err) : NULL;
    if (!b) fail_msg("%s", err.msg);
    assert_int_equal(backend_begin(b, &s, 1, &err), 0); /* whose logits are the caller's to draw from */
    assert_false(backend_runs_ahead(b));
    assert_int_equal(backend_begin(b, &s, 1, &err), -1);
    assert_int_equal(backend_finish(b, &r, &err), 0);
    s.draw = &draw;
    assert_int_equal(backend_begin(b, &s, 1, &err), 0);
    assert_true(backend_runs_ahead(b));
    s = (batch_seq){.ntokens = 1, .drawn_row = 1, .pos = 1, .blocks = blocks, .nlogits = 1, .draw = &draw};
    assert_int_equal(backend_begin(b, &s, 1, &err), -1); /* there was one row */
    s.drawn_row = 0;
    assert_int_equal(backend_begin(b, &s, 1, &err), 0);
    assert_false(backend_runs_ahead(b)); /* two are enough */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(backend_finish(b, &r, &err), 0);
        assert_in_range(r.drawn[0], 0, 4);
    }
    backend_close(b);
    model_close(w->model);
    free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers_of_a_gpu_are_the_same_ahead, be_lazy, be_eager),
        cmocka_unit_test(answers_of_two_ranks_are_the_same_ahead),
        cmocka_unit_test(answers_of_a_cpu_are_the_same_ahead),
        cmocka_unit_test(a_pass_that_cannot_follow_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

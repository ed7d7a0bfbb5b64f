/* Batch invariance of the whole engine, over real (tiny) checkpoints: after the same tokens come bitwise the same logits,
 * whatever the schedule. Watched from between engine and backend: for each row of logits, what the sequence was up to there,
 * and the bits of the row. Sizes, threads, moments of submission, prefix hits, forks, guesses and preemptions are random,
 * from fixed seeds.
 */
#include "fake.h"

#include "tests/unit/engine_sched/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAP = 1 << 16, REQUESTS = 16, CHOICES = 2, CONTEXT = 200, PROMPT = 120 };

typedef struct seen {
    uint64_t prefix, logits; /* 0: none */
} seen;

typedef struct world {
    const model *model;
    backend *backend;
    const char *where;
    seen map[MAP];
    int rows, known; /* rows of logits; those whose prefix had been seen before */
    said alone[REQUESTS][CHOICES], now[REQUESTS][CHOICES];
} world;

static uint64_t hash(const void *p, size_t n) {
    const unsigned char *bytes = p;
    uint64_t h = n + 1, word = 0;
    for (; n >= 8; n -= 8, bytes += 8) {
        memcpy(&word, bytes, 8);
        h = mix(h ^ word);
    }
    for (; n; n--) h = mix(h ^ *bytes++);
    return h;
}

static void check_row(world *w, const int32_t *tokens, int n, const float *row) {
    uint64_t prefix = hash(tokens, (size_t)n * sizeof *tokens);
    uint64_t logits = hash(row, (size_t)w->model->config.vocab * sizeof *row);
    size_t at = prefix % MAP;
    while (w->map[at].logits && w->map[at].prefix != prefix) at = (at + 1) % MAP;
    w->rows++;
    if (!w->map[at].logits) {
        w->map[at] = (seen){prefix, logits};
        assert_true(w->rows - w->known < MAP / 2);
        return;
    }
    w->known++;
    if (w->map[at].logits != logits) fail_msg("%s: other logits after the same %d tokens", w->where, n);
}

static int watch_forward(void *owner, const batch_seq *seqs, int nseqs, float **logits, engine_error *err) {
    world *w = owner;
    if (backend_forward(w->backend, seqs, nseqs, logits, err)) return -1;
    const float *row = *logits;
    for (int i = 0; i < nseqs; i++) {
        const int32_t *tokens =
            seqs[i].tokens - seqs[i].pos; /* the scheduler's are contiguous from the start */
        int end = seqs[i].pos + seqs[i].ntokens;
        for (int k = seqs[i].nlogits - 1; k >= 0; k--, row += w->model->config.vocab) {
            check_row(w, tokens, end - k, row);
        }
    }
    return 0;
}

static void watch_copy(void *owner, int32_t from, int32_t to) {
    backend_copy_block(((world *)owner)->backend, from, to);
}

static const char *no_text(void *owner, int32_t id, size_t *n, bool *special) {
    (void)owner;
    (void)id;
    *n = 0;
    *special = false;
    return "";
}

static void close_backend(void *owner) {
    backend_close(((world *)owner)->backend);
}

typedef struct setting {
    engine_limits limits;
    const char *weights, *kv;
    int threads;
    bool salted; /* no two share a prefix */
} setting;

static engine *open_watched(world *w, const setting *s) {
    const engine_limits *l = &s->limits;
    engine_error err;
    w->backend = backend_open_cpu(w->model,
                                  &(backend_options){.threads = s->threads,
                                                     .weights = s->weights,
                                                     .kv = s->kv,
                                                     .kv_blocks = l->kv_blocks,
                                                     .block_tokens = l->block_tokens,
                                                     .max_tokens = l->step_tokens,
                                                     .max_logits = l->max_seqs + l->guess_tokens,
                                                     .max_seqs = l->max_seqs,
                                                     .max_blocks_per_seq = CONTEXT / 16 + 1},
                                  &err);
    if (!w->backend) fail_msg("%s", err.msg);
    engine_parts parts = {.owner = w,
                          .forward = watch_forward,
                          .copy_block = watch_copy,
                          .piece = no_text,
                          .close = close_backend,
                          .vocab = w->model->config.vocab,
                          .known_vocab = w->model->config.vocab};
    engine *e = engine_open_with(l, &parts, &err);
    assert_non_null(e);
    return e;
}

/* The same request for the same number. Prompts begin with one of three texts, and repeat themselves here and there. */
static engine_request vary(const world *w, uint64_t id, int32_t prompt[PROMPT]) {
    uint64_t r = id * 1000;
    uint32_t vocab = (uint32_t)w->model->config.vocab;
    int n = 1 + (int)rnd(&r, PROMPT), common = (int)rnd(&r, (uint32_t)n + 1), text = (int)rnd(&r, 3);
    for (int i = 0; i < n; i++) {
        uint64_t same = (uint64_t)(text * 100 + i % 40) * 7777;
        prompt[i] = (int32_t)(i < common ? rnd(&same, vocab) : rnd(&r, vocab));
    }
    engine_request q = {.id = id, .prompt = prompt, .nprompt = n, .n = 1 + (int)rnd(&r, CHOICES)};
    engine_sampling_default(&q.sampling);
    q.sampling.seed = id;
    q.sampling.temperature = rnd(&r, 2) ? 0 : 0.7f;
    q.sampling.repetition_penalty = rnd(&r, 4) ? 1 : 1.2f;
    q.sampling.max_tokens = 1 + (int)rnd(&r, 75);
    q.sampling.logprobs = 3;
    return q;
}

static int submit_some(engine *e, const world *w, const setting *s, int *next, uint64_t *r) {
    int32_t prompt[PROMPT];
    engine_error err;
    int answers = 0;
    while (*next < REQUESTS && rnd(r, 3)) {
        engine_request q = vary(w, (uint64_t)*next, prompt);
        if (s->salted) q.cache_salt = q.id + 1;
        if (engine_submit(e, &q, &err)) break;
        answers += q.n;
        ++*next;
    }
    return answers;
}

static engine_load run(world *w, const setting *s, uint64_t seed) {
    engine *e = open_watched(w, s);
    engine_event ev[64];
    engine_error err;
    int next = 0, answers = 0, ended = 0;
    for (int i = 0; i < REQUESTS * CHOICES; i++) {
        said_init(&w->now[i / CHOICES][i % CHOICES], (uint64_t)(i / CHOICES));
        w->now[i / CHOICES][i % CHOICES].choice = i % CHOICES;
    }
    while (next < REQUESTS || ended < answers) {
        answers += submit_some(e, w, s, &next, &seed);
        int n = engine_step(e, ev, 64, &err);
        assert_true(n >= 0);
        for (int i = 0; i < n; i++) {
            said_add(&w->now[ev[i].id][ev[i].choice], &ev[i]);
            ended += ev[i].kind == ENGINE_END;
        }
    }
    engine_load load = engine_load_now(e);
    engine_close(e);
    return load;
}

static setting random_setting(uint64_t *r, const char *weights, const char *kv) {
    setting s = {.weights = weights, .kv = kv, .threads = 1 + (int)rnd(r, 4)};
    s.limits = (engine_limits){
        .max_seqs = 2 + (int)rnd(r, 6),
        .max_waiting = 20,
        .max_context = CONTEXT,
        .step_tokens = 8 + (int)rnd(r, rnd(r, 2) ? 20 : 300),
        .reserve_tokens = rnd(r, 2) ? 1 : CONTEXT,
        .guess_tokens = rnd(r, 3) ? 1 + (int)rnd(r, 20) : 0,
        .kv_blocks = 13 + (int)rnd(r, rnd(r, 2) ? 8 : 80),
        .block_tokens = 16,
    };
    return s;
}

static void compare(const world *w) {
    for (int i = 0; i < REQUESTS * CHOICES; i++) {
        const said *a = &w->alone[i / CHOICES][i % CHOICES], *b = &w->now[i / CHOICES][i % CHOICES];
        if (a->n != b->n || memcmp(a->token, b->token, (size_t)a->n * sizeof *a->token) ||
            memcmp(a->logprob, b->logprob, (size_t)a->n * sizeof *a->logprob)) {
            fail_msg("%s: answer %d.%d differs from the same alone", w->where, i / CHOICES, i % CHOICES);
        }
    }
}

static void check_model(const char *name, const char *weights, const char *kv, uint64_t seed,
                        engine_load *sum) {
    const setting alone = {.limits = {.max_seqs = CHOICES,
                                      .max_waiting = 1,
                                      .max_context = CONTEXT,
                                      .step_tokens = 256,
                                      .reserve_tokens = 1,
                                      .kv_blocks = 26,
                                      .block_tokens = 16},
                           .weights = weights,
                           .kv = kv,
                           .threads = 1,
                           .salted = true};
    char dir[256], where[300];
    engine_error err;
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    snprintf(dir, sizeof dir, "tests/golden/models/%s", name);
    model *m = model_open(dir, &err);
    if (!m) fail_msg("%s", err.msg);
    w->model = m;
    w->where = where;
    snprintf(where, sizeof where, "%s, %s, KV %s, one by one", name, weights, kv);
    run(w, &alone, seed);
    memcpy(w->alone, w->now, sizeof w->alone);
    for (int i = 0; i < 5; i++) {
        setting s = random_setting(&seed, weights, kv);
        snprintf(where, sizeof where, "%s, %s, KV %s, schedule %d on %d threads", name, weights, kv, i,
                 s.threads);
        engine_load load = run(w, &s, seed);
        compare(w);
        sum->preemptions += load.preemptions;
        sum->cached_tokens += load.cached_tokens;
        sum->guessed_tokens += load.guessed_tokens;
        sum->right_guesses += load.right_guesses;
    }
    assert_true(w->known > 2000);
    model_close(m);
    free(w);
}

static void test_the_same_tokens_have_the_same_logits_in_every_schedule(void **state) {
    (void)state;
    engine_load sum = {0};
    check_model("llama_gqa_f32", "stored", "full", 1, &sum);
    check_model("llama_gqa_bf16", "stored", "full", 2, &sum);
    check_model("qwen2_tied_f32", "stored", "full", 3, &sum);
    check_model("llama_gqa_bf16", "int8", "full", 4, &sum);
    check_model("llama_gqa_bf16", "int8", "int8", 5, &sum);
    check_model("qwen2_tied_f32", "stored", "int8", 6, &sum);
    /* what was to be proved harmless has happened */
    assert_true(sum.preemptions > 10 && sum.cached_tokens > 3000);
    assert_true(sum.right_guesses > 50 && sum.guessed_tokens > sum.right_guesses + 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_tokens_have_the_same_logits_in_every_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

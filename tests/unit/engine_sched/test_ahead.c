/* The step loop over a backend that lets a pass be begun before the last one's tokens are known: every answer is what it is over one
 * that does not.
 */
#include "fake.h"

#include "tests/unit/engine_sched/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

enum { REQUESTS = 60 };

typedef struct varied {
    char prompt[128];
    engine_message message;
    engine_request r;
} varied;

/* A request, the same for the same number: now and then one whose tokens the engine has to see. */
static void vary(varied *v, uint64_t id) {
    static const char *const stops[] = {"a", "q!", "zz"};
    uint64_t s = id * 1000;
    const size_t n = 1 + rnd(&s, 100), common = rnd(&s, 2) ? n / 2 : 0;
    for (size_t i = 0; i < n; i++) v->prompt[i] = i < common ? '.' : (char)('a' + rnd(&s, 26));
    v->message = (engine_message){.role = "user", .content = v->prompt, .content_len = n};
    v->r = (engine_request){.id = id, .messages = &v->message, .nmessages = 1};
    engine_sampling *h = &v->r.sampling;
    engine_sampling_default(h);
    h->seed = id;
    h->temperature = (float)rnd(&s, 3) / 2;
    h->top_p = rnd(&s, 2) ? 0.9f : 1;
    h->top_k = rnd(&s, 3) ? 0 : 20;
    h->presence_penalty = rnd(&s, 3) ? 0 : 0.75f;
    h->frequency_penalty = rnd(&s, 2) ? 0.5f : 0;
    h->repetition_penalty = rnd(&s, 3) ? 1 : 1.3f;
    h->max_tokens = 1 + (int)rnd(&s, 90);
    h->min_tokens = (int)rnd(&s, 10);
    h->stop = stops;
    h->nstop = rnd(&s, 3) ? 0 : 3;
    h->logprobs = id % 20 == 7 ? 2 : -1;
    v->r.format.json = id % 20 == 13;
    v->r.n = id % 20 == 17 ? 2 : 1;
}

static void say_alone(said *s) {
    fake_be("");
    for (uint64_t id = 0; id < REQUESTS; id++) {
        fake f = {.period = 9};
        varied v;
        vary(&v, id);
        v.r.n = 1;
        engine *e = fake_open(&f, &(engine_limits){.step_tokens = 512});
        say(e, &v.r, &s[id]);
        engine_close(e);
        fake_done(&f);
    }
    fake_be("ahead");
}

/* All through one engine, submitted and cancelled at random moments. */
static engine_load say_together(said *s, const engine_limits *limits, uint64_t seed, uint64_t *ahead) {
    fake f = {.period = 9}; /* it says again what it said: guesses come true */
    engine *e = fake_open(&f, limits);
    engine_event ev[64];
    engine_error err;
    varied v;
    int next = 0, ended = 0, answers = 0;
    for (int i = 0; i < REQUESTS; i++) said_init(&s[i], (uint64_t)i);
    while (next < REQUESTS || ended < answers) {
        while (next < REQUESTS && rnd(&seed, 4)) {
            vary(&v, (uint64_t)next);
            if (engine_submit(e, &v.r, &err)) break;
            answers += v.r.n;
            next++;
        }
        if (!rnd(&seed, 12)) engine_cancel(e, rnd(&seed, (uint32_t)next + 1));
        const int n = engine_step(e, ev, 2 * f.limits.max_seqs + (int)rnd(&seed, 10), &err);
        assert_true(n >= 0);
        for (int i = 0; i < n; i++) {
            said_add(&s[ev[i].id], &ev[i]);
            ended += ev[i].kind == ENGINE_END;
        }
    }
    assert_false(engine_busy(e));
    assert_true(f.most_tokens <= f.limits.step_tokens && f.most_seqs <= f.limits.max_seqs);
    *ahead += f.drawer.tokens_ahead;
    const engine_load load = engine_load_now(e);
    assert_int_equal(load.kv_blocks_used, 0);
    engine_close(e);
    fake_done(&f);
    return load;
}

/* What was cancelled is so far what it would have been. */
static void assert_begins(const said *whole, const said *s) {
    const bool cut = s->finish == ENGINE_FINISH_CANCELLED;
    assert_true(s->ended && s->contiguous && (cut ? s->n <= whole->n : s->n == whole->n));
    assert_memory_equal(s->token, whole->token, (size_t)s->n * sizeof *s->token);
    assert_memory_equal(s->logprob, whole->logprob, (size_t)s->n * sizeof *s->logprob);
    for (int c = 0; c < 2; c++) assert_memory_equal(s->text[c], whole->text[c], s->len[c]);
    if (cut) return;
    assert_int_equal(s->finish, whole->finish);
    assert_int_equal(s->completion_tokens, whole->completion_tokens);
    assert_int_equal(s->len[ENGINE_CONTENT], whole->len[ENGINE_CONTENT]);
}

static void test_answers_are_the_same_whatever_comes_and_goes_meanwhile(void **state) {
    (void)state;
    const engine_limits limits[] = {
        {.max_seqs = 8, .step_tokens = 64},
        {.max_seqs = 3, .step_tokens = 3},                  /* prompts in crumbs */
        {.max_seqs = 8, .step_tokens = 8, .kv_blocks = 16}, /* one long sequence fills it: much preemption */
        {.max_seqs = 8, .step_tokens = 300, .kv_blocks = 17},
        {.max_seqs = 5, .step_tokens = 32, .kv_blocks = 60, .reserve_tokens = 256},
        {.max_seqs = 8, .step_tokens = 64, .guess_tokens = 5}, /* some passes have room for guesses */
        {.max_seqs = 6, .step_tokens = 12, .kv_blocks = 24, .guess_tokens = 6},
    };
    said *alone = calloc(REQUESTS, sizeof *alone), *together = calloc(REQUESTS, sizeof *together);
    uint64_t ahead = 0, preemptions = 0, cached = 0, cancelled = 0, stopped = 0, guessed = 0, mixed = 0;
    assert_true(alone && together);
    say_alone(alone);
    for (size_t k = 0; k < sizeof limits / sizeof *limits; k++) {
        for (uint64_t seed = 0; seed < 8; seed++) {
            const uint64_t before = ahead;
            const engine_load load = say_together(together, &limits[k], seed * 77, &ahead);
            preemptions += load.preemptions;
            cached += load.cached_tokens;
            guessed += load.right_guesses;
            mixed += load.right_guesses && ahead > before;
            for (int i = 0; i < REQUESTS; i++) {
                assert_begins(&alone[i], &together[i]);
                cancelled += together[i].finish == ENGINE_FINISH_CANCELLED;
                stopped += together[i].finish == ENGINE_FINISH_STOP;
            }
        }
    }
    /* what was to be proved harmless has happened */
    assert_true(ahead > 5000 && preemptions > 100 && cached > 1000 && cancelled > 100 && stopped > 200);
    assert_true(guessed > 200 && mixed > 10);
    free(alone);
    free(together);
}

static engine_request plain(uint64_t id, const char *prompt, int max_tokens) {
    engine_request q = request_of(id, prompt);
    q.sampling.ignore_eos = true;
    q.sampling.max_tokens = max_tokens;
    return q;
}

static void test_every_token_but_the_first_is_computed_before_it_is_known(void **state) {
    (void)state;
    static const int32_t ends[] = {'a', 'b', FAKE_END};
    fake f = {0}, g = {.script = ends, .nscript = 3, .script_at = 2};
    engine *e = fake_open(&f, NULL), *stops = fake_open(&g, NULL);
    engine_request q = plain(1, "hello", 30);
    said s;
    say(e, &q, &s);
    assert_int_equal(s.n, 30);
    assert_int_equal(f.drawer.tokens_ahead, 29);
    assert_int_equal(f.drawer.begun, 30); /* none after the last: how long it can become is known */
    q = request_of(1, "hi");
    say(stops, &q, &s);
    assert_int_equal(s.n, 2);
    assert_int_equal(g.drawer.begun, 4); /* one for nothing: that it ends is not */
    engine_close(e);
    engine_close(stops);
    fake_done(&f);
    fake_done(&g);
}

static void test_an_answer_may_end_as_soon_as_it_is_long_enough(void **state) {
    (void)state;
    static const int32_t ends[] = {'a', FAKE_END, FAKE_END, 'b'};
    fake f = {.script = ends, .nscript = 4, .script_at = 2};
    engine *e = fake_open(&f, NULL);
    engine_request q = request_of(1, "hi");
    said s;
    q.sampling.min_tokens = 2; /* one more than it would say */
    say(e, &q, &s);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.finish, ENGINE_FINISH_STOP);
    assert_true(f.drawer.tokens_ahead >= 2);
    engine_close(e);
    fake_done(&f);
}

static void expect_never_ahead(const engine_limits *limits, engine_request q) {
    fake f = {0};
    engine *e = fake_open(&f, limits);
    said s;
    say(e, &q, &s);
    assert_true(s.n > 2);
    assert_int_equal(f.drawer.tokens_ahead, 0);
    engine_close(e);
    fake_done(&f);
}

static void test_nothing_runs_ahead_of_tokens_that_the_engine_has_to_see(void **state) {
    (void)state;
    engine_request q = plain(1, "abcdefghi abcdefghi", 30);
    expect_never_ahead(&(engine_limits){.guess_tokens = 8}, q);
    q.sampling.logprobs = 1;
    expect_never_ahead(NULL, q);
    q = plain(1, "abc", 30);
    q.format.json = true;
    expect_never_ahead(NULL, q);
}

/* The end of the answer was computed at the last place of a block. A prompt that has something else there must not find it. */
static void test_a_token_that_ends_an_answer_is_not_in_the_cache(void **state) {
    (void)state;
    static const int32_t script[] = {'k', 'l', 'm', 'n', 'o'};
    fake f = {0}, g = {0};
    engine *e = fake_open(&f, &(engine_limits){.max_seqs = 1, .max_waiting = 1}),
           *fresh = fake_open(&g, NULL);
    said s, want;
    for (uint64_t id = 0; id < 2; id++) { /* both places have held these tokens */
        engine_request longer = plain(id, "##########klmnoXYZ", 1);
        longer.cache_salt = 1;
        say(e, &longer, &s);
    }
    engine_request q = request_of(2, "0123456789");
    f.script = script, f.nscript = 5, f.script_at = 10;
    say(e, &q, &s);
    assert_int_equal(s.finish, ENGINE_FINISH_STOP);
    assert_int_equal(s.n, 5);
    f.script = NULL;
    engine_request again = plain(3, "0123456789klmnoXYZ", 20);
    say(e, &again, &s);
    assert_int_equal(s.cached_tokens, 0);
    say(fresh, &again, &want);
    assert_int_equal(s.n, want.n);
    assert_memory_equal(s.token, want.token, (size_t)s.n * sizeof *s.token);
    engine_close(e);
    engine_close(fresh);
    fake_done(&f);
    fake_done(&g);
}

/* A sick sequence has drawn no token, and a place in the pass that was begun before that was known. */
static void test_a_sequence_without_a_token_does_not_harm_those_beside_it(void **state) {
    (void)state;
    static const int32_t poison[] = {'x', FAKE_POISON};
    fake f = {0};
    engine *e = fake_open(&f, NULL);
    engine_error err;
    said s[2];
    engine_request sick = {.id = 1, .prompt = poison, .nprompt = 2}, well = plain(2, "fine", 20);
    engine_sampling_default(&sick.sampling);
    said_init(&s[0], 1);
    said_init(&s[1], 2);
    assert_int_equal(engine_submit(e, &sick, &err), 0);
    assert_int_equal(engine_submit(e, &well, &err), 0);
    assert_true(run_all(e, s, 2));
    assert_int_equal(s[0].finish, ENGINE_FINISH_ERROR);
    assert_int_equal(s[1].n, 20);
    assert_true(f.drawer.tokens_ahead >= 20);
    engine_close(e);
    fake_done(&f);
}

int main(void) {
    fake_be("ahead");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_the_same_whatever_comes_and_goes_meanwhile),
        cmocka_unit_test(test_every_token_but_the_first_is_computed_before_it_is_known),
        cmocka_unit_test(test_an_answer_may_end_as_soon_as_it_is_long_enough),
        cmocka_unit_test(test_nothing_runs_ahead_of_tokens_that_the_engine_has_to_see),
        cmocka_unit_test(test_a_token_that_ends_an_answer_is_not_in_the_cache),
        cmocka_unit_test(test_a_sequence_without_a_token_does_not_harm_those_beside_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The step loop over a fake model: requests in, events out, whatever the schedule. */
#include "fake.h"

#include "engine/sched/scheduler.h"
#include "tests/unit/engine_sched/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REQUESTS = 40, CHOICES = 3, ANSWERS = REQUESTS * CHOICES };

/* A varied request; the same for the same number. */
typedef struct varied {
    char prompt[128];
    engine_message message;
    engine_request r;
} varied;

static void vary(varied *v, uint64_t id) {
    uint64_t s = id * 1000;
    size_t n = 1 + rnd(&s, 100);
    size_t common = rnd(&s, 2) ? n / 2 : 0; /* some begin with the same text */
    for (size_t i = 0; i < n; i++) v->prompt[i] = i < common ? '.' : (char)('a' + rnd(&s, 26));
    v->message = (engine_message){.role = "user", .content = v->prompt, .content_len = n};
    v->r = (engine_request){.id = id, .messages = &v->message, .nmessages = 1};
    engine_sampling_default(&v->r.sampling);
    v->r.sampling.seed = id;
    v->r.sampling.temperature = (float)rnd(&s, 3) / 2;
    v->r.sampling.top_p = rnd(&s, 2) ? 0.9f : 1;
    v->r.sampling.frequency_penalty = rnd(&s, 2) ? 0.5f : 0;
    v->r.sampling.max_tokens = 1 + (int)rnd(&s, 90);
    v->r.sampling.min_tokens = (int)rnd(&s, 10);
    v->r.sampling.logprobs = rnd(&s, 2) ? 2 : -1;
    v->r.n = rnd(&s, 3) ? 0 : 1 + (int)rnd(&s, CHOICES);
}

static void assert_same(const said *a, const said *b) {
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->token, b->token, (size_t)a->n * sizeof *a->token);
    assert_memory_equal(a->logprob, b->logprob, (size_t)a->n * sizeof *a->logprob);
    for (int c = 0; c < 2; c++) {
        assert_int_equal(a->len[c], b->len[c]);
        assert_memory_equal(a->text[c], b->text[c], a->len[c]);
    }
    assert_int_equal(a->finish, b->finish);
    assert_int_equal(a->completion_tokens, b->completion_tokens);
    assert_int_equal(a->reasoning_tokens, b->reasoning_tokens);
}

static said *said_new(int n) {
    said *s = calloc((size_t)n, sizeof *s);
    assert_non_null(s);
    return s;
}

/* Each answer alone in an engine with room for everything, which draws itself; s[id * CHOICES + choice]. */
static said *speak_alone(int period) {
    said *s = said_new(ANSWERS);
    const bool draws = fake_draws;
    fake_draws = false;
    for (int i = 0; i < ANSWERS; i++) {
        fake f = {.period = period};
        varied v;
        vary(&v, (uint64_t)(i / CHOICES));
        if (i % CHOICES && i % CHOICES >= v.r.n) continue;
        v.r.n = 1;
        v.r.choice = i % CHOICES;
        engine *e = fake_open(&f, &(engine_limits){.step_tokens = 512});
        say(e, &v.r, &s[i]);
        engine_close(e);
        fake_done(&f);
    }
    fake_draws = draws;
    return s;
}

/* All requests through one engine, submitted at random moments, with steps of random room for events. */
static engine_load speak_together(said *s, const engine_limits *limits, int period, uint64_t seed) {
    fake f = {.period = period};
    engine *e = fake_open(&f, limits);
    engine_event ev[64];
    engine_error err;
    varied v;
    int next = 0, ended = 0, answers = 0;
    for (int i = 0; i < ANSWERS; i++) {
        said_init(&s[i], (uint64_t)(i / CHOICES));
        s[i].choice = i % CHOICES;
    }
    while (next < REQUESTS || ended < answers) {
        while (next < REQUESTS && rnd(&seed, 3)) {
            vary(&v, (uint64_t)next);
            if (engine_submit(e, &v.r, &err)) break;
            answers += v.r.n ? v.r.n : 1;
            memset(&v, 'x', sizeof v); /* the engine has copied what it needs */
            next++;
        }
        int n = engine_step(e, ev, 2 * f.limits.max_seqs + (int)rnd(&seed, 30), &err);
        assert_true(n >= 0);
        for (int i = 0; i < n; i++) {
            said_add(&s[ev[i].id * CHOICES + (uint64_t)ev[i].choice], &ev[i]);
            ended += ev[i].kind == ENGINE_END;
        }
    }
    assert_false(engine_busy(e));
    assert_true(f.most_tokens <= f.limits.step_tokens);
    assert_true(f.most_seqs <= f.limits.max_seqs);
    assert_true(f.most_logits <= f.limits.max_seqs + f.limits.guess_tokens);
    engine_load load = engine_load_now(e);
    assert_int_equal(load.kv_blocks_used, 0);
    engine_close(e);
    fake_done(&f);
    return load;
}

static void check_company(int period, engine_load *sum) {
    const engine_limits limits[] = {
        {.max_seqs = 8, .step_tokens = 64},
        {.max_seqs = 3, .step_tokens = 3},                  /* prompts in crumbs */
        {.max_seqs = 8, .step_tokens = 8, .kv_blocks = 16}, /* one long sequence fills it: much preemption */
        {.max_seqs = 8, .step_tokens = 300, .kv_blocks = 17, .guess_tokens = 24},
        {.max_seqs = 8, .step_tokens = 32, .kv_blocks = 60, .reserve_tokens = 256, .guess_tokens = 8},
        {.max_seqs = 3, .step_tokens = 12, .guess_tokens = 9},
    };
    said *alone = speak_alone(period), *together = said_new(ANSWERS);
    for (size_t k = 0; k < sizeof limits / sizeof *limits; k++) {
        for (uint64_t seed = 0; seed < 4; seed++) {
            engine_load load = speak_together(together, &limits[k], period, seed * 77);
            sum->preemptions += load.preemptions;
            sum->cached_tokens += load.cached_tokens;
            sum->guessed_tokens += load.guessed_tokens;
            sum->right_guesses += load.right_guesses;
            for (int i = 0; i < ANSWERS; i++) assert_same(&alone[i], &together[i]);
        }
    }
    free(alone);
    free(together);
}

static void test_an_answer_is_the_same_alone_and_in_any_company(void **state) {
    (void)state;
    engine_load sum = {0};
    check_company(0, &sum);
    check_company(9, &sum); /* says again what it said: guesses come true */
    assert_true(sum.preemptions > 10);
    assert_true(sum.cached_tokens > 1000);
    assert_true(sum.right_guesses > 1000);
    assert_true(sum.guessed_tokens > sum.right_guesses + 1000);
}

static engine_request repeating(uint64_t id) {
    engine_request q = request_of(id, "abcdefghi abcdefghi abcdefghi");
    q.sampling.temperature = 0;
    q.sampling.ignore_eos = true;
    q.sampling.max_tokens = 120;
    return q;
}

static void test_guesses_that_come_true_save_steps(void **state) {
    (void)state;
    fake f = {.period = 10}, g = {.period = 10};
    engine *plain = fake_open(&f, NULL), *guessing = fake_open(&g, &(engine_limits){.guess_tokens = 16});
    engine_request q = repeating(1);
    said a, b;
    say(plain, &q, &a);
    say(guessing, &q, &b);
    assert_same(&a, &b);
    engine_load load = engine_load_now(guessing);
    assert_true(load.steps * 3 < engine_load_now(plain).steps);
    assert_true(load.right_guesses > 80 && load.right_guesses <= load.guessed_tokens);
    engine_close(plain);
    engine_close(guessing);
    fake_done(&f);
    fake_done(&g);
}

static void test_guesses_and_choices_keep_to_a_format(void **state) {
    (void)state;
    fake f = {.period = 6}, g = {.period = 6};
    engine *plain = fake_open(&f, NULL), *guessing = fake_open(&g, &(engine_limits){.guess_tokens = 16});
    said one, s[3];
    for (uint64_t id = 1; id < 20; id++) {
        engine_request q = request_of(id, "{\"a\":[1,1,1,1,1],\"a\":[1,1");
        q.format.json = true;
        q.sampling.seed = id;
        q.sampling.temperature = 0.8f;
        q.sampling.max_tokens = 60;
        q.n = 3;
        for (int i = 0; i < 3; i++) {
            said_init(&s[i], id);
            s[i].choice = i;
        }
        engine_error err;
        assert_int_equal(engine_submit(guessing, &q, &err), 0);
        assert_true(run_all(guessing, s, 3));
        q.n = 1;
        for (; q.choice < 3; q.choice++) {
            say(plain, &q, &one);
            assert_same(&one, &s[q.choice]);
            const char *json = one.text[ENGINE_CONTENT] + strspn(one.text[ENGINE_CONTENT], " \n\r\t");
            assert_true(*json == '{' || !*json);
        }
    }
    assert_true(engine_load_now(guessing).right_guesses > 20);
    engine_close(plain);
    engine_close(guessing);
    fake_done(&f);
    fake_done(&g);
}

static void test_guesses_that_never_come_true_are_given_up(void **state) {
    (void)state;
    fake f = {0};
    engine *e = fake_open(&f, &(engine_limits){.max_context = 4096, .kv_blocks = 256, .guess_tokens = 16});
    engine_request q = request_of(1, "x");
    said *s = said_new(1);
    q.sampling.ignore_eos = true;
    q.sampling.temperature = 2;
    q.sampling.max_tokens = 3000;
    say(e, &q,
        s); /* random bytes: every pair of them occurs again by chance, and nothing follows from that */
    engine_load load = engine_load_now(e);
    assert_true(load.guessed_tokens > 0);
    assert_true(load.guessed_tokens < 300);
    free(s);
    engine_close(e);
    fake_done(&f);
}

static void test_a_caller_with_little_room_for_events_gets_no_guesses(void **state) {
    (void)state;
    fake f = {.period = 10};
    engine *e = fake_open(&f, &(engine_limits){.max_seqs = 2, .guess_tokens = 16});
    engine_event ev[4];
    engine_error err;
    engine_request q = repeating(1);
    assert_int_equal(engine_describe(e)->max_events, 20);
    assert_int_equal(engine_submit(e, &q, &err), 0);
    while (engine_busy(e)) assert_in_range(engine_step(e, ev, 4, &err), 0, 4);
    assert_int_equal(engine_load_now(e).guessed_tokens, 0);
    engine_close(e);
    fake_done(&f);
}

/* ---- several answers to one prompt ---- */

static void say_all(engine *e, const engine_request *q, said *s) {
    engine_error err;
    for (int i = 0; i < q->n; i++) {
        said_init(&s[i], q->id);
        s[i].choice = i;
    }
    if (engine_submit(e, q, &err)) fail_msg("%s", err.msg);
    assert_true(run_all(e, s, q->n));
}

static void test_choices_share_the_prompt_and_differ_after_it(void **state) {
    (void)state;
    fake f = {0}, g = {0};
    engine *e = fake_open(&f, NULL), *alone = fake_open(&g, NULL);
    said s[4], one;
    engine_request q = request_of(1, "a prompt that fills two blocks, and some more");
    q.sampling.ignore_eos = true;
    q.sampling.max_tokens = 30;
    q.n = 4;
    say_all(e, &q, s);
    assert_int_equal(f.tokens, 45 + 4 * 29);
    assert_int_equal(f.copies, 3); /* of the third block; the last one to write into it keeps it */
    for (int i = 0; i < 4; i++) {
        q.n = 0;
        q.choice = i;
        say(alone, &q, &one);
        assert_same(&one, &s[i]);
        assert_int_equal(s[i].prompt_tokens, 45);
        if (i) assert_memory_not_equal(s[i].token, s[0].token, sizeof(int32_t) * 30);
    }
    engine_request whole_blocks = request_of(2, "a prompt that fills exactly 32 b");
    whole_blocks.n = 4;
    whole_blocks.sampling.max_tokens = 3;
    f.copies = 0;
    say_all(e, &whole_blocks, s);
    assert_int_equal(f.copies, 0);
    engine_close(e);
    engine_close(alone);
    fake_done(&f);
    fake_done(&g);
}

static void test_more_choices_than_places_are_refused_and_a_group_waits_for_its_places(void **state) {
    (void)state;
    fake f = {0};
    engine *e = fake_open(&f, NULL);
    engine_event ev[64];
    engine_error err;
    engine_request one = request_of(1, "hello"), q = request_of(2, "hello");
    q.n = 5;
    assert_int_equal(engine_submit(e, &q, &err), -1);
    assert_int_equal(err.code, ENGINE_EINVAL);
    one.sampling.ignore_eos = true;
    one.sampling.max_tokens = 10;
    q.n = 4;
    q.sampling.ignore_eos = true;
    assert_int_equal(engine_submit(e, &one, &err), 0);
    assert_int_equal(engine_submit(e, &q, &err), 0);
    engine_step(e, ev, 64, &err);
    assert_int_equal(engine_load_now(e).running, 1);
    while (engine_load_now(e).running < 2) assert_true(engine_step(e, ev, 64, &err) > 0);
    assert_int_equal(engine_load_now(e).running, 4);
    engine_close(e);
    fake_done(&f);
}

static void test_a_group_larger_than_the_cache_ends_all_the_same(void **state) {
    (void)state;
    fake f = {0};
    engine *e = fake_open(&f, &(engine_limits){.kv_blocks = 16, .reserve_tokens = 256});
    engine_request q = request_of(1, "hello");
    said s[4];
    q.sampling.ignore_eos = true;
    q.n = 4; /* each of them fills the whole cache in the end */
    say_all(e, &q, s);
    for (int i = 0; i < 4; i++) assert_int_equal(s[i].completion_tokens, 251);
    assert_true(engine_load_now(e).preemptions > 0);
    engine_close(e);
    fake_done(&f);
}

static void test_cancel_ends_every_choice(void **state) {
    (void)state;
    fake f = {0};
    engine *e = fake_open(&f, NULL);
    engine_event ev[64];
    engine_error err;
    for (int steps = 0; steps < 4; steps++) { /* waiting, in its prompt, and after it */
        engine_request q = request_of(1, "a prompt of fifty characters, which takes two step");
        int ends = 0;
        q.n = 3;
        q.sampling.ignore_eos = true;
        assert_int_equal(engine_submit(e, &q, &err), 0);
        for (int i = 0; i < steps; i++) engine_step(e, ev, 64, &err);
        assert_true(engine_cancel(e, 1));
        assert_int_equal(engine_load_now(e).kv_blocks_used, 0);
        int n = engine_step(e, ev, 64, &err);
        for (int i = 0; i < n; i++) ends += ev[i].kind == ENGINE_END;
        assert_int_equal(ends, 3);
        assert_false(engine_busy(e));
    }
    engine_close(e);
    fake_done(&f);
}

static void test_random_submits_and_cancels_leak_no_block_and_lose_no_end(void **state) {
    (void)state;
    fake f = {.period = 9};
    engine *e = fake_open(
        &f, &(engine_limits){
                .max_seqs = 5, .max_waiting = 10, .kv_blocks = 24, .step_tokens = 20, .guess_tokens = 9});
    engine_event ev[64];
    engine_error err;
    varied v;
    uint64_t r = 99, id = 0, submitted = 0, ended = 0;
    for (int op = 0; op < 10000 || engine_busy(e); op++) {
        int kind = op < 10000 ? (int)rnd(&r, 10) : 9;
        if (kind < 3) {
            vary(&v, ++id);
            if (engine_submit(e, &v.r, &err) == 0) submitted += v.r.n ? (uint64_t)v.r.n : 1;
        } else if (kind == 3 && id) {
            engine_cancel(e, id - rnd(&r, 10));
        } else {
            int max = kind == 4 ? 10 : 64, n = engine_step(e, ev, max, &err);
            assert_in_range(n, 0, max);
            for (int i = 0; i < n; i++) ended += ev[i].kind == ENGINE_END;
        }
        engine_load load = engine_load_now(e);
        assert_true(load.waiting <= 10 + 5 && load.running <= 5);
    }
    assert_true(submitted > 500);
    assert_int_equal(submitted, ended);
    assert_int_equal(engine_load_now(e).kv_blocks_used, 0);
    engine_close(e);
    fake_done(&f);
}

static void test_a_second_turn_takes_its_history_from_the_cache(void **state) {
    (void)state;
    fake f = {0}, g = {0};
    engine *e = fake_open(&f, NULL), *fresh = fake_open(&g, NULL);
    said first, second, alone;
    char prompt[200];
    engine_request q = request_of(1, "a first turn, of some length, that is to be remembered");
    q.sampling.ignore_eos = true;
    q.sampling.max_tokens = 20;
    q.cache_salt = 5;
    say(e, &q, &first);
    assert_int_equal(first.cached_tokens, 0);
    /* what the fake says is not text: the history goes on with token ids, which here are bytes */
    int32_t ids[200];
    int n = snprintf(prompt, sizeof prompt, "a first turn, of some length, that is to be remembered");
    for (int i = 0; i < n; i++) ids[i] = (unsigned char)prompt[i];
    for (int i = 0; i < first.n; i++) ids[n++] = first.token[i];
    for (int i = 0; i < 10; i++) ids[n++] = 'x';
    engine_request next = {.id = 2, .prompt = ids, .nprompt = n, .sampling = q.sampling, .cache_salt = 5};
    uint64_t before = f.tokens;
    say(e, &next, &second);
    assert_int_equal(second.cached_tokens, (54 + 19) / 16 * 16); /* the last token was never computed */
    assert_int_equal(f.tokens - before, n - second.cached_tokens + 19);
    say(fresh, &next, &alone);
    assert_int_equal(alone.cached_tokens, 0);
    assert_same(&second, &alone);
    next.cache_salt = 6;
    say(e, &next, &second);
    assert_int_equal(second.cached_tokens, 0);
    assert_same(&second, &alone);
    engine_close(e);
    engine_close(fresh);
    fake_done(&f);
    fake_done(&g);
}

static void test_first_come_first_served(void **state) {
    (void)state;
    fake f = {0};
    engine *e = fake_open(&f, &(engine_limits){.max_seqs = 2, .max_waiting = 20, .step_tokens = 8});
    engine_event ev[64];
    engine_error err;
    uint64_t next = 0;
    for (uint64_t id = 0; id < 12; id++) {
        engine_request q = request_of(id, "a prompt of some length");
        q.sampling.max_tokens = 3;
        q.sampling.ignore_eos = true;
        assert_int_equal(engine_submit(e, &q, &err), 0);
    }
    while (engine_busy(e)) {
        int n = engine_step(e, ev, 64, &err);
        for (int i = 0; i < n; i++) {
            if (ev[i].kind == ENGINE_TOKENS && ev[i].index == 0) assert_int_equal(ev[i].id, next++);
        }
    }
    assert_int_equal(next, 12);
    engine_close(e);
    fake_done(&f);
}

static void test_a_full_engine_says_so_and_recovers(void **state) {
    (void)state;
    fake f = {0};
    engine *e = fake_open(&f, &(engine_limits){.max_seqs = 1, .max_waiting = 2});
    engine_error err;
    said s[3];
    for (uint64_t id = 0; id < 2; id++) {
        engine_request q = request_of(id, "hello");
        said_init(&s[id], id);
        assert_int_equal(engine_submit(e, &q, &err), 0);
    }
    engine_request q = request_of(2, "hello");
    assert_int_equal(engine_submit(e, &q, &err), -1);
    assert_int_equal(err.code, ENGINE_EBUSY);
    engine_request twice = request_of(1, "hello");
    assert_int_equal(engine_submit(e, &twice, &err), -1);
    assert_int_equal(err.code, ENGINE_EINVAL);
    assert_true(run_all(e, s, 2));
    say(e, &q, &s[2]);
    engine_close(e);
    fake_done(&f);
}

static void test_cancel_frees_at_once_and_ends_once(void **state) {
    (void)state;
    fake f = {0};
    engine *e = fake_open(&f, &(engine_limits){.max_seqs = 1});
    engine_event ev[64];
    engine_error err;
    for (uint64_t id = 1; id <= 2; id++) {
        engine_request q = request_of(id, "a prompt");
        q.sampling.ignore_eos = true;
        assert_int_equal(engine_submit(e, &q, &err), 0);
    }
    for (int i = 0; i < 3; i++) assert_int_equal(engine_step(e, ev, 64, &err), 1);
    assert_true(engine_cancel(e, 1));
    assert_true(engine_cancel(e, 2));
    assert_true(engine_cancel(e, 2));
    assert_false(engine_cancel(e, 3));
    assert_int_equal(engine_load_now(e).kv_blocks_used, 0);
    assert_true(engine_busy(e));
    assert_int_equal(engine_step(e, ev, 64, &err), 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ev[i].kind, ENGINE_END);
        assert_int_equal(ev[i].finish, ENGINE_FINISH_CANCELLED);
        assert_int_equal(ev[i].completion_tokens, i == 0 ? 3 : 0);
    }
    assert_int_equal(engine_step(e, ev, 64, &err), 0);
    assert_false(engine_busy(e));
    engine_close(e);
    fake_done(&f);
}

static void test_events_never_exceed_their_room(void **state) {
    (void)state;
    fake f = {0};
    engine *e = fake_open(&f, &(engine_limits){.max_seqs = 2, .max_waiting = 10});
    engine_event ev[64];
    engine_error err;
    int ended = 0;
    for (uint64_t id = 0; id < 10; id++) {
        engine_request q = request_of(id, "a prompt");
        q.sampling.max_tokens = 2;
        assert_int_equal(engine_submit(e, &q, &err), 0);
    }
    engine_step(e, ev, 64, &err);
    for (uint64_t id = 5; id < 10; id++) engine_cancel(e, id);
    while (engine_busy(e)) {
        int n = engine_step(e, ev, 4, &err);
        assert_in_range(n, 0, 4);
        for (int i = 0; i < n; i++) ended += ev[i].kind == ENGINE_END;
    }
    assert_int_equal(ended, 10);
    engine_close(e);
    fake_done(&f);
}

/* For every possible cut: what was said before it, and what an engine given those tokens says after it, is the whole. */
static void check_resume(fake *f, const engine_request *q) {
    said whole, head, tail;
    engine_error err;
    engine *e = fake_open(f, NULL);
    say(e, q, &whole);
    for (int cut = 0; cut <= whole.n; cut++) {
        engine_event ev[64];
        said_init(&head, q->id);
        assert_int_equal(engine_submit(e, q, &err), 0);
        while (head.n < cut) {
            int n = engine_step(e, ev, 64, &err);
            for (int i = 0; i < n && head.n < cut; i++) said_add(&head, &ev[i]);
        }
        engine_cancel(e, q->id);
        while (engine_busy(e)) engine_step(e, ev, 64, &err);

        engine_request again = *q;
        again.forced = whole.token;
        again.nforced = cut;
        say(e, &again, &tail);
        assert_true(tail.n == 0 || tail.index_first == cut);
        assert_int_equal(tail.n, whole.n - cut);
        assert_memory_equal(tail.token, whole.token + cut, (size_t)tail.n * sizeof *tail.token);
        for (int c = 0; c < 2; c++) {
            assert_int_equal(head.len[c] + tail.len[c], whole.len[c]);
            assert_memory_equal(head.text[c], whole.text[c], head.len[c]);
            assert_memory_equal(tail.text[c], whole.text[c] + head.len[c], tail.len[c]);
        }
        assert_int_equal(tail.finish, whole.finish);
        assert_int_equal(tail.completion_tokens, whole.completion_tokens);
        assert_int_equal(tail.reasoning_tokens, whole.reasoning_tokens);
    }
    engine_close(e);
    fake_done(f);
}

static int script_of(const char *text, int32_t *ids) {
    int n = 0;
    for (; text[n]; n++) ids[n] = (unsigned char)text[n];
    return n;
}

static void test_forced_tokens_resume_an_answer_wherever_it_was_cut(void **state) {
    (void)state;
    int32_t ids[200];
    static const char *const stops[] = {"STOP", "\n\n\n"};
    static const char *const scripts[] = {
        "<think>\nwell, \xe4\xbd\xa0\xe5\xa5\xbd</think>\n\n\xf0\x9f\x98\x80 then STSTOP not this",
        "no thought <think> ends by itself STO",
        "cut in a character \xe4\xbd",
    };
    for (int i = 0; i < 3; i++) {
        fake f = {.script = ids, .nscript = script_of(scripts[i], ids), .script_at = 2};
        engine_request q = request_of(5, "hi");
        q.sampling.stop = stops;
        q.sampling.nstop = 2;
        check_resume(&f, &q);
        q.sampling.max_tokens = 12;
        check_resume(&f, &q);
    }
    fake f = {0};
    engine_request q = request_of(6, "sampled, with penalties");
    q.sampling.temperature = 1.5f;
    q.sampling.seed = 11;
    q.sampling.frequency_penalty = 1;
    q.sampling.repetition_penalty = 1.3f;
    q.sampling.max_tokens = 60;
    check_resume(&f, &q);
}

static void test_forced_tokens_after_the_end_are_refused(void **state) {
    (void)state;
    fake f = {0};
    engine *e = fake_open(&f, NULL);
    engine_error err;
    const int32_t after[] = {'a', FAKE_END, 'b'}, outside[] = {FAKE_VOCAB};
    engine_request q = request_of(1, "hi");
    q.forced = after;
    q.nforced = 3;
    assert_int_equal(engine_submit(e, &q, &err), -1);
    assert_int_equal(err.code, ENGINE_EINVAL);
    q.forced = outside;
    q.nforced = 1;
    assert_int_equal(engine_submit(e, &q, &err), -1);
    q.forced = after;
    q.nforced = 2;
    said s;
    say(e, &q, &s);
    assert_int_equal(s.finish, ENGINE_FINISH_STOP);
    assert_int_equal(s.completion_tokens, 1);
    engine_close(e);
    fake_done(&f);
}

static void test_reasoning_goes_to_its_own_channel(void **state) {
    (void)state;
    static const int32_t tags[] = {FAKE_THINK, 'a', 'b', FAKE_UNTHINK, '\n', 'c', FAKE_QUIET, 'd'};
    fake f = {.script = tags, .nscript = 8, .script_at = 1};
    engine *e = fake_open(&f, NULL);
    engine_request q = request_of(1, "?");
    said s;
    say(e, &q, &s);
    assert_string_equal(s.text[ENGINE_REASONING], "ab");
    assert_string_equal(s.text[ENGINE_CONTENT], "cd");
    assert_int_equal(s.reasoning_tokens, 4);
    assert_int_equal(s.completion_tokens, 8);
    assert_int_equal(s.prompt_tokens, 1);
    engine_close(e);
    fake_done(&f);
    fake g = {.script = tags + 1, .nscript = 7, .script_at = 1, .opens_thinking = true};
    e = fake_open(&g, NULL);
    say(e, &q, &s);
    assert_string_equal(s.text[ENGINE_REASONING], "ab");
    assert_string_equal(s.text[ENGINE_CONTENT], "cd");
    engine_close(e);
    fake_done(&g);
}

static void test_answers_end_at_their_limits(void **state) {
    (void)state;
    fake f = {0};
    engine *e = fake_open(&f, &(engine_limits){.max_context = 64});
    engine_request q = request_of(1, "0123456789");
    engine_error err;
    said s;
    q.sampling.ignore_eos = true;
    say(e, &q, &s);
    assert_int_equal(s.finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(s.completion_tokens, 54);
    q.sampling.max_tokens = 1;
    say(e, &q, &s);
    assert_int_equal(s.finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(s.n, 1);
    char long_prompt[65];
    memset(long_prompt, 'x', 64);
    long_prompt[64] = 0;
    q = request_of(1, long_prompt);
    assert_int_equal(engine_submit(e, &q, &err), -1);
    assert_int_equal(err.code, ENGINE_ETOOLONG);
    assert_non_null(strstr(err.msg, "64"));
    q = request_of(1, long_prompt + 1);
    say(e, &q, &s);
    assert_true(s.completion_tokens <= 1);
    engine_close(e);
    fake_done(&f);
}

static void test_what_was_held_back_at_the_limit_is_said(void **state) {
    (void)state;
    static const char *const stops[] = {"STOP"};
    static const int32_t script[] = {'a', 'S', 'T', 'O', 'P'};
    fake f = {.script = script, .nscript = 5, .script_at = 2};
    engine *e = fake_open(&f, NULL);
    engine_request q = request_of(1, "hi");
    said s;
    q.sampling.stop = stops;
    q.sampling.nstop = 1;
    q.sampling.max_tokens = 4;
    say(e, &q, &s);
    assert_int_equal(s.finish, ENGINE_FINISH_LENGTH);
    assert_string_equal(s.text[ENGINE_CONTENT], "aSTO");
    q.sampling.max_tokens = 5;
    say(e, &q, &s);
    assert_int_equal(s.finish, ENGINE_FINISH_STOP);
    assert_string_equal(s.text[ENGINE_CONTENT], "a");
    engine_close(e);
    fake_done(&f);
}

static void test_min_tokens_and_ignore_eos_hold_off_the_end(void **state) {
    (void)state;
    static const int32_t ends[] = {'a', 'b', FAKE_END, 'c', FAKE_END};
    fake f = {.script = ends, .nscript = 5, .script_at = 2};
    engine *e = fake_open(&f, NULL);
    said s;
    engine_request q = request_of(1, "hi");
    say(e, &q, &s);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.finish, ENGINE_FINISH_STOP);
    q.sampling.min_tokens = 3;
    say(e, &q, &s);
    assert_int_equal(s.n, 4);
    q.sampling.min_tokens = 0;
    q.sampling.ignore_eos = true;
    q.sampling.max_tokens = 20;
    say(e, &q, &s);
    assert_int_equal(s.n, 20);
    assert_int_equal(s.token[2], FAKE_END);
    assert_string_equal(s.text[ENGINE_CONTENT], "abc");
    engine_close(e);
    fake_done(&f);
}

static void test_one_sick_sequence_does_not_harm_the_others(void **state) {
    (void)state;
    static const int32_t poison[] = {'x', FAKE_POISON};
    fake f = {0};
    engine *e = fake_open(&f, NULL);
    engine_error err;
    said s[2];
    engine_request sick = {.id = 1, .prompt = poison, .nprompt = 2}, well = request_of(2, "fine");
    engine_sampling_default(&sick.sampling);
    well.sampling.max_tokens = 20;
    well.sampling.ignore_eos = true;
    said_init(&s[0], 1);
    said_init(&s[1], 2);
    assert_int_equal(engine_submit(e, &sick, &err), 0);
    assert_int_equal(engine_submit(e, &well, &err), 0);
    assert_true(run_all(e, s, 2));
    assert_int_equal(s[0].finish, ENGINE_FINISH_ERROR);
    assert_non_null(strstr(s[0].error, "not numbers"));
    assert_int_equal(s[1].finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(s[1].n, 20);
    engine_close(e);
    fake_done(&f);
}

static void test_a_broken_backend_is_reported(void **state) {
    (void)state;
    fake f = {.broken = true};
    engine *e = fake_open(&f, NULL);
    engine_event ev[64];
    engine_error err;
    engine_request q = request_of(1, "hi");
    assert_int_equal(engine_submit(e, &q, &err), 0);
    assert_int_equal(engine_step(e, ev, 64, &err), -1);
    assert_int_equal(err.code, ENGINE_EINTERNAL);
    engine_close(e);
    fake_done(&f);
}

static void test_wrong_requests_are_refused_with_the_reason(void **state) {
    (void)state;
    fake f = {0};
    engine *e = fake_open(&f, NULL);
    engine_error err;
    static const struct {
        size_t offset;
        float value;
        const char *name;
    } bad[] = {
        {offsetof(engine_sampling, temperature), -1, "temperature"},
        {offsetof(engine_sampling, top_p), 1.5f, "top_p"},
        {offsetof(engine_sampling, min_p), -0.5f, "min_p"},
        {offsetof(engine_sampling, repetition_penalty), 0, "repetition_penalty"},
        {offsetof(engine_sampling, presence_penalty), 0.0f / 0.0f, "presence_penalty"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        engine_request q = request_of(1, "hi");
        memcpy((char *)&q.sampling + bad[i].offset, &bad[i].value, sizeof bad[i].value);
        assert_int_equal(engine_submit(e, &q, &err), -1);
        assert_int_equal(err.code, ENGINE_EINVAL);
        assert_non_null(strstr(err.msg, bad[i].name));
    }
    engine_request q = request_of(1, "hi");
    q.sampling.logprobs = 21;
    assert_int_equal(engine_submit(e, &q, &err), -1);
    q = request_of(1, "");
    assert_int_equal(engine_submit(e, &q, &err), -1);
    const int32_t ids[] = {3, -1};
    q = (engine_request){.id = 1, .prompt = ids, .nprompt = 2};
    engine_sampling_default(&q.sampling);
    assert_int_equal(engine_submit(e, &q, &err), -1);
    assert_non_null(strstr(err.msg, "-1"));
    assert_false(engine_busy(e));
    engine_close(e);
    fake_done(&f);
}

/* test_engine_step [overlap] */
int main(int argc, char **argv) {
    fake_be(argc > 1 ? argv[1] : "");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_is_the_same_alone_and_in_any_company),
        cmocka_unit_test(test_guesses_that_come_true_save_steps),
        cmocka_unit_test(test_guesses_and_choices_keep_to_a_format),
        cmocka_unit_test(test_guesses_that_never_come_true_are_given_up),
        cmocka_unit_test(test_a_caller_with_little_room_for_events_gets_no_guesses),
        cmocka_unit_test(test_choices_share_the_prompt_and_differ_after_it),
        cmocka_unit_test(test_more_choices_than_places_are_refused_and_a_group_waits_for_its_places),
        cmocka_unit_test(test_a_group_larger_than_the_cache_ends_all_the_same),
        cmocka_unit_test(test_cancel_ends_every_choice),
        cmocka_unit_test(test_random_submits_and_cancels_leak_no_block_and_lose_no_end),
        cmocka_unit_test(test_a_second_turn_takes_its_history_from_the_cache),
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_a_full_engine_says_so_and_recovers),
        cmocka_unit_test(test_cancel_frees_at_once_and_ends_once),
        cmocka_unit_test(test_events_never_exceed_their_room),
        cmocka_unit_test(test_forced_tokens_resume_an_answer_wherever_it_was_cut),
        cmocka_unit_test(test_forced_tokens_after_the_end_are_refused),
        cmocka_unit_test(test_reasoning_goes_to_its_own_channel),
        cmocka_unit_test(test_answers_end_at_their_limits),
        cmocka_unit_test(test_what_was_held_back_at_the_limit_is_said),
        cmocka_unit_test(test_min_tokens_and_ignore_eos_hold_off_the_end),
        cmocka_unit_test(test_one_sick_sequence_does_not_harm_the_others),
        cmocka_unit_test(test_a_broken_backend_is_reported),
        cmocka_unit_test(test_wrong_requests_are_refused_with_the_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

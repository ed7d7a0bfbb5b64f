/* The simulated engine on a clock of the test's own: its speeds, its memory, and answers that anyone can repeat. */
#include "worker/simulated/engine.h"

#include "schemas/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEQS 8

typedef struct result {
    mr_buf text;
    int64_t tokens[4096];
    int ntokens, ends, finish, silent; /* silent: tokens without text */
    int64_t prompt, first_us, last_us, end_us;
    char held[64]; /* the end's text */
} result;

typedef struct fixture {
    mr_sim_profile profile;
    mr_sim *sim;
    mr_frame_reader *reader;
    mr_buf out;
    int64_t now;
    result of[SEQS];
} fixture;

static int setup(void **state) {
    mr_error err;
    fixture *f = calloc(1, sizeof(*f));
    assert_int_equal(mr_sim_profile_load(&f->profile, NULL, &err), 0);
    f->profile.c.prefill_tokens_per_s = 1000;
    f->profile.c.step_prompt_tokens = 100;
    f->profile.npoints = 2;
    f->profile.batch[0] = 1, f->profile.ms[0] = 10;
    f->profile.batch[1] = 5, f->profile.ms[1] = 30;
    f->reader = mr_frame_reader_new(&err);
    mr_buf_init(&f->out, 64u << 20);
    for (int i = 0; i < SEQS; i++) mr_buf_init(&f->of[i].text, 1 << 20);
    f->now = 1000000;
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    mr_sim_free(f->sim);
    mr_frame_reader_free(f->reader);
    mr_buf_done(&f->out);
    for (int i = 0; i < SEQS; i++) mr_buf_done(&f->of[i].text);
    mr_sim_profile_done(&f->profile);
    free(f);
    return 0;
}

/* ---- asking ---- */

typedef struct wish {
    const char *text, *stop;
    int64_t seed, choice, max_tokens;
    const int64_t *forced;
    uint32_t nforced;
} wish;

static void pack(const wish *w, mr_buf *out) {
    mr_error err;
    mr_chat_message m = {.set = 0};
    MR_SET(&m, MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_USER);
    MR_SET(&m, MR_CHAT_MESSAGE_CONTENT, content, mr_str_of(w->text ? w->text : "How does a mill work?"));
    mr_chat_request r = {.set = 0};
    mr_str stop = mr_str_of(w->stop);
    MR_SET(&r, MR_CHAT_REQUEST_V, v, MR_SCHEMA_VERSION);
    MR_SET(&r, MR_CHAT_REQUEST_ID, id, MR_STR("r"));
    MR_SET(&r, MR_CHAT_REQUEST_CHOICE, choice, w->choice);
    r.messages.v = &m;
    r.messages.n = 1;
    MR_MARK(&r, MR_CHAT_REQUEST_MESSAGES);
    MR_SET(&r.sampling, MR_SAMPLING_SEED, seed, w->seed);
    if (w->max_tokens) MR_SET(&r.sampling, MR_SAMPLING_MAX_TOKENS, max_tokens, w->max_tokens);
    if (w->stop) {
        r.sampling.stop.v = &stop;
        r.sampling.stop.n = 1;
        MR_MARK(&r.sampling, MR_SAMPLING_STOP);
    }
    MR_MARK(&r, MR_CHAT_REQUEST_SAMPLING);
    if (mr_pack(&mr_chat_request_def, &r, out, &err)) fail_msg("%s", err.msg);
}

static int submit(fixture *f, int64_t id, const wish *w, mr_error *err) {
    mr_buf body;
    mr_buf_init(&body, 1 << 20);
    pack(w, &body);
    if (!f->sim) f->sim = mr_sim_new(&f->profile, err);
    assert_non_null(f->sim);
    int64_t *forced = malloc((w->nforced + 1) * sizeof(*forced));
    if (w->nforced) memcpy(forced, w->forced, w->nforced * sizeof(*forced));
    const mr_frame_submit s = {.id = id, .request = mr_buf_str(&body), .forced = {forced, w->nforced}};
    int rc = mr_sim_submit(f->sim, &s, f->now, err);
    free(forced);
    mr_buf_done(&body);
    return rc;
}

static void ask(fixture *f, int64_t id, const wish *w) {
    mr_error err;
    if (submit(f, id, w, &err)) fail_msg("%s", err.msg);
}

static void on_tokens(fixture *f, const mr_frame_tokens *t) {
    result *r = &f->of[t->id];
    assert_true(mr_str_is_utf8(t->text));
    r->silent += t->text.n == 0;
    if (!r->first_us) r->first_us = f->now;
    r->last_us = f->now;
    r->tokens[r->ntokens++] = t->tokens.v[0];
    mr_buf_put(&r->text, t->text.p, t->text.n);
}

static void read_frames(fixture *f) {
    mr_error err;
    mr_frame frame;
    assert_int_equal(mr_frame_feed(f->reader, f->out.p, f->out.n, &err), 0);
    mr_buf_clear(&f->out);
    while (mr_frame_next(f->reader, &frame, &err) == 1) {
        if (frame.type == MR_FRAME_TOKENS) on_tokens(f, &frame.tokens);
        if (frame.type != MR_FRAME_END) continue;
        result *r = &f->of[frame.end.id];
        r->ends++;
        r->finish = (int)frame.end.finish;
        r->prompt = frame.end.prompt_tokens;
        r->end_us = f->now;
        mr_str_copy(frame.end.text, r->held, sizeof(r->held));
        mr_buf_put(&r->text, frame.end.text.p, frame.end.text.n);
    }
}

/* Until nothing is due before `until`. */
static void run(fixture *f, int64_t until) {
    mr_error err;
    while (mr_sim_due(f->sim) < until && mr_sim_health_now(f->sim) == MR_SIM_WELL) {
        f->now = mr_sim_due(f->sim) > f->now ? mr_sim_due(f->sim) : f->now;
        assert_int_equal(mr_sim_step(f->sim, f->now, &f->out, &err), 0);
        read_frames(f);
    }
}

static void run_out(fixture *f) {
    run(f, INT64_MAX);
}

static void same_text(const result *a, const result *b) {
    assert_int_equal(a->text.n, b->text.n);
    assert_memory_equal(a->text.p, b->text.p, a->text.n);
}

/* ---- text ---- */

static void the_same_request_gives_the_same_answer_on_another_host(void **state) {
    fixture *f = *state;
    ask(f, 1, &(wish){.seed = 7});
    run_out(f);
    mr_sim_free(f->sim);
    f->sim = NULL;
    ask(f, 2, &(wish){.seed = 8});
    ask(f, 3, &(wish){.seed = 7});
    ask(f, 4, &(wish){.seed = 7, .choice = 1});
    ask(f, 5, &(wish){.seed = 7, .text = "And a wheel?"});
    run_out(f);
    assert_int_equal(f->of[1].finish, MR_FINISH_STOP);
    assert_in_range(f->of[1].ntokens, 100, 300);
    same_text(&f->of[1], &f->of[3]);
    for (int i = 2; i <= 5; i++) {
        if (i != 3) assert_memory_not_equal(f->of[1].text.p, f->of[i].text.p, 60);
    }
}

static void other_hardware_writes_another_text(void **state) {
    fixture *f = *state;
    ask(f, 1, &(wish){.seed = 7});
    run_out(f);
    f->profile.c.text_seed = 1;
    ask(f, 2, &(wish){.seed = 7});
    run_out(f);
    assert_memory_not_equal(f->of[1].text.p, f->of[2].text.p, 60);
}

static void an_answer_goes_on_exactly_from_any_of_its_tokens(void **state) {
    fixture *f = *state;
    const wish whole = {.seed = 7, .stop = "song. the"};
    ask(f, 1, &whole);
    run_out(f);
    assert_true(f->of[1].silent > 0); /* characters that two tokens make */
    for (int cut = 0; cut <= f->of[1].ntokens; cut++) {
        result *r = &f->of[2];
        *r = (result){.text = r->text};
        mr_buf_clear(&r->text);
        wish rest = whole;
        rest.forced = f->of[1].tokens;
        rest.nforced = (uint32_t)cut;
        ask(f, 2, &rest);
        run_out(f);
        assert_int_equal(cut + r->ntokens, f->of[1].ntokens);
        assert_memory_equal(r->text.p, f->of[1].text.p + f->of[1].text.n - r->text.n, r->text.n);
    }
}

static void a_stop_string_ends_the_answer_before_itself(void **state) {
    fixture *f = *state;
    char text[4096];
    ask(f, 1, &(wish){.seed = 7});
    run_out(f);
    mr_str_copy(mr_buf_str(&f->of[1].text), text, sizeof(text));
    char stop[16];
    size_t at = 200;
    while ((text[at] & 0xc0) == 0x80) at++;
    size_t end = at + 9;
    while ((text[end] & 0xc0) == 0x80) end++;
    snprintf(stop, sizeof(stop), "%.*s", (int)(end - at), text + at);
    ask(f, 2, &(wish){.seed = 7, .stop = stop});
    run_out(f);
    assert_int_equal(f->of[2].finish, MR_FINISH_STOP);
    assert_ptr_equal(strstr(text, stop), text + f->of[2].text.n);
    assert_memory_equal(text, f->of[2].text.p, f->of[2].text.n);
}

static void an_answer_keeps_to_max_tokens(void **state) {
    fixture *f = *state;
    ask(f, 1, &(wish){.seed = 7, .max_tokens = 5});
    run_out(f);
    assert_int_equal(f->of[1].ntokens, 5);
    assert_int_equal(f->of[1].finish, MR_FINISH_LENGTH);
}

/* ---- time ---- */

static void an_answer_takes_the_time_of_the_profile_to_the_microsecond(void **state) {
    fixture *f = *state;
    int64_t start = f->now;
    ask(f, 1, &(wish){.seed = 7, .max_tokens = 50});
    run_out(f);
    int64_t prefill = f->of[1].prompt * 1000; /* us, at 1000 tokens a second */
    assert_int_equal(f->of[1].first_us - start, prefill);
    assert_int_equal(f->of[1].last_us - start, prefill + 49 * 10000);
}

static void a_batch_takes_the_time_of_its_curve(void **state) {
    fixture *f = *state;
    int64_t start = f->now;
    for (int i = 1; i <= 3; i++) ask(f, i, &(wish){.seed = i, .max_tokens = 50});
    run_out(f);
    int64_t prefill = 3 * f->of[1].prompt * 1000;
    for (int i = 1; i <= 3; i++) assert_int_equal(f->of[i].last_us - start, prefill + 49 * 20000);
}

static void a_host_that_is_woken_late_still_keeps_its_speed(void **state) {
    fixture *f = *state;
    mr_error err;
    int64_t start = f->now;
    ask(f, 1, &(wish){.seed = 7, .max_tokens = 50});
    while (mr_sim_busy(f->sim)) {
        int64_t due = mr_sim_due(f->sim);
        f->now = due > f->now ? due + 7777 : f->now;
        assert_int_equal(mr_sim_step(f->sim, f->now, &f->out, &err), 0);
        read_frames(f);
    }
    int64_t took = f->of[1].last_us - start - f->of[1].prompt * 1000;
    assert_in_range(took, 49 * 10000, 49 * 10000 + 7777);
}

/* ---- memory and places ---- */

static void more_than_fit_wait_for_a_place(void **state) {
    fixture *f = *state;
    f->profile.c.max_seqs = 1;
    ask(f, 1, &(wish){.seed = 7, .max_tokens = 5});
    ask(f, 2, &(wish){.seed = 7, .max_tokens = 5});
    run_out(f);
    assert_true(f->of[2].first_us > f->of[1].last_us);
    same_text(&f->of[1], &f->of[2]);
}

static void who_loses_its_blocks_begins_again_and_loses_no_token(void **state) {
    fixture *f = *state;
    f->profile.c.kv_blocks = 12; /* 192 tokens */
    for (int i = 1; i <= 3; i++) ask(f, i, &(wish){.seed = i, .max_tokens = 90});
    run_out(f);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(f->of[i].ends, 1);
        assert_int_equal(f->of[i].ntokens, 90);
    }
    f->profile.c.kv_blocks = 4096;
    ask(f, 4, &(wish){.seed = 3, .max_tokens = 90});
    run_out(f);
    same_text(&f->of[3], &f->of[4]);
}

static void a_conversation_that_is_too_long_is_refused(void **state) {
    fixture *f = *state;
    mr_error err;
    f->profile.c.max_context = 4;
    assert_int_equal(submit(f, 1, &(wish){.seed = 7}, &err), -1);
    assert_int_equal(err.code, MR_ETOOBIG);
}

static void a_cancel_frees_the_place(void **state) {
    fixture *f = *state;
    mr_error err;
    f->profile.c.max_seqs = 1;
    ask(f, 1, &(wish){.seed = 7});
    ask(f, 2, &(wish){.seed = 8, .max_tokens = 3});
    run(f, f->now + 100000);
    assert_true(f->of[1].ntokens > 0);
    assert_int_equal(mr_sim_cancel(f->sim, 1, &f->out, &err), 0);
    read_frames(f);
    assert_int_equal(f->of[1].finish, MR_FINISH_CANCELLED);
    run_out(f);
    assert_int_equal(f->of[2].ntokens, 3);
}

/* ---- misbehaving ---- */

static void it_crashes_at_the_token_that_the_profile_names(void **state) {
    fixture *f = *state;
    f->profile.c.crash_at_token = 20;
    ask(f, 1, &(wish){.seed = 7});
    run_out(f);
    assert_int_equal(mr_sim_health_now(f->sim), MR_SIM_CRASHES);
    assert_int_equal(f->of[1].ntokens, 19);
}

static void broken_hardware_changes_the_text_from_a_token_on(void **state) {
    fixture *f = *state;
    ask(f, 1, &(wish){.seed = 7});
    run_out(f);
    mr_sim_free(f->sim);
    f->sim = NULL;
    f->profile.c.wrong_from_token = 30;
    ask(f, 2, &(wish){.seed = 7});
    run_out(f);
    assert_memory_equal(f->of[1].tokens, f->of[2].tokens, 29 * sizeof(int64_t));
    assert_memory_not_equal(f->of[1].tokens + 29, f->of[2].tokens + 29, 8 * sizeof(int64_t));
}

static void a_curve_that_makes_no_sense_is_said(void **state) {
    (void)state;
    mr_error err;
    mr_sim_profile p;
    static const char *const wrong[] = {"4:10,2:20", "x", "1:-3", "0:1", "1:2:3"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        setenv("MILLRACE_SIMULATED_DECODE_MS", wrong[i], 1);
        assert_int_equal(mr_sim_profile_load(&p, NULL, &err), -1);
        assert_non_null(strstr(err.msg, "BATCH:MS"));
    }
    unsetenv("MILLRACE_SIMULATED_DECODE_MS");
}

static void the_profiles_that_come_along_can_be_read(void **state) {
    (void)state;
    static const char *const files[] = {"ops/profiles/laptop.conf", "ops/profiles/h200x8-67b.conf",
                                        "tests/support/scripted.conf"};
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        mr_error err;
        mr_sim_profile p;
        if (mr_sim_profile_load(&p, files[i], &err)) fail_msg("%s", err.msg);
        mr_sim_profile_done(&p);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_same_request_gives_the_same_answer_on_another_host),
        TEST(other_hardware_writes_another_text),
        TEST(an_answer_goes_on_exactly_from_any_of_its_tokens),
        TEST(a_stop_string_ends_the_answer_before_itself),
        TEST(an_answer_keeps_to_max_tokens),
        TEST(an_answer_takes_the_time_of_the_profile_to_the_microsecond),
        TEST(a_batch_takes_the_time_of_its_curve),
        TEST(a_host_that_is_woken_late_still_keeps_its_speed),
        TEST(more_than_fit_wait_for_a_place),
        TEST(who_loses_its_blocks_begins_again_and_loses_no_token),
        TEST(a_conversation_that_is_too_long_is_refused),
        TEST(a_cancel_frees_the_place),
        TEST(it_crashes_at_the_token_that_the_profile_names),
        TEST(broken_hardware_changes_the_text_from_a_token_on),
        TEST(a_curve_that_makes_no_sense_is_said),
        TEST(the_profiles_that_come_along_can_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The engine host as its supervisor sees it: over a socket pair, with a tiny checkpoint, in a thread of the test. */
#include "worker/frames.h"
#include "worker/host/engine_host.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL   "tests/golden/models/llama_gqa_f32"
#define WAIT_MS 20000

enum { ANSWERS = 8, TOKENS_MAX = 600 };

/* What came for one submit. */
typedef struct answer {
    int64_t token[TOKENS_MAX];
    int first, n;
    char text[3][8192];
    bool ended;
    int finish, status;
    char code[64], message[300];
    int64_t prompt_tokens, completion_tokens, cached_tokens;
    int logprobs, tops;
} answer;

typedef struct fixture {
    int fd, host_fd;
    bool running;
    pthread_t thread;
    mr_engine_host_options opt;
    mr_error host_error;
    int host_result;
    mr_frame_reader *in;
    mr_buf out;
    int hellos, readies, loads;
    mr_frame_ready ready;
    mr_frame_load load;
    const char *tenant;
    const char *schema; /* of the answer, when not NULL */
    answer a[ANSWERS];
} fixture;

static void *run_host(void *arg) {
    fixture *f = arg;
    f->host_result = mr_engine_host_run(&f->opt, &f->host_error);
    close(f->host_fd);
    return NULL;
}

static fixture *start(const char *model) {
    mr_error err;
    int pair[2];
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    f->fd = pair[0];
    f->host_fd = pair[1];
    f->in = mr_frame_reader_new(&err);
    mr_buf_init(&f->out, 1 << 24);
    f->opt = (mr_engine_host_options){
        .fd = pair[1], .engine = {.model_dir = model, .threads = 1, .max_seqs = 4, .max_context = 512}};
    f->running = pthread_create(&f->thread, NULL, run_host, f) == 0;
    assert_true(f->running);
    return f;
}

/* Waits for the host to end by itself. */
static void join(fixture *f) {
    if (f->running) pthread_join(f->thread, NULL);
    f->running = false;
}

static void stop(fixture *f) {
    shutdown(f->fd, SHUT_RDWR);
    join(f);
    close(f->fd);
    mr_frame_reader_free(f->in);
    mr_buf_done(&f->out);
    free(f);
}

static void on_tokens(fixture *f, const mr_frame_tokens *t) {
    answer *a = &f->a[t->id];
    assert_false(a->ended);
    if (a->n == 0) a->first = (int)t->index;
    assert_int_equal(t->index, a->first + a->n);
    for (uint32_t i = 0; i < t->tokens.n; i++) a->token[a->n++] = t->tokens.v[i];
    strncat(a->text[t->channel], t->text.p, t->text.n);
    a->logprobs += (int)t->logprobs.n;
    for (uint32_t i = 0; i < t->logprobs.n; i++) a->tops += (int)t->logprobs.v[i].top.n;
}

static void on_end(fixture *f, const mr_frame_end *e) {
    answer *a = &f->a[e->id];
    assert_false(a->ended);
    a->ended = true;
    a->finish = e->finish;
    a->status = (int)e->status;
    a->prompt_tokens = e->prompt_tokens;
    a->completion_tokens = e->completion_tokens;
    a->cached_tokens = e->cached_tokens;
    strncat(a->text[e->channel], e->text.p, e->text.n);
    mr_str_copy(e->code, a->code, sizeof a->code);
    mr_str_copy(e->message, a->message, sizeof a->message);
}

static void on_frame(fixture *f, const mr_frame *frame) {
    switch (frame->type) {
    case MR_FRAME_HELLO: f->hellos++; break;
    case MR_FRAME_READY:
        assert_int_equal(f->hellos, 1);
        f->readies++;
        f->ready = frame->ready;
        break;
    case MR_FRAME_LOAD:
        f->loads++;
        f->load = frame->load;
        break;
    case MR_FRAME_TOKENS: on_tokens(f, &frame->tokens); break;
    case MR_FRAME_END: on_end(f, &frame->end); break;
    default: fail_msg("the host sent %s", mr_frame_name(frame->type));
    }
}

/* Reads until the condition holds; false when the host closed before. */
static bool until(fixture *f, bool (*done)(const fixture *f)) {
    char chunk[4096];
    mr_frame frame;
    mr_error err;
    while (!done(f)) {
        struct pollfd p = {.fd = f->fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, WAIT_MS), 1);
        ssize_t n = recv(f->fd, chunk, sizeof chunk, 0);
        if (n <= 0) return false;
        assert_int_equal(mr_frame_feed(f->in, chunk, (size_t)n, &err), 0);
        while (mr_frame_next(f->in, &frame, &err) > 0) on_frame(f, &frame);
    }
    return true;
}

static bool is_ready(const fixture *f) {
    return f->readies == 1;
}
static bool is_first_ended(const fixture *f) {
    return f->a[0].ended;
}
static bool is_second_ended(const fixture *f) {
    return f->a[1].ended;
}
static bool has_first_begun(const fixture *f) {
    return f->a[0].n >= 3;
}
static bool has_said_load_thrice(const fixture *f) {
    return f->loads >= 3;
}
static bool never(const fixture *f) {
    (void)f;
    return false;
}
static bool are_four_ended(const fixture *f) {
    return f->a[0].ended && f->a[1].ended && f->a[2].ended && f->a[3].ended;
}

static void send_frame(fixture *f, const mr_frame *frame) {
    mr_error err;
    mr_buf_clear(&f->out);
    if (mr_frame_encode(frame, &f->out, &err)) fail_msg("%s", err.msg);
    assert_int_equal(send(f->fd, f->out.p, f->out.n, MSG_NOSIGNAL), f->out.n);
}

static void submit(fixture *f, int id, const char *text, mr_sampling *s, const int64_t *forced, int nforced) {
    mr_error err;
    mr_buf packed;
    mr_chat_message m = {0};
    mr_chat_request r = {0};
    MR_SET(&m, MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_USER);
    MR_SET(&m, MR_CHAT_MESSAGE_CONTENT, content, mr_str_of(text));
    MR_SET(&r, MR_CHAT_REQUEST_V, v, 1);
    MR_SET(&r, MR_CHAT_REQUEST_ID, id, MR_STR("same-id"));
    r.messages.v = &m;
    r.messages.n = 1;
    MR_MARK(&r, MR_CHAT_REQUEST_MESSAGES);
    MR_SET(&r, MR_CHAT_REQUEST_SAMPLING, sampling, *s);
    if (f->tenant) MR_SET(&r, MR_CHAT_REQUEST_TENANT, tenant, mr_str_of(f->tenant));
    if (f->schema) {
        MR_SET(&r.response_format, MR_RESPONSE_FORMAT_TYPE, type, MR_FORMAT_JSON_SCHEMA);
        MR_SET(&r.response_format, MR_RESPONSE_FORMAT_SCHEMA, schema, mr_str_of(f->schema));
        MR_MARK(&r, MR_CHAT_REQUEST_RESPONSE_FORMAT);
    }
    mr_buf_init(&packed, 1 << 22);
    if (mr_pack(&mr_chat_request_def, &r, &packed, &err)) fail_msg("%s", err.msg);
    mr_frame frame = {.type = MR_FRAME_SUBMIT};
    frame.submit.id = id;
    frame.submit.request = mr_buf_str(&packed);
    frame.submit.forced.v = (int64_t *)(uintptr_t)forced;
    frame.submit.forced.n = (uint32_t)nforced;
    send_frame(f, &frame);
    mr_buf_done(&packed);
}

static mr_sampling long_answer(int tokens) {
    mr_sampling s = {0};
    MR_SET(&s, MR_SAMPLING_MAX_TOKENS, max_tokens, tokens);
    MR_SET(&s, MR_SAMPLING_IGNORE_EOS, ignore_eos, true);
    return s;
}

static void test_it_is_ready_after_a_real_token_and_answers(void **state) {
    (void)state;
    fixture *f = start(MODEL);
    mr_sampling s = long_answer(40);
    MR_SET(&s, MR_SAMPLING_LOGPROBS, logprobs, true);
    MR_SET(&s, MR_SAMPLING_TOP_LOGPROBS, top_logprobs, 2);
    assert_true(until(f, is_ready));
    assert_int_equal(f->ready.max_seqs, 4);
    submit(f, 0, "Hello", &s, NULL, 0);
    assert_true(until(f, is_first_ended));
    assert_int_equal(f->a[0].finish, MR_FINISH_LENGTH);
    assert_int_equal(f->a[0].n, 40);
    assert_int_equal(f->a[0].completion_tokens, 40);
    assert_true(f->a[0].prompt_tokens > 3);
    assert_int_equal(f->a[0].logprobs, 40);
    assert_int_equal(f->a[0].tops, 80);
    assert_true(strlen(f->a[0].text[0]) > 10);
    stop(f);
}

static void test_a_new_host_goes_on_where_the_old_one_died(void **state) {
    (void)state;
    fixture *f = start(MODEL), *g = start(MODEL);
    mr_sampling s = long_answer(60);
    assert_true(until(f, is_ready));
    assert_true(until(g, is_ready));
    submit(f, 0, "Hello", &s, NULL, 0);
    assert_true(until(f, is_first_ended));
    submit(g, 0, "Hello", &s, f->a[0].token, 23);
    assert_true(until(g, is_first_ended));
    assert_int_equal(g->a[0].first, 23);
    assert_int_equal(g->a[0].n, 37);
    assert_memory_equal(g->a[0].token, f->a[0].token + 23, 37 * sizeof(int64_t));
    size_t tail = strlen(g->a[0].text[0]), whole = strlen(f->a[0].text[0]);
    assert_true(tail < whole);
    assert_string_equal(g->a[0].text[0], f->a[0].text[0] + whole - tail);
    stop(f);
    stop(g);
}

static const char *without_blanks(char *text) {
    char *to = text;
    for (const char *c = text; *c; c++) {
        if (!strchr(" \n\t", *c)) *to++ = *c;
    }
    *to = 0;
    return text;
}

static void test_an_answer_is_of_the_schema_or_the_keyword_in_the_way_is_named(void **state) {
    (void)state;
    fixture *f = start(MODEL);
    mr_sampling s = long_answer(60);
    assert_true(until(f, is_ready));
    f->schema = "{\"type\":\"array\",\"items\":{\"enum\":[\"water\"]},\"minItems\":2,\"maxItems\":2}";
    submit(f, 0, "Hello", &s, NULL, 0);
    assert_true(until(f, is_first_ended));
    assert_int_equal(f->a[0].finish, MR_FINISH_STOP);
    assert_string_equal(without_blanks(f->a[0].text[MR_CHANNEL_CONTENT]), "[\"water\",\"water\"]");
    f->schema = "{\"type\":\"array\",\"uniqueItems\":true}";
    submit(f, 1, "Hello", &s, NULL, 0);
    assert_true(until(f, is_second_ended));
    assert_int_equal(f->a[1].status, 400);
    assert_non_null(strstr(f->a[1].message, "uniqueItems is not supported"));
    stop(f);
}

static void test_load_is_said_while_idle(void **state) {
    (void)state;
    fixture *f = start(MODEL);
    assert_true(until(f, has_said_load_thrice));
    stop(f);
}

static bool are_three_counted(const fixture *f) {
    return f->a[0].ended && f->a[1].ended && f->a[2].ended && f->load.generated_tokens >= 1 + 3 * 10;
}

static void test_a_known_prompt_is_a_cache_hit_for_its_tenant_alone(void **state) {
    (void)state;
    fixture *f = start(MODEL);
    mr_sampling s = long_answer(10);
    const char *text =
        "A question that is long enough to fill some blocks of the cache: what is a millrace for?";
    assert_true(until(f, is_ready));
    f->tenant = "one";
    submit(f, 0, text, &s, NULL, 0);
    assert_true(until(f, is_first_ended));
    submit(f, 1, text, &s, NULL, 0);
    f->tenant = "other";
    submit(f, 2, text, &s, NULL, 0);
    assert_true(until(f, are_three_counted));
    assert_int_equal(f->a[0].cached_tokens, 0);
    assert_in_range(f->a[1].cached_tokens, 32, f->a[1].prompt_tokens - 1);
    assert_int_equal(f->a[2].cached_tokens, 0);
    assert_int_equal(f->load.cached_tokens, f->a[1].cached_tokens);
    assert_string_equal(f->a[1].text[0], f->a[0].text[0]);
    assert_string_equal(f->a[2].text[0], f->a[0].text[0]);
    stop(f);
}

/* Asks, and cancels once the answer has begun. */
static void ask_and_cancel(fixture *f) {
    mr_sampling s = long_answer(400);
    mr_frame cancel = {.type = MR_FRAME_CANCEL};
    f->a[0] = (answer){0};
    submit(f, 0, "Hello", &s, NULL, 0);
    assert_true(until(f, has_first_begun));
    cancel.cancel.id = 0;
    send_frame(f, &cancel);
    assert_true(until(f, is_first_ended));
}

/* The whole answer takes some milliseconds, and on a busy machine a cancel may come after its end; not each time. */
static void test_cancel_ends_an_answer(void **state) {
    (void)state;
    fixture *f = start(MODEL);
    assert_true(until(f, is_ready));
    for (int tries = 0; tries < 100 && f->a[0].finish != MR_FINISH_CANCELLED; tries++) ask_and_cancel(f);
    assert_int_equal(f->a[0].finish, MR_FINISH_CANCELLED);
    assert_in_range(f->a[0].n, 1, 399);
    stop(f);
}

static void test_wrong_requests_end_with_the_reason(void **state) {
    (void)state;
    fixture *f = start(MODEL);
    mr_sampling s = long_answer(5);
    char *large = malloc(200001);
    assert_non_null(large);
    memset(large, 'x', 200000);
    large[200000] = 0;
    assert_true(until(f, is_ready));
    submit(f, 0, large, &s, NULL, 0);
    const int64_t no_token[] = {1 << 20};
    submit(f, 1, "Hello", &s, no_token, 1);
    mr_frame garbage = {.type = MR_FRAME_SUBMIT};
    garbage.submit.id = 2;
    garbage.submit.request = MR_STR("garbage");
    send_frame(f, &garbage);
    submit(f, 3, "Hello", &s, NULL, 0);
    assert_true(until(f, are_four_ended));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(f->a[i].finish, MR_FINISH_ERROR);
        assert_int_equal(f->a[i].status, 400);
        assert_true(f->a[i].message[0] != 0);
    }
    assert_string_equal(f->a[0].code, "context_length_exceeded");
    assert_int_equal(f->a[3].finish, MR_FINISH_LENGTH);
    free(large);
    stop(f);
}

static void test_drain_finishes_what_runs_and_ends(void **state) {
    (void)state;
    fixture *f = start(MODEL);
    mr_sampling s = long_answer(100);
    assert_true(until(f, is_ready));
    submit(f, 0, "Hello", &s, NULL, 0);
    mr_frame drain = {.type = MR_FRAME_DRAIN};
    drain.drain.limit_ms = 10000;
    send_frame(f, &drain);
    assert_false(until(f, never)); /* it closes */
    assert_true(f->a[0].ended);
    assert_int_equal(f->a[0].n, 100);
    join(f);
    assert_int_equal(f->host_result, 0);
    stop(f);
}

static void test_it_ends_when_its_supervisor_is_gone_even_with_a_full_socket(void **state) {
    (void)state;
    fixture *f = start(MODEL);
    mr_sampling s = long_answer(450);
    MR_SET(&s, MR_SAMPLING_LOGPROBS, logprobs, true);
    MR_SET(&s, MR_SAMPLING_TOP_LOGPROBS, top_logprobs, 20);
    assert_true(until(f, is_ready));
    for (int i = 0; i < 4; i++) submit(f, i, "Hello", &s, NULL, 0);
    /* nothing is read: the socket fills, and the host must still see the end */
    int small = 4096;
    setsockopt(f->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    struct pollfd p = {.fd = f->fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    shutdown(f->fd, SHUT_RDWR);
    join(f);
    assert_int_equal(f->host_result, 0);
    stop(f);
}

static void test_a_broken_checkpoint_is_an_error_with_its_name(void **state) {
    (void)state;
    fixture *f = start("tests/golden/no-such-model");
    assert_false(until(f, never));
    join(f);
    assert_int_equal(f->host_result, -1);
    assert_non_null(strstr(f->host_error.msg, "no-such-model"));
    assert_int_equal(f->readies, 0);
    stop(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_is_ready_after_a_real_token_and_answers),
        cmocka_unit_test(test_a_new_host_goes_on_where_the_old_one_died),
        cmocka_unit_test(test_an_answer_is_of_the_schema_or_the_keyword_in_the_way_is_named),
        cmocka_unit_test(test_load_is_said_while_idle),
        cmocka_unit_test(test_a_known_prompt_is_a_cache_hit_for_its_tenant_alone),
        cmocka_unit_test(test_cancel_ends_an_answer),
        cmocka_unit_test(test_wrong_requests_end_with_the_reason),
        cmocka_unit_test(test_drain_finishes_what_runs_and_ends),
        cmocka_unit_test(test_it_ends_when_its_supervisor_is_gone_even_with_a_full_socket),
        cmocka_unit_test(test_a_broken_checkpoint_is_an_error_with_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

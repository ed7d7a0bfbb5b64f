/* Frames: what goes in comes out, however the bytes are cut; what is no frame is refused. */
#include "worker/frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    mr_frame_reader *reader;
    mr_buf out;
    mr_error err;
} fixture;

static int setup(void **state) {
    fixture *f = calloc(1, sizeof(*f));
    f->reader = mr_frame_reader_new(&f->err);
    mr_buf_init(&f->out, 2 * MR_FRAME_MAX);
    *state = f;
    return f->reader ? 0 : -1;
}

static int teardown(void **state) {
    fixture *f = *state;
    mr_frame_reader_free(f->reader);
    mr_buf_done(&f->out);
    free(f);
    return 0;
}

static void put(fixture *f, const mr_frame *frame) {
    if (mr_frame_encode(frame, &f->out, &f->err)) fail_msg("%s", f->err.msg);
}

static void feed_all(fixture *f) {
    assert_int_equal(mr_frame_feed(f->reader, f->out.p, f->out.n, &f->err), 0);
}

static mr_frame a_tokens_frame(int64_t *id, mr_logprob *lp) {
    mr_frame f = {.type = MR_FRAME_TOKENS};
    f.tokens.id = INT64_MAX;
    f.tokens.index = 7;
    f.tokens.tokens.v = id;
    f.tokens.tokens.n = 1;
    f.tokens.channel = MR_CHANNEL_REASONING;
    f.tokens.text = MR_STR("水 turns");
    MR_SET(lp, MR_LOGPROB_TOKEN, token, MR_STR("水"));
    MR_SET(lp, MR_LOGPROB_LOGPROB, logprob, -0.25);
    f.tokens.logprobs.v = lp;
    f.tokens.logprobs.n = 1;
    return f;
}

static void check_tokens_frame(const mr_frame *f) {
    assert_int_equal(f->type, MR_FRAME_TOKENS);
    assert_true(f->tokens.id == INT64_MAX);
    assert_int_equal(f->tokens.index, 7);
    assert_int_equal(f->tokens.tokens.n, 1);
    assert_int_equal(f->tokens.tokens.v[0], 102399);
    assert_int_equal(f->tokens.channel, MR_CHANNEL_REASONING);
    assert_true(mr_str_eqz(f->tokens.text, "水 turns"));
    assert_int_equal(f->tokens.logprobs.n, 1);
    assert_true(mr_str_eqz(f->tokens.logprobs.v[0].token, "水"));
    assert_true(f->tokens.logprobs.v[0].logprob == -0.25);
}

static void a_frame_comes_out_as_it_went_in(void **state) {
    fixture *f = *state;
    int64_t id = 102399;
    mr_logprob lp = {.set = 0};
    mr_frame in = a_tokens_frame(&id, &lp), out;
    put(f, &in);
    feed_all(f);
    assert_int_equal(mr_frame_next(f->reader, &out, &f->err), 1);
    check_tokens_frame(&out);
    assert_int_equal(mr_frame_next(f->reader, &out, &f->err), 0);
}

static void frames_arrive_however_the_bytes_are_cut(void **state) {
    fixture *f = *state;
    int64_t id = 102399;
    mr_logprob lp = {.set = 0};
    mr_frame in = a_tokens_frame(&id, &lp), out;
    for (int i = 0; i < 3; i++) put(f, &in);
    for (size_t cut = 1; cut <= f->out.n; cut += 1 + cut / 8) {
        int got = 0;
        for (size_t at = 0; at < f->out.n; at += cut) {
            size_t n = f->out.n - at < cut ? f->out.n - at : cut;
            assert_int_equal(mr_frame_feed(f->reader, f->out.p + at, n, &f->err), 0);
            while (mr_frame_next(f->reader, &out, &f->err) == 1) {
                check_tokens_frame(&out);
                got++;
            }
        }
        assert_int_equal(got, 3);
    }
}

static void every_type_of_frame_makes_the_trip(void **state) {
    fixture *f = *state;
    mr_frame in, out;
    for (int type = 0; type < MR_FRAME_TYPES; type++) {
        memset(&in, 0, sizeof(in));
        in.type = (mr_frame_type)type;
        if (type == MR_FRAME_READY) in.ready.max_seqs = in.ready.max_context = 1;
        if (type == MR_FRAME_SUBMIT) in.submit.request = MR_STR("\x80");
        int64_t id = 1;
        if (type == MR_FRAME_TOKENS) {
            in.tokens.tokens.v = &id;
            in.tokens.tokens.n = 1;
        }
        put(f, &in);
    }
    feed_all(f);
    for (int type = 0; type < MR_FRAME_TYPES; type++) {
        assert_int_equal(mr_frame_next(f->reader, &out, &f->err), 1);
        assert_int_equal(out.type, type);
        assert_string_equal(mr_frame_name(out.type), mr_frame_name((mr_frame_type)type));
    }
}

static void the_largest_request_fits_with_its_forced_tokens(void **state) {
    fixture *f = *state;
    enum { TOKENS = 500000 };
    char *request = calloc(1, MR_TEXT_MAX);
    int64_t *forced = calloc(TOKENS, sizeof(*forced));
    for (int i = 0; i < TOKENS; i++) forced[i] = i % 130000;
    mr_frame in = {.type = MR_FRAME_SUBMIT}, out;
    in.submit.request = (mr_str){request, MR_TEXT_MAX};
    in.submit.forced.v = forced;
    in.submit.forced.n = TOKENS;
    put(f, &in);
    feed_all(f);
    assert_int_equal(mr_frame_next(f->reader, &out, &f->err), 1);
    assert_int_equal(out.submit.request.n, MR_TEXT_MAX);
    assert_int_equal(out.submit.forced.n, TOKENS);
    assert_int_equal(out.submit.forced.v[TOKENS - 1], forced[TOKENS - 1]);
    free(request);
    free(forced);
}

static void refused(fixture *f, mr_str bytes, const char *why) {
    mr_frame out;
    mr_frame_reader_reset(f->reader);
    assert_int_equal(mr_frame_feed(f->reader, bytes.p, bytes.n, &f->err), 0);
    assert_int_equal(mr_frame_next(f->reader, &out, &f->err), -1);
    if (!strstr(f->err.msg, why)) fail_msg("'%s' does not say '%s'", f->err.msg, why);
}

static void what_is_no_frame_is_refused_with_the_reason(void **state) {
    fixture *f = *state;
    refused(f, MR_STR("HTTP/1.1 200 OK"), "bytes, expected");
    refused(f, MR_STR("\0\0\0\0\0"), "0 bytes");
    refused(f, MR_STR("\2\0\0\0\x63\x80"), "unknown frame type");
    refused(f, MR_STR("\2\0\0\0\6\x80"), "cancel frame");
    refused(f, MR_STR("\2\0\0\0\6\xc1"), "cancel frame");
}

static void a_new_peer_starts_clean(void **state) {
    fixture *f = *state;
    mr_frame in = {.type = MR_FRAME_CANCEL}, out;
    in.cancel.id = 5;
    put(f, &in);
    assert_int_equal(mr_frame_feed(f->reader, f->out.p, f->out.n - 1, &f->err), 0);
    mr_frame_reader_reset(f->reader);
    feed_all(f);
    assert_int_equal(mr_frame_next(f->reader, &out, &f->err), 1);
    assert_int_equal(out.cancel.id, 5);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_frame_comes_out_as_it_went_in),
        TEST(frames_arrive_however_the_bytes_are_cut),
        TEST(every_type_of_frame_makes_the_trip),
        TEST(the_largest_request_fits_with_its_forced_tokens),
        TEST(what_is_no_frame_is_refused_with_the_reason),
        TEST(a_new_peer_starts_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

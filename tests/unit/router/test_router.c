/* Records in, records out: what the router makes of each request. One router serves all tests; ids keep them apart. */
#include "fixture.h"

#include "schemas/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TRACE_ID "4bf92f3577b34da6a3ce929d0e0e4736"
#define TRACE    "00-" TRACE_ID "-00f067aa0ba902b7-01"

static const char kb[] = "What are your opening hours?\tNine to six.\n"
                         "如何重置密码？\t点击忘记密码。\n"
                         "退款\t七天内到账。\n";

static fixture fix;

static int open_fixture(void **state) {
    fixture_init(&fix);
    fixture_kb(&fix, kb);
    fixture_start(&fix);
    *state = &fix;
    return 0;
}

static int close_fixture(void **state) {
    fixture_done(*state);
    return 0;
}

static void ask(fixture *f, const char *id, const char *more, const char *question) {
    char json[2000];
    snprintf(json, sizeof(json),
             "{\"v\":1,\"id\":\"%s\",%s\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}", id, more,
             question);
    send_json(f, id, json);
}

static void assert_text(mr_str got, const char *expected) {
    assert_int_equal(got.n, strlen(expected));
    assert_memory_equal(got.p, expected, got.n);
}

/* ---- the knowledge base ---- */

static void a_routine_question_is_answered_at_once(void **state) {
    fixture *f = *state;
    char hex[MR_TEXT_HASH_LEN + 1];
    ask(f, "hours", "\"model\":\"small\",", "what are your opening hours");
    mr_response_end e = wait_end(f, "hours");
    mr_text_hash_hex(mr_text_hash_feed(mr_text_hash_init(), MR_STR("Nine to six.")), hex);
    assert_text(answer_text(f, "hours"), "Nine to six.");
    assert_text(e.hash, hex);
    assert_int_equal(e.offset, strlen("Nine to six."));
    assert_int_equal(e.finish_reason, MR_FINISH_STOP);
    assert_int_equal(e.source, MR_SOURCE_KB);
    assert_text(e.model, "small");
    assert_true(MR_HAS(&e, MR_RESPONSE_END_USAGE));
    assert_int_equal(count_records(f, BLUE, "hours"), 0);
}

static void a_question_that_is_only_near_goes_to_the_model(void **state) {
    fixture *f = *state;
    ask(f, "near", "", "what are your opening remarks on the sea");
    wait_record(f, BLUE, "near");
}

static void chinese_questions_are_answered_short_ones_too(void **state) {
    fixture *f = *state;
    ask(f, "zh-long", "", "如何重置密码");
    ask(f, "zh-short", "", "退款？");
    wait_end(f, "zh-long");
    wait_end(f, "zh-short");
    assert_text(answer_text(f, "zh-long"), "点击忘记密码。");
    assert_text(answer_text(f, "zh-short"), "七天内到账。");
}

static void the_answer_goes_to_the_partition_that_asked(void **state) {
    fixture *f = *state;
    for (int partition = 0; partition < 4; partition++) {
        char id[20], reply_to[40];
        snprintf(id, sizeof(id), "reply-%d", partition);
        snprintf(reply_to, sizeof(reply_to), "\"reply_to\":%d,", partition);
        ask(f, id, reply_to, "what are your opening hours");
        wait_end(f, id);
        assert_int_equal(wait_record(f, MR_TOPIC_RESPONSES, id)->partition, partition);
    }
}

typedef struct request_of {
    fixture *f;
    const char *id;
} request_of;

static bool answered_or_forwarded(void *arg) {
    request_of *r = arg;
    return count_records(r->f, BLUE, r->id) > 0 || count_records(r->f, MR_TOPIC_RESPONSES, r->id) > 0;
}

static void wait_answered_or_forwarded(fixture *f, const char *id) {
    if (!test_wait(f->loop, WAIT_MS, answered_or_forwarded, &(request_of){f, id}))
        fail_msg("nothing became of %s", id);
}

static void a_long_answer_comes_in_pieces_of_whole_characters(void **state) {
    fixture *f = *state;
    mr_buf tsv;
    mr_buf_init(&tsv, 1 << 16);
    mr_buf_puts(&tsv, kb);
    mr_buf_puts(&tsv, "长篇\t");
    for (int i = 0; i < 3000; i++) mr_buf_puts(&tsv, "水");
    mr_buf_put(&tsv, "\n", 2);
    fixture_kb(f, tsv.p);
    mr_buf_done(&tsv);
    /* The router takes the new file by itself; until then the question is the model's. */
    char id[30];
    int round = 0;
    do {
        snprintf(id, sizeof(id), "long-%d", round++);
        ask(f, id, "", "长篇");
        wait_answered_or_forwarded(f, id);
    } while (count_records(f, BLUE, id) > 0);
    assert_int_equal(wait_end(f, id).offset, 9000);
    assert_int_equal(answer_text(f, id).n, 9000);
    assert_int_equal(count_records(f, MR_TOPIC_RESPONSES, id), 4);
}

static void title_and_summary_calls_are_the_models(void **state) {
    fixture *f = *state;
    ask(f, "said-title", "\"purpose\":\"title\",", "what are your opening hours");
    mr_chat_request q = read_request(f, wait_record(f, BLUE, "said-title"));
    assert_int_equal(q.purpose, MR_PURPOSE_TITLE);
    ask(f, "seen-title", "", "Please generate a four to five word title summarizing our conversation");
    q = read_request(f, wait_record(f, BLUE, "seen-title"));
    assert_int_equal(q.purpose, MR_PURPOSE_TITLE);
}

static void who_asks_for_probabilities_gets_the_model(void **state) {
    fixture *f = *state;
    ask(f, "probable", "\"sampling\":{\"logprobs\":true},", "what are your opening hours");
    wait_record(f, BLUE, "probable");
}

/* ---- forwarding ---- */

static void other_questions_are_forwarded_whole(void **state) {
    fixture *f = *state;
    int64_t before = mr_now_ms();
    send_json(
        f, "sess",
        "{\"v\":1,\"id\":\"fw\",\"session\":\"sess\",\"tenant\":\"acme\",\"user\":\"u\",\"model\":\"m\","
        "\"messages\":[{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}],"
        "\"sampling\":{\"temperature\":0.5,\"max_tokens\":7},\"stream\":true,\"reply_to\":3,"
        "\"something\":\"new\"}");
    const seen *s = wait_record(f, BLUE, "sess");
    mr_chat_request q = read_request(f, s);
    assert_text(q.id, "fw");
    assert_text(q.tenant, "acme");
    assert_text(q.user, "u");
    assert_text(q.messages.v[0].content, "Why is the sky blue?");
    assert_true(q.sampling.temperature == 0.5);
    assert_int_equal(q.sampling.max_tokens, 7);
    assert_int_equal(q.reply_to, 3);
    assert_true(q.stream);
    /* what the worker relies on is filled in */
    assert_int_equal(q.attempt, 1);
    assert_int_equal(q.purpose, MR_PURPOSE_CHAT);
    assert_true(MR_HAS(&q.sampling, MR_SAMPLING_SEED));
    assert_in_range(q.created_ms, before - 1000, mr_now_ms() + 1000);
    assert_int_equal(q.deadline_ms, q.created_ms + 600000);
    assert_text(q.trace, s->traceparent.p);
}

static void the_trace_goes_on_from_the_header(void **state) {
    fixture *f = *state;
    mr_header headers[] = {{"traceparent", MR_STR(TRACE)},
                           {"content-type", MR_STR("application/json; charset=utf-8")}};
    send_record(f, MR_TOPIC_REQUESTS, MR_STR("tr"),
                MR_STR(" {\"v\":1,\"id\":\"tr\",\"messages\":[{\"role\":\"user\",\"content\":\"Hm?\"}]}"),
                headers, 2);
    const seen *s = wait_record(f, BLUE, "tr");
    assert_memory_equal(s->traceparent.p, "00-" TRACE_ID "-", 36);
    assert_memory_not_equal(s->traceparent.p, TRACE, 55);
}

static void the_trace_goes_on_from_the_request(void **state) {
    fixture *f = *state;
    ask(f, "tr2", "\"trace\":\"" TRACE "\",", "Hm?");
    assert_memory_equal(wait_record(f, BLUE, "tr2")->traceparent.p, "00-" TRACE_ID "-", 36);
}

static void a_clock_that_is_ahead_gives_no_more_time(void **state) {
    fixture *f = *state;
    ask(f, "ahead", "\"created_ms\":8999999999999999,", "Hm?");
    mr_chat_request q = read_request(f, wait_record(f, BLUE, "ahead"));
    assert_in_range(q.deadline_ms, mr_now_ms(), mr_now_ms() + 600000);
}

static void an_attempt_and_a_seed_are_kept(void **state) {
    fixture *f = *state;
    ask(f, "again", "\"attempt\":3,\"deadline_ms\":9000000000000,\"sampling\":{\"seed\":-5},", "Hm?");
    mr_chat_request q = read_request(f, wait_record(f, BLUE, "again"));
    assert_int_equal(q.attempt, 3);
    assert_int_equal(q.sampling.seed, -5);
    assert_int_equal(q.deadline_ms, 9000000000000);
}

static void a_model_goes_to_its_pool(void **state) {
    fixture *f = *state;
    ask(f, "big", "\"model\":\"big-model\",", "Hm?");
    wait_record(f, BIG_BLUE, "big");
}

static void msgpack_requests_are_read_too(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_buf b;
    mr_chat_message m = {0};
    mr_chat_request q = {0};
    MR_SET(&m, MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_USER);
    MR_SET(&m, MR_CHAT_MESSAGE_CONTENT, content, MR_STR("what are your opening hours"));
    MR_SET(&q, MR_CHAT_REQUEST_V, v, MR_SCHEMA_VERSION);
    MR_SET(&q, MR_CHAT_REQUEST_ID, id, MR_STR("packed"));
    q.messages.v = &m;
    q.messages.n = 1;
    MR_MARK(&q, MR_CHAT_REQUEST_MESSAGES);
    mr_buf_init(&b, 1000);
    assert_int_equal(mr_pack(&mr_chat_request_def, &q, &b, &err), 0);
    send_record(f, MR_TOPIC_REQUESTS, MR_STR("packed"), mr_buf_str(&b), NULL, 0);
    mr_buf_done(&b);
    wait_end(f, "packed");
    assert_text(answer_text(f, "packed"), "Nine to six.");
}

static void weights_move_the_traffic_to_green(void **state) {
    fixture *f = *state;
    send_weights(f, "main", 0, 1, 5);
    /* The two topics have no common order: ask until the router has seen the weights. */
    int64_t deadline = mr_mono_us() + WAIT_MS * 1000LL;
    for (int i = 0; count_records(f, GREEN, "turns") == 0; i++) {
        char id[30];
        snprintf(id, sizeof(id), "turn-%d", i);
        ask(f, id, "\"session\":\"turns\",", "Hm?");
        test_idle(f->loop, 20);
        assert_true(mr_mono_us() < deadline);
    }
    send_weights(f, "main", 1, 0, 6);
}

/* ---- what cannot be served ---- */

static void assert_dead(fixture *f, const char *id, const char *value, const char *reason) {
    mr_dead d = wait_dead(f, id);
    assert_text(d.record, value);
    assert_text(d.topic, MR_TOPIC_REQUESTS);
    assert_text(d.stage, "router");
    if (!strstr(d.reason.p, reason)) fail_msg("'%s' does not say '%s'", d.reason.p, reason);
}

typedef struct dead_after {
    fixture *f;
    int before;
} dead_after;

static bool more_dead(void *arg) {
    dead_after *d = arg;
    return count_records(d->f, MR_TOPIC_DEAD, NULL) > d->before;
}

static mr_dead wait_next_dead(fixture *f, int before) {
    mr_dead d;
    mr_error err;
    if (!test_wait(f->loop, WAIT_MS, more_dead, &(dead_after){f, before}))
        fail_msg("nothing more came to chat.dead");
    if (mr_unpack(&mr_dead_def, last_record(f, MR_TOPIC_DEAD)->value, f->arena, &d, &err) != 0)
        fail_msg("%s", err.msg);
    return d;
}

static void garbage_is_buried_with_the_reason(void **state) {
    fixture *f = *state;
    send_json(f, "k", "garbage");
    assert_dead(f, "", "garbage", "neither a msgpack map nor a JSON object");
}

static void a_wrong_type_is_buried_and_its_user_told(void **state) {
    fixture *f = *state;
    const char *json =
        "{\"v\":1,\"id\":\"typo\",\"reply_to\":2,\"messages\":[{\"role\":\"user\",\"content\":7}]}";
    send_json(f, "k", json);
    assert_dead(f, "typo", json,
                "messages[0].content: expected a string or a list of Part, found an integer");
    mr_response_end e = wait_end(f, "typo");
    assert_int_equal(e.finish_reason, MR_FINISH_ERROR);
    assert_int_equal(e.error.status, 400);
    assert_non_null(strstr(e.error.message.p, "messages[0].content"));
    assert_int_equal(wait_record(f, MR_TOPIC_RESPONSES, "typo")->partition, 2);
}

static void a_newer_version_is_buried(void **state) {
    fixture *f = *state;
    const char *json = "{\"v\":2,\"id\":\"newer\",\"messages\":{}}";
    send_json(f, "k", json);
    assert_dead(f, "newer", json, "version 2 of ChatRequest is newer than this program");
    assert_int_equal(wait_end(f, "newer").error.status, 400);
}

static void broken_json_in_any_script_is_buried(void **state) {
    fixture *f = *state;
    const char *json =
        "{\"v\":1,\"id\":\"\\水\"}"; /* jansson quotes it only up to the first byte of the character */
    int before = count_records(f, MR_TOPIC_DEAD, NULL);
    send_json(f, "k", json);
    assert_text(wait_next_dead(f, before).record, json);
    send_json(f, "k", "{\"v\":1,,\xff\xfe");
    assert_text(wait_next_dead(f, before + 1).record, "{\"v\":1,,\xff\xfe");
}

static void a_record_of_full_size_is_buried_cut(void **state) {
    fixture *f = *state;
    size_t n = (size_t)f->kafka_conf.message_max - 200;
    char *big = malloc(n);
    assert_non_null(big);
    memset(big, 'x', n);
    int before = count_records(f, MR_TOPIC_DEAD, NULL);
    send_record(f, MR_TOPIC_REQUESTS, MR_STR("full"), (mr_str){big, n}, NULL, 0);
    free(big);
    mr_dead d = wait_next_dead(f, before);
    assert_true(d.truncated);
    assert_in_range(d.record.n, n - 20000, n - 1);
}

static void a_huge_key_does_no_harm(void **state) {
    fixture *f = *state;
    size_t n = (size_t)f->kafka_conf.message_max - 200;
    char *key = malloc(n);
    assert_non_null(key);
    memset(key, 'k', n);
    int before = count_records(f, MR_TOPIC_DEAD, NULL);
    send_record(f, MR_TOPIC_REQUESTS, (mr_str){key, n}, MR_STR("?"), NULL, 0);
    free(key);
    assert_text(wait_next_dead(f, before).record, "?");
}

static void a_request_that_grows_past_the_limit_is_refused(void **state) {
    fixture *f = *state;
    size_t n = (size_t)f->kafka_conf.message_max - 300;
    char *big = malloc(n);
    assert_non_null(big);
    memset(big, 'x', n);
    int at = snprintf(big, n, "{\"v\":1,\"id\":\"grown\",\"messages\":[{\"role\":\"user\",\"content\":\"");
    big[at] = 'x';
    memcpy(big + n - 4, "\"}]}", 4);
    send_record(f, MR_TOPIC_REQUESTS, MR_STR("grown"), (mr_str){big, n}, NULL, 0);
    free(big);
    assert_int_equal(wait_end(f, "grown").error.status, 413);
}

static void a_tombstone_is_buried(void **state) {
    fixture *f = *state;
    int before = count_records(f, MR_TOPIC_DEAD, NULL);
    send_record(f, MR_TOPIC_REQUESTS, MR_STR("tomb"), MR_STR(""), NULL, 0);
    assert_non_null(strstr(wait_next_dead(f, before).reason.p, "the message is empty"));
}

static void an_expired_request_gets_an_error(void **state) {
    fixture *f = *state;
    ask(f, "late", "\"deadline_ms\":1000,", "what are your opening hours");
    mr_response_end e = wait_end(f, "late");
    assert_int_equal(e.error.status, 504);
    assert_text(e.error.code, "deadline_exceeded");
}

static void a_partition_that_does_not_exist_holds_up_nobody(void **state) {
    fixture *f = *state;
    ask(f, "nowhere", "\"reply_to\":77,", "what are your opening hours");
    mr_response_end e = wait_end(f, "nowhere");
    assert_int_equal(e.error.status, 400);
    assert_text(e.error.code, "invalid_reply_to");
    ask(f, "after-nowhere", "", "what are your opening hours");
    wait_end(f, "after-nowhere");
    assert_false(mr_router_failed(f->router));
}

static void a_bad_control_record_is_ignored(void **state) {
    fixture *f = *state;
    send_record(f, MR_TOPIC_CONTROL, MR_STR("weights/main"), MR_STR("{\"v\":1,\"kind\":\"weights\"}"), NULL,
                0);
    send_record(f, MR_TOPIC_CONTROL, MR_STR("cancel/x"), MR_STR("\x01\x02"), NULL, 0);
    ask(f, "after-control", "", "Hm?");
    wait_record(f, BLUE, "after-control");
}

static void outcomes_are_counted(void **state) {
    fixture *f = *state;
    assert_true(metric(f, "millrace_router_requests_total{outcome=\"kb\"} ") >= 5);
    assert_true(metric(f, "millrace_router_requests_total{outcome=\"model\"} ") >= 5);
    assert_true(metric(f, "millrace_router_requests_total{outcome=\"dead\"} ") >= 5);
    assert_true(metric(f, "millrace_router_requests_total{outcome=\"expired\"} ") == 1);
    assert_true(metric(f, "millrace_router_kb_seconds_count ") >= 5);
    assert_true(metric(f, "millrace_router_kb_entries ") == 4);
}

/* ---- readiness ---- */

static void a_missing_knowledge_base_is_said_at_once(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_router_conf conf = f->conf;
    conf.kb = "nowhere.db";
    assert_null(mr_router_new(&conf, &f->kafka_conf, &f->redis_conf, f->loop, &err));
    assert_non_null(strstr(err.msg, "nowhere.db"));
    assert_non_null(strstr(err.msg, "millrace kb import"));
}

static void a_router_that_shuts_down_is_not_ready(void **state) {
    fixture *f = *state;
    char why[100];
    assert_true(mr_router_ready(f->router, why, sizeof(why)));
    mr_loop_drain(f->loop);
    assert_false(mr_router_ready(f->router, why, sizeof(why)));
    assert_string_equal(why, "shutting down");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_routine_question_is_answered_at_once),
        cmocka_unit_test(a_question_that_is_only_near_goes_to_the_model),
        cmocka_unit_test(chinese_questions_are_answered_short_ones_too),
        cmocka_unit_test(the_answer_goes_to_the_partition_that_asked),
        cmocka_unit_test(a_long_answer_comes_in_pieces_of_whole_characters),
        cmocka_unit_test(title_and_summary_calls_are_the_models),
        cmocka_unit_test(who_asks_for_probabilities_gets_the_model),
        cmocka_unit_test(other_questions_are_forwarded_whole),
        cmocka_unit_test(the_trace_goes_on_from_the_header),
        cmocka_unit_test(the_trace_goes_on_from_the_request),
        cmocka_unit_test(a_clock_that_is_ahead_gives_no_more_time),
        cmocka_unit_test(an_attempt_and_a_seed_are_kept),
        cmocka_unit_test(a_model_goes_to_its_pool),
        cmocka_unit_test(msgpack_requests_are_read_too),
        cmocka_unit_test(weights_move_the_traffic_to_green),
        cmocka_unit_test(garbage_is_buried_with_the_reason),
        cmocka_unit_test(a_wrong_type_is_buried_and_its_user_told),
        cmocka_unit_test(a_newer_version_is_buried),
        cmocka_unit_test(broken_json_in_any_script_is_buried),
        cmocka_unit_test(a_record_of_full_size_is_buried_cut),
        cmocka_unit_test(a_huge_key_does_no_harm),
        cmocka_unit_test(a_request_that_grows_past_the_limit_is_refused),
        cmocka_unit_test(a_tombstone_is_buried),
        cmocka_unit_test(an_expired_request_gets_an_error),
        cmocka_unit_test(a_partition_that_does_not_exist_holds_up_nobody),
        cmocka_unit_test(a_bad_control_record_is_ignored),
        cmocka_unit_test(outcomes_are_counted),
        cmocka_unit_test(a_missing_knowledge_base_is_said_at_once),
        cmocka_unit_test(a_router_that_shuts_down_is_not_ready),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}

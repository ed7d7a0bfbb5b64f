/* What Redis adds to a request: the earlier turns of its session, and the style of its user. */
#include "fixture.h"

#include "base/log.h"
#include "router/style.h"
#include "session/profile.h"
#include "session/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char kb[] = "What are your opening hours?\tNine to six.\n"
                         "How do I pay?\tBy card.\n"
                         "Where are you?\tIn town.\n"
                         "Who are you?\tA shop.\n";
static const char *const own_styles[] = {"pirate|1.1|0.8|Answer as a pirate."};

static fixture fix;
static test_redis *redis;
static char address[64];

static bool redis_is_up(void *arg) {
    return metric(arg, "millrace_router_redis_up ") == 1;
}

static bool redis_is_away(void *arg) {
    return metric(arg, "millrace_router_redis_up ") == 0;
}

static int open_fixture(void **state) {
    redis = test_redis_start(0, NULL);
    if (!redis) exit(77);
    fixture_init(&fix);
    fixture_kb(&fix, kb);
    snprintf(address, sizeof(address), "127.0.0.1:%d", test_redis_port(redis));
    fix.redis_conf.address = address;
    fix.conf.session_turns = 3;
    fix.conf.session_tokens = 60;
    fix.conf.session_ttl_s = 100;
    fix.conf.profiles = true;
    fix.conf.styles = (mr_strlist){(const char **)own_styles, 1};
    fixture_start(&fix);
    if (!test_wait(fix.loop, WAIT_MS, redis_is_up, &fix)) return -1;
    *state = &fix;
    return 0;
}

static int close_fixture(void **state) {
    fixture_done(*state);
    test_redis_stop(redis);
    return 0;
}

/* `more`: further members, each with a comma behind it. */
static void send_messages(fixture *f, const char *id, const char *more, const char *messages) {
    char json[6000];
    snprintf(json, sizeof(json), "{\"v\":1,\"id\":\"%s\",%s\"messages\":[%s]}", id, more, messages);
    send_json(f, id, json);
}

static void ask(fixture *f, const char *id, const char *more, const char *question) {
    char message[5000];
    snprintf(message, sizeof(message), "{\"role\":\"user\",\"content\":\"%s\"}", question);
    send_messages(f, id, more, message);
}

/* A routine question and its answer. */
static void routine(fixture *f, const char *id, const char *more, const char *question) {
    ask(f, id, more, question);
    assert_int_equal(wait_end(f, id).finish_reason, MR_FINISH_STOP);
}

typedef struct wanted {
    fixture *f;
    const char *id;
    mr_chat_request found;
} wanted;

static bool is_forwarded(void *arg) {
    wanted *w = arg;
    for (int i = 0; i < w->f->nseen; i++) {
        if (strcmp(w->f->seen[i].topic, BLUE) != 0) continue;
        w->found = read_request(w->f, &w->f->seen[i]);
        if (mr_str_eqz(w->found.id, w->id)) return true;
    }
    return false;
}

/* What the worker gets; its record has the session for a key. */
static mr_chat_request forwarded(fixture *f, const char *id) {
    wanted w = {.f = f, .id = id};
    if (!test_wait(f->loop, WAIT_MS, is_forwarded, &w)) fail_msg("%s does not come to a worker", id);
    return w.found;
}

static void assert_message(const mr_chat_request *q, uint32_t i, int role, const char *text) {
    assert_true(i < q->messages.n);
    assert_int_equal(q->messages.v[i].role, role);
    if (!mr_str_eqz(q->messages.v[i].content, text)) {
        fail_msg("message %u is '%.*s'", i, MR_FMT(q->messages.v[i].content));
    }
}

/* ---- sessions ---- */

#define S(name, ms)                                                                                          \
    "\"session\":\"" name "\",\"tenant\":\"t\",\"deadline_ms\":8000000000000,\"created_ms\":" ms ","

static void a_message_that_comes_alone_gets_its_sessions_last_turns(void **state) {
    fixture *f = *state;
    routine(f, "a1", S("a", "1001"), "What are your opening hours?");
    routine(f, "a2", S("a", "1002"), "How do I pay?");
    routine(f, "a3", S("a", "1003"), "Where are you?");
    routine(f, "a4", S("a", "1004"), "Who are you?");
    ask(f, "a5", S("a", "1005"), "And then?");
    mr_chat_request q = forwarded(f, "a5");
    assert_int_equal(q.messages.n, 7);
    assert_message(&q, 0, MR_ROLE_USER, "How do I pay?");
    assert_message(&q, 1, MR_ROLE_ASSISTANT, "By card.");
    assert_message(&q, 5, MR_ROLE_ASSISTANT, "A shop.");
    assert_message(&q, 6, MR_ROLE_USER, "And then?");
    assert_true(q.history);
    assert_int_equal(q.keep_s, 100); /* so the worker writes the turn */
}

static void sessions_of_other_names_and_tenants_are_not_mixed(void **state) {
    fixture *f = *state;
    routine(f, "b1", S("b", "1001"), "How do I pay?");
    ask(f, "b2", "\"session\":\"b\",\"tenant\":\"u\",", "And then?");
    assert_int_equal(forwarded(f, "b2").messages.n, 1);
    ask(f, "b3", "\"session\":\"bb\",\"tenant\":\"t\",", "And then?");
    assert_int_equal(forwarded(f, "b3").messages.n, 1);
}

static void who_sends_its_own_history_keeps_it(void **state) {
    fixture *f = *state;
    routine(f, "c1", S("c", "1001"), "How do I pay?");
    send_messages(f, "c2", S("c", "1002"),
                  "{\"role\":\"user\",\"content\":\"Hm?\"},{\"role\":\"assistant\",\"content\":\"Hm.\"},"
                  "{\"role\":\"user\",\"content\":\"Well?\"}");
    mr_chat_request q = forwarded(f, "c2");
    assert_int_equal(q.messages.n, 3);
    assert_int_equal(q.keep_s, 0);
    ask(f, "c3", S("c", "1003") "\"history\":false,", "And then?");
    assert_int_equal(forwarded(f, "c3").messages.n, 1);
    ask(f, "c4", "", "And then?"); /* no session */
    assert_int_equal(forwarded(f, "c4").messages.n, 1);
}

static void the_newest_turns_come_first_into_the_budget(void **state) {
    fixture *f = *state;
    static char longer[400];
    memset(longer, 'x', 150); /* 50 tokens of the 60 */
    mr_chat_request q = {0};
    mr_chat_message m = {0};
    mr_error err;
    mr_loop *loop = f->loop;
    mr_metrics *metrics = mr_metrics_new(&err);
    mr_store *store = mr_store_new(&f->redis_conf, loop, metrics, "test", &err);
    assert_non_null(store);
    while (!mr_store_up(store)) test_idle(loop, 1);
    MR_SET(&m, MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_USER);
    MR_SET(&m, MR_CHAT_MESSAGE_CONTENT, content, mr_str_of(longer));
    q = (mr_chat_request){.id = MR_STR("x"),
                          .tenant = MR_STR("t"),
                          .session = MR_STR("d"),
                          .keep_s = 100,
                          .created_ms = 1001,
                          .messages = {&m, 1}};
    mr_session_keep(store, &q, MR_STR("old"));
    mr_store_free(store);
    mr_metrics_free(metrics);
    routine(f, "d2", S("d", "1002"), "How do I pay?");
    ask(f, "d3", S("d", "1003"), "And then?");
    mr_chat_request got = forwarded(f, "d3");
    assert_int_equal(got.messages.n, 3); /* the newest turn; both would be too much */
    assert_message(&got, 0, MR_ROLE_USER, "How do I pay?");
}

static void the_sessions_system_message_is_kept_and_a_new_one_takes_its_place(void **state) {
    fixture *f = *state;
    send_messages(
        f, "e1", S("e", "1001"),
        "{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":\"How do I pay?\"}");
    wait_end(f, "e1");
    ask(f, "e2", S("e", "1002"), "And then?");
    mr_chat_request q = forwarded(f, "e2");
    assert_int_equal(q.messages.n, 4);
    assert_message(&q, 0, MR_ROLE_SYSTEM, "Be brief.");
    send_messages(
        f, "e3", S("e", "1003"),
        "{\"role\":\"system\",\"content\":\"Be long.\"},{\"role\":\"user\",\"content\":\"And then?\"}");
    q = forwarded(f, "e3");
    assert_int_equal(q.messages.n, 4);
    assert_message(&q, 0, MR_ROLE_SYSTEM, "Be long.");
    assert_message(&q, 1, MR_ROLE_USER, "How do I pay?");
}

static void a_request_that_comes_again_leaves_one_turn(void **state) {
    fixture *f = *state;
    routine(f, "f1", S("f", "1001"), "How do I pay?");
    ask(f, "f1", S("f", "1001"), "How do I pay?");
    ask(f, "f2", S("f", "1002"), "And then?");
    assert_int_equal(forwarded(f, "f2").messages.n, 3);
}

/* ---- styles ---- */

static void set_profile(fixture *f, const char *user, const char *style) {
    mr_error err;
    if (mr_profile_set(&f->redis_conf, MR_STR("t"), mr_str_of(user), style, &err) != 0)
        fail_msg("%s", err.msg);
}

static void a_users_profile_sets_sampling_and_a_line_for_the_model(void **state) {
    fixture *f = *state;
    set_profile(f, "anna", "formal");
    ask(f, "g1", "\"tenant\":\"t\",\"user\":\"anna\",", "And then?");
    mr_chat_request q = forwarded(f, "g1");
    assert_true(q.sampling.temperature == 0.3 && q.sampling.top_p == 0.9);
    assert_int_equal(q.messages.n, 2);
    assert_message(&q, 0, MR_ROLE_SYSTEM, "Answer formally and precisely.");
    ask(f, "g2", "\"tenant\":\"t\",\"user\":\"bert\",", "And then?");
    q = forwarded(f, "g2");
    assert_false(MR_HAS(&q.sampling, MR_SAMPLING_TEMPERATURE));
    assert_int_equal(q.messages.n, 1);
}

static void what_the_request_says_itself_wins(void **state) {
    fixture *f = *state;
    set_profile(f, "anna", "formal");
    send_messages(
        f, "h1", "\"tenant\":\"t\",\"user\":\"anna\",\"sampling\":{\"temperature\":1.5},",
        "{\"role\":\"system\",\"content\":\"Sing.\"},{\"role\":\"user\",\"content\":\"And then?\"}");
    mr_chat_request q = forwarded(f, "h1");
    assert_true(q.sampling.temperature == 1.5);
    assert_false(MR_HAS(&q.sampling, MR_SAMPLING_TOP_P));
    assert_int_equal(q.messages.n, 2);
    assert_message(&q, 0, MR_ROLE_SYSTEM, "Sing.");
}

static void a_requests_style_counts_where_there_is_no_profile(void **state) {
    fixture *f = *state;
    set_profile(f, "anna", "casual");
    set_profile(f, "bert", NULL);
    ask(f, "i1", "\"tenant\":\"t\",\"user\":\"bert\",\"style\":\"pirate\",", "And then?");
    assert_true(forwarded(f, "i1").sampling.temperature == 1.1);
    ask(f, "i2", "\"style\":\"pirate\",", "And then?");
    mr_chat_request q = forwarded(f, "i2");
    assert_message(&q, 0, MR_ROLE_SYSTEM, "Answer as a pirate.");
    ask(f, "i3", "\"tenant\":\"t\",\"user\":\"anna\",\"style\":\"pirate\",", "And then?");
    assert_true(forwarded(f, "i3").sampling.temperature == 0.7);
    ask(f, "i4", "\"style\":\"unheard-of\",", "And then?");
    assert_int_equal(forwarded(f, "i4").messages.n, 1);
    assert_true(metric(f, "millrace_router_unknown_styles_total ") == 1);
}

static void a_line_of_style_is_no_part_of_the_session(void **state) {
    fixture *f = *state;
    routine(f, "j1", S("j", "1001") "\"style\":\"formal\",", "How do I pay?");
    ask(f, "j2", S("j", "1002"), "And then?");
    mr_chat_request q = forwarded(f, "j2");
    assert_int_equal(q.messages.n, 3);
    assert_message(&q, 0, MR_ROLE_USER, "How do I pay?");
}

/* ---- without Redis ---- */

static void without_redis_answers_go_on_without_history(void **state) {
    fixture *f = *state;
    routine(f, "z1", S("z", "1001"), "How do I pay?");
    test_redis_stop(redis);
    redis = NULL;
    ask(f, "z2", S("z", "1002") "\"user\":\"anna\",", "And then?"); /* the loss may not be known yet */
    assert_int_equal(forwarded(f, "z2").messages.n, 1);
    assert_true(test_wait(f->loop, WAIT_MS, redis_is_away, f));
    ask(f, "z3", S("z", "1003") "\"user\":\"anna\",", "And then?");
    mr_chat_request q = forwarded(f, "z3");
    assert_int_equal(q.messages.n, 1);
    assert_message(&q, 0, MR_ROLE_USER, "And then?");
    routine(f, "z4", S("z", "1004"), "How do I pay?");
    assert_true(metric(f, "millrace_router_sessions_total{found=\"away\"} ") == 3);
}

static void a_style_that_is_none_is_said_at_once(void **state) {
    static const char *const bad[] = {"", "name", "name|hot|0.9|x", "name|0.3|7|x", "|0.3|0.9|x", "a|0.3"};
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        mr_styles s;
        mr_error err;
        assert_int_equal(mr_styles_read(&s, &(mr_strlist){(const char **)&bad[i], 1}, &err), -1);
        assert_non_null(strstr(err.msg, "router.styles"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_that_comes_alone_gets_its_sessions_last_turns),
        cmocka_unit_test(sessions_of_other_names_and_tenants_are_not_mixed),
        cmocka_unit_test(who_sends_its_own_history_keeps_it),
        cmocka_unit_test(the_newest_turns_come_first_into_the_budget),
        cmocka_unit_test(the_sessions_system_message_is_kept_and_a_new_one_takes_its_place),
        cmocka_unit_test(a_request_that_comes_again_leaves_one_turn),
        cmocka_unit_test(a_users_profile_sets_sampling_and_a_line_for_the_model),
        cmocka_unit_test(what_the_request_says_itself_wins),
        cmocka_unit_test(a_requests_style_counts_where_there_is_no_profile),
        cmocka_unit_test(a_line_of_style_is_no_part_of_the_session),
        cmocka_unit_test(a_style_that_is_none_is_said_at_once),
        cmocka_unit_test(without_redis_answers_go_on_without_history), /* the last: Redis is gone after it */
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}

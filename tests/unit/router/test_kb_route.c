/* What the router makes of the knowledge base: answers with placeholders and lists, and context for the model. */
#include "fixture.h"

#include "router/kb_import.h"
#include "schemas/estimate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char kb[] =
    "When will my parcel come?\tIn two days, {user|dear customer}.\t\tparcel\treturns,pay\n"
    "How do I send my parcel back?\tWith the label in it.\t\treturns\n"
    "How do I pay?\tBy card; {{ is a brace, today is {date}.\t\tpay\n"
    "How do I change the size of an ordered blue coat?\tAsk the shop for the coat.\t\tcoat\n"
    "How do I change the colour of an ordered blue coat?\tAsk the painter for the coat.\t\tpaint\n";

/* An answer of so many zeros. */
#define LONG 3000

static fixture fix;

static int open_fixture(void **state) {
    static char text[sizeof(kb) + 4000];
    fixture_init(&fix);
    snprintf(text, sizeof(text), "%sHow do I wash the red hat of my aunt?\t%0*d\n", kb, LONG, 0);
    fixture_kb(&fix, text);
    fixture_start(&fix);
    *state = &fix;
    return 0;
}

static int close_fixture(void **state) {
    fixture_done(*state);
    return 0;
}

/* The settings are the test's own, but only until its end. */
static int reset_settings(void **state) {
    fixture *f = *state;
    f->conf.kb_context = 3;
    f->conf.kb_context_tokens = 200;
    f->conf.kb_threshold = 0.7;
    return 0;
}

/* `more` are members of the request, each with a comma behind; `earlier` messages likewise. */
static void ask_with(fixture *f, const char *id, const char *more, const char *earlier,
                     const char *question) {
    char json[4000];
    snprintf(json, sizeof(json),
             "{\"v\":1,\"id\":\"%s\",%s\"messages\":[%s{\"role\":\"user\",\"content\":\"%s\"}]}", id, more,
             earlier, question);
    send_json(f, id, json);
}

static void assert_answers(fixture *f, const char *id, const char *text) {
    assert_int_equal(wait_end(f, id).source, MR_SOURCE_KB);
    mr_str answer = answer_text(f, id);
    if (!mr_str_eqz(answer, text)) fail_msg("%s: '%.*s'", id, MR_FMT(answer));
}

/* ---- answers ---- */

static void placeholders_are_filled_in_from_the_request(void **state) {
    fixture *f = *state;
    char date[40], expected[100];
    time_t now = time(NULL);
    ask_with(f, "named", "\"user\":\"Ann\",", "", "when will my parcel come");
    ask_with(f, "nameless", "", "", "when will my parcel come");
    ask_with(f, "date", "", "", "how do I pay");
    assert_answers(f, "named",
                   "In two days, Ann.\n\nSee also:\n1. How do I send my parcel back?\n2. How do I pay?");
    assert_answers(f, "nameless",
                   "In two days, dear customer.\n\nSee also:\n1. How do I send my parcel "
                   "back?\n2. How do I pay?");
    strftime(date, sizeof(date), "%Y-%m-%d", localtime(&now));
    snprintf(expected, sizeof(expected), "By card; { is a brace, today is %s.", date);
    assert_answers(f, "date", expected);
}

#define LISTED                                                                                               \
    "{\"role\":\"user\",\"content\":\"When will it come?\"},{\"role\":\"assistant\",\"content\":\"In two "   \
    "days.\\n\\n1. How do I send my parcel back?\\n2. Who was Cleopatra?\"},"

static void a_number_of_the_list_is_answered(void **state) {
    fixture *f = *state;
    ask_with(f, "one", "", LISTED, "1");
    assert_answers(f, "one", "With the label in it.");
    ask_with(f, "first", "", LISTED, "第一个");
    assert_answers(f, "first", "With the label in it.");
}

static void the_title_itself_is_answered(void **state) {
    fixture *f = *state;
    ask_with(f, "title", "", LISTED, "How do I send my parcel back?");
    assert_answers(f, "title", "With the label in it.");
}

static void a_number_that_means_no_entry_is_the_models(void **state) {
    fixture *f = *state;
    ask_with(f, "two", "", LISTED, "2"); /* the model's own list, as far as the base knows */
    wait_record(f, BLUE, "two");
    ask_with(f, "three", "", LISTED, "3");
    wait_record(f, BLUE, "three");
    ask_with(f, "alone", "", "", "1");
    wait_record(f, BLUE, "alone");
}

/* ---- context ---- */

/* The message before the last one of what went to the model, or NULL where that is no context. */
static const mr_chat_message *context_of(fixture *f, const char *id, mr_chat_request *q) {
    *q = read_request(f, wait_record(f, BLUE, id));
    if (q->messages.n < 2) return NULL;
    const mr_chat_message *m = &q->messages.v[q->messages.n - 2];
    return m->role == MR_ROLE_SYSTEM ? m : NULL;
}

static void assert_contains(mr_str text, const char *needle, bool expected) {
    if ((memmem(text.p, text.n, needle, strlen(needle)) != NULL) != expected)
        fail_msg("'%s' is %s: %.*s", needle, expected ? "missing" : "there", MR_FMT(text));
}

#define EARLIER "{\"role\":\"user\",\"content\":\"Hello\"},{\"role\":\"assistant\",\"content\":\"Hello!\"},"

static void what_is_not_sure_goes_to_the_model_with_the_best_entries(void **state) {
    fixture *f = *state;
    mr_chat_request q;
    double before = metric(f, "millrace_router_kb_context_total ");
    ask_with(f, "coat", "", EARLIER, "How do I change an ordered blue coat?");
    const mr_chat_message *m = context_of(f, "coat", &q);
    assert_non_null(m);
    assert_int_equal(q.messages.n, 4);
    assert_int_equal(q.messages.v[0].role, MR_ROLE_USER); /* the conversation begins as it did */
    assert_true(mr_str_eqz(q.messages.v[3].content, "How do I change an ordered blue coat?"));
    assert_contains(m->content, "Entries of the knowledge base", true);
    assert_contains(m->content, "## How do I change the size of an ordered blue coat?\nAsk the shop", true);
    assert_contains(m->content, "Ask the painter for the coat.", true);
    assert_contains(m->content, "parcel", false);
    assert_true(metric(f, "millrace_router_kb_context_total ") == before + 1);
}

static void what_has_nothing_to_do_with_it_goes_alone(void **state) {
    fixture *f = *state;
    mr_chat_request q;
    ask_with(f, "poem", "", "", "Write some verses about spring rain");
    assert_null(context_of(f, "poem", &q));
    assert_int_equal(q.messages.n, 1);
}

static void the_context_keeps_to_its_number_and_its_tokens(void **state) {
    fixture *f = *state;
    mr_chat_request q;
    f->conf.kb_context = 1;
    ask_with(f, "one-entry", "", "", "How do I change an ordered blue coat?");
    const mr_chat_message *m = context_of(f, "one-entry", &q);
    assert_non_null(m);
    bool shop = memmem(m->content.p, m->content.n, "shop", 4),
         painter = memmem(m->content.p, m->content.n, "painter", 7);
    assert_true(shop != painter);
    f->conf.kb_context = 3;
    f->conf.kb_context_tokens = mr_text_tokens(m->content) + 3; /* one fits, two do not */
    ask_with(f, "few-tokens", "", "", "How do I change an ordered blue coat?");
    m = context_of(f, "few-tokens", &q);
    assert_non_null(m);
    assert_true(mr_text_tokens(m->content) <= f->conf.kb_context_tokens);
    f->conf.kb_context_tokens = 30;
    ask_with(f, "no-tokens", "", "", "How do I change an ordered blue coat?");
    assert_null(context_of(f, "no-tokens", &q));
}

static void the_context_can_be_switched_off(void **state) {
    fixture *f = *state;
    mr_chat_request q;
    f->conf.kb_context = 0;
    ask_with(f, "off", "", "", "How do I change an ordered blue coat?");
    assert_null(context_of(f, "off", &q));
    assert_int_equal(q.messages.n, 1);
}

static void titles_and_tool_calls_get_no_context(void **state) {
    fixture *f = *state;
    mr_chat_request q;
    ask_with(f, "purpose", "\"purpose\":\"title\",", "", "How do I change an ordered blue coat?");
    assert_null(context_of(f, "purpose", &q));
    ask_with(f, "tools", "\"tools\":[{\"name\":\"look\"}],", "", "How do I change an ordered blue coat?");
    assert_null(context_of(f, "tools", &q));
}

/* A conversation that only just fits a record is not refused for the sake of the context. */
static void a_large_conversation_goes_without_context_rather_than_not(void **state) {
    fixture *f = *state;
    mr_chat_request q;
    mr_buf json;
    f->conf.kb_context_tokens = 2 * LONG;
    f->conf.kb_threshold = 1;
    ask_with(f, "small", "", "", "How do I wash a red hat?");
    assert_non_null(context_of(f, "small", &q));
    size_t room = (size_t)f->kafka_conf.message_max;
    mr_buf_init(&json, 2 * room);
    mr_buf_puts(&json, "{\"v\":1,\"id\":\"large\",\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (size_t i = 0; i < room - 2000; i++) mr_buf_put(&json, "x", 1);
    mr_buf_puts(&json, "\"},{\"role\":\"assistant\",\"content\":\"y\"},{\"role\":\"user\",\"content\":\"How "
                       "do I wash a red hat?\"}]}");
    send_record(f, MR_TOPIC_REQUESTS, MR_STR("large"), mr_buf_str(&json), NULL, 0);
    mr_buf_done(&json);
    assert_null(context_of(f, "large", &q));
    assert_int_equal(q.messages.n, 3);
}

/* ---- hot reload ---- */

static bool has_one_entry(void *arg) {
    return metric(arg, "millrace_router_kb_entries ") == 1;
}

static void a_new_import_is_answered_from_without_a_restart(void **state) {
    fixture *f = *state;
    fixture_kb(f, "What is new?\tThis.\n");
    if (!test_wait(f->loop, WAIT_MS, has_one_entry, f)) fail_msg("the new file was not taken");
    ask_with(f, "new", "", "", "what is new");
    assert_answers(f, "new", "This.");
}

#define ROUTE_TEST(t) cmocka_unit_test_setup_teardown(t, NULL, reset_settings)

int main(void) {
    const struct CMUnitTest tests[] = {
        ROUTE_TEST(placeholders_are_filled_in_from_the_request),
        ROUTE_TEST(a_number_of_the_list_is_answered),
        ROUTE_TEST(the_title_itself_is_answered),
        ROUTE_TEST(a_number_that_means_no_entry_is_the_models),
        ROUTE_TEST(what_is_not_sure_goes_to_the_model_with_the_best_entries),
        ROUTE_TEST(what_has_nothing_to_do_with_it_goes_alone),
        ROUTE_TEST(the_context_keeps_to_its_number_and_its_tokens),
        ROUTE_TEST(the_context_can_be_switched_off),
        ROUTE_TEST(titles_and_tool_calls_get_no_context),
        ROUTE_TEST(a_large_conversation_goes_without_context_rather_than_not),
        ROUTE_TEST(a_new_import_is_answered_from_without_a_restart),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}

/* The gateway's share of protection: what clients, workers and the audit see of it. */
#include "fixture.h"

#include "guard/words.h"
#include "schemas/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CHAT "/v1/chat/completions"
#define BODY(options, text)                                                                                  \
    "{\"model\":\"small\"," options "\"messages\":[{\"role\":\"user\",\"content\":\"" text "\"}]}"
#define STREAM(text) BODY("\"stream\":true,\"stream_options\":{\"include_usage\":true},", text)
#define WHOLE(text)  BODY("", text)

static char folder[64], path[100];
static const char *lists[] = {path};

static void write_list(const char *text) {
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

static int start(void **state, const char *answers, const char *personal, const char *label) {
    fixture *f = calloc(1, sizeof(*f));
    test_folder_init(folder);
    snprintf(path, sizeof(path), "%s/words.tsv", folder);
    write_list("badword\tblock\tabuse\ncasino\treplace\tgambling\nodd\tflag\nbadword list\tallow\n");
    fixture_init(f);
    f->conf.guard_lists = (mr_strlist){lists, 1};
    f->conf.guard_answers = answers;
    f->conf.guard_personal = personal;
    f->conf.ai_label = label;
    fixture_start(f);
    *state = f;
    return 0;
}

static int stopping(void **state) {
    return start(state, "stop", "mask", "");
}
static int replacing(void **state) {
    return start(state, "replace", "off", "");
}
static int labelling(void **state) {
    return start(state, "off", "off", "Written by AI.");
}

static int stop(void **state) {
    fixture_done(*state);
    free(*state);
    test_folder_done(folder);
    return 0;
}

static client *ask(fixture *f, const char *body, const mr_chat_request **r) {
    int n = f->nrequests;
    client *c = client_open(f);
    client_post(c, CHAT, body);
    *r = worker_request(f, n);
    return c;
}

static void expect_content(client *c, const char *want) {
    char *got = client_content(c);
    assert_string_equal(got, want);
    free(got);
}

static void assert_text(mr_str s, const char *z) {
    if (!mr_str_eqz(s, z)) fail_msg("'%.*s' is not '%s'", MR_FMT(s), z);
}

static const mr_audit *expect_audit(fixture *f, mr_str request, int layer, const char *action,
                                    const char *rule) {
    const mr_audit *a = wait_audit(f, 0, request, rule);
    assert_int_equal(a->layer, layer);
    assert_string_equal(mr_guard_action_names[a->action], action);
    return a;
}

static void resume_get(client *c, const mr_chat_request *r, const char *at, const char *query) {
    char head[500];
    snprintf(head, sizeof(head),
             "GET /v1/chat/completions/%.*s%s HTTP/1.1\r\nHost: x\r\n" KEY_HEADER "Last-Event-ID: %s\r\n\r\n",
             MR_FMT(r->id), query, at);
    client_send(c, head);
}

/* ---- answers ---- */

static const char blocked[] = "Well, you b-a-d-w-o-r-d and so on, for a long time.";
static const char before[] = "Well, you ";

static void a_word_that_blocks_ends_the_answer_in_front_of_it(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("stop"), &r);
    for (size_t i = 0; i < sizeof(blocked) - 1; i++) worker_delta(f, r, blocked, i, i + 1);
    worker_sees_cancel(f, r);
    worker_end_as(f, r, blocked, MR_SOURCE_MODEL, MR_FINISH_CANCELLED);
    client_expect(c, "[DONE]");
    expect_content(c, before);
    assert_true(client_has(c, "\"finish_reason\":\"content_filter\""));
    assert_true(client_has(c, "\"prompt_tokens\":11"));
    const mr_audit *a = expect_audit(f, r->id, MR_LAYER_OUTPUT, "block", "words.tsv:1");
    assert_text(a->category, "abuse");
    assert_false(MR_HAS(a, MR_AUDIT_TEXT));
    assert_true(metric(f, "millrace_gateway_cancels_total{reason=\"content_filter\"} ") > 0);
    assert_true(metric(f, "millrace_gateway_guard_hits_total{layer=\"output\",category=\"abuse\","
                          "action=\"block\"} ") > 0);
    client_close(c);
}

static void an_answer_in_one_piece_is_stopped_as_well(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, WHOLE("stop"), &r);
    worker_answer(f, r, blocked);
    client_expect(c, "chat.completion\"");
    assert_true(client_has(c, "\"content\":\"Well, you \""));
    assert_true(client_has(c, "\"finish_reason\":\"content_filter\""));
    client_close(c);
}

static void a_stopped_answer_ends_though_its_worker_says_no_more(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("silent"), &r);
    worker_delta(f, r, blocked, 0, sizeof(blocked) - 1);
    client_expect(c, "[DONE]");
    assert_true(client_has(c, "\"completion_tokens\":1,"));
    client_close(c);
}

static void words_are_replaced_across_the_borders_of_deltas(void **state) {
    static const char text[] = "To the CASINO, said the odd man. Casi\xE2\x80\x8Bno!";
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("replace"), &r);
    worker_delta(f, r, text, 0, 9);
    worker_delta(f, r, text, 9, 20);
    worker_delta(f, r, text, 20, sizeof(text) - 1);
    worker_end(f, r, text);
    client_expect(c, "[DONE]");
    expect_content(c, "To the ***, said the odd man. ***!");
    assert_true(client_has(c, "\"finish_reason\":\"stop\""));
    client_close(c);
}

static void reasoning_is_filtered_on_its_own(void **state) {
    static const char text[] = "think casino, hmthe answer is casino";
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("reasoning"), &r);
    worker_delta_as(f, r, MR_CHANNEL_REASONING, 1, text, 0, 8);
    worker_delta_as(f, r, MR_CHANNEL_REASONING, 1, text, 8, 16);
    worker_delta(f, r, text, 16, sizeof(text) - 1);
    worker_end(f, r, text);
    client_expect(c, "[DONE]");
    assert_true(client_has(c, "\"reasoning_content\":"));
    assert_true(client_has(c, "***, hm"));
    assert_false(client_has(c, "casino"));
    expect_content(c, "the answer is ***");
    client_close(c);
}

static void an_allowed_phrase_goes_out(void **state) {
    static const char text[] = "See the badword list of the house, page seven.";
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("allowed"), &r);
    worker_answer(f, r, text);
    client_expect(c, "[DONE]");
    expect_content(c, text);
    client_close(c);
}

static void who_goes_on_with_an_answer_gets_the_same(void **state) {
    static const char text[] = "First the casino, then the badword, and more.";
    fixture *f = *state;
    const mr_chat_request *r;
    char id[40], *got, *rest;
    client *c = ask(f, STREAM("resumed"), &r), *whole = client_open(f), *json = client_open(f);
    worker_answer(f, r, text);
    client_expect(c, "[DONE]");
    expect_content(c, "First the ***, then the ");
    resume_get(whole, r, "0", "");
    client_expect(whole, "[DONE]");
    expect_content(whole, "First the ***, then the ");
    assert_true(client_has(whole, "content_filter"));
    resume_get(json, r, "0", "?stream=false");
    client_expect(json, "\"content\":\"First the ***, then the \"");
    for (size_t at = 1; at < 27; at += 5) { /* the ids that events have, and others */
        client *d = client_open(f);
        snprintf(id, sizeof(id), "%zu", at);
        resume_get(d, r, id, "");
        client_expect(d, "[DONE]");
        rest = client_content(d);
        got = "First the ***, then the ";
        assert_string_equal(rest, at < 10 ? got + at : at < 16 ? got + 10 : got + at - 3);
        free(rest);
        client_close(d);
    }
    client_close(c);
    client_close(whole);
    client_close(json);
}

static void an_answer_that_is_generated_again_is_filtered_as_one(void **state) {
    static const char text[] = "We go to the casino by the river and on.";
    static const char other[] = "We go to the cinema by the river and on.";
    fixture *f = *state;
    const mr_chat_request *r, *again;
    client *c = ask(f, STREAM("again"), &r);
    int n = f->nrequests;
    worker_tokens(f, r, 1, text, 0, 15);
    worker_tokens(f, r, 2, other, 0, 18);
    again = worker_request(f, n);
    worker_tokens(f, again, 1, text, 15, sizeof(text) - 1);
    worker_end(f, again, text);
    client_expect(c, "[DONE]");
    expect_content(c, "We go to the *** by the river and on.");
    client_close(c);
}

static void log_probabilities_are_refused_where_answers_are_filtered(void **state) {
    fixture *f = *state;
    client *c = client_open(f);
    client_post(c, CHAT, BODY("\"logprobs\":true,", "x"));
    client_expect(c, "answers are filtered");
    assert_true(client_has(c, "400"));
    client_close(c);
}

/* ---- requests ---- */

static void personal_data_is_masked_before_a_request_is_stored(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("call 13800138000 about the casino"), &r);
    assert_text(r->messages.v[0].content, "call [phone] about the ***");
    expect_audit(f, r->id, MR_LAYER_INPUT, "replace", "words.tsv:2");
    expect_audit(f, r->id, MR_LAYER_INPUT, "mask", "phone");
    worker_answer(f, r, "yes");
    client_expect(c, "[DONE]");
    client_close(c);
}

static void a_blocked_request_is_answered_and_never_stored(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    int stored = f->nrequests;
    client *c = client_open(f), *d = client_open(f);
    client_post(c, CHAT, STREAM("you badword"));
    client_expect(c, "[DONE]");
    expect_content(c, "I cannot help with this.");
    assert_true(client_has(c, "\"finish_reason\":\"content_filter\""));
    assert_true(client_has(c, "\"source\":\"guard\""));
    client_post(d, CHAT, BODY("\"n\":2,", "you badword"));
    client_expect(d, "\"index\":1");
    assert_true(client_has(d, "I cannot help with this."));
    client *after = ask(f, STREAM("after"), &r);
    assert_int_equal(f->nrequests, stored + 1);
    worker_answer(f, r, "yes");
    client_close(c);
    client_close(d);
    client_close(after);
}

static bool has_feedback(void *arg) {
    return ((fixture *)arg)->nfeedback > 0;
}

static void a_comment_is_masked_before_it_is_stored(void **state) {
    fixture *f = *state;
    client *c = client_open(f);
    client_post(c, "/v1/feedback",
                "{\"request\":\"chatcmpl-1\",\"rating\":-1,\"comment\":\"ring 13800138000, badword\"}");
    assert_true(test_wait(f->loop, WAIT_MS, has_feedback, f));
    assert_text(f->feedback.comment, "ring [phone], ***");
    client_close(c);
}

/* ---- lists ---- */

static void a_changed_list_is_used_without_a_restart(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    bool replaced = false;
    write_list("novelty\treplace\n");
    while (!replaced) {
        client *c = ask(f, STREAM("anything"), &r);
        worker_answer(f, r, "what a novelty it is");
        client_expect(c, "[DONE]");
        char *got = client_content(c);
        replaced = strcmp(got, "what a *** it is") == 0;
        if (!replaced) assert_string_equal(got, "what a novelty it is");
        free(got);
        client_close(c);
        test_idle(f->loop, 50);
    }
}

static void words_that_block_are_replaced_where_answers_go_on(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("go on"), &r);
    worker_answer(f, r, blocked);
    client_expect(c, "[DONE]");
    expect_content(c, "Well, you *** and so on, for a long time.");
    assert_true(client_has(c, "\"finish_reason\":\"stop\""));
    client_close(c);
}

/* ---- access ---- */

static void refused_access_is_put_on_record(void **state) {
    fixture *f = *state;
    client *c = client_open(f);
    for (int i = 0; i < 3; i++) {
        client_send(c, "GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\n\r\n");
        client_expect(c, "invalid_api_key");
        client_forget(c);
    }
    int64_t count = 0;
    for (int from = 0; count < 3;) {
        const mr_audit *a = wait_audit(f, from, MR_STR(""), "invalid_api_key");
        assert_int_equal(a->layer, MR_LAYER_ACCESS);
        assert_text(a->category, "key");
        count += a->count;
        from = (int)(a - f->audits) + 1;
    }
    assert_int_equal(count, 3);
    client_close(c);
}

/* ---- the label ---- */

static void what_the_model_wrote_is_labelled(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("label"), &r), *kb, *whole, *form;
    worker_delta(f, r, "badword", 0, 7); /* answers are not filtered here */
    worker_end_as(f, r, "badword", MR_SOURCE_MODEL, MR_FINISH_STOP);
    client_expect(c, "[DONE]");
    expect_content(c, "badword\n\nWritten by AI.");
    assert_true(client_has(c, "\"millrace\":{\"source\":\"model\",\"ai_generated\":true}"));
    whole = ask(f, WHOLE("label"), &r);
    worker_delta(f, r, "yes", 0, 3);
    worker_end_as(f, r, "yes", MR_SOURCE_MODEL, MR_FINISH_STOP);
    client_expect(whole, "\"content\":\"yes\\n\\nWritten by AI.\"");
    kb = ask(f, STREAM("kb"), &r);
    worker_answer(f, r, "yes");
    client_expect(kb, "[DONE]");
    expect_content(kb, "yes");
    form = ask(f, BODY("\"response_format\":{\"type\":\"json_object\"},", "json"), &r);
    worker_delta(f, r, "{}", 0, 2);
    worker_end_as(f, r, "{}", MR_SOURCE_MODEL, MR_FINISH_STOP);
    client_expect(form, "\"content\":\"{}\"");
    client_expect(form, "\"ai_generated\":true");
    client_close(c);
    client_close(whole);
    client_close(kb);
    client_close(form);
}

int main(void) {
    const struct CMUnitTest stops[] = {
        cmocka_unit_test(a_word_that_blocks_ends_the_answer_in_front_of_it),
        cmocka_unit_test(an_answer_in_one_piece_is_stopped_as_well),
        cmocka_unit_test(a_stopped_answer_ends_though_its_worker_says_no_more),
        cmocka_unit_test(words_are_replaced_across_the_borders_of_deltas),
        cmocka_unit_test(reasoning_is_filtered_on_its_own),
        cmocka_unit_test(an_allowed_phrase_goes_out),
        cmocka_unit_test(who_goes_on_with_an_answer_gets_the_same),
        cmocka_unit_test(an_answer_that_is_generated_again_is_filtered_as_one),
        cmocka_unit_test(log_probabilities_are_refused_where_answers_are_filtered),
        cmocka_unit_test(personal_data_is_masked_before_a_request_is_stored),
        cmocka_unit_test(a_blocked_request_is_answered_and_never_stored),
        cmocka_unit_test(a_comment_is_masked_before_it_is_stored),
        cmocka_unit_test(refused_access_is_put_on_record),
        cmocka_unit_test(a_changed_list_is_used_without_a_restart),
    };
    const struct CMUnitTest replaces[] = {
        cmocka_unit_test(words_that_block_are_replaced_where_answers_go_on),
    };
    const struct CMUnitTest labels[] = {
        cmocka_unit_test(what_the_model_wrote_is_labelled),
    };
    int failed = cmocka_run_group_tests_name("gateway_protection: stop", stops, stopping, stop);
    failed += cmocka_run_group_tests_name("gateway_protection: replace", replaces, replacing, stop);
    return failed + cmocka_run_group_tests_name("gateway_protection: label", labels, labelling, stop);
}

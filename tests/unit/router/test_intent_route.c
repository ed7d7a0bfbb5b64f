/* The router with a model of intents: who answers which chat, and the share that it watches. */
#include "fixture.h"

#include "router/intent.h"
#include "router/intent_train.h"
#include "router/kb.h"
#include "router/share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char kb[] = "What are your opening hours?\tNine to six.\thours\n"
                         "Write me a poem, please\tRoses are red.\n";

static const char lines[] = "hours\twhat are your opening hours\nhours\twhen do you open\nhours\tuntil when "
                            "are you open\nhours\tare you open "
                            "today\nhours\topening hours please\nhours\tyour hours on sunday\n"
                            "pay\thow do I pay\npay\tcan I pay by card\npay\twhere do I pay the "
                            "bill\npay\tpay by transfer\npay\tpaying in "
                            "cash\npay\twhich cards can I pay with\n"
                            "oos\twrite me a poem\noos\twrite a poem about the sea\noos\ta poem about my "
                            "cat\noos\twrite a story\noos\twrite "
                            "some code\noos\tpoems about spring\n";

static fixture fix;
static char model[120];

static void train_model(fixture *f, const char *text) {
    static const char *const outside[] = {"oos"};
    mr_intent_train_options o = {
        .seed = 1, .outside = outside, .outside_n = 1, .share_low = 0.3, .share_high = 0.4};
    char tsv[120];
    mr_intent_data d = {0};
    mr_intent_trained trained;
    mr_error err;
    snprintf(model, sizeof model, "%s/intent.model", f->folder);
    snprintf(tsv, sizeof tsv, "%s/intents.tsv", f->folder);
    FILE *out = fopen(tsv, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
    if (mr_intent_data_read(&d, tsv, &err) < 0) fail_msg("%s", err.msg);
    if (mr_intent_train(&d, NULL, &o, model, &trained, &err) < 0) fail_msg("%s", err.msg);
    /* With so little data the threshold is a matter of luck; here it stands between the two messages of the tests. */
    assert_int_equal(mr_intent_set_threshold(model, 0.5, 0.3, 0.4, &err), 0);
    mr_intent_data_done(&d);
}

static int open_fixture(void **state) {
    fixture_init(&fix);
    fixture_kb(&fix, kb);
    train_model(&fix, lines);
    fix.conf.kb_threshold = 0.5;
    fix.conf.intent_model = model;
    fix.conf.ai_share_min = 0.1;
    fix.conf.ai_share_max = 0.2;
    fixture_start(&fix);
    *state = &fix;
    return 0;
}

static int close_fixture(void **state) {
    fixture_done(*state);
    return 0;
}

static void ask(fixture *f, const char *id, const char *question) {
    char json[2000];
    snprintf(json, sizeof json,
             "{\"v\":1,\"id\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}", id, question);
    send_json(f, id, json);
}

static void a_routine_chat_is_answered_by_the_knowledge_base(void **state) {
    fixture *f = *state;
    ask(f, "hours", "what are the opening hours");
    assert_int_equal(wait_end(f, "hours").source, MR_SOURCE_KB);
    assert_true(metric(f, "millrace_router_intent_total{guess=\"routine\"}") >= 1);
}

static void another_wording_of_an_intent_is_answered_by_its_entry(void **state) {
    fixture *f = *state;
    ask(f, "wording", "until when are you open");
    assert_int_equal(wait_end(f, "wording").source, MR_SOURCE_KB);
    assert_true(mr_str_eqz(answer_text(f, "wording"), "Nine to six."));
}

static void a_routine_chat_without_an_entry_is_the_models(void **state) {
    fixture *f = *state;
    ask(f, "pay", "how do I pay");
    wait_record(f, BLUE, "pay");
}

static void a_chat_out_of_scope_is_the_models_though_an_entry_is_near(void **state) {
    fixture *f = *state;
    ask(f, "poem", "write me a poem");
    wait_record(f, BLUE, "poem");
    assert_true(metric(f, "millrace_router_intent_total{guess=\"ai\"}") >= 1);
}

static void an_entry_in_the_very_words_answers_whatever_the_intent(void **state) {
    fixture *f = *state;
    ask(f, "exact", "Write me a poem, please");
    assert_int_equal(wait_end(f, "exact").source, MR_SOURCE_KB);
}

static bool is_stricter(void *arg) {
    return metric(arg, "millrace_router_intent_threshold_ratio ") > 0.9;
}

static bool is_as_before(void *arg) {
    return metric(arg, "millrace_router_intent_threshold_ratio ") == 0.5;
}

static void a_new_model_is_taken_without_a_restart(void **state) {
    fixture *f = *state;
    mr_error err;
    assert_true(is_as_before(f));
    assert_int_equal(mr_intent_set_threshold(model, 0.9999, 0.3, 0.4, &err), 0);
    if (!test_wait(f->loop, WAIT_MS, is_stricter, f)) fail_msg("the new model was not taken");
    ask(f, "strict", "what are the opening hours");
    wait_record(f, BLUE, "strict");
    assert_int_equal(mr_intent_set_threshold(model, 0.5, 0.3, 0.4, &err), 0);
    if (!test_wait(f->loop, WAIT_MS, is_as_before, f)) fail_msg("the old model was not taken again");
}

static bool has_left_the_band(void *arg) {
    return metric(arg, "millrace_router_ai_share_out_of_band ") == 1;
}

/* What the base holds for the probability of the intent of the opening hours, against what the model does. */
static void assert_believed(mr_kb *base, mr_intent *in) {
    const mr_str question = MR_STR("until when are you open");
    mr_kb_hit hit;
    mr_intent_guess g;
    mr_error err;
    assert_int_equal(mr_intent_classify(in, question, &g, &err), 0);
    assert_int_equal(mr_kb_search(base, question, in, &hit, 1, &err), 1);
    assert_true(mr_str_eqz(hit.answer, "Nine to six."));
    int number = mr_intent_label_number(in, MR_STR("hours"));
    assert_true(number >= 0 && hit.evidence.label == mr_intent_label_probability(in, number));
}

static void the_base_believes_the_model_whose_labels_have_other_numbers(void **state) {
    fixture *f = *state;
    char other[sizeof lines + 100] = "oos\twrite me a limerick\n";
    mr_error err;
    mr_kb *base = mr_kb_open(f->conf.kb, &err);
    mr_intent *in = mr_intent_open(model, &err);
    assert_non_null(base);
    assert_non_null(in);
    for (int i = 0; i < 2; i++) assert_believed(base, in);
    int before = mr_intent_label_number(in, MR_STR("hours"));
    strcat(other, lines);
    train_model(f, other);
    assert_int_equal(mr_intent_refresh(in, &err), 1);
    assert_int_not_equal(mr_intent_label_number(in, MR_STR("hours")), before);
    for (int i = 0; i < 2; i++) assert_believed(base, in);
    mr_intent_close(in);
    mr_kb_close(base);
}

static void a_share_out_of_its_band_is_shown(void **state) {
    fixture *f = *state;
    char id[20];
    assert_true(metric(f, "millrace_router_ai_share_out_of_band ") == 0);
    for (int i = 0; i < MR_SHARE_ENOUGH; i++) {
        snprintf(id, sizeof id, "band-%d", i);
        ask(f, id, "write me a poem");
    }
    if (!test_wait(f->loop, WAIT_MS, has_left_the_band, f))
        fail_msg("the share is not said to be out of its band");
    assert_true(metric(f, "millrace_router_ai_share_ratio ") > 0.9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_routine_chat_is_answered_by_the_knowledge_base),
        cmocka_unit_test(another_wording_of_an_intent_is_answered_by_its_entry),
        cmocka_unit_test(a_routine_chat_without_an_entry_is_the_models),
        cmocka_unit_test(a_chat_out_of_scope_is_the_models_though_an_entry_is_near),
        cmocka_unit_test(an_entry_in_the_very_words_answers_whatever_the_intent),
        cmocka_unit_test(a_new_model_is_taken_without_a_restart),
        cmocka_unit_test(a_share_out_of_its_band_is_shown),
        cmocka_unit_test(the_base_believes_the_model_whose_labels_have_other_numbers),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}

/* `millrace learn` as an operator meets it: what is gathered of a period, what is promoted and what is not, versions, exit
 * statuses. The messages are few and clear, so that more of them make a better model. */
#include "world.h"

#include "ops/learn/retrain.h"
#include "router/intent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define BEGIN  INT64_C(1767225600000) /* 2026-01-01 */
#define DAY(n) (BEGIN + (n)*DAY_MS)

static const char *program;

/* Every intent has words of its own, of which the base data knows two and the traffic all. */
static const char *const intents[] = {"card", "rent", "mail", "food"};
static const char *const words[][8] = {
    {"card", "visa", "plastic", "chip", "pin", "terminal", "contactless", "issuer"},
    {"rent", "flat", "landlord", "lease", "deposit", "tenant", "heating", "stairs"},
    {"mail", "letter", "stamp", "parcel", "postman", "envelope", "courier", "mailbox"},
    {"food", "soup", "bread", "dinner", "recipe", "kitchen", "oven", "breakfast"},
};
static const char *const frames[] = {"please help me with the %s", "what about my %s today",
                                     "I have a question on %s", "the %s is a problem",
                                     "can you tell me of the %s"};
static const char *const poems[] = {"write a poem on autumn",    "compose verses for a wedding",
                                    "invent a story of dragons", "draft a speech on peace",
                                    "sing about mountains",      "imagine a dialogue of two stars"};

/* Lines of the words from..to (exclusive) of each intent. */
static void write_data(const char *path, int from, int to, int frames_n, bool poems_too) {
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    for (int i = 0; i < 4; i++) {
        for (int k = from; k < to; k++) {
            for (int f = 0; f < frames_n; f++) {
                fprintf(out, "%s\t", intents[i]);
                fprintf(out, frames[f], words[i][k]);
                fputc('\n', out);
            }
        }
    }
    for (int i = 0; poems_too && i < 6; i++) fprintf(out, "oos\t%s\n", poems[i]);
    fclose(out);
}

static int setup(void **state) {
    static world w;
    world_init(&w, program);
    write_data(world_path(&w, "base.tsv"), 0, 2, 3, true);
    write_data(world_path(&w, "eval.tsv"), 0, 8, 1, true); /* its frame is not in the traffic */
    if (RUN(&w, "intent", "train", world_path(&w, "base.tsv"), "-o", w.model) != 0) fail_msg("%s", w.text);
    *state = &w;
    return 0;
}

static int teardown(void **state) {
    world_done(*state);
    return 0;
}

/* With the flags that every run needs, and up to four more. */
static int learn(world *w, const char *a, const char *b, const char *c, const char *d) {
    char train[220], eval[220], model[140];
    snprintf(train, sizeof(train), "--train=%s", world_path(w, "base.tsv"));
    snprintf(eval, sizeof(eval), "--eval=%s", world_path(w, "eval.tsv"));
    snprintf(model, sizeof(model), "--model=%s", w->model);
    const char *args[] = {"learn", train, eval, model, a, b, c, d, NULL};
    return world_run(w, args);
}

/* A day of traffic: each message is said to be of its intent (`wrong`: of the next one). */
static void send_traffic(world *w, int64_t at_ms, const char *prefix, bool wrong) {
    char id[60], text[100];
    for (int i = 0; i < 4; i++) {
        for (int k = 2; k < 8; k++) {
            for (int f = 1; f < 5; f++) {
                snprintf(id, sizeof(id), "%s-%d-%d-%d", prefix, i, k, f);
                snprintf(text, sizeof(text), frames[f], words[i][k]);
                world_chat(w, id, text, at_ms);
                world_answer(w, id, "Here is the answer.", false);
                world_rate(w, id, -1, intents[wrong ? (i + 1) % 4 : i], at_ms + 1000);
            }
        }
    }
    world_settle(w);
}

static void must(world *w, int status, int expected) {
    if (status != expected) fail_msg("exit status %d, expected %d:\n%s", status, expected, w->text);
}

static char *file(world *w, const char *name) {
    char path[200];
    size_t n;
    snprintf(path, sizeof(path), "%s/%s", w->kept, name);
    char *text = world_read(path, &n);
    if (!text) fail_msg("there is no %s", path);
    return text;
}

static void expect_in(const char *text, const char *needle) {
    if (!strstr(text, needle)) fail_msg("'%s' is not in:\n%s", needle, text);
}

static void expect_not_in(const char *text, const char *needle) {
    if (strstr(text, needle)) fail_msg("'%s' is in:\n%s", needle, text);
}

static bool same_file(const char *a, const char *b) {
    size_t n, m;
    char *x = world_read(a, &n), *y = world_read(b, &m);
    bool same = x && y && n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

/* ---- what is gathered ---- */

static void without_ratings_there_is_too_little_to_learn_from(void **state) {
    world *w = *state;
    world_chat(w, "r1", "please help me with the card", DAY(1));
    world_settle(w);
    must(w, learn(w, "--from=2026-01-01", "--to=2026-01-05", NULL, NULL), 4);
    world_expect(w, "1 chats");
    world_expect(w, "Too little to learn from");
}

static void ratings_become_samples_by_what_the_model_made_of_the_message(void **state) {
    world *w = *state;
    world_chat(w, "k1", "please help me with the card", DAY(1));
    world_answer(w, "k1", "Cards are here.", true);
    world_rate(w, "k1", 1, NULL, DAY(1));
    world_chat(w, "k2", "what about my rent today", DAY(1));
    world_answer(w, "k2", "Rents are here.", true);
    world_rate(w, "k2", -1, "mail", DAY(1));
    world_chat(w, "k3", "I have a question on food", DAY(1));
    world_answer(w, "k3", "Food is here.", true);
    world_rate(w, "k3", -1, NULL, DAY(1));
    world_chat(w, "m1", "write a poem on autumn", DAY(1));
    world_answer(w, "m1", "Leaves fall.", false);
    world_rate(w, "m1", 1, "oos", DAY(1));
    world_rate(w, "nobody", 1, "card", DAY(1));
    world_chat(w, "later", "please help me with the flat", DAY(20));
    world_rate(w, "later", 1, "rent", DAY(20));
    world_settle(w);
    must(w, learn(w, "--from=2026-01-01", "--to=2026-01-05", NULL, NULL), 4);
    world_expect(
        w, "4 chats, 3 answered from the knowledge base and 1 by the model; 3 liked, 2 not; of 1 rated");
    char *samples = file(w, "samples.jsonl"), *review = file(w, "review.tsv");
    expect_in(samples,
              "\"request\":\"k1\",\"at_ms\":1767312000000,\"kind\":\"confirmed\",\"label\":\"card\"");
    expect_in(samples, "\"kind\":\"disagrees\",\"label\":\"mail\",\"guess\":\"rent\"");
    expect_in(samples, "\"label\":\"oos\"");
    expect_not_in(samples, "question on food");
    expect_not_in(samples, "later");
    expect_in(review, "food\tI have a question on food\n");
    free(samples);
    free(review);
}

static void the_last_word_on_a_request_counts_and_a_second_run_adds_nothing(void **state) {
    world *w = *state;
    world_chat(w, "r1", "what about my rent today", DAY(1));
    world_rate(w, "r1", -1, "mail", DAY(1));
    world_rate(w, "r1", -1, "food", DAY(2));
    world_chat(w, "r2", "please help me with the card", DAY(1));
    world_rate(w, "r2", 1, "card", DAY(1));
    world_rate(w, "r2", 0, NULL, DAY(2));
    world_settle(w);
    must(w, learn(w, "--from=2026-01-01", "--to=2026-01-05", NULL, NULL), 4);
    char *first = file(w, "samples.jsonl");
    expect_in(first, "\"label\":\"food\"");
    expect_not_in(first, "\"label\":\"mail\"");
    expect_not_in(first, "r2");
    must(w, learn(w, "--from=2026-01-01", "--to=2026-01-05", NULL, NULL), 4);
    char *second = file(w, "samples.jsonl");
    assert_string_equal(first, second);
    free(first);
    free(second);
}

static void personal_data_is_masked_before_anything_is_kept(void **state) {
    world *w = *state;
    world_chat(w, "r1", "my card is lost, write to jo@example.com", DAY(1));
    world_answer(w, "r1", "I write to jo@example.com.", false);
    world_rate(w, "r1", -1, "card", DAY(1));
    world_chat(w, "r2", "my card is lost, write to jo@example.com", DAY(1));
    world_answer(w, "r2", "Call the hotline.", false);
    world_rate(w, "r2", 1, "card", DAY(1));
    world_settle(w);
    must(w, learn(w, "--from=2026-01-01", "--to=2026-01-05", NULL, NULL), 4);
    world_expect(w, "1 new preference pairs");
    char *samples = file(w, "samples.jsonl"), *pairs = file(w, "preferences.jsonl");
    expect_in(samples, "write to [email]");
    expect_not_in(samples, "jo@");
    expect_in(pairs, "{\"prompt\":[{\"role\":\"user\",\"content\":\"my card is lost, write to [email]\"}],"
                     "\"chosen\":[{\"role\":\"assistant\",\"content\":\"Call the hotline.\"}],"
                     "\"rejected\":[{\"role\":\"assistant\",\"content\":\"I write to [email].\"}],"
                     "\"requests\":[\"r2\",\"r1\"]}\n");
    must(w, learn(w, "--from=2026-01-01", "--to=2026-01-05", NULL, NULL), 4);
    world_expect_not(w, "preference pairs");
    free(samples);
    free(pairs);
}

/* ---- what is promoted ---- */

static void a_better_model_is_promoted_and_a_reader_of_the_file_takes_it(void **state) {
    world *w = *state;
    mr_error err;
    mr_intent_guess g;
    mr_intent *in = mr_intent_open(w->model, &err);
    assert_non_null(in);
    send_traffic(w, DAY(1), "t", false);
    must(w, learn(w, "--from=2026-01-01", "--to=2026-01-05", "--dry-run", NULL), 0);
    world_expect(w, "It would be promoted");
    assert_int_equal(mr_intent_refresh(in, &err), 0);
    assert_int_not_equal(access(world_path(w, "intent.model.learn/samples.jsonl"), F_OK), 0);
    must(w, learn(w, "--from=2026-01-01", "--to=2026-01-05", NULL, NULL), 0);
    world_expect(w, "Promoted: version 2 is in service");
    assert_int_equal(mr_intent_refresh(in, &err), 1);
    assert_int_equal(mr_intent_classify(in, MR_STR("the heating of the stairs"), &g, &err), 0);
    assert_string_equal(g.label.p, "rent");
    mr_intent_close(in);
}

static void a_rollback_brings_back_the_very_bytes_of_the_version_before(void **state) {
    world *w = *state;
    char model[140];
    size_t n;
    char *before = world_read(w->model, &n);
    snprintf(model, sizeof(model), "--model=%s", w->model);
    must(w, RUN(w, "learn", model, "--rollback"), 1);
    world_expect(w, "no earlier one to go back to");
    send_traffic(w, DAY(1), "t", false);
    must(w, learn(w, "--from=2026-01-01", "--to=2026-01-05", NULL, NULL), 0);
    assert_true(same_file(w->model, world_path(w, "intent.model.learn/versions/0002.model")));
    must(w, RUN(w, "learn", model, "--rollback"), 0);
    world_expect(w, "Version 1 is in service again");
    size_t m;
    char *after = world_read(w->model, &m);
    assert_int_equal(n, m);
    assert_memory_equal(before, after, n);
    must(w, learn(w, "--from=2026-01-01", "--to=2026-01-05", NULL, NULL), 0);
    world_expect(w, "version 3");
    must(w, RUN(w, "learn", model, "--rollback"), 0);
    world_expect(w, "Version 1 is in service again"); /* which 3 replaced, not 2 */
    free(before);
    free(after);
}

static void wrong_labels_do_not_get_past_the_standing_set(void **state) {
    world *w = *state;
    size_t n;
    char *before = world_read(w->model, &n);
    send_traffic(w, DAY(1), "t", true);
    must(w, learn(w, "--from=2026-01-01", "--to=2026-01-05", NULL, NULL), 3);
    world_expect(w, "Not better on both: the model in service stays");
    assert_true(same_file(w->model, world_path(w, "intent.model.learn/versions/0001.model")));
    free(before);
}

/* Messages that one of the models alone gets right, beside one that both do: 3 against 0 are beyond chance, whose border is 2.85, and
 * 18 against 10 are not, whose is 8.7. */
static void a_model_is_right_less_often_only_where_chance_does_not_explain_it(void **state) {
    (void)state;
    static const struct {
        int lost, won;
        bool less;
    } cases[] = {{0, 0, false}, {2, 0, false},   {3, 0, true},   {0, 3, false},
                 {5, 5, false}, {18, 10, false}, {20, 10, true}, {10, 20, false}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        bool before[41] = {[40] = true}, after[41] = {[40] = true};
        for (int i = 0; i < cases[c].lost; i++) before[i] = true;
        for (int i = 0; i < cases[c].won; i++) after[39 - i] = true;
        assert_int_equal(mr_right_less_often(before, after, 41), cases[c].less);
    }
}

static void a_label_of_a_few_messages_is_left_out(void **state) {
    world *w = *state;
    world_chat(w, "n1", "where is the swimming pool", DAY(1));
    world_rate(w, "n1", -1, "pool", DAY(1));
    send_traffic(w, DAY(1), "t", false);
    must(w, learn(w, "--from=2026-01-01", "--to=2026-01-05", NULL, NULL), 0);
    world_expect(w, "1 new labels are left out");
}

static void what_a_person_corrected_in_the_review_is_learned(void **state) {
    world *w = *state;
    char labels[240];
    write_data(world_path(w, "review.tsv"), 2, 8, 5, false);
    snprintf(labels, sizeof(labels), "--labels=%s", world_path(w, "review.tsv"));
    must(w, learn(w, labels, "--from=2026-01-01", "--to=2026-01-05", NULL), 0);
    world_expect(w, "Promoted");
}

/* ---- reports and mistakes ---- */

static void the_report_tells_each_month(void **state) {
    world *w = *state;
    char model[140];
    snprintf(model, sizeof(model), "--model=%s", w->model);
    must(w, RUN(w, "learn", model, "--report"), 0);
    world_expect(w, "no run of millrace learn yet");
    send_traffic(w, DAY(1), "t", false);
    must(w, learn(w, "--from=2026-01-01", "--to=2026-02-01", NULL, NULL), 0);
    must(w, RUN(w, "learn", model, "--report"), 0);
    world_expect(w, "2026-01       96   100.0 %");
    world_expect(w, "version 2");
}

static void a_wrong_command_line_is_said_in_one_line(void **state) {
    world *w = *state;
    char model[140], nowhere[] = "--model=/nowhere/at/all";
    snprintf(model, sizeof(model), "--model=%s", w->model);
    must(w, RUN(w, "learn"), 2);
    must(w, RUN(w, "learn", model), 2);
    world_expect(w, "--train is needed");
    must(w, RUN(w, "learn", model, "--report", "--rollback"), 2);
    must(w, learn(w, "--form=2026-01-01", NULL, NULL, NULL), 2);
    must(w, learn(w, "--from=yesterday", NULL, NULL, NULL), 2);
    world_expect(w, "neither an offset");
    must(w, RUN(w, "learn", nowhere, "--train=a", "--eval=b"), 1);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        CASE(without_ratings_there_is_too_little_to_learn_from),
        CASE(ratings_become_samples_by_what_the_model_made_of_the_message),
        CASE(the_last_word_on_a_request_counts_and_a_second_run_adds_nothing),
        CASE(personal_data_is_masked_before_anything_is_kept),
        CASE(a_better_model_is_promoted_and_a_reader_of_the_file_takes_it),
        CASE(a_rollback_brings_back_the_very_bytes_of_the_version_before),
        CASE(wrong_labels_do_not_get_past_the_standing_set),
        cmocka_unit_test(a_model_is_right_less_often_only_where_chance_does_not_explain_it),
        CASE(a_label_of_a_few_messages_is_left_out),
        CASE(what_a_person_corrected_in_the_review_is_learned),
        CASE(the_report_tells_each_month),
        CASE(a_wrong_command_line_is_said_in_one_line),
    };
    if (argc < 2) return 99;
    program = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}

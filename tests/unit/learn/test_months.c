/* Six months of feedback on public data, through the topics and the command. Of traffic with known labels the first part is
 * the base data; the rest comes month by month. What the model in service makes of each message decides who answers it, and
 * simulated people react: some like a right answer, some say what a wrong one should have been, a few of them wrongly.
 * Each month `millrace learn` runs, and what it promotes must be better than what served before.
 *
 *     test_ops_learn_months MILLRACE TRAFFIC.tsv STANDING.tsv VALID.tsv BASE [TEST.tsv…]
 *
 * VALID: what the threshold may be chosen by. BASE: messages of the base data. With TEST files, which nobody but this program reads, accuracy on them has to rise each
 * month. Without, it is measured on the standing set; such small sets come to where chance decides, so that a later
 * month may keep its model or be right as often by better probabilities, but accuracy never falls. Without the traffic it exits with 77. It prints the table of ops/learn/README.md.
 */
#include "world.h"

#include "router/intent_eval.h"
#include "text/text_norm.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { MONTHS = 6, STEEP = 3 /* months in which even a small set has to rise */, TESTS_MAX = 4 };

static const char *const month_days[] = {"2026-01-01", "2026-02-01", "2026-03-01", "2026-04-01",
                                         "2026-05-01", "2026-06-01", "2026-07-01"};
static const int64_t month_ms[] = {1767225600000, 1769904000000, 1772323200000,
                                   1775001600000, 1777593600000, 1780272000000};

/* How people react, as shares. */
static const double LIKED = 0.7, CORRECTED = 0.8, DISLIKED = 0.1, SORTED = 0.7, MISTAKEN = 0.02;

static const char *program, *traffic_path, *standing_path, *valid_path, *tests[TESTS_MAX];
static int base_n, tests_n;

typedef struct simulation {
    world w;
    mr_intent_data traffic, test;
    int *order;
    mr_intent *model;
    uint64_t random;
    int sent, right, to_ai; /* of the month */
} simulation;

static double draw(simulation *s) {
    s->random = s->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(s->random >> 33) / 2147483648.0;
}

static const char *label_of(const simulation *s, int sample) {
    return s->traffic.labels[s->traffic.v[sample].label].p;
}

/* ---- the beginning ---- */

static void read_into(mr_intent_data *d, const char *path) {
    mr_error err;
    if (mr_intent_data_read(d, path, &err) < 0) fail_msg("%s", err.msg);
}

static void shuffle(simulation *s) {
    s->order = calloc((size_t)s->traffic.n, sizeof(*s->order));
    assert_non_null(s->order);
    for (int i = 0; i < s->traffic.n; i++) s->order[i] = i;
    for (int i = s->traffic.n - 1; i > 0; i--) {
        int j = (int)(draw(s) * (i + 1)), k = s->order[i];
        s->order[i] = s->order[j];
        s->order[j] = k;
    }
}

static void begin(simulation *s) {
    mr_error err;
    world_init(&s->w, program);
    s->random = 1;
    read_into(&s->traffic, traffic_path);
    for (int i = 0; i < tests_n; i++) read_into(&s->test, tests[i]);
    if (tests_n == 0) read_into(&s->test, standing_path);
    shuffle(s);
    FILE *out = fopen(world_path(&s->w, "base.tsv"), "w");
    assert_non_null(out);
    for (int i = 0; i < base_n; i++) {
        fprintf(out, "%s\t%.*s\n", label_of(s, s->order[i]), MR_FMT(s->traffic.v[s->order[i]].words));
    }
    fclose(out);
    if (RUN(&s->w, "intent", "train", world_path(&s->w, "base.tsv"), "--valid", valid_path, "-o",
            s->w.model) != 0) {
        fail_msg("%s", s->w.text);
    }
    s->model = mr_intent_open(s->w.model, &err);
    assert_non_null(s->model);
}

/* ---- a month ---- */

static bool is_outside(const char *label) {
    return strcmp(label, "oos") == 0;
}

/* What people say of the answer to one message, if anything. */
static void react(simulation *s, const char *id, const char *truth, bool routine, bool right, int64_t at) {
    double chance = draw(s);
    const char *label =
        draw(s) < MISTAKEN ? s->traffic.labels[(int)(draw(s) * s->traffic.labels_n)].p : truth;
    if (routine && right) {
        if (chance < LIKED) world_rate(&s->w, id, 1, NULL, at);
    } else if (routine) {
        if (chance < CORRECTED) {
            world_rate(&s->w, id, -1, label, at);
        } else if (chance < CORRECTED + DISLIKED) {
            world_rate(&s->w, id, -1, NULL, at);
        }
    } else if (chance < SORTED) {
        world_rate(&s->w, id, right, label, at);
    }
}

static void send_message(simulation *s, int sample, int month, int64_t at) {
    char id[60], answer[300];
    const char *truth = label_of(s, sample);
    mr_intent_guess g;
    mr_intent_classify_words(s->model, s->traffic.v[sample].words, &g);
    bool right = g.routine ? strcmp(g.label.p, truth) == 0 : is_outside(truth);
    snprintf(id, sizeof(id), "chat-%d-%d", month, sample);
    snprintf(answer, sizeof(answer), "About %s.", g.routine ? g.label.p : "anything");
    world_chat(&s->w, id, s->traffic.v[sample].words.p, at);
    world_answer(&s->w, id, answer, g.routine);
    react(s, id, truth, g.routine, right, at + 60000);
    s->sent++;
    s->right += right;
    s->to_ai += !g.routine;
}

static void live_through(simulation *s, int month) {
    int rest = s->traffic.n - base_n, from = base_n + rest * month / MONTHS,
        to = base_n + rest * (month + 1) / MONTHS;
    s->sent = s->right = s->to_ai = 0;
    for (int i = from; i < to; i++) send_message(s, s->order[i], month, month_ms[month] + (i - from) * 1000);
    world_settle(&s->w);
}

/* Whether a better model was promoted. */
static bool run_learn(simulation *s, int month) {
    char train[220], eval[300], valid[300], model[140], from[40], to[40];
    snprintf(train, sizeof(train), "--train=%s", world_path(&s->w, "base.tsv"));
    snprintf(eval, sizeof(eval), "--eval=%s", standing_path);
    snprintf(valid, sizeof(valid), "--valid=%s", valid_path);
    snprintf(model, sizeof(model), "--model=%s", s->w.model);
    snprintf(from, sizeof(from), "--from=%s", month_days[month]);
    snprintf(to, sizeof(to), "--to=%s", month_days[month + 1]);
    int rc = RUN(&s->w, "learn", train, eval, valid, model, from, to);
    bool must_rise = tests_n > 0 || month < STEEP;
    if (rc != 0 && (rc != 3 || must_rise)) {
        fail_msg("month %d: exit status %d:\n%s", month + 1, rc, s->w.text);
    }
    return rc == 0;
}

static mr_intent_report measure(simulation *s) {
    mr_intent_report r;
    mr_error err;
    if (mr_intent_eval(s->model, &s->test, &r, &err) < 0) fail_msg("%s", err.msg);
    return r;
}

/* On a few hundred messages a better model may be right as often, but its probabilities are nearer to the truth. */
static bool has_risen(const mr_intent_report *before, const mr_intent_report *after) {
    bool nearer = after->error < before->error;
    return after->end_to_end > before->end_to_end ||
           (tests_n == 0 && after->end_to_end == before->end_to_end && nearer);
}

static void accuracy_rises_month_by_month(void **state) {
    static simulation s;
    mr_error err;
    (void)state;
    begin(&s);
    mr_intent_report before = measure(&s);
    printf("| month | messages | right in service | AI share | right on %s, after |\n|---|---|---|---|---|\n"
           "| before | %d to train on | | | %.1f %% |\n",
           tests_n ? "the test set" : "the standing set", base_n, 100 * before.end_to_end);
    for (int month = 0; month < MONTHS; month++) {
        live_through(&s, month);
        bool better = run_learn(&s, month);
        assert_int_equal(mr_intent_refresh(s.model, &err), better);
        mr_intent_report after = measure(&s);
        printf("| %d | %d | %.1f %% | %.1f %% | %.1f %% |\n", month + 1, s.sent, 100.0 * s.right / s.sent,
               100.0 * s.to_ai / s.sent, 100 * after.end_to_end);
        fflush(stdout);
        if (better ? !has_risen(&before, &after) : after.end_to_end < before.end_to_end) {
            fail_msg("month %d: %.4f after %.4f:\n%s", month + 1, after.end_to_end, before.end_to_end,
                     s.w.text);
        }
        before = after;
    }
    char model[140];
    snprintf(model, sizeof(model), "--model=%s", s.w.model);
    assert_int_equal(RUN(&s.w, "learn", model, "--report"), 0);
    printf("\n%s", s.w.text);
    mr_intent_close(s.model);
    mr_intent_data_done(&s.traffic);
    mr_intent_data_done(&s.test);
    free(s.order);
    world_done(&s.w);
}

int main(int argc, char **argv) {
    const struct CMUnitTest all[] = {cmocka_unit_test(accuracy_rises_month_by_month)};
    if (argc < 6 || argc > 6 + TESTS_MAX) return 99;
    program = argv[1];
    traffic_path = argv[2];
    standing_path = argv[3];
    valid_path = argv[4];
    base_n = atoi(argv[5]);
    for (int i = 6; i < argc; i++) tests[tests_n++] = argv[i];
    if (access(traffic_path, R_OK) != 0) {
        printf("%s is not there: nothing to show it on\n", traffic_path);
        return 77;
    }
    return cmocka_run_group_tests(all, NULL, NULL);
}

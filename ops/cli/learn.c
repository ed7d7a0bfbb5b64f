/* `millrace learn`: from what people said of answers to a better model of intents. The work is in ops/learn/; here are the
 * command line, the course of a run, what is printed, and the exit statuses. Blocking. */
#include "base/log.h"
#include "base/main.h"
#include "ops/cli/commands.h"
#include "ops/cli/flags.h"
#include "ops/cli/replay_range.h"
#include "ops/learn/files.h"
#include "ops/learn/gather.h"
#include "ops/learn/pairs.h"
#include "ops/learn/report.h"
#include "ops/learn/retrain.h"
#include "ops/learn/versions.h"
#include "router/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { EXIT_PROMOTED, EXIT_FAILED, EXIT_USAGE, EXIT_NOT_BETTER, EXIT_TOO_LITTLE };

#define DAY_MS INT64_C(86400000)

typedef struct learn_conf {
    const char *model, *folder, *from, *to;
    mr_strlist train, valid, eval, labels, oos;
    double holdout;
    int64_t least, keep, review, seed;
    bool dry_run, rollback, report;
} learn_conf;

#define AT(member) offsetof(learn_conf, member)
static const mr_conf_key learn_keys[] = {
    {"model", MR_CONF_STR, AT(model), "", 0, 0, NULL,
     "The model in service, which a better one replaces. Empty: router.intent_model."},
    {"folder", MR_CONF_STR, AT(folder), "", 0, 0, NULL,
     "Where samples, versions and reports are kept. Empty: the model's path with .learn behind it."},
    {"train", MR_CONF_STRLIST, AT(train), "", 0, 0, NULL,
     "Labelled messages (TSV) that the model in service was made of; what people said is added to them."},
    {"valid", MR_CONF_STRLIST, AT(valid), "", 0, 0, NULL,
     "Labelled messages by which the threshold may be chosen, not trained on."},
    {"eval", MR_CONF_STRLIST, AT(eval), "", 0, 0, NULL,
     "The standing evaluation set: labelled messages that are never trained on."},
    {"labels", MR_CONF_STRLIST, AT(labels), "", 0, 0, NULL,
     "More messages with labels, such as the folder's review.tsv after a person has corrected it."},
    {"oos", MR_CONF_STRLIST, AT(oos), "oos", 0, 0, NULL,
     "Labels of messages that are for the language model."},
    {"from", MR_CONF_STR, AT(from), "", 0, 0, NULL,
     "Begin of the period: 2026-11-01, 2026-11-24T08:30:00Z, or -7d. Empty: where the last run ended, else "
     "30 days ago."},
    {"to", MR_CONF_STR, AT(to), "", 0, 0, NULL, "Its end. Empty: now."},
    {"holdout", MR_CONF_NUM, AT(holdout), "0.3", 0.05, 0.9, NULL,
     "Share of the messages that people labelled by which models are compared, not trained on."},
    {"least", MR_CONF_INT, AT(least), "50", 20, 1000000, NULL,
     "Messages that people labelled, over all periods, below which nothing is trained."},
    {"keep", MR_CONF_INT, AT(keep), "12", 2, 900, NULL, "Versions of the model that are kept."},
    {"review", MR_CONF_INT, AT(review), "200", 0, 10000, NULL,
     "Messages that nobody rated and the model was least sure of, for review.tsv."},
    {"seed", MR_CONF_INT, AT(seed), "1", 0, 1000000, NULL, "Of all that is drawn in training."},
    {"dry_run", MR_CONF_BOOL, AT(dry_run), "false", 0, 0, NULL,
     "Gather, train, compare and say what would be done, but change nothing."},
    {"rollback", MR_CONF_BOOL, AT(rollback), "false", 0, 0, NULL,
     "Put the version back into service that the present one replaced."},
    {"report", MR_CONF_BOOL, AT(report), "false", 0, 0, NULL,
     "Print what was learned month by month, and change nothing."},
    {0},
};

static learn_conf conf;
static mr_kafka_conf kafka;
static mr_router_conf router;
static mr_log_conf logging;

static const mr_conf_group groups[] = {{"learn", learn_keys, &conf},
                                       {"kafka", mr_kafka_keys, &kafka},
                                       {"router", mr_router_keys, &router},
                                       {"log", mr_log_keys, &logging},
                                       {0}};

static const char about[] =
    "Makes a better model of intents out of what people said of answers (POST /v1/feedback): joins it with "
    "the\n"
    "traffic of a period, trains anew, and puts the new model into service if it is better both on messages\n"
    "that people labelled and it did not see, and on the standing evaluation set: on each its probabilities "
    "have\n"
    "a smaller error, and in all it is not right less often than chance explains. A running router takes it\n"
    "within a second.\n\n"
    "  millrace learn                       a run; --dry-run changes nothing\n"
    "  millrace learn --rollback            back to the version before\n"
    "  millrace learn --report              month by month\n\n"
    "Exit status: 0 done, a model was promoted (with --dry-run: it would be); 1 something failed; 2 wrong\n"
    "command line; 3 the new model is not better on both, the old one stays; 4 too little feedback yet.";

/* ---- one run ---- */

typedef struct run {
    char folder[3000], samples_path[3100], candidate[3100], runs_path[3100];
    mr_versions *versions;
    mr_intent *intent;
    mr_gathered gathered;
    mr_samples fresh, samples; /* of this period; with a label, of all periods */
    int pairs;
    mr_learn_run done;
} run;

static int open_folder(run *r, int *lock, mr_error *err) {
    char path[3100];
    snprintf(r->samples_path, sizeof r->samples_path, "%s/samples.jsonl", r->folder);
    snprintf(r->runs_path, sizeof r->runs_path, "%s/runs.jsonl", r->folder);
    snprintf(r->candidate, sizeof r->candidate, "%s/candidate.model", r->folder);
    if (mr_versions_open(r->versions, r->folder, conf.model, err) < 0) return -1;
    snprintf(path, sizeof path, "%s/lock", r->folder);
    *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (*lock < 0) return mr_fail(err, MR_EIO, "%s: %s", path, strerror(errno));
    if (flock(*lock, LOCK_EX | LOCK_NB) < 0) {
        return mr_fail(err, MR_ESTATE, "another millrace learn is at work in %s", r->folder);
    }
    return mr_samples_load(&r->samples, r->samples_path, err);
}

static mr_replay_end period_from, period_to; /* as read by check_period */

static int check_period(mr_error *err) {
    int64_t now = mr_now_ms();
    if (mr_replay_end_read(conf.from, now, &period_from, err) < 0) return mr_fail_in(err, "--from");
    if (mr_replay_end_read(conf.to, now, &period_to, err) < 0) return mr_fail_in(err, "--to");
    if (period_from.kind != MR_END_OFFSET && period_to.kind != MR_END_OFFSET) return 0;
    return mr_fail(err, MR_EINVAL, "--from and --to are times, such as 2026-11-01 or -7d");
}

static int read_period(run *r, mr_error *err) {
    int64_t now = mr_now_ms(), last;
    if (mr_runs_last_end(r->runs_path, &last, err) < 0) return -1;
    r->done.at_ms = now;
    r->done.from_ms = period_from.kind == MR_END_TIME ? period_from.value
                      : last > 0                      ? last
                                                      : now - 30 * DAY_MS;
    r->done.to_ms = period_to.kind == MR_END_TIME ? period_to.value : now;
    if (r->done.from_ms < r->done.to_ms) return 0;
    return mr_fail(err, MR_EINVAL, "the period ends before it begins: see --from and --to");
}

static int gather(run *r, mr_error *err) {
    const mr_gather_options o = {&kafka, r->intent, r->done.from_ms, r->done.to_ms, (int)conf.review};
    if (mr_gather(&o, &r->gathered, err) < 0) return -1;
    const mr_gathered *g = &r->gathered;
    r->done.chats = g->chats;
    r->done.from_kb = g->from_kb;
    r->done.from_model = g->from_model;
    r->done.good = g->good;
    r->done.bad = g->bad;
    if (mr_gathered_sample(g, r->intent, &r->fresh, err) < 0) return -1;
    for (int i = 0; i < r->fresh.n; i++) {
        if (r->fresh.v[i].label.n > 0 && mr_samples_put(&r->samples, &r->fresh.v[i], err) < 0) return -1;
    }
    return 0;
}

static void print_gathered(const run *r) {
    const mr_gathered *g = &r->gathered;
    int kinds[MR_SAMPLE_KINDS][2] = {{0}};
    for (int i = 0; i < r->fresh.n; i++) kinds[r->fresh.v[i].kind][r->fresh.v[i].label.n > 0]++;
    printf("%" PRId64 " chats, %" PRId64 " answered from the knowledge base and %" PRId64
           " by the model; %" PRId64 " liked, %" PRId64 " not",
           g->chats, g->from_kb, g->from_model, g->good, g->bad);
    if (g->unknown) printf("; of %" PRId64 " rated ones the request was not found", g->unknown);
    printf(".\nWith a label: %d where the model was right, %d where it was confident of another, %d where it "
           "was "
           "unsure.\nFor review: %d whose answer was not liked, %d where the model was unsure.\n",
           kinds[MR_SAMPLE_CONFIRMED][1], kinds[MR_SAMPLE_DISAGREES][1], kinds[MR_SAMPLE_UNSURE][1],
           kinds[MR_SAMPLE_REJECTED][0], kinds[MR_SAMPLE_UNSURE][0]);
}

/* What was gathered is kept even if no model comes of it. */
static int keep_gathered(run *r, mr_error *err) {
    char path[3100];
    snprintf(path, sizeof path, "%s/preferences.jsonl", r->folder);
    r->pairs = mr_pairs_save(&r->gathered, conf.dry_run ? NULL : path, err);
    if (r->pairs < 0) return -1;
    if (r->pairs > 0) printf("%d new preference pairs.\n", r->pairs);
    if (conf.dry_run) return 0;
    snprintf(path, sizeof path, "%s/review.tsv", r->folder);
    if (mr_samples_save_review(&r->fresh, path, err) < 0) return -1;
    return mr_samples_save(&r->samples, r->samples_path, err);
}

static int retrain(run *r, mr_error *err) {
    const mr_retrain_options o = {.train = conf.train,
                                  .valid = conf.valid,
                                  .eval = conf.eval,
                                  .labels = conf.labels,
                                  .outside = conf.oos,
                                  .share_low = router.ai_share_min,
                                  .share_high = router.ai_share_max,
                                  .holdout = conf.holdout,
                                  .seed = (uint64_t)conf.seed,
                                  .least = (int)conf.least};
    mr_retrained *t = &r->done.trained;
    if (mr_retrain(&o, &r->samples, conf.model, r->candidate, t, err) < 0) return -1;
    if (t->new_labels) printf("%d labels are new.\n", t->new_labels);
    if (t->too_few) printf("%d new labels are left out: fewer than five messages have them.\n", t->too_few);
    if (!t->enough) {
        printf("Too little to learn from: %d messages to train on and %d to measure by.\n", t->learned,
               t->held_out);
        return 0;
    }
    printf("Trained on %d messages, %d of them people's.\n"
           "Right (the label, or rightly to the language model)   in service      new\n"
           "  held out of what people labelled (%5d)               %6.2f %%  %6.2f %%\n"
           "  standing evaluation set (%5d)                        %6.2f %%  %6.2f %%\n"
           "Error of the probabilities, held out                     %6.4f    %6.4f\n"
           "  standing                                               %6.4f    %6.4f\n",
           t->trained_on, t->learned, t->held_out, 100 * t->held_before, 100 * t->held_after, t->standing,
           100 * t->standing_before, 100 * t->standing_after, t->held_error_before, t->held_error_after,
           t->standing_error_before, t->standing_error_after);
    return 0;
}

static int conclude(run *r, mr_error *err) {
    const mr_retrained *t = &r->done.trained;
    if (t->better && !conf.dry_run) {
        r->done.version = mr_versions_promote(r->versions, r->candidate, (int)conf.keep, err);
        if (r->done.version < 0) return -1;
        printf("Promoted: version %d is in service.\n", r->done.version);
    } else if (t->enough) {
        printf("%s\n",
               t->better ? "It would be promoted." : "Not better on both: the model in service stays.");
    }
    unlink(r->candidate);
    if (!conf.dry_run && mr_runs_add(r->runs_path, &r->done, err) < 0) return -1;
    return !t->enough ? EXIT_TOO_LITTLE : t->better ? EXIT_PROMOTED : EXIT_NOT_BETTER;
}

static int learn(run *r, mr_error *err) {
    if (read_period(r, err) < 0) return -1;
    if (!conf.dry_run && mr_versions_current(r->versions, err) < 0) return -1;
    r->intent = mr_intent_open(conf.model, err);
    if (!r->intent || gather(r, err) < 0) return -1;
    print_gathered(r);
    if (keep_gathered(r, err) < 0 || retrain(r, err) < 0) return -1;
    return conclude(r, err);
}

static int roll_back(run *r, mr_error *err) {
    int number = mr_versions_rollback(r->versions, err);
    if (number < 0) return -1;
    printf("Version %d is in service again.\n", number);
    return 0;
}

static int run_command(mr_error *err) {
    run *r = calloc(1, sizeof *r);
    int lock = -1, rc;
    if (r) r->versions = calloc(1, sizeof *r->versions);
    if (!r || !r->versions) {
        free(r);
        return mr_fail(err, MR_ENOMEM, "no memory");
    }
    snprintf(r->folder, sizeof r->folder, "%s", conf.folder);
    rc = open_folder(r, &lock, err);
    if (rc == 0) {
        rc = conf.report     ? mr_report_print(r->runs_path, &r->samples, stdout, err)
             : conf.rollback ? roll_back(r, err)
                             : learn(r, err);
    }
    mr_gathered_done(&r->gathered);
    mr_samples_done(&r->fresh);
    mr_samples_done(&r->samples);
    mr_intent_close(r->intent);
    if (lock >= 0) close(lock);
    free(r->versions);
    free(r);
    return rc;
}

/* ---- the command line ---- */

static int check_conf(mr_error *err) {
    static char folder[2900];
    if (!*conf.model) conf.model = router.intent_model;
    if (!*conf.model) return mr_fail(err, MR_EINVAL, "which model? Set router.intent_model, or --model FILE");
    if (!*conf.folder) {
        if (snprintf(folder, sizeof folder, "%s.learn", conf.model) >= (int)sizeof folder) {
            return mr_fail(err, MR_EINVAL, "--model is too long");
        }
        conf.folder = folder;
    }
    if (strlen(conf.folder) >= sizeof folder) return mr_fail(err, MR_EINVAL, "--folder is too long");
    if (conf.dry_run + conf.rollback + conf.report > 1) {
        return mr_fail(err, MR_EINVAL, "--dry-run, --rollback and --report: take one of them");
    }
    if (conf.rollback || conf.report) return 0;
    if (conf.train.n == 0) return mr_fail(err, MR_EINVAL, "--train is needed: what the model was made of");
    if (conf.eval.n == 0) return mr_fail(err, MR_EINVAL, "--eval is needed: the standing evaluation set");
    return check_period(err) < 0 ? -1 : mr_router_conf_check(&router, err);
}

int cmd_learn(int argc, char **argv) {
    static const char *const bare[] = {"dry-run", "dry_run", "rollback", "report", NULL};
    const mr_main_options options = {
        .name = "millrace learn", .part = "learn", .about = about, .groups = groups, .log = &logging};
    mr_error err;
    int status;
    mr_flags_bare(argc, argv, bare);
    mr_conf *c = mr_main_init(argc, argv, &options, &status);
    if (!c) return status;
    if (check_conf(&err) < 0) {
        fprintf(stderr, "millrace learn: %s. Try millrace learn --help.\n", err.msg);
        status = EXIT_USAGE;
    } else {
        status = run_command(&err);
        if (status < 0) {
            fprintf(stderr, "millrace learn: %s\n", err.msg);
            status = EXIT_FAILED;
        }
    }
    mr_conf_free(c);
    return status;
}

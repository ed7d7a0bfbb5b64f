/* `millrace rollout`: blue-green, from the first canary request to the end of the old workers. The work is in ops/rollout/;
 * here are the command line, what is printed, and the exit statuses. All on the loop's thread. */
#include "base/log.h"
#include "base/main.h"
#include "ops/cli/commands.h"
#include "ops/cli/flags.h"
#include "ops/rollout/drive.h"

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct rollout_conf {
    const char *pool, *to, *hold, *patience, *ready_timeout, *settle, *stop_timeout;
    mr_strlist steps;
    double max_error_rate, max_ttft_ratio, min_speed_ratio;
    int64_t min_requests;
    bool stop_old, force, json;
} rollout_conf;

#define AT(member) offsetof(rollout_conf, member)
static const mr_conf_key rollout_keys[] = {
    {"pool", MR_CONF_STR, AT(pool), "main", 0, 0, NULL, "Which pool of workers."},
    {"to", MR_CONF_STR, AT(to), "", 0, 0, NULL, "start: the color that gets the traffic, blue or green."},
    {"steps", MR_CONF_STRLIST, AT(steps), "1,10,50,100", 0, 0, NULL,
     "start: its shares in percent, one after the other."},
    {"hold", MR_CONF_STR, AT(hold), "60s", 0, 0, NULL, "start: how long each step is watched."},
    {"patience", MR_CONF_STR, AT(patience), "10m", 0, 0, NULL,
     "How much longer a step waits for min_requests, where traffic is thin; then it counts as passed."},
    {"max_error_rate", MR_CONF_NUM, AT(max_error_rate), "0.01", 0, 1, NULL,
     "start: share of failed requests by which the new color may exceed the old one."},
    {"max_ttft_ratio", MR_CONF_NUM, AT(max_ttft_ratio), "1.5", 0, 1000, NULL,
     "start: its time to first token (p90) over the old color's, at most; 0 does not compare."},
    {"min_speed_ratio", MR_CONF_NUM, AT(min_speed_ratio), "0.7", 0, 1000, NULL,
     "start: its tokens/s of an answer (median) over the old color's, at least; 0 does not compare."},
    {"min_requests", MR_CONF_INT, AT(min_requests), "20", 0, 1000000, NULL,
     "start: requests of the new color before a step is judged."},
    {"ready_timeout", MR_CONF_STR, AT(ready_timeout), "15m", 0, 0, NULL,
     "How long to wait for workers of the new color that have generated a token."},
    {"settle", MR_CONF_STR, AT(settle), "5s", 0, 0, NULL,
     "How long the old color must be empty before its workers are told to end."},
    {"stop_timeout", MR_CONF_STR, AT(stop_timeout), "5m", 0, 0, NULL, "How long they may take."},
    {"stop_old", MR_CONF_BOOL, AT(stop_old), "true", 0, 0, NULL,
     "false leaves them running, without traffic."},
    {"force", MR_CONF_BOOL, AT(force), "false", 0, 0, NULL,
     "resume: take the rollout from a tool that seems alive."},
    {"json", MR_CONF_BOOL, AT(json), "false", 0, 0, NULL, "status: as JSON."},
    {0},
};

static rollout_conf conf;
static mr_kafka_conf kafka;
static mr_log_conf logging;

static const mr_conf_group groups[] = {
    {"rollout", rollout_keys, &conf}, {"kafka", mr_kafka_keys, &kafka}, {"log", mr_log_keys, &logging}, {0}};

static const char about[] =
    "Moves a pool's traffic from one color of workers to the other, step by step, and back when it is "
    "worse.\n\n"
    "  millrace rollout start --to green    begin, and drive it to its end\n"
    "  millrace rollout status              where it stands\n"
    "  millrace rollout resume              go on after the tool that drove it died\n"
    "  millrace rollout promote             all traffic now, without the remaining steps and limits\n"
    "  millrace rollout rollback            all traffic back to the old color\n"
    "  millrace rollout abort               end it here: the weights stay as they are\n\n"
    "Exit status: 0 done, 1 Kafka failed, 2 wrong command line, 3 rolled back, 4 refused (one runs already, "
    "or\n"
    "none), 5 another process took it over, 6 told to end (the rollout stands; resume goes on).";

/* ---- driving ---- */

typedef struct driving {
    mr_loop *loop;
    mr_rollout_exit status;
} driving;

static void say(void *arg, const char *text) {
    char at[16];
    time_t now = time(NULL);
    struct tm tm;
    (void)arg;
    strftime(at, sizeof(at), "%H:%M:%S", localtime_r(&now, &tm));
    printf("%s %s\n", at, text);
    fflush(stdout);
}

static void over(void *arg, mr_rollout_exit e) {
    driving *d = arg;
    d->status = e;
    mr_loop_stop(d->loop);
}

static void on_drain(void *arg) {
    driving *d = arg;
    say(d, "told to end: the rollout stands where it is; millrace rollout resume goes on");
    mr_loop_stop(d->loop);
}

static int drive(mr_loop *loop, const mr_drive_options *o, mr_error *err) {
    driving d = {loop, MR_ROLLOUT_EXIT_LEFT};
    mr_metrics *m = mr_metrics_new(err);
    mr_drive *x = m ? mr_drive_new(&kafka, o, loop, m, say, over, &d, err) : NULL;
    if (x) {
        mr_loop_on_drain(loop, 1000, on_drain, &d);
        mr_loop_run(loop);
    }
    mr_drive_free(x);
    mr_metrics_free(m);
    return x ? (int)d.status : -1;
}

/* ---- options ---- */

static int parse_steps(mr_drive_options *o, mr_error *err) {
    for (int i = 0; i < conf.steps.n; i++) {
        char *end;
        long percent = strtol(conf.steps.v[i], &end, 10);
        bool grows = o->nsteps == 0 || percent > o->steps[o->nsteps - 1];
        if (*end || end == conf.steps.v[i] || percent < 1 || percent > 100 || !grows ||
            o->nsteps == MR_STEPS_MAX - 1) {
            return mr_fail(err, MR_EINVAL,
                           "steps: '%.20s' in it; expected growing percents such as 1,10,50,100",
                           conf.steps.v[i]);
        }
        o->steps[o->nsteps++] = percent;
    }
    return 0;
}

static bool is_color(const char *text) {
    return strcmp(text, mr_color_names[MR_BLUE]) == 0 || strcmp(text, mr_color_names[MR_GREEN]) == 0;
}

static int parse_options(mr_rollout_verb verb, mr_drive_options *o, mr_error *err) {
    *o = (mr_drive_options){.verb = verb, .pool = conf.pool, .stop_old = conf.stop_old, .force = conf.force};
    o->limits =
        (mr_limits){conf.max_error_rate, conf.max_ttft_ratio, conf.min_speed_ratio, conf.min_requests};
    o->to = strcmp(conf.to, "green") == 0 ? MR_GREEN : MR_BLUE;
    if (strlen(conf.pool) == 0 || strlen(conf.pool) >= MR_POOL_NAME)
        return mr_fail(err, MR_EINVAL, "pool is not the name of a pool");
    if (verb == MR_VERB_START && !is_color(conf.to))
        return mr_fail(err, MR_EINVAL,
                       "--to is '%.20s', expected blue or green: the color that gets the traffic", conf.to);
    if (mr_flags_duration("hold", conf.hold, &o->hold_ms, err) ||
        mr_flags_duration("patience", conf.patience, &o->patience_ms, err) ||
        mr_flags_duration("ready_timeout", conf.ready_timeout, &o->ready_ms, err) ||
        mr_flags_duration("settle", conf.settle, &o->settle_ms, err) ||
        mr_flags_duration("stop_timeout", conf.stop_timeout, &o->stop_ms, err)) {
        return -1;
    }
    return parse_steps(o, err);
}

/* ---- status ---- */

typedef struct looking {
    mr_loop *loop;
    mr_consumer *control;
    mr_view *view;
    mr_register reg;
    mr_arena *arena;
    bool done;
} looking;

static bool on_control(void *arg, const mr_record *r) {
    looking *l = arg;
    mr_control c;
    mr_error err;
    mr_arena_reset(l->arena);
    if (r->value.n > 0 &&
        mr_decode(&mr_control_def, r->value, mr_record_header(r, "content-type"), l->arena, &c, &err) == 0) {
        mr_register_feed(&l->reg, &c);
    }
    return true;
}

static json_t *steps_json(const mr_rollout_at *at) {
    json_t *steps = json_array();
    for (int i = 0; i < at->nsteps; i++) json_array_append_new(steps, json_integer(at->steps[i]));
    return steps;
}

static void print_json(const looking *l) {
    const mr_rollout_at *at = &l->reg.at;
    json_t *j = json_pack("{s:s, s:b, s:f, s:f}", "pool", l->reg.pool, "active", mr_register_active(&l->reg),
                          "blue_percent", mr_register_percent(&l->reg, MR_BLUE), "green_percent",
                          mr_register_percent(&l->reg, MR_GREEN));
    if (l->reg.known) {
        json_object_set_new(j, "rollout",
                            json_pack("{s:s, s:s, s:o, s:i, s:s, s:s, s:I, s:I, s:I}", "state",
                                      mr_rollout_state_names[at->state], "to", mr_color_names[at->to],
                                      "steps", steps_json(at), "step", at->step, "reason", at->reason,
                                      "owner", at->owner, "epoch", (json_int_t)at->epoch, "started_ms",
                                      (json_int_t)at->started_ms, "heard_ms", (json_int_t)at->created_ms));
    }
    json_dumpf(j, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(j);
}

static void print_text(const looking *l) {
    const mr_rollout_at *at = &l->reg.at;
    mr_color_view c;
    if (!l->reg.known) {
        printf("no rollout of pool %s yet\n", l->reg.pool);
    } else {
        printf("rollout of pool %s to %s: %s (%s)\n", l->reg.pool, mr_color_names[at->to],
               mr_rollout_state_names[at->state], at->reason);
    }
    if (mr_register_active(&l->reg)) {
        printf("driven by %s, last heard of %.0f s ago\n", at->owner,
               (double)(mr_now_ms() - at->created_ms) / 1000);
    }
    for (int i = 0; i < MR_COLORS; i++) {
        mr_view_color(l->view, l->reg.pool, i, mr_now_ms(), &c);
        printf("%-5s  %5.1f %% of the traffic, %d workers, %d ready\n", mr_color_names[i],
               mr_register_percent(&l->reg, i), c.workers, c.ready);
    }
}

static void when_read(void *arg) {
    looking *l = arg;
    if (l->done || !mr_consumer_caught_up(l->control) || !mr_view_caught_up(l->view)) return;
    l->done = true;
    if (conf.json) {
        print_json(l);
    } else {
        print_text(l);
    }
    mr_loop_stop(l->loop);
}

static void on_enough(void *arg) {
    mr_loop_stop(((looking *)arg)->loop);
}

static int show(mr_loop *loop, mr_error *err) {
    int rc = -1;
    char topic[250];
    looking l = {.loop = loop, .arena = mr_arena_new(1 << 20)};
    mr_timer *timer = NULL;
    mr_metrics *m = l.arena ? mr_metrics_new(err) : NULL;
    if (!l.arena) mr_fail(err, MR_ENOMEM, "out of memory");
    if (!m) goto out;
    mr_register_init(&l.reg, conf.pool);
    mr_bus_topic(&kafka, MR_TOPIC_CONTROL, topic);
    const mr_consumer_options o = {
        .topics = {topic}, .partition = -1, .start = MR_FROM_BEGINNING, .on_record = on_control, .arg = &l};
    l.control = mr_consumer_new(&kafka, &o, loop, m, "rollout_control", err);
    if (l.control) l.view = mr_view_new(&kafka, loop, m, "rollout_workers", err);
    if (l.view) timer = mr_timer_new(loop, 20, when_read, &l, err);
    if (!timer) goto out;
    mr_loop_on_drain(loop, 1000, on_enough, &l);
    mr_loop_run(loop);
    rc = l.done ? 0 : 1;
out:
    mr_timer_free(timer);
    mr_view_free(l.view);
    mr_consumer_free(l.control);
    mr_metrics_free(m);
    mr_arena_free(l.arena);
    return rc;
}

/* ---- the command ---- */

static const char *const verbs[] = {
    [MR_VERB_START] = "start",       [MR_VERB_RESUME] = "resume", [MR_VERB_PROMOTE] = "promote",
    [MR_VERB_ROLLBACK] = "rollback", [MR_VERB_ABORT] = "abort",   [MR_VERB_ABORT + 1] = "status"};
#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

static int run(size_t verb) {
    mr_drive_options o;
    mr_error err;
    bool drives = verb <= MR_VERB_ABORT;
    if (drives && parse_options((mr_rollout_verb)verb, &o, &err) != 0) {
        fprintf(stderr, "millrace rollout: %s. Try millrace rollout --help.\n", err.msg);
        return 2;
    }
    mr_loop *loop = mr_loop_new(&err);
    int rc = !loop ? -1 : drives ? drive(loop, &o, &err) : show(loop, &err);
    if (rc < 0) fprintf(stderr, "millrace rollout: %s\n", err.msg);
    mr_loop_free(loop);
    return rc < 0 ? MR_ROLLOUT_EXIT_FAILED : rc;
}

int cmd_rollout(int argc, char **argv) {
    static const char *const bare[] = {"force", "json", NULL};
    const mr_main_options options = {.name = "millrace rollout VERB",
                                     .part = "rollout",
                                     .about = about,
                                     .groups = groups,
                                     .log = &logging};
    int status;
    size_t verb = 0;
    bool asks = argc > 1 && argv[1][0] == '-';
    while (argc > 1 && verb < VERBS && strcmp(argv[1], verbs[verb]) != 0) verb++;
    if (argc < 2 || (verb == VERBS && !asks)) {
        fprintf(stderr,
                "millrace rollout: start, status, resume, promote, rollback or abort? Try millrace rollout "
                "--help.\n");
        return 2;
    }
    mr_flags_bare(argc, argv, bare);
    mr_conf *c = mr_main_init(argc - !asks, argv + !asks, &options, &status);
    if (!c) return status;
    if (verb < VERBS) {
        status = run(verb);
    } else {
        fprintf(stderr, "millrace rollout: name what to do before the options, such as start\n");
        status = 2;
    }
    mr_conf_free(c);
    return status;
}

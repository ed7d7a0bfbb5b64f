/* See drive.h. */
#include "ops/rollout/drive.h"

#include "base/log.h"
#include "ops/rollout/judge.h"
#include "pool/lag.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_MS      200
#define LAG_MS       500
#define HEARTBEAT_MS 5000
#define ALIVE_MS     20000 /* a tool that wrote within it is taken for alive */
#define ANSWER_MS    15000 /* for a record of ours to be read back */
#define GRACE_MS     5000  /* a canary without a ready worker gets this long */
#define STRANDED_MS  60000 /* for requests of a color that has no worker any more */
#define FLUSH_MS     5000

struct mr_drive {
    mr_drive_options o;
    const mr_kafka_conf *kafka;
    mr_loop *loop;
    mr_producer *producer;
    mr_consumer *control;
    mr_view *view;
    mr_lag_reader *lag;
    mr_timer *timer;
    mr_arena *arena;
    void (*say)(void *arg, const char *text);
    void (*over)(void *arg, mr_rollout_exit e);
    void *arg;
    char topic[250];

    mr_register reg;
    mr_rollout_at at;      /* what we wrote last */
    bool claimed, entered; /* entered: what the state does at its beginning is done */
    bool finished;
    int64_t written_ms;                                /* monotonic, of `at`; */
    int64_t since_ms;                                  /* of this state or step; */
    int64_t unready_ms, quiet_ms, ordered_ms;          /* and since when this holds; 0: it does not */
    mr_totals began[MR_COLORS], step_began[MR_COLORS]; /* counts when we took over, and at the step */
};

/* ---- small things ---- */

static int64_t mono_ms(void) {
    return mr_mono_us() / 1000;
}

static void tell(mr_drive *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void tell(mr_drive *d, const char *fmt, ...) {
    char text[800];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    d->say(d->arg, text);
}

static void finish(mr_drive *d, mr_rollout_exit e) {
    if (d->finished) return;
    d->finished = true;
    d->over(d->arg, e);
}

static int old_color(const mr_drive *d) {
    return d->at.to == MR_BLUE ? MR_GREEN : MR_BLUE;
}

static void look(const mr_drive *d, int color, mr_color_view *out) {
    mr_view_color(d->view, d->reg.pool, color, mr_now_ms(), out);
}

static bool can_serve(const mr_color_view *c) {
    return c->ready > 0 && c->partitions > 0;
}

/* ---- records ---- */

static int send_control(mr_drive *d, const char *key, const mr_control *c, mr_error *err) {
    mr_buf body;
    char trace[MR_TRACEPARENT_LEN + 1];
    mr_buf_init(&body, 1 << 16);
    mr_trace_new(trace);
    const mr_header headers[] = {{"type", mr_str_of("Control")}, {"traceparent", mr_str_of(trace)}};
    int rc = mr_pack(&mr_control_def, c, &body, err);
    const mr_produce rec = {.topic = d->topic,
                            .partition = -1,
                            .key = mr_str_of(key),
                            .value = mr_buf_str(&body),
                            .headers = headers,
                            .nheaders = 2};
    if (rc == 0) rc = mr_producer_send(d->producer, &rec, err);
    mr_buf_done(&body);
    return rc;
}

static void send_or_say(mr_drive *d, const char *key, const mr_control *c) {
    mr_error err;
    if (send_control(d, key, c, &err) != 0) mr_log(MR_WARN, "order not sent", MR_S("error", err.msg));
}

/* Puts `at` into the register; it is in force when it was read back. */
static void write_state(mr_drive *d) {
    mr_control c;
    char key[MR_POOL_NAME + 16];
    int64_t now = mr_now_ms();
    d->at.created_ms = now > d->at.created_ms ? now : d->at.created_ms + 1;
    d->written_ms = mono_ms();
    snprintf(key, sizeof(key), "rollout/%s", d->reg.pool);
    mr_register_control(&d->at, mr_str_of(d->reg.pool), &c);
    send_or_say(d, key, &c);
}

static void write_weights(mr_drive *d, int64_t percent_to) {
    mr_control c = {0};
    char key[MR_POOL_NAME + 16];
    int64_t share[MR_COLORS];
    share[d->at.to] = percent_to;
    share[old_color(d)] = 100 - percent_to;
    snprintf(key, sizeof(key), "weights/%s", d->reg.pool);
    MR_SET(&c, MR_CONTROL_V, v, MR_SCHEMA_VERSION);
    MR_SET(&c, MR_CONTROL_KIND, kind, MR_CONTROL_IS_WEIGHTS);
    MR_SET(&c, MR_CONTROL_POOL, pool, mr_str_of(d->reg.pool));
    MR_SET(&c, MR_CONTROL_BLUE, blue, share[MR_BLUE]);
    MR_SET(&c, MR_CONTROL_GREEN, green, share[MR_GREEN]);
    MR_SET(&c, MR_CONTROL_EPOCH, epoch, d->at.epoch);
    MR_SET(&c, MR_CONTROL_CREATED_MS, created_ms, mr_now_ms());
    send_or_say(d, key, &c);
}

static void order_drain(mr_drive *d, int color) {
    mr_control c = {0};
    char key[MR_POOL_NAME + 24];
    snprintf(key, sizeof(key), "drain/%s/%s", d->reg.pool, mr_color_names[color]);
    MR_SET(&c, MR_CONTROL_V, v, MR_SCHEMA_VERSION);
    MR_SET(&c, MR_CONTROL_KIND, kind, MR_CONTROL_IS_DRAIN);
    MR_SET(&c, MR_CONTROL_POOL, pool, mr_str_of(d->reg.pool));
    MR_SET(&c, MR_CONTROL_COLOR, color, color);
    MR_SET(&c, MR_CONTROL_CREATED_MS, created_ms, mr_now_ms());
    send_or_say(d, key, &c);
    d->ordered_ms = mono_ms();
}

/* ---- states ---- */

static void go(mr_drive *d, int state, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void go(mr_drive *d, int state, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->at.reason, sizeof(d->at.reason), fmt, ap);
    va_end(ap);
    d->at.state = state;
    d->entered = false;
    d->unready_ms = d->quiet_ms = d->ordered_ms = 0;
    d->since_ms = mono_ms();
    write_state(d);
    tell(d, "%s: %s", mr_rollout_state_names[state], d->at.reason);
}

static void go_to_step(mr_drive *d, int step) {
    d->at.step = step;
    go(d, MR_ROLLOUT_SHIFTING, "step %d of %d: %lld %% to %s", step + 1, d->at.nsteps,
       (long long)d->at.steps[step], mr_color_names[d->at.to]);
}

/* True while `holds` has been so for ms. */
static bool lasts(int64_t *since, bool holds, int64_t ms) {
    if (!holds) *since = 0;
    if (holds && *since == 0) *since = mono_ms();
    return holds && mono_ms() - *since >= ms;
}

static void waiting(mr_drive *d) {
    mr_color_view to;
    look(d, d->at.to, &to);
    if (can_serve(&to)) {
        go_to_step(d, 0);
    } else if (mono_ms() - d->since_ms > d->o.ready_ms) {
        go(d, MR_ROLLOUT_ROLLED_BACK, "no %s worker became ready in %lld s; no traffic was moved",
           mr_color_names[d->at.to], (long long)(d->o.ready_ms / 1000));
    }
}

static void enter_step(mr_drive *d) {
    mr_color_view c;
    for (int i = 0; i < MR_COLORS; i++) {
        look(d, i, &c);
        d->step_began[i] = c.totals;
    }
    write_weights(d, d->at.steps[d->at.step]);
    d->since_ms = mono_ms();
}

/* The old color in the same time; when it had too little to do in it, since we drive. */
static void reference(const mr_drive *d, mr_totals *out) {
    mr_color_view c;
    look(d, old_color(d), &c);
    mr_totals_since(out, &c.totals, &d->step_began[old_color(d)]);
    if (mr_totals_requests(out) < d->at.limits.min_requests) {
        mr_totals_since(out, &c.totals, &d->began[old_color(d)]);
    }
}

static void shifting(mr_drive *d) {
    mr_color_view to;
    mr_totals canary, old;
    char why[501];
    int64_t held = mono_ms() - d->since_ms;
    look(d, d->at.to, &to);
    mr_totals_since(&canary, &to.totals, &d->step_began[d->at.to]);
    reference(d, &old);
    if (lasts(&d->unready_ms, !can_serve(&to), GRACE_MS)) {
        go(d, MR_ROLLOUT_RETURNING, "no %s worker is ready any more", mr_color_names[d->at.to]);
    } else if (!mr_judge(&canary, &old, &d->at.limits, why)) {
        go(d, MR_ROLLOUT_RETURNING, "%s: %s", mr_color_names[d->at.to], why);
    } else if (held < d->at.hold_ms || (mr_totals_requests(&canary) < d->at.limits.min_requests &&
                                        held < d->at.hold_ms + d->o.patience_ms)) {
        return;
    } else if (d->at.step + 1 < d->at.nsteps) {
        go_to_step(d, d->at.step + 1);
    } else {
        go(d, MR_ROLLOUT_DRAINING, "%s works off what it has", mr_color_names[old_color(d)]);
    }
}

/* Nothing waits for the color and nothing runs in it, as of a question that was asked in this state. */
static bool is_empty(mr_drive *d, int color, const mr_color_view *c) {
    mr_lag lag = mr_lag_get(d->lag, color);
    bool answered = lag.at_us / 1000 > d->since_ms;
    return answered && lag.records == 0 && c->running == 0 && c->waiting == 0;
}

static void draining(mr_drive *d) {
    mr_color_view old;
    look(d, old_color(d), &old);
    if (!lasts(&d->quiet_ms, is_empty(d, old_color(d), &old), d->o.settle_ms)) return;
    if (d->o.stop_old) {
        go(d, MR_ROLLOUT_STOPPING, "%s is empty; its %d workers are told to end",
           mr_color_names[old_color(d)], old.workers);
    } else {
        go(d, MR_ROLLOUT_DONE, "%s has all traffic; %s is empty and stays", mr_color_names[d->at.to],
           mr_color_names[old_color(d)]);
    }
}

static void stopping(mr_drive *d) {
    mr_color_view old;
    int color = old_color(d);
    look(d, color, &old);
    bool stopped = old.workers == old.standby, late = mono_ms() - d->since_ms > d->o.stop_ms;
    if (stopped && is_empty(d, color, &old)) {
        go(d, MR_ROLLOUT_DONE, "%s has all traffic; %s is empty and stopped", mr_color_names[d->at.to],
           mr_color_names[color]);
    } else if (late) {
        go(d, MR_ROLLOUT_DONE,
           "%s has all traffic; %d workers of %s did not end in time and %lld requests wait there",
           mr_color_names[d->at.to], old.workers - old.standby, mr_color_names[color],
           (long long)mr_lag_get(d->lag, color).records);
    } else if (!stopped && mono_ms() - d->ordered_ms > HEARTBEAT_MS) {
        order_drain(d, color);
    }
}

/* False while there is nobody to give it back to. */
static bool give_back(mr_drive *d, const mr_color_view *old) {
    bool moved = mr_register_percent(&d->reg, d->at.to) > 0;
    if (moved && !can_serve(old)) {
        if (d->unready_ms == 0) tell(d, "no %s worker is ready: start one", mr_color_names[old_color(d)]);
        d->unready_ms = mono_ms();
        return false;
    }
    if (moved) write_weights(d, 0);
    d->entered = true;
    d->since_ms = mono_ms();
    return true;
}

static void returning(mr_drive *d) {
    mr_color_view to, old;
    look(d, d->at.to, &to);
    look(d, old_color(d), &old);
    if (!d->entered && !give_back(d, &old)) return;
    if (lasts(&d->quiet_ms, is_empty(d, d->at.to, &to), d->o.settle_ms)) {
        char why[400];
        snprintf(why, sizeof(why), "%.399s", d->at.reason);
        go(d, MR_ROLLOUT_ROLLED_BACK, "%s", why);
    } else if (to.workers == 0 && mono_ms() - d->since_ms > STRANDED_MS) {
        go(d, MR_ROLLOUT_ROLLED_BACK, "%lld requests wait for a %s worker, and there is none: start one",
           (long long)mr_lag_get(d->lag, d->at.to).records, mr_color_names[d->at.to]);
    }
}

static void act(mr_drive *d) {
    switch (d->at.state) {
    case MR_ROLLOUT_WAITING: waiting(d); break;
    case MR_ROLLOUT_SHIFTING:
        if (!d->entered) enter_step(d);
        d->entered = true;
        shifting(d);
        break;
    case MR_ROLLOUT_DRAINING:
        if (!d->entered) write_weights(d, 100);
        d->entered = true;
        draining(d);
        break;
    case MR_ROLLOUT_STOPPING: stopping(d); break;
    case MR_ROLLOUT_RETURNING: returning(d); break;
    case MR_ROLLOUT_ROLLED_BACK:
        finish(d, d->o.verb == MR_VERB_ROLLBACK ? MR_ROLLOUT_EXIT_OK : MR_ROLLOUT_EXIT_ROLLED_BACK);
        break;
    default: finish(d, MR_ROLLOUT_EXIT_OK); break;
    }
}

/* ---- taking it in hand ---- */

static void name_owner(char out[MR_NAME_MAX + 1]) {
    char host[HOST_NAME_MAX + 1] = "tool";
    gethostname(host, sizeof(host) - 1);
    snprintf(out, MR_NAME_MAX + 1, "%.64s-%d-%llx", host, (int)getpid(), (unsigned long long)mr_mono_us());
}

/* False when it was refused. */
static bool may_begin(mr_drive *d) {
    const mr_rollout_at *at = &d->reg.at;
    bool active = mr_register_active(&d->reg), start = d->o.verb == MR_VERB_START;
    int64_t silent = mr_now_ms() - at->created_ms;
    if (start && active) {
        tell(d,
             "refused: a rollout of pool %s to %s runs (%s), driven by %s, last heard of %lld s ago. Its end "
             "comes first; if "
             "its tool is dead: millrace rollout resume",
             d->reg.pool, mr_color_names[at->to], mr_rollout_state_names[at->state], at->owner,
             (long long)(silent / 1000));
    } else if (!start && !active) {
        tell(d, "refused: no rollout of pool %s runs", d->reg.pool);
    } else if (d->o.verb == MR_VERB_RESUME && silent < ALIVE_MS && !d->o.force) {
        tell(d, "refused: %s drives it, last heard of %lld s ago; --force takes it over all the same",
             at->owner, (long long)(silent / 1000));
    } else {
        return true;
    }
    return false;
}

/* Steps that would move traffic back are left out; all of it is the last one. */
static void plan_steps(mr_drive *d) {
    double has = mr_register_percent(&d->reg, d->o.to);
    d->at.nsteps = 0;
    for (int i = 0; i < d->o.nsteps && d->at.nsteps < MR_STEPS_MAX - 1; i++) {
        if ((double)d->o.steps[i] > has) d->at.steps[d->at.nsteps++] = d->o.steps[i];
    }
    if (d->at.nsteps == 0 || d->at.steps[d->at.nsteps - 1] < 100) d->at.steps[d->at.nsteps++] = 100;
}

static void begin_start(mr_drive *d) {
    d->at = (mr_rollout_at){
        .to = d->o.to, .hold_ms = d->o.hold_ms, .started_ms = mr_now_ms(), .limits = d->o.limits};
    plan_steps(d);
}

static void begin_promote(mr_drive *d) {
    d->at.nsteps = 1;
    d->at.steps[0] = 100;
    d->at.step = 0;
    d->at.hold_ms = 0;
    d->at.limits = (mr_limits){.max_error_rate = 1};
}

/* Opens an epoch of our own, in the state from which the verb goes on. */
static void begin(mr_drive *d) {
    if (!may_begin(d)) {
        finish(d, MR_ROLLOUT_EXIT_REFUSED);
        return;
    }
    mr_color_view c;
    int64_t epoch = mr_register_next_epoch(&d->reg);
    int state = d->reg.at.state;
    d->at = d->reg.at;
    if (d->o.verb == MR_VERB_START) begin_start(d);
    if (d->o.verb == MR_VERB_PROMOTE && state <= MR_ROLLOUT_SHIFTING) begin_promote(d);
    d->at.epoch = epoch;
    name_owner(d->at.owner);
    for (int i = 0; i < MR_COLORS; i++) {
        look(d, i, &c);
        d->began[i] = d->step_began[i] = c.totals;
    }
    d->claimed = true;
    switch (d->o.verb) {
    case MR_VERB_START:
        go(d, MR_ROLLOUT_WAITING, "for %s workers that are ready", mr_color_names[d->at.to]);
        break;
    case MR_VERB_PROMOTE:
    case MR_VERB_RESUME:
        go(d, state == MR_ROLLOUT_SHIFTING && d->o.verb == MR_VERB_PROMOTE ? MR_ROLLOUT_WAITING : state,
           "taken over (%s)", d->o.verb == MR_VERB_RESUME ? "resume" : "promote");
        break;
    case MR_VERB_ROLLBACK: go(d, MR_ROLLOUT_RETURNING, "told to roll back"); break;
    case MR_VERB_ABORT:
        go(d, MR_ROLLOUT_ABORTED, "told to stop here, with %.0f %% at %s",
           mr_register_percent(&d->reg, d->at.to), mr_color_names[d->at.to]);
        break;
    }
}

/* ---- time passes ---- */

static bool is_ours(const mr_drive *d) {
    return d->reg.at.epoch == d->at.epoch && strcmp(d->reg.at.owner, d->at.owner) == 0;
}

/* Another owner opened our epoch before us, or a later one. */
static bool was_replaced(const mr_drive *d) {
    return !is_ours(d) && d->reg.at.epoch >= d->at.epoch;
}

static void on_tick(void *arg) {
    mr_drive *d = arg;
    if (d->finished || !mr_consumer_caught_up(d->control) || !mr_view_caught_up(d->view)) return;
    if (!d->claimed) {
        begin(d);
    } else if (was_replaced(d)) {
        tell(d, "replaced: %s drives this rollout now", d->reg.at.owner);
        finish(d, MR_ROLLOUT_EXIT_REPLACED);
    } else if (is_ours(d) && d->reg.at.created_ms == d->at.created_ms) {
        if (d->reg.contested || mono_ms() - d->written_ms > HEARTBEAT_MS) write_state(d);
        act(d);
    } else if (mono_ms() - d->written_ms > ANSWER_MS) {
        write_state(d); /* it was lost on its way */
    }
}

static bool on_control(void *arg, const mr_record *r) {
    mr_drive *d = arg;
    mr_control c;
    mr_error err;
    mr_arena_reset(d->arena);
    if (r->value.n > 0 &&
        mr_decode(&mr_control_def, r->value, mr_record_header(r, "content-type"), d->arena, &c, &err) == 0) {
        mr_register_feed(&d->reg, &c);
    }
    return true;
}

static void on_delivered(void *arg, void *tag, const mr_error *err) {
    (void)arg, (void)tag;
    if (err) mr_log(MR_WARN, "order not delivered", MR_S("error", err->msg));
}

/* ---- life ---- */

static int connect_all(mr_drive *d, mr_metrics *m, mr_error *err) {
    mr_lag_source sources[MR_COLORS];
    const mr_consumer_options control = {
        .topics = {d->topic}, .partition = -1, .start = MR_FROM_BEGINNING, .on_record = on_control, .arg = d};
    for (int i = 0; i < MR_COLORS; i++) {
        mr_lag_of_workers(d->kafka, d->reg.pool, mr_color_names[i], &sources[i]);
    }
    d->producer = mr_producer_new(d->kafka, d->loop, m, "rollout", on_delivered, d, err);
    if (d->producer) d->control = mr_consumer_new(d->kafka, &control, d->loop, m, "rollout_control", err);
    if (d->control) d->view = mr_view_new(d->kafka, d->loop, m, "rollout_workers", err);
    if (d->view) d->lag = mr_lag_reader_new(d->kafka, sources, MR_COLORS, LAG_MS, err);
    if (d->lag) d->timer = mr_timer_new(d->loop, TICK_MS, on_tick, d, err);
    return d->timer ? 0 : -1;
}

mr_drive *mr_drive_new(const mr_kafka_conf *kafka, const mr_drive_options *o, mr_loop *l, mr_metrics *m,
                       void (*say)(void *arg, const char *text), void (*over)(void *arg, mr_rollout_exit e),
                       void *arg, mr_error *err) {
    mr_drive *d = calloc(1, sizeof(*d));
    if (d) d->arena = mr_arena_new(1 << 20);
    if (!d || !d->arena) {
        mr_fail(err, MR_ENOMEM, "out of memory for the rollout");
        mr_drive_free(d);
        return NULL;
    }
    d->o = *o;
    d->kafka = kafka;
    d->loop = l;
    d->say = say;
    d->over = over;
    d->arg = arg;
    mr_register_init(&d->reg, o->pool);
    mr_bus_topic(kafka, MR_TOPIC_CONTROL, d->topic);
    if (connect_all(d, m, err) == 0) return d;
    mr_drive_free(d);
    return NULL;
}

void mr_drive_free(mr_drive *d) {
    if (!d) return;
    mr_timer_free(d->timer);
    mr_producer_free(d->producer, FLUSH_MS);
    mr_consumer_free(d->control);
    mr_view_free(d->view);
    mr_lag_reader_free(d->lag);
    mr_arena_free(d->arena);
    free(d);
}

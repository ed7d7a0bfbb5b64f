/* `millrace recycle WORKER`: has a worker replace its engine host, and waits until it has. All on the loop's thread. */
#include "base/bus.h"
#include "base/log.h"
#include "base/main.h"
#include "ops/cli/commands.h"
#include "schemas/messages.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define TICK_MS      50
#define RECORD_BYTES (1 << 20)
#define FLUSH_MS     5000

typedef struct recycle_conf {
    int64_t timeout_s;
} recycle_conf;

static const mr_conf_key recycle_keys[] = {
    {"timeout_s", MR_CONF_INT, offsetof(recycle_conf, timeout_s), "900", 1, 86400, NULL,
     "Seconds to wait for the worker; it goes on without us."},
    {0},
};

static recycle_conf conf;
static mr_kafka_conf kafka;
static mr_log_conf logging;
static const char *worker;

static const mr_conf_group groups[] = {
    {"recycle", recycle_keys, &conf}, {"kafka", mr_kafka_keys, &kafka}, {"log", mr_log_keys, &logging}, {0}};

typedef struct recycle {
    mr_loop *loop;
    mr_arena *arena;
    mr_producer *producer;
    mr_consumer *control;
    char topic[250];
    int64_t order, until_us;
    bool sent, done;
} recycle;

static int give_up(recycle *r, const char *why) {
    fprintf(stderr, "millrace recycle: %s\n", why);
    mr_loop_stop(r->loop);
    return -1;
}

static bool on_record(void *arg, const mr_record *rec) {
    recycle *r = arg;
    mr_control c;
    mr_error err;
    mr_arena_reset(r->arena);
    if (r->sent && rec->value.n &&
        mr_decode(&mr_control_def, rec->value, mr_record_header(rec, "content-type"), r->arena, &c, &err) ==
            0 &&
        c.kind == MR_CONTROL_IS_RECYCLED && mr_str_eqz(c.worker, worker) && c.order == r->order) {
        printf("%s: %.*s\n", worker, MR_FMT(c.outcome));
        r->done = true;
        mr_loop_stop(r->loop);
    }
    mr_bus_done(r->control, rec->topic, rec->partition, rec->offset);
    return true;
}

static void on_delivered(void *arg, void *tag, const mr_error *err) {
    (void)tag;
    if (err) give_up(arg, err->msg);
}

static int send_order(recycle *r, mr_error *err) {
    char key[MR_NAME_MAX + 32];
    mr_buf body;
    mr_control c = {.set = 0};
    MR_SET(&c, MR_CONTROL_V, v, MR_SCHEMA_VERSION);
    MR_SET(&c, MR_CONTROL_KIND, kind, MR_CONTROL_IS_RECYCLE);
    MR_SET(&c, MR_CONTROL_WORKER, worker, mr_str_of(worker));
    MR_SET(&c, MR_CONTROL_ORDER, order, r->order);
    MR_SET(&c, MR_CONTROL_CREATED_MS, created_ms, mr_now_ms());
    mr_buf_init(&body, RECORD_BYTES);
    snprintf(key, sizeof(key), "recycle/%s", worker);
    const mr_header type = {"type", MR_STR("Control")};
    int rc = mr_pack(&mr_control_def, &c, &body, err);
    const mr_produce rec = {.topic = r->topic,
                            .partition = -1,
                            .key = mr_str_of(key),
                            .value = mr_buf_str(&body),
                            .headers = &type,
                            .nheaders = 1,
                            .tag = r};
    if (rc == 0) rc = mr_producer_send(r->producer, &rec, err);
    mr_buf_done(&body);
    return rc;
}

/* The order is given once its answer cannot be missed. */
static void on_tick(void *arg) {
    recycle *r = arg;
    mr_error err;
    char why[300];
    if (!r->sent && mr_consumer_caught_up(r->control)) {
        r->sent = true;
        if (send_order(r, &err) != 0) give_up(r, err.msg);
    } else if (mr_mono_us() > r->until_us) {
        snprintf(why, sizeof(why),
                 r->sent ? "worker %s has not answered in %lld s: is that its id, does it run, is the pool's "
                           "turn taken? "
                           "Its log tells"
                         : "chat.control cannot be read (worker %s was not asked in %lld s)",
                 worker, (long long)conf.timeout_s);
        give_up(r, why);
    }
}

static void on_drain(void *arg) {
    mr_loop_stop(arg);
}

static int serve(mr_loop *loop, mr_error *err) {
    int rc = -1;
    mr_timer *tick = NULL;
    mr_metrics *m = mr_metrics_new(err);
    recycle r = {.loop = loop, .arena = mr_arena_new(RECORD_BYTES), .order = mr_now_ms()};
    if (!m) goto out;
    if (!r.arena) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        goto out;
    }
    mr_bus_topic(&kafka, MR_TOPIC_CONTROL, r.topic);
    const mr_consumer_options o = {
        .topics = {r.topic}, .partition = -1, .start = MR_FROM_END, .on_record = on_record, .arg = &r};
    r.until_us = mr_mono_us() + conf.timeout_s * 1000000;
    r.producer = mr_producer_new(&kafka, loop, m, "recycle", on_delivered, &r, err);
    if (r.producer) r.control = mr_consumer_new(&kafka, &o, loop, m, "recycle", err);
    if (r.control) tick = mr_timer_new(loop, TICK_MS, on_tick, &r, err);
    if (!tick) goto out;
    mr_loop_on_drain(loop, 1000, on_drain, loop);
    rc = mr_loop_run(loop);
    if (rc == 0 && !r.done) rc = 1;
out:
    mr_timer_free(tick);
    mr_consumer_free(r.control);
    mr_producer_free(r.producer, FLUSH_MS);
    mr_arena_free(r.arena);
    mr_metrics_free(m);
    return rc;
}

int cmd_recycle(int argc, char **argv) {
    const mr_main_options options = {
        .name = "millrace recycle WORKER",
        .part = "recycle",
        .about = "Has a worker replace its engine host by a fresh one, while its answers go on, and waits "
                 "for that.",
        .groups = groups,
        .log = &logging,
    };
    bool named = argc > 1 && argv[1][0] != '-', asks = argc > 1 && strcmp(argv[1], "--help") == 0;
    if (!named && !asks) {
        fprintf(stderr, "millrace recycle: name a worker by its worker.id. Try millrace recycle --help.\n");
        return 2;
    }
    if (named) worker = *++argv;
    if (named && strlen(worker) > MR_NAME_MAX) {
        fprintf(stderr, "millrace recycle: no worker has so long a name\n");
        return 2;
    }
    return mr_main_serve(argc - named, argv, &options, serve);
}

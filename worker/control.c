/* chat.control, as far as a worker cares. See control.h. */
#include "worker/control.h"

#include "base/log.h"
#include "schemas/messages.h"
#include "worker/recent.h"

#include <stdlib.h>
#include <string.h>

#define CANCELS 4096 /* remembered */

struct mr_control_reader {
    mr_consumer *consumer;
    mr_recent *cancels;
    mr_arena *arena;
    char topic[250];
    mr_control_orders orders;
};

/* One that stands there already when we start was given to those before us. */
static bool is_my_drain(const mr_control_reader *c, const mr_control *m) {
    return m->kind == MR_CONTROL_IS_DRAIN && mr_consumer_caught_up(c->consumer) &&
           mr_str_eqz(m->pool, c->orders.pool) && strcmp(mr_color_names[m->color], c->orders.color) == 0;
}

static bool is_my_recycling(const mr_control_reader *c, const mr_control *m) {
    return m->kind == MR_CONTROL_IS_RECYCLE && mr_consumer_caught_up(c->consumer) &&
           mr_str_eqz(m->worker, c->orders.worker);
}

static bool goes_on(int rollout_state) {
    return rollout_state != MR_ROLLOUT_DONE && rollout_state != MR_ROLLOUT_ROLLED_BACK &&
           rollout_state != MR_ROLLOUT_ABORTED;
}

static bool on_record(void *arg, const mr_record *r) {
    mr_control_reader *c = arg;
    mr_control m;
    mr_error err;
    mr_arena_reset(c->arena);
    if (r->value.n == 0) {
        /* a tombstone */
    } else if (mr_decode(&mr_control_def, r->value, mr_record_header(r, "content-type"), c->arena, &m,
                         &err)) {
        mr_log(MR_WARN, "control record ignored", MR_I("offset", r->offset), MR_S("error", err.msg));
    } else if (m.kind == MR_CONTROL_IS_CANCEL) {
        mr_recent_add(c->cancels, m.request);
        c->orders.cancel(c->orders.arg, m.request);
    } else if (is_my_drain(c, &m)) {
        c->orders.drain(c->orders.arg);
    } else if (is_my_recycling(c, &m)) {
        c->orders.recycle(c->orders.arg, m.order);
    } else if (m.kind == MR_CONTROL_IS_ROLLOUT && mr_str_eqz(m.pool, c->orders.pool)) {
        c->orders.rollout(c->orders.arg, goes_on(m.rollout.state));
    }
    mr_bus_done(c->consumer, r->topic, r->partition, r->offset);
    return true;
}

mr_control_reader *mr_control_new(const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m,
                                  const mr_control_orders *orders, mr_error *err) {
    mr_control_reader *c = calloc(1, sizeof(*c));
    if (!c) {
        mr_fail(err, MR_ENOMEM, "out of memory for the control reader");
        return NULL;
    }
    *c = (mr_control_reader){.orders = *orders, .arena = mr_arena_new(1 << 20)};
    mr_bus_topic(kafka, MR_TOPIC_CONTROL, c->topic);
    const mr_consumer_options opt = {
        .topics = {c->topic}, .partition = -1, .start = MR_FROM_BEGINNING, .on_record = on_record, .arg = c};
    c->cancels = mr_recent_new(CANCELS, err);
    if (c->cancels && !c->arena) mr_fail(err, MR_ENOMEM, "out of memory for the control reader");
    if (c->cancels && c->arena) c->consumer = mr_consumer_new(kafka, &opt, l, m, "worker_control", err);
    if (c->consumer) return c;
    mr_control_free(c);
    return NULL;
}

void mr_control_free(mr_control_reader *c) {
    if (!c) return;
    mr_consumer_free(c->consumer);
    mr_recent_free(c->cancels);
    mr_arena_free(c->arena);
    free(c);
}

bool mr_control_cancelled(const mr_control_reader *c, mr_str request) {
    return mr_recent_has(c->cancels, request);
}
bool mr_control_caught_up(const mr_control_reader *c) {
    return mr_consumer_caught_up(c->consumer);
}

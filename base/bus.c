/* What producer, consumer and topics share: names, client configuration, wake-ups, headers (see bus.h).
 * Runs on the loop's thread, except mr_bus_log, which librdkafka calls from its own threads. */
#include "base/bus_internal.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

void mr_bus_topic(const mr_kafka_conf *conf, const char *name, char out[250]) {
    snprintf(out, 250, "%s%s", conf->prefix, name);
}

void mr_bus_generate_topic(const mr_kafka_conf *conf, const char *pool, const char *color, char out[250]) {
    snprintf(out, 250, "%s%s.%s.%s", conf->prefix, MR_TOPIC_GENERATE, pool, color);
}

mr_str mr_record_header(const mr_record *r, const char *name) {
    rd_kafka_headers_t *headers;
    const void *value;
    size_t n;
    if (rd_kafka_message_headers(r->raw, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR) return MR_STR("");
    if (rd_kafka_header_get_last(headers, name, &value, &n) != RD_KAFKA_RESP_ERR_NO_ERROR) return MR_STR("");
    return value ? (mr_str){value, n} : MR_STR("");
}

mr_record mr_bus_record(const rd_kafka_message_t *m, const char *topic) {
    int64_t ts = rd_kafka_message_timestamp(m, NULL);
    return (mr_record){.topic = topic,
                       .partition = m->partition,
                       .offset = m->offset,
                       .timestamp_ms = ts,
                       .key = {m->key ? m->key : "", m->key_len},
                       .value = {m->payload ? m->payload : "", m->len},
                       .raw = m};
}

/* ---- client configuration ---- */

void mr_bus_log(const rd_kafka_t *rk, int level, const char *facility, const char *text) {
    (void)rk;
    /* syslog's levels: up to 4 is warning or worse */
    mr_log(level <= 4 ? MR_WARN : MR_DEBUG, "kafka client", MR_S("facility", facility), MR_S("text", text));
}

int mr_bus_set(rd_kafka_conf_t *c, const char *name, const char *value, mr_error *err) {
    char why[300];
    if (rd_kafka_conf_set(c, name, value, why, sizeof(why)) == RD_KAFKA_CONF_OK) return 0;
    return mr_fail(err, MR_EINVAL, "kafka client: %s", why);
}

int mr_bus_set_int(rd_kafka_conf_t *c, const char *name, int64_t value, mr_error *err) {
    char text[32];
    snprintf(text, sizeof(text), "%" PRId64, value);
    return mr_bus_set(c, name, text, err);
}

int mr_bus_conf_extra(rd_kafka_conf_t *c, const mr_kafka_conf *k, mr_error *err) {
    for (int i = 0; i < k->extra.n; i++) {
        const char *entry = k->extra.v[i], *eq = strchr(entry, '=');
        char name[128];
        if (!eq || eq == entry || (size_t)(eq - entry) >= sizeof(name)) {
            return mr_fail(err, MR_EINVAL, "kafka.extra: '%.80s' is not of the form property=value", entry);
        }
        snprintf(name, sizeof(name), "%.*s", (int)(eq - entry), entry);
        if (mr_bus_set(c, name, eq + 1, err) != 0) return mr_fail_in(err, "kafka.extra");
    }
    return 0;
}

rd_kafka_conf_t *mr_bus_conf(const mr_kafka_conf *k, const char *part, mr_error *err) {
    char client[80];
    snprintf(client, sizeof(client), "millrace-%s", part);
    rd_kafka_conf_t *c = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(c, mr_bus_log);
    if (mr_bus_set(c, "bootstrap.servers", k->brokers, err) != 0 ||
        mr_bus_set(c, "client.id", client, err) != 0 ||
        /* a local broker that restarts should be found again within a second, not ten */
        mr_bus_set(c, "reconnect.backoff.max.ms", "1000", err) != 0 ||
        mr_bus_set_int(c, "message.max.bytes", k->message_max + MR_BUS_OVERHEAD, err) != 0) {
        rd_kafka_conf_destroy(c);
        return NULL;
    }
    return c;
}

/* ---- wake-ups ---- */

static void on_wake(evutil_socket_t fd, short what, void *arg) {
    mr_bus_wake *w = arg;
    uint64_t n;
    /* empty when mr_bus_wake_again brought us here: then there is nothing to take */
    if ((what & EV_READ) && read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN) {
        mr_log(MR_ERROR, "kafka wake-up failed", MR_S("error", strerror(errno)));
    }
    w->cb(w->arg);
}

int mr_bus_wake_init(mr_bus_wake *w, mr_loop *l, mr_loop_cb *cb, void *arg, mr_error *err) {
    *w = (mr_bus_wake){.cb = cb, .arg = arg};
    w->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (w->fd < 0) return mr_fail(err, MR_EIO, "no file descriptor for Kafka: %s", strerror(errno));
    w->ev = event_new(mr_loop_base(l), w->fd, EV_READ | EV_PERSIST, on_wake, w);
    if (w->ev && event_add(w->ev, NULL) == 0) return 0;
    mr_bus_wake_done(w);
    return mr_fail(err, MR_ENOMEM, "out of memory while connecting Kafka to the event loop");
}

void mr_bus_wake_done(mr_bus_wake *w) {
    if (!w->cb) return; /* never opened */
    if (w->ev) event_free(w->ev);
    if (w->fd >= 0) close(w->fd);
    *w = (mr_bus_wake){0};
}

void mr_bus_wake_on(mr_bus_wake *w, rd_kafka_queue_t *q) {
    static const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(q, w->fd, &one, sizeof(one));
}

void mr_bus_wake_again(mr_bus_wake *w) {
    event_active(w->ev, EV_TIMEOUT, 0);
}

/* ---- metrics ---- */

static void metric_name(char out[128], const char *part, const char *what) {
    snprintf(out, 128, "millrace_%s_%s", part, what);
}

mr_counter *mr_bus_counter(mr_metrics *m, const char *part, const char *what, const char *help) {
    char name[128];
    metric_name(name, part, what);
    return mr_counter_new(m, name, NULL, help);
}

mr_gauge *mr_bus_gauge(mr_metrics *m, const char *part, const char *what, const char *help) {
    char name[128];
    metric_name(name, part, what);
    return mr_gauge_new(m, name, NULL, help);
}

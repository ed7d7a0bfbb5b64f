/* Metrics and health pages (see metrics.h).
 *
 * The registry is a list that only grows, by the loop's thread, which also serves it. Values are relaxed
 * atomics: a scrape may see one counter a moment before another, which Prometheus does not mind. */
#include "base/metrics.h"

#include "base/log.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX   (8u << 20)
#define TIMEOUT_S  10
#define HEADER_MAX 8192

static const double bounds[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                0.5,    1,     2.5,    5,     10,   30,    60,   120, 300};
#define NBOUNDS (sizeof(bounds) / sizeof(bounds[0]))

typedef enum { COUNTER, GAUGE, HISTOGRAM } kind;
static const char *const kind_names[] = {"counter", "gauge", "histogram"};

struct mr_counter {
    _Atomic uint64_t n;
};

struct mr_gauge {
    _Atomic uint64_t bits; /* a double's: C11 has no atomic addition of doubles anyway */
};

struct mr_histogram {
    _Atomic uint64_t buckets[NBOUNDS + 1]; /* each its own count; summed up when shown */
    _Atomic uint64_t sum_us;
};

typedef struct metric {
    struct metric *next;
    kind kind;
    char *name, *labels, *help;
    union {
        mr_counter counter;
        mr_gauge gauge;
        mr_histogram histogram;
    };
} metric;

struct mr_metrics {
    metric *first, **last;
    struct evhttp *http;
    mr_ready_cb *ready;
    void *ready_arg;
};

/* What a caller gets when there is no memory: it counts, and is not shown. */
static metric unshown;

static uint64_t double_bits(double v) {
    uint64_t u;
    memcpy(&u, &v, sizeof(u));
    return u;
}

static double bits_double(uint64_t u) {
    double v;
    memcpy(&v, &u, sizeof(v));
    return v;
}

/* ---- registry ---- */

mr_metrics *mr_metrics_new(mr_error *err) {
    mr_metrics *m = calloc(1, sizeof(*m));
    if (!m) {
        mr_fail(err, MR_ENOMEM, "out of memory while creating the metrics");
        return NULL;
    }
    m->last = &m->first;
    return m;
}

static void metric_free(metric *x) {
    free(x->name);
    free(x->labels);
    free(x->help);
    free(x);
}

void mr_metrics_free(mr_metrics *m) {
    if (!m) return;
    if (m->http) evhttp_free(m->http);
    metric *next;
    for (metric *x = m->first; x; x = next) {
        next = x->next;
        metric_free(x);
    }
    free(m);
}

/* The metric of this name and these labels, which two users of one kind may share. */
static metric *find(mr_metrics *m, kind k, const char *name, const char *labels) {
    for (metric *x = m->first; x; x = x->next) {
        if (x->kind == k && strcmp(x->name, name) == 0 && strcmp(x->labels, labels) == 0) return x;
    }
    return NULL;
}

static metric *metric_new(mr_metrics *m, kind k, const char *name, const char *labels, const char *help) {
    if (!labels) labels = "";
    metric *x = find(m, k, name, labels);
    if (x) return x;
    x = calloc(1, sizeof(*x));
    if (!x) goto fail;
    x->kind = k;
    x->name = strdup(name);
    x->labels = strdup(labels);
    x->help = strdup(help);
    if (!x->name || !x->labels || !x->help) goto fail;
    *m->last = x;
    m->last = &x->next;
    return x;
fail:
    mr_log(MR_ERROR, "out of memory: a metric is not shown", MR_S("metric", name));
    if (x) metric_free(x);
    return &unshown;
}

mr_counter *mr_counter_new(mr_metrics *m, const char *name, const char *labels, const char *help) {
    return &metric_new(m, COUNTER, name, labels, help)->counter;
}

mr_gauge *mr_gauge_new(mr_metrics *m, const char *name, const char *labels, const char *help) {
    return &metric_new(m, GAUGE, name, labels, help)->gauge;
}

mr_histogram *mr_histogram_new(mr_metrics *m, const char *name, const char *labels, const char *help) {
    return &metric_new(m, HISTOGRAM, name, labels, help)->histogram;
}

/* ---- updates ---- */

void mr_counter_add(mr_counter *c, uint64_t n) {
    atomic_fetch_add_explicit(&c->n, n, memory_order_relaxed);
}

void mr_gauge_set(mr_gauge *g, double v) {
    atomic_store_explicit(&g->bits, double_bits(v), memory_order_relaxed);
}

void mr_histogram_observe(mr_histogram *h, double seconds) {
    if (!(seconds >= 0)) seconds = 0; /* a clock that went back, or NaN */
    size_t i = 0;
    while (i < NBOUNDS && seconds > bounds[i]) i++;
    atomic_fetch_add_explicit(&h->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum_us, (uint64_t)(seconds * 1e6), memory_order_relaxed);
}

/* ---- text ---- */

static void put_histogram(const metric *x, mr_buf *out) {
    const char *comma = *x->labels ? "," : "";
    uint64_t count = 0;
    for (size_t i = 0; i < NBOUNDS; i++) {
        count += atomic_load_explicit(&x->histogram.buckets[i], memory_order_relaxed);
        mr_buf_printf(out, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", x->name, x->labels, comma, bounds[i],
                      count);
    }
    count += atomic_load_explicit(&x->histogram.buckets[NBOUNDS], memory_order_relaxed);
    mr_buf_printf(out, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", x->name, x->labels, comma, count);
    const char *open = *x->labels ? "{" : "", *close = *x->labels ? "}" : "";
    double sum = (double)atomic_load_explicit(&x->histogram.sum_us, memory_order_relaxed) / 1e6;
    mr_buf_printf(out, "%s_sum%s%s%s %.9g\n", x->name, open, x->labels, close, sum);
    mr_buf_printf(out, "%s_count%s%s%s %" PRIu64 "\n", x->name, open, x->labels, close, count);
}

static void put_sample(const metric *x, mr_buf *out) {
    if (x->kind == HISTOGRAM) {
        put_histogram(x, out);
        return;
    }
    const char *open = *x->labels ? "{" : "", *close = *x->labels ? "}" : "";
    mr_buf_printf(out, "%s%s%s%s ", x->name, open, x->labels, close);
    if (x->kind == COUNTER) {
        mr_buf_printf(out, "%" PRIu64 "\n", atomic_load_explicit(&x->counter.n, memory_order_relaxed));
    } else {
        mr_buf_printf(out, "%.9g\n", bits_double(atomic_load_explicit(&x->gauge.bits, memory_order_relaxed)));
    }
}

static bool shown_before(const mr_metrics *m, const metric *x) {
    for (const metric *y = m->first; y != x; y = y->next) {
        if (strcmp(y->name, x->name) == 0) return true;
    }
    return false;
}

void mr_metrics_text(mr_metrics *m, mr_buf *out) {
    for (const metric *x = m->first; x; x = x->next) {
        if (shown_before(m, x)) continue;
        mr_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", x->name, x->help, x->name, kind_names[x->kind]);
        /* samples of one name must stand together */
        for (const metric *y = x; y; y = y->next) {
            if (strcmp(y->name, x->name) == 0) put_sample(y, out);
        }
    }
}

/* ---- pages ---- */

static void reply(struct evhttp_request *req, int code, const char *reason, const char *type, mr_str body) {
    struct evbuffer *out = evbuffer_new();
    if (!out || evbuffer_add(out, body.p, body.n) != 0) {
        evhttp_send_error(req, HTTP_INTERNAL, NULL);
    } else {
        evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Type", type);
        evhttp_send_reply(req, code, reason, out);
    }
    if (out) evbuffer_free(out);
}

/* What every process counts by itself. */
static void put_process(mr_buf *out) {
    mr_buf_printf(out,
                  "# HELP millrace_log_lost_lines_total Log lines that could not be written.\n"
                  "# TYPE millrace_log_lost_lines_total counter\nmillrace_log_lost_lines_total %" PRIu64 "\n",
                  mr_log_lost());
}

static void on_metrics(struct evhttp_request *req, void *arg) {
    mr_buf text;
    mr_buf_init(&text, TEXT_MAX);
    mr_metrics_text(arg, &text);
    put_process(&text);
    if (text.failed) {
        reply(req, HTTP_INTERNAL, "Error", "text/plain", MR_STR("the metrics do not fit in memory\n"));
    } else {
        reply(req, HTTP_OK, "OK", "text/plain; version=0.0.4; charset=utf-8", mr_buf_str(&text));
    }
    mr_buf_done(&text);
}

static void on_livez(struct evhttp_request *req, void *arg) {
    (void)arg; /* that the loop came here is the answer */
    reply(req, HTTP_OK, "OK", "text/plain; charset=utf-8", MR_STR("ok\n"));
}

static void on_readyz(struct evhttp_request *req, void *arg) {
    mr_metrics *m = arg;
    char why[256] = "not ready";
    if (!m->ready || m->ready(m->ready_arg, why, sizeof(why) - 1)) {
        reply(req, HTTP_OK, "OK", "text/plain; charset=utf-8", MR_STR("ok\n"));
        return;
    }
    size_t n = strnlen(why, sizeof(why) - 1);
    why[n++] = '\n';
    reply(req, HTTP_SERVUNAVAIL, "Not Ready", "text/plain; charset=utf-8", (mr_str){why, n});
}

int mr_metrics_serve(mr_metrics *m, mr_loop *l, const char *host, int port, mr_ready_cb *ready, void *arg,
                     mr_error *err) {
    if (port == 0) return 0;
    m->ready = ready;
    m->ready_arg = arg;
    m->http = evhttp_new(mr_loop_base(l));
    if (!m->http) return mr_fail(err, MR_ENOMEM, "out of memory while opening the metrics port");
    evhttp_set_allowed_methods(m->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    evhttp_set_timeout(m->http, TIMEOUT_S);
    evhttp_set_max_headers_size(m->http, HEADER_MAX);
    evhttp_set_max_body_size(m->http, 0);
    if (evhttp_set_cb(m->http, "/metrics", on_metrics, m) != 0 ||
        evhttp_set_cb(m->http, "/livez", on_livez, m) != 0 ||
        evhttp_set_cb(m->http, "/readyz", on_readyz, m) != 0) {
        return mr_fail(err, MR_ENOMEM, "out of memory while opening the metrics port");
    }
    if (evhttp_bind_socket(m->http, host, (uint16_t)port) != 0) {
        return mr_fail(err, MR_EIO, "metrics cannot be served on %s:%d: %s; choose another metrics_port",
                       host, port, strerror(errno));
    }
    return 0;
}

/* Metrics in Prometheus' text form, and the health pages, on a port of each process's own.
 *
 * Names: millrace_<part>_<what>_<unit>[_total]. A metric is registered once at start and lives as long as the
 * registry; label values are fixed at registration (never a user or request id). Updates are lock-free atomics and may
 * come from any thread; registration and serving belong to the loop's thread.
 */
#ifndef MR_METRICS_H
#define MR_METRICS_H

#include "base/error.h"
#include "base/loop.h"
#include "base/str.h"

#include <stdbool.h>

typedef struct mr_metrics mr_metrics;
typedef struct mr_counter mr_counter;
typedef struct mr_gauge mr_gauge;
typedef struct mr_histogram mr_histogram;

mr_metrics *mr_metrics_new(mr_error *err);
void mr_metrics_free(mr_metrics *m);

/* labels: `source="kb"` as it stands between the braces, or NULL. Never fail: out of memory is said once in the
 * log and gives a metric that counts but is not shown. */
mr_counter *mr_counter_new(mr_metrics *m, const char *name, const char *labels, const char *help);
mr_gauge *mr_gauge_new(mr_metrics *m, const char *name, const char *labels, const char *help);
/* Seconds, buckets from 0.5 ms to 300 s. */
mr_histogram *mr_histogram_new(mr_metrics *m, const char *name, const char *labels, const char *help);

void mr_counter_add(mr_counter *c, uint64_t n);
void mr_gauge_set(mr_gauge *g, double v);
void mr_histogram_observe(mr_histogram *h, double seconds);

void mr_metrics_text(mr_metrics *m, mr_buf *out);

/* Serve /metrics, /livez and /readyz on host:port (port 0 = none). ready answers /readyz: true, or false with the
 * reason in `why`. */
typedef bool mr_ready_cb(void *arg, char *why, size_t why_size);
int mr_metrics_serve(mr_metrics *m, mr_loop *l, const char *host, int port, mr_ready_cb *ready, void *arg,
                     mr_error *err);

#endif

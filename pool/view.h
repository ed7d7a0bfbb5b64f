/* The workers as their statuses on chat.workers show them: who is there, what each pool and color can do and has done.
 *
 * A view reads the topic's last records at its start, so that it knows the pool at once, and then what comes. A worker is
 * there while it spoke within MR_VIEW_LIVE_MS; nobody's clock but the reader's decides that, except for what was written
 * before the view began. Belongs to the loop's thread.
 *
 * chat.workers is a topic of its own, because chat.control is read whole by every process that starts, and because the
 * embedded broker, which compacts nothing, would drop the orders of a day for an hour of heartbeats.
 */
#ifndef MR_VIEW_H
#define MR_VIEW_H

#include "base/bus.h"
#include "pool/hist.h"

#define MR_VIEW_LIVE_MS 15000
#define MR_POOL_NAME    101 /* bytes of a pool's name with its NUL */

typedef struct mr_view mr_view;

/* Counts of a worker since its start, or of a color since the view began. */
typedef struct mr_totals {
    int64_t ok, errors, cancelled, tokens, served, service_ms;
    mr_hist first_token, speed;
} mr_totals;

/* Requests that came to an end which says something about the worker. */
int64_t mr_totals_requests(const mr_totals *t);
/* out = a - b */
void mr_totals_since(mr_totals *out, const mr_totals *a, const mr_totals *b);

typedef struct mr_worker {
    char id[MR_NAME_MAX + 1], host[MR_NAME_MAX + 1], model[MR_NAME_MAX + 1], metrics[MR_NAME_MAX + 1];
    char pool[MR_POOL_NAME];
    int color, state;
    int64_t started_ms, seen_ms; /* unix times: its own start, and our hearing of it */
    int64_t partitions, slots, running, waiting, behind, engines_lost;
    double kv_used;
    mr_totals totals;
} mr_worker;

/* What the live workers of one pool and color are and do together. */
typedef struct mr_color_view {
    int workers, ready, standby;      /* ready: takes requests, and has generated a token */
    int64_t partitions;               /* of those that are ready */
    int64_t slots, busy;              /* likewise: requests that can run at once, and those that do */
    int64_t running, waiting, behind; /* of all live workers */
    double requests_s, tokens_s;      /* over the last 30 s */
    int64_t service_ms, served;       /* since the workers' starts */
    mr_totals totals;                 /* since the view began */
} mr_color_view;

/* kafka NULL: a view that is only fed by hand. Fails when the topic is not there. */
mr_view *mr_view_new(const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m, const char *part, mr_error *err);
void mr_view_free(mr_view *v);
bool mr_view_caught_up(const mr_view *v); /* what was there at the start is read */

/* Takes a status as of now_ms (unix time); `old`: it was written before the view began. */
void mr_view_feed(mr_view *v, const mr_worker_status *s, int64_t now_ms, bool old);

int mr_view_count(const mr_view *v);
/* Worker i of them, silent ones too; borrowed until the loop goes on. */
const mr_worker *mr_view_worker(const mr_view *v, int i);
bool mr_view_live(const mr_worker *w, int64_t now_ms);

void mr_view_color(const mr_view *v, const char *pool, int color, int64_t now_ms, mr_color_view *out);

/* Milliseconds that a new request would wait for a slot; -1 when nothing is known. It errs on the short side: 0 while a
 * slot is free, and the better of what the workers did and what they could do. */
int64_t mr_view_wait_ms(const mr_color_view *c);

/* The latest word of the routers on the pool that serves `model`; -1 when there is none, or none that is fresh. */
int64_t mr_view_model_wait_ms(const mr_view *v, mr_str model, int64_t now_ms);

#endif

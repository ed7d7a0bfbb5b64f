/* What the worker tells everybody about itself: a WorkerStatus on chat.workers, once a second while something changes, every
 * 5 s otherwise, and at once when its state changes. It counts what ends here; the rest is told to it.
 *
 * Loop's thread.
 */
#ifndef MR_REPORT_H
#define MR_REPORT_H

#include "worker/job.h"
#include "worker/publish.h"

typedef struct mr_report mr_report;

typedef struct mr_report_identity {
    const char *id, *pool, *color, *model, *metrics_host; /* borrowed */
    int metrics_port;                                     /* 0: none */
} mr_report_identity;

/* What the supervisor knows of itself. */
typedef struct mr_report_now {
    int state; /* MR_WORKER_… */
    int64_t partitions, slots, running, waiting, behind, engines_lost;
    double kv_used;
} mr_report_now;

mr_report *mr_report_new(const mr_report_identity *who, mr_publisher *p, mr_error *err);
void mr_report_free(mr_report *r);

void mr_report_tokens(mr_report *r, int64_t n);
void mr_report_first_token(mr_report *r, const mr_job *j);
/* The job has ended with this finish; status is that of its error, 0 without one. */
void mr_report_end(mr_report *r, const mr_job *j, int finish, int64_t status);

/* Sends what is due. To be called often. */
void mr_report_send(mr_report *r, const mr_report_now *now);

#endif

/* A job: one request in this worker's hands, from its record to the delivery of its terminal record.
 *
 *     looking ──> waiting ──> running ──> ending ──> (freed)
 *                    ^            │           ^
 *                    └─ stopping <┘───────────┘   told the engine to stop: why says what follows
 *
 * The state changes through mr_job_set_state alone. The table owns the jobs; a job's members have one writer each: receive.c
 * fills it, dispatch.c runs it, answer.c ends it. Belongs to the loop's thread.
 */
#ifndef MR_JOB_H
#define MR_JOB_H

#include "worker/admit.h"
#include "worker/stream.h"

typedef enum { MR_JOB_LOOKING, MR_JOB_WAITING, MR_JOB_RUNNING, MR_JOB_STOPPING, MR_JOB_ENDING } mr_job_state;

/* Why the engine was told to stop. */
typedef enum {
    MR_STOP_NONE,
    MR_STOP_CANCEL,   /* its user went away */
    MR_STOP_DEADLINE, /* nobody waits any more */
    MR_STOP_ASIDE,    /* makes room for another tenant, and goes on later */
    MR_STOP_PARK,     /* makes room for another's trial, and goes on later */
    MR_STOP_LOST,     /* another worker was given it: nothing more is said */
    MR_STOP_BROKEN,   /* its stream has a hole: from the start again */
} mr_stop;

typedef struct mr_job {
    mr_ticket ticket; /* first: a ticket in line is its job */
    mr_stream stream;
    struct mr_job *prev, *next; /* all jobs, in the order they came */
    struct mr_supervisor *of;
    mr_job_state state;
    mr_stop stop;

    char id[MR_ID_MAX + 1], tenant[MR_NAME_MAX + 1], trace[65];
    mr_buf request;                   /* ChatRequest in msgpack, as the engine host gets it */
    int64_t created_ms, timestamp_ms; /* timestamp: of its record */
    int32_t partition;
    int64_t offset;
    bool ours; /* its partition is assigned to us */

    int64_t starts;    /* that have not ended, this one included */
    int64_t counted;   /* what the last of them added to Redis' count: more for one alone on trial */
    int64_t uncounted; /* what Redis does not count, as another worker had the request then */
    int trials, breaks;
    bool known_place; /* it was running when an engine died: its trial is over once it is past that place */
    int asides;       /* how often it made room for another tenant */
    bool parked;      /* its next start is no new one */
    bool tried;       /* it runs on trial */
    bool named;       /* its engine or worker died while it ran alone on trial: it is given up */

    bool keeps;    /* its turn is kept in its session: */
    mr_buf answer; /* the content so far, as much as is kept */

    int64_t *tokens; /* the answer so far */
    uint32_t ntokens, tokens_cap;
    int64_t computing;   /* tokens that the engine has to compute before its next one; 0: it has begun */
    uint32_t nforced;    /* those that came with the request */
    uint32_t resumed_at; /* how many it had when it was started last */
    int64_t engine_id;   /* of the submit; 0: not in an engine */
    struct mr_engine *in;
    struct mr_job *in_prev, *in_next; /* all that are in that engine */

    int64_t received_us, started_us, first_token_us; /* 0: not yet */
} mr_job;

typedef struct mr_jobs mr_jobs;

mr_jobs *mr_jobs_new(mr_error *err);
void mr_jobs_free(mr_jobs *t); /* and every job in it, whatever is in the air */

/* A new job of this id in state looking, its stream not yet open. */
mr_job *mr_jobs_add(mr_jobs *t, mr_str id, mr_error *err);
/* Its stream must be idle, its ticket in no line. */
void mr_jobs_remove(mr_jobs *t, mr_job *j);
mr_job *mr_jobs_find(const mr_jobs *t, mr_str id);
mr_job *mr_jobs_first(const mr_jobs *t); /* then j->next */
int mr_jobs_count(const mr_jobs *t);
size_t mr_jobs_bytes(const mr_jobs *t); /* of all requests */
/* After the request was filled in. */
void mr_jobs_weigh(mr_jobs *t, const mr_job *j);

void mr_job_set_state(mr_job *j, mr_job_state s, const char *why);
const char *mr_job_state_name(mr_job_state s);
/* false: out of memory */
bool mr_job_add_tokens(mr_job *j, const int64_t *v, uint32_t n);

#endif

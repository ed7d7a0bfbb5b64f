/* What the supervisor's files share, and nobody else includes.
 *
 *     receive.c     records in: decoded, recognised when they come again, looked up, put in line
 *     dispatch.c    who runs next, and what to do when the engine dies
 *     answer.c      what the engine says, and how a request ends
 *     recycle.c     the engine host is replaced on purpose
 *     supervisor.c  wiring, readiness, drain
 */
#ifndef MR_WORKER_PARTS_H
#define MR_WORKER_PARTS_H

#include "worker/canary.h"
#include "worker/control.h"
#include "worker/host.h"
#include "worker/job.h"
#include "worker/recent.h"
#include "worker/recycle.h"
#include "worker/report.h"
#include "worker/starts.h"
#include "worker/supervisor.h"

#define MR_MAX_STARTS                                                                                        \
    5 /* a request whose starts failed so often is given up, also if others always ran beside it */

#define MR_BYTES_PER_TOKEN 4 /* of a request, as an estimate */
#define MR_PROMPT_WEIGHT                                                                                     \
    4 /* so many tokens of a prompt, which are computed together, cost a tenant as much as one of an answer */

#define MR_SLOTS        65536 /* of requests in engines */

#define MR_HOST_NUMBERS 5 /* flags of the engine host that are numbers */

/* What the engine counts since its start, and says in every `load`. */
typedef enum {
    MR_LOAD_STEPS,
    MR_LOAD_PREFILLED,
    MR_LOAD_PREEMPTIONS,
    MR_LOAD_WANTED,
    MR_LOAD_CACHED,
    MR_LOAD_GUESSED,
    MR_LOAD_RIGHT,
    MR_LOAD_COUNTERS
} mr_load_counter;

typedef struct mr_worker_metrics {
    mr_gauge *looping, *running, *waiting, *kv_usage, *batch, *engine_waiting, *engine_up;
    mr_counter *load[MR_LOAD_COUNTERS];
    int64_t load_last[MR_LOAD_COUNTERS];
    mr_counter *canaries, *wrong_canaries, *tokens, *prompt_tokens, *host_restarts, *redelivered, *dropped,
        *asides, *trials;
    mr_counter *finished[MR_FINISH_ERROR + 1];
    mr_histogram *first_token, *queued, *total;
} mr_worker_metrics;

/* An engine host and what runs in it. There are two while one takes over from the other. */
typedef struct mr_engine {
    struct mr_supervisor *of;
    mr_host *host; /* NULL: none */
    int running;   /* requests in it, and the canary */
    mr_job *jobs;  /* those requests */
} mr_engine;

struct mr_supervisor {
    mr_supervisor_options opt;
    mr_loop *loop;
    mr_worker_metrics metrics;
    char id[200], model[200], topic[250], group[300], engine_host[4096];
    const char *host_argv[26];
    char numbers[MR_HOST_NUMBERS][24]; /* of host_argv */

    mr_publisher *publisher;
    mr_report *report;
    mr_consumer *consumer;
    mr_control_reader *control;
    mr_store *store;
    mr_starts *starts;
    int64_t engines_lost;          /* before the current mr_host */
    mr_engine engines[2], *engine; /* the one that gets what starts */
    mr_recycle *recycle;
    mr_canary *canary;
    mr_engine *canary_in; /* that answers it now; or NULL */
    bool canary_wrong;    /* its last answer; nobody should come here then */
    mr_timer *tick;
    mr_arena *arena; /* of the record being received */

    mr_jobs *jobs;
    mr_recent *finished; /* records answered here, should they come again */
    mr_admit *line;
    mr_admit *suspects;     /* are to run in small groups, in the end alone */
    int trials, trial_most; /* how many of them run now, and may run together with these */
    mr_job **slots;         /* what is in the engines, by engine_id modulo MR_SLOTS */
    int places;             /* of an engine */
    int running;            /* in both */
    int64_t computing;      /* of all jobs in engines: tokens of prompts that were not computed yet */
    int64_t engine_waits;   /* sequences that it had no memory for, the last two times that it spoke… */
    int64_t engine_waited;  /* …and the last time */
    int64_t made_room_us;   /* when somebody last stepped aside */
    int64_t last_engine_id;
    bool full, closing;
    bool knows_cancels; /* that were given before it started */
    int64_t started_us;
    char last_death[500]; /* of the engine */
    int64_t drain_until_us;
    double kv_used; /* of the engine's last word */
    bool standby;   /* a rollout has drained this color, and worker.on_drained says to stay */
};

/* A record that is given up. */
typedef struct mr_burial {
    int32_t partition;
    int64_t offset;
    mr_str record, request, trace; /* request and trace may be empty */
    const char *why;
    int64_t attempts;
    bool last; /* no terminal record follows that would finish it */
} mr_burial;

/* receive.c */
bool mr_receive(void *supervisor, const mr_record *r);
void mr_receive_revoked(void *supervisor, const char *topic, int32_t partition);
int mr_receive_bury(mr_supervisor *s, const mr_burial *b, mr_error *err);
void mr_receive_buried(void *supervisor, int32_t partition, int64_t offset);
void mr_receive_resume(mr_supervisor *s); /* takes records again when there is room */
void mr_job_finished(mr_supervisor *s,
                     mr_job *j); /* its terminal record is in Kafka: the record is done, j freed */

/* supervisor.c */
int mr_supervisor_start_engine(mr_supervisor *s, mr_engine *e, mr_error *err);
void mr_supervisor_report_recycled(mr_supervisor *s, int64_t order, bool beside, int64_t took_us);

/* dispatch.c */
void mr_dispatch(mr_supervisor *s);                                  /* starts what may start */
void mr_dispatch_wait(mr_supervisor *s, mr_job *j, const char *why); /* into the line that is right for it */
bool mr_dispatch_counts(const mr_job *j); /* one of j->starts is under way, and has not failed */
void mr_dispatch_stop(mr_job *j, mr_stop why);
void mr_dispatch_drop(mr_supervisor *s, mr_job *j, const char *why);
void mr_dispatch_left(mr_supervisor *s, mr_job *j);     /* it is no more in the engine */
void mr_dispatch_computed(mr_supervisor *s, mr_job *j); /* its prompt is */
void mr_dispatch_progress(mr_supervisor *s, mr_job *j);
void mr_dispatch_ready(void *engine, const mr_frame_ready *f);
void mr_dispatch_lost(void *engine, const char *why);
void mr_dispatch_canary_left(mr_supervisor *s);
mr_job *mr_dispatch_find(const mr_supervisor *s, int64_t engine_id);

/* answer.c */
/* Its answer in Kafka, the turn goes to its session. */
void mr_answer_keep(mr_supervisor *s, const mr_job *j);
void mr_answer_frame(void *engine, const mr_frame *f);
/* base: NULL where the answer begins with nothing. */
int mr_answer_open(mr_supervisor *s, mr_job *j, int32_t reply_to, const mr_stream_base *base, mr_error *err);
/* The terminal record. usage: NULL where there is none. */
void mr_answer_end(mr_supervisor *s, mr_job *j, int finish, const mr_usage *usage);
void mr_answer_error(mr_supervisor *s, mr_job *j, int status, const char *code, const char *message);
void mr_answer_stopped(mr_supervisor *s, mr_job *j, const mr_usage *usage); /* as j->stop says */
/* The same for one in any state: takes it out of the line, or tells the engine. */
void mr_answer_stop(mr_supervisor *s, mr_job *j, mr_stop why);
void mr_answer_condemn(mr_supervisor *s, mr_job *j); /* it took its engine down too often */

/* supervisor.c */
void mr_supervisor_check_drained(mr_supervisor *s);

#endif

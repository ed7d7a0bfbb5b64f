/* What the files of `millrace up` share: its options, the plan of a local pipeline, and the chat it shows. */
#ifndef MR_CLI_UP_H
#define MR_CLI_UP_H

#include "base/error.h"
#include "base/loop.h"
#include "ops/cli/self.h"
#include "ops/cli/up_parts.h"

#include <stdbool.h>

#define MR_UP_WORKERS_MAX 16
#define MR_UP_NAME_MAX    200

typedef struct mr_up_options {
    char state[MR_PATH_MAX];     /* made absolute by mr_up_state_make, */
    char model[MR_PATH_MAX];     /* and this by mr_up_plan_check */
    char profile[MR_PATH_MAX];   /* and this; of the simulated engine */
    const char *brokers, *redis; /* borrowed; NULL: its own */
    int port, workers, threads;  /* threads 0: the engine's choice */
    bool kafka, detach, simulated;
} mr_up_options;

/* ---- the plan: which parts, on which ports ---- */

typedef struct mr_up_plan {
    const mr_up_options *o;
    char config[MR_PATH_MAX]; /* DIR/millrace.conf */
    char kb[MR_PATH_MAX];
    char model_name[MR_UP_NAME_MAX];
    char brokers[MR_UP_NAME_MAX], redis[MR_UP_NAME_MAX]; /* host:port */
    int broker_port, redis_port;                         /* 0: not ours */
    int gateway_metrics, router_metrics, worker_metrics[MR_UP_WORKERS_MAX];
} mr_up_plan;

/* Looks at what the user names: the model, and servers of their own. Nothing is written. */
int mr_up_plan_check(mr_up_plan *plan, mr_up_options *o, mr_error *err);
/* Makes the state folder. */
int mr_up_state_make(mr_up_options *o, mr_error *err);
/* Chooses free ports, and writes the configuration file that every part reads. The state folder must be ours alone. */
int mr_up_plan_make(mr_up_plan *plan, mr_error *err);
/* Starts broker and Redis. */
int mr_up_start_servers(const mr_up_plan *plan, mr_parts *parts, mr_error *err);
/* Once those answer: creates the topics and fills the knowledge base (blocks for seconds at most)… */
int mr_up_prepare(const mr_up_plan *plan, mr_error *err);
/* …and starts gateway, router and workers. */
int mr_up_start_millrace(const mr_up_plan *plan, mr_parts *parts, mr_error *err);

/* ---- one chat, shown as it streams ---- */

typedef struct mr_up_demo mr_up_demo;
/* Called once, from the loop: NULL, or why there was no answer. */
typedef void mr_up_demo_cb(void *arg, const mr_error *err);

mr_up_demo *mr_up_demo_start(mr_loop *l, int port, const char *model, const char *question, mr_up_demo_cb *cb,
                             void *arg, mr_error *err);
void mr_up_demo_free(mr_up_demo *d);

#endif

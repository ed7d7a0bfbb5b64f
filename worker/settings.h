/* The worker's configuration group. */
#ifndef MR_WORKER_SETTINGS_H
#define MR_WORKER_SETTINGS_H

#include "base/conf.h"

typedef struct mr_worker_conf {
    const char *id, *pool, *color;
    const char *engine, *simulated_profile;
    const char *model, *model_name, *chat_template, *engine_host, *engine_pid_file;
    const char *device, *weights, *kv;
    bool deterministic;
    int64_t threads, tp, max_seqs, max_context, guess_tokens;
    int64_t queue, queue_mb, prefill_ahead;
    int64_t start_timeout_s, drain_s;
    double step_timeout_s, recycle_hours, recycle_jitter;
    const char *recycle, *on_drained;
    int64_t recycle_grace_s, recycle_at_once, memory_max_mb, canary_s;
    bool static_member;
    const char *metrics_host;
    int64_t metrics_port;
} mr_worker_conf;

extern const mr_conf_key mr_worker_keys[];

#endif

/* The supervisor: wiring, readiness, drain. See supervisor.h and parts.h. */
#include "worker/supervisor.h"

#include "base/log.h"
#include "worker/parts.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_MS        100
#define FINISHED       8192 /* records answered here that are recognised when they come again */
#define RECORD_MEMORY  (64u << 20)
#define FLUSH_MS       5000
#define DRAIN_GRACE_MS 3000 /* past drain_s, for what has ended to reach Kafka and Redis */

/* ---- names ---- */

static bool simulated(const mr_supervisor *s) {
    return strcmp(s->opt.worker->engine, "simulated") == 0;
}

static void base_name(const char *path, char *out, size_t cap) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t start = n;
    while (start > 0 && path[start - 1] != '/') start--;
    snprintf(out, cap, "%.*s", (int)(n - start), path + start);
}

static void fill_names(mr_supervisor *s) {
    const mr_worker_conf *w = s->opt.worker;
    char host[HOST_NAME_MAX + 1] = "worker";
    gethostname(host, sizeof(host) - 1);
    if (*w->id) {
        snprintf(s->id, sizeof(s->id), "%s", w->id);
    } else {
        snprintf(s->id, sizeof(s->id), "%s-%d", host, (int)getpid());
    }
    if (*w->model_name) {
        snprintf(s->model, sizeof(s->model), "%s", w->model_name);
    } else if (simulated(s)) {
        snprintf(s->model, sizeof(s->model), "simulated");
    } else {
        base_name(w->model, s->model, sizeof(s->model));
    }
    mr_bus_generate_topic(s->opt.kafka, w->pool, w->color, s->topic);
    snprintf(s->group, sizeof(s->group), "%smillrace-worker-%s-%s", s->opt.kafka->prefix, w->pool, w->color);
}

static int find_engine_host(mr_supervisor *s, mr_error *err) {
    if (*s->opt.worker->engine_host) {
        snprintf(s->engine_host, sizeof(s->engine_host), "%s", s->opt.worker->engine_host);
    } else {
        char self[PATH_MAX];
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        if (n < 0) return mr_fail(err, MR_EIO, "/proc/self/exe cannot be read: set worker.engine_host");
        self[n] = '\0';
        *strrchr(self, '/') = '\0';
        snprintf(s->engine_host, sizeof(s->engine_host), "%.4000s/millrace-%s-host", self,
                 simulated(s) ? "simulated" : "engine");
    }
    if (access(s->engine_host, X_OK) == 0) return 0;
    return mr_fail(err, MR_ENOTFOUND, "no engine host at %.300s: build it, or set worker.engine_host",
                   s->engine_host);
}

static int put_numbers(mr_supervisor *s, int n) {
    const mr_worker_conf *w = s->opt.worker;
    /* the simulated engine knows the first two */
    const int64_t numbers[] = {w->max_seqs, w->max_context, w->threads, w->tp, w->guess_tokens};
    static const char *const flags[] = {"--max-seqs", "--max-context", "--threads", "--tp", "--guess-tokens"};
    for (int i = 0; i < (simulated(s) ? 2 : MR_HOST_NUMBERS); i++) {
        snprintf(s->numbers[i], sizeof(s->numbers[i]), "%lld", (long long)numbers[i]);
        s->host_argv[n++] = flags[i];
        s->host_argv[n++] = s->numbers[i];
    }
    return n;
}

static void fill_host_argv(mr_supervisor *s) {
    const mr_worker_conf *w = s->opt.worker;
    const char *const deterministic = w->deterministic ? "true" : "false";
    const char *const real[] = {
        "--model", w->model, "--device",        w->device,        "--weights",       w->weights,
        "--kv",    w->kv,    "--chat-template", w->chat_template, "--deterministic", deterministic};
    const char *const made_up[] = {"--profile", w->simulated_profile};
    const char *const *flags = simulated(s) ? made_up : real;
    int nflags = simulated(s) ? 2 : 12, n = 0;
    s->host_argv[n++] = s->engine_host;
    for (int i = 0; i < nflags; i += 2) {
        if (!*flags[i + 1]) continue;
        s->host_argv[n++] = flags[i];
        s->host_argv[n++] = flags[i + 1];
    }
    n = put_numbers(s, n);
    s->host_argv[n] = NULL;
}

/* ---- metrics and readiness ---- */

static void add_load_metrics(mr_worker_metrics *w, mr_metrics *m) {
    static const char *const load[MR_LOAD_COUNTERS][2] = {
        [MR_LOAD_STEPS] = {"millrace_worker_steps_total", "Forward passes of the engine."},
        [MR_LOAD_PREFILLED] = {"millrace_worker_prefilled_tokens_total", "Prompt tokens computed."},
        [MR_LOAD_PREEMPTIONS] = {"millrace_worker_preemptions_total",
                                 "Sequences that lost their KV blocks and began again."},
        [MR_LOAD_WANTED] = {"millrace_worker_cache_wanted_tokens_total",
                            "Tokens that the prefix cache was asked for."},
        [MR_LOAD_CACHED] = {"millrace_worker_cache_hit_tokens_total", "Tokens that it knew."},
        [MR_LOAD_GUESSED] = {"millrace_worker_guessed_tokens_total", "Tokens computed on a guess."},
        [MR_LOAD_RIGHT] = {"millrace_worker_right_guesses_total", "Guessed tokens that were then drawn."},
    };
    for (int i = 0; i < MR_LOAD_COUNTERS; i++) w->load[i] = mr_counter_new(m, load[i][0], NULL, load[i][1]);
}

static void add_metrics(mr_worker_metrics *w, mr_metrics *m) {
    w->running = mr_gauge_new(m, "millrace_worker_running_requests", NULL, "Requests in the engine.");
    w->waiting =
        mr_gauge_new(m, "millrace_worker_waiting_requests", NULL, "Requests in line for the engine.");
    w->kv_usage = mr_gauge_new(m, "millrace_worker_kv_usage_ratio", NULL, "Share of the KV cache in use.");
    w->batch = mr_gauge_new(m, "millrace_worker_batch_sequences", NULL, "Sequences in the engine's batch.");
    w->engine_waiting = mr_gauge_new(m, "millrace_worker_engine_waiting_sequences", NULL,
                                     "Sequences that wait for a place in the batch or for KV blocks.");
    w->looping = mr_gauge_new(m, "millrace_worker_crash_loop", NULL,
                              "1 while engine hosts die again and again, and none has lived long.");
    w->canaries = mr_counter_new(m, "millrace_worker_canaries_total", NULL, "Canary prompts answered.");
    w->wrong_canaries = mr_counter_new(m, "millrace_worker_wrong_canaries_total", NULL,
                                       "Of those, answers other than the first one.");
    w->engine_up = mr_gauge_new(m, "millrace_worker_engine_up", NULL, "1 while the engine host is ready.");
    w->tokens = mr_counter_new(m, "millrace_worker_generated_tokens_total", NULL, "Tokens generated.");
    w->prompt_tokens =
        mr_counter_new(m, "millrace_worker_prompt_tokens_total", NULL, "Prompt tokens of finished requests.");
    w->host_restarts = mr_counter_new(m, "millrace_worker_engine_lost_total", NULL,
                                      "Engine hosts that died or were killed because they hung.");
    w->redelivered = mr_counter_new(m, "millrace_worker_redelivered_total", NULL,
                                    "Records that came again and were not started again.");
    w->dropped =
        mr_counter_new(m, "millrace_worker_dropped_requests_total", NULL,
                       "Requests given up here because their partition was given to another worker.");
    w->asides = mr_counter_new(m, "millrace_worker_stepped_aside_total", NULL,
                               "Times that a running request made room for another tenant's.");
    w->trials =
        mr_counter_new(m, "millrace_worker_trials_total", NULL,
                       "Requests that ran alone or in a small group because engines died while they ran.");
    w->first_token =
        mr_histogram_new(m, "millrace_worker_first_token_seconds", NULL, "Receipt to first token.");
    w->queued = mr_histogram_new(m, "millrace_worker_queued_seconds", NULL, "Receipt to start.");
    w->total = mr_histogram_new(m, "millrace_worker_request_seconds", NULL, "Receipt to end.");
    add_load_metrics(w, m);
    for (int i = 0; i <= MR_FINISH_ERROR; i++) {
        char labels[64];
        snprintf(labels, sizeof(labels), "finish=\"%s\"", mr_finish_names[i]);
        w->finished[i] = mr_counter_new(m, "millrace_worker_requests_total", labels, "Requests finished.");
    }
}

static bool is_ready(void *arg, char *why, size_t cap) {
    const mr_supervisor *s = arg;
    const char *reason = mr_loop_draining(s->loop)          ? "draining"
                         : !mr_host_ready(s->engine->host)  ? mr_host_why(s->engine->host)
                         : mr_host_looping(s->engine->host) ? "engine hosts die again and again"
                         : s->canary_wrong                  ? "the engine answers its canary prompt wrongly"
                         : !mr_publisher_connected(s->publisher)  ? "Kafka is not connected"
                         : mr_consumer_assigned(s->consumer) == 0 ? "no partitions are assigned"
                                                                  : NULL;
    if (reason) snprintf(why, cap, "%s", reason);
    return reason == NULL;
}

/* ---- the worker's status, for everybody ---- */

static int worker_state(mr_supervisor *s) {
    char why[200];
    if (s->closing) return MR_WORKER_GONE;
    if (mr_loop_draining(s->loop)) return MR_WORKER_DRAINING;
    if (mr_recycle_going_on(s->recycle)) return MR_WORKER_RECYCLING;
    if (!is_ready(s, why, sizeof(why))) return MR_WORKER_STARTING;
    return s->standby ? MR_WORKER_STANDBY : MR_WORKER_READY;
}

static void report(mr_supervisor *s) {
    int waiting = mr_jobs_count(s->jobs) - s->running;
    const mr_report_now now = {.state = worker_state(s),
                               .partitions = s->consumer ? mr_consumer_assigned(s->consumer) : 0,
                               .slots = mr_host_ready(s->engine->host) ? s->places : 0,
                               .running = s->running,
                               .waiting = waiting > 0 ? waiting : 0,
                               .behind = s->consumer ? mr_consumer_behind(s->consumer) : 0,
                               .engines_lost = s->engines_lost + (int64_t)mr_host_restarts(s->engine->host),
                               .kv_used = s->kv_used};
    mr_report_send(s->report, &now);
}

/* ---- time passes ---- */

static void on_cancel(void *arg, mr_str request) {
    mr_supervisor *s = arg;
    mr_job *j = mr_jobs_find(s->jobs, request);
    if (!j) return;
    mr_answer_stop(s, j, MR_STOP_CANCEL);
    mr_dispatch(s);
}

/* A rollout has given all traffic to the other color. */
static void on_drain_order(void *arg) {
    mr_supervisor *s = arg;
    bool stay = strcmp(s->opt.worker->on_drained, "stay") == 0;
    mr_log(MR_INFO, "told to drain: another color has taken over", MR_S("then", stay ? "stay" : "exit"));
    s->standby = stay;
    if (!stay) mr_loop_drain(s->loop);
}

/* Within a rollout's step nothing else changes. */
static void on_rollout(void *arg, bool going_on) {
    mr_supervisor *s = arg;
    mr_recycle_hold(s->recycle, going_on);
}

static void on_recycle(void *arg, int64_t order) {
    mr_supervisor *s = arg;
    mr_log(MR_INFO, "recycling was ordered", MR_I("order", order));
    mr_recycle_order(s->recycle, order);
}

void mr_supervisor_report_recycled(mr_supervisor *s, int64_t order, bool beside, int64_t took_us) {
    mr_error err;
    char outcome[100];
    snprintf(outcome, sizeof(outcome), "replaced %s in %.1f s", beside ? "side by side" : "in place",
             (double)took_us / 1e6);
    mr_control c = {.set = 0};
    MR_SET(&c, MR_CONTROL_V, v, MR_SCHEMA_VERSION);
    MR_SET(&c, MR_CONTROL_KIND, kind, MR_CONTROL_IS_RECYCLED);
    MR_SET(&c, MR_CONTROL_WORKER, worker, mr_str_of(s->id));
    MR_SET(&c, MR_CONTROL_ORDER, order, order);
    MR_SET(&c, MR_CONTROL_OUTCOME, outcome, mr_str_of(outcome));
    MR_SET(&c, MR_CONTROL_CREATED_MS, created_ms, mr_now_ms());
    if (mr_publisher_control(s->publisher, &c, &err))
        mr_log(MR_WARN, "the end of recycling was not reported", MR_S("error", err.msg));
}

static void stop_expired(mr_supervisor *s) {
    int64_t now = mr_now_ms();
    for (mr_job *j = mr_jobs_first(s->jobs); j; j = j->next) {
        if (!j->ticket.deadline_ms || now < j->ticket.deadline_ms) continue;
        if (j->stop == MR_STOP_NONE || j->stop == MR_STOP_PARK || j->stop == MR_STOP_ASIDE)
            mr_answer_stop(s, j, MR_STOP_DEADLINE);
    }
}

static bool begun(const mr_job *j) {
    return j->state != MR_JOB_LOOKING && (j->state != MR_JOB_WAITING || j->started_us);
}

void mr_supervisor_check_drained(mr_supervisor *s) {
    if (!mr_loop_draining(s->loop) || s->closing || mr_publisher_letters(s->publisher)) return;
    for (const mr_job *j = mr_jobs_first(s->jobs); j; j = j->next) {
        if (begun(j)) return;
    }
    mr_loop_stop(s->loop);
}

/* The rest goes to other workers, and being stopped here is not its fault. */
static void give_up_drain(mr_supervisor *s) {
    for (const mr_job *j = mr_jobs_first(s->jobs); j; j = j->next) {
        if (mr_dispatch_counts(j)) mr_starts_add(s->starts, mr_str_of(j->id), -j->counted);
    }
    mr_log(MR_WARN, "drain ends with requests unfinished: other workers take them",
           MR_I("running", s->running));
    mr_loop_stop(s->loop);
}

static void ask_canary(mr_supervisor *s) {
    mr_engine *e = s->engine;
    if (s->canary_in || s->trials || e->running >= s->places || !mr_recycle_admits(s->recycle)) return;
    bool idle = e->running == 0 && mr_admit_waiting(s->line) == 0;
    if (!mr_host_ready(e->host) || !mr_canary_ask(s->canary, e->host, idle)) return;
    s->canary_in = e;
    e->running++;
}

static void on_tick(void *arg) {
    mr_supervisor *s = arg;
    stop_expired(s);
    mr_recycle_tick(s->recycle);
    ask_canary(s);
    mr_receive_resume(s);
    mr_dispatch(s);
    report(s);
    mr_gauge_set(s->metrics.looping, mr_host_looping(s->engine->host));
    mr_supervisor_check_drained(s);
    if (s->drain_until_us && mr_mono_us() > s->drain_until_us) give_up_drain(s);
}

static void on_drain(void *arg) {
    mr_supervisor *s = arg;
    mr_consumer_pause(s->consumer);
    s->drain_until_us = mr_mono_us() + s->opt.worker->drain_s * 1000000;
    mr_supervisor_check_drained(s);
}

/* ---- life ---- */

static int open_tables(mr_supervisor *s, mr_error *err) {
    const mr_worker_conf *w = s->opt.worker;
    const int64_t canary_s = w->deterministic ? w->canary_s : 0; /* whose answer might change */
    s->jobs = mr_jobs_new(err);
    if (s->jobs) s->finished = mr_recent_new(FINISHED, err);
    if (s->finished) s->line = mr_admit_new(err);
    if (s->line) s->suspects = mr_admit_new(err);
    if (s->suspects) s->canary = mr_canary_new(canary_s * 1000, err);
    if (!s->canary) return -1;
    s->slots = calloc(MR_SLOTS, sizeof(mr_job *)); /* of which only what is used takes memory */
    if (!s->slots) return mr_fail(err, MR_ENOMEM, "out of memory for the running requests");
    s->arena = mr_arena_new(RECORD_MEMORY);
    return s->arena ? 0 : mr_fail(err, MR_ENOMEM, "out of memory for records");
}

int mr_supervisor_start_engine(mr_supervisor *s, mr_engine *e, mr_error *err) {
    const mr_worker_conf *w = s->opt.worker;
    const mr_host_options opt = {.argv = s->host_argv,
                                 .pid_file = *w->engine_pid_file ? w->engine_pid_file : NULL,
                                 .step_timeout_ms = (int)(w->step_timeout_s * 1000),
                                 .start_timeout_ms = (int)w->start_timeout_s * 1000,
                                 .ready = mr_dispatch_ready,
                                 .frame = mr_answer_frame,
                                 .lost = mr_dispatch_lost,
                                 .arg = e};
    *e = (mr_engine){.of = s};
    e->host = mr_host_new(&opt, s->loop, err);
    return e->host ? 0 : -1;
}

static int start_engine(mr_supervisor *s, mr_error *err) {
    const mr_worker_conf *w = s->opt.worker;
    if (!*w->model && !simulated(s))
        return mr_fail(err, MR_EINVAL, "worker.model is empty: set it to the folder of a checkpoint");
    if (simulated(s) && *w->simulated_profile && access(w->simulated_profile, R_OK) != 0)
        return mr_fail(err, MR_ENOTFOUND, "worker.simulated_profile %.300s cannot be read: %s",
                       w->simulated_profile, strerror(errno));
    if (w->static_member && !*w->id)
        return mr_fail(err, MR_EINVAL, "worker.static_member needs a worker.id that no other worker has");
    if (find_engine_host(s, err)) return -1;
    fill_host_argv(s);
    s->engine = &s->engines[0];
    return mr_supervisor_start_engine(s, s->engine, err);
}

/* Before the engine, which recycling watches from its first token on. */
static int connect_store(mr_supervisor *s, mr_metrics *m, mr_error *err) {
    s->store = mr_store_new(s->opt.redis, s->loop, m, "worker", err);
    if (s->store) s->starts = mr_starts_new(s->store, err);
    if (s->starts) s->recycle = mr_recycle_new(s, s->store, m, err);
    return s->recycle ? 0 : -1;
}

static int connect_all(mr_supervisor *s, mr_metrics *m, mr_error *err) {
    const mr_publisher_options pub = {
        .kafka = s->opt.kafka, .worker = s->id, .model = s->model, .buried = mr_receive_buried, .arg = s};
    const mr_consumer_options con = {.group = s->group,
                                     .topics = {s->topic},
                                     .partition = -1,
                                     .start = MR_FROM_COMMITTED,
                                     .instance = s->opt.worker->static_member ? s->id : NULL,
                                     .on_record = mr_receive,
                                     .on_revoked = mr_receive_revoked,
                                     .arg = s};
    s->publisher = mr_publisher_new(&pub, s->loop, m, err);
    const mr_report_identity who = {.id = s->id,
                                    .pool = s->opt.worker->pool,
                                    .color = s->opt.worker->color,
                                    .model = s->model,
                                    .metrics_host = s->opt.worker->metrics_host,
                                    .metrics_port = (int)s->opt.worker->metrics_port};
    const mr_control_orders orders = {.worker = s->id,
                                      .pool = s->opt.worker->pool,
                                      .color = s->opt.worker->color,
                                      .cancel = on_cancel,
                                      .drain = on_drain_order,
                                      .recycle = on_recycle,
                                      .rollout = on_rollout,
                                      .arg = s};
    if (s->publisher) s->report = mr_report_new(&who, s->publisher, err);
    if (s->report) s->control = mr_control_new(s->opt.kafka, s->loop, m, &orders, err);
    if (s->control) s->consumer = mr_consumer_new(s->opt.kafka, &con, s->loop, m, "worker", err);
    return s->consumer ? 0 : -1;
}

mr_supervisor *mr_supervisor_new(const mr_supervisor_options *opt, mr_loop *l, mr_metrics *m, mr_error *err) {
    mr_supervisor *s = calloc(1, sizeof(*s));
    if (!s) {
        mr_fail(err, MR_ENOMEM, "out of memory for the supervisor");
        return NULL;
    }
    const mr_worker_conf *w = opt->worker;
    *s = (mr_supervisor){.opt = *opt, .loop = l, .started_us = mr_mono_us()};
    fill_names(s);
    add_metrics(&s->metrics, m);
    if (open_tables(s, err) || connect_store(s, m, err) || start_engine(s, err) || connect_all(s, m, err))
        goto fail;
    s->tick = mr_timer_new(l, TICK_MS, on_tick, s, err);
    if (!s->tick) goto fail;
    if (w->metrics_port && mr_metrics_serve(m, l, w->metrics_host, (int)w->metrics_port, is_ready, s, err))
        goto fail;
    mr_loop_on_drain(l, (int)w->drain_s * 1000 + DRAIN_GRACE_MS, on_drain, s);
    mr_log(MR_INFO, "worker started", MR_S("id", s->id), MR_S("topic", s->topic), MR_S("model", s->model));
    return s;
fail:
    mr_supervisor_free(s);
    return NULL;
}

/* The engine first: nothing new comes then. The producer before the consumer, which commits what was delivered. The jobs
 * last, because everything else may still call back for them. */
void mr_supervisor_free(mr_supervisor *s) {
    if (!s) return;
    s->closing = true;
    mr_timer_free(s->tick);
    if (s->report) report(s);
    for (int i = 0; i < 2; i++) mr_host_free(s->engines[i].host);
    mr_publisher_free(s->publisher, FLUSH_MS);
    mr_consumer_free(s->consumer);
    mr_control_free(s->control);
    mr_recycle_free(s->recycle);
    mr_store_free(s->store);
    mr_starts_free(s->starts);
    mr_canary_free(s->canary);
    mr_jobs_free(s->jobs);
    mr_report_free(s->report);
    mr_recent_free(s->finished);
    mr_admit_free(s->line);
    mr_admit_free(s->suspects);
    mr_arena_free(s->arena);
    free(s->slots);
    free(s);
}

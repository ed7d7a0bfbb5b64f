/* A soak: a mixed load on a whole pipeline whose parts are killed, frozen, ended, recycled and rolled over one after the other, in an
 * order and at moments that the seed decides, and an oracle that knows each accepted request. See README.md beside it.
 */
#include "base/log.h"
#include "fault/load.h"
#include "support/support.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICK_MS   5
#define DRAIN_MS  400000
#define CALM      200 /* requests before the first fault */
#define MAX_TOOLS 32
#define GROWN     (64LL << 20) /* a process that holds so much more than at first, and twice as much, leaks */

typedef struct options {
    uint64_t seed;
    double minutes;
    int64_t requests, faults;
    int gap_ms, clients, pause_ms;
    const char *broker, *kinds;
} options;

/* A fault of the schedule. */
typedef struct fault {
    int kind;
    uint64_t target;
    int64_t gap_us, pause_us;
} fault;

typedef struct soak {
    options opt;
    mr_loop *loop;
    mr_metrics *metrics;
    mr_timer *timer;
    fleet fleet;
    oracle oracle;
    load load;
    pid_t tools[MAX_TOOLS]; /* rollouts and recyclings under way */
    uint64_t rng;
    int64_t began_us;
    int letters_wanted;
    char said[100]; /* what the last fault did */
} soak;

/* ---- faults ---- */

typedef bool fault_cb(soak *s, const fault *f);

typedef struct fault_kind {
    const char *name;
    int weight;
    fault_cb *cb;
    bool kafka_only;
} fault_kind;

static member *pick(soak *s, fleet_role role, uint64_t target) {
    member *of[FLEET_MEMBERS];
    int n = 0;
    for (int i = 0; i < FLEET_MEMBERS; i++) {
        if (s->fleet.members[i].role == role) of[n++] = &s->fleet.members[i];
    }
    member *m = of[target % (uint64_t)n];
    snprintf(s->said, sizeof(s->said), "%s", m->name);
    return m;
}

static void note(soak *s, const member *m) {
    if (m->role == ROLE_WORKER || m->role == ROLE_GATEWAY)
        oracle_note_hurt(&s->oracle, m->role == ROLE_GATEWAY);
}

typedef bool hurt_fn(fleet *f, member *m, int64_t pause_us);

static bool hurt_one(soak *s, fleet_role role, const fault *f, hurt_fn *fn) {
    member *m = pick(s, role, f->target);
    if (!fn(&s->fleet, m, f->pause_us)) return false;
    note(s, m);
    return true;
}

static bool hurt_engine(soak *s, const fault *f, int signal_number) {
    member *m = pick(s, ROLE_WORKER, f->target);
    if (!fleet_hurt_engine(&s->fleet, m, signal_number)) return false;
    note(s, m);
    return true;
}

#define ONE(name, role, fn)                                                                                  \
    static bool name(soak *s, const fault *f) {                                                              \
        return hurt_one(s, role, f, fn);                                                                     \
    }
ONE(kill_worker, ROLE_WORKER, fleet_kill)
ONE(freeze_worker, ROLE_WORKER, fleet_freeze)
ONE(end_worker, ROLE_WORKER, fleet_end)
ONE(kill_router, ROLE_ROUTER, fleet_kill)
ONE(freeze_router, ROLE_ROUTER, fleet_freeze)
ONE(end_router, ROLE_ROUTER, fleet_end)
ONE(kill_gateway, ROLE_GATEWAY, fleet_kill)
ONE(freeze_gateway, ROLE_GATEWAY, fleet_freeze)
ONE(end_gateway, ROLE_GATEWAY, fleet_end)
ONE(kill_redis, ROLE_REDIS, fleet_kill)
ONE(freeze_redis, ROLE_REDIS, fleet_freeze)
ONE(freeze_broker, ROLE_BROKER, fleet_freeze)
ONE(restart_broker, ROLE_BROKER, fleet_kill)

static bool kill_engine(soak *s, const fault *f) {
    return hurt_engine(s, f, SIGKILL);
}

static bool freeze_engine(soak *s, const fault *f) {
    return hurt_engine(s, f, SIGSTOP);
}

/* Each role at the places it gets to: before and after it. */
static bool kill_at_point(soak *s, const fault *f) {
    static const struct {
        fleet_role role;
        fault_point point;
        const char *name;
    } at[] = {{ROLE_GATEWAY, POINT_REQUEST, "request"}, {ROLE_ROUTER, POINT_REQUEST, "request"},
              {ROLE_ROUTER, POINT_DONE, "done"},        {ROLE_WORKER, POINT_TEXT, "text"},
              {ROLE_WORKER, POINT_END, "end"},          {ROLE_WORKER, POINT_DONE, "done"}};
    unsigned i = f->target / 8 % (sizeof(at) / sizeof(*at)), after = f->target / 4 % 2;
    member *m = pick(s, at[i].role, f->target);
    if (!fleet_kill_at(&s->fleet, m, at[i].point + after, f->pause_us)) return false;
    note(s, m);
    snprintf(s->said, sizeof(s->said), "%s %s %s", m->name, after ? "after" : "before", at[i].name);
    return true;
}

/* Up to a minute away from everybody's, until the next jump of the same one. */
static bool jump_clock(soak *s, const fault *f) {
    int seconds = (int)(f->target / 8 % 121) - 60;
    member *m = pick(s, (fleet_role)(f->target / 1024 % (ROLE_WORKER + 1)), f->target);
    snprintf(s->said, sizeof(s->said), "%s %+d s", m->name, seconds);
    return fleet_set_clock(&s->fleet, m, seconds);
}

static member *pick_any(soak *s, const fault *f) {
    return pick(s, (fleet_role)(f->target / 1024 % (ROLE_WORKER + 1)), f->target);
}

static bool cut_off(soak *s, const fault *f) {
    static const char *const ways[] = {[PROXY_UP] = "up", [PROXY_DOWN] = "down", [PROXY_BOTH] = "both ways"};
    proxy_ways way = (proxy_ways)(1 + f->target / 8 % 3);
    member *m = pick_any(s, f);
    if (!fleet_cut(&s->fleet, m, way, f->pause_us)) return false;
    note(s, m);
    snprintf(s->said, sizeof(s->said), "%s %s", m->name, ways[way]);
    return true;
}

static bool spoil_network(soak *s, const fault *f) {
    int delay_ms = (int)(f->target / 8 % 100), loss = (int)(f->target / 4096 % 10);
    member *m = pick_any(s, f);
    snprintf(s->said, sizeof(s->said), "%s %d ms, %d %% lost", m->name, delay_ms, loss);
    return fleet_slow(&s->fleet, m, delay_ms, loss, f->pause_us);
}

static bool fill_disk(soak *s, const fault *f) {
    return fleet_fill_disk(&s->fleet, pick_any(s, f), f->pause_us);
}

/* SIGTERM to several at once; each comes back after a pause of its own. */
static bool storm(soak *s, const fault *f) {
    int n = 0;
    for (int i = 0; i < FLEET_MEMBERS; i++) {
        member *m = &s->fleet.members[i];
        if (m->role > ROLE_WORKER || !(f->target >> i & 1) ||
            !fleet_end(&s->fleet, m, f->pause_us + i * 100000))
            continue;
        note(s, m);
        n++;
    }
    snprintf(s->said, sizeof(s->said), "%d processes", n);
    return n > 0;
}

static bool run_tool(soak *s, const char *name, char *const argv[]) {
    for (int i = 0; i < MAX_TOOLS; i++) {
        if (s->tools[i]) continue;
        s->tools[i] = pipeline_spawn(s->fleet.p, name, argv);
        return true;
    }
    return false;
}

static bool flush_redis(soak *s, const fault *f) {
    char port[16];
    member *m = pick(s, ROLE_REDIS, f->target);
    snprintf(port, sizeof(port), "%d", pipeline_redis_port(s->fleet.p));
    return m->state == MEMBER_UP &&
           run_tool(s, "flush", (char *[]){"redis-cli", "-p", port, "flushall", NULL});
}

static bool recycle(soak *s, const fault *f) {
    const member *m = pick(s, ROLE_WORKER, f->target);
    char *conf = (char *)pipeline_conf(s->fleet.p);
    return run_tool(s, "recycle",
                    (char *[]){BIN_DIR "/millrace", "recycle", (char *)m->name, "--timeout_s", "60",
                               "--config", conf, NULL});
}

/* What the canary's numbers are under such faults says nothing of its color, so nothing is taken back for them. */
static bool rollout(soak *s, const fault *f) {
    char *conf = (char *)pipeline_conf(s->fleet.p), *to = f->target & 1 ? "green" : "blue";
    snprintf(s->said, sizeof(s->said), "to %s", to);
    return run_tool(s, "rollout",
                    (char *[]){BIN_DIR "/millrace",
                               "rollout",
                               "start",
                               "--config",
                               conf,
                               "--to",
                               to,
                               "--steps",
                               "20,50,100",
                               "--hold",
                               "1s",
                               "--settle",
                               "1s",
                               "--min-requests",
                               "0",
                               "--max-error-rate",
                               "1",
                               "--max-ttft-ratio",
                               "0",
                               "--min-speed-ratio",
                               "0",
                               "--patience",
                               "30s",
                               "--ready-timeout",
                               "30s",
                               "--stop-old",
                               "false",
                               "--force",
                               NULL});
}

static bool deliver_again(soak *s, const fault *f) {
    (void)f;
    snprintf(s->said, sizeof(s->said), "the last record");
    return oracle_produce_again(&s->oracle);
}

static bool send_garbage(soak *s, const fault *f) {
    (void)f;
    snprintf(s->said, sizeof(s->said), "chat.requests");
    bool sent = oracle_produce_garbage(&s->oracle);
    s->letters_wanted += sent;
    return sent;
}

static const fault_kind kinds[] = {
    {"engine-kill", 14, kill_engine, false},
    {"engine-freeze", 4, freeze_engine, false},
    {"worker-kill", 12, kill_worker, false},
    {"worker-freeze", 5, freeze_worker, false},
    {"worker-term", 6, end_worker, false},
    {"router-kill", 10, kill_router, false},
    {"router-freeze", 4, freeze_router, false},
    {"router-term", 5, end_router, false},
    {"gateway-kill", 6, kill_gateway, false},
    {"gateway-freeze", 4, freeze_gateway, false},
    {"gateway-term", 4, end_gateway, false},
    {"term-storm", 2, storm, false},
    {"point-kill", 12, kill_at_point, false},
    {"clock-jump", 4, jump_clock, false},
    {"cut-off", 6, cut_off, false},
    {"bad-network", 4, spoil_network, false},
    {"disk-full", 3, fill_disk, false},
    {"redis-kill", 4, kill_redis, false},
    {"redis-freeze", 3, freeze_redis, false},
    {"redis-flush", 3, flush_redis, false},
    {"broker-freeze", 3, freeze_broker, false},
    {"broker-restart", 2, restart_broker, true},
    {"recycle", 8, recycle, false},
    {"rollout", 3, rollout, false},
    {"duplicate", 6, deliver_again, false},
    {"undecodable", 4, send_garbage, false},
};
#define KINDS ((int)(sizeof(kinds) / sizeof(*kinds)))

static int done[KINDS], skipped[KINDS];

/* ---- the schedule: a function of the seed and the options alone ---- */

static bool wanted(const soak *s, int kind) {
    const fault_kind *k = &kinds[kind];
    if (k->kafka_only && strcmp(s->opt.broker, "kafka") != 0) return false;
    if (!s->opt.kinds) return true;
    size_t n = strlen(k->name);
    for (const char *at = s->opt.kinds; (at = strstr(at, k->name)) != NULL; at += n) {
        if ((at == s->opt.kinds || at[-1] == ',') && (at[n] == ',' || !at[n])) return true;
    }
    return false;
}

static int choose_kind(soak *s) {
    int sum = 0, kind = 0;
    for (int i = 0; i < KINDS; i++) sum += wanted(s, i) ? kinds[i].weight : 0;
    int at = (int)(soak_random(&s->rng) % (uint64_t)sum);
    for (; !wanted(s, kind) || at >= kinds[kind].weight; kind++)
        at -= wanted(s, kind) ? kinds[kind].weight : 0;
    return kind;
}

/* What nobody is down for: so long that a part of those lose their partitions. */
static bool lasts(const fault_kind *k) {
    return k->cb == cut_off || k->cb == spoil_network || k->cb == fill_disk;
}

static fault next_fault(soak *s) {
    fault f = {.kind = choose_kind(s), .target = soak_random(&s->rng)};
    uint64_t gap = (uint64_t)s->opt.gap_ms * 1000;
    f.gap_us = (int64_t)(gap / 4 + soak_random(&s->rng) % (3 * gap / 2 + 1)); /* the mean is the gap */
    f.pause_us = 50000 + (int64_t)(soak_random(&s->rng) % 2500000);
    if (lasts(&kinds[f.kind])) f.pause_us *= 3;
    return f;
}

/* ---- the run ---- */

static void reap_tools(soak *s) {
    for (int i = 0; i < MAX_TOOLS; i++) {
        if (s->tools[i] && waitpid(s->tools[i], NULL, WNOHANG) == s->tools[i]) s->tools[i] = 0;
    }
}

static void on_tick(void *arg) {
    soak *s = arg;
    fleet_tick(&s->fleet);
    load_tick(&s->load);
    reap_tools(s);
}

static volatile sig_atomic_t stopped; /* by SIGINT or SIGTERM: the faults end, and the verdict comes */

static void on_signal(int number) {
    (void)number;
    stopped = 1;
}

static double elapsed_s(const soak *s) {
    return (double)(mr_mono_us() - s->began_us) / 1e6;
}

static int all_done(void) {
    int n = 0;
    for (int i = 0; i < KINDS; i++) n += done[i];
    return n;
}

static void inject(soak *s, const fault *f, int number) {
    s->said[0] = '\0';
    bool happened = kinds[f->kind].cb(s, f);
    (happened ? done : skipped)[f->kind]++;
    printf("%8.2f s  fault %4d  %-14s %-12s %s%.2f s, %lld requests\n", elapsed_s(s), number,
           kinds[f->kind].name, s->said, happened ? "" : "(skipped) ", (double)f->pause_us / 1e6,
           (long long)s->oracle.accepted);
    fflush(stdout);
}

static bool is_enough(const soak *s) {
    const options *o = &s->opt;
    if (stopped) return true;
    return elapsed_s(s) >= 60 * o->minutes && s->oracle.accepted >= o->requests && all_done() >= o->faults;
}

static bool is_calm_over(void *arg) {
    return ((soak *)arg)->oracle.nasked >= CALM;
}

static void measure_first(soak *s) {
    for (int i = 0; i < FLEET_MEMBERS; i++) {
        member *m = &s->fleet.members[i];
        m->first_rss = fleet_rss(m);
    }
    printf("calm: %d answers, first token p50 %.1f ms, p99 %.1f ms\n", s->load.ntimes,
           1e3 * load_quantile(s->load.first_s, s->load.ntimes, 0.5),
           1e3 * load_quantile(s->load.first_s, s->load.ntimes, 0.99));
    s->load.ntimes = 0;
}

static void run_faults(soak *s) {
    for (int number = 1; !is_enough(s); number++) {
        fault f = next_fault(s);
        test_idle(s->loop, (int)(f.gap_us / 1000));
        inject(s, &f, number);
    }
}

/* ---- the end ---- */

static bool is_over(void *arg) {
    soak *s = arg;
    return load_idle(&s->load) && oracle_open(&s->oracle) == 0;
}

static bool tools_ended(void *arg) {
    soak *s = arg;
    for (int i = 0; i < MAX_TOOLS; i++) {
        if (s->tools[i]) return false;
    }
    return true;
}

static bool wait_idle_worker(soak *s, const member *m) {
    static const char *const gauges[] = {"millrace_worker_running_requests",
                                         "millrace_worker_waiting_requests",
                                         "millrace_worker_kv_usage_ratio"};
    for (int64_t until = mr_mono_us() + 120000000; mr_mono_us() < until; test_idle(s->loop, 100)) {
        int idle = 0;
        for (int i = 0; i < 3; i++) idle += fleet_metric(&s->fleet, m, gauges[i]) == 0;
        if (idle == 3) return true;
    }
    return false;
}

static void check_members(soak *s) {
    oracle *o = &s->oracle;
    for (int i = 0; i < FLEET_MEMBERS; i++) {
        const member *m = &s->fleet.members[i];
        int64_t rss = fleet_rss(m);
        if (m->role > ROLE_WORKER) continue;
        if (rss - m->first_rss > GROWN && rss > 2 * m->first_rss)
            oracle_fail(o, FAILED_PROCESS, -1, "%s grew from %lld to %lld bytes", m->name,
                        (long long)m->first_rss, (long long)rss);
        if (m->role == ROLE_WORKER && !wait_idle_worker(s, m))
            oracle_fail(o, FAILED_PROCESS, -1, "%s still has requests or KV blocks in use", m->name);
    }
    if (s->fleet.died) oracle_fail(o, FAILED_PROCESS, -1, "%d processes ended by themselves", s->fleet.died);
}

static void settle(soak *s) {
    s->load.running = false;
    printf("%8.2f s  no more faults; %d requests are open\n", elapsed_s(s), oracle_open(&s->oracle));
    fflush(stdout);
    const member *missing = fleet_recover(&s->fleet);
    if (missing) oracle_fail(&s->oracle, FAILED_PROCESS, -1, "%s does not become ready again", missing->name);
    if (!test_wait(s->loop, DRAIN_MS, is_over, s)) printf("not all requests end\n");
    test_wait(s->loop, DRAIN_MS, tools_ended, s);
    test_idle(s->loop, 1000); /* a second terminal record would come now */
    oracle_judge(&s->oracle);
    check_members(s);
    if (s->oracle.letters < s->letters_wanted)
        oracle_fail(&s->oracle, FAILED_LOST, -1, "%d records that are no requests, %d dead letters",
                    s->letters_wanted, s->oracle.letters);
}

static void report_faults(void) {
    printf("\n%-16s %6s %8s\n", "fault", "done", "skipped");
    for (int i = 0; i < KINDS; i++) {
        if (done[i] || skipped[i]) printf("%-16s %6d %8d\n", kinds[i].name, done[i], skipped[i]);
    }
}

static void report_memory(const soak *s) {
    printf("\n%-10s %10s %10s %9s\n", "process", "first MB", "last MB", "restarts");
    for (int i = 0; i < FLEET_MEMBERS; i++) {
        const member *m = &s->fleet.members[i];
        printf("%-10s %10.1f %10.1f %9d\n", m->name, (double)m->first_rss / 1e6, (double)fleet_rss(m) / 1e6,
               m->restarts);
    }
}

static void report(soak *s) {
    load *l = &s->load;
    oracle *o = &s->oracle;
    report_faults();
    printf("\n%-54s %8s\n", "how requests ended for their clients", "");
    for (int i = 0; i < l->noutcomes; i++) printf("%-54s %8d\n", l->outcomes[i].what, l->outcomes[i].n);
    report_memory(s);
    printf("\nfirst token p50 %.1f ms, p99 %.1f ms; whole answer p50 %.1f ms, p99 %.1f ms (%d answers)\n",
           1e3 * load_quantile(l->first_s, l->ntimes, 0.5), 1e3 * load_quantile(l->first_s, l->ntimes, 0.99),
           1e3 * load_quantile(l->total_s, l->ntimes, 0.5), 1e3 * load_quantile(l->total_s, l->ntimes, 0.99),
           l->ntimes);
    printf("seed %llu, %s: %d faults in %.0f s; %lld requests, %lld accepted; %d lost, %d twice, %d "
           "differing, %d "
           "unexplained errors, %d slots freed late, %d processes; %d terminal records repeated, %d dead "
           "letters\n",
           (unsigned long long)s->opt.seed, s->opt.broker, all_done(), elapsed_s(s), (long long)o->nasked,
           (long long)o->accepted, o->failures[FAILED_LOST], o->failures[FAILED_TWICE],
           o->failures[FAILED_DIFFERING], o->failures[FAILED_ERROR], o->failures[FAILED_CANCEL],
           o->failures[FAILED_PROCESS], o->repeated, o->letters);
    printf("%d requests were computed again behind their end, at least in part\n", o->again);
    printf("%d cancelled requests ended later than %d s, having waited in line; the last %.1f s after its "
           "client went away\n",
           o->waited, ORACLE_FREED_S, o->longest_cancel_s);
}

static int run(soak *s) {
    mr_error err;
    s->rng = s->opt.seed;
    s->loop = mr_loop_new(&err);
    s->metrics = s->loop ? mr_metrics_new(&err) : NULL;
    if (!s->metrics) return fprintf(stderr, "soak: %s\n", err.msg), 1;
    if (!fleet_start(&s->fleet, s->loop, s->opt.broker)) return 77;
    oracle_init(&s->oracle, s->loop, s->metrics, pipeline_kafka(s->fleet.p), s->opt.seed);
    load_init(&s->load, s->loop, &s->fleet, &s->oracle, s->opt.seed, s->opt.clients,
              s->opt.pause_ms * 1000LL);
    s->timer = mr_timer_new(s->loop, TICK_MS, on_tick, s, &err);
    if (!s->timer) return fprintf(stderr, "soak: %s\n", err.msg), 1;
    s->began_us = mr_mono_us();
    s->load.running = true;
    if (!test_wait(s->loop, DRAIN_MS, is_calm_over, s)) return fprintf(stderr, "soak: nothing answers\n"), 1;
    measure_first(s);
    run_faults(s);
    settle(s);
    report(s);
    int failed = oracle_failed(&s->oracle);
    mr_timer_free(s->timer);
    load_done(&s->load);
    oracle_done(&s->oracle);
    fleet_stop(&s->fleet, failed > 0);
    mr_metrics_free(s->metrics);
    mr_loop_free(s->loop);
    return failed > 0;
}

/* ---- command line ---- */

static const char usage[] =
    "Usage: soak [--seed N] [--minutes M | --hours H] [--requests N] [--count N] [options]\n"
    "Runs a whole pipeline under a mixed load, hurts its parts, and checks every answer. It ends when all "
    "that was\n"
    "asked for has happened; without any of it, after half a minute.\n\n"
    "  --seed N         the schedule and the load (1)\n"
    "  --count N        faults that happen at least\n"
    "  --requests N     requests that Kafka accepts at least\n"
    "  --clients N      who ask at once (120, which is the most)\n"
    "  --pause MS       from a client's answer to its next question (0)\n"
    "  --gap MS         time between two faults in the mean (700)\n"
    "  --faults KINDS   only these, with commas between (all)\n"
    "  --embedded       librdkafka's mock cluster as the broker (default)\n"
    "  --kafka          a real Apache Kafka\n"
    "  --help\n";

enum { SEED = 1, MINUTES, HOURS, REQUESTS, COUNT, CLIENTS, PAUSE, GAP, FAULTS, EMBEDDED, KAFKA, HELP };

static const struct option flags[] = {
    {"seed", required_argument, NULL, SEED},
    {"minutes", required_argument, NULL, MINUTES},
    {"hours", required_argument, NULL, HOURS},
    {"requests", required_argument, NULL, REQUESTS},
    {"count", required_argument, NULL, COUNT},
    {"clients", required_argument, NULL, CLIENTS},
    {"pause", required_argument, NULL, PAUSE},
    {"gap", required_argument, NULL, GAP},
    {"faults", required_argument, NULL, FAULTS},
    {"embedded", no_argument, NULL, EMBEDDED},
    {"kafka", no_argument, NULL, KAFKA},
    {"help", no_argument, NULL, HELP},
    {0},
};

static int number(double most, double *out) {
    char *end;
    *out = strtod(optarg, &end);
    if (end != optarg && !*end && *out >= 0 && *out <= most) return -1;
    fprintf(stderr, "soak: not a number from 0 to %.0f: %s\n", most, optarg);
    return 2;
}

static int check_kinds(const char *list) {
    for (const char *at = list; *at; at += strspn(at, ",")) {
        size_t n = strcspn(at, ",");
        bool known = false;
        for (int i = 0; i < KINDS; i++) {
            known = known || (strlen(kinds[i].name) == n && strncmp(kinds[i].name, at, n) == 0);
        }
        if (!known) return fprintf(stderr, "soak: no such fault: %.*s\n", (int)n, at), 2;
        at += n;
    }
    return -1;
}

static int set_option(int flag, options *o) {
    double v = 0;
    int status = -1;
    switch (flag) {
    case SEED: status = number(9e15, &v), o->seed = (uint64_t)v; return status;
    case MINUTES: return number(1e6, &o->minutes);
    case HOURS: status = number(1e4, &v), o->minutes = 60 * v; return status;
    case REQUESTS: status = number(400000, &v), o->requests = (int64_t)v; return status;
    case COUNT: status = number(50000, &v), o->faults = (int64_t)v; return status;
    case CLIENTS:
        status = number(LOAD_CLIENTS, &v), o->clients = (int)v;
        return status < 0 && o->clients < 1 ? fprintf(stderr, "soak: --clients: nobody asks\n"), 2 : status;
    case PAUSE: status = number(600000, &v), o->pause_ms = (int)v; return status;
    case GAP: status = number(600000, &v), o->gap_ms = (int)v; return status;
    case FAULTS: o->kinds = optarg; return check_kinds(optarg);
    case EMBEDDED: o->broker = "embedded"; return -1;
    case KAFKA: o->broker = "kafka"; return -1;
    case HELP: fputs(usage, stdout); return 0;
    default: fprintf(stderr, "soak: wrong option (see --help)\n"); return 2;
    }
}

int main(int argc, char **argv) {
    static soak s;
    mr_error err;
    int flag, status = -1;
    s.opt = (options){.seed = 1, .gap_ms = 700, .clients = LOAD_CLIENTS, .broker = "embedded"};
    while (status < 0 && (flag = getopt_long(argc, argv, "", flags, NULL)) != -1)
        status = set_option(flag, &s.opt);
    if (status >= 0) return status;
    if (optind < argc) return fprintf(stderr, "soak: unexpected argument: %s\n", argv[optind]), 2;
    if (!s.opt.minutes && !s.opt.requests && !s.opt.faults) s.opt.minutes = 0.5;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    mr_log_init("soak", "plain", getenv("VERBOSE") ? MR_INFO : MR_ERROR, &err);
    return run(&s);
}

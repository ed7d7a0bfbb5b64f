/* How a pool of simulated workers drains a backlog, as workers are added: requests a second by the number of workers, beside a
 * line through the first number, and who takes the CPU.
 *
 *     bench_pool [--workers 8,16,32,64] [--seconds N] [--backlog N] [--drain] [options, see --help]
 *
 * A real Apache Kafka, a topic with a partition for each of the most workers, filled before the first worker starts. Workers are
 * added, none is started anew; a number is measured when each has its share of the partitions. See README.md.
 */
#include "base/bus.h"
#include "base/log.h"
#include "schemas/messages.h"
#include "support/chat.h"
#include "support/pipeline.h"
#include "support/support.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS_MAX 256
#define STEPS_MAX   8
#define POOL        "bench"
#define IN_AIR      20000
#define WAIT_MS     600000
#define SETTLE_MS   5000 /* after the last rebalance, until what it made come again is gone */
#define POLL_MS     200

typedef struct options {
    int steps[STEPS_MAX], nsteps;
    int seconds;
    int64_t backlog;
    int slots, tokens, step_ms; /* of an engine */
    bool drain;
} options;

typedef struct worker {
    pid_t pid;
    int port;
    char pid_file[160];
} worker;

typedef struct bench {
    options opt;
    mr_loop *loop;
    pipeline *p;
    worker workers[WORKERS_MAX];
    int nworkers;
    int in_air;  /* requests that the broker has not acknowledged */
    double base; /* requests a second of a worker, in the first step */
} bench;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "bench_pool: %s: %s\n", what, why);
    exit(1);
}

/* ---- the backlog ---- */

static void on_delivered(void *arg, void *tag, const mr_error *err) {
    (void)tag;
    if (err) fail("a request was not delivered", err->msg);
    ((bench *)arg)->in_air--;
}

static bool has_room(void *arg) {
    return ((bench *)arg)->in_air < IN_AIR / 2;
}

static bool is_delivered(void *arg) {
    return ((bench *)arg)->in_air == 0;
}

static void pack_request(const options *o, int64_t number, mr_buf *out) {
    char id[40];
    mr_error err;
    mr_chat_message m = {0};
    mr_chat_request q = {0};
    snprintf(id, sizeof(id), "bench-%lld", (long long)number);
    MR_SET(&m, MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_USER);
    MR_SET(&m, MR_CHAT_MESSAGE_CONTENT, content, MR_STR("How does a mill wheel work?"));
    MR_SET(&q, MR_CHAT_REQUEST_V, v, MR_SCHEMA_VERSION);
    MR_SET(&q, MR_CHAT_REQUEST_ID, id, mr_str_of(id));
    MR_SET(&q, MR_CHAT_REQUEST_MODEL, model, MR_STR("simulated"));
    MR_SET(&q.sampling, MR_SAMPLING_SEED, seed, number);
    MR_SET(&q.sampling, MR_SAMPLING_MAX_TOKENS, max_tokens, o->tokens);
    MR_SET(&q.sampling, MR_SAMPLING_IGNORE_EOS, ignore_eos, true);
    MR_MARK(&q, MR_CHAT_REQUEST_SAMPLING);
    q.messages.v = &m;
    q.messages.n = 1;
    MR_MARK(&q, MR_CHAT_REQUEST_MESSAGES);
    mr_buf_clear(out);
    if (mr_pack(&mr_chat_request_def, &q, out, &err)) fail("a request", err.msg);
}

static void fill(bench *b, const char *topic, int partitions) {
    mr_error err;
    mr_buf value;
    mr_metrics *m = mr_metrics_new(&err);
    mr_producer *producer =
        m ? mr_producer_new(pipeline_kafka(b->p), b->loop, m, "bench", on_delivered, b, &err) : NULL;
    if (!producer) fail("Kafka", err.msg);
    mr_buf_init(&value, 1 << 16);
    for (int64_t i = 0; i < b->opt.backlog; i++) {
        pack_request(&b->opt, i, &value);
        const mr_produce rec = {.topic = topic,
                                .partition = (int32_t)(i % partitions),
                                .key = MR_STR("bench"),
                                .value = mr_buf_str(&value),
                                .tag = b};
        if (b->in_air >= IN_AIR && !test_wait(b->loop, WAIT_MS, has_room, b))
            fail("Kafka", "it takes no records");
        if (mr_producer_send(producer, &rec, &err)) fail("a request", err.msg);
        b->in_air++;
    }
    if (!test_wait(b->loop, WAIT_MS, is_delivered, b)) fail("Kafka", "it takes no records");
    mr_buf_done(&value);
    mr_producer_free(producer, 1000);
    mr_metrics_free(m);
}

static void create_backlog(bench *b) {
    mr_error err;
    char topic[250];
    int most = b->opt.steps[b->opt.nsteps - 1];
    mr_bus_generate_topic(pipeline_kafka(b->p), POOL, "blue", topic);
    const mr_topic_spec spec = {.name = topic, .partitions = most};
    if (mr_bus_create_topics(pipeline_kafka(b->p), &spec, 1, 60000, &err)) fail("the topic", err.msg);
    int64_t start = mr_mono_us();
    fill(b, topic, most);
    printf("%lld requests in %d partitions after %.1f s\n", (long long)b->opt.backlog, most,
           (double)(mr_mono_us() - start) / 1e6);
}

/* ---- workers ---- */

static void add_worker(bench *b) {
    char name[16], port[16];
    const char *conf = pipeline_conf(b->p);
    worker *w = &b->workers[b->nworkers];
    snprintf(name, sizeof(name), "w%d", ++b->nworkers);
    snprintf(w->pid_file, sizeof(w->pid_file), "%.*s/%s.pid", (int)(strrchr(conf, '/') - conf), conf, name);
    w->port = test_free_port();
    snprintf(port, sizeof(port), "%d", w->port);
    w->pid = pipeline_spawn(b->p, name,
                            (char *[]){BIN_DIR "/millrace-worker", "--config", (char *)conf, "--id", name,
                                       "--pool", POOL, "--metrics_port", port, "--engine_pid_file",
                                       w->pid_file, NULL});
}

static double sum(const bench *b, const char *metric) {
    double total = 0;
    for (int i = 0; i < b->nworkers; i++) total += chat_metric(b->loop, b->workers[i].port, metric);
    return total;
}

static double done(const bench *b) {
    return sum(b, "millrace_worker_requests_total{finish=\"length\"}");
}

/* Each has its share of the partitions, and has had it for a while. */
static void settle(bench *b) {
    int partitions = b->opt.steps[b->opt.nsteps - 1];
    double last = -1;
    int64_t since = mr_mono_us(), until = since + WAIT_MS * 1000LL;
    while (mr_mono_us() - since < SETTLE_MS * 1000LL) {
        double changes = sum(b, "millrace_worker_kafka_rebalances_total");
        if (changes != last || sum(b, "millrace_worker_kafka_assigned_partitions") != partitions)
            since = mr_mono_us();
        if (since > until) fail("the group", "its partitions do not come to rest");
        last = changes;
        test_idle(b->loop, POLL_MS);
    }
}

/* ---- who takes the CPU ---- */

typedef struct cpu {
    double workers, engines, broker, redis, bench;
    double machine; /* all of its processors, and what its own host took from them */
    int64_t at_us;
} cpu;

static double machine_seconds(void) {
    unsigned long user = 0, nice = 0, kernel = 0, idle = 0, waiting = 0, irq = 0, soft = 0, stolen = 0;
    FILE *f = fopen("/proc/stat", "re");
    if (!f || fscanf(f, "cpu %lu %lu %lu %lu %lu %lu %lu %lu", &user, &nice, &kernel, &idle, &waiting, &irq,
                     &soft, &stolen) != 8)
        fail("/proc/stat", "it cannot be read");
    fclose(f);
    return (double)(user + nice + kernel + irq + soft + stolen) / (double)sysconf(_SC_CLK_TCK);
}

static pid_t engine_of(const worker *w) {
    int pid = 0;
    FILE *f = fopen(w->pid_file, "re");
    if (f && fscanf(f, "%d", &pid) != 1) pid = 0;
    if (f) fclose(f);
    return pid;
}

static cpu read_cpu(const bench *b) {
    cpu c = {.broker = test_cpu_seconds(pipeline_pid(b->p, PART_BROKER)),
             .redis = test_cpu_seconds(pipeline_pid(b->p, PART_REDIS)),
             .bench = test_cpu_seconds(getpid()),
             .machine = machine_seconds(),
             .at_us = mr_mono_us()};
    for (int i = 0; i < b->nworkers; i++) {
        c.workers += test_cpu_seconds(b->workers[i].pid);
        c.engines += test_cpu_seconds(engine_of(&b->workers[i]));
    }
    return c;
}

/* ---- the table ---- */

static void print_head(const bench *b) {
    printf("\nan engine: %d slots, %d tokens of %d ms an answer\n\n", b->opt.slots, b->opt.tokens,
           b->opt.step_ms);
    printf(
        "                                          CPU, %% of a core\n"
        "workers  requests/s  a worker  of linear   workers  engines   broker    redis    bench   others\n");
}

static void print_row(bench *b, double requests, const cpu *x, const cpu *y) {
    double s = (double)(y->at_us - x->at_us) / 1e6, rate = requests / s, each = rate / b->nworkers;
    const double used[] = {y->workers - x->workers, y->engines - x->engines, y->broker - x->broker,
                           y->redis - x->redis, y->bench - x->bench};
    double others = y->machine - x->machine;
    if (b->base == 0) b->base = each;
    printf("%7d  %10.1f  %8.2f  %9.3f  ", b->nworkers, rate, each, each / b->base);
    for (size_t i = 0; i < sizeof(used) / sizeof(*used); i++) {
        others -= used[i];
        printf(" %8.1f", 100 * used[i] / s);
    }
    printf(" %8.1f\n", 100 * others / s);
    fflush(stdout);
}

/* A worker's own count is read before and after at the same place of the round, so that its window is as long as the others'. */
static void measure(bench *b, int nworkers) {
    while (b->nworkers < nworkers) add_worker(b);
    settle(b);
    cpu x = read_cpu(b);
    double before = done(b);
    test_idle(b->loop, b->opt.seconds * 1000);
    cpu y = read_cpu(b);
    double after = done(b);
    print_row(b, after - before, &x, &y);
}

/* To its end: every request was answered, and none but those that came again in a rebalance twice. */
static void drain(bench *b) {
    int64_t start = mr_mono_us();
    while (sum(b, "millrace_worker_kafka_lag_records") > 0) test_idle(b->loop, 1000);
    printf("\nthe rest of the backlog took %.1f s; %.0f requests were finished, of %lld\n",
           (double)(mr_mono_us() - start) / 1e6, done(b), (long long)b->opt.backlog);
}

static void end_workers(bench *b) {
    for (int i = 0; i < b->nworkers; i++) kill(b->workers[i].pid, SIGKILL);
    for (int i = 0; i < b->nworkers; i++) waitpid(b->workers[i].pid, NULL, 0);
}

/* ---- command line ---- */

static const char usage[] =
    "Usage: bench_pool [options]\n"
    "Fills a topic of a real Apache Kafka with requests, lets more and more simulated workers drain it, and\n"
    "prints how many requests a second they answer, and what CPU that takes.\n\n"
    "  --workers LIST  numbers of workers to measure, ascending (8,16,32,64; at most 256)\n"
    "  --seconds N     length of each measurement (20)\n"
    "  --backlog N     requests (1000000)\n"
    "  --slots N       requests that an engine computes at once (8)\n"
    "  --tokens N      of an answer (4)\n"
    "  --step-ms N     that an engine takes for a token of each (100)\n"
    "  --drain         go on until nothing is left, with all workers\n"
    "  --help\n";

enum { WORKERS = 1, SECONDS, BACKLOG, SLOTS, TOKENS, STEP_MS, DRAIN, HELP };

static const struct option flags[] = {
    {"workers", required_argument, NULL, WORKERS},
    {"seconds", required_argument, NULL, SECONDS},
    {"backlog", required_argument, NULL, BACKLOG},
    {"slots", required_argument, NULL, SLOTS},
    {"tokens", required_argument, NULL, TOKENS},
    {"step-ms", required_argument, NULL, STEP_MS},
    {"drain", no_argument, NULL, DRAIN},
    {"help", no_argument, NULL, HELP},
    {0},
};

static int wrong(const char *what) {
    fprintf(stderr, "bench_pool: %s (see --help)\n", what);
    return 2;
}

static int number(int most, int *out) {
    char *end;
    long v = strtol(optarg, &end, 10);
    if (end == optarg || *end || v < 1 || v > most) return wrong("not a number from 1 up, or too large");
    *out = (int)v;
    return -1;
}

static int steps(options *o) {
    const char *at = optarg;
    for (o->nsteps = 0;; at++) {
        char *end;
        long v = strtol(at, &end, 10);
        if (end == at || o->nsteps == STEPS_MAX || v > WORKERS_MAX ||
            v <= (o->nsteps ? o->steps[o->nsteps - 1] : 0))
            return wrong("--workers takes up to 8 ascending numbers up to 256, with commas between");
        o->steps[o->nsteps++] = (int)v;
        if (!*end) return -1;
        at = end;
        if (*at != ',') return wrong("--workers takes numbers with commas between");
    }
}

/* -1 to go on, or the exit status. */
static int set_option(int flag, options *o) {
    int n, status;
    switch (flag) {
    case WORKERS: return steps(o);
    case SECONDS: return number(3600, &o->seconds);
    case BACKLOG:
        status = number(100000000, &n);
        o->backlog = status < 0 ? n : 0;
        return status;
    case SLOTS: return number(4096, &o->slots);
    case TOKENS: return number(1000, &o->tokens);
    case STEP_MS: return number(10000, &o->step_ms);
    case DRAIN: o->drain = true; return -1;
    case HELP: fputs(usage, stdout); return 0;
    default: return wrong("wrong option");
    }
}

/* Of all processes that start from here on. */
static void set_speeds(const options *o) {
    char slots[16], ms[32];
    snprintf(slots, sizeof(slots), "%d", o->slots);
    snprintf(ms, sizeof(ms), "1:%d", o->step_ms);
    setenv("MILLRACE_WORKER_MAX_SEQS", slots, 1);
    setenv("MILLRACE_SIMULATED_DECODE_MS", ms, 1);
    setenv("MILLRACE_SIMULATED_PREFILL_TOKENS_PER_S", "0", 1);
    setenv("MILLRACE_SIMULATED_LOAD_S", "0", 1);
    setenv("MILLRACE_LOG_LEVEL", "warn", 1);
}

int main(int argc, char **argv) {
    static bench b;
    mr_error err;
    int flag, status = -1;
    b.opt = (options){.steps = {8, 16, 32, 64},
                      .nsteps = 4,
                      .seconds = 20,
                      .backlog = 1000000,
                      .slots = 8,
                      .tokens = 4,
                      .step_ms = 100};
    opterr = 0;
    while (status < 0 && (flag = getopt_long(argc, argv, "", flags, NULL)) != -1)
        status = set_option(flag, &b.opt);
    if (status >= 0) return status;
    if (optind < argc) return wrong("unexpected argument");
    mr_log_init("bench", "plain", MR_ERROR, &err);
    b.loop = mr_loop_new(&err);
    if (!b.loop) fail("the loop", err.msg);
    const pipeline_options o = {
        .broker = "kafka", .profile = "", .worker = "queue = 64; canary_s = 0;", .servers_only = true};
    b.p = pipeline_start(b.loop, &o);
    if (!b.p) return 77;
    set_speeds(&b.opt);
    create_backlog(&b);
    print_head(&b);
    for (int i = 0; i < b.opt.nsteps; i++) measure(&b, b.opt.steps[i]);
    if (b.opt.drain) drain(&b);
    end_workers(&b);
    pipeline_stop(b.p, false);
    mr_loop_free(b.loop);
    return 0;
}

/* How fast the router is on one core, beside a bare loop that consumes the same records and produces each to another topic.
 *
 *     bench_router [embedded|kafka] [RECORDS] [ROUNDS]
 *
 * Both are pinned to CPU 1 with all their threads, one after the other, round by round, on one broker, which has the other
 * CPUs; both are idempotent producers with acks=all, and their time counts from the first record to the acknowledgement of the
 * last. Messages are those of 20 intents of CLINC150, of which the knowledge base knows the routine ones. See README.md.
 */
#include "base/bus.h"
#include "base/log.h"
#include "base/loop.h"
#include "schemas/messages.h"
#include "support/pipeline.h"
#include "support/support.h"

#include <librdkafka/rdkafka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINES_MAX = 4000, ROUNDS_MAX = 9, CPU = 1, WAIT_MS = 120000 };

typedef struct traffic {
    char *line[LINES_MAX]; /* label, NUL, text */
    int n;
} traffic;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "bench_router: %s: %s\n", what, why);
    exit(1);
}

/* What was measured of one side. */
typedef struct speed {
    double rate, cpu_us; /* records a second; of the processor for each, user and kernel */
} speed;

/* Seconds that a process has had so far. */
static double cpu_seconds(pid_t pid) {
    char path[64], line[1024];
    unsigned long user = 0, kernel = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    const char *at = f && fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
    if (f) fclose(f);
    if (!at || sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) != 2) {
        fail(path, "it cannot be read");
    }
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

/* ---- traffic ---- */

static void read_traffic(traffic *t) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    FILE *in = fopen(TRAFFIC, "re");
    if (!in) fail(TRAFFIC, "it cannot be read");
    while ((n = getline(&line, &cap, in)) > 0 && t->n < LINES_MAX) {
        char *tab = strchr(line, '\t');
        line[strcspn(line, "\n")] = '\0';
        if (!tab) continue;
        *tab = '\0';
        t->line[t->n++] = line;
        line = NULL;
        cap = 0;
    }
    free(line);
    fclose(in);
}

static const char *text_of(const traffic *t, int i) {
    const char *label = t->line[i % t->n];
    return label + strlen(label) + 1;
}

static void write_kb(const traffic *t, const char *path) {
    FILE *out = fopen(path, "we");
    if (!out) fail(path, "it cannot be written");
    for (int i = 0; i < t->n; i++) {
        if (strcmp(t->line[i], "oos") != 0)
            fprintf(out, "%s\tThis is about %s.\n", text_of(t, i), t->line[i]);
    }
    fclose(out);
}

typedef struct sending {
    int in_air;
    mr_producer *producer;
} sending;

static void on_delivered(void *arg, void *tag, const mr_error *err) {
    sending *s = arg;
    (void)tag;
    if (err) fail("a request was not delivered", err->msg);
    s->in_air--;
}

static bool has_room(void *arg) {
    return ((sending *)arg)->in_air < 5000;
}

static bool is_empty(void *arg) {
    return ((sending *)arg)->in_air == 0;
}

/* As the gateway sends a chat. */
static void pack_request(const char *id, const char *text, mr_buf *out) {
    mr_error err;
    mr_chat_message m[2] = {0};
    mr_chat_request q = {0};
    MR_SET(&m[0], MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_SYSTEM);
    MR_SET(&m[0], MR_CHAT_MESSAGE_CONTENT, content, MR_STR("You are a helpful assistant."));
    MR_SET(&m[1], MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_USER);
    MR_SET(&m[1], MR_CHAT_MESSAGE_CONTENT, content, mr_str_of(text));
    MR_SET(&q, MR_CHAT_REQUEST_V, v, MR_SCHEMA_VERSION);
    MR_SET(&q, MR_CHAT_REQUEST_ID, id, mr_str_of(id));
    MR_SET(&q, MR_CHAT_REQUEST_CREATED_MS, created_ms, mr_now_ms());
    MR_SET(&q, MR_CHAT_REQUEST_TENANT, tenant, MR_STR("acme"));
    MR_SET(&q, MR_CHAT_REQUEST_MODEL, model, MR_STR("millrace-demo"));
    MR_SET(&q, MR_CHAT_REQUEST_STREAM, stream, true);
    MR_SET(&q.sampling, MR_SAMPLING_TEMPERATURE, temperature, 0.7);
    MR_MARK(&q, MR_CHAT_REQUEST_SAMPLING);
    q.messages.v = m;
    q.messages.n = 2;
    MR_MARK(&q, MR_CHAT_REQUEST_MESSAGES);
    mr_buf_clear(out);
    if (mr_pack(&mr_chat_request_def, &q, out, &err) < 0) fail("a request", err.msg);
}

static void send_requests(mr_loop *l, const mr_kafka_conf *kafka, const traffic *t, int n, int round) {
    mr_error err;
    mr_buf value;
    sending s = {0};
    mr_metrics *m = mr_metrics_new(&err);
    s.producer = mr_producer_new(kafka, l, m, "bench", on_delivered, &s, &err);
    if (!s.producer) fail("Kafka", err.msg);
    mr_buf_init(&value, 1 << 20);
    for (int i = 0; i < n; i++) {
        char id[60];
        snprintf(id, sizeof(id), "chatcmpl-%d-%d-%d", (int)getpid(), round, i);
        pack_request(id, text_of(t, i * 7), &value);
        const mr_produce rec = {MR_TOPIC_REQUESTS, -1, mr_str_of(id), mr_buf_str(&value), NULL, 0, &s};
        if (!test_wait(l, WAIT_MS, has_room, &s)) fail("Kafka", "it takes no records");
        s.in_air++;
        if (mr_producer_send(s.producer, &rec, &err) < 0) fail("a request", err.msg);
    }
    if (!test_wait(l, WAIT_MS, is_empty, &s)) fail("Kafka", "it takes no records");
    mr_buf_done(&value);
    mr_producer_free(s.producer, 1000);
    mr_metrics_free(m);
}

/* ---- the bare loop ---- */

static void set(rd_kafka_conf_t *c, const char *name, const char *value) {
    char why[300];
    if (rd_kafka_conf_set(c, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK) fail(name, why);
}

static void on_acked(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque) {
    (void)rk;
    if (m->err) fail("the bare loop", rd_kafka_err2str(m->err));
    ++*(int *)opaque;
}

static rd_kafka_t *bare_client(const mr_kafka_conf *kafka, rd_kafka_type_t type, int *acked) {
    char why[300], wait_ms[20];
    rd_kafka_conf_t *c = rd_kafka_conf_new();
    set(c, "bootstrap.servers", kafka->brokers);
    if (type == RD_KAFKA_PRODUCER) {
        set(c, "enable.idempotence", "true");
        set(c, "acks", "all");
        set(c, "linger.ms", "1");
        rd_kafka_conf_set_dr_msg_cb(c, on_acked);
        rd_kafka_conf_set_opaque(c, acked);
    } else {
        snprintf(wait_ms, sizeof(wait_ms), "%lld", (long long)kafka->fetch_wait_ms);
        set(c, "group.id", "bench-bare");
        set(c, "auto.offset.reset", "earliest");
        set(c, "fetch.wait.max.ms", wait_ms);
        set(c, "session.timeout.ms", "6000");
    }
    rd_kafka_t *rk = rd_kafka_new(type, c, why, sizeof(why));
    if (!rk) fail("the bare loop", why);
    return rk;
}

static void bare_forward(rd_kafka_t *to, const rd_kafka_message_t *m, int *acked) {
    rd_kafka_resp_err_t e;
    while ((e = rd_kafka_producev(to, RD_KAFKA_V_TOPIC(MR_TOPIC_FEEDBACK), RD_KAFKA_V_KEY(m->key, m->key_len),
                                  RD_KAFKA_V_VALUE(m->payload, m->len),
                                  RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END)) ==
           RD_KAFKA_RESP_ERR__QUEUE_FULL) {
        rd_kafka_poll(to, 1);
    }
    if (e) fail("the bare loop", rd_kafka_err2str(e));
    (void)acked;
    rd_kafka_poll(to, 0);
}

static speed bare_loop(const mr_kafka_conf *kafka, int n) {
    int acked = 0, taken = 0;
    int64_t start = 0;
    double cpu = 0;
    rd_kafka_t *from = bare_client(kafka, RD_KAFKA_CONSUMER, NULL),
               *to = bare_client(kafka, RD_KAFKA_PRODUCER, &acked);
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, MR_TOPIC_REQUESTS, RD_KAFKA_PARTITION_UA);
    rd_kafka_poll_set_consumer(from);
    rd_kafka_subscribe(from, topics);
    rd_kafka_topic_partition_list_destroy(topics);
    while (taken < n) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(from, 1000);
        if (!m) continue;
        if (!m->err) {
            if (taken++ == 0) {
                start = mr_mono_us();
                cpu = cpu_seconds(getpid());
            }
            bare_forward(to, m, &acked);
        }
        rd_kafka_message_destroy(m);
    }
    while (acked < n) rd_kafka_poll(to, 10);
    speed out = {n / ((double)(mr_mono_us() - start) * 1e-6), (cpu_seconds(getpid()) - cpu) * 1e6 / n};
    rd_kafka_commit(from, NULL, 0);
    rd_kafka_consumer_close(from);
    rd_kafka_destroy(from);
    rd_kafka_destroy(to);
    return out;
}

/* ---- one core ---- */

static void pin(bool one) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < (int)sysconf(_SC_NPROCESSORS_ONLN); i++) {
        if (one == (i == CPU)) CPU_SET(i, &set);
    }
    if (sched_setaffinity(0, sizeof(set), &set) < 0) fail("taskset", "this machine has no two CPUs");
}

/* In a process of its own, so that its threads are all on that core. */
static speed measure_bare(const mr_kafka_conf *kafka, int n) {
    int ends[2], status;
    speed rate = {0};
    if (pipe(ends) < 0) fail("pipe", "none");
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        pin(true);
        rate = bare_loop(kafka, n);
        _exit(write(ends[1], &rate, sizeof(rate)) == sizeof(rate) ? 0 : 1);
    }
    close(ends[1]);
    bool good = pid > 0 && read(ends[0], &rate, sizeof(rate)) == sizeof(rate);
    close(ends[0]);
    if (!good || waitpid(pid, &status, 0) != pid) fail("the bare loop", "it died");
    return rate;
}

static double done_of(pipeline *p) {
    double n = pipeline_metric(p, PART_ROUTER, "millrace_router_request_seconds_count");
    return n < 0 ? 0 : n;
}

/* The mean of one of the router's histograms, in microseconds of the clock. */
static double mean_us(pipeline *p, const char *name) {
    char sum[100], count[100];
    snprintf(sum, sizeof(sum), "millrace_router_%s_seconds_sum", name);
    snprintf(count, sizeof(count), "millrace_router_%s_seconds_count", name);
    return pipeline_metric(p, PART_ROUTER, sum) * 1e6 / pipeline_metric(p, PART_ROUTER, count);
}

static speed measure_router(mr_loop *l, pipeline *p, int n) {
    int64_t start, end;
    double first = 0, done = 0, cpu;
    pin(true);
    pipeline_run(p, PART_ROUTER);
    pin(false);
    pipeline_wait_ready(p, PART_ROUTER);
    while ((first = done_of(p)) == 0) test_idle(l, 5);
    start = mr_mono_us();
    cpu = cpu_seconds(pipeline_pid(p, PART_ROUTER));
    while ((done = done_of(p)) < n) test_idle(l, 20);
    end = mr_mono_us();
    cpu = cpu_seconds(pipeline_pid(p, PART_ROUTER)) - cpu;
    double kb = pipeline_metric(p, PART_ROUTER, "millrace_router_requests_total{outcome=\"kb\"}");
    printf("    router: %.0f of %.0f from the knowledge base; a search %.0f us, a guess of the intent %.0f "
           "us, the "
           "guard %.0f us\n",
           kb, done, mean_us(p, "kb"), mean_us(p, "intent"), mean_us(p, "guard"));
    pipeline_end(p, PART_ROUTER);
    return (speed){(n - first) / ((double)(end - start) * 1e-6), cpu * 1e6 / (n - first)};
}

/* ---- the table ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof(*v), by_value);
    return v[n / 2];
}

static void turn_everything_on(const char *folder) {
    char command[600], model[100];
    snprintf(model, sizeof(model), "%s/intent.model", folder);
    snprintf(command, sizeof(command), "%s/millrace intent train %s -o %s >%s/train.log 2>&1", BIN_DIR,
             TRAFFIC, model, folder);
    if (system(command) != 0) fail("millrace intent train", "it failed");
    setenv("MILLRACE_ROUTER_INTENT_MODEL", model, 1);
    setenv("MILLRACE_LOG_LEVEL", "info", 1);
    setenv("MILLRACE_ROUTER_GUARD_PERSONAL", "mask", 1);
    setenv("MILLRACE_ROUTER_GUARD_INJECTION", "block", 1);
}

int main(int argc, char **argv) {
    static traffic t;
    char folder[64], kb[100];
    double bare[ROUNDS_MAX], router[ROUNDS_MAX], ratio[ROUNDS_MAX], bare_us[ROUNDS_MAX],
        router_us[ROUNDS_MAX];
    mr_error err;
    const char *broker = argc > 1 ? argv[1] : "embedded";
    int n = argc > 2 ? atoi(argv[2]) : 30000, rounds = argc > 3 ? atoi(argv[3]) : 3;
    if (n < 1000 || rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: bench_router [embedded|kafka] [RECORDS] [ROUNDS]\n");
        return 2;
    }
    mr_log_init("bench", "plain", MR_ERROR, &err);
    mr_loop *l = mr_loop_new(&err);
    test_folder_init(folder);
    read_traffic(&t);
    snprintf(kb, sizeof(kb), "%s/kb.tsv", folder);
    write_kb(&t, kb);
    pin(false);
    const pipeline_options o = {
        .broker = broker, .kb = kb, .kafka = "fetch_wait_ms = 2;", .servers_only = true};
    pipeline *p = pipeline_start(l, &o);
    if (!p) return 77;
    turn_everything_on(folder);
    for (int i = 0; i < rounds; i++) {
        send_requests(l, pipeline_kafka(p), &t, n, i);
        speed x = measure_bare(pipeline_kafka(p), n), y = measure_router(l, p, n);
        bare[i] = x.rate;
        router[i] = y.rate;
        ratio[i] = y.rate / x.rate;
        bare_us[i] = x.cpu_us;
        router_us[i] = y.cpu_us;
        printf("round %d: bare %.0f, router %.0f requests/s, ratio %.2f; CPU of a request %.1f and %.1f us\n",
               i + 1, bare[i], router[i], ratio[i], bare_us[i], router_us[i]);
        fflush(stdout);
    }
    printf("\n| %s broker, %d requests, one core | requests/s | CPU of a request, us |\n|---|---:|---:|\n"
           "| bare consume and produce | %.0f | %.1f |\n| router, everything on | %.0f | %.1f |\n"
           "| ratio (bar 0.80) | %.2f | |\n",
           broker, n, median(bare, rounds), median(bare_us, rounds), median(router, rounds),
           median(router_us, rounds), median(ratio, rounds));
    pipeline_stop(p, false);
    test_folder_done(folder);
    mr_loop_free(l);
    return 0;
}

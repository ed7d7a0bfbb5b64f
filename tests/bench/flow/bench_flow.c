/* What the pipeline adds to an engine: gateway, Kafka, router, worker and back, with an engine host that answers at once.
 *
 *     bench_flow [embedded|kafka]... [--seconds N] [--clients N]... [--kafka 'linger_ms = 0;']
 *
 * Closed loop: each client has a connection of its own that it keeps, and asks again when its answer has ended. First token:
 * from the request's first byte to the first delta's arrival. Floor: one record produced and consumed through the same
 * broker by the same client library with the same settings, one at a time, times the three hops that every chat makes
 * (chat.requests, chat.generate, chat.responses). CPU: of each process, per request. See README.md.
 */
#include "base/bus.h"
#include "base/log.h"
#include "support/pipeline.h"
#include "support/support.h"

#include <event2/buffer.h>
#include <event2/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_CLIENTS  1024
#define MAX_SAMPLES  1000000
#define FLOOR_ROUNDS 300
#define WARM_UP_US   1000000
#define HOPS         3

static const char body[] = "{\"model\": \"millrace-demo\", \"stream\": true, \"messages\": "
                           "[{\"role\": \"user\", \"content\": \"tokens 16\"}]}";

/* ---- samples ---- */

typedef struct samples {
    double *ms;
    size_t n;
} samples;

static void add(samples *s, double ms) {
    if (s->n < MAX_SAMPLES) s->ms[s->n++] = ms;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(samples *s, double p) {
    if (s->n == 0) return 0;
    qsort(s->ms, s->n, sizeof(double), by_size);
    size_t i = (size_t)(p * (double)(s->n - 1) + 0.5);
    return s->ms[i];
}

/* ---- the floor: a record's way through the broker ---- */

typedef struct round_trips {
    mr_loop *loop;
    mr_producer *producer;
    int64_t sent_us;
    int arrived;
    samples *out;
} round_trips;

static void send_round(round_trips *r) {
    mr_error err;
    char value[300];
    memset(value, 'x', sizeof(value));
    const mr_produce rec = {
        .topic = MR_TOPIC_FEEDBACK, .key = MR_STR("floor"), .value = {value, sizeof(value)}};
    r->sent_us = mr_mono_us();
    if (mr_producer_send(r->producer, &rec, &err) != 0) {
        fprintf(stderr, "bench_flow: %s\n", err.msg);
        exit(1);
    }
}

static bool on_round(void *arg, const mr_record *rec) {
    round_trips *r = arg;
    (void)rec;
    r->arrived++;
    if (r->arrived > FLOOR_ROUNDS / 10) add(r->out, (double)(mr_mono_us() - r->sent_us) / 1e3);
    if (r->arrived < FLOOR_ROUNDS) {
        send_round(r);
    } else {
        mr_loop_stop(r->loop);
    }
    return true;
}

static void measure_floor(mr_loop *l, const mr_kafka_conf *kafka, samples *out) {
    mr_error err;
    round_trips r = {.loop = l, .out = out};
    mr_metrics *m = mr_metrics_new(&err);
    const mr_consumer_options opt = {.topics = {MR_TOPIC_FEEDBACK},
                                     .partition = 0,
                                     .start = MR_FROM_END,
                                     .on_record = on_round,
                                     .arg = &r};
    r.producer = mr_producer_new(kafka, l, m, "bench", NULL, NULL, &err);
    mr_consumer *c = mr_consumer_new(kafka, &opt, l, m, "bench", &err);
    if (!r.producer || !c) {
        fprintf(stderr, "bench_flow: %s\n", err.msg);
        exit(1);
    }
    test_idle(l, 1000); /* until both are connected, and the consumer stands at the end */
    send_round(&r);
    mr_loop_run(l);
    mr_consumer_free(c);
    mr_producer_free(r.producer, 1000);
    mr_metrics_free(m);
}

/* ---- clients ---- */

typedef struct run run;

typedef struct client {
    run *of;
    struct evhttp_connection *connection;
    int64_t asked_us, first_us;
} client;

struct run {
    mr_loop *loop;
    client clients[MAX_CLIENTS];
    int nclients, active, failed;
    int64_t start_us, measure_us, end_us; /* samples are taken from measure_us on */
    samples first, whole;
};

static void ask(client *c);

static void on_chunk(struct evhttp_request *r, void *arg) {
    client *c = arg;
    struct evbuffer *in = evhttp_request_get_input_buffer(r);
    struct evbuffer_ptr at = evbuffer_search(in, "data: {", 7, NULL);
    if (!c->first_us && at.pos >= 0) c->first_us = mr_mono_us();
    evbuffer_drain(in, evbuffer_get_length(in));
}

static void on_answer(struct evhttp_request *r, void *arg) {
    client *c = arg;
    run *x = c->of;
    int64_t now = mr_mono_us();
    bool good = r && evhttp_request_get_response_code(r) == 200 && c->first_us;
    if (!good) x->failed++;
    if (good && now >= x->measure_us && now < x->end_us) {
        add(&x->first, (double)(c->first_us - c->asked_us) / 1e3);
        add(&x->whole, (double)(now - c->asked_us) / 1e3);
    }
    if (good && now < x->end_us) {
        ask(c);
    } else if (--x->active == 0) {
        mr_loop_stop(x->loop);
    }
}

static void ask(client *c) {
    struct evhttp_request *r = evhttp_request_new(on_answer, c);
    evhttp_request_set_chunked_cb(r, on_chunk);
    evhttp_add_header(evhttp_request_get_output_headers(r), "Host", "127.0.0.1");
    evhttp_add_header(evhttp_request_get_output_headers(r), "Content-Type", "application/json");
    evbuffer_add(evhttp_request_get_output_buffer(r), body, sizeof(body) - 1);
    c->first_us = 0;
    c->asked_us = mr_mono_us();
    evhttp_make_request(c->connection, r, EVHTTP_REQ_POST, "/v1/chat/completions");
}

static void run_clients(run *x, int port, int n, int seconds) {
    x->nclients = x->active = n;
    x->first.n = x->whole.n = 0;
    x->failed = 0;
    x->start_us = mr_mono_us();
    x->measure_us = x->start_us + WARM_UP_US;
    x->end_us = x->measure_us + seconds * INT64_C(1000000);
    for (int i = 0; i < n; i++) {
        client *c = &x->clients[i];
        c->of = x;
        c->connection = evhttp_connection_base_new(mr_loop_base(x->loop), NULL, "127.0.0.1", (uint16_t)port);
        ask(c);
    }
    mr_loop_run(x->loop);
    for (int i = 0; i < n; i++) evhttp_connection_free(x->clients[i].connection);
}

/* ---- what the processes took ---- */

typedef struct cpu_times {
    double seconds[PARTS + 1]; /* the engine host last */
} cpu_times;

static cpu_times read_cpu(const pipeline *p) {
    cpu_times t;
    for (int i = 0; i < PARTS; i++) t.seconds[i] = test_cpu_seconds(pipeline_pid(p, (pipeline_part)i));
    t.seconds[PARTS] = test_cpu_seconds(pipeline_engine_pid(p, PART_WORKER));
    return t;
}

/* ---- the table ---- */

static void print_row(run *x, int n, int seconds, double floor_ms, const cpu_times *before,
                      const cpu_times *after) {
    static const int shown[] = {PART_GATEWAY, PART_ROUTER, PART_WORKER, PARTS, PART_BROKER, PART_REDIS};
    double requests = (double)x->whole.n * (double)(x->end_us - x->start_us) / (seconds * 1e6);
    double p50 = percentile(&x->first, 0.5);
    printf("%7d  %9.0f  %8.2f  %8.2f  %8.2f  %8.2f  %7.2f  ", n, (double)x->whole.n / seconds, p50,
           percentile(&x->first, 0.99), percentile(&x->whole, 0.5), percentile(&x->whole, 0.99),
           p50 - floor_ms);
    for (size_t i = 0; i < sizeof(shown) / sizeof(*shown); i++) {
        double s = after->seconds[shown[i]] - before->seconds[shown[i]];
        printf(" %7.0f", requests > 0 ? s * 1e6 / requests : 0);
    }
    printf("%s\n", x->failed ? "   some FAILED" : "");
    fflush(stdout);
}

static void print_head(const char *broker, samples *floor_samples) {
    double p50 = percentile(floor_samples, 0.5);
    printf("\n%s broker; floor: %.2f ms a hop (p99 %.2f), %.2f ms for the %d hops of a chat\n\n", broker, p50,
           percentile(floor_samples, 0.99), HOPS * p50, HOPS);
    printf(
        "                         first delta, ms       whole, ms     p50 over         CPU, us a request\n");
    printf("clients  chats/s        p50       p99       p50       p99    floor   gateway  router  worker  "
           "engine  "
           "broker   redis\n");
}

typedef struct settings {
    const char *brokers[2];
    int nbrokers, clients[8], nclients, seconds;
    const char *kafka; /* settings of its group, as libconfig */
} settings;

static int measure(mr_loop *l, run *x, const char *broker, const settings *o) {
    const char *kafka = o->kafka;
    /* as `millrace up` has it */
    if (!kafka && strcmp(broker, "embedded") == 0) kafka = "fetch_wait_ms = 2;";
    samples floor_samples = {.ms = calloc(MAX_SAMPLES, sizeof(double))};
    const pipeline_options opt = {
        .broker = broker, .profile = SCRIPTED, .worker = "max_seqs = 256; queue = 512;", .kafka = kafka};
    pipeline *p = pipeline_start(l, &opt);
    if (!p || !floor_samples.ms) {
        free(floor_samples.ms);
        return 77;
    }
    measure_floor(l, pipeline_kafka(p), &floor_samples);
    print_head(broker, &floor_samples);
    double floor_ms = HOPS * percentile(&floor_samples, 0.5);
    int failed = 0;
    for (int i = 0; i < o->nclients; i++) {
        cpu_times before = read_cpu(p);
        run_clients(x, pipeline_port(p), o->clients[i], o->seconds);
        cpu_times after = read_cpu(p);
        print_row(x, o->clients[i], o->seconds, floor_ms, &before, &after);
        failed += x->failed;
    }
    pipeline_stop(p, failed > 0);
    free(floor_samples.ms);
    return failed > 0;
}

static bool parse_flag(settings *o, const char *flag, const char *value) {
    if (!value) return false;
    if (strcmp(flag, "--seconds") == 0) {
        o->seconds = atoi(value);
        return o->seconds > 0;
    }
    if (strcmp(flag, "--kafka") == 0) {
        o->kafka = value;
        return true;
    }
    if (strcmp(flag, "--clients") != 0 || o->nclients == 8) return false;
    o->clients[o->nclients] = atoi(value);
    return o->clients[o->nclients] >= 1 && o->clients[o->nclients++] <= MAX_CLIENTS;
}

static bool parse(int argc, char **argv, settings *o) {
    *o = (settings){.seconds = 5};
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-' && o->nbrokers < 2) {
            o->brokers[o->nbrokers++] = argv[i];
        } else if (!parse_flag(o, argv[i], argv[i + 1])) {
            return false;
        } else {
            i++;
        }
    }
    if (o->nclients == 0) {
        memcpy(o->clients, (int[]){1, 16, 64}, 3 * sizeof(int));
        o->nclients = 3;
    }
    if (o->nbrokers == 0) {
        o->brokers[o->nbrokers++] = "embedded";
        o->brokers[o->nbrokers++] = "kafka";
    }
    return true;
}

static run *run_new(mr_loop *l) {
    run *x = calloc(1, sizeof(*x));
    if (!x) return NULL;
    x->loop = l;
    x->first.ms = calloc(MAX_SAMPLES, sizeof(double));
    x->whole.ms = calloc(MAX_SAMPLES, sizeof(double));
    return x;
}

static void run_free(run *x) {
    if (!x) return;
    free(x->first.ms);
    free(x->whole.ms);
    free(x);
}

int main(int argc, char **argv) {
    mr_error err;
    settings o;
    int rc = 0;
    if (!parse(argc, argv, &o)) {
        fprintf(stderr, "usage: bench_flow [embedded|kafka]... [--seconds N] [--clients N]... "
                        "[--kafka 'linger_ms = 0;']\n");
        return 2;
    }
    mr_log_init("bench", "plain", MR_ERROR, &err);
    mr_loop *l = mr_loop_new(&err);
    run *x = run_new(l);
    if (!l || !x || !x->first.ms || !x->whole.ms) rc = 1;
    for (int i = 0; i < o.nbrokers && rc != 1; i++) {
        int one = measure(l, x, o.brokers[i], &o);
        if (one) rc = one;
    }
    run_free(x);
    mr_loop_free(l);
    return rc;
}

/* A whole pipeline for a test. See pipeline.h. */
#include "support/pipeline.h"

#include "ops/cli/topics.h"
#include "router/kb_import.h"
#include "support/chat.h"
#include "support/support.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define READY_MS  120000
#define END_MS    60000
#define TOPICS_MS 60000
#define POLL_MS   25
#define ARGS      16

typedef struct process {
    pid_t pid; /* 0: does not run */
    int port;  /* where its /readyz is; of broker and redis the one they listen on */
} process;

struct pipeline {
    mr_loop *loop;
    pipeline_options opt;
    process parts[PARTS];
    int gateway_port, gateway2_port;
    char folder[64], conf[128];
    mr_conf *loaded;
    mr_kafka_conf kafka; /* as the processes have it */
};

static const char *const names[PARTS] = {"broker", "redis",   "gateway", "router",
                                         "worker", "worker2", "gateway2"};

/* ---- processes ---- */

static void exec_part(const pipeline *p, const char *name, char *const argv[], pid_t parent) {
    char log[160];
    snprintf(log, sizeof(log), "%s/%s.log", p->folder, name);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644), null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    close_range(3, ~0U, 0);
    execvp(argv[0], argv);
    perror(argv[0]);
    _exit(127);
}

pid_t pipeline_spawn(const pipeline *p, const char *name, char *const argv[]) {
    pid_t parent = getpid(), pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) exec_part(p, name, argv, parent);
    return pid;
}

static void spawn(pipeline *p, pipeline_part part, char *const argv[]) {
    p->parts[part].pid = pipeline_spawn(p, names[part], argv);
}

static void run_broker(pipeline *p) {
    char port[16];
    snprintf(port, sizeof(port), "%d", p->parts[PART_BROKER].port);
    if (p->opt.sasl) {
        spawn(p, PART_BROKER,
              (char *[]){"env", "LOCAL_KAFKA_USER=" PIPELINE_USER ":" PIPELINE_PASSWORD,
                         SOURCE_DIR "/ops/kafka/kafka.sh", "run", p->folder, port, NULL});
    } else if (strcmp(p->opt.broker, "kafka") == 0) {
        spawn(p, PART_BROKER, (char *[]){SOURCE_DIR "/ops/kafka/kafka.sh", "run", p->folder, port, NULL});
    } else {
        spawn(p, PART_BROKER, (char *[]){BIN_DIR "/millrace-broker", "--config", p->conf, NULL});
    }
}

static void run_redis(pipeline *p) {
    char port[16];
    snprintf(port, sizeof(port), "%d", p->parts[PART_REDIS].port);
    spawn(p, PART_REDIS,
          (char *[]){"redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", p->folder,
                     NULL});
}

static void run_second_worker(pipeline *p) {
    char port[16], pid_file[128];
    snprintf(port, sizeof(port), "%d", p->parts[PART_WORKER2].port);
    snprintf(pid_file, sizeof(pid_file), "%s/engine2.pid", p->folder);
    spawn(p, PART_WORKER2,
          (char *[]){BIN_DIR "/millrace-worker", "--config", p->conf, "--metrics_port", port,
                     "--engine_pid_file", pid_file, "--id", "worker2", NULL});
}

static void run_second_gateway(pipeline *p) {
    char port[16], metrics_port[16];
    snprintf(port, sizeof(port), "%d", p->gateway2_port);
    snprintf(metrics_port, sizeof(metrics_port), "%d", p->parts[PART_GATEWAY2].port);
    spawn(p, PART_GATEWAY2,
          (char *[]){BIN_DIR "/millrace-gateway", "--config", p->conf, "--port", port, "--metrics_port",
                     metrics_port, "--partition", "1", NULL});
}

void pipeline_run(pipeline *p, pipeline_part part) {
    assert_int_equal(p->parts[part].pid, 0);
    char program[256];
    switch (part) {
    case PART_BROKER: run_broker(p); break;
    case PART_REDIS: run_redis(p); break;
    case PART_WORKER2: run_second_worker(p); break;
    case PART_GATEWAY2: run_second_gateway(p); break;
    default:
        snprintf(program, sizeof(program), BIN_DIR "/millrace-%s", names[part]);
        spawn(p, part, (char *[]){program, "--config", p->conf, NULL});
    }
}

static int wait_end(pipeline *p, pipeline_part part) {
    int status;
    for (int64_t until = mr_mono_us() + END_MS * 1000LL; mr_mono_us() < until; test_idle(p->loop, POLL_MS)) {
        if (waitpid(p->parts[part].pid, &status, WNOHANG) == 0) continue;
        p->parts[part].pid = 0;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    fail_msg("%s does not end", names[part]);
    return -1;
}

void pipeline_kill(pipeline *p, pipeline_part part) {
    kill(p->parts[part].pid, SIGKILL);
    wait_end(p, part);
}

int pipeline_end(pipeline *p, pipeline_part part) {
    kill(p->parts[part].pid, SIGTERM);
    return wait_end(p, part);
}

pid_t pipeline_pid(const pipeline *p, pipeline_part part) {
    return p->parts[part].pid;
}

pid_t pipeline_engine_pid(const pipeline *p, pipeline_part worker) {
    char path[128];
    int pid = 0;
    snprintf(path, sizeof(path), "%s/engine%s.pid", p->folder, worker == PART_WORKER2 ? "2" : "");
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%d", &pid) != 1) pid = 0;
    if (f) fclose(f);
    return pid;
}

/* ---- asking them ---- */

static bool listens(int port) {
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
    if (fd >= 0) close(fd);
    return ok;
}

static bool is_ready(pipeline *p, pipeline_part part) {
    if (part == PART_BROKER || part == PART_REDIS) return listens(p->parts[part].port);
    chat *c = chat_send(p->loop, p->parts[part].port, "/readyz", MR_STR(""));
    chat_wait(p->loop, c);
    bool ready = c->status == 200;
    chat_free(c);
    return ready;
}

void pipeline_wait_ready(pipeline *p, pipeline_part part) {
    int status;
    for (int64_t until = mr_mono_us() + READY_MS * 1000LL; mr_mono_us() < until;
         test_idle(p->loop, POLL_MS)) {
        if (is_ready(p, part)) return;
        if (waitpid(p->parts[part].pid, &status, WNOHANG) == 0) continue;
        p->parts[part].pid = 0;
        fail_msg("%s ended while starting; see %s/%s.log", names[part], p->folder, names[part]);
    }
    fail_msg("%s does not become ready; see %s/%s.log", names[part], p->folder, names[part]);
}

double pipeline_metric(pipeline *p, pipeline_part part, const char *name) {
    return chat_metric(p->loop, p->parts[part].port, name);
}

bool pipeline_wait_metric(pipeline *p, pipeline_part part, const char *name, double value) {
    for (int64_t until = mr_mono_us() + END_MS * 1000LL; mr_mono_us() < until; test_idle(p->loop, POLL_MS)) {
        if (pipeline_metric(p, part, name) == value) return true;
    }
    return false;
}

int pipeline_port(const pipeline *p) {
    return p->gateway_port;
}

int pipeline_port2(const pipeline *p) {
    return p->gateway2_port;
}

int pipeline_redis_port(const pipeline *p) {
    return p->parts[PART_REDIS].port;
}

const char *pipeline_conf(const pipeline *p) {
    return p->conf;
}

const mr_kafka_conf *pipeline_kafka(const pipeline *p) {
    return &p->kafka;
}

/* ---- start and stop ---- */

/* The settings of whoever runs the tests are not the pipeline's. */
static void forget_settings(void) {
    static const char prefix[] = "MILLRACE_";
    for (char **e = environ; *e;) {
        char name[128];
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(*e, "="), *e);
        if (strncmp(name, prefix, sizeof(prefix) - 1) != 0 || unsetenv(name) != 0) e++;
    }
}

static bool can_run(const pipeline_options *opt) {
    bool kafka = strcmp(opt->broker, "kafka") == 0;
    if (kafka && system("command -v java >/dev/null && " SOURCE_DIR "/ops/kafka/kafka.sh fetch") != 0) {
        fprintf(stderr, "skipped: no Apache Kafka here (ops/install.sh kafka; ops/kafka/kafka.sh fetch)\n");
        return false;
    }
    if (system("command -v redis-server >/dev/null") != 0) {
        fprintf(stderr, "skipped: redis-server is missing (ops/install.sh run)\n");
        return false;
    }
    return true;
}

static void write_conf(const pipeline *p) {
    FILE *f = fopen(p->conf, "we");
    assert_non_null(f);
    const char *kafka = p->opt.kafka ? p->opt.kafka : "";
    bool waits = strcmp(p->opt.broker, "embedded") == 0 && !strstr(kafka, "fetch_wait_ms");
    fprintf(f, "kafka: { brokers = \"127.0.0.1:%d\"; %s %s", p->parts[PART_BROKER].port,
            waits ? "fetch_wait_ms = 5;" : "", kafka);
    if (p->opt.sasl) {
        fprintf(
            f,
            " extra = (\"security.protocol=SASL_SSL\", \"sasl.mechanism=%s\", \"sasl.username=" PIPELINE_USER
            "\", \"sasl.password=" PIPELINE_PASSWORD "\", \"ssl.ca.location=%s/kafka/ca.pem\");",
            p->opt.sasl, p->folder);
    }
    fprintf(f, " };\n");
    fprintf(f, "redis: { address = \"127.0.0.1:%d\"; };\n", p->parts[PART_REDIS].port);
    fprintf(f, "log: { level = \"debug\"; format = \"plain\"; };\n");
    fprintf(f, "gateway: { port = %d; metrics_port = %d; };\n", p->gateway_port, p->parts[PART_GATEWAY].port);
    fprintf(f, "router: { metrics_port = %d; kb = \"%s%s\"; };\n", p->parts[PART_ROUTER].port,
            p->opt.kb ? p->folder : "", p->opt.kb ? "/kb.sqlite" : "");
    fprintf(f, "worker: { metrics_port = %d; engine_pid_file = \"%s/engine.pid\"; id = \"worker\";\n",
            p->parts[PART_WORKER].port, p->folder);
    fprintf(f, "  model = \"%s\"; engine = \"%s\"; simulated_profile = \"%s\";\n",
            p->opt.model ? p->opt.model : SOURCE_DIR "/ops/demo/millrace-demo",
            p->opt.profile ? "simulated" : "real", p->opt.profile ? p->opt.profile : "");
    fprintf(f, "  model_name = \"millrace-demo\"; %s };\n", p->opt.worker ? p->opt.worker : "");
    assert_int_equal(fclose(f), 0);
}

static void configure(pipeline *p) {
    mr_error err;
    mr_kb_counts counts;
    char kb[128];
    test_folder_init(p->folder);
    snprintf(p->conf, sizeof(p->conf), "%s/millrace.conf", p->folder);
    for (int i = 0; i < PARTS; i++) p->parts[i].port = test_free_port();
    p->gateway_port = test_free_port();
    p->gateway2_port = test_free_port();
    write_conf(p);
    const mr_conf_group groups[] = {{"kafka", mr_kafka_keys, &p->kafka}, {0}};
    p->loaded = mr_conf_load(p->conf, groups, &err);
    if (!p->loaded) fail_msg("%s", err.msg);
    snprintf(kb, sizeof(kb), "%s/kb.sqlite", p->folder);
    if (p->opt.kb && mr_kb_import(kb, p->opt.kb, false, &counts, &err) != 0) fail_msg("%s", err.msg);
}

static void create_topics(const pipeline *p) {
    mr_error err;
    mr_topic_list list;
    if (mr_topic_list_fill(&list, &p->kafka, (mr_strlist){.n = 0}, MR_PARTITIONS, &err) != 0 ||
        mr_bus_create_topics(&p->kafka, list.specs, list.n, TOPICS_MS, &err) != 0) {
        fail_msg("%s", err.msg);
    }
}

const char *pipeline_test_broker(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s embedded|kafka\n", program_invocation_short_name);
        return NULL;
    }
    test_log_init();
    return argv[1];
}

pipeline *pipeline_start(mr_loop *l, const pipeline_options *opt) {
    forget_settings();
    if (!can_run(opt)) return NULL;
    pipeline *p = calloc(1, sizeof(*p));
    assert_non_null(p);
    p->loop = l;
    p->opt = *opt;
    configure(p);
    pipeline_run(p, PART_BROKER);
    pipeline_run(p, PART_REDIS);
    pipeline_wait_ready(p, PART_BROKER);
    pipeline_wait_ready(p, PART_REDIS);
    create_topics(p);
    if (opt->servers_only) return p;
    for (pipeline_part i = PART_GATEWAY; i <= PART_WORKER; i++) pipeline_run(p, i);
    for (pipeline_part i = PART_GATEWAY; i <= PART_WORKER; i++) pipeline_wait_ready(p, i);
    return p;
}

void pipeline_stop(pipeline *p, bool failed) {
    if (!p) return;
    for (int i = PARTS; i-- > 0;) {
        if (p->parts[i].pid) pipeline_kill(p, (pipeline_part)i);
    }
    if (failed) {
        fprintf(stderr, "the logs are in %s\n", p->folder);
    } else {
        test_folder_done(p->folder);
    }
    mr_conf_free(p->loaded);
    free(p);
}

/* The plan of a local pipeline (see up.h): ports, configuration file, and the command line of each part. */
#include "base/bus.h"
#include "base/conf.h"
#include "ops/cli/topics.h"
#include "ops/cli/up.h"
#include "router/conf.h"
#include "router/kb_import.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEMO_MODEL   "ops/demo/millrace-demo"
#define DEMO_PROFILE "ops/profiles/laptop.conf"
#define TOPICS_MS    30000
#define CONF_BYTES   65536
#define ANSWER_MS    3000 /* for a server of the user's own to accept a connection */

/* Parts of a lower rank stop first, so that each can hand on what it holds. */
enum { STOP_GATEWAY, STOP_ROUTER, STOP_WORKER, STOP_REDIS, STOP_BROKER };

/* ---- ports ---- */

static int listen_at(int port, mr_error *err) {
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    static const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 1) == 0) {
        return fd;
    }
    if (errno == EADDRINUSE) {
        mr_fail(err, MR_EIO, "port %d is in use on this machine; choose another one with --port", port);
    } else {
        mr_fail(err, MR_EIO, "port %d of 127.0.0.1 cannot be opened: %s", port, strerror(errno));
    }
    if (fd >= 0) close(fd);
    return -1;
}

static int port_of(int fd) {
    struct sockaddr_in a;
    socklen_t n = sizeof(a);
    return getsockname(fd, (struct sockaddr *)&a, &n) == 0 ? ntohs(a.sin_port) : 0;
}

/* All ports are held while they are chosen, so that they differ. */
static int choose_ports(mr_up_plan *p, mr_error *err) {
    int *wanted[5 + MR_UP_WORKERS_MAX], held[5 + MR_UP_WORKERS_MAX], n = 0, nheld = 0, rc = 0;
    int gateway = p->o->port;
    wanted[n++] = &gateway;
    wanted[n++] = &p->gateway_metrics;
    wanted[n++] = &p->router_metrics;
    for (int i = 0; i < p->o->workers; i++) wanted[n++] = &p->worker_metrics[i];
    if (!p->o->brokers) wanted[n++] = &p->broker_port;
    if (!p->o->redis) wanted[n++] = &p->redis_port;
    for (; nheld < n; nheld++) {
        held[nheld] = listen_at(*wanted[nheld], err);
        if (held[nheld] < 0) break;
        *wanted[nheld] = port_of(held[nheld]);
    }
    if (nheld < n) rc = -1;
    while (nheld > 0) close(held[--nheld]);
    return rc;
}

/* ---- servers of the user's own ---- */

static bool accepts(const struct addrinfo *a) {
    int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol), bad = 1;
    socklen_t n = sizeof(bad);
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (fd < 0) return false;
    bool there = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ||
                 (errno == EINPROGRESS && poll(&p, 1, ANSWER_MS) == 1 &&
                  getsockopt(fd, SOL_SOCKET, SO_ERROR, &bad, &n) == 0 && bad == 0);
    close(fd);
    return there;
}

/* A wrong address is the user's to mend, so it is said before anything is started. */
static int check_server(const char *flag, const char *address, mr_error *err) {
    const char *first =
        strrchr(address, ','); /* of several brokers the last is tried; they know each other */
    char host[MR_UP_NAME_MAX];
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    snprintf(host, sizeof(host), "%s", first ? first + 1 : address);
    char *colon = strrchr(host, ':');
    *colon = '\0';
    int rc = getaddrinfo(host, colon + 1, &hints, &found);
    if (rc != 0) return mr_fail(err, MR_EIO, "%s %s: %s", flag, address, gai_strerror(rc));
    bool there = false;
    for (struct addrinfo *a = found; a && !there; a = a->ai_next) there = accepts(a);
    freeaddrinfo(found);
    return there ? 0 : mr_fail(err, MR_EIO, "%s %s: nothing answers there", flag, address);
}

static int check_servers(const mr_up_options *o, mr_error *err) {
    if (o->brokers && check_server("--brokers", o->brokers, err) != 0) return -1;
    return o->redis ? check_server("--redis", o->redis, err) : 0;
}

/* ---- the state folder ---- */

static int make_folder(const char *path, mr_error *err) {
    if (mkdir(path, 0755) == 0 || errno == EEXIST) return 0;
    return mr_fail(err, MR_EIO, "the folder %s cannot be made: %s", path, strerror(errno));
}

static int in_state(const mr_up_options *o, const char *name, char out[MR_PATH_MAX], mr_error *err) {
    int n = snprintf(out, MR_PATH_MAX, "%s/%s", o->state, name);
    return n < MR_PATH_MAX ? 0 : mr_fail(err, MR_EINVAL, "the path of --state is too long");
}

int mr_up_state_make(mr_up_options *o, mr_error *err) {
    char path[PATH_MAX];
    if (make_folder(o->state, err) != 0) return -1;
    if (!realpath(o->state, path)) return mr_fail(err, MR_EIO, "%s: %s", o->state, strerror(errno));
    snprintf(o->state, sizeof(o->state), "%s", path);
    return in_state(o, "log", path, err) == 0 ? make_folder(path, err) : -1;
}

/* ---- the model ---- */

static int find_model(mr_up_plan *p, mr_up_options *o, mr_error *err) {
    char path[PATH_MAX], config[PATH_MAX + 16];
    bool demo = o->model[0] == '\0';
    if (demo && mr_self_source(DEMO_MODEL, o->model, err) != 0) return -1;
    if (!realpath(o->model, path)) {
        return mr_fail(err, MR_ENOTFOUND, "--model %s: %s", o->model, strerror(errno));
    }
    snprintf(config, sizeof(config), "%s/config.json", path);
    if (access(config, R_OK) != 0) {
        return mr_fail(
            err, MR_ENOTFOUND,
            "--model %s: there is no config.json in it; give the folder of a HuggingFace checkpoint",
            o->model);
    }
    snprintf(o->model, sizeof(o->model), "%s", path);
    snprintf(p->model_name, sizeof(p->model_name), "%s", strrchr(path, '/') + 1);
    return 0;
}

/* The simulated engine has a profile in the place of a checkpoint. */
static int find_profile(mr_up_plan *p, mr_up_options *o, mr_error *err) {
    char path[PATH_MAX];
    if (!*o->profile && mr_self_source(DEMO_PROFILE, o->profile, err) != 0) return -1;
    if (!realpath(o->profile, path) || access(path, R_OK) != 0)
        return mr_fail(err, MR_ENOTFOUND, "--profile %s: %s", o->profile, strerror(errno));
    snprintf(o->profile, sizeof(o->profile), "%s", path);
    snprintf(p->model_name, sizeof(p->model_name), "simulated");
    return 0;
}

/* The engine itself says whether it can read the checkpoint: a worker would try again and again, as it should when a
 * file system is away, and nobody at the terminal would see why. What the engine has to say goes to stderr. */
static int check_model(const mr_up_options *o, mr_error *err) {
    char program[MR_PATH_MAX];
    int status;
    if (mr_self_sibling("engine", program, err) != 0) return -1;
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        if (null >= 0) dup2(null, 1);
        execl(program, program, "inspect", "--model", o->model, (char *)NULL);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        return mr_fail(err, MR_EIO, "%s cannot be run: %s", program, strerror(errno));
    }
    if (status == 0) return 0;
    return mr_fail(err, MR_EINVAL, "--model %s cannot be read%s", o->model,
                   WIFEXITED(status) && WEXITSTATUS(status) == 127 ? ": millrace-engine is missing"
                                                                   : " (the engine's reason is above)");
}

/* ---- the configuration file ---- */

static void put_string(mr_buf *b, const char *z) {
    mr_buf_puts(b, "\"");
    for (; *z; z++) {
        if (*z == '"' || *z == '\\') mr_buf_puts(b, "\\");
        mr_buf_put(b, z, 1);
    }
    mr_buf_puts(b, "\"");
}

static void put_conf(const mr_up_plan *p, mr_buf *b) {
    mr_buf_puts(b, "# Written by `millrace up`, anew at each start.\nkafka = { brokers = ");
    put_string(b, p->brokers);
    /* the embedded broker holds an empty fetch for the whole time: an answer passes three of them */
    if (!p->o->kafka && !p->o->brokers) mr_buf_puts(b, "; fetch_wait_ms = 2");
    mr_buf_puts(b, "; };\nredis = { address = ");
    put_string(b, p->redis);
    mr_buf_printf(b, "; };\nlog = { format = \"%s\"; };\n", p->o->detach ? "json" : "plain");
    mr_buf_printf(b, "gateway = { port = %d; metrics_port = %d; models = [", p->o->port, p->gateway_metrics);
    put_string(b, p->model_name);
    mr_buf_puts(b, "]; };\nrouter = { kb = ");
    put_string(b, p->kb);
    mr_buf_printf(b, "; metrics_port = %d; };\nworker = { model = ", p->router_metrics);
    put_string(b, p->o->model);
    mr_buf_puts(b, p->o->simulated ? "; engine = \"simulated\"; simulated_profile = "
                                   : "; simulated_profile = ");
    put_string(b, p->o->profile);
    mr_buf_puts(b, "; model_name = ");
    put_string(b, p->model_name);
    mr_buf_printf(b, "; threads = %d; };\n", p->o->threads);
}

static int write_conf(const mr_up_plan *p, mr_error *err) {
    mr_buf b;
    mr_buf_init(&b, CONF_BYTES);
    put_conf(p, &b);
    FILE *f = b.failed ? NULL : fopen(p->config, "we");
    bool ok = f && fwrite(b.p, 1, b.n, f) == b.n;
    if (f && fclose(f) != 0) ok = false;
    if (!ok) mr_fail(err, MR_EIO, "%s cannot be written: %s", p->config, strerror(errno));
    mr_buf_done(&b);
    return ok ? 0 : -1;
}

/* What the plan decides must not be changed by the environment of whoever calls. */
static void clear_environment(void) {
    static const char *const decided[] = {
        "KAFKA_BROKERS",        "REDIS_ADDRESS",
        "GATEWAY_PORT",         "GATEWAY_HOST",
        "GATEWAY_METRICS_PORT", "GATEWAY_METRICS_HOST",
        "ROUTER_METRICS_PORT",  "ROUTER_METRICS_HOST",
        "WORKER_METRICS_HOST",  "GATEWAY_MODELS",
        "WORKER_MODEL",         "WORKER_MODEL_NAME",
        "WORKER_ENGINE",        "WORKER_SIMULATED_PROFILE",
    };
    for (size_t i = 0; i < sizeof(decided) / sizeof(*decided); i++) {
        char name[64];
        snprintf(name, sizeof(name), "MILLRACE_%s", decided[i]);
        unsetenv(name);
    }
}

static void put_address(char out[MR_UP_NAME_MAX], const char *given, int port) {
    if (given) {
        snprintf(out, MR_UP_NAME_MAX, "%s", given);
    } else {
        snprintf(out, MR_UP_NAME_MAX, "127.0.0.1:%d", port);
    }
}

int mr_up_plan_check(mr_up_plan *p, mr_up_options *o, mr_error *err) {
    *p = (mr_up_plan){.o = o};
    int rc = o->simulated ? find_profile(p, o, err) : find_model(p, o, err) || check_model(o, err);
    return rc == 0 ? check_servers(o, err) : -1;
}

int mr_up_plan_make(mr_up_plan *p, mr_error *err) {
    const mr_up_options *o = p->o;
    if (choose_ports(p, err) != 0 || in_state(o, "millrace.conf", p->config, err) != 0 ||
        in_state(o, "kb.sqlite", p->kb, err) != 0) {
        return -1;
    }
    put_address(p->brokers, o->brokers, p->broker_port);
    put_address(p->redis, o->redis, p->redis_port);
    clear_environment();
    return write_conf(p, err);
}

/* ---- servers that are not ours ---- */

static mr_part *add(mr_parts *parts, const char *name, int port, int stop_rank, mr_error *err) {
    mr_part *part = mr_parts_add(parts, name);
    if (!part) {
        mr_fail(err, MR_ETOOBIG, "too many processes");
        return NULL;
    }
    part->port = port;
    part->stop_rank = stop_rank;
    return part;
}

static int start_broker(const mr_up_plan *p, mr_parts *parts, mr_error *err) {
    char program[MR_PATH_MAX];
    mr_part *part = add(parts, "broker", p->broker_port, STOP_BROKER, err);
    if (!part) return -1;
    part->probe_tcp = true;
    part->stop_s = 30;
    if (p->o->kafka) {
        if (mr_self_source("ops/kafka/kafka.sh", program, err) != 0 ||
            mr_part_arg(part, err, "%s", program) != 0 || mr_part_arg(part, err, "run") != 0 ||
            mr_part_arg(part, err, "%s", p->o->state) != 0 ||
            mr_part_arg(part, err, "%d", p->broker_port) != 0) {
            return -1;
        }
    } else if (mr_self_sibling("broker", program, err) != 0 || mr_part_arg(part, err, "%s", program) != 0 ||
               mr_part_arg(part, err, "--config") != 0 || mr_part_arg(part, err, "%s", p->config) != 0) {
        return -1;
    }
    return mr_parts_start(parts, part, err);
}

static int start_redis(const mr_up_plan *p, mr_parts *parts, mr_error *err) {
    static const char *const fixed[] = {
        "--bind",      "127.0.0.1", "--save",      "",      "--appendonly",       "no",
        "--daemonize", "no",        "--maxmemory", "256mb", "--maxmemory-policy", "volatile-lru",
        "--loglevel",  "warning"};
    mr_part *part = add(parts, "redis", p->redis_port, STOP_REDIS, err);
    if (!part) return -1;
    part->probe_tcp = true;
    if (mr_part_arg(part, err, "redis-server") != 0 || mr_part_arg(part, err, "--port") != 0 ||
        mr_part_arg(part, err, "%d", p->redis_port) != 0 || mr_part_arg(part, err, "--dir") != 0 ||
        mr_part_arg(part, err, "%s", p->o->state) != 0) {
        return -1;
    }
    for (size_t i = 0; i < sizeof(fixed) / sizeof(*fixed); i++) {
        if (mr_part_arg(part, err, "%s", fixed[i]) != 0) return -1;
    }
    return mr_parts_start(parts, part, err);
}

int mr_up_start_servers(const mr_up_plan *p, mr_parts *parts, mr_error *err) {
    if (p->broker_port && start_broker(p, parts, err) != 0) return -1;
    return p->redis_port ? start_redis(p, parts, err) : 0;
}

/* ---- topics and knowledge base ---- */

static int create_topics(const mr_up_plan *p, mr_error *err) {
    mr_kafka_conf kafka;
    mr_router_conf router;
    const mr_conf_group groups[] = {
        {"kafka", mr_kafka_keys, &kafka}, {"router", mr_router_keys, &router}, {0}};
    mr_topic_list list;
    mr_conf *c = mr_conf_load(p->config, groups, err);
    if (!c) return -1;
    int rc = mr_router_conf_check(&router, err);
    if (rc == 0) rc = mr_topic_list_fill(&list, &kafka, router.pools, MR_PARTITIONS, err);
    if (rc == 0) rc = mr_bus_create_topics(&kafka, list.specs, list.n, TOPICS_MS, err);
    mr_conf_free(c);
    return rc;
}

int mr_up_prepare(const mr_up_plan *p, mr_error *err) {
    char tsv[MR_PATH_MAX];
    mr_kb_counts counts;
    if (create_topics(p, err) != 0 || mr_self_source("ops/demo/kb.tsv", tsv, err) != 0) return -1;
    return mr_kb_import(p->kb, tsv, false, &counts, err);
}

/* ---- our own processes ---- */

static mr_part *add_own(const mr_up_plan *p, mr_parts *parts, const char *program, const char *name, int port,
                        int stop_rank, mr_error *err) {
    char path[MR_PATH_MAX];
    mr_part *part = add(parts, name, port, stop_rank, err);
    if (!part) return NULL;
    part->stop_s = 70; /* longer than any of them drains */
    if (mr_self_sibling(program, path, err) != 0 || mr_part_arg(part, err, "%s", path) != 0 ||
        mr_part_arg(part, err, "--config") != 0 || mr_part_arg(part, err, "%s", p->config) != 0) {
        return NULL;
    }
    return part;
}

/* worker and engine.pid for the first one, worker-2 and engine-2.pid for the second… */
static int start_worker(const mr_up_plan *p, mr_parts *parts, int i, mr_error *err) {
    char name[32], suffix[16] = "";
    if (i > 0) snprintf(suffix, sizeof(suffix), "-%d", i + 1);
    snprintf(name, sizeof(name), "worker%s", suffix);
    mr_part *part = add_own(p, parts, "worker", name, p->worker_metrics[i], STOP_WORKER, err);
    if (!part || mr_part_arg(part, err, "--id") != 0 || mr_part_arg(part, err, "%s", name) != 0 ||
        mr_part_arg(part, err, "--metrics_port") != 0 ||
        mr_part_arg(part, err, "%d", p->worker_metrics[i]) != 0 ||
        mr_part_arg(part, err, "--engine_pid_file") != 0 ||
        mr_part_arg(part, err, "%s/engine%s.pid", p->o->state, suffix) != 0) {
        return -1;
    }
    return mr_parts_start(parts, part, err);
}

int mr_up_start_millrace(const mr_up_plan *p, mr_parts *parts, mr_error *err) {
    mr_part *part = add_own(p, parts, "gateway", "gateway", p->gateway_metrics, STOP_GATEWAY, err);
    if (!part || mr_parts_start(parts, part, err) != 0) return -1;
    part = add_own(p, parts, "router", "router", p->router_metrics, STOP_ROUTER, err);
    if (!part || mr_parts_start(parts, part, err) != 0) return -1;
    for (int i = 0; i < p->o->workers; i++) {
        if (start_worker(p, parts, i, err) != 0) return -1;
    }
    return 0;
}

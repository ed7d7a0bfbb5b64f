/* Test support (see support.h): processes are children of the test and die with it. */
#include "support/support.h"

#include "base/error.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- ports and folders ---- */

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* No other test of this machine gets this port while this process lives, also while nobody listens on it: an abstract socket's
 * name stands for it, which the kernel gives to one process at a time. */
static bool reserve(int port) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int n = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "millrace-test-port-%d", port);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert(fd >= 0);
    if (bind(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)) == 0)
        return true;
    close(fd);
    return false;
}

static bool is_free(int port) {
    struct sockaddr_in a = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert(fd >= 0);
    bool ok = bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
    close(fd);
    return ok;
}

void test_log_init(void) {
    mr_error err;
    assert(mr_log_init("test", "plain", getenv("VERBOSE") ? MR_DEBUG : MR_ERROR, &err) == 0);
}

/* Below the ports that the kernel gives to outgoing connections: on a busy machine one of those would take it before it is
 * listened on. Even ones only: Kafka's controller listens on the one above its broker's. */
int test_free_port(void) {
    for (int tries = 0; tries < 1000; tries++) {
        uint32_t r;
        assert(getrandom(&r, sizeof(r), 0) == sizeof(r));
        int port = (int)(10000 + r % 11000 * 2);
        if (is_free(port) && reserve(port)) return port;
    }
    assert(!"no free port");
    return 0;
}

void test_folder_init(char path[64]) {
    const char *tmp = getenv("TMPDIR");
    int n = snprintf(path, 64, "%s/millrace-test-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    assert(n < 64);
    char *made = mkdtemp(path);
    assert(made);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void test_folder_done(const char *path) {
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void test_write(const char *path, const void *bytes, size_t n) {
    FILE *out = fopen(path, "we");
    assert(out);
    size_t written = fwrite(bytes, 1, n, out);
    assert(written == n);
    int rc = fclose(out);
    assert(rc == 0);
}

void test_write_text(const char *path, const char *text) {
    test_write(path, text, strlen(text));
}

/* ---- processes ---- */

double test_cpu_seconds(pid_t pid) {
    char path[64], line[1024];
    unsigned long user = 0, kernel = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *f = pid ? fopen(path, "re") : NULL;
    if (!f) return 0;
    const char *at = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
    fclose(f);
    if (!at || sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) != 2)
        return 0;
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

/* ---- waiting ---- */

typedef struct waiting {
    mr_loop *loop;
    test_cond *cond;
    void *arg;
    int64_t deadline_us;
    bool met;
} waiting;

static void check(void *arg) {
    waiting *w = arg;
    w->met = w->cond && w->cond(w->arg);
    if (w->met || mr_mono_us() > w->deadline_us) mr_loop_stop(w->loop);
}

bool test_wait(mr_loop *l, int timeout_ms, test_cond *cond, void *arg) {
    mr_error err;
    waiting w = {.loop = l, .cond = cond, .arg = arg, .deadline_us = mr_mono_us() + timeout_ms * 1000LL};
    if (cond && cond(arg)) return true;
    mr_timer *t = mr_timer_new(l, 2, check, &w, &err);
    assert(t);
    mr_loop_run(l);
    mr_timer_free(t);
    return w.met || (cond && cond(arg)); /* what came true may have stopped the loop as well */
}

void test_idle(mr_loop *l, int ms) {
    test_wait(l, ms, NULL, NULL);
}

/* ---- redis ---- */

struct test_redis {
    pid_t pid;
    int port;
};

static bool accepts(int port) {
    struct sockaddr_in a = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
    if (fd >= 0) close(fd);
    return ok;
}

static void exec_redis(int port, const char *password) {
    char number[16];
    snprintf(number, sizeof(number), "%d", port);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int null = open("/dev/null", O_RDWR);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    execlp("redis-server", "redis-server", "--port", number, "--bind", "127.0.0.1", "--save", "",
           "--appendonly", "no", "--requirepass", password ? password : "", (char *)NULL);
    _exit(127);
}

test_redis *test_redis_start(int port, const char *password) {
    if (port == 0) port = test_free_port();
    pid_t pid = fork();
    assert(pid >= 0);
    if (pid == 0) exec_redis(port, password);
    for (int64_t deadline = mr_mono_us() + 10 * 1000000LL; mr_mono_us() < deadline; usleep(5000)) {
        int status;
        if (waitpid(pid, &status, WNOHANG) == pid) return NULL;
        if (!accepts(port)) continue;
        test_redis *r = malloc(sizeof(*r));
        assert(r);
        *r = (test_redis){.pid = pid, .port = port};
        return r;
    }
    assert(!"redis-server did not start within 10 s");
    return NULL;
}

int test_redis_port(const test_redis *r) {
    return r->port;
}

void test_redis_stop(test_redis *r) {
    if (!r) return;
    kill(r->pid, SIGKILL);
    waitpid(r->pid, NULL, 0);
    free(r);
}

/* ---- kafka ---- */

struct test_kafka {
    rd_kafka_t *rk;
    rd_kafka_mock_cluster_t *cluster;
};

static void no_log(const rd_kafka_t *rk, int level, const char *facility, const char *text) {
    (void)rk, (void)level, (void)facility, (void)text;
}

test_kafka *test_kafka_start(void) {
    char why[200];
    test_kafka *k = calloc(1, sizeof(*k));
    assert(k);
    rd_kafka_conf_t *c = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(c, no_log);
    k->rk = rd_kafka_new(RD_KAFKA_PRODUCER, c, why, sizeof(why));
    assert(k->rk);
    k->cluster = rd_kafka_mock_cluster_new(k->rk, 1);
    assert(k->cluster);
    return k;
}

void test_kafka_topic(test_kafka *k, const char *topic, int partitions) {
    rd_kafka_resp_err_t e = rd_kafka_mock_topic_create(k->cluster, topic, partitions, 1);
    assert(e == RD_KAFKA_RESP_ERR_NO_ERROR);
}

mr_kafka_conf test_kafka_conf(const test_kafka *k) {
    return (mr_kafka_conf){.brokers = rd_kafka_mock_cluster_bootstraps(k->cluster),
                           .prefix = "",
                           .message_max = 3900000,
                           .linger_ms = 1,
                           .fetch_wait_ms = 5,
                           .session_timeout_ms = 6000};
}

void test_kafka_fail_produce(test_kafka *k, int code, int n) {
    const int16_t produce = 0; /* the request's number in Kafka's protocol */
    if (n == 0) rd_kafka_mock_clear_request_errors(k->cluster, produce);
    for (int i = 0; i < n; i++)
        rd_kafka_mock_push_request_errors(k->cluster, produce, 1, (rd_kafka_resp_err_t)code);
}

void test_kafka_delay(test_kafka *k, int ms) {
    rd_kafka_mock_broker_set_rtt(k->cluster, 1, ms);
}

void test_kafka_lead(test_kafka *k, const char *topic, int partition, bool led) {
    rd_kafka_resp_err_t e = rd_kafka_mock_partition_set_leader(k->cluster, topic, partition, led ? 1 : -1);
    assert(e == RD_KAFKA_RESP_ERR_NO_ERROR);
}

void test_kafka_stop(test_kafka *k) {
    if (!k) return;
    rd_kafka_mock_cluster_destroy(k->cluster);
    rd_kafka_destroy(k->rk);
    free(k);
}

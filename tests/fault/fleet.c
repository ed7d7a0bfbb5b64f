/* See fleet.h. */
#include "fault/fleet.h"

#include "support/chat.h"
#include "support/support.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define READY_MS 400000
#define POLL_MS  50
#define ARGS     24

static const member plan[FLEET_MEMBERS] = {
    {.name = "gateway1", .role = ROLE_GATEWAY},
    {.name = "gateway2", .role = ROLE_GATEWAY},
    {.name = "router1", .role = ROLE_ROUTER},
    {.name = "router2", .role = ROLE_ROUTER},
    {.name = "blue1", .role = ROLE_WORKER, .color = "blue"},
    {.name = "blue2", .role = ROLE_WORKER, .color = "blue"},
    {.name = "green1", .role = ROLE_WORKER, .color = "green"},
    {.name = "green2", .role = ROLE_WORKER, .color = "green"},
    {.name = "redis", .role = ROLE_REDIS},
    {.name = "broker", .role = ROLE_BROKER},
};

static void die(const char *what, const char *name) {
    fprintf(stderr, "soak: %s: %s\n", name, what);
    exit(1);
}

static bool is_server(const member *m) {
    return m->role == ROLE_REDIS || m->role == ROLE_BROKER;
}

static pipeline_part part_of(const member *m) {
    return m->role == ROLE_REDIS ? PART_REDIS : PART_BROKER;
}

static int broker_port(const fleet *f) {
    return atoi(strchr(pipeline_kafka(f->p)->brokers, ':') + 1);
}

/* ---- processes ---- */

static void spawn(fleet *f, member *m) {
    static const char *const programs[] = {BIN_DIR "/millrace-gateway", BIN_DIR "/millrace-router",
                                           BIN_DIR "/millrace-worker"};
    char port[16], metrics[16];
    const char *partition = strcmp(m->name, "gateway2") == 0 ? "1" : "0";
    const char *const more[][ARGS] = {
        {"--port", port, "--partition", partition, "--drain_s", "5"},
        {NULL},
        {"--id", m->name, "--color", m->color, "--engine_pid_file", m->pid_file},
    };
    char *argv[ARGS + 8] = {(char *)programs[m->role], "--config", (char *)pipeline_conf(f->p),
                            "--metrics_port", metrics};
    snprintf(port, sizeof(port), "%d", m->port);
    snprintf(metrics, sizeof(metrics), "%d", m->metrics_port);
    for (int i = 0; more[m->role][i]; i++) argv[5 + i] = (char *)more[m->role][i];
    if (m->points) {
        char route[32];
        snprintf(route, sizeof(route), "%d:%d", broker_port(f), test_proxy_port(m->way));
        m->points->armed = POINT_NONE;
        setenv("MILLRACE_FAULT_POINTS", m->points_file, 1);
        setenv("MILLRACE_FAULT_ROUTE", route, 1);
        setenv("LD_PRELOAD", FAULT_POINTS, 1);
    }
    m->pid = pipeline_spawn(f->p, m->name, argv);
    unsetenv("LD_PRELOAD");
    unsetenv("MILLRACE_FAULT_ROUTE");
}

static void start(fleet *f, member *m) {
    if (is_server(m)) {
        if (!pipeline_pid(f->p, part_of(m))) pipeline_run(f->p, part_of(m));
        m->pid = pipeline_pid(f->p, part_of(m));
    } else {
        spawn(f, m);
    }
    m->state = MEMBER_UP;
    m->due_us = 0;
    m->back_us = mr_mono_us();
}

static void thaw(member *m) {
    kill(m->pid, SIGCONT);
    m->state = MEMBER_UP;
    m->due_us = 0;
    m->back_us = m->hurt_us = mr_mono_us();
}

static void let_files_grow(const member *m, bool may) {
    struct rlimit r;
    if (m->pid == 0 || prlimit(m->pid, RLIMIT_FSIZE, NULL, &r) != 0) return;
    r.rlim_cur = may ? r.rlim_max : 0;
    prlimit(m->pid, RLIMIT_FSIZE, &r, NULL);
}

static void mend(member *m, int64_t now) {
    if (m->way_due_us && now >= m->way_due_us) {
        test_proxy_hold(m->way, PROXY_NONE);
        test_proxy_delay(m->way, 0);
        test_proxy_lose(m->way, 0);
        m->way_due_us = 0;
        m->back_us = m->hurt_us = mr_mono_us();
    }
    if (m->disk_due_us && now >= m->disk_due_us) {
        let_files_grow(m, true);
        m->disk_due_us = 0;
    }
}

static void note_end(fleet *f, member *m, int status) {
    bool asked = m->state == MEMBER_ENDING, at_point = m->points && m->points_pause_us;
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    /* one whose drain is cut short ends with 1, and one that has only just been started of the signal */
    if (at_point && killed) {
        m->pause_us = m->points_pause_us;
    } else if (!asked || (!WIFEXITED(status) && WTERMSIG(status) != SIGTERM)) {
        printf("%s ended by itself (%s %d)\n", m->name, WIFEXITED(status) ? "status" : "signal",
               WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
        f->died++;
    }
    m->points_pause_us = 0;
    m->pid = 0;
    m->state = MEMBER_DOWN;
    m->hurt_us = mr_mono_us();
    m->due_us = m->hurt_us + m->pause_us;
}

void fleet_tick(fleet *f) {
    int64_t now = mr_mono_us();
    int status;
    for (member *m = f->members; m < f->members + FLEET_MEMBERS; m++) {
        if (!is_server(m) && m->pid && waitpid(m->pid, &status, WNOHANG) == m->pid) note_end(f, m, status);
        mend(m, now);
        if (!m->due_us || now < m->due_us) continue;
        if (m->state == MEMBER_FROZEN) thaw(m);
        if (m->state == MEMBER_DOWN) {
            m->restarts++;
            start(f, m);
        }
    }
}

/* ---- what is done to them ---- */

static bool hurt(member *m) {
    if (m->state != MEMBER_UP) return false;
    m->hurt_us = mr_mono_us();
    return true;
}

bool fleet_kill(fleet *f, member *m, int64_t pause_us) {
    if (!hurt(m)) return false;
    if (is_server(m)) {
        m->state = MEMBER_ENDING;
        pipeline_kill(f->p, part_of(m));
    } else {
        kill(m->pid, SIGKILL);
        waitpid(m->pid, NULL, 0);
    }
    m->pid = 0;
    m->state = MEMBER_DOWN;
    m->due_us = mr_mono_us() + pause_us;
    return true;
}

bool fleet_end(fleet *f, member *m, int64_t pause_us) {
    if (!hurt(m)) return false;
    if (is_server(m)) return fleet_kill(f, m, pause_us);
    m->state = MEMBER_ENDING;
    m->pause_us = pause_us;
    kill(m->pid, SIGTERM);
    return true;
}

bool fleet_freeze(fleet *f, member *m, int64_t pause_us) {
    (void)f;
    if (!hurt(m)) return false;
    m->state = MEMBER_FROZEN;
    m->due_us = m->hurt_us + pause_us;
    kill(m->pid, SIGSTOP);
    return true;
}

bool fleet_kill_at(fleet *f, member *m, fault_point point, int64_t pause_us) {
    (void)f;
    if (!m->points || !hurt(m)) return false;
    m->points_pause_us = pause_us;
    m->points->armed = (int32_t)point;
    return true;
}

bool fleet_set_clock(fleet *f, member *m, int seconds) {
    (void)f;
    if (!m->points || m->state != MEMBER_UP) return false;
    m->points->clock_s = seconds;
    return true;
}

bool fleet_cut(fleet *f, member *m, proxy_ways ways, int64_t pause_us) {
    (void)f;
    if (!m->way || m->way_due_us || !hurt(m)) return false;
    m->way_due_us = m->hurt_us + pause_us;
    test_proxy_hold(m->way, ways);
    return true;
}

bool fleet_slow(fleet *f, member *m, int delay_ms, int loss_per_cent, int64_t pause_us) {
    (void)f;
    if (!m->way || m->way_due_us || m->state != MEMBER_UP) return false;
    m->way_due_us = mr_mono_us() + pause_us;
    test_proxy_delay(m->way, delay_ms);
    test_proxy_lose(m->way, loss_per_cent);
    return true;
}

bool fleet_fill_disk(fleet *f, member *m, int64_t pause_us) {
    (void)f;
    if (is_server(m) || m->disk_due_us || m->state != MEMBER_UP) return false;
    m->disk_due_us = mr_mono_us() + pause_us;
    let_files_grow(m, false);
    return true;
}

pid_t fleet_engine(const member *m) {
    int pid = 0;
    FILE *f = fopen(m->pid_file, "re");
    if (f && fscanf(f, "%d", &pid) != 1) pid = 0;
    if (f) fclose(f);
    return pid;
}

/* The file may name one that is gone, and a stranger may have its number by now. */
static bool is_child(pid_t pid, pid_t parent) {
    char path[64];
    int of = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%*d %*s %*c %d", &of) != 1) of = 0;
    if (f) fclose(f);
    return of == parent;
}

bool fleet_hurt_engine(fleet *f, member *m, int signal_number) {
    (void)f;
    pid_t pid = fleet_engine(m);
    if (m->state != MEMBER_UP || pid <= 0 || !is_child(pid, m->pid)) return false;
    m->hurt_us = mr_mono_us();
    return kill(pid, signal_number) == 0;
}

/* ---- asking them ---- */

int64_t fleet_rss(const member *m) {
    char path[64];
    long pages = 0;
    snprintf(path, sizeof(path), "/proc/%d/statm", (int)m->pid);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

/* NULL: it does not answer. Free it. */
static chat *get(fleet *f, const member *m, const char *path) {
    chat *c = chat_send(f->loop, m->metrics_port, path, MR_STR(""));
    chat_wait(f->loop, c);
    if (c->status == 200) return c;
    chat_free(c);
    return NULL;
}

double fleet_metric(fleet *f, const member *m, const char *name) {
    return chat_metric(f->loop, m->metrics_port, name);
}

static bool wait_ready(fleet *f, member *m) {
    chat *c = NULL;
    for (int64_t until = mr_mono_us() + READY_MS * 1000LL; !c && mr_mono_us() < until;) {
        fleet_tick(f);
        c = m->state == MEMBER_UP ? get(f, m, "/readyz") : NULL;
        if (!c) test_idle(f->loop, POLL_MS);
    }
    bool ready = c != NULL;
    chat_free(c);
    return ready;
}

static const member *wait_all_ready(fleet *f) {
    const member *missing = NULL;
    for (member *m = f->members; m < f->members + FLEET_MEMBERS; m++) {
        if (!is_server(m) && !wait_ready(f, m)) missing = m;
    }
    return missing;
}

const member *fleet_recover(fleet *f) {
    for (member *m = f->members; m < f->members + FLEET_MEMBERS; m++) {
        if (m->points) m->points->armed = POINT_NONE;
        m->pause_us = 0;
        if (m->due_us) m->due_us = 1;
        mend(m, INT64_MAX);
    }
    fleet_tick(f);
    pipeline_wait_ready(f->p, PART_BROKER);
    pipeline_wait_ready(f->p, PART_REDIS);
    return wait_all_ready(f);
}

/* ---- life ---- */

static void map_points(member *m) {
    int fd = *FAULT_POINTS ? open(m->points_file, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0) return;
    if (ftruncate(fd, sizeof(points)) != 0) die("no file for its points", m->name);
    m->points = mmap(NULL, sizeof(points), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (m->points == MAP_FAILED) die("its points cannot be mapped", m->name);
}

static void place(fleet *f, member *m) {
    const char *conf = pipeline_conf(f->p);
    int folder = (int)(strrchr(conf, '/') - conf);
    m->port = test_free_port();
    m->metrics_port = test_free_port();
    snprintf(m->pid_file, sizeof(m->pid_file), "%.*s/%s.pid", folder, conf, m->name);
    snprintf(m->points_file, sizeof(m->points_file), "%.*s/%s.points", folder, conf, m->name);
    if (!is_server(m)) map_points(m);
    if (m->points) m->way = test_proxy_start(broker_port(f));
}

bool fleet_start(fleet *f, mr_loop *l, const char *broker) {
    bool kafka = strcmp(broker, "kafka") == 0; /* the embedded one hangs members with so short a time */
    const pipeline_options opt = {.broker = broker,
                                  .profile = SCRIPTED,
                                  .servers_only = true,
                                  .kafka = kafka ? "session_timeout_ms = 3000;" : "fetch_wait_ms = 20;",
                                  .worker = "step_timeout_s = 5.0; drain_s = 5; recycle_grace_s = 1; "
                                            "recycle = \"side-by-side\"; canary_s = 0;"};
    *f = (fleet){.loop = l, .p = pipeline_start(l, &opt)};
    if (!f->p) return false;
    for (int i = 0; i < FLEET_MEMBERS; i++) {
        f->members[i] = plan[i];
        place(f, &f->members[i]);
        start(f, &f->members[i]);
    }
    const member *missing = wait_all_ready(f);
    if (missing) die("does not become ready; its log is beside the configuration", missing->name);
    return true;
}

void fleet_stop(fleet *f, bool failed) {
    for (member *m = f->members; m < f->members + FLEET_MEMBERS; m++) {
        if (is_server(m) || !m->pid) continue;
        kill(m->pid, SIGKILL);
        waitpid(m->pid, NULL, 0);
    }
    for (member *m = f->members; m < f->members + FLEET_MEMBERS; m++) {
        if (m->points) munmap(m->points, sizeof(points));
        test_proxy_stop(m->way);
    }
    pipeline_stop(f->p, failed);
}

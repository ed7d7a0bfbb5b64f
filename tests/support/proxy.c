/* See proxy.h. */
#include "support/proxy.h"

#include "base/loop.h"
#include "support/support.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINES     128        /* connections; more are refused */
#define CHUNK     65536      /* read at once */
#define ON_WAY    (4u << 20) /* bytes on one way; more wait in the kernel */
#define RESENT_US 200000     /* the least time after which TCP sends again what was lost */

typedef struct chunk {
    STAILQ_ENTRY(chunk) in_way;
    int64_t due_us;
    size_t n, sent;
    char bytes[];
} chunk;

typedef struct way {
    proxy_ways side;
    int from, to;
    STAILQ_HEAD(, chunk) chunks;
    size_t bytes;
    int64_t last_due_us;
    bool ended; /* `from` says no more… */
    bool told;  /* …and `to` knows */
} way;

/* One connection; both ways use the same two sockets. */
typedef struct line {
    bool open;
    way up, down;
} line;

struct test_proxy {
    pthread_t thread;
    int listener, wake, port, server_port;
    atomic_int held, delay_ms, loss, stopping;
    uint64_t random;
    line lines[LINES];
};

/* ---- settings ---- */

static void wake(test_proxy *p) {
    uint64_t one = 1;
    ssize_t n = write(p->wake, &one, sizeof(one));
    assert(n == sizeof(one));
}

void test_proxy_hold(test_proxy *p, proxy_ways ways) {
    atomic_store(&p->held, (int)ways);
    wake(p);
}

void test_proxy_delay(test_proxy *p, int ms) {
    atomic_store(&p->delay_ms, ms);
}

void test_proxy_lose(test_proxy *p, int per_cent) {
    atomic_store(&p->loss, per_cent);
}

int test_proxy_port(const test_proxy *p) {
    return p->port;
}

/* ---- connections ---- */

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void way_init(way *w, proxy_ways side, int from, int to) {
    *w = (way){.side = side, .from = from, .to = to};
    STAILQ_INIT(&w->chunks);
}

static void way_clear(way *w) {
    chunk *c;
    while ((c = STAILQ_FIRST(&w->chunks)) != NULL) {
        STAILQ_REMOVE_HEAD(&w->chunks, in_way);
        free(c);
    }
}

static void close_line(line *l) {
    way_clear(&l->up);
    way_clear(&l->down);
    close(l->up.from);
    close(l->up.to);
    l->open = false;
}

static int connect_server(const test_proxy *p) {
    struct sockaddr_in a = loopback(p->server_port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
        return fd;
    if (fd >= 0) close(fd);
    return -1;
}

static void take_connection(test_proxy *p) {
    int client = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), one = 1;
    if (client < 0) return;
    line *l = p->lines;
    while (l < p->lines + LINES && l->open) l++;
    int server = l < p->lines + LINES ? connect_server(p) : -1;
    if (server < 0) {
        close(client);
        return;
    }
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    l->open = true;
    way_init(&l->up, PROXY_UP, client, server);
    way_init(&l->down, PROXY_DOWN, server, client);
}

/* ---- what passes ---- */

static bool is_lost(test_proxy *p) {
    p->random ^= p->random << 13;
    p->random ^= p->random >> 7;
    p->random ^= p->random << 17;
    return (int)(p->random % 100) < atomic_load(&p->loss);
}

/* Nothing overtakes what came before it. */
static int64_t due(test_proxy *p, way *w) {
    int64_t at = mr_mono_us() + atomic_load(&p->delay_ms) * 1000LL;
    if (is_lost(p)) at += RESENT_US;
    if (at < w->last_due_us) at = w->last_due_us;
    return w->last_due_us = at;
}

static void take_in(test_proxy *p, way *w) {
    static _Thread_local char in[CHUNK];
    ssize_t n = recv(w->from, in, sizeof(in), 0);
    if (n <= 0) {
        w->ended = n == 0 || errno != EAGAIN;
        return;
    }
    chunk *c = malloc(sizeof(*c) + (size_t)n);
    assert(c);
    c->n = (size_t)n;
    c->sent = 0;
    c->due_us = due(p, w);
    memcpy(c->bytes, in, c->n);
    w->bytes += c->n;
    STAILQ_INSERT_TAIL(&w->chunks, c, in_way);
}

/* false: who should hear it is gone. */
static bool give_out(way *w) {
    chunk *c;
    while ((c = STAILQ_FIRST(&w->chunks)) != NULL && c->due_us <= mr_mono_us()) {
        ssize_t n = send(w->to, c->bytes + c->sent, c->n - c->sent, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN;
        c->sent += (size_t)n;
        if (c->sent < c->n) return true;
        w->bytes -= c->n;
        STAILQ_REMOVE_HEAD(&w->chunks, in_way);
        free(c);
    }
    return true;
}

static void pass(test_proxy *p, line *l) {
    way *const ways[] = {&l->up, &l->down};
    int held = atomic_load(&p->held);
    for (int i = 0; i < 2; i++) {
        way *w = ways[i];
        if (held & (int)w->side) continue;
        if (!w->ended && w->bytes < ON_WAY) take_in(p, w);
        if (!give_out(w)) {
            close_line(l);
            return;
        }
        if (w->ended && !w->told && STAILQ_EMPTY(&w->chunks)) {
            shutdown(w->to, SHUT_WR);
            w->told = true;
        }
    }
    if (l->up.told && l->down.told) close_line(l);
}

/* ---- the thread ---- */

/* A descriptor below zero is not looked at: a held way would otherwise be woken for by every hang-up. Returns when something is due
 * at the latest, in ms. */
static int watch(const test_proxy *p, const way *w, struct pollfd in_out[2], int timeout_ms) {
    const chunk *c = STAILQ_FIRST(&w->chunks);
    bool held = atomic_load(&p->held) & (int)w->side;
    int64_t left = c ? c->due_us - mr_mono_us() : 0;
    in_out[0] =
        (struct pollfd){.fd = held || w->ended || w->bytes >= ON_WAY ? -1 : w->from, .events = POLLIN};
    in_out[1] = (struct pollfd){.fd = held || !c || left > 0 ? -1 : w->to, .events = POLLOUT};
    if (held || !c || left <= 0) return timeout_ms;
    int ms = (int)(left / 1000) + 1;
    return timeout_ms < 0 || ms < timeout_ms ? ms : timeout_ms;
}

static void *run(void *arg) {
    test_proxy *p = arg;
    static _Thread_local struct pollfd fds[2 + 4 * LINES];
    while (!atomic_load(&p->stopping)) {
        uint64_t unused;
        int timeout_ms = -1, n = 2;
        fds[0] = (struct pollfd){.fd = p->listener, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = p->wake, .events = POLLIN};
        for (line *l = p->lines; l < p->lines + LINES; l++) {
            if (!l->open) continue;
            timeout_ms = watch(p, &l->up, fds + n, timeout_ms);
            timeout_ms = watch(p, &l->down, fds + n + 2, timeout_ms);
            n += 4;
        }
        if (poll(fds, (nfds_t)n, timeout_ms) < 0) continue;
        if (fds[1].revents && read(p->wake, &unused, sizeof(unused)) < 0) continue;
        for (line *l = p->lines; l < p->lines + LINES; l++) {
            if (l->open) pass(p, l);
        }
        if (fds[0].revents) take_connection(p);
    }
    return NULL;
}

/* ---- life ---- */

test_proxy *test_proxy_start(int server_port) {
    test_proxy *p = calloc(1, sizeof(*p));
    assert(p);
    p->port = test_free_port();
    p->server_port = server_port;
    p->random = 88172645463325252u;
    struct sockaddr_in a = loopback(p->port);
    int one = 1;
    p->wake = eventfd(0, EFD_CLOEXEC);
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert(p->wake >= 0 && p->listener >= 0);
    setsockopt(p->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    int rc = bind(p->listener, (struct sockaddr *)&a, sizeof(a));
    assert(rc == 0);
    rc = listen(p->listener, LINES);
    assert(rc == 0);
    rc = pthread_create(&p->thread, NULL, run, p);
    assert(rc == 0);
    return p;
}

void test_proxy_stop(test_proxy *p) {
    if (!p) return;
    atomic_store(&p->stopping, 1);
    wake(p);
    pthread_join(p->thread, NULL);
    for (line *l = p->lines; l < p->lines + LINES; l++) {
        if (l->open) close_line(l);
    }
    close(p->listener);
    close(p->wake);
    free(p);
}

/* Two gateways, two routers, two blue and two green workers with simulated engines, and the two servers they stand on: each
 * can be killed, frozen and ended alone, and comes back after a while.
 *
 * Belongs to the loop's thread. A failure in here ends the program.
 */
#ifndef MR_TEST_FLEET_H
#define MR_TEST_FLEET_H

#include "fault/points.h"
#include "support/pipeline.h"
#include "support/proxy.h"

typedef enum { ROLE_GATEWAY, ROLE_ROUTER, ROLE_WORKER, ROLE_REDIS, ROLE_BROKER } fleet_role;

typedef enum { MEMBER_UP, MEMBER_FROZEN, MEMBER_ENDING, MEMBER_DOWN } member_state;

typedef struct member {
    const char *name;
    fleet_role role;
    const char *color; /* of a worker */
    int port, metrics_port;
    char pid_file[160]; /* of a worker's engine host */
    char points_file[160];
    points *
        points; /* shared with the process; NULL: it can't be made to die at a place, and has everybody's clock */
    test_proxy *way;     /* to the broker; NULL where it has no points */
    int64_t way_due_us;  /* when its way is whole again; 0: it is */
    int64_t disk_due_us; /* when its files may grow again; 0: they may */
    pid_t pid;
    member_state state;
    int64_t due_us;          /* when it is thawed, or started again; 0: never by itself */
    int64_t pause_us;        /* of one that ends: from its end to its start */
    int64_t points_pause_us; /* of one that dies at a place; 0: it is not to */
    int64_t hurt_us;         /* when something was last done to it; 0: never */
    int64_t back_us;         /* when it was last started or thawed */
    int64_t first_rss;       /* bytes, when the run began */
    int restarts;
} member;

#define FLEET_MEMBERS 10

typedef struct fleet {
    mr_loop *loop;
    pipeline *p;
    member members[FLEET_MEMBERS];
    int died; /* members that ended by themselves */
} fleet;

/* All of them, ready. false: this machine lacks what it needs (said on stderr). */
bool fleet_start(fleet *f, mr_loop *l, const char *broker);
void fleet_stop(fleet *f, bool failed);

/* What is due: reaps, thaws, starts again. Between events, often. */
void fleet_tick(fleet *f);

/* Each is false when the member is not up, and then nothing happens. */
bool fleet_kill(fleet *f, member *m, int64_t pause_us);
bool fleet_end(fleet *f, member *m, int64_t pause_us); /* SIGTERM */
bool fleet_freeze(fleet *f, member *m, int64_t pause_us);
/* It dies when it gets there, if it does. */
bool fleet_kill_at(fleet *f, member *m, fault_point point, int64_t pause_us);
/* The wall clock of all of it is ahead by so much from now on. */
bool fleet_set_clock(fleet *f, member *m, int seconds);
bool fleet_hurt_engine(fleet *f, member *m, int signal_number);
/* Nothing passes between it and the broker these ways; or all that passes comes later by so much, and of each hundred pieces some are
 * sent again. */
bool fleet_cut(fleet *f, member *m, proxy_ways ways, int64_t pause_us);
bool fleet_slow(fleet *f, member *m, int delay_ms, int loss_per_cent, int64_t pause_us);
/* None of its files grows, as on a full disk. */
bool fleet_fill_disk(fleet *f, member *m, int64_t pause_us);

/* Waits until everybody is there and ready again; one that does not get ready, or NULL. */
const member *fleet_recover(fleet *f);

/* 0: not known. */
pid_t fleet_engine(const member *m);
int64_t fleet_rss(const member *m);
/* One sample of its metrics; -1: none. */
double fleet_metric(fleet *f, const member *m, const char *name);

#endif

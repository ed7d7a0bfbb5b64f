/* Labelled places in a process of the fleet at which it can be made to die, and its wall clock, as another process sets them:
 * a library that is loaded before the others (LD_PRELOAD) and stands between the program and librdkafka and the C
 * library, so that the product knows nothing of it.
 *
 * The process maps the file that MILLRACE_FAULT_POINTS names; whoever hurts it writes there. With MILLRACE_FAULT_ROUTE=FROM:TO
 * what it connects to at port FROM of this machine is at port TO, where a proxy listens: a broker tells its clients its own
 * address, past any proxy that they were given.
 */
#ifndef MR_TEST_POINTS_H
#define MR_TEST_POINTS_H

#include <stdint.h>

/* Each is `before` and one more is `after`. */
typedef enum {
    POINT_NONE,
    POINT_REQUEST,                  /* a gateway's request to chat.requests, a router's to the workers */
    POINT_TEXT = POINT_REQUEST + 2, /* a delta of an answer */
    POINT_END = POINT_TEXT + 2,     /* its terminal record */
    POINT_DONE = POINT_END + 2,     /* the offsets of records that are done are committed */
    POINTS = POINT_DONE + 2
} fault_point;

typedef struct points {
    _Atomic int32_t armed;   /* the process dies at its next arrival there */
    _Atomic int32_t clock_s; /* what its wall clock is ahead */
} points;

#endif

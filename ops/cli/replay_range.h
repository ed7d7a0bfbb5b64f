/* From where to where records are replayed: offsets, or times. Pure functions. */
#ifndef MR_CLI_REPLAY_RANGE_H
#define MR_CLI_REPLAY_RANGE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/* One end of the range. */
typedef struct mr_replay_end {
    enum { MR_END_OPEN, MR_END_OFFSET, MR_END_TIME } kind;
    int64_t value; /* offset, or unix time in milliseconds */
} mr_replay_end;

/* "" is open; digits alone are an offset; times are 2026-11-24T08:30:00Z, 2026-11-24, or -90s, -15m, -2h, -1d before now. */
int mr_replay_end_read(const char *text, int64_t now_ms, mr_replay_end *out, mr_error *err);

#endif

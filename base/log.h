/* Logging: JSON lines, or plain coloured lines on a terminal. Thread-safe; one write(2) a line, to stderr.
 *
 * A line is an event name in words ("request finished") and fields:
 *     mr_log(MR_INFO, "request finished", MR_S("request", id), MR_I("tokens", n), MR_F("seconds", t));
 * JSON: {"ts":"2026-11-23T10:00:00.123Z","level":"info","part":"worker","msg":"request finished","request":"…"}
 * User text is never logged (design: what users write is theirs).
 */
#ifndef MR_LOG_H
#define MR_LOG_H

#include "base/error.h"
#include "base/str.h"

#include <stdint.h>

enum mr_log_level { MR_DEBUG, MR_INFO, MR_WARN, MR_ERROR };

typedef struct mr_log_field {
    const char *key;
    enum { MR_LOG_STR, MR_LOG_INT, MR_LOG_NUM } kind;
    mr_str s;
    int64_t i;
    double f;
} mr_log_field;

#define MR_S(k, z)    ((mr_log_field){.key = (k), .kind = MR_LOG_STR, .s = mr_str_of(z)})
#define MR_SS(k, str) ((mr_log_field){.key = (k), .kind = MR_LOG_STR, .s = (str)})
#define MR_I(k, v)    ((mr_log_field){.key = (k), .kind = MR_LOG_INT, .i = (int64_t)(v)})
#define MR_F(k, v)    ((mr_log_field){.key = (k), .kind = MR_LOG_NUM, .f = (v)})

/* part: "gateway", "router"…; format: "json", "plain" or "auto" (plain when stderr is a terminal). Call once,
 * before threads start. */
int mr_log_init(const char *part, const char *format, enum mr_log_level min, mr_error *err);
int mr_log_level_parse(const char *name, enum mr_log_level *out, mr_error *err);

void mr_log_fields(enum mr_log_level level, const char *msg, const mr_log_field *f, int n);
#define mr_log(level, msg, ...)                                                                              \
    mr_log_fields((level), (msg), (const mr_log_field[]){__VA_ARGS__ __VA_OPT__(, ){0}},                     \
                  (int)(sizeof((mr_log_field[]){__VA_ARGS__ __VA_OPT__(, ){0}}) / sizeof(mr_log_field)) - 1)

/* Lines so far that stderr did not take: a full disk, a reader that is gone. Whoever logs goes on, and the first line that it
 * takes again is followed by one that says how many are missing. */
uint64_t mr_log_lost(void);

/* The line as it would be written (what tests look at). */
void mr_log_line(mr_buf *out, enum mr_log_level level, const char *msg, const mr_log_field *f, int n);

/* W3C trace context. A new one has a random trace id; a child keeps the trace id and gets a new span id. */
#define MR_TRACEPARENT_LEN 55
void mr_trace_new(char out[MR_TRACEPARENT_LEN + 1]);
/* child of `parent`; a malformed parent gives a new trace */
void mr_trace_child(mr_str parent, char out[MR_TRACEPARENT_LEN + 1]);

#endif

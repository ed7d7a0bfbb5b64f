/* Logging (see log.h). The settings are written once by mr_log_init before threads start and only read
 * afterwards; each line is built in memory of its own and leaves by one write(2), so lines never mix. */
#include "base/log.h"

#include "base/random.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES  (64u << 10)
#define FIELD_MAX_BYTES 4000 /* a longer value is cut: a log line is not a dump */

static struct {
    char part[32];
    enum mr_log_level min;
    bool json, colour;
} settings = {.part = "millrace", .min = MR_INFO};

static atomic_uint_least64_t lost, lost_unsaid; /* lines; since the last one that said so */
static atomic_bool torn;                        /* the file ends with a piece of a line */

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *const level_colours[] = {"\033[2m", "\033[32m", "\033[33m", "\033[31m"};

int mr_log_level_parse(const char *name, enum mr_log_level *out, mr_error *err) {
    for (int i = MR_DEBUG; i <= MR_ERROR; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum mr_log_level)i;
            return 0;
        }
    }
    return mr_fail(err, MR_EINVAL, "log level '%s' is not one of debug, info, warn, error", name);
}

int mr_log_init(const char *part, const char *format, enum mr_log_level min, mr_error *err) {
    bool terminal = isatty(STDERR_FILENO);
    if (strcmp(format, "json") == 0) {
        settings.json = true;
    } else if (strcmp(format, "plain") == 0) {
        settings.json = false;
    } else if (strcmp(format, "auto") == 0) {
        settings.json = !terminal;
    } else {
        return mr_fail(err, MR_EINVAL, "log format '%s' is not one of json, plain, auto", format);
    }
    settings.colour = !settings.json && terminal;
    settings.min = min;
    snprintf(settings.part, sizeof(settings.part), "%s", part);
    return 0;
}

/* Append s so that it is safe inside JSON quotes, and on a terminal: control characters are escaped (a client
 * must not be able to forge lines or move the cursor), and bytes that are not UTF-8 become U+FFFD. */
static void put_escaped(mr_buf *b, mr_str s) {
    bool cut = s.n > FIELD_MAX_BYTES;
    if (cut) s.n = FIELD_MAX_BYTES;
    while (s.n > 0) {
        unsigned char c = (unsigned char)*s.p;
        size_t k = mr_str_utf8_char(s);
        if (k == 0) {
            mr_buf_puts(b, "\xEF\xBF\xBD");
            k = 1;
        } else if (c == '"' || c == '\\') {
            mr_buf_printf(b, "\\%c", c);
        } else if (c == '\n') {
            mr_buf_puts(b, "\\n");
        } else if (c < 0x20 || c == 0x7F) {
            mr_buf_printf(b, "\\u%04x", c);
        } else {
            mr_buf_put(b, s.p, k);
        }
        s.p += k;
        s.n -= k;
    }
    if (cut) mr_buf_puts(b, "…");
}

static void put_number(mr_buf *b, double f) {
    if (isfinite(f)) {
        mr_buf_printf(b, "%.9g", f);
    } else {
        mr_buf_puts(b, "null"); /* JSON has no NaN */
    }
}

static void put_json(mr_buf *b, enum mr_log_level level, const char *msg, const mr_log_field *f, int n) {
    struct timespec now;
    struct tm tm;
    char date[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    mr_buf_printf(b, "{\"ts\":\"%s.%03ldZ\",\"level\":\"%s\",\"part\":\"", date, now.tv_nsec / 1000000,
                  level_names[level]);
    put_escaped(b, mr_str_of(settings.part));
    mr_buf_puts(b, "\",\"msg\":\"");
    put_escaped(b, mr_str_of(msg));
    mr_buf_puts(b, "\"");
    for (int i = 0; i < n; i++) {
        mr_buf_puts(b, ",\"");
        put_escaped(b, mr_str_of(f[i].key));
        mr_buf_puts(b, "\":");
        if (f[i].kind == MR_LOG_INT) {
            mr_buf_printf(b, "%" PRId64, f[i].i);
        } else if (f[i].kind == MR_LOG_NUM) {
            put_number(b, f[i].f);
        } else {
            mr_buf_puts(b, "\"");
            put_escaped(b, f[i].s);
            mr_buf_puts(b, "\"");
        }
    }
    mr_buf_puts(b, "}\n");
}

static void put_plain(mr_buf *b, enum mr_log_level level, const char *msg, const mr_log_field *f, int n) {
    struct timespec now;
    struct tm tm;
    char date[16];
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &tm);
    strftime(date, sizeof(date), "%H:%M:%S", &tm);
    mr_buf_printf(b, "%s.%03ld %s%-5s%s %-8s ", date, now.tv_nsec / 1000000,
                  settings.colour ? level_colours[level] : "", level_names[level],
                  settings.colour ? "\033[0m" : "", settings.part);
    put_escaped(b, mr_str_of(msg));
    for (int i = 0; i < n; i++) {
        mr_buf_printf(b, "  %s=", f[i].key);
        if (f[i].kind == MR_LOG_INT) {
            mr_buf_printf(b, "%" PRId64, f[i].i);
        } else if (f[i].kind == MR_LOG_NUM) {
            put_number(b, f[i].f);
        } else {
            put_escaped(b, f[i].s);
        }
    }
    mr_buf_puts(b, "\n");
}

void mr_log_line(mr_buf *out, enum mr_log_level level, const char *msg, const mr_log_field *f, int n) {
    if (settings.json) {
        put_json(out, level, msg, f, n);
    } else {
        put_plain(out, level, msg, f, n);
    }
}

static bool put(mr_str text) {
    ssize_t n = write(STDERR_FILENO, text.p, text.n);
    if (n > 0 && (size_t)n < text.n) atomic_store(&torn, true);
    return n == (ssize_t)text.n;
}

static void say_lost(void) {
    mr_buf line;
    uint64_t n = atomic_exchange(&lost_unsaid, 0);
    if (n == 0) return;
    mr_buf_init(&line, LINE_MAX_BYTES);
    mr_log_line(&line, MR_WARN, "log lines were lost: they could not be written",
                &(mr_log_field){.key = "lines", .kind = MR_LOG_INT, .i = (int64_t)n}, 1);
    if (line.failed || !put(mr_buf_str(&line))) atomic_fetch_add(&lost_unsaid, n);
    mr_buf_done(&line);
}

static void write_line(mr_str line) {
    if (atomic_exchange(&torn, false) && !put(MR_STR("\n"))) atomic_store(&torn, true);
    if (put(line)) {
        say_lost();
    } else {
        atomic_fetch_add(&lost, 1);
        atomic_fetch_add(&lost_unsaid, 1);
    }
}

uint64_t mr_log_lost(void) {
    return atomic_load(&lost);
}

void mr_log_fields(enum mr_log_level level, const char *msg, const mr_log_field *f, int n) {
    if (level < settings.min) return;
    mr_buf line;
    mr_buf_init(&line, LINE_MAX_BYTES);
    mr_log_line(&line, level, msg, f, n);
    if (line.failed) { /* too many fields, or no memory: the event itself is still said */
        mr_buf_clear(&line);
        mr_log_line(&line, level, msg, NULL, 0);
    }
    if (!line.failed) write_line(mr_buf_str(&line));
    mr_buf_done(&line);
}

/* ---- W3C trace context: 00-<32 hex trace id>-<16 hex span id>-<flags> ---- */

/* In the middle of a text, so without a NUL */
static void random_hex(char *out, size_t digits) {
    unsigned char raw[16];
    char hex[2 * sizeof raw + 1];
    size_t n = digits / 2;
    /* the system has random bytes once it has booted; zero would be an invalid id */
    if (!mr_random(raw, n)) memset(raw, 0x5a, n);
    mr_hex(raw, n, hex);
    memcpy(out, hex, digits);
}

void mr_trace_new(char out[MR_TRACEPARENT_LEN + 1]) {
    memcpy(out, "00-................................-................-01", MR_TRACEPARENT_LEN + 1);
    random_hex(out + 3, 32);
    random_hex(out + 36, 16);
}

static bool is_lower_hex(const char *p, size_t n) {
    return strspn(p, "0123456789abcdef") >= n;
}

static bool is_all_zero(const char *p, size_t n) {
    return strspn(p, "0") >= n;
}

/* A later version may append fields; only version ff is forbidden. */
static bool traceparent_valid(mr_str s, char copy[MR_TRACEPARENT_LEN + 1]) {
    if (s.n < MR_TRACEPARENT_LEN || (s.n > MR_TRACEPARENT_LEN && s.p[MR_TRACEPARENT_LEN] != '-'))
        return false;
    memcpy(copy, s.p, MR_TRACEPARENT_LEN);
    copy[MR_TRACEPARENT_LEN] = '\0';
    if (copy[2] != '-' || copy[35] != '-' || copy[52] != '-') return false;
    if (strncmp(copy, "ff", 2) == 0) return false;
    return is_lower_hex(copy, 2) && is_lower_hex(copy + 3, 32) && is_lower_hex(copy + 36, 16) &&
           is_lower_hex(copy + 53, 2) && !is_all_zero(copy + 3, 32) && !is_all_zero(copy + 36, 16);
}

void mr_trace_child(mr_str parent, char out[MR_TRACEPARENT_LEN + 1]) {
    char copy[MR_TRACEPARENT_LEN + 1];
    if (!traceparent_valid(parent, copy)) {
        mr_trace_new(out);
        return;
    }
    memcpy(copy, "00", 2);
    random_hex(copy + 36, 16);
    memcpy(out, copy, sizeof(copy));
}

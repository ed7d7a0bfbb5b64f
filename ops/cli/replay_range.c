/* Ends of ranges as people write them (see replay_range.h). */
#include "ops/cli/replay_range.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t unit_ms(char unit) {
    switch (unit) {
    case 's': return 1000;
    case 'm': return 60 * 1000;
    case 'h': return 3600 * 1000;
    case 'd': return 24 * 3600 * 1000;
    default: return 0;
    }
}

static bool read_ago(const char *text, int64_t now_ms, int64_t *out) {
    size_t digits = strspn(text + 1, "0123456789");
    int64_t unit = digits > 0 && digits < 9 ? unit_ms(text[1 + digits]) : 0;
    if (unit == 0 || text[2 + digits]) return false;
    *out = now_ms - unit * strtoll(text + 1, NULL, 10);
    return true;
}

static bool read_date(const char *text, int64_t *out) {
    static const char *const forms[] = {"%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d"};
    for (size_t i = 0; i < sizeof(forms) / sizeof(*forms); i++) {
        struct tm t = {0};
        const char *end = strptime(text, forms[i], &t);
        if (!end || *end) continue;
        *out = (int64_t)timegm(&t) * 1000;
        return true;
    }
    return false;
}

int mr_replay_end_read(const char *text, int64_t now_ms, mr_replay_end *out, mr_error *err) {
    size_t digits = strspn(text, "0123456789");
    *out = (mr_replay_end){.kind = MR_END_OPEN};
    if (!*text) return 0;
    if (!text[digits] && digits < 19) {
        out->kind = MR_END_OFFSET;
        out->value = strtoll(text, NULL, 10);
        return 0;
    }
    out->kind = MR_END_TIME;
    if (*text == '-' ? read_ago(text, now_ms, &out->value) : read_date(text, &out->value)) return 0;
    return mr_fail(err, MR_EINVAL,
                   "'%.60s' is neither an offset (4711) nor a time (2026-11-24T08:30:00Z, 2026-11-24, -15m)",
                   text);
}

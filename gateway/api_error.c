/* OpenAI error objects. No state. */
#include "gateway/api_error.h"

#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>

const char *mr_api_error_type(int status) {
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 429: return "rate_limit_error";
    case 503: return "service_unavailable";
    default: return status < 500 ? "invalid_request_error" : "server_error";
    }
}

/* Messages quote what clients sent, and may be cut inside a character: JSON needs whole ones. */
static void keep_utf8(char *z) {
    mr_str s = mr_str_of(z);
    while (s.n > 0) {
        size_t k = mr_str_utf8_char(s);
        if (k == 0) z[s.p - z] = '?';
        s = (mr_str){s.p + (k ? k : 1), s.n - (k ? k : 1)};
    }
}

int mr_refuse(mr_api_error *e, int status, const char *code, const char *param, const char *fmt, ...) {
    va_list ap;
    e->status = status;
    e->retry_after_s = status == 429 ? 1 : status == 503 ? 2 : 0;
    snprintf(e->type, sizeof(e->type), "%s", mr_api_error_type(status));
    snprintf(e->code, sizeof(e->code), "%s", code ? code : "");
    snprintf(e->param, sizeof(e->param), "%s", param ? param : "");
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof(e->message), fmt, ap);
    va_end(ap);
    keep_utf8(e->message);
    keep_utf8(e->param);
    return -1;
}

static const char *or_null(const char *z) {
    return *z ? z : NULL;
}

json_t *mr_api_error_json(const mr_api_error *e) {
    return json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", e->message, "type", e->type, "param",
                     or_null(e->param), "code", or_null(e->code));
}

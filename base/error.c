/* Errors: formatting, and the prefix that a message gains as it travels up. Touches only the caller's mr_error. */
#include "base/error.h"

#include <stdio.h>
#include <string.h>

int mr_fail(mr_error *err, enum mr_error_code code, const char *fmt, ...) {
    va_list ap;
    err->code = code;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    return -1;
}

int mr_fail_in(mr_error *err, const char *fmt, ...) {
    mr_error said = *err;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    size_t at = n < 0 ? 0 : (size_t)n;
    if (at + 3 < sizeof(err->msg)) {
        memcpy(err->msg + at, ": ", 2);
        at += 2;
        size_t rest = sizeof(err->msg) - at - 1, len = strnlen(said.msg, sizeof(said.msg));
        if (len > rest) len = rest;
        memcpy(err->msg + at, said.msg, len);
        err->msg[at + len] = '\0';
    }
    return -1;
}

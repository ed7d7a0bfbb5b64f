/* Formatting of the engine's errors. Any thread; the error belongs to the caller, and NULL means that nobody asks. */
#include "engine/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int engine_fail(engine_error *err, engine_error_code code, const char *fmt, ...) {
    if (!err) return -1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    err->code = code;
    return -1;
}

int engine_fail_in(engine_error *err, const char *fmt, ...) {
    if (!err) return -1;
    char msg[sizeof err->msg];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(msg, sizeof msg - 2, fmt, ap);
    va_end(ap);
    size_t prefix = n < 0 ? 0 : strlen(msg);
    msg[prefix++] = ':';
    msg[prefix++] = ' ';
    size_t room = sizeof msg - prefix, inner = strnlen(err->msg, sizeof err->msg - 1);
    if (room) memcpy(msg + prefix, err->msg, inner < room ? inner : room - 1);
    msg[inner < room ? prefix + inner : sizeof msg - 1] = 0;
    memcpy(err->msg, msg, sizeof msg);
    return -1;
}

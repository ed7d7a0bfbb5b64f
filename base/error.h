/* The one error type of Millrace's processes: a code for the program, a message for the person.
 *
 * A function that can fail takes `mr_error *err` last and returns 0 or -1 (or NULL). It fills `err` exactly
 * when it fails. The message names the thing, says what is wrong with it, and what to do about it:
 *     "var/millrace.conf:12: gateway.port is a string, expected an integer from 1 to 65535"
 * `err` is never NULL. An mr_error owns nothing, so it needs no clean-up and may be copied.
 */
#ifndef MR_ERROR_H
#define MR_ERROR_H

#include <stdarg.h>

enum mr_error_code {
    MR_OK = 0,
    MR_EINVAL,    /* the caller's or the user's input is wrong */
    MR_ENOTFOUND, /* a file, key, topic or record is not there */
    MR_ETOOBIG,   /* over a limit that is stated in the message */
    MR_ENOMEM,
    MR_EIO,    /* the operating system, disk or network refused */
    MR_EKAFKA, /* librdkafka or the broker */
    MR_EREDIS,
    MR_ESTATE, /* not possible now: closing, full, not connected */
};

typedef struct mr_error {
    enum mr_error_code code;
    char msg[500];
} mr_error;

/* Fill err and return -1, so that `return mr_fail(err, MR_EIO, "…")` reads as one statement. */
int mr_fail(mr_error *err, enum mr_error_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "what: " before the message, as an error travels up. Returns -1. */
int mr_fail_in(mr_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif

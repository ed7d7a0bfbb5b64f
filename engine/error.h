/* The engine's one error type: a code for the program and a message that tells the user what to do. Filled exactly
 * when a function fails; owns nothing. */
#ifndef ENGINE_ERROR_H
#define ENGINE_ERROR_H

typedef enum {
    ENGINE_OK = 0,
    ENGINE_EINVAL,   /* the request or an option is wrong */
    ENGINE_EFORMAT,  /* a checkpoint's file is malformed, truncated or of an unknown kind */
    ENGINE_ETOOLONG, /* the prompt does not fit in the context */
    ENGINE_EBUSY,    /* the waiting queue is full */
    ENGINE_ENOMEM,
    ENGINE_EIO,
    ENGINE_EINTERNAL, /* the engine is broken and must be closed */
} engine_error_code;

typedef struct engine_error {
    engine_error_code code;
    char msg[500];
} engine_error;

/* Fills err; returns -1. */
int engine_fail(engine_error *err, engine_error_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Puts "what: " before the message as an error travels up; returns -1. */
int engine_fail_in(engine_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif

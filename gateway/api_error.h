/* Errors as OpenAI's API says them: an HTTP status and {"error": {message, type, param, code}}.
 *
 * Filled where a request is refused or an answer fails; owns nothing. An empty code or param is null on the wire. The
 * message is shown as it is to a person who chats, so it is one short sentence. */
#ifndef MR_API_ERROR_H
#define MR_API_ERROR_H

#include <jansson.h>

typedef struct mr_api_error {
    int status;
    int retry_after_s; /* 0: no Retry-After */
    char type[64], code[64], param[128];
    char message[600];
} mr_api_error;

/* Fill e and return -1. The type follows from the status. */
int mr_refuse(mr_api_error *e, int status, const char *code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* {"error": {…}}; NULL when out of memory. */
json_t *mr_api_error_json(const mr_api_error *e);

/* "invalid_request_error", "server_error", … */
const char *mr_api_error_type(int status);

#endif

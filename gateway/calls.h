/* The tool calls of one answer as far as they were passed on: which have begun, and for an answer that goes out as a whole,
 * their arguments. Zeroed is none. Loop's thread. */
#ifndef MR_CALLS_H
#define MR_CALLS_H

#include "schemas/messages.h"

typedef struct mr_call_text {
    char *id, *name;
    mr_buf arguments;
} mr_call_text;

typedef struct mr_calls {
    mr_call_text *v;
    int64_t n;
} mr_calls;

/* Where the next arguments belong. */
typedef enum {
    MR_CALLS_GOES_ON,
    MR_CALLS_BEGINS,   /* it is a new one, and now the last */
    MR_CALLS_MISMATCH, /* it is none that can follow what came */
    MR_CALLS_NO_MEMORY,
} mr_calls_verdict;

mr_calls_verdict mr_calls_see(mr_calls *c, const mr_delta_call *call);
/* More arguments of the last one. */
void mr_calls_append(mr_calls *c, mr_str arguments);
/* OpenAI's list of them: a new reference; NULL when out of memory. */
json_t *mr_calls_json(const mr_calls *c);
void mr_calls_done(mr_calls *c);

#endif

/* Is the gateway ready for requests? Borrows what it asks; loop's thread. */
#ifndef MR_READY_H
#define MR_READY_H

#include "gateway/api_error.h"
#include "gateway/outbox.h"
#include "gateway/records.h"

typedef struct mr_ready {
    const mr_outbox *outbox;
    const mr_records *records;
    bool ending;
} mr_ready;

/* False with the reason, which fits in 100 bytes. */
bool mr_ready_now(const mr_ready *r, char *why, size_t why_size);
/* 0, or -1 with the error for a client. */
int mr_ready_check(const mr_ready *r, mr_api_error *e);

#endif

/* The small pages of the API: which models there are, and the two of billing that NextChat's settings show. Borrows what it
 * needs; loop's thread. */
#ifndef MR_PAGES_H
#define MR_PAGES_H

#include "gateway/access.h"

typedef struct mr_pages {
    const mr_gateway_conf *conf;
    const mr_access *access;
    int64_t created_ms; /* of all models, as the API wants to have one */
} mr_pages;

void mr_pages_models(const mr_pages *p, mr_call *call);
void mr_pages_model(const mr_pages *p, mr_call *call); /* its name ends the path */
void mr_pages_usage(const mr_pages *p, mr_call *call);
void mr_pages_subscription(const mr_pages *p, mr_call *call);

#endif

/* A lease: at most so many of a pool's workers do a thing at once, as far as Redis can tell.
 *
 * Redis' own clock says when a lease has run out, so clocks of hosts do not matter; a holder that dies gives it back by that. While
 * Redis is away every request is granted: whoever asks has its own jitter. Belongs to the loop's thread.
 */
#ifndef MR_LEASE_H
#define MR_LEASE_H

#include "base/store.h"

typedef struct mr_lease mr_lease;

/* granted: false, others hold all there are: ask again later. Called once for each mr_lease_ask. */
typedef void mr_lease_cb(void *arg, bool granted);

typedef struct mr_lease_options {
    const char *name;   /* of what is limited: the key in Redis; copied */
    const char *holder; /* who asks; borrowed */
    int at_once, ttl_ms;
    mr_lease_cb *cb;
    void *arg;
} mr_lease_options;

/* The store must outlive it, and answer what is outstanding before it is freed. */
mr_lease *mr_lease_new(mr_store *store, const mr_lease_options *opt, mr_error *err);
void mr_lease_free(mr_lease *l); /* releases it; before the store */

/* Takes it or, when it is held, renews it. */
void mr_lease_ask(mr_lease *l);
void mr_lease_release(mr_lease *l);

#endif

/* TLS for the HTTP server: a certificate with its chain and its key, from PEM files. New files are taken for new connections
 * without a restart. Loop's thread. */
#ifndef MR_TLS_H
#define MR_TLS_H

#include "base/error.h"

#include <event2/bufferevent.h>

typedef struct mr_tls mr_tls;

/* The paths are borrowed. Fails when the files are unusable or do not belong together. */
mr_tls *mr_tls_new(const char *cert, const char *key, mr_error *err);
void mr_tls_free(mr_tls *t);
/* Call it several times a second. Files that are unusable are said in the log, and the certificate from before goes on. */
void mr_tls_refresh(mr_tls *t);

/* The server's end of a connection that is still to get its socket; NULL when out of memory. */
struct bufferevent *mr_tls_accept(mr_tls *t, struct event_base *base);

#endif

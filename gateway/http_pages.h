/* The error pages that evhttp writes by itself, turned into our JSON. */
#ifndef MR_HTTP_PAGES_H
#define MR_HTTP_PAGES_H

#include <event2/bufferevent.h>
#include <stdbool.h>
#include <stddef.h>

/* Watch the output of a new connection. body_max is for the message of a 413, and is read as long as it lives. */
int mr_http_pages_watch(struct bufferevent *bev, bool tls, const size_t *body_max);

#endif

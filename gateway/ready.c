/* See ready.h. */
#include "gateway/ready.h"

#include <stdio.h>

bool mr_ready_now(const mr_ready *r, char *why, size_t why_size) {
    const char *missing = NULL;
    if (r->ending) {
        missing = "shutting down";
    } else if (!mr_outbox_connected(r->outbox)) {
        missing = "Kafka is not connected";
    } else {
        missing = mr_records_missing(r->records);
    }
    snprintf(why, why_size, "%s", missing ? missing : "");
    return !missing;
}

int mr_ready_check(const mr_ready *r, mr_api_error *e) {
    char why[100];
    if (mr_ready_now(r, why, sizeof(why))) return 0;
    return mr_refuse(e, 503, "unavailable", NULL, "The service is not available (%s); please try again.",
                     why);
}

/* Request ids that say where the answer is, and the ids of events.
 *
 * "chatcmpl-" and 52 characters (base64 of RFC 4648's URL alphabet): 128 random bits, the partition of chat.responses and the
 * place in it before which nothing of the answer can be, when it was asked, how many answers, and a hash of all that and of
 * the tenant. So any gateway finds the answer in the log, for its own tenant alone: with another tenant's id the hash
 * differs, and an id that was changed names no record. An event's id is the number of bytes of the answer up to its end;
 * of several answers, those of each, as "120,35". Pure functions.
 */
#ifndef MR_REQUEST_ID_H
#define MR_REQUEST_ID_H

#include "schemas/messages.h"

#define MR_REQUEST_ID_LEN 61
#define MR_EVENT_ID_MAX   (MR_CHOICES_MAX * 14 + 1)

typedef struct mr_request_place {
    int32_t partition;
    int64_t position; /* the partition's next offset when the request was made */
    int64_t created_s;
    int n;      /* answers */
    bool usage; /* the usage chunk was asked for */
    bool form;  /* the answer has a form to keep */
    int model;  /* number in gateway.models */
} mr_request_place;

/* A new unguessable id; -1 when the system has no randomness. */
int mr_request_id(const mr_request_place *at, mr_str tenant, char out[MR_REQUEST_ID_LEN + 1]);
/* False when it is no id of this tenant's. */
bool mr_request_id_read(mr_str id, mr_str tenant, mr_request_place *at);

void mr_event_id(const uint64_t *bytes, int n, char out[MR_EVENT_ID_MAX]);
/* An empty one stands for the beginning. False when it is not of n answers. */
bool mr_event_id_read(mr_str id, int n, uint64_t *bytes);

#endif

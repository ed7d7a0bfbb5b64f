/* Ids from outside: of requests and of events. What is accepted must come out again as it
 * went in. */
#include "gateway/request_id.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void event(mr_str in, int count) {
    uint64_t bytes[MR_CHOICES_MAX], again[MR_CHOICES_MAX];
    char out[MR_EVENT_ID_MAX];
    if (!mr_event_id_read(in, count, bytes)) return;
    mr_event_id(bytes, count, out);
    if (!mr_event_id_read(mr_str_of(out), count, again) ||
        memcmp(bytes, again, (size_t)count * sizeof(*bytes)) != 0) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    mr_request_place at;
    mr_str in = {(const char *)p, n};
    if (n == 0) return 0;
    event(in, 1);
    event((mr_str){in.p + 1, n - 1}, 1 + p[0] % MR_CHOICES_MAX);
    if (mr_request_id_read(in, MR_STR("default"), &at) && (at.n < 1 || at.n > MR_CHOICES_MAX)) abort();
    return 0;
}

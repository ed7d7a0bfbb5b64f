/* Ids of requests and of events (see request_id.h). */
#include "gateway/request_id.h"

#include "base/random.h"
#include "schemas/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PREFIX       "chatcmpl-"
#define PREFIX_LEN   (sizeof(PREFIX) - 1)
#define RAW          39 /* bytes behind the prefix: */
#define RANDOM_LEN   16
#define AT_PARTITION 16 /* 3 */
#define AT_POSITION  19 /* 6 */
#define AT_CREATED   25 /* 4 */
#define AT_N         29 /* 1: n - 1, USAGE and FORM */
#define AT_MODEL     30 /* 1 */
#define AT_HASH      31 /* 8 */
#define USAGE        0x80
#define FORM         0x40

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* ---- bytes ---- */

static void put(unsigned char *p, int n, uint64_t v) {
    for (int i = n; i-- > 0; v >>= 8) p[i] = (unsigned char)v;
}

static uint64_t get(const unsigned char *p, int n) {
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v = v << 8 | p[i];
    return v;
}

static uint64_t hash_of(const unsigned char *raw, mr_str tenant) {
    uint64_t h = mr_text_hash_feed(mr_text_hash_init(), (mr_str){(const char *)raw, AT_HASH});
    return mr_text_hash_feed(h, tenant);
}

static void encode(const unsigned char raw[RAW], char *out) {
    for (int i = 0; i < RAW; i += 3) {
        uint64_t v = get(raw + i, 3);
        for (int k = 18; k >= 0; k -= 6) *out++ = alphabet[v >> k & 63];
    }
    *out = '\0';
}

static bool decode(const char *in, unsigned char raw[RAW]) {
    for (int i = 0; i < RAW; i += 3) {
        uint64_t v = 0;
        for (int k = 0; k < 4; k++, in++) {
            const char *at = memchr(alphabet, *in, sizeof(alphabet) - 1);
            if (!at) return false;
            v = v << 6 | (uint64_t)(at - alphabet);
        }
        put(raw + i, 3, v);
    }
    return true;
}

/* ---- requests ---- */

int mr_request_id(const mr_request_place *at, mr_str tenant, char out[MR_REQUEST_ID_LEN + 1]) {
    unsigned char raw[RAW];
    if (!mr_random(raw, RANDOM_LEN)) return -1;
    put(raw + AT_PARTITION, 3, (uint64_t)at->partition);
    put(raw + AT_POSITION, 6, (uint64_t)at->position);
    put(raw + AT_CREATED, 4, (uint64_t)at->created_s);
    raw[AT_N] = (unsigned char)((at->n - 1) | (at->usage ? USAGE : 0) | (at->form ? FORM : 0));
    raw[AT_MODEL] = (unsigned char)at->model;
    put(raw + AT_HASH, 8, hash_of(raw, tenant));
    memcpy(out, PREFIX, PREFIX_LEN);
    encode(raw, out + PREFIX_LEN);
    return 0;
}

bool mr_request_id_read(mr_str id, mr_str tenant, mr_request_place *at) {
    unsigned char raw[RAW];
    if (id.n != MR_REQUEST_ID_LEN || memcmp(id.p, PREFIX, PREFIX_LEN) != 0) return false;
    if (!decode(id.p + PREFIX_LEN, raw) || get(raw + AT_HASH, 8) != hash_of(raw, tenant)) return false;
    *at = (mr_request_place){.partition = (int32_t)get(raw + AT_PARTITION, 3),
                             .position = (int64_t)get(raw + AT_POSITION, 6),
                             .created_s = (int64_t)get(raw + AT_CREATED, 4),
                             .n = (raw[AT_N] & ~(USAGE | FORM)) + 1,
                             .usage = raw[AT_N] & USAGE,
                             .form = raw[AT_N] & FORM,
                             .model = raw[AT_MODEL]};
    return at->n <= MR_CHOICES_MAX;
}

/* ---- events ---- */

void mr_event_id(const uint64_t *bytes, int n, char out[MR_EVENT_ID_MAX]) {
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        at += (size_t)snprintf(out + at, MR_EVENT_ID_MAX - at, "%s%" PRIu64, i ? "," : "", bytes[i]);
    }
}

bool mr_event_id_read(mr_str id, int n, uint64_t *bytes) {
    memset(bytes, 0, (size_t)n * sizeof(*bytes));
    if (id.n == 0) return true;
    int i = 0, digits = 0;
    for (size_t k = 0; k < id.n; k++) {
        if (id.p[k] == ',') {
            if (digits == 0 || ++i == n) return false;
            digits = 0;
        } else if (id.p[k] < '0' || id.p[k] > '9' || ++digits > 13) {
            return false;
        } else {
            bytes[i] = 10 * bytes[i] + (uint64_t)(id.p[k] - '0');
        }
    }
    return digits > 0 && i == n - 1;
}

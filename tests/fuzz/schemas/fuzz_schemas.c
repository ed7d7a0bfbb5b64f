/* Any record becomes either an error that may itself be written into a record, or a message that goes through msgpack
 * and JSON unchanged. The first byte of the input chooses the message. */
#include "schemas/messages.h"
#include "schemas/sender.h"

#include <stdlib.h>
#include <string.h>

enum { ARENA_MAX = 64 << 20, BUF_MAX = 64 << 20, MESSAGE_MAX = 1024 };

typedef union message {
    uint64_t set;
    char bytes[MESSAGE_MAX];
} message;

static void must(int truth) {
    if (!truth) abort();
}

static void pack(const mr_message_def *def, const message *m, mr_buf *out) {
    mr_error err;
    mr_buf_init(out, BUF_MAX);
    must(mr_pack(def, m, out, &err) == 0);
}

static void must_be_equal(const mr_buf *a, const mr_buf *b) {
    must(a->n == b->n && memcmp(a->p, b->p, a->n) == 0);
}

static void check_msgpack(const mr_message_def *def, const mr_buf *packed, mr_arena *a) {
    mr_error err;
    message m;
    mr_buf again;
    must(mr_unpack(def, mr_buf_str(packed), a, &m, &err) == 0);
    pack(def, &m, &again);
    must_be_equal(packed, &again);
    mr_buf_done(&again);
}

/* As text, not as a tree: that is what other programs see. JSON has no NUL in jansson's strings, so a message that
 * holds one is not expected to come back. */
static void check_json(const mr_message_def *def, const message *from, const mr_buf *packed, mr_arena *a) {
    mr_error err;
    message m;
    mr_buf again;
    json_t *j = mr_to_json(def, from, &err);
    must(j != NULL);
    char *text = json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(j);
    must(text != NULL);
    if (!strstr(text, "\\u0000")) {
        must(mr_decode(def, mr_str_of(text), MR_STR(""), a, &m, &err) == 0);
        pack(def, &m, &again);
        must_be_equal(packed, &again);
        mr_buf_done(&again);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    int messages = 0;
    mr_error err;
    mr_sender sender;
    message m;
    mr_buf packed;
    while (mr_messages[messages]) messages++;
    mr_arena *a = mr_arena_new(ARENA_MAX);
    if (!a || n == 0) goto out;
    const mr_message_def *def = mr_messages[data[0] % messages];
    mr_str in = {(const char *)data + 1, n - 1};
    must(def->size <= sizeof m);
    if (mr_sender_read(in, MR_STR(""), a, &sender)) must(mr_id_ok(sender.id));
    if (mr_decode(def, in, MR_STR(""), a, &m, &err) < 0) {
        must(err.msg[0] && mr_str_is_utf8(mr_str_of(err.msg)));
        goto out;
    }
    pack(def, &m, &packed);
    check_msgpack(def, &packed, a);
    check_json(def, &m, &packed, a);
    mr_buf_done(&packed);
out:
    mr_arena_free(a);
    return 0;
}

/* Any file becomes either a table whose lines can be written and read again, or one error that names the place. */
#include "gateway/keys.h"

#include <stdlib.h>
#include <string.h>

static void must(int truth) {
    if (!truth) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    mr_error err = {0};
    mr_buf out;
    mr_keys *k = mr_keys_parse((mr_str){(const char *)data, n}, "file", &err);
    if (!k) {
        must(strncmp(err.msg, "file:", 5) == 0);
        return 0;
    }
    mr_buf_init(&out, 64u << 20);
    for (int i = 0; i < mr_keys_count(k); i++) mr_key_write(mr_keys_at(k, i), &out);
    mr_keys *again = mr_keys_parse(mr_buf_str(&out), "file", &err);
    must(again && mr_keys_count(again) == mr_keys_count(k));
    mr_keys_find(k, (mr_str){(const char *)data, n});
    mr_keys_free(again);
    mr_buf_done(&out);
    mr_keys_free(k);
    return 0;
}

/* Any bytes as a safetensors file: an error, or tensors whose every byte can be read; and as weights of a model, in 8 bits with
 * their scales too, whose every number can. */
#include "engine/model/safetensors.h"
#include "engine/model/stored.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The shape is the file's own, so that more than the check of shapes is reached. */
static void read_weight(const safetensors_entry *e, const safetensors_entry *scale, int group) {
    engine_error err = {0};
    tensor t = {.rows = e->ndims == 2 ? e->dims[0] : 1, .cols = e->ndims ? e->dims[e->ndims - 1] : 1};
    if (t.rows < 1 || t.cols < 1 || t.cols > 4096) return;
    if (stored_weight(e, scale, group, &t, &err)) {
        if (!err.msg[0]) abort();
        return;
    }
    float row[4096];
    for (int64_t r = 0; r < t.rows; r++) tensor_read(&t, r, 0, (int)t.cols, row);
    if (t.cols > 3) {
        tensor slice = t;
        slice.data = (const char *)t.data + dtype_bytes(t.type);
        slice.cols = t.cols - 2;
        slice.skip = 2;
        slice.first_col = 1;
        tensor_read(&slice, t.rows - 1, 1, (int)slice.cols - 1, row);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char *const names[] = {"a", "b", "model.embed_tokens.weight", ""};
    engine_error err = {0};
    safetensors *s = safetensors_parse(data, n, &err);
    if (!s) {
        if (!err.msg[0]) abort();
        return 0;
    }
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const safetensors_entry *e = safetensors_find(s, names[i]);
        for (size_t k = 0; e && k < e->bytes; k++) sum += e->data[k];
    }
    const safetensors_entry *weight = safetensors_find(s, "a"), *scale = safetensors_find(s, "a_scale");
    for (int group = -1; weight && group <= 3; group++) read_weight(weight, scale, group);
    safetensors_close(s);
    /* the sum is used, so that no read is left out */
    return sum == UINT32_MAX ? -1 : 0;
}

/* Any bytes as a safetensors file: an error, or tensors whose every byte can be read. */
#include "engine/model/safetensors.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

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
    safetensors_close(s);
    /* the sum is used, so that no read is left out */
    return sum == UINT32_MAX ? -1 : 0;
}

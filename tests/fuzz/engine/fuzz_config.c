/* Any bytes as config.json and as generation_config.json: an error, or a configuration within the reader's own limits whose
 * rope frequencies can be computed. */
#include "engine/cpu/rope.h"
#include "engine/model/model.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    engine_error err = {0};
    model_config c;
    if (model_config_parse((const char *)data, n, &c, &err)) {
        if (!err.msg[0]) abort();
        return 0;
    }
    if (c.heads % c.kv_heads || c.head_dim < 2 || c.head_dim > 512 || c.neos > 8) abort();
    if (c.int8_group < 0 || (!c.int8 && c.int8_group)) abort();
    float frequency[256];
    rope_frequencies(&c, frequency);
    model_config_parse_generation((const char *)data, n, &c, &err);
    return 0;
}

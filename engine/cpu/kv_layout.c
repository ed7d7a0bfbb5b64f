/* See kv_layout.h. */
#include "engine/cpu/kv_layout.h"
#include "engine/cpu/kernels.h"

#include <string.h>

int kv_type(const model_config *c, const char *name, dtype *type, engine_error *err) {
    *type = c->stored == DTYPE_BF16 ? DTYPE_BF16 : DTYPE_F32;
    if (!name || !strcmp(name, "full")) return 0;
    *type = DTYPE_I8;
    if (!strcmp(name, "int8")) return 0;
    return engine_fail(err, ENGINE_EINVAL, "unknown KV cache \"%s\": use full or int8", name);
}

kv_layout kv_layout_of(const model_config *c, dtype type, int block_tokens) {
    const size_t element = dtype_bytes(type), tokens = (size_t)block_tokens;
    kv_layout kv = {.type = type, .block_tokens = block_tokens, .head_dim = c->head_dim};
    kv.value_stride = (c->head_dim + KERNEL_LANES - 1) / KERNEL_LANES * KERNEL_LANES;
    kv.value_offset = (size_t)kv.head_dim * tokens * element;
    kv.scale_offset = kv.value_offset + tokens * (size_t)kv.value_stride * element;
    kv.head_bytes = kv.scale_offset + (type == DTYPE_I8 ? 2 * tokens * sizeof(float) : 0);
    kv.block_bytes = kv.head_bytes * (size_t)c->kv_heads;
    return kv;
}

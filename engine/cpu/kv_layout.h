/* How keys and values lie in the blocks of the cache. Stateless. */
#ifndef ENGINE_CPU_KV_LAYOUT_H
#define ENGINE_CPU_KV_LAYOUT_H

#include "engine/model/model.h"

enum { KV_HEAD_DIM_MAX = 512 };

/* One KV head of one block: keys transposed [head_dim][block_tokens], so that the scores of 16 positions are one vector;
 * then values [block_tokens][value_stride]; and for 8 bits the scales in f32 of each token's key [block_tokens] and of its
 * value [block_tokens]. In bf16 what is added up lies side by side: keys [head_dim / 2][block_tokens][2], values
 * [block_tokens / 2][value_stride][2]. */
typedef struct kv_layout {
    dtype type; /* F32, BF16 or I8 */
    int block_tokens, head_dim, value_stride;
    size_t value_offset, scale_offset, head_bytes, block_bytes;
} kv_layout;

/* What backend_options.kv means for a model: "full" is bf16 for bf16 checkpoints, as the reference has it, and else f32. */
int kv_type(const model_config *c, const char *name, dtype *type, engine_error *err);
kv_layout kv_layout_of(const model_config *c, dtype type, int block_tokens);

#endif

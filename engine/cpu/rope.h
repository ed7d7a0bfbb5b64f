/* Rotary position embedding: the frequency of each pair, with the scaling that the checkpoint asks for. */
#ifndef ENGINE_CPU_ROPE_H
#define ENGINE_CPU_ROPE_H

#include "engine/model/model.h"

/* out: [head_dim / 2] */
void rope_frequencies(const model_config *c, float *out);
/* cos and sin of one position, [head_dim / 2] each, times the attention factor */
void rope_angles(const model_config *c, const float *frequency, int position, float *cos_out, float *sin_out);

#endif

/* Frequencies in float, as the reference computes them: at position 8000 the last bit of a frequency is visible in the
 * angle. Stateless; any thread.
 */
#include "engine/cpu/rope.h"

#include <math.h>

/* Long wavelengths are stretched by the factor, short ones stay, those between are blended. */
static float scale_llama3(const model_config *c, float f) {
    double wavelength = 2 * M_PI / f, original = c->rope_original_max_position;
    if (wavelength > original / c->rope_low_freq) return f / (float)c->rope_factor;
    if (wavelength < original / c->rope_high_freq) return f;
    double smooth = (original / wavelength - c->rope_low_freq) / (c->rope_high_freq - c->rope_low_freq);
    return (float)((1 - smooth) * f / c->rope_factor + smooth * f);
}

/* The pair that turns `rotations` times within the original context. */
static double yarn_pair(const model_config *c, double rotations) {
    double original = c->rope_original_max_position;
    return c->head_dim * log(original / (rotations * 2 * M_PI)) / (2 * log(c->rope_theta));
}

static float scale_yarn(const model_config *c, int pair, float f) {
    double low = yarn_pair(c, c->rope_beta_fast), high = yarn_pair(c, c->rope_beta_slow);
    if (c->rope_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, c->head_dim - 1);
    if (low == high) high += 0.001;
    float ramp = fminf(fmaxf((float)((pair - low) / (high - low)), 0), 1);
    return f / (float)c->rope_factor * ramp + f * (1 - ramp);
}

void rope_frequencies(const model_config *c, float *out) {
    for (int i = 0; i < c->head_dim / 2; i++) {
        float f = 1.0f / powf((float)c->rope_theta, (float)(2 * i) / (float)c->head_dim);
        switch (c->rope) {
        case ROPE_PLAIN: out[i] = f; break;
        case ROPE_LINEAR: out[i] = f / (float)c->rope_factor; break;
        case ROPE_LLAMA3: out[i] = scale_llama3(c, f); break;
        case ROPE_YARN: out[i] = scale_yarn(c, i, f); break;
        }
    }
}

void rope_angles(const model_config *c, const float *frequency, int position, float *cos_out,
                 float *sin_out) {
    const float factor = (float)c->rope_attention_factor;
    for (int i = 0; i < c->head_dim / 2; i++) {
        float angle = (float)position * frequency[i];
        cos_out[i] = cosf(angle) * factor;
        sin_out[i] = sinf(angle) * factor;
    }
}

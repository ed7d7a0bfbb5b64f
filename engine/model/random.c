/* Models of any shape without a checkpoint: what a forward pass costs does not depend on the weights' values, as long as
 * they are of a size that keeps activations finite. Called from one thread; the model owns the memory.
 */
#include "engine/model/files.h"
#include "engine/model/weights.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CONFIG_FILE_MAX (1u << 20)

typedef struct generator {
    dtype type;
    unsigned char *base; /* NULL while measuring */
    size_t used;
    uint64_t random;
} generator;

static uint64_t next(generator *g) {
    g->random ^= g->random << 13;
    g->random ^= g->random >> 7;
    g->random ^= g->random << 17;
    return g->random;
}

static uint32_t float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static void put(const generator *g, unsigned char *at, size_t i, float v) {
    if (g->type == DTYPE_F32) {
        ((float *)(void *)at)[i] = v;
    } else {
        ((uint16_t *)(void *)at)[i] = (uint16_t)(float_bits(v) >> 16);
    }
}

/* Vectors are norms and biases: near one. Matrices keep the size of what goes through them: uniform with variance
 * 1 / cols. */
static int generate(void *arg, const char *name, tensor *t, engine_error *err) {
    (void)name;
    (void)err;
    generator *g = arg;
    const size_t n = (size_t)t->rows * (size_t)t->cols;
    unsigned char *at = g->base ? g->base + g->used : NULL;
    const float width = sqrtf(12.0f / (float)t->cols);
    t->type = g->type;
    t->data = at;
    g->used += (n * dtype_bytes(g->type) + 63) / 64 * 64;
    for (size_t i = 0; at && i < n; i++) {
        float unit = (float)(next(g) >> 40) * 0x1p-24f - 0.5f;
        put(g, at, i, t->rows == 1 ? 1 + 0.1f * unit : width * unit);
    }
    return 0;
}

static int fill(model *m, const char *path, engine_error *err) {
    size_t n = 0;
    char *text = checkpoint_read(NULL, path, CONFIG_FILE_MAX, &n, err);
    int rc = text ? model_config_parse(text, n, &m->config, err) : -1;
    free(text);
    if (rc) return -1;
    generator g = {.type = m->config.stored == DTYPE_F16 ? DTYPE_BF16 : m->config.stored,
                   .random = 0x9e3779b97f4a7c15u};
    if (model_each_weight(m, generate, &g, err)) return -1;
    void *p = mmap(NULL, g.used, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        return engine_fail(err, ENGINE_ENOMEM, "random weights: cannot take %zu MiB: %s", g.used >> 20,
                           strerror(errno));
    }
    m->random = g.base = p;
    m->random_bytes = g.used;
    g.used = 0;
    return model_each_weight(m, generate, &g, err);
}

model *model_random(const char *config_path, engine_error *err) {
    model *m = calloc(1, sizeof *m);
    if (!m) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
    } else if (fill(m, config_path, err)) {
        model_close(m);
        m = NULL;
    }
    return m;
}

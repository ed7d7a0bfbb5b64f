/* Models of any shape without a checkpoint: what a forward pass costs does not depend on the weights' values, as long as
 * they are of a size that keeps activations finite. The model owns the memory. Matrices are made
 * when they are fetched, so that a backend that copies them needs no memory for all of them at once.
 */
#include "engine/model/files.h"
#include "engine/model/weights.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CONFIG_FILE_MAX (1u << 20)

typedef struct layout {
    dtype type;
    unsigned char *base; /* NULL while measuring */
    size_t used;
} layout;

/* splitmix64: the value of an element depends on its place alone, so that threads may make any rows at any time. */
static float unit(uint64_t place) {
    uint64_t z = (place + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (float)(z >> 40) * 0x1p-24f - 0.5f;
}

static uint32_t float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* n elements of the model, the first of them in place `from`: base + width * unit */
static void make(const model *m, dtype type, size_t from, size_t n, float base, float width) {
    for (size_t i = from; i < from + n; i++) {
        const float v = base + width * unit(i);
        if (type == DTYPE_F32)
            ((float *)m->random)[i] = v;
        else
            ((uint16_t *)m->random)[i] = (uint16_t)(float_bits(v) >> 16);
    }
}

static size_t place_of(const model *m, const tensor *t) {
    return (size_t)((const unsigned char *)t->data - (const unsigned char *)m->random) / dtype_bytes(t->type);
}

/* Matrices keep the size of what goes through them: uniform with variance 1 / cols. Vectors are there. */
void model_fetch(const model *m, const tensor *t, int64_t first, int64_t end) {
    if (!m->random || t->rows == 1) return;
    const size_t cols = (size_t)t->cols, start = place_of(m, t) + (size_t)first * cols;
    make(m, t->type, start, (size_t)(end - first) * cols, 0, sqrtf(12.0f / (float)cols));
}

/* Vectors are norms and biases: near one; they are small and made at once. */
static int lay_out(void *arg, const char *name, tensor *t, engine_error *err) {
    (void)name;
    (void)err;
    layout *l = arg;
    t->type = l->type;
    t->data = l->base ? l->base + l->used : NULL;
    if (l->base && t->rows == 1) {
        const model whole = {.random = l->base};
        make(&whole, t->type, place_of(&whole, t), (size_t)t->cols, 1, 0.1f);
    }
    l->used += (tensor_bytes(t) + 63) / 64 * 64;
    return 0;
}

static int fill(model *m, const char *path, engine_error *err) {
    size_t n = 0;
    char *text = checkpoint_read(NULL, path, CONFIG_FILE_MAX, &n, err);
    int rc = text ? model_config_parse(text, n, &m->config, err) : -1;
    free(text);
    if (rc) return -1;
    layout l = {.type = m->config.stored == DTYPE_F16 ? DTYPE_BF16 : m->config.stored};
    if (model_each_weight(m, lay_out, &l, err)) return -1;
    void *p = mmap(NULL, l.used, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        return engine_fail(err, ENGINE_ENOMEM, "random weights: cannot take %zu MiB: %s", l.used >> 20,
                           strerror(errno));
    }
    m->random = l.base = p;
    m->random_bytes = l.used;
    l.used = 0;
    return model_each_weight(m, lay_out, &l, err);
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

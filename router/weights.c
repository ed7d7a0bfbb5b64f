/* The split of traffic between colors; see weights.h. */
#include "router/weights.h"

#include "router/conf.h"
#include "schemas/hash.h"

#include <stdlib.h>
#include <string.h>

enum {
    POOLS_MAX = 1024
}; /* chat.control is written by operators, not by users; still, nothing is unbounded */

typedef struct pool {
    char name[MR_POOL_MAX + 1];
    int64_t blue, green, epoch;
} pool;

struct mr_weights {
    pool *v;
    int n;
};

mr_weights *mr_weights_new(mr_error *err) {
    mr_weights *w = calloc(1, sizeof *w);
    if (!w) mr_fail(err, MR_ENOMEM, "no memory for the weights");
    return w;
}

void mr_weights_free(mr_weights *w) {
    if (!w) return;
    free(w->v);
    free(w);
}

static pool *find_pool(const mr_weights *w, mr_str name) {
    for (int i = 0; i < w->n; i++) {
        if (mr_str_eqz(name, w->v[i].name)) return &w->v[i];
    }
    return NULL;
}

static pool *add_pool(mr_weights *w, mr_str name, mr_error *err) {
    pool *v = w->n < POOLS_MAX ? realloc(w->v, (size_t)(w->n + 1) * sizeof *v) : NULL;
    if (!v) {
        mr_fail(err, MR_ENOMEM, "no room for the weights of one more pool after %d", w->n);
        return NULL;
    }
    w->v = v;
    v[w->n] = (pool){.blue = 1};
    memcpy(v[w->n].name, name.p, name.n);
    return &v[w->n++];
}

static void forget_pool(mr_weights *w, mr_str key) {
    static const char prefix[] = "weights/";
    if (key.n <= sizeof prefix - 1 || memcmp(key.p, prefix, sizeof prefix - 1) != 0) return;
    pool *p = find_pool(w, (mr_str){key.p + sizeof prefix - 1, key.n - (sizeof prefix - 1)});
    if (p) *p = w->v[--w->n];
}

int mr_weights_update(mr_weights *w, mr_str key, mr_str value, mr_arena *scratch, mr_error *err) {
    mr_control c;
    if (value.n == 0) {
        forget_pool(w, key);
        return 0;
    }
    if (mr_decode(&mr_control_def, value, MR_STR(""), scratch, &c, err) < 0) return -1;
    if (c.kind != MR_CONTROL_IS_WEIGHTS) return 0;
    pool *p = find_pool(w, c.pool);
    if (!p) p = add_pool(w, c.pool, err);
    if (!p) return -1;
    if (c.epoch < p->epoch) return 0;
    p->blue = c.blue;
    p->green = c.green;
    p->epoch = c.epoch;
    return 0;
}

/* Where a session stands between 0 and 1. FNV's low bits are its best; the multiplication spreads them upwards. */
static double session_place(mr_str session) {
    uint64_t h = mr_text_hash_feed(mr_text_hash_init(), session);
    h = (h ^ h >> 32) * UINT64_C(0x9e3779b97f4a7c15);
    h = (h ^ h >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    return (double)(h >> 11) * 0x1p-53;
}

double mr_weights_share(const mr_weights *w, mr_str name, int color) {
    const pool *p = find_pool(w, name);
    double blue = p ? (double)p->blue / (double)(p->blue + p->green) : 1;
    return color == MR_BLUE ? blue : 1 - blue;
}

const char *mr_weights_color(const mr_weights *w, mr_str name, mr_str session) {
    return mr_color_names[session_place(session) < mr_weights_share(w, name, MR_BLUE) ? MR_BLUE : MR_GREEN];
}

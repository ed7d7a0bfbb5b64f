/* Training of the network; see intent_net.h. Only rows of w1 that a batch touches are updated, which is what
 * makes it quick.
 *
 * Every loop over a vector works on its elements one by one, so that the compiler may use whatever vectors the
 * CPU has and the sums still come out the same; this file is compiled without contraction of products into sums. */
#include "router/intent_net.h"

#include "router/intent_wide.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN_MAX = 1024, X_MAX = 8192 };

/* Of the weights that training begins with. Those of the second layer are a fifth of what keeps a layer's size, so that the
 * first steps are not spent on unlearning chance. */
static const float FIRST_LAYER = 0.1f, SECOND_LAYER = 0.2f;
static const float BETA1 = 0.9f, BETA2 = 0.999f, EPSILON = 1e-7f;

/* A weight matrix in training: gradient and both moments, all [rows][width]. */
typedef struct matrix {
    float *w, *g, *m, *v;
    int rows, width;
} matrix;

typedef struct trainer {
    mr_net *net;
    const mr_net_how *how;
    matrix w1, b1, w2, b2;
    uint32_t *touched; /* [rows] number of the batch that touched it last */
    int32_t *list;     /* rows that this batch touched */
    int listed;
    uint32_t batch;
    uint64_t random;
    float *hidden, *mask, *dhidden, *logits;
} trainer;

static uint32_t draw(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

static float draw_unit(uint64_t *state) {
    return (float)draw(state) * (1.0f / 2147483648.0f);
}

/* ---- loops over vectors ---- */

MR_WIDE static void add_scaled(float *restrict y, const float *restrict x, float a, int n) {
    for (int i = 0; i < n; i++) y[i] += a * x[i];
}

MR_WIDE static void rectify(float *restrict h, const float *restrict mask, int n) {
    for (int i = 0; i < n; i++) h[i] = h[i] > 0 ? h[i] * mask[i] : 0;
}

/* Sums in eight lanes, whatever the CPU has, so that the result is the same everywhere. */
MR_WIDE static float dot(const float *restrict a, const float *restrict b, int n) {
    float lane[16] = {0}, sum = 0;
    for (int i = 0; i < n; i += 16) {
        for (int k = 0; k < 16; k++) lane[k] += a[i + k] * b[i + k];
    }
    for (int k = 0; k < 16; k++) sum += lane[k];
    return sum;
}

MR_WIDE static void adam(float *restrict w, float *restrict g, float *restrict m, float *restrict v,
                         float rate, int n) {
    for (int i = 0; i < n; i++) {
        m[i] = BETA1 * m[i] + (1 - BETA1) * g[i];
        v[i] = BETA2 * v[i] + (1 - BETA2) * g[i] * g[i];
        w[i] -= rate * m[i] / (sqrtf(v[i]) + EPSILON);
        g[i] = 0;
    }
}

/* ---- one sample ---- */

static void forward(trainer *t, const mr_sparse *x, int n) {
    const mr_net *net = t->net;
    float keep = t->how->keep_h;
    memcpy(t->hidden, net->b1, (size_t)net->hidden * sizeof(float));
    for (int i = 0; i < n; i++) {
        add_scaled(t->hidden, net->w1 + (size_t)x[i].row * (size_t)net->hidden, x[i].value, net->hidden);
    }
    for (int i = 0; i < net->hidden; i++) t->mask[i] = draw_unit(&t->random) < keep ? 1 / keep : 0;
    rectify(t->hidden, t->mask, net->hidden);
    memcpy(t->logits, net->b2, (size_t)net->stride * sizeof(float));
    for (int i = 0; i < net->hidden; i++) {
        if (t->hidden[i] == 0) continue;
        add_scaled(t->logits, net->w2 + (size_t)i * (size_t)net->stride, t->hidden[i], net->stride);
    }
}

/* Logits become the gradient of the loss by them. */
static void softmax_gradient(float *logits, int labels, int label, float smooth) {
    float max = logits[0], sum = 0;
    for (int i = 1; i < labels; i++) max = logits[i] > max ? logits[i] : max;
    for (int i = 0; i < labels; i++) sum += logits[i] = expf(logits[i] - max);
    for (int i = 0; i < labels; i++) logits[i] = logits[i] / sum - smooth / (float)labels;
    logits[label] -= 1 - smooth;
}

static void touch(trainer *t, int32_t row) {
    if (t->touched[row] == t->batch) return;
    t->touched[row] = t->batch;
    t->list[t->listed++] = row;
}

static void backward(trainer *t, const mr_sparse *x, int n) {
    const mr_net *net = t->net;
    for (int i = 0; i < net->hidden; i++) {
        size_t at = (size_t)i * (size_t)net->stride;
        t->dhidden[i] = 0;
        if (t->hidden[i] == 0) continue;
        t->dhidden[i] = dot(net->w2 + at, t->logits, net->stride) * t->mask[i];
        add_scaled(t->w2.g + at, t->logits, t->hidden[i], net->stride);
    }
    add_scaled(t->b2.g, t->logits, 1, net->stride);
    add_scaled(t->b1.g, t->dhidden, 1, net->hidden);
    for (int i = 0; i < n; i++) {
        touch(t, x[i].row);
        add_scaled(t->w1.g + (size_t)x[i].row * (size_t)net->hidden, t->dhidden, x[i].value, net->hidden);
    }
}

static void learn_sample(trainer *t, const mr_sparse *x, int label) {
    mr_sparse kept[X_MAX];
    float keep = t->how->keep_x;
    int n = 0;
    for (; x->row >= 0 && n < X_MAX; x++) {
        if (draw_unit(&t->random) < keep) {
            kept[n++] = (mr_sparse){x->row, x->value * (MR_NET_INPUT_SCALE / keep)};
        }
    }
    forward(t, kept, n);
    softmax_gradient(t->logits, t->net->labels, label, t->how->smooth);
    backward(t, kept, n);
}

static void update_row(const matrix *m, int row, float rate) {
    size_t at = (size_t)row * (size_t)m->width;
    adam(m->w + at, m->g + at, m->m + at, m->v + at, rate, m->width);
}

static void update(trainer *t, float rate) {
    /* Adam's correction for moments that began at zero. */
    double step = t->batch;
    rate *= (float)(sqrt(1 - pow(BETA2, step)) / (1 - pow(BETA1, step)));
    for (int i = 0; i < t->listed; i++) update_row(&t->w1, t->list[i], rate);
    for (int i = 0; i < t->net->hidden; i++) update_row(&t->w2, i, rate);
    update_row(&t->b1, 0, rate);
    update_row(&t->b2, 0, rate);
    t->listed = 0;
}

/* ---- the whole training ---- */

static void shuffle(int *order, int n, uint64_t *random) {
    for (int i = n - 1; i > 0; i--) {
        int j = (int)(draw(random) % (uint32_t)(i + 1)), k = order[i];
        order[i] = order[j];
        order[j] = k;
    }
}

static void learn(trainer *t, const mr_net_samples *s, int *order) {
    int batch = mr_net_batch(s->n), epochs = t->how->epochs;
    long steps = (long)epochs * ((s->n + batch - 1) / batch), step = 0;
    for (int i = 0; i < s->n; i++) order[i] = i;
    for (int e = 0; e < epochs; e++) {
        shuffle(order, s->n, &t->random);
        for (int at = 0; at < s->n; at += batch) {
            int end = at + batch < s->n ? at + batch : s->n;
            t->batch++;
            for (int i = at; i < end; i++) learn_sample(t, s->x[order[i]], s->label[order[i]]);
            update(t, t->how->rate * (1 - (float)step++ / (float)steps));
        }
    }
}

static int matrix_init(matrix *m, int rows, int width) {
    size_t n = (size_t)rows * (size_t)width;
    *m = (matrix){.rows = rows, .width = width};
    m->w = calloc(n, sizeof(float));
    m->g = calloc(n, sizeof(float));
    m->m = calloc(n, sizeof(float));
    m->v = calloc(n, sizeof(float));
    return m->w && m->g && m->m && m->v ? 0 : -1;
}

/* All but the weights. */
static void matrix_done(matrix *m) {
    free(m->g);
    free(m->m);
    free(m->v);
}

static void fill_random(matrix *m, float size, int used, uint64_t *random) {
    for (int r = 0; r < m->rows; r++) {
        for (int i = 0; i < used; i++) {
            m->w[(size_t)r * (size_t)m->width + (size_t)i] = size * (2 * draw_unit(random) - 1);
        }
    }
}

static int trainer_init(trainer *t, mr_net *net, const mr_net_how *how, uint64_t seed) {
    size_t rows = (size_t)net->rows, hidden = (size_t)net->hidden;
    *t = (trainer){.net = net, .how = how, .random = seed * 2 + 1};
    int failed = matrix_init(&t->w1, net->rows, net->hidden);
    failed |= matrix_init(&t->b1, 1, net->hidden);
    failed |= matrix_init(&t->w2, net->hidden, net->stride);
    failed |= matrix_init(&t->b2, 1, net->stride);
    net->w1 = t->w1.w;
    net->b1 = t->b1.w;
    net->w2 = t->w2.w;
    net->b2 = t->b2.w;
    t->touched = calloc(rows, sizeof *t->touched);
    t->list = calloc(rows, sizeof *t->list);
    t->hidden = calloc(hidden, sizeof(float));
    t->dhidden = calloc(hidden, sizeof(float));
    t->mask = calloc(hidden, sizeof(float));
    t->logits = calloc((size_t)net->stride, sizeof(float));
    if (failed || !t->touched || !t->list || !t->hidden || !t->dhidden || !t->mask || !t->logits) return -1;
    fill_random(&t->w1, FIRST_LAYER, net->hidden, &t->random);
    fill_random(&t->w2, SECOND_LAYER * sqrtf(6.0f / (float)(net->hidden + net->labels)), net->labels,
                &t->random);
    return 0;
}

static void trainer_done(trainer *t) {
    matrix_done(&t->w1);
    matrix_done(&t->b1);
    matrix_done(&t->w2);
    matrix_done(&t->b2);
    free(t->touched);
    free(t->list);
    free(t->hidden);
    free(t->dhidden);
    free(t->mask);
    free(t->logits);
}

int mr_net_train(mr_net *net, const mr_net_samples *s, const mr_net_how *how, uint64_t seed, mr_error *err) {
    trainer t;
    int *order = calloc((size_t)s->n + 1, sizeof *order);
    int rc = trainer_init(&t, net, how, seed);
    if (rc == 0 && order) {
        learn(&t, s, order);
    } else {
        rc = mr_fail(err, MR_ENOMEM, "no memory for a network of %d features", net->rows);
    }
    trainer_done(&t);
    free(order);
    if (rc < 0) mr_net_done(net);
    return rc;
}

void mr_net_done(mr_net *net) {
    free(net->w1);
    free(net->b1);
    free(net->w2);
    free(net->b2);
    net->w1 = net->b1 = net->w2 = net->b2 = NULL;
}

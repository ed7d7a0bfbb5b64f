/* Fits one model; see intent_fit.h. */
#include "router/intent_fit.h"

#include <linear.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MANY = 20000, /* features: from here on those of a single message only invite learning by heart */
    FEATURES_MAX = 1 << 22, /* distinct ones that are counted */
};

static const double SVM_EPSILON = 0.1;

const mr_intent_how mr_intent_how_default = {
    .svm_c = 1,
    .nets = 4,
    .hidden = 64,
    .net = {.epochs = 25, .keep_x = 0.25f, .keep_h = 0.7f, .rate = 3e-3f},
    .epochs_max = 60,
    .steps = 4500,
};

typedef struct counted {
    uint32_t hash, samples;
} counted;

/* Everything of one fit; what is allocated is freed in fit_done. */
typedef struct fit {
    const mr_intent_data *data;
    const mr_intent_fit_options *options;
    const mr_intent_how *how;
    int *used; /* numbers of the samples that are trained on */
    int used_n;
    counted *counts; /* open addressing, then sorted */
    size_t counts_cap, counts_n;
    mr_intent_image m;
    char *bytes;
    mr_intent_scores *scores;
    mr_sparse **x; /* [used_n] */
    mr_arena *arena;
} fit;

/* ---- vocabulary ---- */

static counted *count_slot(counted *v, size_t cap, uint32_t hash) {
    size_t i = (hash >> 1) & (cap - 1);
    while (v[i].samples != 0 && v[i].hash != hash) i = (i + 1) & (cap - 1);
    return &v[i];
}

static int counts_grow(fit *f, mr_error *err) {
    size_t cap = f->counts_cap ? 2 * f->counts_cap : 1 << 16;
    counted *v = calloc(cap, sizeof *v);
    if (!v || cap > 4 * FEATURES_MAX) {
        free(v);
        return mr_fail(err, MR_ETOOBIG, "the messages have too many different features");
    }
    for (size_t i = 0; i < f->counts_cap; i++) {
        if (f->counts[i].samples) *count_slot(v, cap, f->counts[i].hash) = f->counts[i];
    }
    free(f->counts);
    f->counts = v;
    f->counts_cap = cap;
    return 0;
}

static int count_features(fit *f, mr_intent_features *features, mr_error *err) {
    for (int i = 0; i < f->used_n; i++) {
        mr_intent_features_of(f->data->v[f->used[i]].words, features);
        for (int k = 0; k < features->n; k++) {
            if (2 * f->counts_n >= f->counts_cap && counts_grow(f, err) < 0) return -1;
            counted *c = count_slot(f->counts, f->counts_cap, features->v[k].hash);
            f->counts_n += c->samples == 0;
            *c = (counted){features->v[k].hash, c->samples + 1};
        }
    }
    return 0;
}

/* The commonest first: they are those that carry over to other messages, and neighbours in the file. */
static int by_count(const void *a, const void *b) {
    const counted *x = a, *y = b;
    if (x->samples != y->samples) return x->samples > y->samples ? -1 : 1;
    return (x->hash > y->hash) - (x->hash < y->hash);
}

static void choose_counts(mr_intent_header *h, size_t features) {
    size_t row_bytes = sizeof(mr_intent_row) + h->labels + MR_INTENT_VECTOR + h->hidden;
    h->rows =
        (uint32_t)(features < MR_INTENT_BYTES_MAX / row_bytes ? features : MR_INTENT_BYTES_MAX / row_bytes);
    do {
        h->slots = 64;
        while (h->slots < 2 * h->rows) h->slots *= 2;
        h->bytes = mr_intent_image_size(h);
    } while (h->bytes > MR_INTENT_BYTES_MAX && (h->rows -= h->rows / 64 + 1) > 0);
}

static void put_labels(fit *f) {
    char *text = (char *)f->m.text;
    mr_intent_label *label = (mr_intent_label *)f->m.label;
    for (int i = 0; i < f->data->labels_n; i++) {
        mr_str name = f->data->labels[i];
        label[i] = (mr_intent_label){(uint32_t)(text - f->m.text), f->options->outside[i]};
        memcpy(text, name.p, name.n);
        text += name.n + 1;
    }
}

/* The root, for a word in a single message says less than its rarity promises. */
static float idf(int samples, uint32_t with) {
    return (float)sqrt(1 + log((1.0 + samples) / (1.0 + with)));
}

static void put_rows(fit *f) {
    mr_intent_row *row = (mr_intent_row *)f->m.row;
    mr_intent_slot *slot = (mr_intent_slot *)f->m.slot;
    uint32_t mask = f->m.head.slots - 1;
    for (uint32_t r = 0; r < f->m.head.rows; r++) {
        uint32_t hash = f->counts[r].hash, i = (hash >> 1) & mask;
        while (slot[i].hash != 0) i = (i + 1) & mask;
        slot[i] = (mr_intent_slot){hash, r};
        row[r].idf = idf(f->used_n, f->counts[r].samples);
    }
}

/* Lays the image out, with vocabulary and labels in it. */
static int make_image(fit *f, mr_error *err) {
    mr_intent_header h = {.magic = MR_INTENT_MAGIC,
                          .version = MR_INTENT_VERSION,
                          .labels = (uint32_t)f->data->labels_n,
                          .hidden = (uint32_t)(f->how->nets * f->how->hidden),
                          .samples = (uint32_t)f->used_n,
                          .mix_linear = 1,
                          .mix_net = 1,
                          .idf_unknown = idf(f->used_n, 0)};
    size_t n = 0, least = f->counts_n > MANY ? 2 : 1;
    for (int i = 0; i < f->data->labels_n; i++) h.text += (uint32_t)f->data->labels[i].n + 1;
    for (size_t i = 0; i < f->counts_cap; i++) {
        if (f->counts[i].samples >= least) f->counts[n++] = f->counts[i];
    }
    qsort(f->counts, n, sizeof f->counts[0], by_count);
    choose_counts(&h, n);
    if (h.rows == 0) return mr_fail(err, MR_ETOOBIG, "there are too many labels for a model");
    memcpy(f->bytes, &h, sizeof h);
    mr_intent_image_layout(f->bytes, &f->m);
    put_labels(f);
    put_rows(f);
    return 0;
}

/* ---- vectors ---- */

static int make_vectors(fit *f, mr_error *err) {
    mr_intent_known known[MR_INTENT_FEATURES_MAX];
    f->x = calloc((size_t)f->used_n + 1, sizeof *f->x);
    if (!f->x) return mr_fail(err, MR_ENOMEM, "no memory for the features");
    for (int i = 0; i < f->used_n; i++) {
        int n = mr_intent_look_up(&f->m, f->data->v[f->used[i]].words, f->scores, known);
        f->x[i] = mr_arena_alloc(f->arena, (size_t)(n + 1) * sizeof(mr_sparse));
        if (!f->x[i]) return mr_fail(err, MR_ETOOBIG, "the messages have too many features to train on");
        for (int k = 0; k < n; k++) f->x[i][k] = (mr_sparse){known[k].row, known[k].value};
        f->x[i][n].row = -1;
    }
    return 0;
}

/* ---- int8 ---- */

/* The scale by which int8 values become these; 0 when all are 0. */
static float quantize(const float *v, int n, int8_t *out) {
    float max = 0;
    for (int i = 0; i < n; i++) max = fabsf(v[i]) > max ? fabsf(v[i]) : max;
    for (int i = 0; i < n; i++) out[i] = max > 0 ? (int8_t)lrintf(v[i] / max * 127) : 0;
    return max / 127;
}

/* ---- linear model ---- */

static void quiet(const char *text) {
    (void)text;
}

/* The weights of one feature (the last one is the bias), a label each. liblinear keeps one vector for two labels. */
static void linear_row(const struct model *svm, int feature, float *out) {
    int one = svm->nr_class == 2;
    for (int k = 0; k < svm->nr_class; k++) {
        double w = one ? svm->w[feature] * (k == 0 ? 1 : -1) : svm->w[feature * svm->nr_class + k];
        out[svm->label[k]] = (float)w;
    }
}

static void put_linear(fit *f, const struct model *svm) {
    float v[MR_INTENT_LABELS_MAX + MR_INTENT_VECTOR] = {0};
    mr_intent_row *row = (mr_intent_row *)f->m.row;
    int8_t *weights = (int8_t *)f->m.weights;
    for (uint32_t r = 0; r < f->m.head.rows; r++) {
        linear_row(svm, (int)r, v);
        row[r].linear_scale = quantize(v, (int)f->m.stride, weights + (size_t)r * f->m.width);
    }
    linear_row(svm, (int)f->m.head.rows, v);
    memcpy((float *)f->m.linear_bias, v, f->m.stride * sizeof(float));
}

/* liblinear's form of a vector: features from 1, the bias, and -1 at the end. */
static struct feature_node *nodes_of(fit *f, const mr_sparse *x) {
    int n = 0;
    while (x[n].row >= 0) n++;
    struct feature_node *nodes = mr_arena_alloc(f->arena, (size_t)(n + 2) * sizeof *nodes);
    if (!nodes) return NULL;
    for (int i = 0; i < n; i++) nodes[i] = (struct feature_node){x[i].row + 1, x[i].value};
    nodes[n] = (struct feature_node){(int)f->m.head.rows + 1, 1};
    nodes[n + 1].index = -1;
    return nodes;
}

static int fit_linear(fit *f, mr_error *err) {
    size_t n = (size_t)f->used_n;
    struct problem p = {.l = f->used_n, .n = (int)f->m.head.rows + 1, .bias = 1};
    struct parameter how = {.solver_type = L2R_L2LOSS_SVC_DUAL, .C = f->how->svm_c, .eps = SVM_EPSILON};
    int rc = -1;
    p.y = calloc(n, sizeof *p.y);
    p.x = calloc(n, sizeof *p.x);
    for (int i = 0; p.x && p.y && i < f->used_n; i++) {
        p.y[i] = f->data->v[f->used[i]].label;
        p.x[i] = nodes_of(f, f->x[i]);
        if (!p.x[i]) goto done;
    }
    if (!p.x || !p.y) goto done;
    set_print_string_function(quiet);
    srand((unsigned)f->options->seed);
    struct model *svm = train(&p, &how);
    put_linear(f, svm);
    free_and_destroy_model(&svm);
    rc = 0;
done:
    free(p.x);
    free(p.y);
    return rc == 0 ? 0 : mr_fail(err, MR_ENOMEM, "no memory to train on %d messages", f->used_n);
}

/* ---- network ---- */

/* Puts the units of one network into its part of the image; the outputs of all are averaged. */
static void put_net(fit *f, const mr_net *net, int which) {
    const mr_intent_image *m = &f->m;
    int first = which * net->hidden, nets = f->how->nets;
    float *b1 = (float *)m->b1 + first, *scale = (float *)m->w2_scale + first, *b2 = (float *)m->b2;
    int8_t *w2 = (int8_t *)m->w2 + (size_t)first * m->stride;
    memcpy(b1, net->b1, (size_t)net->hidden * sizeof(float));
    for (int i = 0; i < net->hidden; i++) {
        size_t at = (size_t)i * m->stride;
        scale[i] = quantize(net->w2 + at, (int)m->stride, w2 + at) / (float)nets;
    }
    for (uint32_t i = 0; i < m->stride; i++) b2[i] += net->b2[i] / (float)nets;
}

static void put_w1(fit *f, const mr_net *nets) {
    float v[MR_INTENT_HIDDEN_MAX];
    size_t hidden = (size_t)f->how->hidden;
    mr_intent_row *row = (mr_intent_row *)f->m.row;
    int8_t *w1 = (int8_t *)f->m.weights + f->m.stride;
    for (size_t r = 0; r < f->m.head.rows; r++) {
        for (int k = 0; k < f->how->nets; k++) {
            memcpy(v + (size_t)k * hidden, nets[k].w1 + r * hidden, hidden * sizeof(float));
        }
        float scale = quantize(v, (int)f->m.head.hidden, w1 + r * f->m.width);
        row[r].w1_scale = scale * MR_NET_INPUT_SCALE;
    }
}

static mr_net_how net_how(const fit *f) {
    mr_net_how how = f->how->net;
    int epochs = f->how->steps / (f->used_n / mr_net_batch(f->used_n) + 1);
    if (epochs > f->how->epochs_max) epochs = f->how->epochs_max;
    if (epochs > how.epochs) how.epochs = epochs;
    return how;
}

static int train_nets(fit *f, mr_net *nets, mr_error *err) {
    int *label = calloc((size_t)f->used_n + 1, sizeof *label), rc = 0;
    if (!label) return mr_fail(err, MR_ENOMEM, "no memory to train on %d messages", f->used_n);
    for (int i = 0; i < f->used_n; i++) label[i] = f->data->v[f->used[i]].label;
    mr_net_samples samples = {f->used_n, (const mr_sparse *const *)f->x, label};
    mr_net_how how = net_how(f);
    for (int k = 0; rc == 0 && k < f->how->nets; k++) {
        nets[k] = (mr_net){.rows = (int)f->m.head.rows,
                           .hidden = f->how->hidden,
                           .labels = f->data->labels_n,
                           .stride = (int)f->m.stride};
        rc = mr_net_train(&nets[k], &samples, &how, f->options->seed * 1000 + (uint64_t)k, err);
        if (rc == 0) put_net(f, &nets[k], k);
    }
    free(label);
    return rc;
}

static int fit_nets(fit *f, mr_error *err) {
    mr_net nets[MR_INTENT_HIDDEN_MAX / MR_INTENT_VECTOR] = {{0}};
    int rc = train_nets(f, nets, err);
    if (rc == 0) put_w1(f, nets);
    for (int k = 0; k < f->how->nets; k++) mr_net_done(&nets[k]);
    return rc;
}

/* ---- all of it ---- */

static int fit_init(fit *f, mr_error *err) {
    f->used = calloc((size_t)f->data->n + 1, sizeof *f->used);
    f->arena = mr_arena_new((size_t)4 << 30);
    if (!f->used || !f->arena)
        return mr_fail(err, MR_ENOMEM, "no memory to train on %d messages", f->data->n);
    for (int i = 0; i < f->data->n; i++) {
        if (!mr_intent_left_out(f->options, i)) f->used[f->used_n++] = i;
    }
    return 0;
}

static int count_all(fit *f, mr_error *err) {
    mr_intent_features *features = malloc(sizeof *features);
    if (!features) return mr_fail(err, MR_ENOMEM, "no memory for the features");
    int rc = count_features(f, features, err);
    free(features);
    return rc;
}

static void fit_done(fit *f) {
    free(f->used);
    free(f->counts);
    free(f->x);
    mr_intent_scores_free(f->scores);
    mr_arena_free(f->arena);
}

int mr_intent_fit(const mr_intent_data *d, const mr_intent_fit_options *o, void *out, mr_error *err) {
    fit f = {.data = d, .options = o, .how = o->how ? o->how : &mr_intent_how_default, .bytes = out};
    int rc = fit_init(&f, err);
    if (rc == 0) rc = count_all(&f, err);
    if (rc == 0) rc = make_image(&f, err);
    if (rc == 0 && !(f.scores = mr_intent_scores_new(&f.m, err))) rc = -1;
    if (rc == 0) rc = make_vectors(&f, err);
    if (rc == 0) rc = fit_linear(&f, err);
    if (rc == 0) rc = fit_nets(&f, err);
    fit_done(&f);
    return rc;
}

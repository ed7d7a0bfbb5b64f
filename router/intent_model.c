/* The image of a model and the arithmetic on it; see intent_model.h. */
#include "router/intent_model.h"

#include "router/intent_wide.h"
#include "schemas/hash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { ALIGN = 64 };

static uint32_t round_up(uint32_t n, uint32_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* ---- layout ---- */

/* The next section of n bytes. */
static uint64_t section(uint64_t *at, uint64_t n) {
    uint64_t start = *at;
    *at = (start + n + ALIGN - 1) / ALIGN * ALIGN;
    return start;
}

/* Sections one after the other; the size of all. An address of 0 will do when only that is asked. */
static uint64_t lay_out(const mr_intent_header *h, uintptr_t bytes, mr_intent_image *m) {
    uint64_t at = 0, stride = round_up(h->labels, MR_INTENT_VECTOR), rows = h->rows, hidden = h->hidden;
    section(&at, sizeof *h);
#define PUT(member, n) m->member = (const void *)(bytes + section(&at, (uint64_t)(n) * sizeof *m->member))
    PUT(label, h->labels);
    PUT(text, h->text);
    PUT(slot, h->slots);
    PUT(row, rows);
    PUT(linear_bias, stride);
    PUT(b1, hidden);
    PUT(w2_scale, hidden);
    PUT(b2, stride);
    PUT(w2, hidden * stride);
    PUT(weights, rows * (stride + hidden));
#undef PUT
    m->stride = (uint32_t)stride;
    m->width = (uint32_t)(stride + hidden);
    return at;
}

uint64_t mr_intent_image_size(const mr_intent_header *head) {
    mr_intent_image ignored;
    return lay_out(head, 0, &ignored);
}

void mr_intent_image_layout(const void *bytes, mr_intent_image *out) {
    memcpy(&out->head, bytes, sizeof out->head);
    lay_out(&out->head, (uintptr_t)bytes, out);
}

/* Eight bytes a step: a model is loaded within milliseconds. */
static uint64_t hash_words(uint64_t h, const void *bytes, size_t n) {
    uint64_t v;
    for (const char *p = bytes, *end = p + n; p + 8 <= end; p += 8) {
        memcpy(&v, p, 8);
        h = (h ^ v) * UINT64_C(0x100000001b3);
        h ^= h >> 32;
    }
    return h;
}

uint64_t mr_intent_image_checksum(const void *bytes, size_t n) {
    mr_intent_header h;
    memcpy(&h, bytes, sizeof h);
    h.checksum = 0;
    return hash_words(hash_words(mr_text_hash_init(), &h, sizeof h), (const char *)bytes + sizeof h,
                      n - sizeof h);
}

/* ---- checks ---- */

static bool finite_all(const float *v, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        if (!isfinite(v[i])) return false;
    }
    return true;
}

static bool header_is_sane(const mr_intent_header *h) {
    bool counts = h->labels >= 1 && h->labels <= MR_INTENT_LABELS_MAX && h->hidden <= MR_INTENT_HIDDEN_MAX &&
                  h->hidden % MR_INTENT_VECTOR == 0 && h->rows < MR_INTENT_BYTES_MAX &&
                  h->text <= MR_INTENT_BYTES_MAX && h->slots >= 2 && h->slots <= MR_INTENT_BYTES_MAX &&
                  (h->slots & (h->slots - 1)) == 0 && h->rows < h->slots;
    return counts && finite_all(&h->mix_linear, 3) && finite_all(&h->signal_bias, 1 + MR_SIGNALS + 3);
}

static bool labels_are_sane(const mr_intent_image *m) {
    if (m->head.text == 0 || m->text[m->head.text - 1] != '\0') return false;
    for (uint32_t i = 0; i < m->head.labels; i++) {
        if (m->label[i].name >= m->head.text || m->label[i].outside > 1) return false;
    }
    return true;
}

/* A free slot has to be there, or a search would not end. */
static bool slots_are_sane(const mr_intent_image *m) {
    uint32_t used = 0;
    for (uint32_t i = 0; i < m->head.slots; i++) {
        if (m->slot[i].hash == 0) continue;
        used++;
        if (m->slot[i].row >= m->head.rows) return false;
    }
    return used < m->head.slots;
}

static bool numbers_are_sane(const mr_intent_image *m) {
    return finite_all(&m->row[0].idf, 3 * (uint64_t)m->head.rows) && finite_all(m->linear_bias, m->stride) &&
           finite_all(m->b1, m->head.hidden) && finite_all(m->w2_scale, m->head.hidden) &&
           finite_all(m->b2, m->stride);
}

int mr_intent_image_check(const void *bytes, size_t n, mr_intent_image *out, mr_error *err) {
    if (n < sizeof out->head || memcmp(bytes, MR_INTENT_MAGIC, 8) != 0) {
        return mr_fail(
            err, MR_EINVAL,
            "this is not a model of intents: make one with `millrace intent train DATA.tsv -o MODEL`");
    }
    memcpy(&out->head, bytes, sizeof out->head);
    if (out->head.version != MR_INTENT_VERSION) {
        return mr_fail(err, MR_EINVAL, "it has format %u, this program reads %d: train it again",
                       out->head.version, MR_INTENT_VERSION);
    }
    if (out->head.bytes != n || !header_is_sane(&out->head) || mr_intent_image_size(&out->head) != n ||
        mr_intent_image_checksum(bytes, n) != out->head.checksum) {
        return mr_fail(err, MR_EINVAL, "the file is damaged or cut short: copy it again, or train it again");
    }
    mr_intent_image_layout(bytes, out);
    if (labels_are_sane(out) && slots_are_sane(out) && numbers_are_sane(out)) return 0;
    return mr_fail(err, MR_EINVAL, "the file holds no usable model: train it again");
}

/* ---- scores ---- */

static void *vector_new(size_t n) {
    size_t bytes = (n * sizeof(float) + ALIGN - 1) / ALIGN * ALIGN + ALIGN;
    void *p = aligned_alloc(ALIGN, bytes);
    if (p) memset(p, 0, bytes);
    return p;
}

mr_intent_scores *mr_intent_scores_new(const mr_intent_image *m, mr_error *err) {
    mr_intent_scores *s = calloc(1, sizeof *s);
    if (s) {
        s->linear = vector_new(m->stride);
        s->net = vector_new(m->stride);
        s->logit = vector_new(m->stride);
        s->hidden = vector_new(m->head.hidden);
        if (s->linear && s->net && s->logit && s->hidden) return s;
    }
    mr_intent_scores_free(s);
    mr_fail(err, MR_ENOMEM, "no memory for a model of intents");
    return NULL;
}

void mr_intent_scores_free(mr_intent_scores *s) {
    if (!s) return;
    free(s->linear);
    free(s->net);
    free(s->logit);
    free(s->hidden);
    free(s);
}

/* Rows that wait to be added to a vector, which then are read as one: whole cache lines of each, while the sums stay in
 * registers. They are added in their order and without contraction, so the sums are the same on every CPU. */
enum { TOGETHER = 64 };

typedef struct rows {
    const int8_t *w[TOGETHER];
    float a[TOGETHER];
    int n;
} rows;

MR_WIDE static void add_one_by_one(float *restrict y, const rows *r, uint32_t n) {
    for (int k = 0; k < r->n; k++) {
        const int8_t *w = r->w[k];
        const float a = r->a[k];
        for (uint32_t i = 0; i < n; i++) y[i] += a * (float)w[i];
    }
}

#if defined(__x86_64__)
/* `vectors` of 16 columns from i on, a number that the compiler knows. */
__attribute__((target("avx512f"), always_inline)) static inline void
add_columns(float *y, const rows *r, uint32_t i, const int vectors) {
    __m512 sum[4];
    for (int v = 0; v < vectors; v++) sum[v] = _mm512_loadu_ps(y + i + 16 * v);
    for (int k = 0; k < r->n; k++) {
        const __m512 a = _mm512_set1_ps(r->a[k]);
        for (int v = 0; v < vectors; v++) {
            const __m128i bytes = _mm_loadu_si128((const void *)(r->w[k] + i + 16 * v));
            sum[v] = _mm512_add_ps(sum[v], _mm512_mul_ps(a, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))));
        }
    }
    for (int v = 0; v < vectors; v++) _mm512_storeu_ps(y + i + 16 * v, sum[v]);
}

__attribute__((target("avx512f"))) static void add_in_registers(float *y, const rows *r, uint32_t n) {
    uint32_t i = 0;
    for (; i + 64 <= n; i += 64) add_columns(y, r, i, 4);
    for (; i < n; i += 16) add_columns(y, r, i, 1);
}
#endif

/* n is a multiple of MR_INTENT_VECTOR. */
static void add_waiting(float *y, rows *r, uint32_t n) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        add_in_registers(y, r, n);
    else
#endif
        add_one_by_one(y, r, n);
    r->n = 0;
}

/* y += a * w, now or with the rows that come next. */
static void add_row(float *y, rows *r, const int8_t *w, float a, uint32_t n) {
    r->w[r->n] = w;
    r->a[r->n] = a;
    if (++r->n == TOGETHER) add_waiting(y, r, n);
}

static const mr_intent_row *find_row(const mr_intent_image *m, uint32_t hash, uint32_t *row) {
    uint32_t mask = m->head.slots - 1, i = (hash >> 1) & mask;
    while (m->slot[i].hash != 0 && m->slot[i].hash != hash) i = (i + 1) & mask;
    if (m->slot[i].hash == 0) return NULL;
    *row = m->slot[i].row;
    return &m->row[*row];
}

/* Slots lie all over the file, so each is on its way to the cache while others are looked at. */
enum { AHEAD = 16 };

static void fetch_slot(const mr_intent_image *m, uint32_t hash) {
    __builtin_prefetch(&m->slot[(hash >> 1) & (m->head.slots - 1)]);
}

int mr_intent_look_up(const mr_intent_image *m, mr_str words, mr_intent_scores *s,
                      mr_intent_known known[MR_INTENT_FEATURES_MAX]) {
    float sum[MR_INTENT_KINDS] = {0}, all[MR_INTENT_KINDS] = {0};
    int n = 0;
    mr_intent_features_of(words, &s->features);
    for (int i = 0; i < s->features.n && i < AHEAD; i++) fetch_slot(m, s->features.v[i].hash);
    for (int i = 0; i < s->features.n; i++) {
        const mr_intent_feature *f = &s->features.v[i];
        if (i + AHEAD < s->features.n) fetch_slot(m, f[AHEAD].hash);
        mr_intent_kind kind = mr_intent_kind_of(f->hash);
        uint32_t at;
        const mr_intent_row *row = find_row(m, f->hash, &at);
        float tf = f->times > 1 ? 1 + logf((float)f->times) : 1,
              value = tf * (row ? row->idf : m->head.idf_unknown);
        all[kind] += value * value;
        if (!row) continue;
        for (uint32_t k = 0; k < m->width; k += 64)
            __builtin_prefetch(m->weights + (size_t)at * m->width + k);
        sum[kind] += value * value;
        known[n++] = (mr_intent_known){(int32_t)at, kind, value};
    }
    for (int i = 0; i < n; i++) known[i].value /= sqrtf(sum[known[i].kind]);
    s->signals[MR_SIGNAL_WORDS] = all[MR_INTENT_WORD] > 0 ? sum[MR_INTENT_WORD] / all[MR_INTENT_WORD] : 0;
    s->signals[MR_SIGNAL_RUNS] = all[MR_INTENT_RUN] > 0 ? sum[MR_INTENT_RUN] / all[MR_INTENT_RUN] : 0;
    s->signals[MR_SIGNAL_LENGTH] = logf(1 + (float)s->features.words);
    return n;
}

void mr_intent_score(const mr_intent_image *m, mr_str words, mr_intent_scores *s) {
    mr_intent_known known[MR_INTENT_FEATURES_MAX];
    uint32_t hidden = m->head.hidden;
    int n = mr_intent_look_up(m, words, s, known);
    memcpy(s->linear, m->linear_bias, m->stride * sizeof(float));
    memcpy(s->net, m->b2, m->stride * sizeof(float));
    memcpy(s->hidden, m->b1, hidden * sizeof(float));
    rows linear, first, second;
    linear.n = first.n = second.n = 0;
    for (int i = 0; i < n; i++) {
        const mr_intent_row *row = &m->row[known[i].row];
        const int8_t *w = m->weights + (size_t)known[i].row * m->width;
        add_row(s->linear, &linear, w, known[i].value * row->linear_scale, m->stride);
        add_row(s->hidden, &first, w + m->stride, known[i].value * row->w1_scale, hidden);
    }
    add_waiting(s->linear, &linear, m->stride);
    add_waiting(s->hidden, &first, hidden);
    for (uint32_t i = 0; i < hidden; i++) {
        if (s->hidden[i] <= 0) continue;
        add_row(s->net, &second, m->w2 + (size_t)i * m->stride, s->hidden[i] * m->w2_scale[i], m->stride);
    }
    add_waiting(s->net, &second, m->stride);
}

/* ---- judgement ---- */

static int best_of(const mr_intent_image *m, const float *v, bool routine_only, int but) {
    int best = -1;
    for (int i = 0; i < (int)m->head.labels; i++) {
        if (i == but || (routine_only && m->label[i].outside)) continue;
        if (best < 0 || v[i] > v[best]) best = i;
    }
    return best;
}

static float odds(float p, float rest) {
    const float least = 1e-9f;
    return logf((p > least ? p : least) / (rest > least ? rest : least));
}

/* ln of the sum of exp */
static float log_sum(const float *v, uint32_t n, float max) {
    float sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += expf(v[i] - max);
    return max + logf(sum);
}

static void judge_signals(const mr_intent_image *m, mr_intent_scores *s) {
    int first = s->best_routine, second = best_of(m, s->logit, true, first);
    float all = log_sum(s->logit, m->head.labels, s->logit[s->best]), outside = 0;
    for (uint32_t i = 0; i < m->head.labels; i++) {
        if (m->label[i].outside) outside += expf(s->logit[i] - all);
    }
    float p = expf(s->logit[first] - all), inside = 1 - outside;
    s->log_total = all;
    s->signals[MR_SIGNAL_LOGIT] = odds(p, 1 - p);
    s->signals[MR_SIGNAL_MARGIN] = second < 0 ? 0 : s->logit[first] - s->logit[second];
    s->signals[MR_SIGNAL_SCORE] = s->linear[first];
    s->signals[MR_SIGNAL_NET] = log_sum(s->net, m->head.labels, s->net[best_of(m, s->net, false, -1)]);
    s->signals[MR_SIGNAL_OUTSIDE] = odds(outside, inside);
    s->probability = inside > p ? p / inside : inside > 0; /* rounding makes no more than 1 of it */
}

void mr_intent_judge(const mr_intent_image *m, mr_intent_scores *s) {
    float z = m->head.signal_bias;
    for (uint32_t i = 0; i < m->head.labels; i++) {
        s->logit[i] = m->head.mix_linear * s->linear[i] + m->head.mix_net * s->net[i];
    }
    s->best = best_of(m, s->logit, false, -1);
    s->best_routine = best_of(m, s->logit, true, -1);
    s->routine = s->probability = 0;
    if (s->best_routine < 0 || s->features.n == 0) return;
    judge_signals(m, s);
    for (int i = 0; i < MR_SIGNALS; i++) z += m->head.signal_weights[i] * s->signals[i];
    s->routine = 1 / (1 + expf(-z));
    s->probability *= s->routine;
}

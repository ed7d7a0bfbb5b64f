/* See sample.h. Runs on the engine's thread; the sampler owns its scratch arrays, everything else is borrowed for the call.
 *
 * Sums run in a fixed order, so the same logits give the same token on every machine whose floats round alike. Loops over
 * the vocabulary are written in lanes for the compiler to vectorise.
 */
#include "engine/sample.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 16 };
#define GREEDY_BELOW 1e-5f /* temperatures under this are greedy: dividing by them would overflow */

struct sampler {
    int vocab;
    float *logits;  /* after penalties */
    float *weight;  /* exp((logit - best) / temperature): a probability but for its factor */
    int32_t *kept;  /* ids still in the draw */
    int32_t *count; /* occurrences of each token while penalties are applied; all zero otherwise */
};

sampler *sampler_new(int vocab, engine_error *err) {
    sampler *s = calloc(1, sizeof *s);
    if (s) {
        s->vocab = vocab;
        s->logits = malloc((size_t)vocab * sizeof *s->logits);
        s->weight = malloc((size_t)vocab * sizeof *s->weight);
        s->kept = malloc((size_t)vocab * sizeof *s->kept);
        s->count = calloc((size_t)vocab, sizeof *s->count);
    }
    if (!s || !s->logits || !s->weight || !s->kept || !s->count) {
        sampler_free(s);
        engine_fail(err, ENGINE_ENOMEM, "no memory to sample from %d tokens", vocab);
        return NULL;
    }
    return s;
}

void sampler_free(sampler *s) {
    if (!s) return;
    free(s->logits);
    free(s->weight);
    free(s->kept);
    free(s->count);
    free(s);
}

/* ---- the random number: Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" ---- */

static void philox_round(uint32_t c[4], const uint32_t k[2]) {
    uint64_t a = UINT64_C(0xD2511F53) * c[0], b = UINT64_C(0xCD9E8D57) * c[2];
    uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k[0], (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k[1],
                        (uint32_t)a};
    memcpy(c, next, sizeof next);
}

double sample_uniform(uint64_t seed, uint64_t position) {
    uint32_t c[4] = {(uint32_t)position, (uint32_t)(position >> 32), 0, 0};
    uint32_t k[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int i = 0; i < 10; i++) {
        philox_round(c, k);
        k[0] += 0x9E3779B9;
        k[1] += 0xBB67AE85;
    }
    uint64_t bits = (uint64_t)c[0] << 32 | c[1];
    return (double)(bits >> 11) * 0x1p-53;
}

/* ---- passes over the vocabulary ---- */

static bool all_finite(const float *x, int n) {
    float bad[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; j++) bad[j] += x[i + j] * 0.0f; /* stays 0, or becomes NaN for ever */
    }
    for (; i < n; i++) bad[0] += x[i] * 0.0f;
    float sum = 0;
    for (int j = 0; j < LANES; j++) sum += bad[j];
    return sum == 0;
}

static float highest(const float *x, int n) {
    float m[LANES];
    for (int j = 0; j < LANES; j++) m[j] = -INFINITY;
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; j++) m[j] = x[i + j] > m[j] ? x[i + j] : m[j];
    }
    for (; i < n; i++) m[0] = x[i] > m[0] ? x[i] : m[0];
    for (int j = 1; j < LANES; j++) m[0] = m[j] > m[0] ? m[j] : m[0];
    return m[0];
}

/* exp(x) for x <= 0, to about 2 units in the last place; 0 below -87. Our own, so that it vectorises, and is the same whatever
 * the C library. */
static inline float exp_down(float x) {
    float in = x < -87.0f ? -87.0f : x;
    float shifted = in * 1.44269504f + 12582912.0f; /* the sum's low bits are the nearest integer */
    float n = shifted - 12582912.0f;
    float r = in - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23; /* 2^n */
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return x < -87.0f ? 0.0f : p * scale;
}

static void exp_all(float *out, const float *x, int n, float best, float factor) {
    for (int i = 0; i < n; i++) out[i] = exp_down((x[i] - best) * factor);
}

static double sum_of(const float *x, int n) {
    double s[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; j++) s[j] += (double)x[i + j];
    }
    for (; i < n; i++) s[0] += (double)x[i];
    for (int j = 1; j < LANES; j++) s[0] += s[j];
    return s[0];
}

/* ---- penalties ---- */

static bool has_penalties(const engine_sampling *h) {
    return h->presence_penalty != 0 || h->frequency_penalty != 0 || h->repetition_penalty != 1;
}

/* One pass counts, the next applies to each distinct token once, the last leaves `count` zero again. Nothing is kept between
 * draws: a sequence that was preempted, or resumed elsewhere, needs no other history than its tokens. */
static void penalise(sampler *s, const sample_input *in) {
    const engine_sampling *h = in->how;
    for (int i = in->nprompt; i < in->ntokens; i++) s->count[in->tokens[i]]++;
    for (int i = in->ntokens - 1; i >= 0; i--) {
        int32_t id = in->tokens[i];
        int c = s->count[id];
        if (c < 0) continue;
        float *x = &s->logits[id];
        *x = *x > 0 ? *x / h->repetition_penalty : *x * h->repetition_penalty;
        if (c > 0) *x -= h->presence_penalty + h->frequency_penalty * (float)c;
        s->count[id] = -1;
    }
    for (int i = 0; i < in->ntokens; i++) s->count[in->tokens[i]] = 0;
}

/* Most words of a mask are all of one kind. */
static void keep_allowed(sampler *s, const uint64_t *allowed) {
    for (int from = 0; from < s->vocab; from += 64) {
        uint64_t bits = allowed[from / 64];
        int n = s->vocab - from < 64 ? s->vocab - from : 64;
        for (int i = 0; bits != UINT64_MAX && i < n; i++) {
            if (!(bits >> i & 1)) s->logits[from + i] = -INFINITY;
        }
    }
}

static const float *adjusted(sampler *s, const sample_input *in) {
    bool penalties = has_penalties(in->how);
    if (!penalties && !in->nbanned && !in->allowed) return in->logits;
    memcpy(s->logits, in->logits, (size_t)s->vocab * sizeof *s->logits);
    if (penalties) penalise(s, in);
    for (int i = 0; i < in->nbanned; i++) s->logits[in->banned[i]] = -INFINITY;
    if (in->allowed) keep_allowed(s, in->allowed);
    return s->logits;
}

/* ---- what stays in the draw ---- */

/* The order of likelihood, total: also for logits whose weights are too small to differ. */
static bool likelier(const float *x, int32_t a, int32_t b) {
    return x[a] > x[b] || (x[a] == x[b] && a < b);
}

static int keep_at_least(const sampler *s, float floor, int32_t *kept) {
    int n = 0;
    for (int i = 0; i < s->vocab; i++) {
        kept[n] = i;
        n += s->weight[i] >= floor;
    }
    return n;
}

static void swap(int32_t *a, int32_t *b) {
    int32_t t = *a;
    *a = *b;
    *b = t;
}

/* Partitions id[lo..hi] around a pivot; returns where the pivot ends. */
static int partition(const float *x, int32_t *id, int lo, int hi) {
    swap(&id[lo + (hi - lo) / 2], &id[hi]);
    int at = lo;
    for (int i = lo; i < hi; i++) {
        if (likelier(x, id[i], id[hi])) swap(&id[i], &id[at++]);
    }
    swap(&id[at], &id[hi]);
    return at;
}

/* Moves the k likeliest to the front, in no particular order (Hoare's selection). */
static void select_top(const float *x, int32_t *id, int n, int k) {
    int lo = 0, hi = n - 1;
    while (lo < hi) {
        int at = partition(x, id, lo, hi);
        if (at == k || at == k - 1) return;
        if (at < k)
            lo = at + 1;
        else
            hi = at - 1;
    }
}

static void sift_down(const float *x, int32_t *id, int n, int i) {
    for (;;) {
        int child = 2 * i + 1;
        if (child >= n) return;
        if (child + 1 < n && likelier(x, id[child + 1], id[child])) child++;
        if (!likelier(x, id[child], id[i])) return;
        swap(&id[i], &id[child]);
        i = child;
    }
}

/* The smallest set of likeliest tokens whose share reaches top_p, moved to the end of id[0..n); returns its size. A heap
 * gives them best first, so only the set itself is sorted. */
static int take_nucleus(const float *x, const float *weight, int32_t *id, int n, double goal) {
    for (int i = n / 2 - 1; i >= 0; i--) sift_down(x, id, n, i);
    double sum = 0;
    int left = n;
    while (left) {
        sum += (double)weight[id[0]];
        swap(&id[0], &id[--left]);
        if (sum >= goal) break;
        sift_down(x, id, left, 0);
    }
    return n - left;
}

/* All tokens below this share together weigh at most 1 - top_p, so none of them is in the nucleus. */
static int drop_tail(const float *weight, int32_t *id, int n, double total, double top_p) {
    double floor =
        total * (1 - top_p) / n * (1 - 1e-9); /* equal weights are not below their mean, rounding or not */
    int m = 0;
    for (int i = 0; i < n; i++) {
        int32_t t = id[i];
        id[m] = t;
        m += (double)weight[t] >= floor;
    }
    return m;
}

static double sum_kept(const float *weight, const int32_t *id, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)weight[id[i]];
    return sum;
}

static int32_t pick(const float *weight, const int32_t *id, int n, double u) {
    double goal = u * sum_kept(weight, id, n), sum = 0;
    for (int i = 0; i < n; i++) {
        sum += (double)weight[id[i]];
        if (sum > goal) return id[i];
    }
    return id[n - 1];
}

static int32_t draw(sampler *s, const float *x, float best, const engine_sampling *h, double u) {
    exp_all(s->weight, x, s->vocab, best, 1 / h->temperature);
    int32_t *id = s->kept;
    int n = keep_at_least(s, h->min_p > FLT_MIN ? h->min_p : FLT_MIN, id);
    if (h->top_k > 0 && h->top_k < n) {
        select_top(x, id, n, h->top_k);
        n = h->top_k;
    }
    if (h->top_p < 1) {
        double total = sum_kept(s->weight, id, n);
        n = drop_tail(s->weight, id, n, total, (double)h->top_p);
        int m = take_nucleus(x, s->weight, id, n, total * (double)h->top_p);
        id += n - m;
        n = m;
    }
    return pick(s->weight, id, n, u);
}

static int32_t first_of(const float *x, int n, float value) {
    for (int i = 0; i < n; i++) {
        if (x[i] == value) return i;
    }
    return n - 1;
}

/* ---- log probabilities ---- */

/* Puts `id` into the list of the best, which is sorted and holds at most `max`. */
static void offer(sample_output *out, int max, const float *x, int32_t id) {
    if (out->ntop == max && !likelier(x, id, out->top[max - 1].token)) return;
    int at = out->ntop < max ? out->ntop++ : max - 1;
    for (; at > 0 && likelier(x, id, out->top[at - 1].token); at--) out->top[at] = out->top[at - 1];
    out->top[at].token = id;
}

static void fill_logprobs(sampler *s, const sample_input *in, sample_output *out) {
    const float *x = in->logits;
    float best = highest(x, s->vocab);
    exp_all(s->weight, x, s->vocab, best, 1);
    double norm = (double)best + log(sum_of(s->weight, s->vocab));
    int max = in->how->logprobs < SAMPLE_TOP_MAX ? in->how->logprobs : SAMPLE_TOP_MAX;
    for (int i = 0; i < s->vocab && max > 0; i++) offer(out, max, x, i);
    for (int i = 0; i < out->ntop; i++) out->top[i].logprob = (float)((double)x[out->top[i].token] - norm);
    out->logprob = (float)((double)x[out->token] - norm);
}

int sampler_draw(sampler *s, const sample_input *in, sample_output *out, engine_error *err) {
    out->logprob = 0;
    out->ntop = 0;
    if (!all_finite(in->logits, s->vocab)) {
        return engine_fail(err, ENGINE_EINTERNAL, "the model computed logits that are not numbers");
    }
    const float *x = adjusted(s, in);
    float best = highest(x, s->vocab);
    if (best == -INFINITY) return engine_fail(err, ENGINE_EINTERNAL, "no token is left to draw from");
    if (in->how->temperature < GREEDY_BELOW) {
        out->token = first_of(x, s->vocab, best);
    } else {
        out->token = draw(s, x, best, in->how, sample_uniform(in->how->seed, (uint64_t)in->ntokens));
    }
    if (in->how->logprobs >= 0) fill_logprobs(s, in, out);
    return 0;
}

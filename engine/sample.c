/* See sample.h. Runs on the engine's thread; the sampler owns its scratch arrays, everything else is borrowed for the call.
 *
 * The vocabulary is gone through in chunks, of which the highest logit and the sum of weights are kept: what comes after
 * looks at few of them (sample_chunk.h). Sums run in a fixed order, so the same logits give the same token everywhere.
 */
#include "engine/sample.h"

#include "engine/sample_chunk.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 256 };

struct sampler {
    const chunk_ops *ops;
    int vocab, nchunks;
    float *logits; /* after penalties */
    logit_change *changes;
    float *weight;   /* exp((logit - best) / temperature): a probability but for its factor */
    int32_t *kept;   /* ids still in the draw */
    int32_t *count;  /* occurrences of each token while penalties are applied; all zero otherwise */
    float *highest;  /* [nchunks]: logit */
    float *heaviest; /* [nchunks]: weight */
    double *sum;     /* [nchunks]: of the weights */
};

sampler *sampler_new(int vocab, engine_error *err) {
    sampler *s = calloc(1, sizeof *s);
    if (s) {
        size_t n = (size_t)vocab, chunks = (n + CHUNK - 1) / CHUNK;
        s->ops = chunk_ops_select();
        s->vocab = vocab;
        s->nchunks = (int)chunks;
        s->logits = malloc(n * sizeof *s->logits);
        s->changes = malloc(n * sizeof *s->changes);
        s->weight = malloc(n * sizeof *s->weight);
        s->kept = malloc(n * sizeof *s->kept);
        s->count = calloc(n, sizeof *s->count);
        s->highest = malloc(chunks * sizeof *s->highest);
        s->heaviest = malloc(chunks * sizeof *s->heaviest);
        s->sum = malloc(chunks * sizeof *s->sum);
    }
    if (!s || !s->logits || !s->changes || !s->weight || !s->kept || !s->count || !s->highest ||
        !s->heaviest || !s->sum) {
        sampler_free(s);
        engine_fail(err, ENGINE_ENOMEM, "no memory to sample from %d tokens", vocab);
        return NULL;
    }
    return s;
}

void sampler_free(sampler *s) {
    if (!s) return;
    free(s->logits);
    free(s->changes);
    free(s->weight);
    free(s->kept);
    free(s->count);
    free(s->highest);
    free(s->heaviest);
    free(s->sum);
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

static int chunk_size(const sampler *s, int chunk) {
    int left = s->vocab - chunk * CHUNK;
    return left < CHUNK ? left : CHUNK;
}

/* The highest logit; fills s->highest. */
static float scan(sampler *s, const float *x, bool *finite) {
    float best = -INFINITY, bad = 0;
    for (int c = 0; c < s->nchunks; c++) {
        s->highest[c] = s->ops->scan(x + c * CHUNK, chunk_size(s, c), &bad);
        if (s->highest[c] > best) best = s->highest[c];
    }
    *finite = bad == 0;
    return best;
}

/* The weights of all tokens, by chunks; returns their sum. After a scan of the same logits. */
static double weigh(sampler *s, const float *x, float best, float factor) {
    double total = 0;
    for (int c = 0; c < s->nchunks; c++) {
        s->ops->weigh(&s->heaviest[c], &s->highest[c], 1, best, factor);
        s->sum[c] = s->ops->weigh(s->weight + c * CHUNK, x + c * CHUNK, chunk_size(s, c), best, factor);
        total += s->sum[c];
    }
    return total;
}

/* ---- penalties ---- */

static bool has_penalties(const engine_sampling *h) {
    return h->presence_penalty != 0 || h->frequency_penalty != 0 || h->repetition_penalty != 1;
}

/* One pass counts, the next lists each distinct token once. What is listed has a negative count, by its place. */
static int list_penalties(sampler *s, const sample_input *in, logit_change *out) {
    const engine_sampling *h = in->how;
    const int from = h->repetition_penalty == 1 ? in->nprompt : 0; /* else the prompt's have penalties, too */
    int n = 0;
    for (int i = in->nprompt; i < in->ntokens; i++) s->count[in->tokens[i]]++;
    for (int i = in->ntokens - 1; i >= from; i--) {
        int32_t id = in->tokens[i];
        int c = s->count[id];
        if (c < 0) continue;
        out[n] = (logit_change){id, c};
        s->count[id] = -1 - n++;
    }
    return n;
}

/* `count` is zero again afterwards. Nothing is kept between draws: a sequence that was preempted, or resumed elsewhere, needs no
 * other history than its tokens. */
int sampler_changes(sampler *s, const sample_input *in, logit_change *out) {
    int n = has_penalties(in->how) ? list_penalties(s, in, out) : 0;
    for (int i = 0; i < in->nbanned; i++) {
        int32_t id = in->banned[i];
        if (s->count[id] == 0) {
            out[n] = (logit_change){.token = id};
            s->count[id] = -1 - n++;
        }
        out[-1 - s->count[id]].count = LOGIT_BANNED;
    }
    for (int i = 0; i < n; i++) s->count[out[i].token] = 0;
    return n;
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

static bool is_adjusted(const sample_input *in) {
    return has_penalties(in->how) || in->nbanned || in->allowed;
}

static float change(float x, const engine_sampling *h, int count) {
    if (count == LOGIT_BANNED) return -INFINITY;
    const float kept = x > 0 ? x / h->repetition_penalty : x * h->repetition_penalty;
    return kept - (count ? h->presence_penalty + h->frequency_penalty * (float)count : 0);
}

static const float *adjust(sampler *s, const sample_input *in) {
    const int n = sampler_changes(s, in, s->changes);
    memcpy(s->logits, in->logits, (size_t)s->vocab * sizeof *s->logits);
    for (int i = 0; i < n; i++) {
        float *x = &s->logits[s->changes[i].token];
        *x = change(*x, in->how, s->changes[i].count);
    }
    if (in->allowed) keep_allowed(s, in->allowed);
    return s->logits;
}

/* ---- what stays in the draw ---- */

/* The order of likelihood, total: also for logits whose weights are too small to differ. */
static bool likelier(const float *x, int32_t a, int32_t b) {
    return x[a] > x[b] || (x[a] == x[b] && a < b);
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

/* Weights as whole numbers: a sum of them is the same in any order, which is another one on a GPU (cuda/sample.cu). */
static uint64_t mass(float weight) {
    return (uint64_t)(weight * 0x1p40f);
}

static uint64_t sum_kept(const float *weight, const int32_t *id, int n) {
    uint64_t sum = 0;
    for (int i = 0; i < n; i++) sum += mass(weight[id[i]]);
    return sum;
}

/* The smallest set of likeliest tokens whose masses reach `goal`, moved to the front, its least likely last; returns its size. By
 * selection: only the part in which the border lies is looked at again. */
static int take_nucleus(const float *x, const float *weight, int32_t *id, int n, uint64_t goal) {
    int lo = 0, hi = n - 1;
    if (goal < 1) goal = 1; /* at least one */
    while (lo <= hi) {
        int at = partition(x, id, lo, hi);
        uint64_t before = sum_kept(weight, id + lo, at - lo), with = before + mass(weight[id[at]]);
        if (before < goal && with >= goal) return at + 1;
        if (with < goal) {
            goal -= with;
            lo = at + 1;
        } else {
            hi = at - 1;
        }
    }
    return lo;
}

/* In the order of likelihood, the token in which u of all mass is passed. */
static int32_t pick(const float *x, const float *weight, int32_t *id, int n, double u) {
    uint64_t sum = sum_kept(weight, id, n), goal = (uint64_t)(u * (double)sum) + 1;
    return id[take_nucleus(x, weight, id, n, goal < sum ? goal : sum) - 1];
}

/* A logit that at least k tokens reach: the k-th highest of the chunks' highest. */
static float floor_of_top(sampler *s, int k) {
    if (k >= s->nchunks) return -INFINITY;
    for (int c = 0; c < s->nchunks; c++) s->kept[c] = c;
    select_top(s->highest, s->kept, s->nchunks, k);
    float lowest = INFINITY;
    for (int i = 0; i < k; i++) lowest = s->highest[s->kept[i]] < lowest ? s->highest[s->kept[i]] : lowest;
    return lowest;
}

static int keep_at_least(sampler *s, const float *x, float logit, float weight) {
    int n = 0;
    for (int c = 0; c < s->nchunks; c++) {
        if (s->highest[c] < logit || s->heaviest[c] < weight) continue;
        for (int i = c * CHUNK, end = i + chunk_size(s, c); i < end; i++) {
            s->kept[n] = i;
            n += (x[i] >= logit) & (s->weight[i] >= weight);
        }
    }
    return n;
}

/* What can be told from its logit or weight alone to be out of the draw is not kept. */
static int keep(sampler *s, const float *x, const engine_sampling *h, double total) {
    float logit = h->top_k > 0 ? floor_of_top(s, h->top_k) : -INFINITY;
    double weight = (double)h->min_p > (double)FLT_MIN ? (double)h->min_p : (double)FLT_MIN;
    if (h->top_p < 1 && h->top_k <= 0 && h->min_p <= 0) {
        /* what is below weighs at most 1 - top_p together; equal weights are not below their mean, rounding or not */
        double tail = total * (1 - (double)h->top_p) / s->vocab * (1 - 1e-6);
        if (tail > weight) weight = tail;
    }
    return keep_at_least(s, x, logit, (float)weight);
}

/* From all tokens: the chunk first. */
static int32_t pick_of_all(const sampler *s, double total, double u) {
    double goal = u * total, sum = 0;
    int c = 0;
    for (; c + 1 < s->nchunks && sum + s->sum[c] <= goal; c++) sum += s->sum[c];
    int i = c * CHUNK, end = i + chunk_size(s, c);
    for (; i < end; i++) {
        sum += (double)s->weight[i];
        if (sum > goal) return i;
    }
    while (i > 1 && !(s->weight[i - 1] > 0)) i--; /* rounding: the last that can be drawn */
    return i - 1;
}

static int32_t draw(sampler *s, const float *x, float best, const engine_sampling *h, double u) {
    double total = weigh(s, x, best, 1 / h->temperature);
    if (h->top_k <= 0 && h->min_p <= 0 && h->top_p >= 1) return pick_of_all(s, total, u);
    int32_t *id = s->kept;
    int n = keep(s, x, h, total);
    if (h->top_k > 0 && h->top_k < n) {
        select_top(x, id, n, h->top_k);
        n = h->top_k;
    }
    if (h->top_p < 1) {
        uint64_t whole =
            h->top_k > 0 || h->min_p > 0 ? sum_kept(s->weight, id, n) : (uint64_t)(total * 0x1p40);
        n = take_nucleus(x, s->weight, id, n, (uint64_t)((double)whole * (double)h->top_p));
    }
    return pick(x, s->weight, id, n, u);
}

static int32_t first_of(const sampler *s, const float *x, float value) {
    int c = 0;
    while (s->highest[c] != value) c++;
    int32_t i = c * CHUNK;
    while (x[i] != value) i++;
    return i;
}

/* ---- log probabilities ---- */

/* Puts `id` into the list of the best, which is sorted and holds at most `max`. */
static void offer(sample_output *out, int max, const float *x, int32_t id) {
    if (out->ntop == max && !likelier(x, id, out->top[max - 1].token)) return;
    int at = out->ntop < max ? out->ntop++ : max - 1;
    for (; at > 0 && likelier(x, id, out->top[at - 1].token); at--) out->top[at] = out->top[at - 1];
    out->top[at].token = id;
}

/* The likeliest tokens; returns what turns a logit into a log probability. */
static double fill_top(sampler *s, const sample_input *in, float best, sample_output *out) {
    const float *x = in->logits;
    double norm = (double)best + log(weigh(s, x, best, 1));
    int max = in->how->logprobs < SAMPLE_TOP_MAX ? in->how->logprobs : SAMPLE_TOP_MAX;
    for (int c = 0; c < s->nchunks && max > 0; c++) {
        if (out->ntop == max && s->highest[c] <= x[out->top[max - 1].token]) continue;
        for (int i = c * CHUNK, end = i + chunk_size(s, c); i < end; i++) offer(out, max, x, i);
    }
    for (int i = 0; i < out->ntop; i++) out->top[i].logprob = (float)((double)x[out->top[i].token] - norm);
    return norm;
}

int sampler_draw(sampler *s, const sample_input *in, sample_output *out, engine_error *err) {
    const engine_sampling *h = in->how;
    const float *x = in->logits;
    bool finite, logprobs = h->logprobs >= 0;
    float best = scan(s, x, &finite);
    out->ntop = 0;
    if (!finite) {
        return engine_fail(err, ENGINE_EINTERNAL, "the model computed logits that are not numbers");
    }
    double norm = logprobs ? fill_top(s, in, best, out) : 0;
    if (is_adjusted(in)) {
        x = adjust(s, in);
        best = scan(s, x, &finite);
    }
    if (best == -INFINITY) return engine_fail(err, ENGINE_EINTERNAL, "no token is left to draw from");
    if (h->temperature < SAMPLE_GREEDY_BELOW) {
        out->token = first_of(s, x, best);
    } else {
        out->token = draw(s, x, best, h, sample_uniform(h->seed, (uint64_t)in->ntokens));
    }
    out->logprob = logprobs ? (float)((double)in->logits[out->token] - norm) : 0;
    return 0;
}

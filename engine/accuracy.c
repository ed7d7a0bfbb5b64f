/* See accuracy.h. Two backends side by side, one window after another. One thread, beside the backends' own. */
#include "engine/accuracy.h"
#include "engine/backend.h"
#include "engine/cuda/cuda.h"

#include <math.h>
#include <stdlib.h>

enum { BLOCK_TOKENS = 16, CHUNK = 64 };

typedef struct pair {
    backend *reference, *format;
    int32_t *blocks;
    int vocab;
    accuracy sum; /* perplexities as sums of nats until the end */
    int64_t same;
} pair;

static backend *open_side(const accuracy_side *s, int window, engine_error *err) {
    const int blocks = (window + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    const backend_options opt = {.threads = s->threads,
                                 .isa = s->isa,
                                 .weights = s->weights,
                                 .kv = s->kv,
                                 .kv_blocks = blocks,
                                 .block_tokens = BLOCK_TOKENS,
                                 .max_tokens = CHUNK,
                                 .max_logits = CHUNK,
                                 .max_seqs = 1,
                                 .max_blocks_per_seq = blocks};
    return s->gpu ? backend_open_cuda(s->model, &opt, err) : backend_open_cpu(s->model, &opt, err);
}

static int best_of(const float *logits, int n) {
    int best = 0;
    for (int i = 1; i < n; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

/* What is to be taken from a logit to have its logarithm of probability */
static double norm_of(const float *logits, int n, int best) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += exp((double)logits[i] - (double)logits[best]);
    return (double)logits[best] + log(sum);
}

static void compare(pair *p, const float *a, const float *b, int32_t next) {
    const int n = p->vocab, best_a = best_of(a, n), best_b = best_of(b, n);
    const double norm_a = norm_of(a, n, best_a), norm_b = norm_of(b, n, best_b);
    double kl = 0;
    for (int i = 0; i < n; i++) {
        const double la = (double)a[i] - norm_a, lb = (double)b[i] - norm_b;
        kl += exp(la) * (la - lb);
    }
    p->sum.kl += kl;
    if (kl > p->sum.worst_kl) p->sum.worst_kl = kl;
    p->sum.reference_perplexity += norm_a - (double)a[next];
    p->sum.perplexity += norm_b - (double)b[next];
    p->same += best_a == best_b;
    p->sum.tokens++;
}

/* All tokens but the last predict the one after them. */
static int run_window(pair *p, const int32_t *ids, int n, engine_error *err) {
    for (int pos = 0; pos < n - 1; pos += CHUNK) {
        const int count = n - 1 - pos < CHUNK ? n - 1 - pos : CHUNK;
        const batch_seq s = {
            .tokens = ids + pos, .ntokens = count, .pos = pos, .blocks = p->blocks, .nlogits = count};
        float *a, *b;
        if (backend_forward(p->reference, &s, 1, &a, err) || backend_forward(p->format, &s, 1, &b, err))
            return -1;
        for (int i = 0; i < count; i++) {
            compare(p, a + (size_t)i * (size_t)p->vocab, b + (size_t)i * (size_t)p->vocab, ids[pos + i + 1]);
        }
    }
    return 0;
}

static int check(const accuracy_side *reference, const accuracy_side *format, const accuracy_text *t,
                 engine_error *err) {
    const model_config *a = &reference->model->config, *b = &format->model->config;
    if (a->vocab != b->vocab)
        return engine_fail(err, ENGINE_EINVAL, "vocabularies of %d and %d cannot be compared", a->vocab,
                           b->vocab);
    if (t->window < 2 || t->window > a->max_position || t->window > b->max_position)
        return engine_fail(err, ENGINE_EINVAL, "a window of %d tokens: expected 2 to %d", t->window,
                           a->max_position);
    if (t->n >= (size_t)t->window) return 0;
    return engine_fail(err, ENGINE_EINVAL, "the text has %zu tokens, fewer than a window of %d", t->n,
                       t->window);
}

static int measure(pair *p, const accuracy_text *t, engine_error *err) {
    const size_t window = (size_t)t->window;
    p->blocks = calloc(window, sizeof *p->blocks);
    if (!p->blocks) return engine_fail(err, ENGINE_ENOMEM, "out of memory");
    for (int i = 0; i < (t->window + BLOCK_TOKENS - 1) / BLOCK_TOKENS; i++) p->blocks[i] = i;
    for (size_t at = 0; at + window <= t->n; at += window) {
        if (run_window(p, t->ids + at, t->window, err)) return -1;
    }
    const double n = (double)p->sum.tokens;
    const backend_memory memory = backend_memory_now(p->format);
    p->sum.kl /= n;
    p->sum.perplexity = exp(p->sum.perplexity / n);
    p->sum.reference_perplexity = exp(p->sum.reference_perplexity / n);
    p->sum.same_best = (double)p->same / n;
    p->sum.weight_bytes = memory.weights;
    p->sum.kv_bytes = memory.kv;
    return 0;
}

int accuracy_measure(const accuracy_side *reference, const accuracy_side *format, const accuracy_text *text,
                     accuracy *out, engine_error *err) {
    if (check(reference, format, text, err)) return -1;
    pair p = {.vocab = format->model->config.vocab};
    int rc = -1;
    p.reference = open_side(reference, text->window, err);
    if (p.reference) p.format = open_side(format, text->window, err);
    if (p.format) rc = measure(&p, text, err);
    *out = p.sum;
    backend_close(p.reference);
    backend_close(p.format);
    free(p.blocks);
    return rc;
}

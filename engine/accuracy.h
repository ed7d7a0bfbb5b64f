/* What a format of weights or KV cache costs in accuracy: its predictions of a text beside those of a model as it is stored.
 *
 * The text is cut into windows that begin with nothing before them. Both sides compute the same tokens in the same chunks, so
 * the same pair of formats gives the same figures wherever it runs on one kind of CPU.
 */
#ifndef ENGINE_ACCURACY_H
#define ENGINE_ACCURACY_H

#include "engine/model/model.h"

typedef struct accuracy_text {
    const int32_t *ids; /* in both models' vocabulary */
    size_t n;
    int window; /* tokens; shorter ones at the end of the text are left out */
} accuracy_text;

/* One side: a model and how it is held, as backend_options says. */
typedef struct accuracy_side {
    const model *model;
    const char *weights, *kv, *isa;
    int threads;
    bool gpu; /* on GPU 0 */
} accuracy_side;

typedef struct accuracy {
    int64_t tokens;                /* predicted ones */
    double perplexity;             /* of the format… */
    double reference_perplexity;   /* …and of the reference */
    double kl, worst_kl;           /* of the format's predictions from the reference's, nats a token */
    double same_best;              /* share of tokens for which both find the same one likeliest */
    size_t weight_bytes, kv_bytes; /* of the format; of the KV cache, of one window */
} accuracy;

int accuracy_measure(const accuracy_side *reference, const accuracy_side *format, const accuracy_text *text,
                     accuracy *out, engine_error *err);

#endif

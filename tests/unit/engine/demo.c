/* See demo.h. */
#include "tests/unit/engine/demo.h"

#include "engine/model/files.h"
#include "engine/text/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define DEMO "ops/demo/millrace-demo"
#define TEXT "ops/demo/corpus/world.en.txt"

enum { WINDOW = 256, THREADS = 2 };

demo demo_open(int n) {
    demo d = {.n = n};
    size_t bytes = 0;
    engine_error err = {0};
    d.model = model_open(DEMO, &err);
    if (!d.model) fail_msg("%s", err.msg);
    tokenizer *t = tokenizer_load(DEMO, &err);
    char *text = checkpoint_read(NULL, TEXT, 1 << 24, &bytes, &err);
    d.ids = calloc(bytes + 1, sizeof *d.ids);
    assert_true(t && text && d.ids);
    assert_in_range(tokenizer_encode(t, text, bytes, false, d.ids, bytes, &err), n, bytes);
    free(text);
    tokenizer_free(t);
    return d;
}

void demo_close(demo *d) {
    free(d->ids);
    model_close(d->model);
}

double demo_kl(const demo *d, accuracy_side format) {
    const accuracy_side reference = {.model = d->model, .threads = THREADS};
    const accuracy_text text = {.ids = d->ids, .n = (size_t)d->n, .window = d->n < WINDOW ? d->n : WINDOW};
    accuracy a;
    engine_error err = {0};
    format.model = d->model;
    format.threads = THREADS;
    if (accuracy_measure(&reference, &format, &text, &a, &err)) fail_msg("%s", err.msg);
    print_message(
        "weights %s, KV %s: perplexity %.3f (%.3f), KL %.6f nats a token, at worst %.4f, same best %.2f %%\n",
        format.weights, format.kv ? format.kv : "full", a.perplexity, a.reference_perplexity, a.kl,
        a.worst_kl, 100 * a.same_best);
    return a.kl;
}

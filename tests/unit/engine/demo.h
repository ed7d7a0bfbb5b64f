/* The demo model over a text of its own kind: what a format of its weights or its cache costs there. Run from the repository's root. */
#ifndef TESTS_UNIT_ENGINE_DEMO_H
#define TESTS_UNIT_ENGINE_DEMO_H

#include "engine/accuracy.h"

typedef struct demo {
    model *model;
    int32_t *ids;
    int n;
} demo;

/* The model and n tokens of the text. Fails the test when something is missing. */
demo demo_open(int n);
void demo_close(demo *d);

/* Nats a token, in windows of 256; says this and more. Of `format` weights, kv and gpu count. */
double demo_kl(const demo *d, accuracy_side format);

#endif

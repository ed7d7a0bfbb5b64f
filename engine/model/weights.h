/* The weights of the supported architectures: names and shapes, in one place. */
#ifndef ENGINE_MODEL_WEIGHTS_H
#define ENGINE_MODEL_WEIGHTS_H

#include "engine/model/model.h"

enum { WEIGHT_NAME_MAX = 128 };

/* Sets t->data and t->type of a weight whose shape is given in t. */
typedef int weight_source(void *arg, const char *name, tensor *t, engine_error *err);

/* Asks the source for every weight that the configuration has, by its HuggingFace name, and fills the model with them. May
 * be called again with another source. */
int model_each_weight(model *m, weight_source *source, void *arg, engine_error *err);

#endif

/* A tensor of a file as a weight of the model. Stateless. */
#ifndef ENGINE_MODEL_STORED_H
#define ENGINE_MODEL_STORED_H

#include "engine/error.h"
#include "engine/model/safetensors.h"
#include "engine/model/tensor.h"

/* Checks that an entry has the shape that t gives, in a type that we read, and makes t its view. 8 bits need the scales, of
 * `group` columns each (0: of whole rows); group is -1 where the checkpoint has no 8-bit weights. */
int stored_weight(const safetensors_entry *e, const safetensors_entry *scale, int group, tensor *t,
                  engine_error *err);

#endif

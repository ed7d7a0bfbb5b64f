/* What one rank of a tensor-parallel model holds: a smaller model of its own, over slices of the same mappings.
 *
 *     q, k, v, and their biases    rows, by head; a KV head is held by several ranks where there are fewer of them
 *     o                            columns, by head          } the ranks' outputs are to be summed;
 *     gate, up, and their biases   rows                      } a bias behind the sum is rank 0's alone
 *     down                         columns                   }
 *     head                         rows: a range of the vocabulary
 *     embedding, norms             all; of the embedding a token needs one row
 *
 * Heads, KV heads and the MLP's width in the shard's configuration are those of the rank; the vocabulary stays whole, so
 * that token ids mean the same. Rows of a matrix lie together in the file. Columns do not: their tensors have a `skip`, and
 * are copied or repacked by who computes with them.
 */
#ifndef ENGINE_MODEL_SHARD_H
#define ENGINE_MODEL_SHARD_H

#include "engine/model/model.h"

enum { SHARD_RANKS_MAX = 64, SHARD_VOCAB_UNIT = 16 };

/* Can a model be split over so many ranks? They must divide heads and MLP, and divide the KV heads or be divided by them. */
int shard_check(const model_config *c, int ranks, engine_error *err);

/* The slices of one rank, for ranks that were checked. They borrow from the whole model. */
int shard_init(model *out, const model *whole, int rank, int ranks, engine_error *err);
void shard_done(model *m);

/* Rows of logits of each rank, the same for all so that they can be gathered; the last ones may hold fewer, or none. */
static inline int shard_vocab(int vocab, int ranks) {
    return (vocab + ranks * SHARD_VOCAB_UNIT - 1) / (ranks * SHARD_VOCAB_UNIT) * SHARD_VOCAB_UNIT;
}

#endif

/* What the ranks of a tensor-parallel model say to each other.
 *
 * A model is split over `size` ranks. Each holds some heads with their part of the KV cache, some columns of the MLP and
 * some of the vocabulary (model/shard.h), and computes every token of every batch. Per token they meet
 *
 *     after attention, whose output rows are sums over the heads of all ranks:     all-reduce  [tokens, hidden]
 *     after the MLP, whose output rows are sums over its columns:                  all-reduce  [tokens, hidden]
 *     and after the head, of which each rank has computed some logits:             all-gather  [size][rows, vocab / size]
 *
 * and nowhere else: between these points a rank is a smaller model of its own, and the embedding is read by all.
 *
 *     backend.h ─> group.c, one thread a rank ─┬─> rank 0: cpu/ or cuda/ ─┐
 *                                              ├─> rank 1               ─┼─ comm: comm_local.c (threads of this process)
 *                                              └─> …                    ─┘        or a GPU's collectives
 *
 * Buffers lie where the rank computes: in memory for comm_local, on its own device for a GPU, whose calls go into the stream
 * that the rank's kernels are in. Both keep these promises:
 * - A sum is taken in an order fixed by `size` alone: the same bits on every rank, in every run, for any n around it, so a
 *   token's result does not depend on its batch. Another size rounds differently.
 * - Every rank makes the same calls with the same sizes in the same order, one thread of it at a time.
 * - When a rank cannot go on it calls comm_abort. That fails every call of the group from then on, also those that wait: a
 *   dead rank hangs nobody. There is no way back; the group is to be freed and the engine opened anew.
 * - No call allocates. A buffer stays valid until every rank has returned from the pass that used it.
 */
#ifndef ENGINE_COMM_COMM_H
#define ENGINE_COMM_COMM_H

#include "engine/error.h"

#include <stddef.h>

enum { COMM_RANKS_MAX = 64 };

/* One rank's end of the group. */
typedef struct comm comm;
typedef struct comm_ops {
    int (*all_reduce)(comm *c, float *x, size_t n, engine_error *err);
    int (*all_gather)(comm *c, float *x, size_t n, engine_error *err);
    int (*barrier)(comm *c, engine_error *err);
    void (*abort)(comm *c, const engine_error *why);
    void (*free)(comm *c);
    /* Of collectives that run on a device; NULL where they run in the call. Before the first: the stream that they go into, and
     * room on the device for `piece` floats of each rank, all of it the caller's. After a pass: 0, or what went wrong in it. */
    void (*attach)(comm *c, void *stream, float *room, size_t piece);
    int (*check)(comm *c, engine_error *err);
} comm_ops;

struct comm {
    const comm_ops *ops;
    int rank, size;
};

/* x[0..n) becomes the sum of all ranks' x, in place. */
static inline int comm_all_reduce(comm *c, float *x, size_t n, engine_error *err) {
    return c->ops->all_reduce(c, x, n, err);
}
/* x is [size][n]; each rank brings x[rank], and gets the others'. */
static inline int comm_all_gather(comm *c, float *x, size_t n, engine_error *err) {
    return c->ops->all_gather(c, x, n, err);
}
/* Returns when every rank has come. */
static inline int comm_barrier(comm *c, engine_error *err) {
    return c->ops->barrier(c, err);
}
/* Any thread, any time; the reason of the first abort is what the others' calls report. */
static inline void comm_abort(comm *c, const engine_error *why) {
    c->ops->abort(c, why);
}
/* When nobody is in a call any more. The last one frees what the group shares. */
static inline void comm_free(comm *c) {
    if (c) c->ops->free(c);
}

/* A group of threads of this process: fills ranks[0..size). */
int comm_local_new(int size, comm **ranks, engine_error *err);

#endif

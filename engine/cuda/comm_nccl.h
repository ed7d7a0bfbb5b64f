/* Collectives of the GPUs of one process, behind comm.h: NCCL moves the data, in the stream that the rank's kernels are in, so a
 * pass with them can be captured as a graph.
 *
 * NCCL's own sums depend on where an element lies in the message and on the message's size; ours must not (comm.h). So the ranks'
 * parts are gathered, and each rank adds them up in the order of the ranks. For the short messages of decoding that costs
 * what the other costs, the time of one round; for prefill it moves size / 2 times the bytes.
 */
#ifndef ENGINE_CUDA_COMM_NCCL_H
#define ENGINE_CUDA_COMM_NCCL_H

#include "engine/comm/comm.h"

/* Ends for the GPUs 0 to size - 1. */
int comm_nccl_new(int size, comm **ranks, engine_error *err);

#endif

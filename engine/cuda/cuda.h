/* The CUDA backend: one GPU, or one of the GPUs of a group (engine/comm). See engine/README.md for what runs where.
 */
#ifndef ENGINE_CUDA_CUDA_H
#define ENGINE_CUDA_CUDA_H

#include "engine/backend.h"

/* On the GPU of the caller's rank (device 0 when alone). The model is borrowed and must outlive the backend; each call must come from the
 * thread that opened it. */
backend *backend_open_cuda(const model *m, const backend_options *opt, engine_error *err);

/* The same over GPUs 0 to ranks - 1, by tensor parallelism. */
backend *backend_open_cuda_ranks(const model *m, const backend_options *opt, int ranks, engine_error *err);

/* What either would take on each GPU, without taking it and without a GPU: of one rank, where opt->comm is set, of which only rank
 * and size are read. */
int backend_measure_cuda(const model *m, const backend_options *opt, backend_memory *out, engine_error *err);

/* GPUs that can be used; 0 also when there is no driver. */
int cuda_devices(void);
/* Bytes free on the first of them; 0 when there is none. */
size_t cuda_free_memory(void);

#endif

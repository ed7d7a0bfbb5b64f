/* A model over the GPUs of this machine: a rank a GPU, a thread a rank (comm/group.h), NCCL between them. */
extern "C" {
#include "engine/comm/group.h"
#include "engine/cuda/comm_nccl.h"
#include "engine/cuda/cuda.h"
}

extern "C" backend *backend_open_cuda_ranks(const model *m, const backend_options *opt, int ranks,
                                            engine_error *err) {
    static const rank_kind gpus = {comm_nccl_new, backend_open_cuda};
    return backend_open_group(&gpus, m, opt, ranks, err);
}

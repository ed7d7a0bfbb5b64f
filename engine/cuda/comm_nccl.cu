/* See comm_nccl.h. */
extern "C" {
#include "engine/cuda/comm_nccl.h"
}
#include "engine/cuda/check.h"

#include <nccl.h>

#include <atomic>
#include <cuda_runtime.h>

#include <cstdlib>
#include <mutex>
#include <new>

namespace {

struct nccl_group {
    std::atomic<int> ends;
    std::atomic<bool> broken;
    std::mutex lock;
    engine_error why; /* under the lock */
};

struct nccl_end {
    comm base; /* first */
    nccl_group *group;
    ncclComm_t nccl;
    cudaStream_t stream;
    float *room;
    size_t piece;
};

int fail_as_group(nccl_group *g, engine_error *err) {
    std::lock_guard<std::mutex> held(g->lock);
    if (err) *err = g->why;
    return -1;
}

int nccl_check(ncclResult_t status, const char *what, engine_error *err) {
    if (status == ncclSuccess || status == ncclInProgress) return 0;
    return engine_fail(err, ENGINE_EINTERNAL, "%s: NCCL: %s", what, ncclGetErrorString(status));
}

__global__ void add_parts(float *x, const float *parts, size_t n, int size) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        float sum = parts[i];
        for (int r = 1; r < size; r++) sum += parts[(size_t)r * n + i];
        x[i] = sum;
    }
}

int all_reduce(comm *c, float *x, size_t n, engine_error *err) {
    nccl_end *e = (nccl_end *)c;
    if (e->group->broken) return fail_as_group(e->group, err);
    for (size_t at = 0; at < n; at += e->piece) {
        const size_t m = n - at < e->piece ? n - at : e->piece;
        if (nccl_check(ncclAllGather(x + at, e->room, m, ncclFloat32, e->nccl, e->stream), "all-reduce", err))
            return -1;
        const unsigned blocks = (unsigned)((m + 255) / 256 < 1024 ? (m + 255) / 256 : 1024);
        add_parts<<<blocks, 256, 0, e->stream>>>(x + at, e->room, m, c->size);
    }
    return cuda::check(cudaGetLastError(), "all-reduce", err);
}

int all_gather(comm *c, float *x, size_t n, engine_error *err) {
    nccl_end *e = (nccl_end *)c;
    if (e->group->broken) return fail_as_group(e->group, err);
    return nccl_check(ncclAllGather(x + (size_t)c->rank * n, x, n, ncclFloat32, e->nccl, e->stream),
                      "all-gather", err);
}

int barrier(comm *c, engine_error *err) {
    nccl_end *e = (nccl_end *)c;
    if (e->group->broken) return fail_as_group(e->group, err);
    if (!e->stream) return 0; /* nothing was begun */
    if (nccl_check(ncclAllGather(e->room + c->rank, e->room, 1, ncclFloat32, e->nccl, e->stream), "barrier",
                   err))
        return -1;
    return cuda::check(cudaStreamSynchronize(e->stream), "barrier", err);
}

/* Ends what the other ranks are in, so that none of them waits for this one. */
void abort_group(comm *c, const engine_error *why) {
    nccl_end *e = (nccl_end *)c;
    {
        std::lock_guard<std::mutex> held(e->group->lock);
        if (!e->group->broken) e->group->why = *why;
        e->group->broken = true;
    }
    if (e->nccl) ncclCommAbort(e->nccl);
    e->nccl = nullptr;
}

void free_end(comm *c) {
    nccl_end *e = (nccl_end *)c;
    if (e->nccl) {
        if (e->group->broken)
            ncclCommAbort(e->nccl);
        else
            ncclCommDestroy(e->nccl);
    }
    if (e->group->ends.fetch_sub(1) == 1) delete e->group;
    free(e);
}

void attach(comm *c, void *stream, float *room, size_t piece) {
    nccl_end *e = (nccl_end *)c;
    e->stream = (cudaStream_t)stream;
    e->room = room;
    e->piece = piece;
}

int check(comm *c, engine_error *err) {
    nccl_end *e = (nccl_end *)c;
    ncclResult_t status = ncclSuccess;
    if (e->group->broken) return fail_as_group(e->group, err);
    if (nccl_check(ncclCommGetAsyncError(e->nccl, &status), "collectives", err)) return -1;
    return nccl_check(status, "collectives", err);
}

const comm_ops ops = {all_reduce, all_gather, barrier, abort_group, free_end, attach, check};

} // namespace

int comm_nccl_new(int size, comm **ranks, engine_error *err) {
    ncclComm_t made[COMM_RANKS_MAX];
    int devices[COMM_RANKS_MAX], have = 0;
    if (cuda::check(cudaGetDeviceCount(&have), "cannot count the GPUs", err)) return -1;
    if (size < 1 || size > COMM_RANKS_MAX || size > have)
        return engine_fail(err, ENGINE_EINVAL, "a model over %d GPUs is wanted, but this machine has %d",
                           size, have);
    nccl_group *g = new (std::nothrow) nccl_group();
    if (!g) return engine_fail(err, ENGINE_ENOMEM, "out of memory");
    int n = 0;
    for (; n < size; n++) {
        nccl_end *e = (nccl_end *)calloc(1, sizeof *e);
        if (!e) break;
        e->base.ops = &ops;
        e->base.rank = n;
        e->base.size = size;
        e->group = g;
        devices[n] = n;
        ranks[n] = &e->base;
    }
    g->ends = n;
    int rc = n == size ? nccl_check(ncclCommInitAll(made, size, devices), "cannot connect the GPUs", err)
                       : engine_fail(err, ENGINE_ENOMEM, "out of memory");
    for (int r = 0; r < n; r++) {
        if (rc)
            comm_free(ranks[r]);
        else
            ((nccl_end *)ranks[r])->nccl = made[r];
    }
    if (rc && !n) delete g;
    return rc;
}

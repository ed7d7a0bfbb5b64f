/* See comm_nccl.h. */
extern "C" {
#include "engine/cuda/comm_nccl.h"
}
#include "engine/cuda/check.h"
#include "engine/cuda/elementwise.h"

#include <atomic>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <cstdlib>
#include <mutex>
#include <new>

#if __has_include(<nccl.h>)
#include <nccl.h>
#else /* what is used of it; the same in every NCCL 2 */
typedef struct ncclComm *ncclComm_t;
typedef enum { ncclSuccess = 0, ncclInProgress = 7 } ncclResult_t;
typedef enum { ncclFloat32 = 7 } ncclDataType_t;
extern "C" {
const char *ncclGetErrorString(ncclResult_t result);
ncclResult_t ncclCommInitAll(ncclComm_t *comm, int ndev, const int *devlist);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error);
ncclResult_t ncclAllGather(const void *from, void *to, size_t n, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream);
}
#endif

namespace {

/* NCCL, loaded when a model is split for the first time: an engine on one GPU, or on none, needs no NCCL. */
struct library {
    decltype(&ncclGetErrorString) error_string;
    decltype(&ncclCommInitAll) init_all;
    decltype(&ncclCommDestroy) destroy;
    decltype(&ncclCommAbort) abort;
    decltype(&ncclCommGetAsyncError) async_error;
    decltype(&ncclAllGather) all_gather;
} nccl;

template <typename F> bool find(void *from, const char *name, F *out) {
    *out = (F)dlsym(from, name);
    return *out;
}

/* Before any rank begins, from the thread that opens the group. It stays loaded. */
int load_library(engine_error *err) {
    if (nccl.all_gather) return 0;
    void *l = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!l) return engine_fail(err, ENGINE_EINVAL, "a model over several GPUs needs NCCL: %s", dlerror());
    if (find(l, "ncclGetErrorString", &nccl.error_string) && find(l, "ncclCommInitAll", &nccl.init_all) &&
        find(l, "ncclCommDestroy", &nccl.destroy) && find(l, "ncclCommAbort", &nccl.abort) &&
        find(l, "ncclCommGetAsyncError", &nccl.async_error) && find(l, "ncclAllGather", &nccl.all_gather))
        return 0;
    return engine_fail(err, ENGINE_EINVAL, "this NCCL is not one that the engine knows: %s", dlerror());
}

struct nccl_group {
    std::atomic<int> ends;
    std::atomic<bool> broken;
    std::mutex lock;
    engine_error why; /* under the lock */
};

struct nccl_end {
    comm base; /* first */
    nccl_group *group;
    ncclComm_t end;
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
    return engine_fail(err, ENGINE_EINTERNAL, "%s: NCCL: %s", what, nccl.error_string(status));
}

int all_reduce(comm *c, float *x, size_t n, engine_error *err) {
    nccl_end *e = (nccl_end *)c;
    if (e->group->broken) return fail_as_group(e->group, err);
    for (size_t at = 0; at < n; at += e->piece) {
        const size_t m = n - at < e->piece ? n - at : e->piece;
        if (nccl_check(nccl.all_gather(x + at, e->room, m, ncclFloat32, e->end, e->stream), "all-reduce",
                       err))
            return -1;
        cuda::add_parts(x + at, e->room, m, c->size, e->stream);
    }
    return cuda::check(cudaGetLastError(), "all-reduce", err);
}

int all_gather(comm *c, float *x, size_t n, engine_error *err) {
    nccl_end *e = (nccl_end *)c;
    if (e->group->broken) return fail_as_group(e->group, err);
    return nccl_check(nccl.all_gather(x + (size_t)c->rank * n, x, n, ncclFloat32, e->end, e->stream),
                      "all-gather", err);
}

int barrier(comm *c, engine_error *err) {
    nccl_end *e = (nccl_end *)c;
    if (e->group->broken) return fail_as_group(e->group, err);
    if (!e->stream) return 0; /* nothing was begun */
    if (nccl_check(nccl.all_gather(e->room + c->rank, e->room, 1, ncclFloat32, e->end, e->stream), "barrier",
                   err))
        return -1;
    return cuda::check(cudaStreamSynchronize(e->stream), "barrier", err);
}

/* Ends what this rank's own stream is in, and tells the others, who look (check) while they wait for theirs. */
void abort_group(comm *c, const engine_error *why) {
    nccl_end *e = (nccl_end *)c;
    {
        std::lock_guard<std::mutex> held(e->group->lock);
        if (!e->group->broken) e->group->why = *why;
        e->group->broken = true;
    }
    if (e->end) nccl.abort(e->end);
    e->end = nullptr;
}

void free_end(comm *c) {
    nccl_end *e = (nccl_end *)c;
    if (e->end) {
        if (e->group->broken)
            nccl.abort(e->end);
        else
            nccl.destroy(e->end);
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
    if (nccl_check(nccl.async_error(e->end, &status), "collectives", err)) return -1;
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
    if (load_library(err)) return -1;
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
    int rc = n == size ? nccl_check(nccl.init_all(made, size, devices), "cannot connect the GPUs", err)
                       : engine_fail(err, ENGINE_ENOMEM, "out of memory");
    for (int r = 0; r < n; r++) {
        if (rc)
            comm_free(ranks[r]);
        else
            ((nccl_end *)ranks[r])->end = made[r];
    }
    if (rc && !n) delete g;
    return rc;
}

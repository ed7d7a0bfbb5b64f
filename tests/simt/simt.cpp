/* The shim's blocks, warps and runtime: see include/cuda_runtime.h. */
#include "cuda_runtime.h"
#include "lazy.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define FIBRE_SWITCH(save, bottom, size)  __sanitizer_start_switch_fiber(save, bottom, size)
#define FIBRE_ARRIVE(saved, bottom, size) __sanitizer_finish_switch_fiber(saved, bottom, size)
#else
#define FIBRE_SWITCH(save, bottom, size)  ((void)0)
#define FIBRE_ARRIVE(saved, bottom, size) ((void)0)
#endif

/* Saves what a call must preserve on this stack, leaves its top in *from, and goes on with the stack `to`. Without system calls,
 * which swapcontext makes: a test switches tens of millions of times. */
extern "C" void simt_switch(void **from, void *to);
#if defined(__x86_64__)
asm(R"(
.text
.type simt_switch, @function
simt_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size simt_switch, . - simt_switch
)");
enum { SAVED_WORDS = 6 };
#elif defined(__aarch64__)
asm(R"(
.text
.type simt_switch, %function
simt_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size simt_switch, . - simt_switch
)");
enum { SAVED_WORDS = 20 };
#endif

namespace simt {

__thread place here;

enum { WARP = 32, STACK_BYTES = 256 << 10, THREADS_MAX = 1024 };

enum fibre_state { READY, AT_BLOCK, AT_WARP, DONE };

struct fibre {
    void *top = nullptr; /* of its stack, while it does not run */
    std::unique_ptr<char[]> stack;
    fibre_state state = DONE;
    dim3 thread;
    unsigned parity = 0; /* of its warp's exchanges */
    void *fake_stack = nullptr;
};

/* One block at a time, on the host thread that launched it. */
struct block_runner {
    fibre fibres[THREADS_MAX];
    unsigned made = 0, n = 0, current = 0;
    void *home = nullptr; /* the scheduler's stack, while a fibre runs */
    void *home_fake_stack = nullptr;
    const void *home_bottom = nullptr;
    size_t home_size = 0;
    const std::function<void()> *body = nullptr;
    std::vector<char> shared;
    uint64_t words[2][THREADS_MAX];
    fragments parts[2][THREADS_MAX];
    ~block_runner();
};

static __thread block_runner *runner_now;
static block_runner &runner() {
    static thread_local std::unique_ptr<block_runner> of_thread;
    if (!of_thread) of_thread.reset(runner_now = new block_runner);
    return *runner_now;
}

static void fail(const char *what) {
    fprintf(stderr, "simt: %s\n", what);
    abort();
}

/* To the scheduler, until it comes back. */
static void pause_fibre(fibre_state state) {
    block_runner &r = *runner_now;
    fibre &f = r.fibres[r.current];
    f.state = state;
    FIBRE_SWITCH(&f.fake_stack, r.home_bottom, r.home_size);
    simt_switch(&f.top, r.home);
    FIBRE_ARRIVE(f.fake_stack, nullptr, nullptr);
    here.thread = f.thread;
}

/* A fibre serves block after block, until there is no work at all any more: then it gives up what ASan keeps for its stack. */
static void fibre_main() {
    block_runner &r = *runner_now;
    FIBRE_ARRIVE(nullptr, &r.home_bottom, &r.home_size);
    while (r.body) {
        here.thread = r.fibres[r.current].thread;
        (*r.body)();
        pause_fibre(DONE);
    }
    FIBRE_SWITCH(nullptr, r.home_bottom, r.home_size);
    simt_switch(&r.fibres[r.current].top, r.home);
}

/* A stack on which simt_switch finds what it left, and then fibre_main to return to. */
static void make_fibre(fibre &f) {
    f.stack.reset(new char[STACK_BYTES]);
    void **top = (void **)(((uintptr_t)f.stack.get() + STACK_BYTES) / 64 * 64);
#if defined(__x86_64__)
    *--top = nullptr; /* no caller: and so the stack is 8 off 16, as after a call */
    *--top = (void *)fibre_main;
    top -= SAVED_WORDS;
    memset(top, 0, SAVED_WORDS * sizeof *top);
#elif defined(__aarch64__)
    top -= SAVED_WORDS;
    memset(top, 0, SAVED_WORDS * sizeof *top);
    top[11] = (void *)fibre_main; /* x30 */
#endif
    f.top = top;
}

static void resume(block_runner &r, unsigned i) {
    fibre &f = r.fibres[i];
    r.current = i;
    FIBRE_SWITCH(&r.home_fake_stack, f.stack.get(), STACK_BYTES);
    simt_switch(&r.home, f.top);
    FIBRE_ARRIVE(r.home_fake_stack, nullptr, nullptr);
}

block_runner::~block_runner() {
    body = nullptr;
    for (unsigned i = 0; i < made; i++) resume(*this, i);
}

/* Releases [first, end) when all of its living threads wait in `state`. */
static bool release(block_runner &r, unsigned first, unsigned end, fibre_state state) {
    unsigned waiting = 0, living = 0;
    for (unsigned i = first; i < end; i++) {
        living += r.fibres[i].state != DONE;
        waiting += r.fibres[i].state == state;
    }
    if (!waiting || waiting != living) return false;
    for (unsigned i = first; i < end; i++) {
        if (r.fibres[i].state == state) r.fibres[i].state = READY;
    }
    return true;
}

static bool release_any(block_runner &r) {
    bool some = release(r, 0, r.n, AT_BLOCK);
    for (unsigned first = 0; first < r.n; first += WARP) {
        const unsigned end = first + WARP < r.n ? first + WARP : r.n;
        if (release(r, first, end, AT_WARP)) {
            if (end - first != WARP) fail("a warp operation in a warp of fewer than 32 threads");
            some = true;
        }
    }
    return some;
}

static void run_block(block_runner &r) {
    for (unsigned i = 0; i < r.n; i++) {
        fibre &f = r.fibres[i];
        const dim3 d = here.block_dim;
        f.thread = dim3(i % d.x, i / d.x % d.y, i / d.x / d.y);
        f.state = READY;
        f.parity = 0;
    }
    for (;;) {
        bool living = false;
        for (unsigned i = 0; i < r.n; i++) {
            if (r.fibres[i].state == READY) resume(r, i);
            living |= r.fibres[i].state != DONE;
        }
        if (!living) return;
        if (!release_any(r)) fail("threads of a block wait for others that never come (a divergent barrier)");
    }
}

static void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &body) {
    block_runner &r = runner();
    r.n = block.x * block.y * block.z;
    if (!r.n || r.n > THREADS_MAX) fail("a block must have 1 to 1024 threads");
    if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535)
        fail("a grid must have blocks, and at most 65535 in y and z");
    if (shared_bytes > 227 << 10) fail("more shared memory than a block can have");
    while (r.made < r.n) make_fibre(r.fibres[r.made++]);
    r.body = &body;
    here.block_dim = block;
    here.grid_dim = grid;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                here.block = dim3(x, y, z);
                /* another block's leftovers are no input: garbage, and never too much of it for ASan to see */
                r.shared.assign(shared_bytes, (char)0xaa);
                r.shared.shrink_to_fit();
                run_block(r);
            }
}

void *dynamic_shared() {
    return runner().shared.data();
}

void sync_block() {
    pause_fibre(AT_BLOCK);
}

/* Two sets of slots in turn: who writes the next one cannot overtake who still reads this one. */
const uint64_t *exchange(uint64_t mine) {
    block_runner &r = *runner_now;
    const unsigned i = r.current, parity = r.fibres[i].parity++ % 2;
    r.words[parity][i] = mine;
    pause_fibre(AT_WARP);
    return &r.words[parity][i / WARP * WARP];
}

const fragments *exchange_fragments(const fragments &mine) {
    block_runner &r = *runner_now;
    const unsigned i = r.current, parity = r.fibres[i].parity++ % 2;
    r.parts[parity][i] = mine;
    pause_fibre(AT_WARP);
    return &r.parts[parity][i / WARP * WARP];
}

} // namespace simt

/* ---- the runtime ---- */

struct simt_graph {
    std::vector<std::function<void()>> work;
};
struct simt_stream {
    simt_graph *capturing;
    std::deque<std::function<void()>> waiting;
    uint64_t enqueued;
};
struct simt_event {
    std::chrono::steady_clock::time_point at;
    simt_stream *stream;
    uint64_t enqueued; /* there, when it was recorded */
};

static bool lazy;
void simt_be_lazy(bool be) {
    lazy = be;
}

static void run_until(simt_stream *s, uint64_t enqueued) {
    while (s && !s->waiting.empty() && s->enqueued - s->waiting.size() < enqueued) {
        const std::function<void()> work = std::move(s->waiting.front());
        s->waiting.pop_front();
        work();
    }
}

/* Now, or when somebody waits for it, or when the graph is launched. */
static cudaError_t enqueue(cudaStream_t s, std::function<void()> work) {
    if (s && s->capturing) {
        s->capturing->work.push_back(std::move(work));
    } else if (s && lazy) {
        s->waiting.push_back(std::move(work));
        s->enqueued++;
    } else {
        work();
    }
    return cudaSuccess;
}

void simt::launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t s, std::function<void()> body) {
    ::enqueue(s, [=] { run_grid(grid, block, shared_bytes, body); });
}

void simt::enqueue(cudaStream_t s, std::function<void()> work) {
    ::enqueue(s, std::move(work));
}

static std::atomic<size_t> device_bytes;
size_t simt_device_bytes() {
    return device_bytes;
}

const char *cudaGetErrorString(cudaError_t e) {
    return e == cudaSuccess                 ? "no error"
           : e == cudaErrorMemoryAllocation ? "out of memory"
                                            : "invalid argument";
}
cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *n) {
    *n = 64;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int) {
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    *p = {};
    snprintf(p->name, sizeof p->name, "SIMT shim");
    p->totalGlobalMem = (size_t)4 << 30;
    p->multiProcessorCount = 4;
    p->major = 9;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = *total = (size_t)4 << 30;
    return cudaSuccess;
}

/* The size stands before the memory, so that what is given out can be counted. */
enum { HEAD = 64 };
cudaError_t cudaMalloc(void **p, size_t n) {
    void *at = nullptr;
    if (n >= (size_t)4 << 30 || posix_memalign(&at, HEAD, n + HEAD)) return cudaErrorMemoryAllocation;
    memcpy(at, &n, sizeof n);
    memset((char *)at + HEAD, 0xaa, n);
    device_bytes += n;
    *p = (char *)at + HEAD;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    if (!p) return cudaSuccess;
    size_t n;
    memcpy(&n, (char *)p - HEAD, sizeof n);
    device_bytes -= n;
    free((char *)p - HEAD);
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned) {
    *p = malloc(n ? n : 1);
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void *p) {
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind, cudaStream_t s) {
    return enqueue(s, [=] { memcpy(to, from, n); });
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t s) {
    return enqueue(s, [=] {
        for (size_t i = 0; i < height; i++)
            memcpy((char *)to + i * to_pitch, (const char *)from + i * from_pitch, width);
    });
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t s) {
    return enqueue(s, [=] { memset(p, value, n); });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    *s = new simt_stream{};
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    run_until(s, UINT64_MAX);
    delete s;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    run_until(s, UINT64_MAX);
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t s) {
    return cudaStreamSynchronize(s);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    *e = new simt_event{};
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *e) {
    return cudaEventCreateWithFlags(e, 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    e->at = std::chrono::steady_clock::now();
    e->stream = s;
    e->enqueued = s ? s->enqueued : 0;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    run_until(e->stream, e->enqueued);
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
    return cudaEventSynchronize(e);
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    *ms = std::chrono::duration<float, std::milli>(to->at - from->at).count();
    return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
    if (s->capturing) return cudaErrorInvalidValue;
    s->capturing = new simt_graph;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
    if (!s->capturing) return cudaErrorInvalidValue;
    *g = s->capturing;
    s->capturing = nullptr;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long) {
    *e = new simt_graph(*g);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s) {
    for (auto &w : e->work) enqueue(s, w);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    delete g;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) {
    delete e;
    return cudaSuccess;
}

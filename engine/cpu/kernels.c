/* Chooses the kernel table at run time. Stateless; any thread. */
#include "engine/cpu/kernels.h"

#include <stdbool.h>
#include <string.h>

static bool always(void) {
    return true;
}

#if defined(__x86_64__)
/* F16C is older than AVX2, and clang 14 cannot ask for it. */
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

static bool has_avx512_vnni(void) {
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

static bool has_avx512_bf16(void) {
    return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16");
}
#endif

static const struct {
    const kernels *table;
    bool (*supported)(void);
} tables[] = {
#if defined(__x86_64__)
    {&kernels_avx512_bf16, has_avx512_bf16},
    {&kernels_avx512_vnni, has_avx512_vnni},
    {&kernels_avx512, has_avx512},
    {&kernels_avx2, has_avx2},
#endif
    {&kernels_generic, always},
};

const kernels *kernels_select(const char *isa, engine_error *err) {
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        const kernels *k = tables[i].table;
        if (isa && strcmp(isa, k->isa)) continue;
        if (tables[i].supported()) return k;
        if (isa) {
            engine_fail(err, ENGINE_EINVAL, "this CPU does not have %s", isa);
            return NULL;
        }
    }
    engine_fail(err, ENGINE_EINVAL,
                "unknown instruction set \"%s\": use avx512-bf16, avx512-vnni, avx512, avx2 or generic", isa);
    return NULL;
}

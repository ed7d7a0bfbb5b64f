/* MR_WIDE before a function: it is compiled for the vectors of several generations of CPU, and the program takes
 * the widest that the machine has. Sanitizers and other compilers get the plain form. */
#ifndef MR_INTENT_WIDE_H
#define MR_INTENT_WIDE_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) &&     \
    !defined(__SANITIZE_THREAD__)
#define MR_WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MR_WIDE
#endif

#endif

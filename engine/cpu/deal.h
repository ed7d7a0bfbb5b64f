/* The items of a stage, dealt to the threads of a pool.
 *
 * Each thread has a share, which it takes from front to back. Who is done with its own takes from the back of its neighbours', so
 * that a thread which is held up, by another process or by memory, holds up the others by an item and not by its share. No
 * locks: a thread's word has what is left of its share in the stage whose number it bears, and any other number means all.
 *
 * Every thread of the pool takes part in every stage until nothing is left, and a barrier stands between two stages. Neighbouring
 * stages have different numbers, in 16 bits; the first is not 0.
 */
#ifndef ENGINE_CPU_DEAL_H
#define ENGINE_CPU_DEAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A cache line for each thread; zeros before the first stage */
typedef struct deal_word {
    _Alignas(64) _Atomic uint64_t left;
} deal_word;

typedef struct deal {
    deal_word *words; /* [threads] */
    int thread, threads;
    uint16_t stage;
    int items; /* below 2^24 */
} deal;

/* An item that nobody else has, or -1 when none is left that this thread may take. */
int deal_take(const deal *d);
/* Is it of this thread's share? */
bool deal_owns(const deal *d, int item);

#endif

/* Random bytes for ids and seeds. They are as good as the system's, of which some hundred are taken at a time: a call each for a
 * few bytes costs a router more than reading a request. Any thread; a forked process draws its own. */
#ifndef MR_RANDOM_H
#define MR_RANDOM_H

#include <stdbool.h>
#include <stddef.h>

#define MR_RANDOM_MAX 64 /* bytes of one call */

/* False when the system gives none. */
bool mr_random(void *out, size_t n);

#endif

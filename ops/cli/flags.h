/* What the commands' command lines share. */
#ifndef MR_CLI_FLAGS_H
#define MR_CLI_FLAGS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "--name" alone means "--name=true": changes argv in place, for each of `names` (which ends with NULL). */
void mr_flags_bare(int argc, char **argv, const char *const *names);

/* The verb of this name, in a table whose elements have `size` bytes and begin with their name; the last has NULL there. NULL: an
 * error, which says what may have been meant. */
const void *mr_flags_verb(const void *verbs, size_t size, const char *name, mr_error *err);

/* A flag's value, as `--kb PATH` or `--kb=PATH`: 1 when argv[*at] is this flag, and *at its last argument then; 0 when it is
 * another one. */
int mr_flags_value(int argc, char **argv, int *at, const char *flag, const char **value, mr_error *err);

/* "60s", "500ms", "10m", "2h", "90d", or seconds without a unit. `what` names it in the error. */
int mr_flags_duration(const char *what, const char *text, int64_t *ms, mr_error *err);

#endif

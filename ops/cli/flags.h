/* What the commands' command lines share. */
#ifndef MR_CLI_FLAGS_H
#define MR_CLI_FLAGS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/* "--name" alone means "--name=true": changes argv in place, for each of `names` (which ends with NULL). */
void mr_flags_bare(int argc, char **argv, const char *const *names);

/* "60s", "500ms", "10m", "2h", "90d", or seconds without a unit. `what` names it in the error. */
int mr_flags_duration(const char *what, const char *text, int64_t *ms, mr_error *err);

#endif

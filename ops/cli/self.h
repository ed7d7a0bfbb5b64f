/* Where this program stands, and what stands beside it. */
#ifndef MR_CLI_SELF_H
#define MR_CLI_SELF_H

#include "base/error.h"

#define MR_PATH_MAX 4096

/* The path of the program millrace-NAME in this program's folder (it may not exist). */
int mr_self_sibling(const char *name, char out[MR_PATH_MAX], mr_error *err);
/* The path of a file of the source tree, such as "ops/kafka/kafka.sh": under $MILLRACE_HOME, or else three folders above this
 * program (build/PRESET/bin). Fails when it does not exist. */
int mr_self_source(const char *name, char out[MR_PATH_MAX], mr_error *err);

#endif

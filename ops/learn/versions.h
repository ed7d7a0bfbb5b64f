/* The versions of a model of intents: a folder with every one that was promoted, and who followed whom.
 *
 *     FOLDER/versions/0003.model
 *     FOLDER/versions.json        [{"version": 3, "replaced": 2, "at_ms": …}, …]
 *
 * The file in service is a copy of one of them, and which one is told by its bytes; a file that somebody put there by other
 * means becomes a version of its own before it is replaced. A new model goes into service by rename, as the last step.
 * Blocking; one process at a time (the caller holds a lock).
 */
#ifndef MR_LEARN_VERSIONS_H
#define MR_LEARN_VERSIONS_H

#include "base/error.h"

#include <limits.h>
#include <stdint.h>

#define MR_VERSIONS_MAX 1000

typedef struct mr_model_version {
    int number, replaced; /* replaced 0: it is the first one, or it was put there by other means */
    int64_t at_ms;
} mr_model_version;

typedef struct mr_versions {
    char folder[PATH_MAX], model[PATH_MAX]; /* model: the file in service */
    mr_model_version v[MR_VERSIONS_MAX];          /* ascending */
    int n;
} mr_versions;

int mr_versions_open(mr_versions *s, const char *folder, const char *model, mr_error *err);
/* The number of the one in service, which is added when it is none of them. -1 and err. */
int mr_versions_current(mr_versions *s, mr_error *err);
/* Moves `candidate` in as the newest version and puts it into service. Its number, or -1 and err. The
 * newest `keep` stay, and what a rollback would go back to. */
int mr_versions_promote(mr_versions *s, const char *candidate, int keep, mr_error *err);
/* Puts the one that the current one replaced back into service: its number; -1 and err when there is none. */
int mr_versions_rollback(mr_versions *s, mr_error *err);

#endif

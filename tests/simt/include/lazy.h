/* Streams of the shim that do nothing before somebody waits for them: work that is enqueued must find then what it was enqueued
 * with, as on a GPU that is busy. Off at first: work is done when it is enqueued. Of streams that are made, not of the default one.
 */
#ifndef SIMT_LAZY_H
#define SIMT_LAZY_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

void simt_be_lazy(bool lazy);

#ifdef __cplusplus
}
#endif

#endif

/* Puts the image of a model in its file: checksummed, beside the old file, and in its place by rename. Internal
 * to the intent files. */
#ifndef MR_INTENT_WRITE_H
#define MR_INTENT_WRITE_H

#include "base/error.h"

/* The header says how many bytes there are; its checksum is filled in. */
int mr_intent_write(const char *path, void *image, mr_error *err);

#endif

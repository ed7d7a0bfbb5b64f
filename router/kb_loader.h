/* Opens a knowledge base beside the loop: to read what a search needs at hand takes tenths of a second for a large one. All calls are
 * the loop's; the thread that opens the file touches nothing else. */
#ifndef MR_KB_LOADER_H
#define MR_KB_LOADER_H

#include "router/kb_file.h"

typedef struct mr_kb_loader mr_kb_loader;

mr_kb_loader *mr_kb_loader_new(const char *path, mr_error *err);
/* 1: *out is opened, and the caller's; 0: not yet; -1: it could not be. After anything but 0 only free is left. */
int mr_kb_loader_take(mr_kb_loader *l, mr_kb_file *out, mr_error *err);
/* Waits for the thread. NULL: nothing. */
void mr_kb_loader_free(mr_kb_loader *l);

#endif

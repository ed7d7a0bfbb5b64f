/* Preference pairs, for fine-tuning a language model elsewhere: the same conversation answered twice, one answer liked and
 * the other one not. JSON lines, {"prompt": [messages], "chosen": [message], "rejected": [message], "requests": [ids]}. */
#ifndef MR_LEARN_PAIRS_H
#define MR_LEARN_PAIRS_H

#include "ops/learn/gather.h"

/* Writes the file anew with what is new in `g`; how many pairs are new. -1 and err. With path NULL they are only counted. */
int mr_pairs_save(const mr_gathered *g, const char *path, mr_error *err);

#endif

/* The sender of a ChatRequest that cannot be decoded as one. */
#ifndef MR_SENDER_H
#define MR_SENDER_H

#include "schemas/messages.h"

#define MR_TABLE "schemas/sender.def"
#include "schemas/table_declare.h"

/* False when not even a usable id can be read. Strings are the arena's. */
bool mr_sender_read(mr_str record, mr_str content_type, mr_arena *a, mr_sender *out);

#endif

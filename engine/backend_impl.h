/* What stands behind backend.h: the head that every implementation's own state begins with, and what it must be able to do.
 */
#ifndef ENGINE_BACKEND_IMPL_H
#define ENGINE_BACKEND_IMPL_H

#include "engine/backend.h"

typedef struct backend_ops {
    /* The batch was checked: sizes, positions, blocks and tokens are in range. A failure means that the backend is broken. */
    int (*forward)(backend *b, const batch_seq *seqs, int nseqs, float **logits, engine_error *err);
    /* Both NULL where a pass is over when the call returns. A forward is the one after the other. */
    int (*begin)(backend *b, const batch_seq *seqs, int nseqs, engine_error *err);
    int (*finish)(backend *b, batch_result *result, engine_error *err);
    bool (*runs_ahead)(const backend *b); /* is every row of the pass begun last drawn here? NULL: never */
    void (*copy_block)(backend *b, int32_t from, int32_t to);
    void (*close)(backend *b);
    backend_memory (*memory)(const backend *b);
    const char *(*isa)(const backend *b);
} backend_ops;

struct backend {
    const backend_ops *ops;
    backend_options opt;
    int vocab;
    int under_way, rows; /* passes begun and not finished; rows of the one begun last */
};

#endif

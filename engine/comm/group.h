/* A tensor-parallel model behind backend.h: N ranks, each a backend of its own over its shard, on a thread of its own. The
 * scheduler does not know. See comm.h for who meets whom and when.
 */
#ifndef ENGINE_COMM_GROUP_H
#define ENGINE_COMM_GROUP_H

#include "engine/backend.h"
#include "engine/comm/comm.h"

/* What ranks are made of. */
typedef struct rank_kind {
    int (*connect)(int ranks, comm **ends, engine_error *err);
    /* As backend_open_cpu: with the rank's shard as the model and its end in opt->comm. Called on the rank's thread. */
    backend *(*open)(const model *shard, const backend_options *opt, engine_error *err);
} rank_kind;

/* The options are those of the whole: its threads are shared out, and each rank has kv_blocks of its own KV heads. A failure
 * of any rank fails the forward pass with its reason, and every one after it. */
backend *backend_open_group(const rank_kind *kind, const model *m, const backend_options *opt, int ranks,
                            engine_error *err);
/* The CPU's ranks, over comm_local. */
backend *backend_open_cpu_ranks(const model *m, const backend_options *opt, int ranks, engine_error *err);

#endif

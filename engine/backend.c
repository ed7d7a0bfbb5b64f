/* The common front of all backends: checks each batch, then hands it to the implementation. Called from the engine's thread.
 */
#include "engine/backend_impl.h"

/* Every index that the pass will use is checked here. */
static int check_seq(const backend *b, const batch_seq *s, engine_error *err) {
    const backend_options *o = &b->opt;
    const int64_t capacity = (int64_t)o->max_blocks_per_seq * o->block_tokens;
    if (s->ntokens < 1 || s->pos < 0 || s->nlogits < 0 || s->nlogits > s->ntokens) {
        return engine_fail(err, ENGINE_EINTERNAL, "a sequence of the batch is ill-formed");
    }
    if ((int64_t)s->pos + s->ntokens > capacity) {
        return engine_fail(err, ENGINE_EINTERNAL, "positions %d to %lld are beyond the %lld of a sequence",
                           s->pos, (long long)s->pos + s->ntokens - 1, (long long)capacity);
    }
    for (int i = 0; i <= (s->pos + s->ntokens - 1) / o->block_tokens; i++) {
        if (s->blocks[i] < 0 || s->blocks[i] >= o->kv_blocks) {
            return engine_fail(err, ENGINE_EINTERNAL, "KV block %d is out of range", s->blocks[i]);
        }
    }
    if (!s->tokens && (s->ntokens != 1 || s->drawn_row < 0 || s->drawn_row >= b->rows))
        return engine_fail(err, ENGINE_EINTERNAL, "no pass before this one draws its token");
    for (int i = 0; s->tokens && i < s->ntokens; i++) {
        if (s->tokens[i] < 0 || s->tokens[i] >= b->vocab) {
            return engine_fail(err, ENGINE_EINVAL, "token id %d is outside the model's vocabulary of %d",
                               s->tokens[i], b->vocab);
        }
    }
    return 0;
}

/* The rows of logits, or -1. */
static int check_batch(const backend *b, const batch_seq *seqs, int nseqs, engine_error *err) {
    int ntokens = 0, nlogits = 0;
    for (int i = 0; i < nseqs; i++) {
        if (check_seq(b, &seqs[i], err)) return -1;
        if (seqs[i].ntokens > b->opt.max_tokens - ntokens || seqs[i].nlogits > b->opt.max_logits - nlogits) {
            return engine_fail(err, ENGINE_EINTERNAL, "the batch is over %d tokens or %d logits",
                               b->opt.max_tokens, b->opt.max_logits);
        }
        ntokens += seqs[i].ntokens;
        nlogits += seqs[i].nlogits;
    }
    return nlogits;
}

int backend_forward(backend *b, const batch_seq *seqs, int nseqs, float **logits, engine_error *err) {
    if (check_batch(b, seqs, nseqs, err) < 0) return -1;
    return b->ops->forward(b, seqs, nseqs, logits, err);
}

bool backend_overlaps(const backend *b) {
    return b->ops->begin;
}

bool backend_runs_ahead(const backend *b) {
    return b->under_way == 1 && b->ops->runs_ahead && b->ops->runs_ahead(b);
}

int backend_begin(backend *b, const batch_seq *seqs, int nseqs, engine_error *err) {
    if (b->under_way && !backend_runs_ahead(b))
        return engine_fail(err, ENGINE_EINTERNAL, "a pass is under way that the next one cannot follow");
    const int rows = check_batch(b, seqs, nseqs, err);
    if (rows < 0 || b->ops->begin(b, seqs, nseqs, err)) return -1;
    b->rows = rows;
    b->under_way++;
    return 0;
}

int backend_finish(backend *b, batch_result *result, engine_error *err) {
    if (b->under_way) b->under_way--;
    return b->ops->finish(b, result, err);
}

void backend_copy_block(backend *b, int32_t from, int32_t to) {
    b->ops->copy_block(b, from, to);
}

void backend_close(backend *b) {
    if (b) b->ops->close(b);
}

backend_memory backend_memory_now(const backend *b) {
    return b->ops->memory(b);
}

const char *backend_isa(const backend *b) {
    return b->ops->isa(b);
}

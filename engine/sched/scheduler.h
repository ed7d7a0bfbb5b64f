/* Who computes what in the next step: continuous batching over a paged KV cache.
 *
 * There are no phases of prefill and decode. A sequence has `ntokens` known tokens, of which `computed` have their keys and
 * values in the cache; each step lets sequences catch up under a common token budget: first every running sequence that
 * lacks one token (it decodes), then prompts in chunks, then new arrivals. A sequence that has caught up gets logits, its
 * owner appends the token drawn from them, and it lacks one again.
 *
 * Order is first come, first served. A waiting sequence is admitted when there are blocks for all tokens that it knows; who
 * stands at the head of the queue is never overtaken. When a running one cannot get its next block, the sequence admitted
 * last loses its blocks, goes back to the head of the queue, and will compute its tokens again, but for what its old blocks
 * still know. Results do not change, since a token's logits depend on its sequence alone. The sequence admitted first always
 * goes on, so all of them finish.
 *
 * The scheduler knows nothing of text and sampling. Sequences are the owner's memory. All memory is taken by
 * scheduler_new. Not thread-safe: it belongs to its engine's thread.
 */
#ifndef ENGINE_SCHED_SCHEDULER_H
#define ENGINE_SCHED_SCHEDULER_H

#include "engine/backend.h"
#include "engine/sched/kv.h"

typedef enum { SEQ_IDLE, SEQ_WAITING, SEQ_RUNNING } seq_state;

/* One sequence. The owner gives it `tokens` and `table.block`, sets ntokens and table.salt before scheduler_add, and appends
 * while it runs; the rest is the scheduler's. Zeroed memory is an idle sequence. */
typedef struct seq {
    int32_t *tokens;
    int ntokens;
    int computed;
    kv_table table;
    seq_state state;
    int planned; /* tokens in the current step */
    int reused;  /* tokens that the cache knew when it was first admitted; -1 before */
    struct seq *prev, *next;
} seq;

typedef struct scheduler_limits {
    int max_seqs, max_waiting;
    int step_tokens;             /* >= max_seqs, so that every running sequence can decode in every step */
    int kv_blocks, block_tokens; /* the longest sequence fits into the cache alone: its owner sees to that */
} scheduler_limits;

typedef struct scheduler scheduler;

scheduler *scheduler_new(const scheduler_limits *limits, engine_error *err);
void scheduler_free(scheduler *s);

/* To the end of the queue. False when it is full. */
bool scheduler_add(scheduler *s, seq *q);
/* Out, whatever its state; its blocks are free at once. */
void scheduler_remove(scheduler *s, seq *q);

/* The work of one step: batch[i] is the share of seqs[i]; batch[i].nlogits is 1 where the sequence will have caught up. */
typedef struct step_plan {
    const batch_seq *batch;
    seq *const *seqs;
    int n;
    int tokens; /* in all */
} step_plan;

/* Valid until the next plan. n is 0 when there is nothing to do. */
step_plan scheduler_plan(scheduler *s);
/* The plan has been computed. */
void scheduler_commit(scheduler *s);

int scheduler_running(const scheduler *s);
int scheduler_waiting(const scheduler *s);
uint64_t scheduler_preemptions(const scheduler *s);
const kv_pool *scheduler_pool(const scheduler *s);

#endif

/* Who computes what in the next step: continuous batching over a paged KV cache.
 *
 * There are no phases of prefill and decode. A sequence has `ntokens` known tokens, of which `computed` have their keys and
 * values in the cache; each step lets sequences catch up under a common token budget: first every running sequence that
 * lacks one token (it decodes), then prompts in chunks, then new arrivals, and last what owners guess. A sequence that has
 * caught up gets logits, its owner appends the token drawn from them, and it lacks one again.
 *
 * Order is first come, first served; who stands at the head of the queue is never overtaken. A waiting sequence is admitted
 * when there are blocks for all tokens that it knows, and for what it and those that run can come to need (as far ahead as
 * limits.reserve_tokens says). It waits, too, while one that runs is computing the greater part of its prompt, and then has
 * that from the cache: requests that come together with one prompt compute it once. When a running one cannot get its next block all the same, the sequence admitted last loses
 * its blocks, goes back to the head of the queue, and will compute its tokens again, but for what its old blocks still know.
 * Results do not change, since a token's logits depend on its sequence alone. The sequence admitted first always goes on, so
 * all of them finish.
 *
 * Guesses: the tokens that the owner puts behind the known ones (`guessed` of them) are computed along, and logits come for
 * each. They only fill small steps up, to limits.guess_tokens, where a token more costs little since the weights are read
 * once for all. Those that turn out right are kept by scheduler_keep; the others' keys and values are simply written over.
 *
 * Forks: several sequences that go on differently from one prompt share its blocks. The first comes with width > 1, which
 * holds places for the others; once it has caught up, scheduler_fork makes them. A block that several hold is copied by
 * the first that writes into it.
 *
 * A plan may be made before the tokens of the one before it are known, since passes run in the order of their plans: what is planned
 * counts as computed, whoever reads it comes later, and a block that is given back goes to a later one. A sequence then goes on
 * with the token that is being drawn, `coming`, and ends no later for it: when the token is known and its owner removes it,
 * its place in the plan becomes NULL, and what is published of its blocks ends with the tokens that were known. One that loses
 * its blocks meanwhile is not admitted again before the token is known.
 *
 * The scheduler knows nothing of text and sampling. Sequences are the owner's memory. All memory is taken by
 * scheduler_new. Not thread-safe: it belongs to its engine's thread.
 */
#ifndef ENGINE_SCHED_SCHEDULER_H
#define ENGINE_SCHED_SCHEDULER_H

#include "engine/backend.h"
#include "engine/sched/kv.h"

typedef enum { SEQ_IDLE, SEQ_WAITING, SEQ_RUNNING } seq_state;

/* One sequence. The owner gives it `tokens` and `table.block`, sets ntokens, limit, width and table.salt before
 * scheduler_add, and appends and guesses while it runs; the rest is the scheduler's. Zeroed memory is an idle sequence. */
typedef struct seq {
    int32_t *tokens; /* the known ones, then `guessed` more */
    int ntokens, guessed;
    int limit;              /* most tokens that it can come to know */
    int width;              /* sequences that it stands for: 1, and the forks to come */
    const batch_draw *draw; /* the owner's, handed on */
    int computed;           /* or planned to be: known tokens, and one that is coming */
    int coming; /* plans under way of which it gets logits: each will make a token known, at least */
    int row;    /* of logits, in the last of them */
    kv_table table;
    seq_state state;
    int planned; /* tokens in the plan that is made, guesses included */
    int reused;  /* tokens that the cache knew when it was first admitted; -1 before */
    struct seq *prev, *next;
} seq;

typedef struct scheduler_limits {
    int max_seqs, max_waiting;
    int step_tokens;    /* >= max_seqs, so that every running sequence can decode in every step */
    int reserve_tokens; /* admission counts so much growth of each sequence; preemption covers the rest */
    int guess_tokens;   /* guesses fill a step up to so many tokens; 0: none */
    int kv_blocks, block_tokens; /* the longest sequence fits into the cache alone: its owner sees to that */
} scheduler_limits;

typedef struct scheduler scheduler;

scheduler *scheduler_new(const scheduler_limits *limits, engine_error *err);
void scheduler_free(scheduler *s);

/* To the end of the queue. False when it is full. */
bool scheduler_add(scheduler *s, seq *q);
/* Out, whatever its state; its blocks are free at once. In plans that are not yet committed its place becomes NULL. */
void scheduler_remove(scheduler *s, seq *q);
/* `child`, idle, runs from now on as a second q with q's known tokens, in one of the places that q holds (width > 1). Only
 * while q runs and has caught up. */
void scheduler_fork(scheduler *s, seq *q, seq *child);

/* One block's content is to be copied to another before the step. */
typedef struct block_copy {
    int32_t from, to;
} block_copy;

/* The work of one step: batch[i] is the share of seqs[i]; batch[i].nlogits is 1 where the sequence will have caught up, and
 * one more for each of its guesses that are computed. A token that is coming is drawn_row's of the plan before. */
typedef struct step_plan {
    const block_copy *copies;
    int ncopies;
    const batch_seq *batch;
    seq *const *seqs;
    int n;
    int tokens; /* in all */
} step_plan;

/* At most max_guesses guesses are computed in all, and none in a plan that is made before the last is committed: not more than two
 * are under way. Valid until it is committed and the next but one is made. n is 0 when there is nothing to do: then it is not
 * to be committed. */
step_plan scheduler_plan(scheduler *s, int max_guesses);
/* The plan made first has been computed, and its tokens are known: their owners append them now. */
void scheduler_commit(scheduler *s);
/* The first n guesses of the plan committed last have become known tokens (by the owner, who has raised ntokens). */
void scheduler_keep(scheduler *s, seq *q, int n);

typedef struct scheduler_stats {
    int running, waiting;
    uint64_t preemptions;
    uint64_t wanted_tokens,
        reused_tokens; /* known tokens of sequences at their first admission; those in the cache */
} scheduler_stats;

scheduler_stats scheduler_stats_now(const scheduler *s);
const kv_pool *scheduler_pool(const scheduler *s);

#endif

/* See scheduler.h. Runs on the engine's thread; owns the pool and the plan, borrows the sequences. */
#include "engine/sched/scheduler.h"

#include <stdlib.h>

/* Sequences in order of arrival; a sequence is in at most one list. */
typedef struct seq_list {
    seq *first, *last;
    int n;
} seq_list;

struct scheduler {
    scheduler_limits limits;
    kv_pool *pool;
    seq_list running, waiting;
    batch_seq *batch; /* [max_seqs] */
    seq **planned;    /* [max_seqs] */
    int nplanned;
    uint64_t preemptions;
};

static void list_insert_after(seq_list *l, seq *at, seq *q) {
    q->prev = at;
    q->next = at ? at->next : l->first;
    *(q->prev ? &q->prev->next : &l->first) = q;
    *(q->next ? &q->next->prev : &l->last) = q;
    l->n++;
}

static void list_remove(seq_list *l, seq *q) {
    *(q->prev ? &q->prev->next : &l->first) = q->next;
    *(q->next ? &q->next->prev : &l->last) = q->prev;
    q->prev = q->next = NULL;
    l->n--;
}

scheduler *scheduler_new(const scheduler_limits *limits, engine_error *err) {
    scheduler *s = calloc(1, sizeof *s);
    if (!s) {
        engine_fail(err, ENGINE_ENOMEM, "no memory for a scheduler");
        return NULL;
    }
    s->limits = *limits;
    s->batch = calloc((size_t)limits->max_seqs, sizeof *s->batch);
    s->planned = calloc((size_t)limits->max_seqs, sizeof(seq *));
    s->pool = kv_pool_new(limits->kv_blocks, limits->block_tokens, err);
    if (!s->batch || !s->planned || !s->pool) {
        if (s->pool)
            engine_fail(err, ENGINE_ENOMEM, "no memory for a batch of %d sequences", limits->max_seqs);
        scheduler_free(s);
        return NULL;
    }
    return s;
}

void scheduler_free(scheduler *s) {
    if (!s) return;
    kv_pool_free(s->pool);
    free(s->batch);
    free(s->planned);
    free(s);
}

bool scheduler_add(scheduler *s, seq *q) {
    if (s->waiting.n >= s->limits.max_waiting) return false;
    q->state = SEQ_WAITING;
    q->computed = q->planned = 0;
    q->reused = -1;
    list_insert_after(&s->waiting, s->waiting.last, q);
    return true;
}

void scheduler_remove(scheduler *s, seq *q) {
    if (q->state == SEQ_IDLE) return;
    list_remove(q->state == SEQ_RUNNING ? &s->running : &s->waiting, q);
    kv_table_release(s->pool, &q->table);
    q->state = SEQ_IDLE;
    q->planned = 0;
}

static void preempt(scheduler *s, seq *victim) {
    list_remove(&s->running, victim);
    kv_table_release(s->pool, &victim->table);
    victim->computed = 0;
    victim->state = SEQ_WAITING;
    list_insert_after(&s->waiting, NULL, victim);
    s->preemptions++;
}

static bool lacks_one(const seq *q) {
    return q->ntokens - q->computed == 1;
}

/* Blocks for all known tokens, at the cost of those admitted later. False when q itself is the last one: it keeps its
 * place and waits for blocks, its own are there for the taking by the others. */
static bool make_room(scheduler *s, seq *q) {
    while (!kv_table_grow(s->pool, &q->table, q->ntokens)) {
        if (s->running.last == q) return false;
        preempt(s, s->running.last);
    }
    return true;
}

/* Takes blocks for all that it knows: first what the cache has of it (but for one token, from which the logits come), then
 * new ones. One is left for each sequence that runs, else the newcomer would soon be preempted again. */
static bool take_blocks(scheduler *s, seq *q) {
    int reused = kv_table_reuse(s->pool, &q->table, q->tokens, q->ntokens - 1);
    int spare = kv_pool_free_blocks(s->pool) - kv_table_lacks(s->pool, &q->table, q->ntokens);
    if (spare < s->running.n) {
        kv_table_release(s->pool, &q->table);
        return false;
    }
    kv_table_grow(s->pool, &q->table, q->ntokens);
    q->computed = reused;
    if (q->reused < 0) q->reused = reused;
    return true;
}

static void admit(scheduler *s, int budget) {
    while (budget > 0 && s->waiting.first && s->running.n < s->limits.max_seqs) {
        seq *q = s->waiting.first;
        if (!take_blocks(s, q)) return;
        list_remove(&s->waiting, q);
        list_insert_after(&s->running, s->running.last, q);
        q->state = SEQ_RUNNING;
        int lacking = q->ntokens - q->computed;
        q->planned = lacking < budget ? lacking : budget;
        budget -= q->planned;
    }
}

static int plan_decodes(scheduler *s, int budget) {
    for (seq *q = s->running.first; q; q = q->next) {
        q->planned = budget > 0 && lacks_one(q) && make_room(s, q);
        budget -= q->planned;
    }
    return budget;
}

/* Their blocks were taken at admission. */
static int plan_prompts(scheduler *s, int budget) {
    for (seq *q = s->running.first; q && budget > 0; q = q->next) {
        if (lacks_one(q)) continue;
        int lacking = q->ntokens - q->computed;
        q->planned = lacking < budget ? lacking : budget;
        budget -= q->planned;
    }
    return budget;
}

static int write_plan(scheduler *s) {
    int tokens = 0;
    s->nplanned = 0;
    for (seq *q = s->running.first; q; q = q->next) {
        if (!q->planned) continue;
        s->planned[s->nplanned] = q;
        s->batch[s->nplanned++] = (batch_seq){
            .tokens = q->tokens + q->computed,
            .ntokens = q->planned,
            .pos = q->computed,
            .blocks = q->table.block,
            .nlogits = q->computed + q->planned == q->ntokens,
        };
        tokens += q->planned;
    }
    return tokens;
}

step_plan scheduler_plan(scheduler *s) {
    int budget = plan_decodes(s, s->limits.step_tokens);
    budget = plan_prompts(s, budget);
    admit(s, budget);
    int tokens = write_plan(s);
    return (step_plan){s->batch, s->planned, s->nplanned, tokens};
}

void scheduler_commit(scheduler *s) {
    for (int i = 0; i < s->nplanned; i++) {
        seq *q = s->planned[i];
        q->computed += q->planned;
        q->planned = 0;
        kv_table_publish(s->pool, &q->table, q->tokens, q->computed);
    }
    s->nplanned = 0;
}

int scheduler_running(const scheduler *s) {
    return s->running.n;
}
int scheduler_waiting(const scheduler *s) {
    return s->waiting.n;
}
uint64_t scheduler_preemptions(const scheduler *s) {
    return s->preemptions;
}
const kv_pool *scheduler_pool(const scheduler *s) {
    return s->pool;
}

/* See scheduler.h. Runs on the engine's thread; owns the pool and the plan, borrows the sequences. */
#include "engine/sched/scheduler.h"

#include <stdlib.h>
#include <string.h>

/* Sequences in order of arrival; a sequence is in at most one list. */
typedef struct seq_list {
    seq *first, *last;
    int n;
} seq_list;

/* A plan's own memory: two take turns. */
typedef struct plan {
    batch_seq *batch;   /* [max_seqs] */
    seq **seqs;         /* [max_seqs] */
    block_copy *copies; /* [max_seqs] */
    int n, ncopies;
} plan;

struct scheduler {
    scheduler_limits limits;
    kv_pool *pool;
    seq_list running, waiting;
    plan plans[2], *now,
        *before; /* the last one, or the one that is made; the one before it. n is 0 once committed */
    uint64_t preemptions, wanted_tokens, reused_tokens;
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

static bool make_plan(plan *p, int seqs) {
    p->batch = calloc((size_t)seqs, sizeof *p->batch);
    p->seqs = calloc((size_t)seqs, sizeof(seq *));
    p->copies = calloc((size_t)seqs, sizeof *p->copies);
    return p->batch && p->seqs && p->copies;
}

scheduler *scheduler_new(const scheduler_limits *limits, engine_error *err) {
    scheduler *s = calloc(1, sizeof *s);
    if (!s) {
        engine_fail(err, ENGINE_ENOMEM, "no memory for a scheduler");
        return NULL;
    }
    s->limits = *limits;
    s->now = &s->plans[0];
    s->before = &s->plans[1];
    s->pool = kv_pool_new(limits->kv_blocks, limits->block_tokens, err);
    if (!make_plan(s->now, limits->max_seqs) || !make_plan(s->before, limits->max_seqs) || !s->pool) {
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
    for (int i = 0; i < 2; i++) {
        free(s->plans[i].batch);
        free(s->plans[i].seqs);
        free(s->plans[i].copies);
    }
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

/* Known tokens whose keys and values are, or come, where the table says. */
static void publish(scheduler *s, seq *q) {
    const int known = q->computed < q->ntokens ? q->computed : q->ntokens;
    kv_table_publish(s->pool, &q->table, q->tokens, known);
}

static void give_back(scheduler *s, seq *q) {
    publish(s, q);
    kv_table_release(s->pool, &q->table);
}

void scheduler_remove(scheduler *s, seq *q) {
    if (q->state == SEQ_IDLE) return;
    list_remove(q->state == SEQ_RUNNING ? &s->running : &s->waiting, q);
    give_back(s, q);
    q->state = SEQ_IDLE;
    q->planned = q->coming = 0;
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < s->plans[k].n; i++) {
            if (s->plans[k].seqs[i] == q) s->plans[k].seqs[i] = NULL;
        }
    }
}

void scheduler_fork(scheduler *s, seq *q, seq *child) {
    int blocks = (q->computed + s->limits.block_tokens - 1) / s->limits.block_tokens;
    q->width--;
    memcpy(child->tokens, q->tokens, (size_t)q->ntokens * sizeof *q->tokens);
    child->ntokens = q->ntokens;
    child->computed = q->computed;
    child->reused = q->reused;
    child->guessed = child->planned = child->coming = 0;
    child->width = 1;
    child->table.salt = q->table.salt;
    kv_table_share(s->pool, &q->table, &child->table, blocks);
    child->state = SEQ_RUNNING;
    list_insert_after(&s->running, q, child);
}

static void preempt(scheduler *s, seq *victim) {
    list_remove(&s->running, victim);
    give_back(s, victim);
    victim->computed = 0;
    victim->state = SEQ_WAITING;
    list_insert_after(&s->waiting, NULL, victim);
    s->preemptions++;
}

/* Tokens that it knows, or is about to. */
static int expected(const seq *q) {
    return q->ntokens + q->coming;
}

static bool lacks_one(const seq *q) {
    return expected(q) - q->computed == 1;
}

/* Blocks to compute what it knows and `more`, the next of which it alone holds. All or nothing. */
static bool take_room(scheduler *s, seq *q, int more) {
    int next = q->computed / s->limits.block_tokens;
    bool split = kv_table_is_shared(s->pool, &q->table, next);
    int lacks = kv_table_lacks(s->pool, &q->table, expected(q) + more);
    if (lacks + split > kv_pool_free_blocks(s->pool)) return false;
    if (split) {
        int32_t from = kv_table_split(s->pool, &q->table, next);
        s->now->copies[s->now->ncopies++] = (block_copy){from, q->table.block[next]};
    }
    return kv_table_grow(s->pool, &q->table, expected(q) + more);
}

/* Room for all expected tokens, at the cost of those admitted later. False when q itself is the last one: it keeps its
 * place and waits for blocks, its own are there for the taking by the others. */
static bool make_room(scheduler *s, seq *q) {
    while (!take_room(s, q, 0)) {
        if (s->running.last == q) return false;
        preempt(s, s->running.last);
    }
    return true;
}

/* ---- admission ---- */

/* Blocks that it lacks for what it knows, and that it and its forks can come to need beyond that, as far as admission
 * looks ahead. */
static int64_t needs(const scheduler *s, const seq *q) {
    int64_t ahead = (int64_t)expected(q) + s->limits.reserve_tokens;
    int now = kv_table_lacks(s->pool, &q->table, expected(q));
    int later = kv_table_lacks(s->pool, &q->table, ahead < q->limit ? (int)ahead : q->limit);
    int64_t growth = later > now ? later - now : 0;
    return now + q->width * growth + q->width - 1;
}

/* Places that are left when all that run are as many as they will be. */
static int free_places(const scheduler *s) {
    int left = s->limits.max_seqs;
    for (const seq *q = s->running.first; q; q = q->next) left -= q->width;
    return left;
}

/* When nothing else runs, blocks for what it knows are enough: a group of forks too large for the cache would otherwise
 * wait for ever. */
static bool has_room(const scheduler *s, const seq *newcomer) {
    int64_t need = kv_table_lacks(s->pool, &newcomer->table, newcomer->ntokens);
    if (s->running.n) need = needs(s, newcomer);
    for (const seq *q = s->running.first; q; q = q->next) need += needs(s, q);
    return need <= kv_pool_free_blocks(s->pool);
}

static int common_tokens(const seq *a, const seq *b, int max) {
    int n = 0;
    if (max > a->ntokens) max = a->ntokens;
    while (n < max && a->tokens[n] == b->tokens[n]) n++;
    return n;
}

/* Is more than half of what the cache does not know of the newcomer being computed for another just now? */
static bool is_under_way(const scheduler *s, const seq *newcomer, int reused) {
    int lacking = newcomer->ntokens - reused;
    for (const seq *q = s->running.first; q; q = q->next) {
        if (lacks_one(q) || q->table.salt != newcomer->table.salt) continue;
        int common = common_tokens(q, newcomer, newcomer->ntokens - 1);
        if (common - common % s->limits.block_tokens - reused > lacking / 2) return true;
    }
    return false;
}

/* Takes blocks for all that it knows: first what the cache has of it (but for one token, from which the logits come), then
 * new ones. */
static bool take_blocks(scheduler *s, seq *q) {
    int reused = kv_table_reuse(s->pool, &q->table, q->tokens, q->ntokens - 1);
    if (!has_room(s, q) || is_under_way(s, q, reused)) {
        kv_table_release(s->pool, &q->table);
        return false;
    }
    kv_table_grow(s->pool, &q->table, q->ntokens);
    q->computed = reused;
    if (q->reused < 0) {
        q->reused = reused;
        s->reused_tokens += (uint64_t)reused;
        s->wanted_tokens += (uint64_t)q->ntokens;
    }
    return true;
}

static int admit(scheduler *s, int budget) {
    while (budget > 0 && s->waiting.first && s->waiting.first->width <= free_places(s)) {
        seq *q = s->waiting.first;
        if (q->coming || !take_blocks(s, q)) break;
        list_remove(&s->waiting, q);
        list_insert_after(&s->running, s->running.last, q);
        q->state = SEQ_RUNNING;
        int lacking = q->ntokens - q->computed;
        q->planned = lacking < budget ? lacking : budget;
        budget -= q->planned;
    }
    return budget;
}

/* ---- the plan ---- */

/* The token that is coming may be its last. */
static bool goes_on(const seq *q) {
    return !q->coming || expected(q) < q->limit;
}

static int plan_decodes(scheduler *s, int budget) {
    for (seq *q = s->running.first; q; q = q->next) {
        q->planned = budget > 0 && lacks_one(q) && goes_on(q) && make_room(s, q);
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

static bool catches_up(const seq *q) {
    return q->planned && q->computed + q->planned == expected(q);
}

/* The step is filled up with guesses, in equal parts. They take free blocks only. */
static void plan_guesses(scheduler *s, int budget) {
    int guessing = 0;
    for (seq *q = s->running.first; q; q = q->next) guessing += catches_up(q) && q->guessed;
    for (seq *q = s->running.first; q && budget > 0; q = q->next) {
        if (!catches_up(q) || !q->guessed) continue;
        int part = (budget + guessing - 1) / guessing;
        int n = q->guessed < part ? q->guessed : part;
        guessing--;
        if (!take_room(s, q, n)) continue;
        q->planned += n;
        budget -= n;
    }
}

/* q's share, from row `row` of logits on; it counts as computed from now on. */
static batch_seq take_share(scheduler *s, seq *q, int row) {
    const int beyond = q->computed + q->planned - expected(q);
    const batch_seq share = {
        .tokens = q->coming ? NULL : q->tokens + q->computed,
        .ntokens = q->planned,
        .drawn_row = q->row,
        .pos = q->computed,
        .blocks = q->table.block,
        .nlogits = beyond >= 0 ? beyond + 1 : 0,
        .draw = q->draw,
    };
    q->computed = beyond > 0 ? expected(q) : q->computed + q->planned;
    q->coming += share.nlogits > 0;
    q->row = row;
    publish(s, q);
    return share;
}

static step_plan write_plan(scheduler *s) {
    plan *p = s->now;
    int tokens = 0, rows = 0;
    for (seq *q = s->running.first; q; q = q->next) {
        if (!q->planned) continue;
        p->seqs[p->n] = q;
        p->batch[p->n] = take_share(s, q, rows);
        rows += p->batch[p->n++].nlogits;
        tokens += q->planned;
    }
    return (step_plan){p->copies, p->ncopies, p->batch, p->seqs, p->n, tokens};
}

step_plan scheduler_plan(scheduler *s, int max_guesses) {
    plan *const last = s->now;
    s->now = s->before;
    s->before = last;
    s->now->n = s->now->ncopies = 0;
    int budget = plan_decodes(s, s->limits.step_tokens);
    budget = plan_prompts(s, budget);
    budget = admit(s, budget);
    int fill = s->limits.guess_tokens - (s->limits.step_tokens - budget);
    plan_guesses(s, fill < max_guesses ? fill : max_guesses);
    return write_plan(s);
}

void scheduler_commit(scheduler *s) {
    plan *p = s->before->n ? s->before : s->now;
    for (int i = 0; i < p->n; i++) {
        if (p->seqs[i] && p->batch[i].nlogits) p->seqs[i]->coming--;
    }
    p->n = 0;
}

void scheduler_keep(scheduler *s, seq *q, int n) {
    q->computed += n;
    kv_table_publish(s->pool, &q->table, q->tokens, q->computed);
}

scheduler_stats scheduler_stats_now(const scheduler *s) {
    return (scheduler_stats){
        .running = s->running.n,
        .waiting = s->waiting.n,
        .preemptions = s->preemptions,
        .wanted_tokens = s->wanted_tokens,
        .reused_tokens = s->reused_tokens,
    };
}
const kv_pool *scheduler_pool(const scheduler *s) {
    return s->pool;
}

/* The scheduler and the block pool, without any model: who computes what, and who holds which block. */
#include "fake.h"

#include "engine/sched/scheduler.h"
#include "tests/unit/engine_sched/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 128, BLOCK = 16 };

typedef struct bench {
    scheduler *s;
    seq seqs[64];
    int32_t tokens[64][CONTEXT];
    int32_t tables[64][CONTEXT / BLOCK];
} bench;

static bench *bench_reserving(int reserve, int max_seqs, int max_waiting, int step_tokens, int blocks) {
    bench *b = calloc(1, sizeof *b);
    engine_error err;
    assert_non_null(b);
    b->s = scheduler_new(&(scheduler_limits){.max_seqs = max_seqs,
                                             .max_waiting = max_waiting,
                                             .step_tokens = step_tokens,
                                             .reserve_tokens = reserve,
                                             .guess_tokens = 11,
                                             .kv_blocks = blocks,
                                             .block_tokens = BLOCK},
                         &err);
    assert_non_null(b->s);
    for (int i = 0; i < 64; i++) {
        b->seqs[i].tokens = b->tokens[i];
        b->seqs[i].table.block = b->tables[i];
        b->seqs[i].limit = CONTEXT;
        b->seqs[i].width = 1;
        b->seqs[i].table.salt = (uint64_t)i; /* nothing is shared unless a test says so */
    }
    return b;
}

static bench *bench_new(int max_seqs, int max_waiting, int step_tokens, int blocks) {
    return bench_reserving(BLOCK, max_seqs, max_waiting, step_tokens, blocks);
}

static void bench_free(bench *b) {
    scheduler_free(b->s);
    free(b);
}

static seq *add(bench *b, int i, int ntokens) {
    b->seqs[i].ntokens = ntokens;
    assert_true(scheduler_add(b->s, &b->seqs[i]));
    return &b->seqs[i];
}

/* One step; every sequence that got logits grows by a token. */
static step_plan step(bench *b) {
    step_plan p = scheduler_plan(b->s, 0);
    scheduler_commit(b->s);
    for (int i = 0; i < p.n; i++) {
        p.seqs[i]->ntokens += p.batch[i].nlogits;
        p.seqs[i]->guessed = 0;
    }
    return p;
}

/* One step in which some of the guesses come true. */
static step_plan guessing_step(bench *b, uint64_t *r) {
    step_plan p = scheduler_plan(b->s, 8);
    scheduler_commit(b->s);
    for (int i = 0; i < p.n; i++) {
        seq *q = p.seqs[i];
        if (!p.batch[i].nlogits) continue;
        int right = (int)rnd(r, (uint32_t)p.batch[i].nlogits);
        q->ntokens += 1 + right;
        scheduler_keep(b->s, q, right);
        int room = CONTEXT - q->ntokens - 1;
        q->guessed = room > 0 ? (int)rnd(r, 4) % (room + 1) : 0;
    }
    return p;
}

/* Two steps, the second of them planned before the tokens of the first are known. Some are removed then. */
static void ahead_step(bench *b, uint64_t *r) {
    for (int i = 0; i < 64; i++) b->seqs[i].guessed = 0;
    const step_plan first = scheduler_plan(b->s, 0), second = scheduler_plan(b->s, 0);
    for (int i = 0; i < second.n; i++) {
        if (second.batch[i].tokens) continue;
        assert_true(second.batch[i].drawn_row < first.n && second.batch[i].ntokens == 1);
        assert_int_equal(second.batch[i].pos, second.seqs[i]->ntokens);
    }
    for (const step_plan *p = &first; p; p = p == &first && second.n ? &second : NULL) {
        if (rnd(r, 2)) scheduler_remove(b->s, &b->seqs[rnd(r, 64)]);
        if (!p->n) break;
        scheduler_commit(b->s);
        for (int i = 0; i < p->n; i++) {
            if (!p->seqs[i] || !p->batch[i].nlogits) continue;
            p->seqs[i]->ntokens++;
            if (!rnd(r, 20)) scheduler_remove(b->s, p->seqs[i]);
        }
    }
}

static int share(const step_plan *p, const seq *q) {
    for (int i = 0; i < p->n; i++) {
        if (p->seqs[i] == q) return p->batch[i].ntokens;
    }
    return 0;
}

static void test_a_table_grows_whole_or_not_at_all(void **state) {
    (void)state;
    engine_error err;
    kv_pool *p = kv_pool_new(4, BLOCK, &err);
    int32_t mem[2][8];
    kv_table a = {.block = mem[0]}, b = {.block = mem[1]};
    assert_true(kv_table_grow(p, &a, 33));
    assert_int_equal(a.n, 3);
    assert_true(kv_table_grow(p, &a, 48));
    assert_int_equal(a.n, 3);
    assert_false(kv_table_grow(p, &b, 17));
    assert_int_equal(b.n, 0);
    assert_int_equal(kv_pool_free_blocks(p), 1);
    kv_table_release(p, &a);
    assert_int_equal(kv_pool_free_blocks(p), 4);
    kv_pool_free(p);
}

/* ---- the prefix cache ---- */

/* Text of its own for each `kind`. */
static void fill(int32_t *tokens, int n, int kind) {
    for (int i = 0; i < n; i++) tokens[i] = kind * 1000 + i;
}

static void compute(kv_pool *p, kv_table *t, const int32_t *tokens, int n) {
    assert_true(kv_table_grow(p, t, n));
    kv_table_publish(p, t, tokens, n);
}

static void test_a_known_prefix_is_shared_in_whole_blocks(void **state) {
    (void)state;
    engine_error err;
    kv_pool *p = kv_pool_new(16, BLOCK, &err);
    int32_t mem[3][8], text[80];
    kv_table a = {.block = mem[0]}, b = {.block = mem[1]}, other = {.block = mem[2], .salt = 1};
    fill(text, 80, 1);
    compute(p, &a, text, 70);
    assert_int_equal(kv_table_reuse(p, &b, text, 63),
                     48); /* 4 are full, the fourth is not asked for in whole */
    assert_memory_equal(mem[0], mem[1], 3 * sizeof(int32_t));
    assert_int_equal(kv_pool_holders(p, mem[0][0]), 2);
    assert_int_equal(kv_pool_free_blocks(p), 11);
    assert_int_equal(kv_table_reuse(p, &other, text, 70), 0);
    kv_table_release(p, &a);
    assert_int_equal(kv_pool_holders(p, mem[1][0]), 1);
    kv_table_release(p, &b);
    assert_int_equal(kv_pool_free_blocks(p), 16);
    assert_int_equal(kv_table_reuse(p, &a, text, 80), 64); /* nobody held it, but it is still known */
    text[20] = 7;
    assert_int_equal(kv_table_reuse(p, &b, text, 80), 16);
    kv_table_release(p, &a);
    kv_table_release(p, &b);
    kv_pool_free(p);
}

static void test_what_was_unused_longest_is_forgotten_first_and_ends_before_beginnings(void **state) {
    (void)state;
    engine_error err;
    kv_pool *p = kv_pool_new(8, BLOCK, &err);
    int32_t mem[3][8], old[64], young[64], new[64];
    kv_table t = {.block = mem[0]}, u = {.block = mem[1]};
    fill(old, 64, 1);
    fill(young, 64, 2);
    fill(new, 64, 3);
    compute(p, &t, old, 48);
    kv_table_release(p, &t);
    compute(p, &t, young, 48);
    kv_table_release(p, &t);
    compute(p, &t, new, 64); /* 2 blocks knew nothing; 2 more are the end of `old` */
    assert_int_equal(kv_table_reuse(p, &u, young, 64), 48);
    kv_table_release(p, &u);
    assert_int_equal(kv_table_reuse(p, &u, old, 64), 16);
    kv_table_release(p, &u);
    kv_table_release(p, &t);
    kv_pool_free(p);
}

static void test_equal_text_computed_twice_goes_on_as_one_chain(void **state) {
    (void)state;
    engine_error err;
    kv_pool *p = kv_pool_new(16, BLOCK, &err);
    int32_t mem[3][8], text[64];
    kv_table a = {.block = mem[0]}, b = {.block = mem[1]}, c = {.block = mem[2]};
    fill(text, 64, 1);
    compute(p, &a, text, 32);
    compute(p, &b, text, 64); /* its first two are known already, as a's */
    kv_table_release(p, &a);
    assert_int_equal(kv_table_reuse(p, &c, text, 64), 64);
    assert_int_equal(mem[2][0], mem[0][0]);
    assert_int_equal(mem[2][2], mem[1][2]);
    kv_table_release(p, &b);
    kv_table_release(p, &c);
    assert_int_equal(kv_pool_free_blocks(p), 16);
    kv_pool_free(p);
}

static void test_a_second_turn_computes_only_what_is_new(void **state) {
    (void)state;
    bench *b = bench_new(4, 8, 64, 16);
    fill(b->tokens[0], CONTEXT, 1);
    fill(b->tokens[1], CONTEXT, 1);
    b->seqs[1].table.salt = b->seqs[0].table.salt;
    seq *turn = add(b, 0, 50);
    step(b);
    scheduler_remove(b->s, turn);
    seq *next = add(b, 1, 60);
    step_plan p = scheduler_plan(b->s, 0);
    assert_int_equal(p.batch[0].pos, 48);
    assert_int_equal(share(&p, next), 12);
    assert_int_equal(next->reused, 48);
    scheduler_commit(b->s);
    scheduler_remove(b->s, next);
    add(b, 0, 48); /* known in whole: its last token is computed for the logits, with its block */
    p = scheduler_plan(b->s, 0);
    assert_int_equal(p.batch[0].pos, 32);
    bench_free(b);
}

static void test_a_prompt_that_comes_twice_at_once_is_computed_once(void **state) {
    (void)state;
    bench *b = bench_new(4, 8, 64, 32);
    for (int i = 0; i < 4; i++) {
        fill(b->tokens[i], CONTEXT, i == 3 ? 2 : 1);
        b->seqs[i].table.salt = i == 2 ? 7 : 0;
    }
    b->tokens[1][98] = 5; /* it differs near its end */
    seq *first = add(b, 0, 100), *same = add(b, 1, 100);
    step_plan p = step(b);
    assert_int_equal(share(&p, first), 64);
    p = step(b);
    assert_int_equal(share(&p, first), 36);
    assert_int_equal(same->state, SEQ_WAITING);
    p = step(b);
    assert_int_equal(share(&p, same), 4);
    scheduler_remove(b->s, first);
    scheduler_remove(b->s, same);
    fill(b->tokens[0], CONTEXT, 3);
    fill(b->tokens[2], CONTEXT, 3);
    add(b, 0, 20);
    seq *salted = add(b, 2, 20), *other = add(b, 3, 20); /* these wait for nobody */
    p = step(b);
    assert_int_equal(share(&p, salted), 20);
    assert_int_equal(share(&p, other), 20);
    bench_free(b);
}

static void test_decodes_go_before_prompts_and_the_budget_holds(void **state) {
    (void)state;
    bench *b = bench_new(4, 8, 20, 32);
    seq *decoding = add(b, 0, 10);
    step(b);
    seq *prompt = add(b, 1, 50), *next = add(b, 2, 5);
    step_plan p = step(b);
    assert_int_equal(share(&p, decoding), 1);
    assert_int_equal(share(&p, prompt), 19);
    assert_int_equal(share(&p, next), 0);
    assert_int_equal(p.tokens, 20);
    step(b);
    p = step(b); /* 12 of the prompt are left: room for the next one */
    assert_int_equal(share(&p, prompt), 12);
    assert_int_equal(share(&p, next), 5);
    assert_int_equal(share(&p, decoding), 1);
    bench_free(b);
}

static void test_logits_come_with_the_last_known_token_only(void **state) {
    (void)state;
    bench *b = bench_new(1, 1, 16, 8);
    seq *q = add(b, 0, 40);
    for (int i = 0; i < 3; i++) {
        step_plan p = scheduler_plan(b->s, 0);
        assert_int_equal(p.batch[0].pos, 16 * i);
        assert_int_equal(p.batch[0].nlogits, i == 2);
        scheduler_commit(b->s);
    }
    assert_int_equal(q->computed, 40);
    bench_free(b);
}

static void test_nobody_overtakes_the_head_of_the_queue(void **state) {
    (void)state;
    bench *b = bench_new(4, 8, 64, 8);
    add(b, 0, 60); /* 4 of 8 blocks */
    step(b);
    seq *large = add(b, 1, 100), *small = add(b, 2, 3);
    for (int i = 0; i < 3; i++) step(b);
    assert_int_equal(large->state, SEQ_WAITING);
    assert_int_equal(small->state, SEQ_WAITING);
    scheduler_remove(b->s, &b->seqs[0]);
    step(b);
    assert_int_equal(large->state, SEQ_RUNNING);
    bench_free(b);
}

static void test_who_came_last_gives_way_and_is_next_in_line(void **state) {
    (void)state;
    bench *b = bench_new(4, 8, 64, 6);
    seq *first = add(b, 0, 30), *last = add(b, 1, 30), *waiting = add(b, 2, 30);
    while (first->ntokens < CONTEXT - 40 && scheduler_stats_now(b->s).preemptions == 0) step(b);
    assert_int_equal(scheduler_stats_now(b->s).preemptions, 1);
    assert_int_equal(first->state, SEQ_RUNNING);
    assert_int_equal(last->state, SEQ_WAITING);
    assert_int_equal(last->computed, 0);
    assert_int_equal(last->table.n, 0);
    int known = last->ntokens;
    scheduler_remove(b->s, first);
    step_plan p = step(b);
    assert_int_equal(last->computed, known); /* at once: some of its blocks still knew their text */
    assert_true(share(&p, last) < known);
    assert_int_equal(share(&p, waiting) > 0, last->state == SEQ_RUNNING && waiting->state == SEQ_RUNNING);
    bench_free(b);
}

/* ---- guesses ---- */

static void test_guesses_fill_small_steps_in_equal_parts(void **state) {
    (void)state;
    bench *b = bench_new(4, 8, 20, 32);
    seq *q = add(b, 0, 5), *other = add(b, 1, 5);
    step(b);
    q->guessed = 7;
    other->guessed = 7;
    step_plan p = scheduler_plan(b->s, 20);
    assert_int_equal(share(&p, q), 1 + 5);
    assert_int_equal(share(&p, other), 1 + 4);
    assert_int_equal(p.batch[0].nlogits, 6);
    scheduler_commit(b->s);
    assert_int_equal(q->computed, 6); /* none of them is known yet */
    q->ntokens += 3;
    scheduler_keep(b->s, q, 2);
    other->ntokens++;
    q->guessed = other->guessed = 7;
    assert_int_equal(q->computed, 8);
    add(b, 2, 100); /* a prompt takes the whole budget */
    p = scheduler_plan(b->s, 20);
    assert_int_equal(share(&p, q), 1);
    assert_int_equal(share(&p, other), 1);
    assert_int_equal(p.tokens, 20);
    bench_free(b);
}

static void test_a_full_batch_leaves_no_room_for_guesses(void **state) {
    (void)state;
    bench *b = bench_new(12, 12, 64, 32);
    for (int i = 0; i < 12; i++) add(b, i, 5);
    step(b);
    for (int i = 0; i < 12; i++) b->seqs[i].guessed = 7;
    for (int i = 11; i > 9; i--) { /* 12 and 11 sequences fill a step by themselves */
        assert_int_equal(scheduler_plan(b->s, 20).tokens, i + 1);
        scheduler_commit(b->s);
        for (int k = 0; k <= i; k++) b->seqs[k].ntokens++;
        scheduler_remove(b->s, &b->seqs[i]);
    }
    assert_int_equal(scheduler_plan(b->s, 20).tokens, 11);
    scheduler_commit(b->s);
    for (int k = 0; k < 10; k++) b->seqs[k].ntokens++;
    assert_int_equal(scheduler_plan(b->s, 0).tokens, 10);
    bench_free(b);
}

static void test_guesses_never_cost_anybody_a_block(void **state) {
    (void)state;
    bench *b = bench_reserving(1, 4, 8, 100, 4);
    seq *first = add(b, 0, 31), *second = add(b, 1, 20);
    step(b);
    first->guessed = 3; /* they would need a third block */
    step_plan p = scheduler_plan(b->s, 8);
    assert_int_equal(share(&p, first), 1);
    assert_int_equal(second->state, SEQ_RUNNING);
    assert_int_equal(scheduler_stats_now(b->s).preemptions, 0);
    bench_free(b);
}

/* ---- forks ---- */

static void test_a_block_that_forks_share_is_copied_by_the_first_to_write(void **state) {
    (void)state;
    bench *b = bench_new(4, 8, 64, 16);
    seq *q = &b->seqs[0], *fork = &b->seqs[1];
    fill(q->tokens, CONTEXT, 1);
    q->width = 2;
    add(b, 0, 40);
    step(b);
    q->ntokens = 40; /* the fork goes on from here too */
    scheduler_fork(b->s, q, fork);
    q->ntokens = fork->ntokens = 41;
    assert_int_equal(kv_pool_free_blocks(scheduler_pool(b->s)), 13);
    int32_t shared = q->table.block[2];
    step_plan p = step(b);
    assert_int_equal(p.ncopies, 1);
    assert_int_equal(p.copies[0].from, shared);
    assert_int_equal(p.copies[0].to, q->table.block[2]);
    assert_int_equal(fork->table.block[2], shared);
    assert_memory_equal(q->table.block, fork->table.block, 2 * sizeof(int32_t));
    p = step(b);
    assert_int_equal(p.ncopies, 0);
    scheduler_remove(b->s, q);
    assert_int_equal(kv_pool_holders(scheduler_pool(b->s), shared), 1);
    bench_free(b);
}

/* ---- admission looks ahead ---- */

static void test_what_can_grow_keeps_room_to_grow(void **state) {
    (void)state;
    bench *b = bench_reserving(CONTEXT, 4, 8, 100, 12);
    seq *q = &b->seqs[0];
    q->limit = 96; /* 6 blocks in the end */
    add(b, 0, 10);
    b->seqs[1].limit = 112; /* 7: not beside the other */
    add(b, 1, 10);
    for (int i = 0; i < 50; i++) {
        step(b);
        assert_int_equal(b->seqs[1].state, SEQ_WAITING);
    }
    scheduler_remove(b->s, q);
    step(b);
    assert_int_equal(b->seqs[1].state, SEQ_RUNNING);
    bench_free(b);
}

static void test_with_all_growth_reserved_nobody_is_ever_preempted(void **state) {
    (void)state;
    uint64_t r = 5;
    bench *b = bench_reserving(CONTEXT, 6, 20, 24, 20);
    for (int op = 0; op < 5000; op++) {
        seq *q = &b->seqs[rnd(&r, 64)];
        if (q->state == SEQ_IDLE && rnd(&r, 3) == 0) {
            q->limit = 1 + (int)rnd(&r, CONTEXT);
            q->ntokens = 1 + (int)rnd(&r, (uint32_t)q->limit);
            scheduler_add(b->s, q);
        }
        guessing_step(b, &r);
        for (int i = 0; i < 64; i++) {
            if (b->seqs[i].ntokens >= b->seqs[i].limit) scheduler_remove(b->s, &b->seqs[i]);
        }
    }
    assert_int_equal(scheduler_stats_now(b->s).preemptions, 0);
    bench_free(b);
}

static void test_a_full_queue_refuses(void **state) {
    (void)state;
    bench *b = bench_new(1, 2, 16, 8);
    add(b, 0, 5);
    add(b, 1, 5);
    assert_false(scheduler_add(b->s, &b->seqs[2]));
    step(b);
    assert_true(scheduler_add(b->s, &b->seqs[2]));
    bench_free(b);
}

/* Every block has exactly as many holders as tables that name it, and the free ones are nobody's. */
static void check_blocks(const bench *b) {
    const kv_pool *pool = scheduler_pool(b->s);
    int named[256] = {0}, used = 0;
    for (int i = 0; i < 64; i++) {
        const seq *q = &b->seqs[i];
        assert_true(q->state == SEQ_RUNNING || q->table.n == 0);
        for (int k = 0; k < q->table.n; k++) named[q->table.block[k]]++;
    }
    for (int i = 0; i < kv_pool_blocks(pool); i++) {
        assert_int_equal(kv_pool_holders(pool, i), named[i]);
        used += named[i] > 0;
    }
    assert_int_equal(used + kv_pool_free_blocks(pool), kv_pool_blocks(pool));
}

/* Forks of what runs and holds places for them. */
static void fork_some(bench *b, const step_plan *p, uint64_t *r) {
    for (int i = 0; i < p->n; i++) {
        seq *q = p->seqs[i], *child = &b->seqs[rnd(r, 64)];
        bool caught_up = q->state == SEQ_RUNNING && q->computed == q->ntokens - p->batch[i].nlogits;
        if (q->width == 1 || !p->batch[i].nlogits || !caught_up || child->state != SEQ_IDLE) continue;
        q->ntokens -= p->batch[i].nlogits; /* before they go different ways */
        child->limit = CONTEXT;
        scheduler_fork(b->s, q, child);
        q->ntokens++;
        child->ntokens++;
    }
}

static void test_a_plan_made_ahead_goes_on_with_the_token_that_comes(void **state) {
    (void)state;
    bench *b = bench_new(4, 4, 100, 20);
    add(b, 0, 40);
    seq *ends = add(b, 1, 10), *q = add(b, 2, 10);
    ends->limit = 11;
    const step_plan first = scheduler_plan(b->s, 0), second = scheduler_plan(b->s, 0);
    assert_int_equal(first.n, 3);
    assert_int_equal(second.n, 2); /* one has come to its limit */
    assert_int_equal(share(&second, ends), 0);
    assert_null(second.batch[1].tokens);
    assert_int_equal(second.batch[1].pos, 10);
    assert_int_equal(second.batch[1].drawn_row, 2);
    assert_int_equal(second.batch[1].nlogits, 1);
    scheduler_remove(b->s, &b->seqs[0]); /* cancelled: in neither of them any more */
    assert_true(!first.seqs[0] && !second.seqs[0]);
    scheduler_commit(b->s);
    q->ntokens++;
    assert_int_equal(q->computed, 11);
    scheduler_remove(b->s, q); /* its token was the end: in the other no more */
    assert_null(second.seqs[1]);
    scheduler_commit(b->s);
    bench_free(b);
}

static void test_a_sequence_that_loses_its_blocks_comes_back_when_its_token_is_known(void **state) {
    (void)state;
    bench *b = bench_reserving(0, 2, 4, 100, 4);
    seq *q = add(b, 0, 32), *last = add(b, 1, 31);
    const step_plan first = scheduler_plan(b->s, 0);
    assert_int_equal(first.n, 2);
    const step_plan second = scheduler_plan(b->s, 0); /* the third block of q is the last one's */
    assert_int_equal(share(&second, q), 1);
    assert_int_equal(second.n, 1);
    assert_int_equal(last->state, SEQ_WAITING);
    scheduler_remove(b->s, q); /* there is room again, in a plan to come */
    assert_ptr_equal(first.seqs[1], last);
    scheduler_commit(b->s);
    last->ntokens++;
    scheduler_commit(b->s);
    const step_plan third = scheduler_plan(b->s, 0);
    assert_true(share(&third, last) > 0);
    assert_int_equal(third.batch[0].pos + third.batch[0].ntokens, 32);
    bench_free(b);
}

static void test_ten_thousand_random_operations_leak_no_block(void **state) {
    (void)state;
    uint64_t r = 1;
    int copies = 0;
    bench *b = bench_new(6, 20, 24, 20);
    for (int op = 0; op < 10000; op++) {
        seq *q = &b->seqs[rnd(&r, 64)];
        switch (rnd(&r, 8)) {
        case 0:
        case 1:
            if (q->state != SEQ_IDLE) break;
            q->ntokens = 1 + (int)rnd(&r, CONTEXT - 1);
            q->table.salt = 0;
            q->guessed = 0;
            q->width = rnd(&r, 4) ? 1 : 1 + (int)rnd(&r, 5);
            fill(q->tokens, CONTEXT, (int)rnd(&r, 4));
            scheduler_add(b->s, q);
            break;
        case 2: scheduler_remove(b->s, q); break;
        case 3: ahead_step(b, &r); break;
        case 4: {
            step_plan p = step(b);
            fork_some(b, &p, &r);
            break;
        }
        default: {
            step_plan p = guessing_step(b, &r);
            copies += p.ncopies;
            assert_true(p.tokens <= 24 && p.n <= 6);
            scheduler_stats now = scheduler_stats_now(b->s);
            assert_true(p.n > 0 || now.running + now.waiting == 0);
        }
        }
        for (int i = 0; i < 64; i++) {
            if (b->seqs[i].ntokens >= CONTEXT) scheduler_remove(b->s, &b->seqs[i]);
        }
        check_blocks(b);
    }
    assert_true(scheduler_stats_now(b->s).preemptions > 20);
    assert_true(copies > 20);
    for (int i = 0; i < 64; i++) scheduler_remove(b->s, &b->seqs[i]);
    assert_int_equal(kv_pool_free_blocks(scheduler_pool(b->s)), 20);
    bench_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_table_grows_whole_or_not_at_all),
        cmocka_unit_test(test_a_known_prefix_is_shared_in_whole_blocks),
        cmocka_unit_test(test_what_was_unused_longest_is_forgotten_first_and_ends_before_beginnings),
        cmocka_unit_test(test_equal_text_computed_twice_goes_on_as_one_chain),
        cmocka_unit_test(test_a_second_turn_computes_only_what_is_new),
        cmocka_unit_test(test_a_prompt_that_comes_twice_at_once_is_computed_once),
        cmocka_unit_test(test_decodes_go_before_prompts_and_the_budget_holds),
        cmocka_unit_test(test_logits_come_with_the_last_known_token_only),
        cmocka_unit_test(test_nobody_overtakes_the_head_of_the_queue),
        cmocka_unit_test(test_who_came_last_gives_way_and_is_next_in_line),
        cmocka_unit_test(test_guesses_fill_small_steps_in_equal_parts),
        cmocka_unit_test(test_a_full_batch_leaves_no_room_for_guesses),
        cmocka_unit_test(test_guesses_never_cost_anybody_a_block),
        cmocka_unit_test(test_a_block_that_forks_share_is_copied_by_the_first_to_write),
        cmocka_unit_test(test_what_can_grow_keeps_room_to_grow),
        cmocka_unit_test(test_with_all_growth_reserved_nobody_is_ever_preempted),
        cmocka_unit_test(test_a_full_queue_refuses),
        cmocka_unit_test(test_a_plan_made_ahead_goes_on_with_the_token_that_comes),
        cmocka_unit_test(test_a_sequence_that_loses_its_blocks_comes_back_when_its_token_is_known),
        cmocka_unit_test(test_ten_thousand_random_operations_leak_no_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

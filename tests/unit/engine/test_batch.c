/* Batch invariance: a token's logits are bitwise the same alone, in any batch, with any chunking of its prompt, in any
 * blocks, and on any number of threads, for each number of ranks. Random schedules from fixed seeds.
 */
#include "tests/unit/engine/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ThreadSanitizer looks at how threads meet, which every schedule shows it, and makes each of them cost ten times as much. */
#ifdef __SANITIZE_THREAD__
enum { SCHEDULES = 1 };
#else
enum { SCHEDULES = 4 };
#endif
enum { SEQS = 6, LONGEST = 150 };

typedef struct world {
    uint64_t random;
    int vocab;
    int32_t tokens[SEQS][LONGEST];
    int length[SEQS];
    float *alone; /* [SEQS][LONGEST, vocab] */
} world;

/* splitmix64 */
static int below(world *w, int n) {
    uint64_t z = (w->random += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (int)((z ^ (z >> 31)) % (uint64_t)n);
}

static float *alone(const world *w, int seq, int pos) {
    return w->alone + ((size_t)seq * LONGEST + (size_t)pos) * (size_t)w->vocab;
}

/* Every sequence by itself, one token at a time, on one thread: the truth of this test. */
static void run_alone(world *w, backend *b) {
    static const int32_t blocks[GOLDEN_SEQ_BLOCKS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int s = 0; s < SEQS; s++) {
        for (int pos = 0; pos < w->length[s]; pos++) {
            batch_seq one = {
                .tokens = &w->tokens[s][pos], .ntokens = 1, .pos = pos, .blocks = blocks, .nlogits = 1};
            float *logits = NULL;
            assert_int_equal(backend_forward(b, &one, 1, &logits, NULL), 0);
            memcpy(alone(w, s, pos), logits, (size_t)w->vocab * sizeof *logits);
        }
    }
}

static void world_init(world *w, const model *m, uint64_t seed) {
    *w = (world){.random = seed, .vocab = m->config.vocab};
    w->alone = calloc((size_t)SEQS * LONGEST * (size_t)w->vocab, sizeof *w->alone);
    assert_non_null(w->alone);
    for (int s = 0; s < SEQS; s++) {
        w->length[s] = 1 + below(w, LONGEST);
        for (int i = 0; i < w->length[s]; i++) w->tokens[s][i] = below(w, w->vocab);
    }
}

static void shuffle_blocks(world *w, int32_t blocks[GOLDEN_BLOCKS]) {
    for (int i = 0; i < GOLDEN_BLOCKS; i++) blocks[i] = i;
    for (int i = GOLDEN_BLOCKS - 1; i > 0; i--) {
        int j = below(w, i + 1);
        int32_t t = blocks[i];
        blocks[i] = blocks[j];
        blocks[j] = t;
    }
}

/* One batch with a random part of what each sequence still has to do; checks its logits. Returns the tokens run. */
static int random_step(world *w, backend *b, int done[SEQS], int32_t blocks[SEQS][10], const char *where) {
    batch_seq batch[SEQS];
    int owner[SEQS], n = 0, room = GOLDEN_TOKENS, total = 0;
    const int first = below(w, SEQS);
    for (int k = 0; k < SEQS; k++) {
        const int s = (first + k) % SEQS;
        int left = w->length[s] - done[s];
        if (left > room) left = room;
        if (!left || !below(w, 3)) continue;
        int count = below(w, 2) ? 1 + below(w, left) : 1;
        owner[n] = s;
        batch[n++] = (batch_seq){.tokens = &w->tokens[s][done[s]],
                                 .ntokens = count,
                                 .pos = done[s],
                                 .blocks = blocks[s],
                                 .nlogits = below(w, count + 1)};
        room -= count;
        total += count;
    }
    float *logits = NULL;
    assert_int_equal(backend_forward(b, batch, n, &logits, NULL), 0);
    for (int i = 0; i < n; i++) {
        done[owner[i]] += batch[i].ntokens;
        for (int l = batch[i].nlogits; l > 0; l--, logits += w->vocab) {
            int pos = done[owner[i]] - l;
            if (!memcmp(logits, alone(w, owner[i], pos), (size_t)w->vocab * sizeof *logits)) continue;
            fail_msg("%s: sequence %d, position %d differs from the same computed alone", where, owner[i],
                     pos);
        }
    }
    return total;
}

static void random_schedule(world *w, backend *b, const char *where) {
    int32_t order[GOLDEN_BLOCKS], blocks[SEQS][10];
    int done[SEQS] = {0}, left = 0;
    shuffle_blocks(w, order);
    memcpy(blocks, order, sizeof blocks);
    for (int s = 0; s < SEQS; s++) left += w->length[s];
    while (left) left -= random_step(w, b, done, blocks, where);
}

static void check_model(const char *name, const char *weights, const char *kv, const char *isa) {
    golden g = golden_open(name);
    world w;
    world_init(&w, g.model, 20261124);
    for (int threads = 1; threads <= 4; threads++) {
        char where[128];
        snprintf(where, sizeof where, "%s as %s, KV %s, on %s with %d threads", name, weights, kv, isa,
                 threads);
        backend *b = golden_backend_with(g.model, weights, kv, isa, threads);
        if (threads == 1) run_alone(&w, b);
        for (int i = 0; i < SCHEDULES; i++) random_schedule(&w, b, where);
        backend_close(b);
    }
    free(w.alone);
    golden_close(&g);
}

static void logits_do_not_depend_on_the_batch_the_chunks_or_the_threads(void **state) {
    (void)state;
    static const struct {
        const char *name, *weights, *kv;
    } models[] = {{"llama_gqa_f32", "stored", "full"}, {"llama_gqa_bf16", "stored", "full"},
                  {"llama_gqa_f16", "stored", "full"}, {"qwen2_tied_bf16", "stored", "full"},
                  {"llama_gqa_bf16", "int8", "full"},  {"qwen2_tied_bf16", "int8-a16", "full"},
                  {"llama_gqa_f32", "stored", "int8"}, {"qwen2_tied_bf16", "int8", "int8"}};
    for (size_t i = 0; i < GOLDEN_ISAS; i++) {
        if (!golden_isa_runs(golden_isas[i])) continue;
        for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
            check_model(models[m].name, models[m].weights, models[m].kv, golden_isas[i]);
        }
    }
}

static void check_ranks(const char *name, int ranks) {
    golden g = golden_open(name);
    world w;
    world_init(&w, g.model, 20261125);
    for (int threads = 1; threads <= 2 * ranks; threads += 2 * ranks - 1) {
        char where[128];
        snprintf(where, sizeof where, "%s over %d ranks with %d threads", name, ranks, threads);
        backend *b = golden_ranks(g.model, NULL, threads, ranks);
        if (threads == 1) run_alone(&w, b);
        random_schedule(&w, b, where);
        backend_close(b);
    }
    free(w.alone);
    golden_close(&g);
}

static void nor_do_they_over_several_ranks(void **state) {
    (void)state;
    check_ranks("llama_heads8_bf16", 2);
    check_ranks("llama_heads8_f32", 4);
    check_ranks("llama_heads8_bf16", 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_do_not_depend_on_the_batch_the_chunks_or_the_threads),
        cmocka_unit_test(nor_do_they_over_several_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

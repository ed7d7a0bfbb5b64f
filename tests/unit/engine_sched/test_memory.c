/* All memory is taken at start: while the engine runs, whatever is asked of it, nothing is allocated and the process does not
 * grow. The linker leads the allocator's functions through the counters below (--wrap), for all code that is linked in.
 */
#include "fake.h"

#include "tests/unit/engine_sched/cmocka_all.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_long allocations;
static atomic_long fail_in; /* so many allocations from now, one fails; 0: none */

static bool fails(void) {
    allocations++;
    return fail_in > 0 && --fail_in == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);

void *__wrap_malloc(size_t n) {
    return fails() ? NULL : __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size) {
    return fails() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *p, size_t n) {
    return fails() ? NULL : __real_realloc(p, n);
}
void *__wrap_aligned_alloc(size_t alignment, size_t n) {
    return fails() ? NULL : __real_aligned_alloc(alignment, n);
}

static long resident_pages(void) {
    long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &size, &resident), 2);
    fclose(f);
    return resident;
}

enum { PROMPT = 150, MAX_EVENTS = 64 };

/* One random thing that can happen to an engine. */
static void happen(engine *e, uint64_t *r, uint64_t *next_id) {
    int32_t prompt[PROMPT];
    engine_event ev[MAX_EVENTS];
    engine_error err;
    static const char *const stops[] = {"stop", "\n\n"};
    uint32_t kind = rnd(r, 10);
    if (kind == 0) {
        engine_cancel(e, *next_id - rnd(r, 20));
    } else if (kind < 3) {
        engine_request q = {.id = ++*next_id, .prompt = prompt, .n = 1 + (int)rnd(r, 3)};
        q.nprompt = 1 + (int)rnd(r, PROMPT);
        q.cache_salt = rnd(r, 2);
        int text = (int)rnd(r, 5);
        for (int i = 0; i < q.nprompt; i++) prompt[i] = 10 + (text + i % 20) % 100;
        engine_sampling_default(&q.sampling);
        q.sampling.seed = q.id;
        q.sampling.temperature = (float)rnd(r, 2);
        q.sampling.top_p = 0.9f;
        q.sampling.frequency_penalty = (float)rnd(r, 2);
        q.sampling.logprobs = (int)rnd(r, 5) - 1;
        q.sampling.max_tokens = 1 + (int)rnd(r, 40);
        q.sampling.stop = stops;
        q.sampling.nstop = 2;
        engine_submit(e, &q, &err); /* may be refused, for want of room */
    } else {
        assert_true(engine_step(e, ev, MAX_EVENTS, &err) >= 0);
    }
}

static void test_nothing_is_allocated_and_nothing_grows_while_it_runs(void **state) {
    (void)state;
    engine_error err;
    engine *e = engine_open(&(engine_options){.model_dir = "tests/golden/models/llama_gqa_f32",
                                              .threads = 2,
                                              .max_seqs = 6,
                                              .max_context = 200,
                                              .kv_tokens = 260,
                                              .step_tokens = 64,
                                              .reserve_tokens = 1,
                                              .guess_tokens = 12},
                            &err);
    if (!e) fail_msg("%s", err.msg);
    uint64_t r = 7, id = 100;
    long before = 0, counted = 0, taken = 0;
    for (int i = 0; i < 3000; i++) {
        if (i == 1000) { /* every block has been touched by now */
            before = resident_pages();
            counted = allocations;
        }
        happen(e, &r, &id);
    }
    taken = allocations - counted;
    long grown = resident_pages() - before;
    engine_load load = engine_load_now(e);
    assert_true(load.preemptions > 5 && load.cached_tokens > 1000 && load.right_guesses > 20);
    assert_int_equal(taken, 0);
    assert_true(grown * sysconf(_SC_PAGESIZE) < 256 * 1024); /* the C library's own, at most */
    engine_close(e);
}

static void finish_all(engine *e) {
    engine_event ev[MAX_EVENTS];
    engine_error err;
    while (engine_busy(e)) assert_true(engine_step(e, ev, MAX_EVENTS, &err) >= 0);
}

/* Structured output is compiled when it is asked for: without memory for it a request is refused, and nothing is lost. */
static void test_a_request_without_memory_is_refused_whole(void **state) {
    (void)state;
    fake f = {0};
    engine *e = fake_open(&f, NULL);
    engine_error err;
    said s;
    engine_request q = request_of(1, "an object, please"), plain = request_of(2, "hello");
    q.format.json = true;
    q.n = 3;
    plain.sampling.max_tokens = 5;
    int refused = 0;
    for (long k = 1;; k++) {
        fail_in = k;
        int rc = engine_submit(e, &q, &err);
        bool failed = fail_in == 0;
        fail_in = 0;
        if (rc == 0 && !failed) break;
        if (rc == 0) { /* it could do without */
            engine_cancel(e, 1);
        } else {
            assert_int_equal(err.code, ENGINE_ENOMEM);
            refused++;
        }
        finish_all(e);
    }
    assert_true(refused > 3);
    engine_cancel(e, 1);
    finish_all(e);
    say(e, &plain, &s);
    plain.n = 4; /* all places are free again */
    assert_int_equal(engine_submit(e, &plain, &err), 0);
    engine_close(e);
    fake_done(&f);
}

static void test_the_counters_count(void **state) {
    (void)state;
    long before = allocations;
    engine_error err;
    fake f = {0};
    engine *e = fake_open(&f, NULL);
    assert_true(allocations > before + 5);
    before = allocations;
    assert_false(engine_step(e, NULL, 0, &err) < 0);
    assert_int_equal(allocations, before);
    engine_close(e);
    fake_done(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_counters_count),
        cmocka_unit_test(test_a_request_without_memory_is_refused_whole),
        cmocka_unit_test(test_nothing_is_allocated_and_nothing_grows_while_it_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

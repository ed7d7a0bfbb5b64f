/* What a rank reads of a checkpoint: its own part of every matrix, and nothing of the others'.
 *
 * Counted by the pages that a rank touches, from opening its backend to its first logits. Each rank has a mapping of its
 * own, without access at first: the first touch of a page is a fault, which notes the page and lets it be read. All weights
 * of the checkpoint begin at a page, and so do all slices.
 */
#include "engine/comm/group.h"
#include "engine/model/shard.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { PAGE = 4096, PAGES_MAX = 4096, RANKS_MAX = 8, TENSORS = 12 };

/* ---- the checkpoint: weights of zero, which are all that reading them takes ---- */

static const char config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":8192,"
    "\"num_hidden_layers\":1,\"num_attention_heads\":16,\"num_key_value_heads\":4,\"head_dim\":512,"
    "\"vocab_size\":1024,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-6,\"torch_dtype\":\"float32\"}";

/* Over N ranks a rank reads 1/N of a matrix, but all of a norm, one row of the embedding, and no less than a KV head. */
static const struct {
    const char *name;
    int rows, cols; /* rows 0: a vector */
    enum { SPLIT, BY_KV_HEAD, WHOLE, ONE_ROW } how;
} tensors[TENSORS] = {
    {"model.embed_tokens", 1024, 64, ONE_ROW},
    {"model.layers.0.self_attn.q_proj", 8192, 64, SPLIT},
    {"model.layers.0.self_attn.k_proj", 2048, 64, BY_KV_HEAD},
    {"model.layers.0.self_attn.v_proj", 2048, 64, BY_KV_HEAD},
    {"model.layers.0.self_attn.o_proj", 64, 8192, SPLIT},
    {"model.layers.0.mlp.gate_proj", 8192, 64, SPLIT},
    {"model.layers.0.mlp.up_proj", 8192, 64, SPLIT},
    {"model.layers.0.mlp.down_proj", 64, 8192, SPLIT},
    {"lm_head", 1024, 64, SPLIT},
    {"model.layers.0.input_layernorm", 0, 64, WHOLE},
    {"model.layers.0.post_attention_layernorm", 0, 64, WHOLE},
    {"model.norm", 0, 64, WHOLE},
};

static char dir[64];

static size_t pages_of(int t) {
    const size_t rows = tensors[t].rows ? (size_t)tensors[t].rows : 1;
    return (rows * (size_t)tensors[t].cols * sizeof(float) + PAGE - 1) / PAGE;
}

static size_t pages_before(int t) {
    size_t n = 0;
    for (int i = 0; i < t; i++) n += pages_of(i);
    return n;
}

static void path_of(const char *name, char path[128]) {
    snprintf(path, 128, "%s/%s", dir, name);
}

static int open_new(const char *name) {
    char path[128];
    path_of(name, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

/* The header fills the first page, with spaces after its JSON. */
static void write_weights(void) {
    char header[PAGE];
    memset(header, ' ', sizeof header);
    size_t n = 8;
    for (int i = 0; i < TENSORS; i++) {
        char shape[32];
        const size_t at = pages_before(i) * PAGE, rows = tensors[i].rows ? (size_t)tensors[i].rows : 1;
        if (tensors[i].rows)
            snprintf(shape, sizeof shape, "%d,%d", tensors[i].rows, tensors[i].cols);
        else
            snprintf(shape, sizeof shape, "%d", tensors[i].cols);
        n += (size_t)snprintf(header + n, sizeof header - n,
                              "%c\"%s.weight\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                              i ? ',' : '{', tensors[i].name, shape, at,
                              at + rows * (size_t)tensors[i].cols * sizeof(float));
    }
    assert_in_range(n, 8, PAGE - 1);
    header[n] = '}';
    const uint64_t length = PAGE - 8;
    for (int i = 0; i < 8; i++) header[i] = (char)(length >> (8 * i));
    int fd = open_new("model.safetensors");
    assert_int_equal(write(fd, header, PAGE), PAGE);
    assert_int_equal(ftruncate(fd, (off_t)(PAGE * (1 + pages_before(TENSORS)))), 0);
    close(fd);
}

static int write_checkpoint(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/millrace-shard-XXXXXX");
    assert_non_null(mkdtemp(dir));
    write_weights();
    int fd = open_new("config.json");
    assert_int_equal(write(fd, config, sizeof config - 1), sizeof config - 1);
    close(fd);
    return 0;
}

static int remove_checkpoint(void **state) {
    (void)state;
    char path[128];
    path_of("model.safetensors", path);
    unlink(path);
    path_of("config.json", path);
    unlink(path);
    return rmdir(dir);
}

/* ---- counting ---- */

typedef struct counted {
    model *whole;
    model shard;
    unsigned char *map; /* of the weights */
    unsigned char touched[PAGES_MAX];
} counted;

static counted ranks[RANKS_MAX];

static void on_fault(int sig, siginfo_t *info, void *context) {
    (void)context;
    const unsigned char *at = info->si_addr;
    const size_t bytes = pages_before(TENSORS) * PAGE;
    for (int i = 0; i < RANKS_MAX; i++) {
        counted *c = &ranks[i];
        if (!c->map || at < c->map || at >= c->map + bytes) continue;
        const size_t page = (size_t)(at - c->map) / PAGE;
        c->touched[page] = 1;
        mprotect(c->map + page * PAGE, PAGE, PROT_READ);
        return;
    }
    signal(sig, SIG_DFL); /* not ours: it will come again */
}

/* A rank's own mapping of the file, guarded. */
static void counted_init(counted *c, int rank, int n) {
    engine_error err = {0};
    *c = (counted){.whole = model_open(dir, &err)};
    if (!c->whole) fail_msg("%s", err.msg);
    c->map = (unsigned char *)c->whole->embed.data;
    assert_int_equal(mprotect(c->map, pages_before(TENSORS) * PAGE, PROT_NONE), 0);
    assert_int_equal(shard_init(&c->shard, c->whole, rank, n, NULL), 0);
}

static void counted_done(counted *c) {
    shard_done(&c->shard);
    model_close(c->whole);
    c->map = NULL;
}

/* In place of the shard of the group's model. */
static backend *open_counted(const model *shard, const backend_options *opt, engine_error *err) {
    (void)shard;
    return backend_open_cpu(&ranks[opt->comm->rank].shard, opt, err);
}

static void run_counted(int n, const char *weights) {
    static const rank_kind kind = {comm_local_new, open_counted};
    static const int32_t token = 20, block = 0;
    const batch_seq s = {.tokens = &token, .ntokens = 1, .blocks = &block, .nlogits = 1};
    const backend_options opt = {.threads = n,
                                 .weights = weights,
                                 .kv_blocks = 1,
                                 .block_tokens = 16,
                                 .max_tokens = 1,
                                 .max_logits = 1,
                                 .max_seqs = 1,
                                 .max_blocks_per_seq = 1};
    struct sigaction catch = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO}, before;
    engine_error err = {0};
    float *logits = NULL;
    sigaction(SIGSEGV, &catch, &before);
    for (int i = 0; i < n; i++) counted_init(&ranks[i], i, n);
    model *m = model_open(dir, &err);
    assert_non_null(m);
    backend *b = backend_open_group(&kind, m, &opt, n, &err);
    if (!b || backend_forward(b, &s, 1, &logits, &err)) fail_msg("%s", err.msg);
    sigaction(SIGSEGV, &before, NULL);
    backend_close(b);
    for (int i = 0; i < n; i++) counted_done(&ranks[i]);
    model_close(m);
}

static size_t expected_pages(int t, int n) {
    const size_t pages = pages_of(t);
    switch (tensors[t].how) {
    case SPLIT: return pages / (size_t)n;
    case BY_KV_HEAD: return pages / (size_t)(n < 4 ? n : 4);
    case WHOLE: return pages;
    case ONE_ROW: return 1;
    }
    return 0;
}

static void check_counts(int n, const char *weights) {
    run_counted(n, weights);
    for (int t = 0; t < TENSORS; t++) {
        size_t of_all = 0;
        const size_t first = pages_before(t), end = first + pages_of(t);
        for (int r = 0; r < n; r++) {
            size_t touched = 0;
            for (size_t page = first; page < end; page++) touched += ranks[r].touched[page];
            if (touched != expected_pages(t, n)) {
                fail_msg("%s, rank %d of %d, %s: %zu pages of %zu are read, not %zu", weights, r, n,
                         tensors[t].name, touched, pages_of(t), expected_pages(t, n));
            }
        }
        for (size_t page = first; page < end; page++) {
            int readers = 0;
            for (int r = 0; r < n; r++) readers += ranks[r].touched[page];
            of_all += readers > 0;
        }
        assert_int_equal(of_all, tensors[t].how == ONE_ROW ? 1 : pages_of(t));
    }
}

static void a_rank_reads_its_own_part_of_the_weights_as_stored(void **state) {
    (void)state;
    if (sysconf(_SC_PAGESIZE) != PAGE) skip();
    for (int n = 1; n <= RANKS_MAX; n *= 2) check_counts(n, "stored");
}

static void a_rank_reads_its_own_part_to_quantise_it(void **state) {
    (void)state;
    if (sysconf(_SC_PAGESIZE) != PAGE) skip();
    for (int n = 1; n <= RANKS_MAX; n *= 2) check_counts(n, "int8");
}

/* ---- the slices themselves ---- */

static void slices_of_all_ranks_make_up_the_model(void **state) {
    (void)state;
    model *m = model_open(dir, NULL);
    assert_non_null(m);
    for (int n = 1; n <= 4; n *= 2) {
        size_t bytes = 0, norms = (size_t)(n - 1) * 3 * 64 * sizeof(float);
        for (int r = 0; r < n; r++) {
            model shard;
            assert_int_equal(shard_init(&shard, m, r, n, NULL), 0);
            assert_int_equal(shard.config.heads, 16 / n);
            assert_int_equal(shard.config.kv_heads, 4 / n);
            bytes += shard.bytes;
            shard_done(&shard);
        }
        assert_int_equal(bytes - norms, m->bytes);
    }
    model_close(m);
}

static void logits_are_shared_out_in_equal_parts_for_any_vocabulary(void **state) {
    (void)state;
    for (int vocab = 2; vocab < 3000; vocab += 7) {
        for (int n = 1; n <= SHARD_RANKS_MAX; n++) {
            const int part = shard_vocab(vocab, n);
            assert_int_equal(part % SHARD_VOCAB_UNIT, 0);
            assert_true(part * n >= vocab);
            assert_true((part - SHARD_VOCAB_UNIT) * n < vocab);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_reads_its_own_part_of_the_weights_as_stored),
        cmocka_unit_test(a_rank_reads_its_own_part_to_quantise_it),
        cmocka_unit_test(slices_of_all_ranks_make_up_the_model),
        cmocka_unit_test(logits_are_shared_out_in_equal_parts_for_any_vocabulary),
    };
    return cmocka_run_group_tests(tests, write_checkpoint, remove_checkpoint);
}

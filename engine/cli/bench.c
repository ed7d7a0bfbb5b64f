/* millrace-engine bench: prefill and decode speed, each row beside the read bandwidth of the same seconds.
 *
 * Requests go through the engine as any other: the figures include scheduling, sampling and text. Prompts are random ids, so no
 * two share a prefix.
 */
#include "engine/cli/args.h"
#include "engine/cli/bandwidth.h"
#include "engine/cli/cli.h"
#include "engine/model/shard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { MAX_ROWS = 32, MAX_BATCH = 16 };
static const int batches[] = {1, 4, 8, 16};
static const int contexts[] = {128, 512, 2048};

typedef struct row {
    bool decode;
    int batch, context;
    double seconds; /* a step of decode, or a prompt's time to first token */
    double tokens;  /* a second, of all sequences */
    double read;    /* bytes a second that the machine can read */
    double share;   /* decode: of that, what reading the weights took */
} row;

typedef struct bench {
    engine_options options;
    int steps;
    bool json;
    engine *engine;
    engine_event events[2 * MAX_BATCH];
    bandwidth *memory;
    int vocab;
    uint64_t next_id, random;
    row rows[MAX_ROWS];
    int nrows;
} bench;

static int add_request(bench *b, int context, int max_tokens, engine_error *err) {
    int32_t *ids = malloc((size_t)context * sizeof *ids);
    if (!ids) return engine_fail(err, ENGINE_ENOMEM, "no memory for a prompt of %d tokens", context);
    for (int i = 0; i < context; i++) {
        b->random = b->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        ids[i] = (int32_t)((b->random >> 33) % (uint64_t)b->vocab);
    }
    engine_request r = {.id = b->next_id++, .prompt = ids, .nprompt = context};
    engine_sampling_default(&r.sampling);
    r.sampling.temperature = 0;
    r.sampling.ignore_eos = true;
    r.sampling.max_tokens = max_tokens;
    int rc = engine_submit(b->engine, &r, err);
    free(ids);
    return rc;
}

/* One step; counts its tokens. */
static int step(bench *b, int *tokens, engine_error *err) {
    int n = engine_step(b->engine, b->events, 2 * MAX_BATCH, err);
    for (int i = 0; i < n; i++) *tokens += b->events[i].kind == ENGINE_TOKENS;
    return n < 0 ? -1 : 0;
}

static int run_prefill(bench *b, int context, engine_error *err) {
    row *r = &b->rows[b->nrows];
    int tokens = 0;
    *r = (row){.batch = 1, .context = context, .read = bandwidth_measure(b->memory)};
    if (add_request(b, context, 1, err)) return -1;
    double t = cli_seconds();
    while (engine_busy(b->engine)) {
        if (step(b, &tokens, err)) return -1;
    }
    r->seconds = cli_seconds() - t;
    r->tokens = context / r->seconds;
    b->nrows++;
    return 0;
}

/* Fills the batch, lets every sequence give its first token, then times steps in which all of them decode. */
static int run_decode(bench *b, int batch, int context, engine_error *err) {
    row *r = &b->rows[b->nrows];
    int tokens = 0;
    *r = (row){.decode = true, .batch = batch, .context = context};
    uint64_t first = b->next_id;
    for (int i = 0; i < batch; i++) {
        if (add_request(b, context, context + 2 * b->steps, err)) return -1;
    }
    while (tokens < batch || engine_load_now(b->engine).waiting) {
        if (step(b, &tokens, err)) return -1;
    }
    r->read = bandwidth_measure(b->memory);
    tokens = 0;
    double t = cli_seconds();
    for (int i = 0; i < b->steps; i++) {
        if (step(b, &tokens, err)) return -1;
    }
    double seconds = cli_seconds() - t;
    r->seconds = seconds / b->steps;
    r->tokens = tokens / seconds;
    r->share = (double)engine_describe(b->engine)->token_weight_bytes / r->seconds / r->read;
    for (int i = 0; i < batch; i++) engine_cancel(b->engine, first + (uint64_t)i);
    while (engine_busy(b->engine)) {
        if (step(b, &tokens, err)) return -1;
    }
    b->nrows++;
    return 0;
}

static int run_all(bench *b, engine_error *err) {
    int room = engine_describe(b->engine)->max_context - 2 * b->steps - 2;
    int warm = 0;
    if (add_request(b, room < 16 ? room : 16, 2, err)) return -1;
    while (engine_busy(b->engine)) {
        if (step(b, &warm, err)) return -1;
    }
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        if (contexts[i] <= room && run_prefill(b, contexts[i], err)) return -1;
    }
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        for (size_t k = 0; k < sizeof batches / sizeof *batches && contexts[i] <= room; k++) {
            if (run_decode(b, batches[k], contexts[i], err)) return -1;
        }
    }
    return 0;
}

static double peak_rss(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) ? 0 : (double)u.ru_maxrss * 1024;
}

static void print_table(const bench *b) {
    const engine_info *i = engine_describe(b->engine);
    printf("%s: %s, %.1f M parameters, %.1f MB of weights, %s, %d threads, tp %d\n\n", i->name,
           i->architecture, (double)i->parameters / 1e6, (double)i->weight_bytes / 1e6, i->isa, i->threads,
           i->tp);
    printf("%-8s %6s %8s %12s %12s %12s %16s\n", "", "batch", "context", "tokens/s", "ms", "read GB/s",
           "weights/read");
    for (int k = 0; k < b->nrows; k++) {
        const row *r = &b->rows[k];
        printf("%-8s %6d %8d %12.1f %12.3f %12.1f", r->decode ? "decode" : "prefill", r->batch, r->context,
               r->tokens, r->seconds * 1e3, r->read / 1e9);
        if (r->decode) printf(" %14.0f %%", r->share * 100);
        putchar('\n');
    }
    printf("\nms: of a decode step, or to the first token. weights/read: the weights' bytes a step, as a "
           "share of what the\n"
           "machine read a second before. Peak RSS %.1f MB (%.0f of it for measuring the bandwidth).\n",
           peak_rss() / 1e6, bandwidth_buffer() / 1e6);
}

static void print_json(const bench *b) {
    const engine_info *i = engine_describe(b->engine);
    printf(
        "{\"model\":\"%s\",\"architecture\":\"%s\",\"parameters\":%lld,\"weight_bytes\":%zu,\"isa\":\"%s\",",
        i->name, i->architecture, (long long)i->parameters, i->weight_bytes, i->isa);
    printf("\"threads\":%d,\"tp\":%d,\"peak_rss_bytes\":%.0f,\"rows\":[", i->threads, i->tp, peak_rss());
    for (int k = 0; k < b->nrows; k++) {
        const row *r = &b->rows[k];
        printf("%s{\"kind\":\"%s\",\"batch\":%d,\"context\":%d,\"tokens_per_second\":%.2f,\"seconds\":%.6f,"
               "\"read_bytes_per_second\":%.0f,\"weights_share\":%.4f}",
               k ? "," : "", r->decode ? "decode" : "prefill", r->batch, r->context, r->tokens, r->seconds,
               r->read, r->share);
    }
    printf("]}\n");
}

static int bench_run(bench *b, engine_error *err) {
    b->engine = engine_open(&b->options, err);
    if (!b->engine) return -1;
    const engine_info *i = engine_describe(b->engine);
    b->vocab = i->vocab < 256 ? i->vocab : 256; /* ids that every tokenizer has */
    b->memory = bandwidth_new(i->threads, err);
    return b->memory ? run_all(b, err) : -1;
}

int cli_bench(int argc, char **argv) {
    static bench b = {.options = {.max_seqs = MAX_BATCH}, .steps = 32};
    const arg args[] = {
        {"model", ARG_TEXT, &b.options.model_dir, 0, 0, "DIR", "HuggingFace checkpoint folder"},
        {"random", ARG_TEXT, &b.options.random_shape, 0, 0, "FILE",
         "or a config.json: random weights of that shape"},
        {"threads", ARG_INT, &b.options.threads, 0, 1024, "N", "0: the CPUs this process may use"},
        {"tp", ARG_INT, &b.options.tp, 0, SHARD_RANKS_MAX, "N", "ranks that the model is split over (1)"},
        {"weights", ARG_TEXT, &b.options.weights, 0, 0, "HOW", "stored, int8 or int8-a16 (stored)"},
        {"isa", ARG_TEXT, &b.options.isa, 0, 0, "NAME", "force generic, avx2, avx512 or avx512-vnni"},
        {"steps", ARG_INT, &b.steps, 1, 10000, "N", "decode steps that are timed (32)"},
        {"step-tokens", ARG_INT, &b.options.step_tokens, 0, 1 << 20, "N", "token budget of a step (0: 256)"},
        {"max-context", ARG_INT, &b.options.max_context, 0, 1e9, "N",
         "longest sequence (0: the model's, at most 8192)"},
        {"json", ARG_FLAG, &b.json, 0, 0, NULL, "one JSON object in place of the table"},
        {0},
    };
    const command c = {"bench", "Measures prefill and decode beside the memory's read bandwidth.", args};
    engine_error err;
    int status = args_parse(&c, argc, argv);
    if (status >= 0) return status;
    if (!b.options.model_dir == !b.options.random_shape)
        return args_wrong(&c, "give one of --model and --random");
    int rc = bench_run(&b, &err);
    if (rc == 0 && b.json) print_json(&b);
    if (rc == 0 && !b.json) print_table(&b);
    bandwidth_free(b.memory);
    engine_close(b.engine);
    return rc ? cli_fail("bench", &err) : 0;
}

/* millrace-engine bench: prefill and decode speed, each row beside what the machine can do at best in the same seconds.
 *
 * Requests go through the engine as any other: the figures include scheduling, sampling and text. Prompts are random ids, so no
 * two share a prefix. Each row is the best of a few runs: neighbours on a shared machine only ever take time away.
 */
#include "engine/cli/args.h"
#include "engine/cli/ceilings.h"
#include "engine/cli/cli.h"
#include "engine/engine_internal.h"
#include "engine/model/shard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { MAX_LIST = 8, MAX_ROWS = MAX_LIST * (MAX_LIST + 1), MAX_BATCH = 64 };

typedef struct row {
    bool decode;
    int batch, context;
    double seconds; /* a step of decode, or a prompt's time to first token */
    double tokens;  /* a second, of all sequences */
    double mean;    /* the same over all timed steps, slow ones too */
    double read;    /* bytes a second that the machine can read */
    double share;   /* decode: of that, what reading the weights took; prefill: of the multiplier's peak */
} row;

typedef struct list {
    int n, of[MAX_LIST];
} list;

typedef struct bench {
    engine_options options;
    const char *contexts_text, *batches_text;
    list contexts, batches;
    int steps, repeat;
    bool json;
    engine *engine;
    engine_event events[2 * MAX_BATCH];
    ceilings *machine;
    double int8_peak, bf16_peak; /* operations a second */
    int vocab;
    uint64_t next_id, random;
    row rows[MAX_ROWS];
    int nrows;
} bench;

/* 0 on a GPU, whose ceilings are not this machine's. */
static double read_rate(const bench *b) {
    return b->machine ? ceilings_read(b->machine) : 0;
}

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

/* Steps until every sequence has given its first token; the early ones go on meanwhile. */
static int start_all(bench *b, int batch, engine_error *err) {
    for (int started = 0; started < batch;) {
        int n = engine_step(b->engine, b->events, 2 * MAX_BATCH, err);
        if (n < 0) return -1;
        for (int i = 0; i < n; i++) started += b->events[i].kind == ENGINE_TOKENS && b->events[i].index == 0;
    }
    return 0;
}

/* Operations of a prompt's token: all matrices but the embedding and the head, which only the last token needs. */
static double prefill_operations(const engine_info *i) {
    const bool tied = i->weight_bytes == i->token_weight_bytes;
    return 2 * ((double)i->parameters - (double)i->vocab * i->hidden * (tied ? 1 : 2));
}

static double peak(const bench *b) {
    return b->options.weights && !strcmp(b->options.weights, "int8") ? b->int8_peak : b->bf16_peak;
}

static int run_prefill(bench *b, row *r, engine_error *err) {
    int tokens = 0;
    r->read = read_rate(b);
    if (add_request(b, r->context, 1, err)) return -1;
    const double t = cli_seconds();
    while (engine_busy(b->engine)) {
        if (step(b, &tokens, err)) return -1;
    }
    r->seconds = cli_seconds() - t;
    r->tokens = r->mean = r->context / r->seconds;
    const double most = peak(b);
    r->share = most > 0 ? prefill_operations(engine_describe(b->engine)) * r->tokens / most : 0;
    return 0;
}

static int finish_all(bench *b, uint64_t first, engine_error *err) {
    int tokens = 0;
    for (uint64_t id = first; id < b->next_id; id++) engine_cancel(b->engine, id);
    while (engine_busy(b->engine)) {
        if (step(b, &tokens, err)) return -1;
    }
    return 0;
}

/* What the first sequence decodes until the last has begun and the timed steps are over. No more, for the scheduler admits
 * by what a sequence may grow to. */
static int most_tokens(const bench *b, int batch, int context) {
    const int step_tokens = b->options.step_tokens > 2 * batch ? b->options.step_tokens : 256;
    return batch * (context / (step_tokens - batch) + 2) + b->steps + 2;
}

/* Fills the batch, lets every sequence give its first token, then times steps in which all of them decode. The quickest counts. */
static int run_decode(bench *b, row *r, engine_error *err) {
    int tokens = 0;
    const uint64_t first = b->next_id;
    for (int i = 0; i < r->batch; i++) {
        if (add_request(b, r->context, most_tokens(b, r->batch, r->context), err)) return -1;
    }
    if (start_all(b, r->batch, err)) return -1;
    const double before = read_rate(b);
    double total = 0;
    for (int i = 0; i < b->steps; i++) {
        const double t = cli_seconds();
        if (step(b, &tokens, err)) return -1;
        const double seconds = cli_seconds() - t;
        if (i == 0 || seconds < r->seconds) r->seconds = seconds;
        total += seconds;
    }
    const double after = read_rate(b);
    r->read = before > after ? before : after;
    r->tokens = r->batch / r->seconds;
    r->mean = r->batch * b->steps / total;
    if (r->read > 0) r->share = (double)engine_describe(b->engine)->token_weight_bytes / r->seconds / r->read;
    return finish_all(b, first, err);
}

/* The best of a few runs becomes a row. */
static int run_row(bench *b, bool decode, int batch, int context, engine_error *err) {
    row *best = &b->rows[b->nrows];
    for (int i = 0; i < b->repeat; i++) {
        row r = {.decode = decode, .batch = batch, .context = context};
        if (decode ? run_decode(b, &r, err) : run_prefill(b, &r, err)) return -1;
        if (i == 0 || r.tokens > best->tokens) *best = r;
    }
    b->nrows++;
    return 0;
}

static int run_all(bench *b, engine_error *err) {
    const int most = engine_describe(b->engine)->max_context;
    int warm = 0;
    if (add_request(b, most / 4 + 1, 2, err)) return -1;
    while (engine_busy(b->engine)) {
        if (step(b, &warm, err)) return -1;
    }
    if (b->machine) {
        b->int8_peak = ceilings_int8(b->machine);
        b->bf16_peak = ceilings_bf16(b->machine);
    }
    for (int i = 0; i < b->contexts.n; i++) {
        if (b->contexts.of[i] + 1 < most && run_row(b, false, 1, b->contexts.of[i], err)) return -1;
    }
    for (int i = 0; i < b->contexts.n; i++) {
        for (int k = 0; k < b->batches.n; k++) {
            const int batch = b->batches.of[k], context = b->contexts.of[i];
            if (context + most_tokens(b, batch, context) > most) continue;
            if (run_row(b, true, batch, context, err)) return -1;
        }
    }
    return 0;
}

/* Without the buffer of the ceilings, which was there before the model. */
static double peak_rss(const bench *b) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) ? 0 : (double)u.ru_maxrss * 1024 - (b->machine ? ceilings_buffer() : 0);
}

static void print_table(const bench *b) {
    const engine_info *i = engine_describe(b->engine);
    printf("%s: %s, %.1f M parameters, %.1f MB of weights, %s, %d threads, tp %d\n", i->name, i->architecture,
           (double)i->parameters / 1e6, (double)i->weight_bytes / 1e6, i->isa, i->threads, i->tp);
    if (b->machine)
        printf("ceilings: int8 %.0f Gop/s, bf16 %.0f Gop/s; read bandwidth beside each row\n\n",
               b->int8_peak / 1e9, b->bf16_peak / 1e9);
    printf("%-8s %6s %8s %12s %12s %12s %12s %12s\n", "", "batch", "context", "tokens/s", "mean", "ms",
           "read GB/s", "of ceiling");
    for (int k = 0; k < b->nrows; k++) {
        const row *r = &b->rows[k];
        printf("%-8s %6d %8d %12.1f %12.1f %12.3f %12.1f", r->decode ? "decode" : "prefill", r->batch,
               r->context, r->tokens, r->mean, r->seconds * 1e3, r->read / 1e9);
        if (r->share > 0) printf(" %10.0f %%", r->share * 100);
        putchar('\n');
    }
    printf("\nms: of the quickest decode step, or to the first token; mean: tokens/s over all steps. Of "
           "ceiling: of decode, the weights' bytes a step "
           "as a share "
           "of what the\nmachine reads in the same second; of prefill, the matrices' operations as a share "
           "of the "
           "peak.\nPeak RSS %.1f MB.\n",
           peak_rss(b) / 1e6);
}

static void print_json(const bench *b) {
    const engine_info *i = engine_describe(b->engine);
    printf("{\"model\":\"%s\",\"architecture\":\"%s\",\"parameters\":%lld,\"weight_bytes\":%zu,\"token_"
           "weight_bytes\":%zu,\"isa\":\"%s\",",
           i->name, i->architecture, (long long)i->parameters, i->weight_bytes, i->token_weight_bytes,
           i->isa);
    printf("\"threads\":%d,\"peak_rss_bytes\":%.0f,\"int8_peak\":%.0f,\"bf16_peak\":%.0f,\"rows\":[",
           i->threads, peak_rss(b), b->int8_peak, b->bf16_peak);
    for (int k = 0; k < b->nrows; k++) {
        const row *r = &b->rows[k];
        printf("%s{\"kind\":\"%s\",\"batch\":%d,\"context\":%d,\"tokens_per_second\":%.2f,\"mean_tokens_per_"
               "second\":%.2f,\"seconds\":%.6f,"
               "\"read_bytes_per_second\":%.0f,\"ceiling_share\":%.4f}",
               k ? "," : "", r->decode ? "decode" : "prefill", r->batch, r->context, r->tokens, r->mean,
               r->seconds, r->read, r->share);
    }
    printf("]}\n");
}

/* "1,8,16". False when it is not such a list. */
static bool parse_list(const char *text, int most, list *out) {
    for (out->n = 0; out->n < MAX_LIST; text++) {
        char *end;
        const long v = strtol(text, &end, 10);
        if (end == text || v < 1 || v > most) return false;
        out->of[out->n++] = (int)v;
        if (!*end) return true;
        if (*end != ',') return false;
        text = end;
    }
    return false;
}

static int bench_run(bench *b, engine_error *err) {
    for (int i = 0; i < b->batches.n; i++) {
        if (b->batches.of[i] > b->options.max_seqs) b->options.max_seqs = b->batches.of[i];
    }
    const int gpu = engine_on_gpu(b->options.device, err);
    if (gpu < 0) return -1;
    if (!gpu && !(b->machine = ceilings_new(b->options.threads, b->options.isa, err))) return -1;
    cli_bar bar = {.started = cli_seconds(), .percent = -1};
    b->options.loading = cli_bar_show;
    b->options.loading_arg = &bar;
    b->engine = engine_open(&b->options, err);
    if (!b->engine) return -1;
    const int vocab = engine_describe(b->engine)->vocab;
    b->vocab = vocab < 256 ? vocab : 256; /* ids that every tokenizer has */
    return run_all(b, err);
}

int cli_bench(int argc, char **argv) {
    static bench b = {.steps = 32, .repeat = 3, .contexts_text = "128,512,2048", .batches_text = "1,4,8,16"};
    const arg args[] = {
        {"model", ARG_TEXT, &b.options.model_dir, 0, 0, "DIR", "HuggingFace checkpoint folder"},
        {"random", ARG_TEXT, &b.options.random_shape, 0, 0, "FILE",
         "or a config.json: random weights of that shape"},
        {"device", ARG_TEXT, &b.options.device, 0, 0, "NAME",
         "auto (GPUs where there are any), cpu or cuda (cpu)"},
        {"threads", ARG_INT, &b.options.threads, 0, 1024, "N", "0: the CPUs this process may use"},
        {"tp", ARG_INT, &b.options.tp, 0, SHARD_RANKS_MAX, "N", "ranks that the model is split over (1)"},
        {"weights", ARG_TEXT, &b.options.weights, 0, 0, "HOW",
         "stored, int8, int8-a16; on a GPU also fp8, fp8-a16 (stored)"},
        {"kv", ARG_TEXT, &b.options.kv, 0, 0, "HOW", "KV cache: full or int8 (full)"},
        {"deterministic", ARG_UNLESS, &b.options.any_order, 0, 0, "BOOL",
         "true; false: a token may depend on its batch, and a GPU multiplies by cuBLASLt"},
        {"isa", ARG_TEXT, &b.options.isa, 0, 0, "NAME",
         "force generic, avx2, avx512, avx512-vnni or avx512-bf16"},
        {"context", ARG_TEXT, &b.contexts_text, 0, 0, "LIST", "tokens of the prompts (128,512,2048)"},
        {"batch", ARG_TEXT, &b.batches_text, 0, 0, "LIST", "sequences that decode together (1,4,8,16)"},
        {"steps", ARG_INT, &b.steps, 1, 10000, "N", "decode steps that are timed (32)"},
        {"repeat", ARG_INT, &b.repeat, 1, 1000, "N", "runs of which a row is the best (3)"},
        {"step-tokens", ARG_INT, &b.options.step_tokens, 0, 1 << 20, "N", "token budget of a step (0: 256)"},
        {"max-context", ARG_INT, &b.options.max_context, 0, 1e9, "N",
         "longest sequence (0: the model's, at most 8192)"},
        {"json", ARG_FLAG, &b.json, 0, 0, NULL, "one JSON object in place of the table"},
        {0},
    };
    const command c = {"bench", "Measures prefill and decode beside what the machine can do at best.", args,
                       NULL};
    engine_error err;
    int status = args_parse(&c, argc, argv);
    if (status >= 0) return status;
    if (!b.options.model_dir == !b.options.random_shape)
        return args_wrong(&c, "give one of --model and --random");
    if (!parse_list(b.contexts_text, 1 << 20, &b.contexts) ||
        !parse_list(b.batches_text, MAX_BATCH, &b.batches))
        return args_wrong(&c, "--context and --batch want up to %d numbers with commas, batches up to %d",
                          MAX_LIST, MAX_BATCH);
    if (!b.options.threads) b.options.threads = cli_cpus();
    int rc = bench_run(&b, &err);
    if (rc == 0 && b.json) print_json(&b);
    if (rc == 0 && !b.json) print_table(&b);
    ceilings_free(b.machine);
    engine_close(b.engine);
    return rc ? cli_fail("bench", &err) : 0;
}

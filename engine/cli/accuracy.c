/* millrace-engine accuracy: what 8-bit weights and KV cache change in a model's predictions of a text. */
#include "engine/accuracy.h"
#include "engine/cli/args.h"
#include "engine/cli/cli.h"
#include "engine/engine_internal.h"
#include "engine/model/files.h"
#include "engine/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 256 << 20 };

typedef struct job {
    const char *dir, *shape, *text_path, *other, *isa, *device;
    int window, tokens, threads;
    bool json, gpu;
    model *model, *other_model;
    model *twin; /* random weights are made anew for each backend that copies them */
    int32_t *ids;
    size_t n;
} job;

static int parse(job *j, int argc, char **argv) {
    const arg args[] = {
        {"model", ARG_TEXT, &j->dir, 0, 0, "DIR", "HuggingFace checkpoint folder: the reference"},
        {"text", ARG_TEXT, &j->text_path, 0, 0, "FILE", "and a text to predict"},
        {"random", ARG_TEXT, &j->shape, 0, 0, "FILE",
         "or a config.json: random weights of that shape, random tokens"},
        {"other", ARG_TEXT, &j->other, 0, 0, "DIR", "also this checkpoint as it is, such as quantize made"},
        {"tokens", ARG_INT, &j->tokens, 2, 1e9, "N", "of the text at most (8192)"},
        {"window", ARG_INT, &j->window, 2, 1e9, "N", "tokens that are seen together (256)"},
        {"device", ARG_TEXT, &j->device, 0, 0, "NAME", "auto, cpu or cuda (cpu)"},
        {"threads", ARG_INT, &j->threads, 0, 1024, "N", "0: the CPUs this process may use"},
        {"isa", ARG_TEXT, &j->isa, 0, 0, "NAME", "force generic, avx2, avx512, avx512-vnni or avx512-bf16"},
        {"json", ARG_FLAG, &j->json, 0, 0, NULL, "one JSON object a line in place of the table"},
        {0},
    };
    const command c = {
        "accuracy", "Measures what 8-bit weights and KV cache change in predictions of a text.", args, NULL};
    int status = args_parse(&c, argc, argv);
    if (status >= 0) return status;
    if (!j->dir == !j->shape) return args_wrong(&c, "give one of --model and --random");
    return j->shape || j->text_path ? -1 : args_wrong(&c, "--text is missing");
}

static int take_ids(job *j, size_t n, engine_error *err) {
    j->ids = calloc(n + 1, sizeof *j->ids);
    return j->ids ? 0 : engine_fail(err, ENGINE_ENOMEM, "no memory for the tokens");
}

static int encode(job *j, const tokenizer *t, const char *text, size_t bytes, engine_error *err) {
    if (take_ids(j, bytes, err)) return -1;
    const int64_t n = tokenizer_encode(t, text, bytes, false, j->ids, bytes, err);
    if (n >= 0) j->n = (size_t)n;
    return n < 0 ? -1 : 0;
}

static int read_text(job *j, engine_error *err) {
    size_t bytes = 0;
    char *text = checkpoint_read(NULL, j->text_path, TEXT_MAX, &bytes, err);
    tokenizer *t = text ? tokenizer_load(j->dir, err) : NULL;
    int rc = t ? encode(j, t, text, bytes, err) : -1;
    tokenizer_free(t);
    free(text);
    return rc;
}

static int make_text(job *j, engine_error *err) {
    uint64_t r = 1;
    j->n = (size_t)j->tokens;
    if (take_ids(j, j->n, err)) return -1;
    for (size_t i = 0; i < j->n; i++) {
        r = r * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        j->ids[i] = (int32_t)((r >> 33) % (uint64_t)j->model->config.vocab);
    }
    return 0;
}

static void print_row(const job *j, const char *weights, const char *kv, const accuracy *a) {
    if (j->json) {
        printf("{\"weights\":\"%s\",\"kv\":\"%s\",\"tokens\":%lld,\"perplexity\":%.6f,\"kl\":%.8f,"
               "\"worst_kl\":%.8f,\"same_best\":%.6f,\"weight_bytes\":%zu,\"kv_bytes\":%zu}\n",
               weights, kv, (long long)a->tokens, a->perplexity, a->kl, a->worst_kl, a->same_best,
               a->weight_bytes, a->kv_bytes);
        return;
    }
    printf("%-10s %-6s %12.4f %14.6f %12.4f %10.2f %% %12.1f\n", weights, kv, a->perplexity, a->kl,
           a->worst_kl, a->same_best * 100, (double)a->weight_bytes / 1e6);
}

static int run(job *j, engine_error *err) {
    static const struct format {
        const char *weights, *kv;
    } of_cpu[] = {{"stored", "full"},
                  {"int8", "full"},
                  {"int8-a16", "full"},
                  {"stored", "int8"},
                  {"int8", "int8"}},
      of_gpu[] = {
          {"stored", "full"}, {"int8", "full"}, {"int8-a16", "full"}, {"fp8", "full"}, {"fp8-a16", "full"}};
    _Static_assert(sizeof of_cpu == sizeof of_gpu, "as many rows on either device");
    const struct format *formats = j->gpu ? of_gpu : of_cpu;
    const accuracy_text text = {j->ids, j->n < (size_t)j->tokens ? j->n : (size_t)j->tokens, j->window};
    const accuracy_side reference = {.model = j->model, .threads = j->threads, .isa = j->isa, .gpu = j->gpu};
    accuracy_side side = reference;
    accuracy a;
    if (!j->json) {
        printf("%-10s %-6s %12s %14s %12s %12s %12s\n", "weights", "KV", "perplexity", "KL nats/token",
               "worst KL", "same best", "weights MB");
    }
    if (j->twin) side.model = j->twin;
    for (size_t i = 0; i < sizeof of_cpu / sizeof *of_cpu; i++) {
        side.weights = formats[i].weights;
        side.kv = formats[i].kv;
        if (accuracy_measure(&reference, &side, &text, &a, err)) return -1;
        print_row(j, side.weights, side.kv, &a);
    }
    if (j->other_model) {
        side = reference;
        side.model = j->other_model;
        if (accuracy_measure(&reference, &side, &text, &a, err)) return -1;
        print_row(j, "other", "full", &a);
    }
    if (!j->json) {
        printf("\n%lld tokens predicted, in windows of %d; KL: of each row's predictions from those of the "
               "first.\n",
               (long long)a.tokens, j->window);
    }
    return 0;
}

static int measure(job *j, engine_error *err) {
    const int gpu = engine_on_gpu(j->device, err);
    if (gpu < 0) return -1;
    j->gpu = gpu;
    j->model = j->shape ? model_random(j->shape, err) : model_open(j->dir, err);
    if (!j->model) return -1;
    if (j->shape && !(j->twin = model_random(j->shape, err))) return -1;
    if (j->other && !(j->other_model = model_open(j->other, err))) return -1;
    if (j->shape ? make_text(j, err) : read_text(j, err)) return -1;
    return run(j, err);
}

int cli_accuracy(int argc, char **argv) {
    job j = {.window = 256, .tokens = 8192};
    engine_error err;
    int status = parse(&j, argc, argv);
    if (status >= 0) return status;
    if (!j.threads) j.threads = cli_cpus();
    int rc = measure(&j, &err);
    free(j.ids);
    model_close(j.other_model);
    model_close(j.twin);
    model_close(j.model);
    return rc ? cli_fail("accuracy", &err) : 0;
}

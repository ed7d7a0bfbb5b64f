/* compare DIR [WEIGHTS]: a checkpoint on the CPU and on the GPU, and what transformers computed from it (checkpoints.py).
 *
 * Both backends read DIR/prompt.txt and then, token by token, DIR/greedy.txt, the reference's likeliest tokens, and must find the
 * same token likeliest at each place; a place where two tokens are nearer than the bar for logits proves nothing and is left
 * out. Exit status 1 when something differs.
 */
#include "engine/backend.h"
#include "engine/cuda/cuda.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IDS_MAX = 1024, BLOCK = 16, BLOCKS = IDS_MAX / BLOCK };

typedef struct place {
    int token;
    double lead; /* of the best logit over the next */
} place;

typedef struct tally {
    int places, open, cpu_wrong, gpu_wrong;
    double worst, bar; /* difference of logits */
} tally;

static int read_ids(const char *dir, const char *name, int32_t *ids) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    int n = 0;
    while (f && n < IDS_MAX / 2 && fscanf(f, "%d", &ids[n]) == 1) n++;
    if (f) fclose(f);
    if (!n) fprintf(stderr, "compare: %s has no token ids\n", path);
    return n;
}

static place best_of(const float *x, int vocab) {
    place p = {0, INFINITY};
    for (int i = 1; i < vocab; i++) {
        if (x[i] > x[p.token]) p.token = i;
    }
    for (int i = 0; i < vocab; i++) {
        if (i != p.token && (double)x[p.token] - (double)x[i] < p.lead)
            p.lead = (double)x[p.token] - (double)x[i];
    }
    return p;
}

static void count(tally *t, const float *cpu, const float *gpu, int vocab, int reference) {
    const place of_cpu = best_of(cpu, vocab), of_gpu = best_of(gpu, vocab);
    for (int i = 0; i < vocab; i++) {
        const double d = fabs((double)cpu[i] - (double)gpu[i]);
        if (!(d <= t->worst)) t->worst = d;
    }
    t->places++;
    if (of_cpu.lead < t->bar) {
        t->open++;
        return;
    }
    t->cpu_wrong += of_cpu.token != reference;
    t->gpu_wrong += of_gpu.token != reference;
}

static int pass(backend *b, const int32_t *ids, int n, int pos, float **logits, engine_error *err) {
    int32_t blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) blocks[i] = (i * 37 + 5) % BLOCKS; /* out of order */
    const batch_seq s = {.tokens = ids, .ntokens = n, .pos = pos, .blocks = blocks, .nlogits = 1};
    return backend_forward(b, &s, 1, logits, err);
}

static int run(backend *cpu, backend *gpu, const char *dir, int vocab, tally *t, engine_error *err) {
    int32_t prompt[IDS_MAX], greedy[IDS_MAX];
    const int n = read_ids(dir, "prompt.txt", prompt), m = read_ids(dir, "greedy.txt", greedy);
    if (!n || !m) return engine_fail(err, ENGINE_EIO, "nothing to compare with");
    for (int i = 0; i < m; i++) {
        const int32_t *ids = i ? &greedy[i - 1] : prompt;
        float *a = NULL, *b = NULL;
        if (pass(cpu, ids, i ? 1 : n, i ? n + i - 1 : 0, &a, err)) return -1;
        if (pass(gpu, ids, i ? 1 : n, i ? n + i - 1 : 0, &b, err)) return -1;
        count(t, a, b, vocab, greedy[i]);
    }
    return 0;
}

/* The bars of tests/golden, for logits of about 1. What e4m3 rounds is compared with what is stored. */
static double bar_of(const model *m, const char *weights) {
    if (weights && !strncmp(weights, "fp8", 3)) return 0.5;
    return m->config.stored == DTYPE_F32 && !weights ? 1e-3 : 5e-2;
}

int main(int argc, char **argv) {
    const char *weights = argc > 2 && strcmp(argv[2], "stored") ? argv[2] : NULL;
    engine_error err = {0};
    tally t = {0};
    if (argc < 2) return fprintf(stderr, "Usage: compare DIR [WEIGHTS]\n"), 2;
    model *m = model_open(argv[1], &err);
    backend_options o = {.threads = 4,
                         .weights = weights && !strncmp(weights, "int8", 4) ? weights : NULL,
                         .kv_blocks = BLOCKS,
                         .block_tokens = BLOCK,
                         .max_tokens = IDS_MAX / 2,
                         .max_logits = 1,
                         .max_seqs = 1,
                         .max_blocks_per_seq = BLOCKS};
    backend *cpu = m ? backend_open_cpu(m, &o, &err) : NULL;
    o.weights = weights;
    backend *gpu = cpu ? backend_open_cuda(m, &o, &err) : NULL;
    if (m) t.bar = bar_of(m, weights);
    const int rc = gpu ? run(cpu, gpu, argv[1], m->config.vocab, &t, &err) : -1;
    if (rc) fprintf(stderr, "compare: %s\n", err.msg);
    /* 8 bits change what is likeliest: then only that both agree is asked for */
    const bool same = !rc && t.worst <= t.bar && (weights || (!t.cpu_wrong && !t.gpu_wrong));
    if (!rc)
        printf("%s %s: logits differ by %.3g (bar %.3g); of %d tokens the CPU has %d and the GPU %d that "
               "transformers has not, "
               "%d too close to tell: %s\n",
               argv[1], weights ? weights : "stored", t.worst, t.bar, t.places, t.cpu_wrong, t.gpu_wrong,
               t.open, same ? "ok" : "WRONG");
    backend_close(gpu);
    backend_close(cpu);
    model_close(m);
    return same ? 0 : 1;
}

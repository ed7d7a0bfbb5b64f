/* millrace-engine inspect: what a checkpoint is, which tensors it has, and the memory that serving it takes. */
#include "engine/cli/args.h"
#include "engine/cli/cli.h"
#include "engine/cuda/cuda.h"
#include "engine/engine_internal.h"
#include "engine/model/shard.h"
#include "engine/text/template.h"

#include <stdio.h>
#include <string.h>

static const char *const dtypes[] = {
    [DTYPE_F32] = "f32", [DTYPE_F16] = "f16", [DTYPE_BF16] = "bf16", [DTYPE_I8] = "int8"};
static const char *const ropes[] = {
    [ROPE_PLAIN] = "plain", [ROPE_LINEAR] = "linear", [ROPE_LLAMA3] = "llama3", [ROPE_YARN] = "yarn"};

enum { PLAN_BLOCK = 16 };

static double mb(size_t bytes) {
    return (double)bytes / 1e6;
}

static void print_config(const model *m) {
    const model_config *c = &m->config;
    printf("architecture   %s, %.1f M parameters in %s%s\n", c->architecture, (double)m->parameters / 1e6,
           dtypes[c->stored],
           !c->int8              ? ""
           : c->int8_activations ? ", matrices in int8 (W8A8)"
                                 : ", matrices in int8 (W8A16)");
    printf("layers         %d, %d wide, %d inside\n", c->layers, c->hidden, c->intermediate);
    printf("attention      %d heads of %d, %d for keys and values\n", c->heads, c->head_dim, c->kv_heads);
    printf("positions      %d, rope %s, theta %g", c->max_position, ropes[c->rope], c->rope_theta);
    if (c->rope != ROPE_PLAIN) printf(", factor %g", c->rope_factor);
    printf("\nvocabulary     %d, head %s\n", c->vocab,
           c->tied_embeddings ? "tied to the embedding" : "of its own");
}

/* A chat template that is not recognised is no failure: its name can be given in the configuration. */
static int print_text(const char *dir, engine_error *err) {
    tokenizer *t = tokenizer_load(dir, err);
    if (!t) return -1;
    printf("tokenizer      %d ids, bos %d, eos %d\n", tokenizer_vocab(t), tokenizer_bos(t), tokenizer_eos(t));
    chat_template *c = chat_template_new(t, NULL, err);
    printf("chat template  %s%s\n", c ? chat_template_name(c) : err->msg,
           c && chat_template_opens_thinking(c) ? ", answers begin with reasoning" : "");
    chat_template_free(c);
    tokenizer_free(t);
    return 0;
}

static void print_tensor(const char *name, const tensor *t, int times) {
    if (!t->data) return;
    printf("  %-12s %-4s %7lld x %-7lld", name, dtypes[t->type], (long long)t->rows, (long long)t->cols);
    printf(" %9.2f MB", mb(tensor_bytes(t)));
    if (t->type == DTYPE_I8)
        printf(" with %lld scales a row in %s", (long long)t->row_scales, dtypes[t->scale_type]);
    if (times > 1) printf(" x %d layers", times);
    putchar('\n');
}

static void print_tensors(const model *m) {
    const model_layer *l = &m->layer[0];
    int n = m->config.layers;
    const struct {
        const char *name;
        const tensor *t;
    } layer[] = {
        {"attn_norm", &l->attn_norm},
        {"q", &l->q},
        {"k", &l->k},
        {"v", &l->v},
        {"q_bias", &l->q_bias},
        {"k_bias", &l->k_bias},
        {"v_bias", &l->v_bias},
        {"o", &l->o},
        {"o_bias", &l->o_bias},
        {"mlp_norm", &l->mlp_norm},
        {"gate", &l->gate},
        {"up", &l->up},
        {"down", &l->down},
    };
    printf("tensors\n");
    print_tensor("embed", &m->embed, 1);
    for (size_t i = 0; i < sizeof layer / sizeof *layer; i++) print_tensor(layer[i].name, layer[i].t, n);
    print_tensor("final_norm", &m->final_norm, 1);
    if (!m->config.tied_embeddings) print_tensor("head", &m->head, 1);
}

/* ---- memory ---- */

typedef struct plan {
    bool wanted, any_order;
    const char *device;
    bool gpu;
    int tp, context, seqs, step_tokens;
    float gib; /* that a rank has; 0: what this machine has free, shared by the ranks */
} plan;

static int measure(const model *m, const plan *p, const char *weights, const char *kv, backend_memory *out,
                   engine_error *err) {
    const int blocks = (p->context + PLAN_BLOCK - 1) / PLAN_BLOCK;
    const backend_options o = {.threads = 1,
                               .weights = weights,
                               .kv = kv,
                               .any_order = p->any_order,
                               .kv_blocks = blocks * p->seqs,
                               .block_tokens = PLAN_BLOCK,
                               .max_tokens = p->step_tokens > p->seqs ? p->step_tokens : p->seqs,
                               .max_logits = p->seqs,
                               .max_seqs = p->seqs,
                               .max_blocks_per_seq = blocks};
    return engine_measure(m, p->gpu, p->tp, o, out, err);
}

static double gib(size_t bytes) {
    return (double)bytes / ((size_t)1 << 30);
}

/* Prints one format; *fits becomes true where it does. */
static int print_need(const model *m, const plan *p, size_t room, const char *weights, const char *kv,
                      bool *fits, engine_error *err) {
    backend_memory need;
    if (measure(m, p, weights, kv, &need, err)) return -1;
    const size_t total = need.weights + need.kv + need.workspace;
    printf("  %-8s %-5s %10.2f %10.2f %10.2f %10.2f  ", weights, kv, gib(need.weights), gib(need.kv),
           gib(need.workspace), gib(total));
    if (total <= room)
        printf("fits, %.2f free\n", gib(room - total));
    else
        printf("does not fit: %.2f too much\n", gib(total - room));
    *fits |= total <= room;
    return 0;
}

/* That a rank has: what was said, or what is free here. */
static size_t room_of(const plan *p) {
    if (p->gib > 0) return (size_t)((double)p->gib * ((size_t)1 << 30));
    return p->gpu ? cuda_free_memory() : engine_available_memory() / (size_t)p->tp;
}

static int print_memory(const model *m, const plan *p, engine_error *err) {
    static const char *const cpu[][2] = {
        {"stored", "full"}, {"stored", "int8"}, {"int8", "full"}, {"int8", "int8"}};
    static const char *const gpu[][2] = {
        {"stored", "full"}, {"int8", "full"}, {"int8-a16", "full"}, {"fp8", "full"}, {"fp8-a16", "full"}};
    const char *const(*formats)[2] = p->gpu ? gpu : cpu;
    const size_t nformats = p->gpu ? sizeof gpu / sizeof *gpu : sizeof cpu / sizeof *cpu, room = room_of(p);
    bool fits = false;
    printf("memory         GiB on each of %d %s%s that ha%s %.1f, for %d sequence%s of %d tokens\n", p->tp,
           p->gpu ? "GPU" : "rank", p->tp > 1 ? "s" : "", p->tp > 1 ? "ve" : "s", gib(room), p->seqs,
           p->seqs > 1 ? "s" : "", p->context);
    printf("  %-8s %-5s %10s %10s %10s %10s\n", "weights", "KV", "weights", "KV", "workspace", "together");
    for (size_t i = 0; i < nformats; i++) {
        if (print_need(m, p, room, formats[i][0], formats[i][1], &fits, err)) return -1;
    }
    if (fits || !p->wanted) return 0;
    return engine_fail(
        err, ENGINE_ENOMEM,
        "no format fits in %.1f GiB a rank: more ranks (--tp), a shorter --context or fewer --seqs "
        "may",
        gib(room));
}

static int check_plan(plan *p, const model_config *c, engine_error *err) {
    const int gpu = engine_on_gpu(p->device, err);
    if (gpu < 0) return -1;
    p->gpu = gpu;
    if (!p->context) p->context = c->max_position < 8192 ? c->max_position : 8192;
    if (p->context > c->max_position)
        return engine_fail(err, ENGINE_EINVAL, "--context is %d, but the model was made for %d positions",
                           p->context, c->max_position);
    return shard_check(c, p->tp, err);
}

static int show(const char *dir, const char *shape, plan *p, engine_error *err) {
    model *m = shape ? model_random(shape, err) : model_open(dir, err);
    int rc = m ? 0 : -1;
    if (m && (!p->wanted || shape)) print_config(m);
    if (m && !shape && !p->wanted) {
        rc = print_text(dir, err);
        print_tensors(m);
    }
    if (rc == 0) rc = check_plan(p, &m->config, err);
    if (rc == 0) rc = print_memory(m, p, err);
    model_close(m);
    return rc;
}

int cli_inspect(int argc, char **argv) {
    const char *dir = NULL, *shape = NULL;
    plan p = {.tp = 1, .seqs = 16, .step_tokens = 256};
    const arg args[] = {
        {"model", ARG_TEXT, &dir, 0, 0, "DIR", "HuggingFace checkpoint folder"},
        {"shape", ARG_TEXT, &shape, 0, 0, "FILE", "or only a config.json"},
        {"memory", ARG_FLAG, &p.wanted, 0, 0, NULL,
         "only the memory that serving it needs; fails where no format fits"},
        {"device", ARG_TEXT, &p.device, 0, 0, "NAME", "memory of a CPU or of GPUs: auto, cpu or cuda (cpu)"},
        {"tp", ARG_INT, &p.tp, 1, SHARD_RANKS_MAX, "N", "ranks that the model is split over (1)"},
        {"context", ARG_INT, &p.context, 0, 1e9, "N", "tokens of a sequence (0: the model's, at most 8192)"},
        {"seqs", ARG_INT, &p.seqs, 1, 4096, "N", "sequences at once, of the whole context (16)"},
        {"step-tokens", ARG_INT, &p.step_tokens, 1, 1 << 20, "N", "token budget of a step (256)"},
        {"deterministic", ARG_UNLESS, &p.any_order, 0, 0, "BOOL",
         "true; false: on a GPU with the room that cuBLASLt takes"},
        {"memory-gib", ARG_NUMBER, &p.gib, 0, 1e6, "G", "that a rank has (0: what this machine has free)"},
        {0},
    };
    const command c = {"inspect", "Shows what a checkpoint is, its tensors, and the memory it needs.", args,
                       NULL};
    engine_error err;
    int status = args_parse(&c, argc, argv);
    if (status >= 0) return status;
    if (!dir == !shape) return args_wrong(&c, "give one of --model and --shape");
    return show(dir, shape, &p, &err) ? cli_fail("inspect", &err) : 0;
}

/* millrace-engine inspect: what a checkpoint is, which tensors it has, and the memory that serving it takes. */
#include "engine/cli/args.h"
#include "engine/cli/cli.h"
#include "engine/engine_internal.h"
#include "engine/text/template.h"

#include <stdio.h>
#include <string.h>

static const char *const dtypes[] = {[DTYPE_F32] = "f32", [DTYPE_F16] = "f16", [DTYPE_BF16] = "bf16"};
static const char *const ropes[] = {
    [ROPE_PLAIN] = "plain", [ROPE_LINEAR] = "linear", [ROPE_LLAMA3] = "llama3", [ROPE_YARN] = "yarn"};

static double mb(size_t bytes) {
    return (double)bytes / 1e6;
}

static size_t tensor_bytes(const tensor *t) {
    return (size_t)t->rows * (size_t)t->cols * dtype_bytes(t->type);
}

static void print_config(const model *m) {
    const model_config *c = &m->config;
    printf("architecture   %s, %.1f M parameters in %s\n", c->architecture, (double)m->parameters / 1e6,
           dtypes[c->stored]);
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

static void print_memory(const model *m) {
    size_t token = engine_kv_bytes_per_token(&m->config);
    size_t context = m->config.max_position < 8192 ? (size_t)m->config.max_position : 8192;
    printf("memory         weights %.1f MB, KV cache %.3f MB a thousand tokens:\n", mb(m->bytes),
           mb(token * 1000));
    for (size_t seqs = 1; seqs <= 16; seqs *= 4) {
        printf("               %.1f MB for %zu sequence%s of %zu tokens\n",
               mb(m->bytes + seqs * context * token), seqs, seqs > 1 ? "s" : "", context);
    }
}

int cli_inspect(int argc, char **argv) {
    const char *dir = NULL;
    const arg args[] = {{"model", ARG_TEXT, &dir, 0, 0, "DIR", "HuggingFace checkpoint folder (required)"},
                        {0}};
    const command c = {"inspect", "Shows what a checkpoint is, its tensors, and the memory it needs.", args};
    engine_error err;
    int status = args_parse(&c, argc, argv);
    if (status >= 0) return status;
    if (!dir) return args_wrong(&c, "--model is missing");
    model *m = model_open(dir, &err);
    if (!m) return cli_fail("inspect", &err);
    print_config(m);
    int rc = print_text(dir, &err);
    print_memory(m);
    print_tensors(m);
    model_close(m);
    return rc == 0 ? 0 : cli_fail("inspect", &err);
}

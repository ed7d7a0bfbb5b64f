/* The table of weights. Called while a model opens, from one thread. */
#include "engine/model/weights.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct walk {
    model *model;
    weight_source *source;
    void *arg;
    engine_error *err;
} walk;

static int take(walk *w, const char *name, int64_t rows, int64_t cols, tensor *out) {
    *out = (tensor){.rows = rows, .cols = cols};
    if (w->source(w->arg, name, out, w->err)) return -1;
    w->model->parameters += rows * cols;
    w->model->bytes += tensor_bytes(out);
    return 0;
}

static int take_layer(walk *w, int i) {
    const model_config *c = &w->model->config;
    model_layer *l = &w->model->layer[i];
    int64_t q = (int64_t)c->heads * c->head_dim, kv = (int64_t)c->kv_heads * c->head_dim;
    bool qkv_bias = c->qkv_bias || c->attention_bias;
    const struct {
        bool there;
        const char *name;
        int64_t rows, cols;
        tensor *out;
    } parts[] = {
        {true, "input_layernorm.weight", 1, c->hidden, &l->attn_norm},
        {true, "self_attn.q_proj.weight", q, c->hidden, &l->q},
        {true, "self_attn.k_proj.weight", kv, c->hidden, &l->k},
        {true, "self_attn.v_proj.weight", kv, c->hidden, &l->v},
        {true, "self_attn.o_proj.weight", c->hidden, q, &l->o},
        {true, "post_attention_layernorm.weight", 1, c->hidden, &l->mlp_norm},
        {true, "mlp.gate_proj.weight", c->intermediate, c->hidden, &l->gate},
        {true, "mlp.up_proj.weight", c->intermediate, c->hidden, &l->up},
        {true, "mlp.down_proj.weight", c->hidden, c->intermediate, &l->down},
        {qkv_bias, "self_attn.q_proj.bias", 1, q, &l->q_bias},
        {qkv_bias, "self_attn.k_proj.bias", 1, kv, &l->k_bias},
        {qkv_bias, "self_attn.v_proj.bias", 1, kv, &l->v_bias},
        {c->attention_bias, "self_attn.o_proj.bias", 1, c->hidden, &l->o_bias},
        {c->mlp_bias, "mlp.gate_proj.bias", 1, c->intermediate, &l->gate_bias},
        {c->mlp_bias, "mlp.up_proj.bias", 1, c->intermediate, &l->up_bias},
        {c->mlp_bias, "mlp.down_proj.bias", 1, c->hidden, &l->down_bias},
    };
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        char name[WEIGHT_NAME_MAX];
        snprintf(name, sizeof name, "model.layers.%d.%s", i, parts[p].name);
        if (parts[p].there && take(w, name, parts[p].rows, parts[p].cols, parts[p].out)) return -1;
    }
    return 0;
}

int model_each_weight(model *m, weight_source *source, void *arg, engine_error *err) {
    const model_config *c = &m->config;
    walk w = {.model = m, .source = source, .arg = arg, .err = err};
    if (!m->layer) m->layer = calloc((size_t)c->layers, sizeof *m->layer);
    if (!m->layer) return engine_fail(err, ENGINE_ENOMEM, "out of memory");
    m->parameters = 0;
    m->bytes = 0;
    if (take(&w, "model.embed_tokens.weight", c->vocab, c->hidden, &m->embed) ||
        take(&w, "model.norm.weight", 1, c->hidden, &m->final_norm)) {
        return -1;
    }
    m->head = m->embed;
    if (!c->tied_embeddings && take(&w, "lm_head.weight", c->vocab, c->hidden, &m->head)) return -1;
    for (int i = 0; i < c->layers; i++) {
        if (take_layer(&w, i)) return -1;
    }
    return 0;
}

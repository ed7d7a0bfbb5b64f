/* Opens a checkpoint folder: its shards, and every weight by its HuggingFace name with its shape checked.
 *
 * Called from one thread. The model owns the mappings; tensors are views into them and live as long as it does. Weights are
 * not read here: pages come in when the backend first touches them.
 */
#include "engine/model/model.h"
#include "engine/model/files.h"
#include "engine/model/safetensors.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_FILE     "model.safetensors.index.json"
#define SINGLE_FILE    "model.safetensors"
#define INDEX_FILE_MAX (64u << 20)
#define SHARDS_MAX     4096

/* name -> shard comes from the index; without one there is a single file. */
typedef struct model_files {
    json_t *index; /* owner of weight_map, NULL for a single file */
    const json_t *weight_map;
    struct {
        char *name;
        safetensors *file;
    } * shard;
    size_t nshards;
} model_files;

static void files_free(model_files *f) {
    if (!f) return;
    for (size_t i = 0; i < f->nshards; i++) {
        safetensors_close(f->shard[i].file);
        free(f->shard[i].name);
    }
    free(f->shard);
    json_decref(f->index);
    free(f);
}

static safetensors *files_shard(const model_files *f, const char *name) {
    for (size_t i = 0; i < f->nshards; i++) {
        if (!strcmp(f->shard[i].name, name)) return f->shard[i].file;
    }
    return NULL;
}

static int files_add_shard(model_files *f, const char *dir, const char *name, engine_error *err) {
    char path[CHECKPOINT_PATH_MAX];
    if (f->nshards == SHARDS_MAX) return engine_fail(err, ENGINE_EFORMAT, "more than %d shards", SHARDS_MAX);
    if (checkpoint_path(path, dir, name, err)) return -1;
    void *grown = realloc(f->shard, (f->nshards + 1) * sizeof *f->shard);
    if (!grown) return engine_fail(err, ENGINE_ENOMEM, "out of memory");
    f->shard = grown;
    char *copy = strdup(name);
    if (!copy) return engine_fail(err, ENGINE_ENOMEM, "out of memory");
    safetensors *file = safetensors_open(path, err);
    if (!file) {
        free(copy);
        return -1;
    }
    f->shard[f->nshards].name = copy;
    f->shard[f->nshards++].file = file;
    return 0;
}

/* A shard is a plain file name beside the index: a path out of the folder is refused. */
static int files_open_shards(model_files *f, const char *dir, engine_error *err) {
    const char *tensor_name;
    json_t *v;
    json_object_foreach((json_t *)f->weight_map, tensor_name, v) {
        const char *shard = json_string_value(v);
        if (!shard || !*shard || strchr(shard, '/')) {
            return engine_fail(err, ENGINE_EFORMAT, "%s: tensor %s has no valid shard name", INDEX_FILE,
                               tensor_name);
        }
        if (!files_shard(f, shard) && files_add_shard(f, dir, shard, err)) return -1;
    }
    return 0;
}

static int files_open_index(model_files *f, const char *dir, engine_error *err) {
    size_t n = 0;
    char *text = checkpoint_read(dir, INDEX_FILE, INDEX_FILE_MAX, &n, err);
    if (!text) return -1;
    json_error_t je;
    f->index = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
    free(text);
    if (!f->index)
        return engine_fail(err, ENGINE_EFORMAT, "%s/%s: line %d: %s", dir, INDEX_FILE, je.line, je.text);
    f->weight_map = json_object_get(f->index, "weight_map");
    if (!json_is_object(f->weight_map)) {
        return engine_fail(err, ENGINE_EFORMAT, "%s/%s: \"weight_map\" is missing", dir, INDEX_FILE);
    }
    return files_open_shards(f, dir, err);
}

static model_files *files_open(const char *dir, engine_error *err) {
    model_files *f = calloc(1, sizeof *f);
    if (!f) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
        return NULL;
    }
    int rc;
    if (checkpoint_has(dir, SINGLE_FILE)) {
        rc = files_add_shard(f, dir, SINGLE_FILE, err);
    } else if (checkpoint_has(dir, INDEX_FILE)) {
        rc = files_open_index(f, dir, err);
    } else {
        rc = engine_fail(err, ENGINE_EIO, "%s has neither %s nor %s: give a HuggingFace checkpoint folder",
                         dir, SINGLE_FILE, INDEX_FILE);
    }
    if (!rc) return f;
    files_free(f);
    return NULL;
}

static const safetensors_entry *files_find(const model_files *f, const char *name) {
    if (!f->weight_map) return safetensors_find(f->shard[0].file, name);
    const char *shard = json_string_value(json_object_get(f->weight_map, name));
    return shard ? safetensors_find(files_shard(f, shard), name) : NULL;
}

static int parse_dtype(const char *name, dtype *out) {
    static const char *const names[] = {[DTYPE_F32] = "F32", [DTYPE_F16] = "F16", [DTYPE_BF16] = "BF16"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!strcmp(name, names[i])) {
            *out = (dtype)i;
            return 0;
        }
    }
    return -1;
}

/* A weight by name; rows 0 means a vector of cols. */
static int find_weight(model *m, const char *name, int64_t rows, int64_t cols, tensor *out,
                       engine_error *err) {
    const safetensors_entry *e = files_find(m->files, name);
    if (!e) return engine_fail(err, ENGINE_EFORMAT, "tensor %s is missing", name);
    if (parse_dtype(e->dtype, &out->type)) {
        return engine_fail(err, ENGINE_EFORMAT, "tensor %s has dtype %.20s: F32, F16 and BF16 are supported",
                           name, e->dtype);
    }
    bool matrix = e->ndims == 2 && e->dims[0] == rows && e->dims[1] == cols;
    bool vector = e->ndims == 1 && e->dims[0] == cols;
    if (rows ? !matrix : !vector) {
        return engine_fail(
            err, ENGINE_EFORMAT,
            "tensor %s has shape [%lld, %lld] (%d dimensions) where config.json says [%lld, %lld]", name,
            (long long)(e->ndims > 0 ? e->dims[0] : 0), (long long)(e->ndims > 1 ? e->dims[1] : 1), e->ndims,
            (long long)(rows ? rows : cols), (long long)(rows ? cols : 1));
    }
    if ((uintptr_t)e->data % (out->type == DTYPE_F32 ? 4 : 2)) {
        return engine_fail(
            err, ENGINE_EFORMAT,
            "tensor %s is not aligned in its file: save the checkpoint again with safetensors >= 0.3", name);
    }
    out->data = e->data;
    out->rows = rows ? rows : 1;
    out->cols = cols;
    m->parameters += out->rows * cols;
    m->bytes += e->bytes;
    return 0;
}

static int find_in_layer(model *m, int layer, const char *part, int64_t rows, int64_t cols, tensor *out,
                         engine_error *err) {
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d.%s", layer, part);
    return find_weight(m, name, rows, cols, out, err);
}

static int open_layer(model *m, int i, engine_error *err) {
    const model_config *c = &m->config;
    model_layer *l = &m->layer[i];
    int64_t q = (int64_t)c->heads * c->head_dim, kv = (int64_t)c->kv_heads * c->head_dim;
    bool qkv_bias = c->qkv_bias || c->attention_bias;
    const struct {
        bool there;
        const char *name;
        int64_t rows, cols;
        tensor *out;
    } parts[] = {
        {true, "input_layernorm.weight", 0, c->hidden, &l->attn_norm},
        {true, "self_attn.q_proj.weight", q, c->hidden, &l->q},
        {true, "self_attn.k_proj.weight", kv, c->hidden, &l->k},
        {true, "self_attn.v_proj.weight", kv, c->hidden, &l->v},
        {true, "self_attn.o_proj.weight", c->hidden, q, &l->o},
        {true, "post_attention_layernorm.weight", 0, c->hidden, &l->mlp_norm},
        {true, "mlp.gate_proj.weight", c->intermediate, c->hidden, &l->gate},
        {true, "mlp.up_proj.weight", c->intermediate, c->hidden, &l->up},
        {true, "mlp.down_proj.weight", c->hidden, c->intermediate, &l->down},
        {qkv_bias, "self_attn.q_proj.bias", 0, q, &l->q_bias},
        {qkv_bias, "self_attn.k_proj.bias", 0, kv, &l->k_bias},
        {qkv_bias, "self_attn.v_proj.bias", 0, kv, &l->v_bias},
        {c->attention_bias, "self_attn.o_proj.bias", 0, c->hidden, &l->o_bias},
        {c->mlp_bias, "mlp.gate_proj.bias", 0, c->intermediate, &l->gate_bias},
        {c->mlp_bias, "mlp.up_proj.bias", 0, c->intermediate, &l->up_bias},
        {c->mlp_bias, "mlp.down_proj.bias", 0, c->hidden, &l->down_bias},
    };
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        if (parts[p].there &&
            find_in_layer(m, i, parts[p].name, parts[p].rows, parts[p].cols, parts[p].out, err)) {
            return -1;
        }
    }
    return 0;
}

static int open_weights(model *m, engine_error *err) {
    const model_config *c = &m->config;
    if (find_weight(m, "model.embed_tokens.weight", c->vocab, c->hidden, &m->embed, err) ||
        find_weight(m, "model.norm.weight", 0, c->hidden, &m->final_norm, err)) {
        return -1;
    }
    if (c->tied_embeddings) {
        m->head = m->embed;
    } else if (find_weight(m, "lm_head.weight", c->vocab, c->hidden, &m->head, err)) {
        return -1;
    }
    for (int i = 0; i < c->layers; i++) {
        if (open_layer(m, i, err)) return -1;
    }
    return 0;
}

static int open_model(model *m, const char *dir, engine_error *err) {
    if (model_config_read(dir, &m->config, err)) return -1;
    m->files = files_open(dir, err);
    if (!m->files) return -1;
    m->layer = calloc((size_t)m->config.layers, sizeof *m->layer);
    if (!m->layer) return engine_fail(err, ENGINE_ENOMEM, "out of memory");
    return open_weights(m, err) ? engine_fail_in(err, "%s", dir) : 0;
}

model *model_open(const char *dir, engine_error *err) {
    model *m = calloc(1, sizeof *m);
    if (!m) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
    } else if (open_model(m, dir, err)) {
        model_close(m);
        m = NULL;
    }
    return m;
}

void model_close(model *m) {
    if (!m) return;
    files_free(m->files);
    free(m->layer);
    free(m);
}

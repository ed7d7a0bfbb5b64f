/* Opens a checkpoint folder: its shards, and every weight by its HuggingFace name with its shape checked.
 *
 * Called from one thread. The model owns the mappings; tensors are views into them and live as long as it does. Weights are
 * not read here: pages come in when the backend first touches them.
 */
#include "engine/model/model.h"
#include "engine/model/files.h"
#include "engine/model/safetensors.h"
#include "engine/model/stored.h"
#include "engine/model/weights.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

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

int model_find(const model *m, const char *name, tensor *t, engine_error *err) {
    char scale_name[WEIGHT_NAME_MAX + 8];
    const safetensors_entry *e = files_find(m->files, name), *scale = NULL;
    if (!e) return engine_fail(err, ENGINE_EFORMAT, "tensor %s is missing", name);
    if (m->config.int8) {
        snprintf(scale_name, sizeof scale_name, "%s_scale", name);
        scale = files_find(m->files, scale_name);
    }
    return stored_weight(e, scale, m->config.int8 ? m->config.int8_group : -1, t, err);
}

static int find_weight(void *arg, const char *name, tensor *t, engine_error *err) {
    return model_find(arg, name, t, err);
}

static int open_model(model *m, const char *dir, engine_error *err) {
    if (model_config_read(dir, &m->config, err)) return -1;
    m->files = files_open(dir, err);
    if (!m->files) return -1;
    return model_each_weight(m, find_weight, m, err) ? engine_fail_in(err, "%s", dir) : 0;
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

void model_fetch_all(const model *m) {
    if (!m->random) return;
    model_fetch(m, &m->embed, 0, m->embed.rows);
    if (m->head.data != m->embed.data) model_fetch(m, &m->head, 0, m->head.rows);
    for (int i = 0; i < m->config.layers; i++) {
        const model_layer *l = &m->layer[i];
        const tensor *const all[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (size_t k = 0; k < sizeof all / sizeof all[0]; k++) model_fetch(m, all[k], 0, all[k]->rows);
    }
}

void model_release(const tensor *t, int64_t first, int64_t end) {
    /* only whole pages: the first and the last may hold a neighbour's weights */
    const uintptr_t page = 4096, row = (uintptr_t)t->cols * dtype_bytes(t->type), data = (uintptr_t)t->data,
                    from = (data + (uintptr_t)first * row + page - 1) / page * page,
                    to = (data + (uintptr_t)end * row) / page * page;
    if (from < to) madvise((void *)from, to - from, MADV_DONTNEED);
}

void model_close(model *m) {
    if (!m) return;
    files_free(m->files);
    if (m->random) munmap(m->random, m->random_bytes);
    free(m->layer);
    free(m);
}

/* See quantize.h. First a plan of every tensor's place, then the tensors one by one into theirs. One thread. */
#include "engine/model/quantize.h"
#include "engine/model/files.h"
#include "engine/model/folder.h"
#include "engine/model/model.h"
#include "engine/model/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILES_MAX = 4096, CONFIG_MAX = 16 << 20, PIECE = 16 << 20 };
#define FILE_BYTES ((size_t)5000000000)

/* One tensor of the new checkpoint; a quantised matrix is two, the numbers and behind them the scales. */
typedef struct item {
    char name[WEIGHT_NAME_MAX + 8];
    tensor from;
    enum { COPY, NUMBERS, SCALES } what;
    int64_t cols; /* of the new one */
    int file;
    size_t at, bytes; /* in the file's data */
} item;

typedef struct job {
    const quantize_options *opt;
    const model *model;
    item *item;
    size_t nitems, room;
    int files;
    int64_t group; /* columns of a scale; 0: all */
    size_t done, total;
    char dir[CHECKPOINT_PATH_MAX];
    engine_error *err;
} job;

static const char *const dtypes[] = {
    [DTYPE_F32] = "F32", [DTYPE_F16] = "F16", [DTYPE_BF16] = "BF16", [DTYPE_I8] = "I8"};

static dtype new_type(const item *i) {
    return i->what == COPY ? i->from.type : i->what == NUMBERS ? DTYPE_I8 : DTYPE_F32;
}

/* ---- the plan ---- */

static int add_item(job *j, const char *name, const tensor *t, int what, int64_t cols) {
    if (j->nitems == j->room) {
        j->room = j->room ? 2 * j->room : 512;
        void *grown = realloc(j->item, j->room * sizeof *j->item);
        if (!grown) return engine_fail(j->err, ENGINE_ENOMEM, "out of memory");
        j->item = grown;
    }
    item *i = &j->item[j->nitems++];
    *i = (item){.from = *t, .what = what, .cols = cols};
    snprintf(i->name, sizeof i->name, "%s%s", name, what == SCALES ? "_scale" : "");
    i->bytes = (size_t)(t->rows * cols) * dtype_bytes(new_type(i));
    return 0;
}

static int64_t group_of(const job *j, const tensor *t) {
    return j->group ? j->group : t->cols;
}

static bool is_quantised(const job *j, const char *name, const tensor *t) {
    const bool tied = j->model->config.tied_embeddings,
               embedding = !strcmp(name, "model.embed_tokens.weight");
    const bool head = !strcmp(name, "lm_head.weight") || (tied && embedding);
    return t->rows > 1 && (!embedding || tied) && !(head && j->opt->keep_head);
}

static int plan_weight(void *arg, const char *name, tensor *t, engine_error *err) {
    job *j = arg;
    if (model_find(j->model, name, t, err)) return -1;
    j->total += tensor_bytes(t);
    if (!is_quantised(j, name, t)) return add_item(j, name, t, COPY, t->cols);
    const int64_t group = group_of(j, t), scales = (t->cols + group - 1) / group;
    return add_item(j, name, t, NUMBERS, t->cols) ? -1 : add_item(j, name, t, SCALES, scales);
}

/* Files are filled in order; a matrix and its scales stay together. */
static int deal_to_files(job *j) {
    const size_t most = j->opt->file_bytes ? j->opt->file_bytes : FILE_BYTES;
    size_t used = 0;
    for (size_t i = 0; i < j->nitems; i++) {
        item *it = &j->item[i];
        const size_t bytes = it->bytes + (it->what == NUMBERS ? it[1].bytes : 0);
        if (it->what != SCALES && used && used + bytes > most) {
            if (++j->files == FILES_MAX)
                return engine_fail(j->err, ENGINE_EINVAL, "more than %d files: make them larger", FILES_MAX);
            used = 0;
        }
        it->file = j->files;
        used += it->bytes;
    }
    j->files++;
    return 0;
}

/* The widest numbers first, so that all are aligned. */
static void place_items(job *j) {
    for (int f = 0; f < j->files; f++) {
        size_t at = 0;
        for (size_t width = 4; width; width /= 2) {
            for (size_t i = 0; i < j->nitems; i++) {
                item *it = &j->item[i];
                if (it->file != f || dtype_bytes(new_type(it)) != width) continue;
                it->at = at;
                at += it->bytes;
            }
        }
    }
}

static int make_plan(job *j) {
    model scratch = {.config = j->model->config};
    int rc = model_each_weight(&scratch, plan_weight, j, j->err);
    free(scratch.layer);
    if (rc || deal_to_files(j)) return -1;
    place_items(j);
    return 0;
}

/* ---- a file of weights ---- */

static int write_at(int fd, const void *data, size_t n, size_t at, engine_error *err) {
    const char *p = data;
    while (n) {
        ssize_t done = pwrite(fd, p, n, (off_t)at);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return engine_fail(err, ENGINE_EIO, "cannot write: %s", strerror(errno));
        p += done;
        at += (size_t)done;
        n -= (size_t)done;
    }
    return 0;
}

static int add_to_header(json_t *header, const item *i) {
    json_t *shape = i->from.rows > 1 ? json_pack("[I,I]", (json_int_t)i->from.rows, (json_int_t)i->cols)
                                     : json_pack("[I]", (json_int_t)i->cols);
    return json_object_set_new(header, i->name,
                               json_pack("{s:s,s:o,s:[I,I]}", "dtype", dtypes[new_type(i)], "shape", shape,
                                         "data_offsets", (json_int_t)i->at, (json_int_t)(i->at + i->bytes)));
}

/* Where the data begin, or 0 with err. */
static size_t write_header(const job *j, int fd, int file) {
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    int rc = header ? 0 : -1;
    for (size_t i = 0; i < j->nitems; i++) {
        if (j->item[i].file == file && rc == 0) rc = add_to_header(header, &j->item[i]);
    }
    char *text = rc == 0 ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    if (!text) {
        engine_fail(j->err, ENGINE_ENOMEM, "out of memory");
        return 0;
    }
    static const char spaces[65] = "                                                                ";
    const size_t n = strlen(text), padded = (8 + n + 63) / 64 * 64 - 8;
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)padded >> (8 * i));
    rc = write_at(fd, length, sizeof length, 0, j->err) || write_at(fd, text, n, 8, j->err) ||
         write_at(fd, spaces, padded - n, 8 + n, j->err);
    free(text);
    return rc == 0 ? 8 + padded : 0;
}

static int report(job *j, size_t bytes) {
    j->done += bytes;
    if (!j->opt->progress || j->opt->progress(j->opt->arg, j->done, j->total)) return 0;
    return engine_fail(j->err, ENGINE_EINVAL, "interrupted: nothing was made");
}

/* A row's numbers, and its scales. */
static void quantise_row(const job *j, const tensor *t, int64_t row, float *w, int8_t *q, float *scale) {
    const int64_t group = group_of(j, t);
    tensor_read(t, row, 0, (int)t->cols, w);
    for (int64_t k = 0; k < t->cols; k += group) {
        const int64_t n = t->cols - k < group ? t->cols - k : group;
        *scale++ = int8_quantise(w + k, (int)n, q + k);
    }
}

/* The rows [first, end) into q and scales, and q to its place. */
static int write_rows(job *j, const item *i, int fd, size_t start, int64_t first, int64_t end, float *w,
                      int8_t *q, float *scales) {
    const tensor *t = &i->from;
    const size_t cols = (size_t)t->cols;
    for (int64_t row = first; row < end; row++) {
        quantise_row(j, t, row, w, q + (size_t)(row - first) * cols, scales + row * i[1].cols);
    }
    model_release(t, first, end);
    if (write_at(fd, q, (size_t)(end - first) * cols, start + i->at + (size_t)first * cols, j->err))
        return -1;
    return report(j, (size_t)(end - first) * cols * dtype_bytes(t->type));
}

/* An item of numbers, and the scales after it. */
static int write_quantised(job *j, const item *i, int fd, size_t start) {
    const tensor *t = &i->from;
    const int64_t piece = PIECE / t->cols + 1;
    float *w = malloc((size_t)t->cols * sizeof *w), *scales = malloc(i[1].bytes);
    int8_t *q = malloc((size_t)(piece * t->cols));
    int rc = w && scales && q ? 0 : engine_fail(j->err, ENGINE_ENOMEM, "out of memory");
    for (int64_t row = 0; rc == 0 && row < t->rows; row += piece) {
        const int64_t end = t->rows - row < piece ? t->rows : row + piece;
        rc = write_rows(j, i, fd, start, row, end, w, q, scales);
    }
    if (rc == 0) rc = write_at(fd, scales, i[1].bytes, start + i[1].at, j->err);
    free(w);
    free(scales);
    free(q);
    return rc;
}

static int write_copy(job *j, const item *i, int fd, size_t start) {
    const char *data = i->from.data;
    for (size_t at = 0; at < i->bytes; at += PIECE) {
        const size_t n = i->bytes - at < PIECE ? i->bytes - at : PIECE;
        if (write_at(fd, data + at, n, start + i->at + at, j->err) || report(j, n)) return -1;
    }
    model_release(&i->from, 0, i->from.rows);
    return 0;
}

static int write_items(job *j, int fd, int file) {
    const size_t start = write_header(j, fd, file);
    if (!start) return -1;
    for (size_t k = 0; k < j->nitems; k++) {
        const item *i = &j->item[k];
        if (i->file != file || i->what == SCALES) continue;
        if (i->what == NUMBERS ? write_quantised(j, i, fd, start) : write_copy(j, i, fd, start)) return -1;
    }
    return fsync(fd) ? engine_fail(j->err, ENGINE_EIO, "cannot write: %s", strerror(errno)) : 0;
}

static void file_name(const job *j, int file, char out[64]) {
    if (j->files == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05d-of-%05d.safetensors", file + 1, j->files);
}

static int write_file(job *j, int file) {
    char name[64], path[CHECKPOINT_PATH_MAX];
    file_name(j, file, name);
    if (checkpoint_path(path, j->dir, name, j->err)) return -1;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) return engine_fail(j->err, ENGINE_EIO, "cannot make %s: %s", path, strerror(errno));
    int rc = write_items(j, fd, file);
    if (close(fd) && rc == 0) rc = engine_fail(j->err, ENGINE_EIO, "cannot write: %s", strerror(errno));
    return rc ? engine_fail_in(j->err, "%s", path) : 0;
}

/* ---- the texts ---- */

static int write_json(const job *j, const char *name, json_t *o) {
    char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    if (!text) return engine_fail(j->err, ENGINE_ENOMEM, "out of memory");
    int rc = folder_put(j->dir, name, text, strlen(text), j->err);
    free(text);
    return rc;
}

static int write_index(const job *j) {
    json_t *map = json_object();
    json_int_t total = 0;
    for (size_t i = 0; i < j->nitems; i++) {
        char name[64];
        file_name(j, j->item[i].file, name);
        json_object_set_new(map, j->item[i].name, json_string(name));
        total += (json_int_t)j->item[i].bytes;
    }
    return write_json(j, "model.safetensors.index.json",
                      json_pack("{s:{s:I},s:o}", "metadata", "total_size", total, "weight_map", map));
}

static json_t *arguments(const char *strategy, int64_t group, bool dynamic) {
    json_t *o = json_pack("{s:i,s:s,s:b,s:s,s:b}", "num_bits", 8, "type", "int", "symmetric", 1, "strategy",
                          strategy, "dynamic", dynamic);
    json_object_set_new(o, "group_size", group ? json_integer(group) : json_null());
    return o;
}

static json_t *scheme_of(const job *j) {
    const bool tied = j->model->config.tied_embeddings;
    json_t *targets = tied && !j->opt->keep_head ? json_pack("[s,s]", "Linear", "Embedding")
                                                 : json_pack("[s]", "Linear"),
           *ignored = j->opt->keep_head ? json_pack("[s]", "lm_head") : json_array();
    json_t *group = json_pack("{s:o,s:o,s:o,s:n}", "targets", targets, "weights",
                              arguments(j->group ? "group" : "channel", j->group, false), "input_activations",
                              j->opt->a16 ? json_null() : arguments("token", 0, true), "output_activations");
    return json_pack("{s:s,s:s,s:s,s:o,s:{s:o}}", "quant_method", "compressed-tensors", "format",
                     "int-quantized", "quantization_status", "compressed", "ignore", ignored, "config_groups",
                     "group_0", group);
}

/* The file that makes the folder a checkpoint, so it is written last. */
static int write_config(const job *j) {
    size_t n = 0;
    char *text = checkpoint_read(j->opt->from, "config.json", CONFIG_MAX, &n, j->err);
    json_t *config = text ? json_loadb(text, n, 0, NULL) : NULL, *scheme = config ? scheme_of(j) : NULL;
    free(text);
    if (!scheme || json_object_set_new(config, "quantization_config", scheme)) {
        json_decref(config);
        return engine_fail(j->err, ENGINE_EFORMAT, "%s/config.json cannot be taken over", j->opt->from);
    }
    return write_json(j, "config.json", config);
}

static int copy_texts(const job *j) {
    static const char *const names[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "generation_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer.model",
                                        "chat_template.json",
                                        "chat_template.jinja",
                                        "README.md",
                                        "LICENSE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n = 0;
        if (!checkpoint_has(j->opt->from, names[i])) continue;
        char *text = checkpoint_read(j->opt->from, names[i], (size_t)1 << 30, &n, j->err);
        int rc = text ? folder_put(j->dir, names[i], text, n, j->err) : -1;
        free(text);
        if (rc) return -1;
    }
    return 0;
}

static int write_all(job *j) {
    for (int f = 0; f < j->files; f++) {
        if (write_file(j, f)) return -1;
    }
    if (j->files > 1 && write_index(j)) return -1;
    return copy_texts(j) || write_config(j) ? -1 : 0;
}

static int quantise(job *j) {
    if (j->model->config.int8)
        return engine_fail(j->err, ENGINE_EINVAL, "%s is in 8 bits already", j->opt->from);
    if (make_plan(j)) return -1;
    if (folder_begin(j->opt->from, j->opt->to, j->opt->replace, j->dir, j->err)) return -1;
    if (write_all(j) == 0 && folder_commit(j->dir, j->opt->to, j->err) == 0) return 0;
    folder_remove(j->dir, NULL);
    return -1;
}

int quantize_checkpoint(const quantize_options *opt, quantize_result *result, engine_error *err) {
    model *m = model_open(opt->from, err);
    if (!m) return -1;
    job j = {.opt = opt, .model = m, .group = opt->whole_rows ? 0 : INT8_GROUP, .err = err};
    int rc = quantise(&j);
    *result = (quantize_result){.bytes_before = j.total, .files = j.files};
    for (size_t i = 0; i < j.nitems; i++) result->bytes_after += j.item[i].bytes;
    free(j.item);
    model_close(m);
    return rc;
}

/* Reader of the safetensors format: u64 header length, a JSON object of tensors, then their bytes.
 *
 * Called while a model opens, from one thread. The mapping and the entries belong to the safetensors object; entry names
 * are borrowed from the parsed header, which is kept for that.
 */
#include "engine/model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The reference implementation's own limit. */
#define HEADER_MAX (100u << 20)

struct safetensors {
    const unsigned char *map; /* NULL when the caller keeps the bytes */
    size_t map_bytes;
    json_t *header;
    safetensors_entry *entry; /* sorted by name */
    size_t count;
};

static size_t dtype_size(const char *dtype) {
    static const struct {
        const char *name;
        size_t size;
    } known[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8},     {"I64", 8},
                 {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
                 {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!strcmp(known[i].name, dtype)) return known[i].size;
    }
    return 0;
}

/* Fills e->dims and checks that they describe e->bytes bytes. A dtype that we do not know has no size to check: it is kept,
 * and refused only if it is asked for as a weight. */
static int read_shape(safetensors_entry *e, const json_t *shape, engine_error *err) {
    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_MAX_DIMS) {
        return engine_fail(err, ENGINE_EFORMAT, "tensor %s: its shape is not an array of at most %d numbers",
                           e->name, SAFETENSORS_MAX_DIMS);
    }
    e->ndims = (int)json_array_size(shape);
    size_t size = dtype_size(e->dtype), bytes = size;
    for (int i = 0; i < e->ndims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0) {
            return engine_fail(err, ENGINE_EFORMAT, "tensor %s: dimension %d is not a count", e->name, i);
        }
        e->dims[i] = json_integer_value(dim);
        if (__builtin_mul_overflow(bytes, (uint64_t)e->dims[i], &bytes)) {
            return engine_fail(err, ENGINE_EFORMAT, "tensor %s: its shape overflows", e->name);
        }
    }
    if (size && bytes != e->bytes) {
        return engine_fail(err, ENGINE_EFORMAT, "tensor %s: shape and dtype need %zu bytes but it has %zu",
                           e->name, bytes, e->bytes);
    }
    return 0;
}

static int read_entry(safetensors_entry *e, const char *name, const json_t *v, const unsigned char *data,
                      size_t n, engine_error *err) {
    e->name = name;
    e->dtype = json_string_value(json_object_get(v, "dtype"));
    const json_t *offsets = json_object_get(v, "data_offsets");
    const json_t *b = json_array_get(offsets, 0), *t = json_array_get(offsets, 1);
    if (!e->dtype || json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(t)) {
        return engine_fail(err, ENGINE_EFORMAT, "tensor %s: dtype or data_offsets is missing or ill-typed",
                           name);
    }
    json_int_t begin = json_integer_value(b), end = json_integer_value(t);
    if (begin < 0 || end < begin) {
        return engine_fail(err, ENGINE_EFORMAT, "tensor %s: bad data_offsets [%" PRId64 ", %" PRId64 "]",
                           name, (int64_t)begin, (int64_t)end);
    }
    if ((uint64_t)end > n) {
        return engine_fail(err, ENGINE_EFORMAT,
                           "tensor %s ends at byte %" PRId64 " of %zu: the file is truncated, fetch it again",
                           name, (int64_t)end, n);
    }
    e->data = data + begin;
    e->bytes = (size_t)(end - begin);
    return read_shape(e, json_object_get(v, "shape"), err);
}

static int by_place(const void *a, const void *b) {
    const safetensors_entry *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const safetensors_entry *)a)->name, ((const safetensors_entry *)b)->name);
}

static int check_overlap(safetensors *s, engine_error *err) {
    qsort(s->entry, s->count, sizeof *s->entry, by_place);
    for (size_t i = 1; i < s->count; i++) {
        const safetensors_entry *a = &s->entry[i - 1], *b = &s->entry[i];
        if (a->data + a->bytes > b->data) {
            return engine_fail(err, ENGINE_EFORMAT, "tensors %s and %s overlap in the file", a->name,
                               b->name);
        }
    }
    return 0;
}

static int read_entries(safetensors *s, const unsigned char *data, size_t n, engine_error *err) {
    s->entry = calloc(json_object_size(s->header) + 1, sizeof *s->entry);
    if (!s->entry) return engine_fail(err, ENGINE_ENOMEM, "out of memory");
    const char *name;
    json_t *v;
    json_object_foreach(s->header, name, v) {
        if (!strcmp(name, "__metadata__")) continue;
        if (read_entry(&s->entry[s->count], name, v, data, n, err)) return -1;
        s->count++;
    }
    if (check_overlap(s, err)) return -1;
    qsort(s->entry, s->count, sizeof *s->entry, by_name);
    return 0;
}

static uint64_t read_le64(const unsigned char *p) {
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

static int parse(safetensors *s, const unsigned char *p, size_t n, engine_error *err) {
    if (n < 8) return engine_fail(err, ENGINE_EFORMAT, "%zu bytes are too few for a safetensors file", n);
    uint64_t len = read_le64(p);
    if (len > HEADER_MAX) {
        return engine_fail(err, ENGINE_EFORMAT,
                           "a header of %" PRIu64 " bytes is over the limit of %u: not a safetensors file",
                           len, HEADER_MAX);
    }
    if (len > n - 8) {
        return engine_fail(err, ENGINE_EFORMAT,
                           "the header needs %" PRIu64
                           " bytes but %zu follow: the file is truncated, fetch it again",
                           len, n - 8);
    }
    json_error_t je;
    s->header = json_loadb((const char *)p + 8, (size_t)len, JSON_REJECT_DUPLICATES, &je);
    if (!s->header) return engine_fail(err, ENGINE_EFORMAT, "its header is not valid JSON: %s", je.text);
    if (!json_is_object(s->header))
        return engine_fail(err, ENGINE_EFORMAT, "its header is not a JSON object");
    return read_entries(s, p + 8 + len, n - 8 - (size_t)len, err);
}

safetensors *safetensors_parse(const void *data, size_t n, engine_error *err) {
    safetensors *s = calloc(1, sizeof *s);
    if (!s) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
        return NULL;
    }
    if (parse(s, data, n, err)) {
        safetensors_close(s);
        return NULL;
    }
    return s;
}

/* Maps the whole file. A file that is empty cannot be mapped, so its length is told apart. */
static const unsigned char *map_file(const char *path, size_t *n, engine_error *err) {
    const unsigned char *map = NULL;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        engine_fail(err, ENGINE_EIO, "cannot open it: %s", strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_size < 8) {
        engine_fail(err, ENGINE_EFORMAT, "it is not a safetensors file (%lld bytes)", (long long)st.st_size);
        goto out;
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
        engine_fail(err, ENGINE_EIO, "cannot map it: %s", strerror(errno));
        goto out;
    }
    map = p;
    *n = (size_t)st.st_size;
out:
    if (fd >= 0) close(fd);
    return map;
}

safetensors *safetensors_open(const char *path, engine_error *err) {
    size_t n = 0;
    const unsigned char *map = map_file(path, &n, err);
    safetensors *s = map ? safetensors_parse(map, n, err) : NULL;
    if (!s) {
        if (map) munmap((void *)map, n);
        engine_fail_in(err, "%s", path);
        return NULL;
    }
    s->map = map;
    s->map_bytes = n;
    return s;
}

void safetensors_close(safetensors *s) {
    if (!s) return;
    if (s->map) munmap((void *)s->map, s->map_bytes);
    json_decref(s->header);
    free(s->entry);
    free(s);
}

size_t safetensors_count(const safetensors *s) {
    return s->count;
}

const safetensors_entry *safetensors_find(const safetensors *s, const char *name) {
    safetensors_entry key = {.name = name};
    return bsearch(&key, s->entry, s->count, sizeof *s->entry, by_name);
}

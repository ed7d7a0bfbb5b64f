/* Reads labelled messages; see intent_data.h. */
#include "router/intent_data.h"

#include "router/intent_model.h"
#include "schemas/hash.h"
#include "text/text_norm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SAMPLES_MAX = 2000000,
    LABEL_MAX = 200,     /* bytes */
    TEXT_MAX = 1 << 20,  /* bytes of a line */
    ARENA_MAX = 1 << 30, /* of all texts */
};

/* ---- labels ---- */

static int *label_slot(const mr_intent_data *d, mr_str name) {
    uint64_t h = mr_text_hash_feed(mr_text_hash_init(), name);
    int i = (int)(h & (uint64_t)(d->slots_n - 1));
    while (d->slots[i] != 0 && !mr_str_eq(d->labels[d->slots[i] - 1], name)) i = (i + 1) & (d->slots_n - 1);
    return &d->slots[i];
}

int mr_intent_data_label(const mr_intent_data *d, mr_str name) {
    return d->slots_n ? *label_slot(d, name) - 1 : -1;
}

static int init(mr_intent_data *d, mr_error *err) {
    if (d->arena) return 0;
    d->slots_n = 4 * MR_INTENT_LABELS_MAX;
    d->slots = calloc((size_t)d->slots_n, sizeof *d->slots);
    d->labels = calloc(MR_INTENT_LABELS_MAX, sizeof *d->labels);
    d->arena = mr_arena_new(ARENA_MAX);
    return d->slots && d->labels && d->arena ? 0 : mr_fail(err, MR_ENOMEM, "no memory for the messages");
}

int mr_intent_data_add_label(mr_intent_data *d, mr_str name, mr_error *err) {
    if (init(d, err) < 0) return -1;
    int *slot = label_slot(d, name);
    if (*slot != 0) return *slot - 1;
    if (d->labels_n == MR_INTENT_LABELS_MAX) {
        return mr_fail(err, MR_ETOOBIG, "there are more than %d labels", MR_INTENT_LABELS_MAX);
    }
    mr_str copy = mr_arena_str(d->arena, name);
    if (!copy.p) return mr_fail(err, MR_ENOMEM, "no memory for the labels");
    d->labels[d->labels_n++] = copy;
    *slot = d->labels_n;
    return d->labels_n - 1;
}

/* ---- lines ---- */

static int add_sample(mr_intent_data *d, int label, mr_str words, mr_error *err) {
    if (d->n == SAMPLES_MAX) return mr_fail(err, MR_ETOOBIG, "there are more than %d messages", SAMPLES_MAX);
    if (d->n == d->cap) {
        int cap = d->cap ? 2 * d->cap : 1024;
        mr_intent_sample *v = realloc(d->v, (size_t)cap * sizeof *v);
        if (!v) return mr_fail(err, MR_ENOMEM, "no memory for %d messages", cap);
        d->v = v;
        d->cap = cap;
    }
    mr_str copy = mr_arena_str(d->arena, words);
    if (!copy.p) return mr_fail(err, MR_ETOOBIG, "the messages have more than %d bytes in all", ARENA_MAX);
    d->v[d->n++] = (mr_intent_sample){label, copy};
    return 0;
}

static int add_line(mr_intent_data *d, mr_str line, mr_buf *words, mr_error *err) {
    while (line.n > 0 && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r')) line.n--;
    if (line.n == 0 || line.p[0] == '#') return 0;
    const char *tab = memchr(line.p, '\t', line.n);
    size_t n = tab ? (size_t)(tab - line.p) : 0;
    if (n == 0 || n > LABEL_MAX) {
        return mr_fail(err, MR_EINVAL, "expected a label of 1 to %d bytes, a tab and a text", LABEL_MAX);
    }
    if (line.n > TEXT_MAX || !mr_str_is_utf8(line) || memchr(line.p, '\0', line.n)) {
        return mr_fail(err, MR_EINVAL, "the line is no UTF-8 text of at most %d bytes", TEXT_MAX);
    }
    mr_buf_clear(words);
    if (mr_text_words((mr_str){tab + 1, line.n - n - 1}, words, err) < 0) return -1;
    int label = mr_intent_data_add_label(d, (mr_str){line.p, n}, err);
    if (label < 0 || words->n == 0) return label < 0 ? -1 : 0;
    return add_sample(d, label, mr_buf_str(words), err);
}

int mr_intent_data_add(mr_intent_data *d, mr_str label, mr_str text, mr_error *err) {
    mr_buf words;
    int rc = init(d, err), number;
    mr_buf_init(&words, 20 * TEXT_MAX);
    if (rc == 0) rc = mr_text_words(text, &words, err);
    if (rc == 0 && (number = mr_intent_data_add_label(d, label, err)) < 0) rc = -1;
    if (rc == 0 && words.n > 0) rc = add_sample(d, number, mr_buf_str(&words), err);
    mr_buf_done(&words);
    return rc;
}

static int read_lines(mr_intent_data *d, const char *path, FILE *in, mr_error *err) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int rc = init(d, err), number = 0;
    mr_buf words;
    mr_buf_init(&words, 20 * TEXT_MAX);
    while (rc == 0 && (n = getline(&line, &cap, in)) >= 0) {
        mr_str s = {line, (size_t)n};
        if (number++ == 0 && s.n >= 3 && memcmp(s.p, "\xEF\xBB\xBF", 3) == 0) s.p += 3, s.n -= 3;
        rc = add_line(d, s, &words, err);
        if (rc < 0) mr_fail_in(err, "%s:%d", path, number);
    }
    if (rc == 0 && ferror(in)) rc = mr_fail(err, MR_EIO, "%s: %s", path, strerror(errno));
    mr_buf_done(&words);
    free(line);
    return rc;
}

int mr_intent_data_read(mr_intent_data *d, const char *path, mr_error *err) {
    FILE *in = fopen(path, "re");
    if (!in) return mr_fail(err, MR_EIO, "%s: %s", path, strerror(errno));
    int rc = read_lines(d, path, in, err);
    fclose(in);
    return rc;
}

void mr_intent_data_done(mr_intent_data *d) {
    free(d->v);
    free(d->labels);
    free(d->slots);
    mr_arena_free(d->arena);
    *d = (mr_intent_data){0};
}

/* See samples.h. */
#include "ops/learn/samples.h"

#include "ops/learn/files.h"
#include "schemas/hash.h"

#include <stdlib.h>
#include <string.h>

enum { SAMPLES_MAX = 1000000, BYTES_MAX = 1 << 30 };

const char *const mr_sample_kind_names[] = {"confirmed", "disagrees", "rejected", "unsure", NULL};

/* ---- in memory ---- */

static uint64_t hash_of(mr_str s) {
    return mr_text_hash_feed(mr_text_hash_init(), s);
}

static int *slot_of(const mr_samples *s, mr_str request) {
    int mask = s->slots_n - 1, i = (int)(hash_of(request) & (uint64_t)mask);
    while (s->slots[i] != 0 && !mr_str_eq(s->v[s->slots[i] - 1].request, request)) i = (i + 1) & mask;
    return &s->slots[i];
}

static int grow(mr_samples *s, mr_error *err) {
    int cap = s->cap ? 2 * s->cap : 1024;
    if (cap > SAMPLES_MAX) return mr_fail(err, MR_ETOOBIG, "there are more than %d samples", SAMPLES_MAX);
    mr_sample *v = realloc(s->v, (size_t)cap * sizeof *v);
    if (v) s->v = v;
    int *slots = calloc((size_t)cap * 2, sizeof *slots);
    if (!v || !slots || (!s->arena && !(s->arena = mr_arena_new(BYTES_MAX)))) {
        free(slots);
        return mr_fail(err, MR_ENOMEM, "no memory for %d samples", cap);
    }
    free(s->slots);
    s->slots = slots;
    s->slots_n = 2 * cap;
    s->cap = cap;
    for (int i = 0; i < s->n; i++) *slot_of(s, s->v[i].request) = i + 1;
    return 0;
}

int mr_samples_put(mr_samples *s, const mr_sample *one, mr_error *err) {
    if (s->n == s->cap && grow(s, err) < 0) return -1;
    mr_sample copy = *one;
    int *slot = slot_of(s, one->request);
    copy.request = mr_arena_str(s->arena, one->request);
    copy.text = mr_arena_str(s->arena, one->text);
    copy.label = mr_arena_str(s->arena, one->label);
    copy.guess = mr_arena_str(s->arena, one->guess);
    if (!copy.request.p || !copy.text.p || !copy.label.p || !copy.guess.p) {
        return mr_fail(err, MR_ETOOBIG, "the samples have more than %d bytes", BYTES_MAX);
    }
    if (*slot == 0) *slot = ++s->n;
    s->v[*slot - 1] = copy;
    return 0;
}

void mr_samples_done(mr_samples *s) {
    free(s->v);
    free(s->slots);
    mr_arena_free(s->arena);
    *s = (mr_samples){0};
}

bool mr_sample_held_out(mr_str words, double share) {
    uint64_t h = hash_of(words) * UINT64_C(0x9E3779B97F4A7C15);
    return (double)(h >> 11) < share * 9007199254740992.0;
}

/* ---- the file ---- */

static int read_sample(void *arg, const json_t *line, mr_error *err) {
    mr_str kind = mr_line_str(line, "kind");
    mr_sample one = {.request = mr_line_str(line, "request"),
                     .text = mr_line_str(line, "text"),
                     .label = mr_line_str(line, "label"),
                     .guess = mr_line_str(line, "guess"),
                     .at_ms = mr_line_int(line, "at_ms"),
                     .confidence = json_number_value(json_object_get(line, "confidence")),
                     .rating = (int)mr_line_int(line, "rating"),
                     .kind = MR_SAMPLE_KINDS};
    for (int k = 0; k < MR_SAMPLE_KINDS; k++) {
        if (mr_str_eqz(kind, mr_sample_kind_names[k])) one.kind = (mr_sample_kind)k;
    }
    if (one.request.n == 0 || one.text.n == 0 || one.kind == MR_SAMPLE_KINDS) {
        return mr_fail(err, MR_EINVAL, "the line is no sample: `request`, `text` or `kind` is missing");
    }
    return mr_samples_put(arg, &one, err);
}

int mr_samples_load(mr_samples *s, const char *path, mr_error *err) {
    return mr_lines_read(path, read_sample, s, err);
}

static json_t *sample_line(const mr_sample *s) {
    return json_pack("{s:s%, s:I, s:s, s:s%, s:s%, s:f, s:i, s:s%}", "request", s->request.p, s->request.n,
                     "at_ms", (json_int_t)s->at_ms, "kind", mr_sample_kind_names[s->kind], "label",
                     s->label.p, s->label.n, "guess", s->guess.p, s->guess.n, "confidence", s->confidence,
                     "rating", s->rating, "text", s->text.p, s->text.n);
}

int mr_samples_save(const mr_samples *s, const char *path, mr_error *err) {
    mr_buf b;
    int rc = 0;
    mr_buf_init(&b, BYTES_MAX);
    for (int i = 0; rc == 0 && i < s->n; i++) rc = mr_lines_put(&b, sample_line(&s->v[i]), err);
    if (rc == 0) rc = mr_file_write(path, mr_buf_str(&b), err);
    mr_buf_done(&b);
    return rc;
}

/* On one line. */
static void put_text(mr_buf *b, mr_str text) {
    for (size_t i = 0; i < text.n; i++) {
        mr_buf_put(b, (unsigned char)text.p[i] < ' ' ? " " : text.p + i, 1);
    }
}

int mr_samples_save_review(const mr_samples *s, const char *path, mr_error *err) {
    mr_buf b;
    mr_buf_init(&b, BYTES_MAX);
    mr_buf_puts(&b,
                "# Messages that nobody has given a label: what the model guesses, a tab, the message.\n"
                "# Correct the labels, delete what you do not know, and name the file in learn.labels.\n");
    for (int i = 0; i < s->n; i++) {
        const mr_sample *one = &s->v[i];
        if (one->label.n > 0) continue;
        mr_buf_printf(&b, "%.*s\t", MR_FMT(one->guess));
        put_text(&b, one->text);
        mr_buf_puts(&b, "\n");
    }
    int rc = b.failed ? mr_fail(err, MR_ETOOBIG, "%s would be too large", path)
                      : mr_file_write(path, mr_buf_str(&b), err);
    mr_buf_done(&b);
    return rc;
}

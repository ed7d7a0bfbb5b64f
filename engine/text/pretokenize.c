/* A list of steps; each cuts the pieces of the one before it. Steps are built at load; a run keeps its state on the stack,
 * one frame a step, and hands out each piece as soon as it is decided. */
#include "engine/text/pretokenize.h"

#include "engine/text/buf.h"
#include "engine/text/json.h"
#include "engine/text/pattern.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS_MAX = 32 };

/* What happens to the matches of a split. */
typedef enum { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS } behavior;
static const char *const behavior_names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                                             "Contiguous"};

struct step {
    pattern *pattern; /* NULL: not a split, but a space put before a piece that does not begin with one */
    behavior behavior;
    bool invert;
};

struct pretokenizer {
    struct step steps[STEPS_MAX];
    int n;
    bool byte_level;
};

/* ByteLevel's own regex, GPT-2's. */
static const char gpt2_regex[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
static const char digits_regex[] = "\\p{N}";

static int add_step(pretokenizer *p, struct step s, engine_error *err) {
    if (p->n == STEPS_MAX) {
        pattern_free(s.pattern);
        return engine_fail(err, ENGINE_EFORMAT, "pre_tokenizer has more than %d steps", STEPS_MAX);
    }
    p->steps[p->n++] = s;
    return 0;
}

static int add_split(pretokenizer *p, pattern *pat, behavior b, bool invert, engine_error *err) {
    return pat == NULL ? -1
                       : add_step(p, (struct step){.pattern = pat, .behavior = b, .invert = invert}, err);
}

static int read_behavior(const json_t *spec, behavior *out, engine_error *err) {
    const char *name;

    if (json_get_string(spec, "behavior", &name, err) != 0) return -1;
    for (int i = 0; name != NULL && i < (int)(sizeof behavior_names / sizeof behavior_names[0]); i++) {
        if (strcmp(name, behavior_names[i]) == 0) {
            *out = (behavior)i;
            return 0;
        }
    }
    return engine_fail(err, ENGINE_EFORMAT, "Split has the unknown behavior \"%.40s\"", name ? name : "");
}

static int read_split(pretokenizer *p, const json_t *spec, engine_error *err) {
    const json_t *of = json_object_get(spec, "pattern");
    const json_t *regex = json_object_get(of, "Regex"), *text = json_object_get(of, "String");
    behavior b = ISOLATED;
    bool invert = false;

    if (read_behavior(spec, &b, err) != 0 || json_get_bool(spec, "invert", &invert, err) != 0) return -1;
    if (json_is_string(regex))
        return add_split(p, pattern_new(json_string_value(regex), json_string_length(regex), err), b, invert,
                         err);
    if (json_is_string(text))
        return add_split(p, pattern_new_literal(json_string_value(text), json_string_length(text), err), b,
                         invert, err);
    return engine_fail(err, ENGINE_EFORMAT, "Split needs a pattern, {\"Regex\": …} or {\"String\": …}");
}

static int read_digits(pretokenizer *p, const json_t *spec, engine_error *err) {
    bool individual = false;

    if (json_get_bool(spec, "individual_digits", &individual, err) != 0) return -1;
    return add_split(p, pattern_new(digits_regex, strlen(digits_regex), err),
                     individual ? ISOLATED : CONTIGUOUS, false, err);
}

static int read_byte_level(pretokenizer *p, const json_t *spec, engine_error *err) {
    bool prefix = true, regex = true;

    if (json_get_bool(spec, "add_prefix_space", &prefix, err) != 0) return -1;
    if (json_get_bool(spec, "use_regex", &regex, err) != 0) return -1;
    p->byte_level = true;
    if (prefix && add_step(p, (struct step){0}, err) != 0) return -1;
    return regex ? add_split(p, pattern_new(gpt2_regex, strlen(gpt2_regex), err), ISOLATED, false, err) : 0;
}

static int read_step(pretokenizer *p, const json_t *spec, engine_error *err);

static int read_sequence(pretokenizer *p, const json_t *spec, engine_error *err) {
    const json_t *list = json_object_get(spec, "pretokenizers"), *one;
    size_t i;

    if (!json_is_array(list))
        return engine_fail(err, ENGINE_EFORMAT, "Sequence needs a list of pretokenizers");
    json_array_foreach(list, i, one) {
        if (read_step(p, one, err) != 0) return engine_fail_in(err, "step %zu", i + 1);
    }
    return 0;
}

static int read_step(pretokenizer *p, const json_t *spec, engine_error *err) {
    const char *type = json_type_of(spec);

    if (type == NULL) return engine_fail(err, ENGINE_EFORMAT, "it must be an object with a \"type\"");
    if (p->byte_level)
        return engine_fail(err, ENGINE_EFORMAT, "%.40s after ByteLevel is not supported", type);
    if (strcmp(type, "Sequence") == 0) return read_sequence(p, spec, err);
    if (strcmp(type, "Split") == 0) return read_split(p, spec, err);
    if (strcmp(type, "Digits") == 0) return read_digits(p, spec, err);
    if (strcmp(type, "ByteLevel") == 0) return read_byte_level(p, spec, err);
    return engine_fail(err, ENGINE_EFORMAT,
                       "the type %.40s is not supported (Sequence, Split, Digits, ByteLevel are)", type);
}

pretokenizer *pretokenizer_new(const json_t *spec, engine_error *err) {
    pretokenizer *p = calloc(1, sizeof *p);
    int rc = -1;

    if (p == NULL) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
        return NULL;
    }
    if (spec != NULL && !json_is_null(spec)) rc = read_step(p, spec, err);
    if ((spec == NULL || json_is_null(spec) || rc == 0) && !p->byte_level)
        rc = engine_fail(err, ENGINE_EFORMAT,
                         "there is no ByteLevel: only byte-level BPE tokenizers are supported");
    if (rc == 0) return p;
    pretokenizer_free(p);
    return NULL;
}

void pretokenizer_free(pretokenizer *p) {
    if (p == NULL) return;
    for (int i = 0; i < p->n; i++) pattern_free(p->steps[i].pattern);
    free(p);
}

/* One call of pretokenizer_run. */
struct run {
    const pretokenizer *p;
    pattern_work *work;
    text_buf prefixed;
    piece_fn fn;
    void *ctx;
    engine_error *err;
};

static int run_step(struct run *r, int i, const char *s, size_t n);

/* A split under way: matches and what lies between them come in order; the last piece is held back, because the next
 * may join it. */
struct split {
    struct run *run;
    int step;
    const char *s;
    size_t from, to; /* the held piece */
    bool held, dropped, last_match;
};

static int release(struct split *sp) {
    bool goes_on = sp->held && !sp->dropped && sp->to > sp->from;

    sp->held = false;
    return goes_on ? run_step(sp->run, sp->step + 1, sp->s + sp->from, sp->to - sp->from) : 0;
}

static bool joins(behavior b, bool last_match, bool match) {
    switch (b) {
    case MERGED_WITH_PREVIOUS: return match && !last_match;
    case MERGED_WITH_NEXT: return !match && last_match;
    case CONTIGUOUS: return match == last_match;
    default: return false;
    }
}

static int take(struct split *sp, size_t from, size_t to, bool match) {
    const struct step *step = &sp->run->p->steps[sp->step];

    match = match != step->invert;
    if (sp->held && joins(step->behavior, sp->last_match, match)) {
        sp->to = to;
    } else {
        if (release(sp) != 0) return -1;
        sp->from = from;
        sp->to = to;
        sp->held = true;
        sp->dropped = match && step->behavior == REMOVED;
    }
    sp->last_match = match;
    return 0;
}

/* Next match at or after *from, which moves on. As Oniguruma's iterator: no empty match right after a match. */
static int next_match(struct split *sp, size_t n, size_t *from, size_t *done, bool any, size_t *start) {
    const struct step *step = &sp->run->p->steps[sp->step];
    size_t end;
    int rc;

    while (*from <= n) {
        rc = pattern_find(step->pattern, sp->run->work, sp->s, n, *from, start, &end, sp->run->err);
        if (rc != 1) return rc;
        if (end > *start || !any || end != *done) {
            *from = end;
            return 1;
        }
        do ++*from;
        while (*from < n && ((unsigned char)sp->s[*from] & 0xC0) == 0x80);
    }
    return 0;
}

static int run_split(struct run *r, int i, const char *s, size_t n) {
    struct split sp = {.run = r, .step = i, .s = s};
    size_t from = 0, done = 0, start = 0;
    bool any = false;
    int rc;

    while ((rc = next_match(&sp, n, &from, &done, any, &start)) == 1) {
        if (start > done && take(&sp, done, start, false) != 0) return -1;
        if (take(&sp, start, from, true) != 0) return -1;
        done = from;
        any = true;
    }
    if (rc < 0) return -1;
    if (done < n && take(&sp, done, n, false) != 0) return -1;
    return release(&sp);
}

static int run_prefix(struct run *r, int i, const char *s, size_t n) {
    if (s[0] == ' ') return run_step(r, i + 1, s, n);
    r->prefixed.len = 0;
    text_buf_put(&r->prefixed, " ", 1);
    text_buf_put(&r->prefixed, s, n);
    if (r->prefixed.failed) return engine_fail(r->err, ENGINE_ENOMEM, "out of memory");
    return run_step(r, i + 1, r->prefixed.data, r->prefixed.len);
}

static int run_step(struct run *r, int i, const char *s, size_t n) {
    if (i == r->p->n) return r->fn(r->ctx, s, n, r->err);
    return r->p->steps[i].pattern != NULL ? run_split(r, i, s, n) : run_prefix(r, i, s, n);
}

int pretokenizer_run(const pretokenizer *p, const char *s, size_t n, piece_fn fn, void *ctx,
                     engine_error *err) {
    struct run r = {.p = p, .fn = fn, .ctx = ctx, .err = err};
    int rc;

    if (n == 0) return 0;
    r.work = pattern_work_new(err);
    if (r.work == NULL) return -1;
    rc = run_step(&r, 0, s, n);
    text_buf_done(&r.prefixed);
    pattern_work_free(r.work);
    return rc;
}

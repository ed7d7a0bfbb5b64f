/* Compiles and runs patterns. A pattern is built at load and owned by its pre-tokenizer. */
#include "engine/text/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/text/buf.h"
#include "engine/text/pattern_syntax.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

/* The known patterns have a few hundred bytes, and some thousand when translated. */
enum { PATTERN_MAX = 16 << 10, TRANSLATED_MAX = 256 << 10 };

struct pattern {
    pcre2_code *code;
};

struct pattern_work {
    pcre2_match_data *match;
};

static pattern *compile(const char *text, size_t n, uint32_t options, engine_error *err) {
    pattern *p = calloc(1, sizeof *p);
    pcre2_compile_context *how = pcre2_compile_context_create(NULL);
    int code = 0;
    PCRE2_SIZE at = 0;
    char why[128];

    if (p == NULL || how == NULL) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
        goto fail;
    }
    pcre2_set_newline(how, PCRE2_NEWLINE_LF);
    p->code = pcre2_compile((PCRE2_SPTR)text, n, options | PCRE2_UTF, &code, &at, how);
    if (p->code == NULL) {
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        engine_fail(err, ENGINE_EFORMAT, "the regex does not compile: %s", why);
        goto fail;
    }
    /* Without executable memory there is no JIT, and the interpreter runs the pattern. */
    (void)pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE);
    pcre2_compile_context_free(how);
    return p;
fail:
    pcre2_compile_context_free(how);
    free(p);
    return NULL;
}

pattern *pattern_new(const char *regex, size_t n, engine_error *err) {
    text_buf out = {0};
    pattern *p = NULL;

    if (n > PATTERN_MAX) {
        engine_fail(err, ENGINE_EFORMAT, "the regex has %zu bytes; at most %d are taken", n, PATTERN_MAX);
        return NULL;
    }
    if (pattern_translate(regex, n, &out, err) == 0) {
        if (out.len <= TRANSLATED_MAX)
            p = compile(out.len ? out.data : "", out.len, PCRE2_UCP | PCRE2_MULTILINE, err);
        else
            engine_fail(err, ENGINE_EFORMAT, "the regex names too many character classes");
    }
    text_buf_done(&out);
    return p;
}

pattern *pattern_new_literal(const char *text, size_t n, engine_error *err) {
    return compile(text, n, PCRE2_LITERAL, err);
}

void pattern_free(pattern *p) {
    if (p == NULL) return;
    pcre2_code_free(p->code);
    free(p);
}

pattern_work *pattern_work_new(engine_error *err) {
    pattern_work *w = calloc(1, sizeof *w);
    if (w != NULL) w->match = pcre2_match_data_create(1, NULL);
    if (w != NULL && w->match != NULL) return w;
    free(w);
    engine_fail(err, ENGINE_ENOMEM, "out of memory");
    return NULL;
}

void pattern_work_free(pattern_work *w) {
    if (w == NULL) return;
    pcre2_match_data_free(w->match);
    free(w);
}

int pattern_find(const pattern *p, pattern_work *w, const char *s, size_t n, size_t from, size_t *start,
                 size_t *end, engine_error *err) {
    char why[128];
    int rc = pcre2_match(p->code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK, w->match, NULL);

    /* The JIT's stack is small and fixed; the interpreter backtracks on the heap. */
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(p->code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, w->match, NULL);
    if (rc == PCRE2_ERROR_NOMATCH) return 0;
    if (rc < 0) {
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
        return engine_fail(err, rc == PCRE2_ERROR_NOMEMORY ? ENGINE_ENOMEM : ENGINE_EINVAL,
                           "the tokenizer's regex gave up on this text: %s", why);
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(w->match);
    *start = at[0];
    *end = at[1];
    return 1;
}

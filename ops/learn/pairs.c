/* See pairs.h. */
#include "ops/learn/pairs.h"

#include "ops/learn/files.h"

#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 1 << 30 };

static int by_prompt(const void *a, const void *b) {
    const mr_rated *x = *(const mr_rated *const *)a, *y = *(const mr_rated *const *)b;
    size_t n = x->prompt.n < y->prompt.n ? x->prompt.n : y->prompt.n;
    int c = memcmp(x->prompt.p, y->prompt.p, n);
    if (c == 0 && x->prompt.n != y->prompt.n) c = x->prompt.n < y->prompt.n ? -1 : 1;
    return c ? c : (x->at_ms > y->at_ms) - (x->at_ms < y->at_ms);
}

static bool usable(const mr_rated *r) {
    return r->rating != 0 && r->whole && r->prompt.n > 0;
}

static bool same_answer(const mr_rated *a, const mr_rated *b) {
    return mr_str_eq(mr_buf_str(&a->answer), mr_buf_str(&b->answer));
}

static json_t *said(const mr_rated *r) {
    return json_pack("[{s:s, s:s%}]", "role", "assistant", "content", r->answer.p, r->answer.n);
}

static json_t *pair_line(const mr_rated *good, const mr_rated *bad) {
    return json_pack("{s:o, s:o, s:o, s:[s%, s%]}", "prompt", json_loads(good->prompt.p, 0, NULL), "chosen",
                     said(good), "rejected", said(bad), "requests", good->request.p, good->request.n,
                     bad->request.p, bad->request.n);
}

/* Each answer that was not liked with the first one that was. `known` says which pairs the file has. */
static int put_pairs(mr_rated *const *group, int n, const char *known, mr_buf *out, mr_error *err) {
    char ids[2 * 256 + 32];
    const mr_rated *good = NULL;
    int added = 0;
    for (int i = 0; i < n && !good; i++) good = group[i]->rating > 0 ? group[i] : NULL;
    for (int i = 0; i < n && good; i++) {
        const mr_rated *bad = group[i];
        if (bad->rating > 0 || same_answer(good, bad)) continue;
        snprintf(ids, sizeof ids, "\"requests\":[\"%.*s\",\"%.*s\"]}", MR_FMT(good->request),
                 MR_FMT(bad->request));
        if (known && strstr(known, ids)) continue;
        if (mr_lines_put(out, pair_line(good, bad), err) < 0) return -1;
        added++;
    }
    return added;
}

static int put_groups(mr_rated **v, int n, const char *known, mr_buf *out, mr_error *err) {
    int added = 0;
    for (int i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && mr_str_eq(v[end]->prompt, v[i]->prompt);) end++;
        int more = put_pairs(v + i, end - i, known, out, err);
        if (more < 0) return -1;
        added += more;
    }
    return added;
}

int mr_pairs_save(const mr_gathered *g, const char *path, mr_error *err) {
    mr_buf old, out;
    int n = 0, added = 0, rc = 0;
    mr_rated **v = calloc((size_t)g->rated_n + 1, sizeof *v);
    if (!v) return mr_fail(err, MR_ENOMEM, "no memory for %d ratings", g->rated_n);
    mr_buf_init(&old, FILE_MAX);
    mr_buf_init(&out, FILE_MAX);
    for (int i = 0; i < g->rated_n; i++) {
        if (usable(&g->rated[i])) v[n++] = &g->rated[i];
    }
    qsort(v, (size_t)n, sizeof(mr_rated *), by_prompt);
    if (path) rc = mr_file_read(path, &old, err);
    mr_buf_put(&old, "", 1);
    if (rc == 0) {
        mr_buf_put(&out, old.p, old.n - 1);
        added = put_groups(v, n, old.p, &out, err);
    }
    if (rc == 0 && added > 0 && path) rc = mr_file_write(path, mr_buf_str(&out), err);
    mr_buf_done(&old);
    mr_buf_done(&out);
    free(v);
    return rc < 0 ? -1 : added;
}

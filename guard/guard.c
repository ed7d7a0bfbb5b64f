/* The sets that are in service, and loading them again; see guard.h. */
#include "guard/guard.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct mr_guard {
    mr_guard_options options;
    mr_personal *personal; /* NULL: off */
    mr_words *words;
    mr_scan *scan;
    struct stat *seen; /* of the lists last tried; zeros: it was not there */
};

static const struct {
    const char *id, *phrase;
} injections[] = {
#define MR_INJECTION(id, phrase) {id, phrase},
#include "guard/injection.def"
#undef MR_INJECTION
};

static int add_injections(mr_words *w, mr_guard_action action, mr_error *err) {
    if (action == MR_GUARD_OFF) return 0;
    for (size_t i = 0; i < sizeof injections / sizeof injections[0]; i++) {
        if (mr_words_add(w, mr_str_of(injections[i].phrase), injections[i].id, MR_GUARD_INJECTION, action,
                         err) < 0)
            return mr_fail_in(err, "%s", injections[i].id);
    }
    return 0;
}

static int fill(mr_guard *g, mr_words *w, mr_error *err) {
    for (int i = 0; i < g->options.lists.n; i++) {
        if (mr_words_add_file(w, g->options.lists.v[i], err) < 0) return -1;
    }
    if (add_injections(w, g->options.injection, err) < 0) return -1;
    return mr_words_compile(w, err);
}

static int load(mr_guard *g, mr_error *err) {
    mr_scan *scan = NULL;
    mr_words *w = mr_words_new(err);
    if (!w) return -1;
    int rc = fill(g, w, err);
    if (rc == 0 && !(scan = mr_scan_new(w, err))) rc = -1;
    if (rc < 0) {
        mr_words_release(w);
        return -1;
    }
    mr_scan_free(g->scan);
    mr_words_release(g->words);
    g->scan = scan;
    g->words = w;
    return 0;
}

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static bool see_changes(mr_guard *g) {
    bool changed = false;
    for (int i = 0; i < g->options.lists.n; i++) {
        struct stat now;
        if (stat(g->options.lists.v[i], &now) < 0) memset(&now, 0, sizeof now);
        if (same_file(&now, &g->seen[i])) continue;
        g->seen[i] = now;
        changed = true;
    }
    return changed;
}

int mr_guard_refresh(mr_guard *g, mr_error *err) {
    if (!see_changes(g)) return 0;
    return load(g, err) < 0 ? -1 : 1;
}

mr_guard *mr_guard_open(const mr_guard_options *o, mr_error *err) {
    mr_guard *g = calloc(1, sizeof *g);
    if (g) {
        g->options = *o;
        g->seen = calloc((size_t)o->lists.n + 1, sizeof *g->seen);
    }
    if (!g || !g->seen) {
        mr_fail(err, MR_ENOMEM, "no memory for the guard");
        mr_guard_close(g);
        return NULL;
    }
    (void)see_changes(g);
    if (load(g, err) < 0 ||
        (o->personal != MR_GUARD_OFF && !(g->personal = mr_personal_new(o->personal, err)))) {
        mr_guard_close(g);
        return NULL;
    }
    return g;
}

void mr_guard_close(mr_guard *g) {
    if (!g) return;
    mr_personal_free(g->personal);
    mr_scan_free(g->scan);
    mr_words_release(g->words);
    free(g->seen);
    free(g);
}

int mr_guard_rules(const mr_guard *g) {
    return mr_words_count(g->words);
}

mr_words *mr_guard_words(mr_guard *g) {
    return g->words;
}

int mr_guard_scan(mr_guard *g, mr_str text, mr_guard_hit_cb *cb, void *arg, mr_error *err) {
    mr_error ignored;
    if (mr_scan_feed(g->scan, text, cb, arg, err) < 0) {
        (void)mr_scan_finish(g->scan, cb, arg, &ignored);
        return -1;
    }
    if (mr_scan_finish(g->scan, cb, arg, err) < 0) return -1;
    return g->personal ? mr_personal_scan(g->personal, text, cb, arg, err) : 0;
}

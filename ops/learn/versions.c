/* See versions.h. */
#include "ops/learn/versions.h"

#include "base/loop.h"
#include "ops/learn/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MODEL_MAX = 64 << 20, LIST_MAX = 1 << 20 };

static void path_of(const mr_versions *s, int number, char out[PATH_MAX + 32]) {
    snprintf(out, PATH_MAX + 32, "%s/versions/%04d.model", s->folder, number);
}

static void list_path(const mr_versions *s, char out[PATH_MAX + 32]) {
    snprintf(out, PATH_MAX + 32, "%s/versions.json", s->folder);
}

static mr_model_version *find(mr_versions *s, int number) {
    for (int i = 0; i < s->n; i++) {
        if (s->v[i].number == number) return &s->v[i];
    }
    return NULL;
}

/* ---- the list ---- */

static int read_list(mr_versions *s, const char *path, const json_t *list, mr_error *err) {
    size_t i;
    json_t *one;
    if (!json_is_array(list) || json_array_size(list) > MR_VERSIONS_MAX) {
        return mr_fail(err, MR_EINVAL, "%s is no list of versions", path);
    }
    json_array_foreach(list, i, one) {
        mr_model_version v = {(int)mr_line_int(one, "version"), (int)mr_line_int(one, "replaced"),
                        mr_line_int(one, "at_ms")};
        if (v.number <= (s->n ? s->v[s->n - 1].number : 0) || v.replaced < 0 || v.replaced >= v.number) {
            return mr_fail(err, MR_EINVAL, "%s: entry %zu is no version, or out of order", path, i);
        }
        s->v[s->n++] = v;
    }
    return 0;
}

int mr_versions_open(mr_versions *s, const char *folder, const char *model, mr_error *err) {
    char path[PATH_MAX + 32];
    mr_buf b;
    memset(s, 0, sizeof *s);
    if (strlen(folder) >= sizeof s->folder - 64 || strlen(model) >= sizeof s->model - 64) {
        return mr_fail(err, MR_ETOOBIG, "the path of the model is too long");
    }
    strcpy(s->folder, folder);
    strcpy(s->model, model);
    snprintf(path, sizeof path, "%s/versions", folder);
    if (mr_folder_make(folder, err) < 0 || mr_folder_make(path, err) < 0) return -1;
    mr_buf_init(&b, LIST_MAX);
    list_path(s, path);
    int rc = mr_file_read(path, &b, err);
    if (rc == 0 && b.n > 0) {
        json_t *list = json_loadb(b.p, b.n, 0, NULL);
        rc = read_list(s, path, list, err);
        json_decref(list);
    }
    mr_buf_done(&b);
    return rc;
}

static int write_list(const mr_versions *s, mr_error *err) {
    char path[PATH_MAX + 32];
    json_t *list = json_array();
    for (int i = 0; i < s->n; i++) {
        json_array_append_new(list, json_pack("{s:i, s:i, s:I}", "version", s->v[i].number, "replaced",
                                              s->v[i].replaced, "at_ms", (json_int_t)s->v[i].at_ms));
    }
    char *text = json_dumps(list, JSON_INDENT(1));
    json_decref(list);
    list_path(s, path);
    int rc = text ? mr_file_write(path, mr_str_of(text), err)
                  : mr_fail(err, MR_ENOMEM, "no memory for the list of versions");
    free(text);
    return rc;
}

/* ---- files ---- */

static bool same_bytes(const mr_buf *a, const char *path) {
    mr_buf b;
    mr_error ignored;
    mr_buf_init(&b, MODEL_MAX);
    bool same = mr_file_read(path, &b, &ignored) == 0 && b.n == a->n && memcmp(a->p, b.p, a->n) == 0;
    mr_buf_done(&b);
    return same;
}

/* The newest version with the bytes of the file in service; 0: none. */
static int number_of(const mr_versions *s, const mr_buf *bytes) {
    char path[PATH_MAX + 32];
    for (int i = s->n - 1; i >= 0; i--) {
        path_of(s, s->v[i].number, path);
        if (same_bytes(bytes, path)) return s->v[i].number;
    }
    return 0;
}

/* Past the last one, also past a file that a crash left without an entry. */
static int next_number(const mr_versions *s) {
    char path[PATH_MAX + 32];
    int number = s->n ? s->v[s->n - 1].number : 0;
    do path_of(s, ++number, path);
    while (access(path, F_OK) == 0);
    return number;
}

static int add_entry(mr_versions *s, int number, int replaced, mr_error *err) {
    if (s->n == MR_VERSIONS_MAX) memmove(s->v, s->v + 1, (size_t)--s->n * sizeof s->v[0]);
    s->v[s->n++] = (mr_model_version){number, replaced, mr_now_ms()};
    if (write_list(s, err) == 0) return 0;
    s->n--;
    return -1;
}

int mr_versions_current(mr_versions *s, mr_error *err) {
    char path[PATH_MAX + 32];
    mr_buf b;
    mr_buf_init(&b, MODEL_MAX);
    int rc = mr_file_read(s->model, &b, err), number = 0;
    if (rc == 0 && b.n == 0) {
        rc = mr_fail(err, MR_ENOTFOUND, "%s: there is no model; make one with `millrace intent train`",
                     s->model);
    }
    if (rc == 0) number = number_of(s, &b);
    if (rc == 0 && number == 0) {
        number = next_number(s);
        path_of(s, number, path);
        rc = mr_file_write(path, mr_buf_str(&b), err);
        if (rc == 0) rc = add_entry(s, number, 0, err);
    }
    mr_buf_done(&b);
    return rc < 0 ? -1 : number;
}

/* The oldest ones go first, but never the current one and the one that a rollback would go back to. */
static void forget_old(mr_versions *s, const mr_model_version *current, int keep) {
    char path[PATH_MAX + 32];
    mr_error ignored;
    int number = current->number, before = current->replaced, excess = s->n - keep, kept = 0;
    for (int i = 0; i < s->n; i++) {
        bool needed = s->v[i].number == number || s->v[i].number == before;
        if (excess > 0 && !needed) {
            path_of(s, s->v[i].number, path);
            unlink(path);
            excess--;
        } else {
            s->v[kept++] = s->v[i];
        }
    }
    if (kept == s->n) return;
    s->n = kept;
    write_list(s, &ignored); /* an entry without its file is never found to be the current one */
}

int mr_versions_promote(mr_versions *s, const char *candidate, int keep, mr_error *err) {
    char path[PATH_MAX + 32];
    int before = mr_versions_current(s, err), number = next_number(s);
    if (before < 0) return -1;
    path_of(s, number, path);
    if (rename(candidate, path) < 0) return mr_fail(err, MR_EIO, "%s: %s", path, strerror(errno));
    if (add_entry(s, number, before, err) < 0 || mr_file_copy(path, s->model, err) < 0) return -1;
    forget_old(s, find(s, number), keep);
    return number;
}

int mr_versions_rollback(mr_versions *s, mr_error *err) {
    char path[PATH_MAX + 32];
    int number = mr_versions_current(s, err);
    if (number < 0) return -1;
    int back = find(s, number)->replaced;
    if (back == 0 || !find(s, back)) {
        return mr_fail(err, MR_ENOTFOUND,
                       "version %d is in service, and there is no earlier one to go back to", number);
    }
    path_of(s, back, path);
    return mr_file_copy(path, s->model, err) < 0 ? -1 : back;
}

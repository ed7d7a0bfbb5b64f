/* A ring of strings in the order they came, and a tree (tsearch) over the same strings to find them. See recent.h. */
#include "worker/recent.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

struct mr_recent {
    void *tree;
    int capacity, next;
    char *ring[]; /* NULL where not yet used */
};

static int compare(const void *a, const void *b) {
    return strcmp(a, b);
}
static void keep(void *unused) {
    (void)unused;
}

mr_recent *mr_recent_new(int capacity, mr_error *err) {
    mr_recent *r = calloc(1, sizeof(*r) + (size_t)capacity * sizeof(r->ring[0]));
    if (!r) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    r->capacity = capacity;
    return r;
}

void mr_recent_free(mr_recent *r) {
    if (!r) return;
    tdestroy(r->tree, keep); /* the nodes; the strings are the ring's */
    for (int i = 0; i < r->capacity; i++) free(r->ring[i]);
    free(r);
}

static void forget_oldest(mr_recent *r) {
    char *old = r->ring[r->next];
    if (!old) return;
    tdelete(old, &r->tree, compare);
    free(old);
    r->ring[r->next] = NULL;
}

void mr_recent_add(mr_recent *r, mr_str s) {
    if (mr_recent_has(r, s)) return;
    forget_oldest(r);
    char *copy = strndup(s.p, s.n);
    if (!copy) return;
    if (!tsearch(copy, &r->tree, compare)) {
        free(copy);
        return;
    }
    r->ring[r->next] = copy;
    r->next = (r->next + 1) % r->capacity;
}

bool mr_recent_has(const mr_recent *r, mr_str s) {
    char key[512];
    if (s.n >= sizeof(key)) return false;
    memcpy(key, s.p, s.n);
    key[s.n] = '\0';
    return tfind(key, &r->tree, compare) != NULL;
}

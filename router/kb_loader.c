/* A thread that opens a knowledge base; see kb_loader.h. */
#include "router/kb_loader.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct mr_kb_loader {
    char *path;
    pthread_t thread;
    atomic_bool done; /* what follows is the loop's from then on */
    int rc;
    mr_kb_file file;
    mr_error err;
};

static void *load(void *arg) {
    mr_kb_loader *l = arg;
    l->rc = mr_kb_file_open(&l->file, l->path, &l->err);
    atomic_store(&l->done, true);
    return NULL;
}

mr_kb_loader *mr_kb_loader_new(const char *path, mr_error *err) {
    mr_kb_loader *l = calloc(1, sizeof *l);
    if (l) l->path = strdup(path);
    if (l && l->path && pthread_create(&l->thread, NULL, load, l) == 0) return l;
    if (l) free(l->path);
    free(l);
    mr_fail(err, MR_ENOMEM, "no thread to load it");
    return NULL;
}

int mr_kb_loader_take(mr_kb_loader *l, mr_kb_file *out, mr_error *err) {
    if (!atomic_load(&l->done)) return 0;
    if (l->rc < 0) {
        *err = l->err;
        return -1;
    }
    *out = l->file;
    l->file = (mr_kb_file){0};
    return 1;
}

void mr_kb_loader_free(mr_kb_loader *l) {
    if (!l) return;
    pthread_join(l->thread, NULL);
    mr_kb_file_close(&l->file);
    free(l->path);
    free(l);
}

/* Opens a model of intents and classifies by it; see intent.h. */
#include "router/intent.h"

#include "router/intent_model.h"
#include "router/intent_write.h"
#include "text/text_norm.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* More than MR_INTENT_TEXT_MAX in words form, even of text that is mostly punctuation. */
enum { LOOKED_AT = 4 * MR_INTENT_TEXT_MAX };

/* One mapped file; replaced as a whole when the file changes. */
typedef struct mapped {
    void *bytes;
    size_t n;
    mr_intent_image image;
    mr_intent_scores *scores;
    uint32_t *by_name; /* labels in the order of their names */
} mapped;

struct mr_intent {
    char *path;
    mapped file;
    struct stat seen; /* of the file last tried */
    bool missing;     /* said already that it is not there */
    uint64_t version; /* of the file */
    mr_buf words;
};

static atomic_uint_least64_t versions; /* that were given out */

static void mapped_close(mapped *f) {
    if (f->bytes) munmap(f->bytes, f->n);
    mr_intent_scores_free(f->scores);
    free(f->by_name);
    *f = (mapped){0};
}

static int map_file(mapped *f, int fd, mr_error *err) {
    struct stat s;
    if (fstat(fd, &s) < 0) return mr_fail(err, MR_EIO, "%s", strerror(errno));
    if (!S_ISREG(s.st_mode) || s.st_size < (off_t)sizeof(mr_intent_header) ||
        s.st_size > MR_INTENT_BYTES_MAX) {
        return mr_fail(
            err, MR_EINVAL,
            "this is not a model of intents: make one with `millrace intent train DATA.tsv -o MODEL`");
    }
    void *p = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED) return mr_fail(err, MR_EIO, "%s", strerror(errno));
    f->bytes = p;
    f->n = (size_t)s.st_size;
    return 0;
}

static const char *label_name(const mr_intent_image *m, uint32_t label) {
    return m->text + m->label[label].name;
}

static int compare_labels(const void *a, const void *b, void *image) {
    return strcmp(label_name(image, *(const uint32_t *)a), label_name(image, *(const uint32_t *)b));
}

static int sort_labels(mapped *f, mr_error *err) {
    uint32_t n = f->image.head.labels;
    f->by_name = calloc(n, sizeof *f->by_name);
    if (!f->by_name) return mr_fail(err, MR_ENOMEM, "no memory for the labels of a model");
    for (uint32_t i = 0; i < n; i++) f->by_name[i] = i;
    qsort_r(f->by_name, n, sizeof *f->by_name, compare_labels, &f->image);
    return 0;
}

static int mapped_open(mapped *f, const char *path, mr_error *err) {
    *f = (mapped){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return mr_fail(err, MR_EIO, "%s", strerror(errno));
    int rc = map_file(f, fd, err);
    close(fd);
    if (rc == 0) rc = mr_intent_image_check(f->bytes, f->n, &f->image, err);
    if (rc == 0 && !(f->scores = mr_intent_scores_new(&f->image, err))) rc = -1;
    if (rc == 0) rc = sort_labels(f, err);
    if (rc < 0) mapped_close(f);
    return rc;
}

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

int mr_intent_refresh(mr_intent *in, mr_error *err) {
    struct stat now;
    mapped fresh;
    if (stat(in->path, &now) < 0) {
        if (in->missing) return 0;
        in->missing = true;
        memset(&in->seen, 0, sizeof in->seen);
        return mr_fail(err, MR_ENOTFOUND,
                       "model of intents %s: %s; make it with `millrace intent train DATA.tsv -o MODEL`",
                       in->path, strerror(errno));
    }
    in->missing = false;
    if (same_file(&now, &in->seen)) return 0;
    in->seen = now;
    if (mapped_open(&fresh, in->path, err) < 0) return mr_fail_in(err, "model of intents %s", in->path);
    mapped_close(&in->file);
    in->file = fresh;
    in->version = atomic_fetch_add(&versions, 1) + 1;
    return 1;
}

mr_intent *mr_intent_open(const char *path, mr_error *err) {
    mr_intent *in = calloc(1, sizeof *in);
    if (in) {
        in->path = strdup(path);
        mr_buf_init(&in->words, 20 * LOOKED_AT);
    }
    if (!in || !in->path) {
        mr_fail(err, MR_ENOMEM, "no memory to open the model of intents %s", path);
    } else if (mr_intent_refresh(in, err) == 1) {
        return in;
    }
    mr_intent_close(in);
    return NULL;
}

void mr_intent_close(mr_intent *in) {
    if (!in) return;
    mapped_close(&in->file);
    mr_buf_done(&in->words);
    free(in->path);
    free(in);
}

mr_str mr_intent_label_name(const mr_intent *in, int i, bool *outside) {
    const mr_intent_image *m = &in->file.image;
    if (outside) *outside = m->label[i].outside;
    return mr_str_of(m->text + m->label[i].name);
}

void mr_intent_classify_words(mr_intent *in, mr_str words, mr_intent_guess *out) {
    mr_intent_scores *s = in->file.scores;
    mr_intent_score(&in->file.image, words, s);
    mr_intent_judge(&in->file.image, s);
    *out = (mr_intent_guess){.label = MR_STR(""), .confidence = s->routine, .probability = s->probability};
    out->class_label = mr_intent_label_name(in, s->best, NULL);
    if (s->best_routine >= 0) out->label = mr_intent_label_name(in, s->best_routine, NULL);
    out->routine = s->best_routine >= 0 && s->features.n > 0 && s->routine >= in->file.image.head.threshold;
}

int mr_intent_classify(mr_intent *in, mr_str text, mr_intent_guess *out, mr_error *err) {
    if (text.n > LOOKED_AT) {
        text.n = LOOKED_AT;
        while (text.n > 0 && ((unsigned char)text.p[text.n] & 0xC0) == 0x80) text.n--;
    }
    mr_buf_clear(&in->words);
    if (mr_text_words(text, &in->words, err) < 0) return -1;
    mr_intent_classify_words(in, mr_buf_str(&in->words), out);
    return 0;
}

int mr_intent_labels(const mr_intent *in) {
    return (int)in->file.image.head.labels;
}

uint64_t mr_intent_version(const mr_intent *in) {
    return in->version;
}

int mr_intent_label_number(const mr_intent *in, mr_str name) {
    const mapped *f = &in->file;
    uint32_t low = 0, high = f->image.head.labels;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const char *z = label_name(&f->image, f->by_name[middle]);
        int order = strncmp(z, name.p, name.n);
        if (order == 0 && z[name.n] == '\0') return (int)f->by_name[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

double mr_intent_label_probability(const mr_intent *in, int i) {
    const mr_intent_scores *s = in->file.scores;
    bool judged = s->best_routine >= 0 && s->features.n > 0;
    return judged ? exp((double)(s->logit[i] - s->log_total)) : 0;
}

int mr_intent_likeliest(const mr_intent *in, int *labels, int max) {
    const mr_intent_scores *s = in->file.scores;
    int n = 0;
    if (s->best_routine < 0 || s->features.n == 0) return 0;
    for (int i = 0; i < mr_intent_labels(in); i++) {
        int at = n < max ? n++ : max;
        while (at > 0 && s->logit[labels[at - 1]] < s->logit[i]) {
            if (at < max) labels[at] = labels[at - 1];
            at--;
        }
        if (at < max) labels[at] = i;
    }
    return n;
}

double mr_intent_threshold(const mr_intent *in) {
    return in->file.image.head.threshold;
}

int mr_intent_set_threshold(const char *path, double threshold, double share_low, double share_high,
                            mr_error *err) {
    mapped f;
    if (mapped_open(&f, path, err) < 0) return mr_fail_in(err, "model of intents %s", path);
    char *copy = malloc(f.n);
    int rc = copy ? 0 : mr_fail(err, MR_ENOMEM, "no memory for a copy of the model");
    if (copy) {
        memcpy(copy, f.bytes, f.n);
        f.image.head.threshold = (float)threshold;
        f.image.head.share_low = (float)share_low;
        f.image.head.share_high = (float)share_high;
        memcpy(copy, &f.image.head, sizeof f.image.head);
        rc = mr_intent_write(path, copy, err);
    }
    free(copy);
    mapped_close(&f);
    return rc;
}

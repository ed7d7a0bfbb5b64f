/* Jobs and their table. See job.h. */
#include "worker/job.h"

#include "base/log.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[] = {"looking", "waiting", "running", "stopping", "ending"};

struct mr_jobs {
    void *by_id; /* tsearch */
    mr_job *first, *last;
    int n;
    size_t bytes;
};

static int compare(const void *a, const void *b) {
    return strcmp(((const mr_job *)a)->id, ((const mr_job *)b)->id);
}

mr_jobs *mr_jobs_new(mr_error *err) {
    mr_jobs *t = calloc(1, sizeof(*t));
    if (!t) mr_fail(err, MR_ENOMEM, "out of memory for the table of requests");
    return t;
}

static void job_free(mr_job *j) {
    mr_stream_close(&j->stream);
    mr_buf_done(&j->request);
    mr_buf_done(&j->answer);
    free(j->tokens);
    free(j);
}

void mr_jobs_free(mr_jobs *t) {
    if (!t) return;
    while (t->first) mr_jobs_remove(t, t->first);
    free(t);
}

mr_job *mr_jobs_add(mr_jobs *t, mr_str id, mr_error *err) {
    mr_job *j = calloc(1, sizeof(*j));
    if (!j) goto fail;
    mr_buf_init(&j->request, MR_TEXT_MAX);
    mr_str_copy(id, j->id, sizeof(j->id));
    if (!tsearch(j, &t->by_id, compare)) goto fail;
    j->prev = t->last;
    *(t->last ? &t->last->next : &t->first) = j;
    t->last = j;
    t->n++;
    return j;
fail:
    free(j);
    mr_fail(err, MR_ENOMEM, "out of memory for a request");
    return NULL;
}

void mr_jobs_remove(mr_jobs *t, mr_job *j) {
    tdelete(j, &t->by_id, compare);
    *(j->prev ? &j->prev->next : &t->first) = j->next;
    *(j->next ? &j->next->prev : &t->last) = j->prev;
    t->n--;
    t->bytes -= j->request.n;
    job_free(j);
}

mr_job *mr_jobs_find(const mr_jobs *t, mr_str id) {
    mr_job key;
    if (id.n >= sizeof(key.id)) return NULL;
    memcpy(key.id, id.p, id.n);
    key.id[id.n] = '\0';
    mr_job *const *found = tfind(&key, &t->by_id, compare);
    return found ? *found : NULL;
}

mr_job *mr_jobs_first(const mr_jobs *t) {
    return t->first;
}
int mr_jobs_count(const mr_jobs *t) {
    return t->n;
}
size_t mr_jobs_bytes(const mr_jobs *t) {
    return t->bytes;
}
void mr_jobs_weigh(mr_jobs *t, const mr_job *j) {
    t->bytes += j->request.n;
}

void mr_job_set_state(mr_job *j, mr_job_state s, const char *why) {
    mr_log(MR_DEBUG, "request", MR_S("request", j->id), MR_S("from", state_names[j->state]),
           MR_S("to", state_names[s]), MR_S("reason", why));
    j->state = s;
}

const char *mr_job_state_name(mr_job_state s) {
    return state_names[s];
}

bool mr_job_add_tokens(mr_job *j, const int64_t *v, uint32_t n) {
    if (j->ntokens + n > j->tokens_cap) {
        uint32_t cap = 2 * (j->ntokens + n);
        int64_t *more = realloc(j->tokens, cap * sizeof(*more));
        if (!more) return false;
        j->tokens = more;
        j->tokens_cap = cap;
    }
    memcpy(j->tokens + j->ntokens, v, n * sizeof(*v));
    j->ntokens += n;
    return true;
}

/* Connections that go on with an answer, from the log (see stream.h).
 *
 * Such an entry of the table reads every record of the answer from its first on, and decides as the first gateway did, since
 * it sees the same records in the same order; it says only what its client lacks. It asks for nothing itself: where the
 * first gateway asked again for an answer that differed, the records of the next generation come. */
#include "gateway/resume.h"

#include "base/log.h"
#include "gateway/stream_say.h"

#include <stdio.h>

#define WAIT_S 10 /* for the next generation: the gateway that could ask for it may be gone */

/* ---- starting ---- */

/* Whoever served the answer before does not wait for its client any more, and must not cancel it. */
static void announce(mr_stream *st) {
    char key[MR_CHOICE_ID_LEN + 8];
    mr_control c = {0};
    mr_error err;
    snprintf(key, sizeof(key), "resume/%s", st->choice[0].id);
    MR_SET(&c, MR_CONTROL_V, v, MR_SCHEMA_VERSION);
    MR_SET(&c, MR_CONTROL_KIND, kind, MR_CONTROL_IS_RESUME);
    MR_SET(&c, MR_CONTROL_REQUEST, request, mr_str_of(st->choice[0].id));
    MR_SET(&c, MR_CONTROL_EPOCH, epoch, st->epoch);
    MR_SET(&c, MR_CONTROL_CREATED_MS, created_ms, mr_now_ms());
    mr_outbox_record rec = {MR_TOPIC_CONTROL, mr_str_of(key), &mr_control_def, &c, st->from.trace};
    if (mr_outbox_send(st->table->out, &rec, NULL, NULL, NULL, &err) < 0) {
        mr_log(MR_WARN, "the other gateways do not hear that a client came back",
               MR_S("request", st->choice[0].id), MR_S("reason", err.msg));
    }
}

static void place(mr_stream *st, const mr_resume *q) {
    st->resumed = true;
    st->at = q->at;
    st->epoch = mr_now_ms() * 1000 + mr_mono_us() % 1000; /* later connections have later ones */
    for (int i = 0; i < st->n; i++) {
        mr_choice *c = &st->choice[i];
        c->skip = q->seen[i];
        c->begun = q->seen[i] > 0;
        c->next = q->at.position;
        c->render.created = q->at.created_s;
    }
}

int mr_streams_resume(mr_streams *s, mr_call *call, const mr_resume *q, const mr_stream_origin *from,
                      mr_api_error *e) {
    const mr_strlist *models = &s->conf->models;
    mr_openai_request req = {.chat.id = q->id,
                             .model = q->at.model < models->n ? models->v[q->at.model] : models->v[0],
                             .stream = q->streamed,
                             .include_usage = q->at.usage,
                             .form = q->at.form,
                             .n = q->at.n};
    mr_error err;
    if (s->count >= s->conf->max_in_flight) {
        return mr_refuse(e, 429, "too_many_requests", NULL, "Too many requests at once; please try again.");
    }
    mr_stream *st = mr_stream_new(s, call, &req, from);
    if (!st) return mr_refuse(e, 500, "out_of_memory", NULL, "Out of memory.");
    place(st, q);
    st->round = mr_log_want(s->log, q->at.partition, q->at.position, &err);
    if (st->round < 0) {
        st->resumed = false; /* nothing to release */
        mr_stream_free(st);
        mr_log(MR_ERROR, "an answer cannot be read from the log", MR_SS("request", q->id),
               MR_S("reason", err.msg));
        return mr_refuse(e, 503, "unavailable", NULL, "The answer cannot be read now; please try again.");
    }
    mr_counter_add(s->resumes, 1);
    announce(st);
    mr_streams_came_back(s, q->id, st->epoch);
    mr_stream_watch(st);
    return 0;
}

/* ---- who else has the answer ---- */

static mr_stream *find_earlier(mr_streams *s, mr_str request, int64_t epoch) {
    mr_choice *c;
    LIST_FOREACH(c, mr_streams_bucket(s, request), in_bucket) {
        mr_stream *st = c->of;
        if (mr_str_eqz(request, c->id) && st->epoch < epoch && !st->moved) return st;
    }
    return NULL;
}

void mr_streams_came_back(mr_streams *s, mr_str request, int64_t epoch) {
    for (mr_stream *st; (st = find_earlier(s, request, epoch)) != NULL;) {
        st->moved = true;
        if (!st->call) mr_stream_drop(st, "moved");
    }
}

/* ---- the log ---- */

void mr_resume_gone(mr_stream *st) {
    mr_api_error e;
    mr_refuse(&e, 410, "answer_expired", NULL, "This answer is not kept any more.");
    mr_stream_end_with(st, &e);
}

/* The log holds nothing of it: it is still in line, or there is no such answer. */
static void nothing_there(mr_stream *st) {
    const mr_gateway_conf *conf = st->table->conf;
    mr_api_error e;
    if (st->trimmed) {
        mr_resume_gone(st);
    } else if (mr_now_ms() / 1000 > st->at.created_s + conf->request_timeout_s) {
        mr_refuse(&e, 404, "unknown_request", NULL, "There is no answer with this id.");
        mr_stream_end_with(st, &e);
    } else {
        mr_stream_accept(st);
    }
}

static bool is_of_round(const mr_stream *st, int32_t partition, int64_t round) {
    return st->resumed && st->at.partition == partition && st->round <= round;
}

void mr_streams_log_end(mr_streams *s, int32_t partition, int64_t round) {
    for (mr_stream *st = LIST_FIRST(&s->all), *next; st; st = next) {
        next = LIST_NEXT(st, in_table);
        if (!is_of_round(st, partition, round) || st->caught_up) continue;
        st->caught_up = true;
        if (!st->found) nothing_there(st);
    }
}

void mr_streams_log_gone(mr_streams *s, int32_t partition, int64_t round, int64_t position) {
    mr_stream *st;
    LIST_FOREACH(st, &s->all, in_table) {
        if (is_of_round(st, partition, round) && st->at.position == position) st->trimmed = true;
    }
}

bool mr_streams_resumes(mr_streams *s, mr_str request) {
    mr_choice *c;
    (void)mr_split_generation(&request);
    LIST_FOREACH(c, mr_streams_bucket(s, request), in_bucket) {
        if (c->of->resumed && mr_str_eqz(request, c->id)) return true;
    }
    return false;
}

mr_choice *mr_resume_next(mr_streams *s, mr_str request, const mr_log_place *from) {
    mr_choice *c;
    (void)mr_split_generation(&request);
    LIST_FOREACH(c, mr_streams_bucket(s, request), in_bucket) {
        if (!is_of_round(c->of, from->partition, from->round) || from->offset < c->next) continue;
        if (!mr_str_eqz(request, c->id)) continue;
        c->next = from->offset + 1;
        c->of->found = true;
        return c;
    }
    return NULL;
}

/* ---- time ---- */

static bool waits_in_vain(const mr_stream *st, int64_t now_us) {
    for (int i = 0; i < st->n; i++) {
        int64_t since = st->choice[i].waiting_us;
        if (since && now_us - since > WAIT_S * 1000000) return true;
    }
    return false;
}

/* False when the entry is gone. */
bool mr_resume_tick(mr_stream *st, int64_t now_us) {
    mr_api_error e;
    if (!st->found && !st->caught_up &&
        now_us - st->started_us > st->table->conf->accept_timeout_s * 1000000) {
        mr_refuse(&e, 503, "unavailable", NULL, "The answer could not be read in time; please try again.");
    } else if (waits_in_vain(st, now_us)) {
        mr_refuse(&e, 500, "answer_mismatch", NULL,
                  "The answer was interrupted and could not be continued. Please try again.");
    } else {
        return true;
    }
    mr_stream_end_with(st, &e);
    return false;
}

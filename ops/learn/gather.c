/* See gather.h. */
#include "ops/learn/gather.h"

#include "guard/personal.h"
#include "ops/learn/read.h"
#include "router/purpose.h"
#include "schemas/hash.h"
#include "schemas/messages.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    RATED_MAX = 200000,
    IDS_MAX = 1 << 24,   /* chats of a period */
    TALK_MAX = 64 << 10, /* bytes of a conversation, or of an answer, that is learned from */
    ARENA_MAX = 1 << 30,
    MESSAGE_MAX = 64 << 20,          /* of one decoded record */
    LOOK_BACK_MS = 7 * 86400 * 1000, /* a rating may come so much later than the request */
};

typedef struct gathering {
    const mr_gather_options *o;
    mr_gathered *out;
    mr_arena *scratch;
    mr_personal *personal;
    uint64_t *ids; /* of the period's chats: open addressing by hash, 0 = free */
    size_t ids_n, ids_cap;
    double *distance; /* [review_max] of the unsure ones from the threshold */
} gathering;

static uint64_t hash_of(mr_str s) {
    uint64_t h = mr_text_hash_feed(mr_text_hash_init(), s) * UINT64_C(0x9E3779B97F4A7C15);
    return h ? h : 1;
}

/* ---- personal data ---- */

typedef struct masking {
    mr_str text;
    mr_buf *out;
    size_t at;
} masking;

static void on_personal(void *arg, const mr_guard_hit *hit) {
    masking *m = arg;
    if (hit->start < m->at) return;
    mr_buf_put(m->out, m->text.p + m->at, hit->start - m->at);
    mr_buf_puts(m->out, hit->rule->substitute);
    m->at = hit->end;
}

static int mask(gathering *g, mr_str text, mr_buf *out, mr_error *err) {
    masking m = {text, out, 0};
    if (mr_personal_scan(g->personal, text, on_personal, &m, err) < 0) return -1;
    mr_buf_put(out, text.p + m.at, text.n - m.at);
    return out->failed ? mr_fail(err, MR_ENOMEM, "no memory to mask a text") : 0;
}

static int keep_masked(gathering *g, mr_str text, mr_str *out, mr_error *err) {
    mr_buf b;
    mr_buf_init(&b, 4 * MESSAGE_MAX);
    int rc = mask(g, text, &b, err);
    if (rc == 0) *out = mr_arena_str(g->out->arena, b.n ? mr_buf_str(&b) : MR_STR(""));
    mr_buf_done(&b);
    return rc < 0 || out->p ? rc
                            : mr_fail(err, MR_ETOOBIG, "the period has too much text: take a shorter one");
}

/* ---- tables ---- */

static int *rated_slot(const mr_gathered *g, mr_str request) {
    int mask = g->slots_n - 1, i = (int)(hash_of(request) >> 20 & (uint64_t)mask);
    while (g->slots[i] != 0 && !mr_str_eq(g->rated[g->slots[i] - 1].request, request)) i = (i + 1) & mask;
    return &g->slots[i];
}

static mr_rated *find_rated(const mr_gathered *g, mr_str request) {
    int i = g->slots_n ? *rated_slot(g, request) : 0;
    return i ? &g->rated[i - 1] : NULL;
}

static int grow_rated(mr_gathered *g, mr_error *err) {
    int cap = g->rated_cap ? 2 * g->rated_cap : 256;
    if (cap > 2 * RATED_MAX) {
        return mr_fail(err, MR_ETOOBIG, "over %d ratings: take a shorter period", RATED_MAX);
    }
    mr_rated *v = realloc(g->rated, (size_t)cap * sizeof *v);
    if (v) g->rated = v;
    int *slots = calloc((size_t)cap * 2, sizeof *slots);
    if (!v || !slots) {
        free(slots);
        return mr_fail(err, MR_ENOMEM, "no memory for %d ratings", cap);
    }
    free(g->slots);
    g->slots = slots;
    g->slots_n = 2 * cap;
    g->rated_cap = cap;
    for (int i = 0; i < g->rated_n; i++) *rated_slot(g, g->rated[i].request) = i + 1;
    return 0;
}

/* Twice as large when it is half full; a period with more chats than it holds is too long. */
static int add_id(gathering *g, uint64_t id, mr_error *err) {
    if (2 * g->ids_n >= g->ids_cap) {
        size_t cap = g->ids_cap ? 2 * g->ids_cap : 1 << 16, old = g->ids_cap;
        uint64_t *ids = cap <= 2 * IDS_MAX ? calloc(cap, sizeof *ids) : NULL, *was = g->ids;
        if (!ids) return mr_fail(err, MR_ETOOBIG, "the period has too many chats: take a shorter one");
        g->ids = ids;
        g->ids_cap = cap;
        g->ids_n = 0;
        for (size_t i = 0; i < old; i++) {
            if (was[i] && add_id(g, was[i], err) < 0) return -1;
        }
        free(was);
    }
    size_t i = id & (g->ids_cap - 1);
    while (g->ids[i] && g->ids[i] != id) i = (i + 1) & (g->ids_cap - 1);
    g->ids_n += g->ids[i] == 0;
    g->ids[i] = id;
    return 0;
}

static bool has_id(const gathering *g, uint64_t id) {
    if (g->ids_cap == 0) return false;
    size_t i = id & (g->ids_cap - 1);
    while (g->ids[i] && g->ids[i] != id) i = (i + 1) & (g->ids_cap - 1);
    return g->ids[i] != 0;
}

static bool in_period(const gathering *g, int64_t ms) {
    return ms >= g->o->from_ms && ms < g->o->to_ms;
}

/* ---- chat.feedback ---- */

/* Of one request the last word counts. Records that are no feedback are other people's faults. */
static int on_feedback(void *arg, const mr_record *rec, mr_error *err) {
    gathering *g = arg;
    mr_gathered *out = g->out;
    mr_feedback f;
    mr_error ignored;
    mr_arena_reset(g->scratch);
    if (mr_decode(&mr_feedback_def, rec->value, mr_record_header(rec, "content-type"), g->scratch, &f,
                  &ignored) < 0) {
        return 0;
    }
    int64_t at = MR_HAS(&f, MR_FEEDBACK_CREATED_MS) ? f.created_ms : rec->timestamp_ms;
    if (!in_period(g, at)) return 0;
    if (out->rated_n == out->rated_cap && grow_rated(out, err) < 0) return -1;
    int *slot = rated_slot(out, f.request);
    mr_str label = mr_arena_str(out->arena, f.label.n ? f.label : MR_STR(""));
    if (!label.p) return mr_fail(err, MR_ETOOBIG, "the period has too many ratings: take a shorter one");
    if (*slot == 0) {
        mr_rated fresh = {
            .request = mr_arena_str(out->arena, f.request), .question = MR_STR(""), .prompt = MR_STR("")};
        if (!fresh.request.p) return mr_fail(err, MR_ETOOBIG, "the period has too many ratings");
        mr_answer_init(&fresh.heard);
        mr_buf_init(&fresh.answer, TALK_MAX);
        out->rated[out->rated_n] = fresh;
        *slot = ++out->rated_n;
    }
    mr_rated *r = &out->rated[*slot - 1];
    r->rating = (int)f.rating;
    r->label = label;
    r->at_ms = at;
    return 0;
}

/* ---- chat.requests ---- */

static mr_str cut(mr_str text) {
    if (text.n <= MR_SAMPLE_TEXT_MAX) return text;
    text.n = MR_SAMPLE_TEXT_MAX;
    while (text.n > 0 && ((unsigned char)text.p[text.n] & 0xC0) == 0x80) text.n--;
    return text;
}

/* Roles and texts of the conversation, as the formats of preference data have them. */
static int keep_prompt(gathering *g, const mr_chat_request *q, mr_rated *r, mr_error *err) {
    json_t *list = json_array();
    bool text_only = true;
    for (uint32_t i = 0; i < q->messages.n; i++) {
        const mr_chat_message *m = &q->messages.v[i];
        text_only = text_only && MR_HAS(m, MR_CHAT_MESSAGE_CONTENT);
        json_array_append_new(list, json_pack("{s:s, s:s%}", "role", mr_role_names[m->role], "content",
                                              m->content.n ? m->content.p : "", m->content.n));
    }
    char *text = text_only ? json_dumps(list, JSON_COMPACT) : NULL;
    int rc = 0;
    if (text && strlen(text) <= TALK_MAX) rc = keep_masked(g, mr_str_of(text), &r->prompt, err);
    free(text);
    json_decref(list);
    return rc;
}

/* Among the review_max messages that are nearest to the threshold, if it is one. */
static int consider_unsure(gathering *g, const mr_chat_request *q, mr_str text, const mr_intent_guess *guess,
                           int64_t at, mr_error *err) {
    mr_gathered *out = g->out;
    double distance = fabs(guess->confidence - mr_intent_threshold(g->o->intent));
    int i = out->unsure_n;
    while (i > 0 && g->distance[i - 1] > distance) i--;
    if (i == g->o->review_max) return 0;
    mr_sample s = {.request = mr_arena_str(out->arena, q->id),
                   .guess = mr_arena_str(out->arena, guess->class_label),
                   .label = MR_STR(""),
                   .at_ms = at,
                   .confidence = guess->confidence,
                   .kind = MR_SAMPLE_UNSURE};
    if (keep_masked(g, cut(text), &s.text, err) < 0) return -1;
    if (!s.request.p || !s.guess.p) return mr_fail(err, MR_ETOOBIG, "the period has too much text");
    if (out->unsure_n < g->o->review_max) out->unsure_n++;
    size_t rest = (size_t)(out->unsure_n - 1 - i);
    memmove(out->unsure + i + 1, out->unsure + i, rest * sizeof *out->unsure);
    memmove(g->distance + i + 1, g->distance + i, rest * sizeof *g->distance);
    out->unsure[i] = s;
    g->distance[i] = distance;
    return 0;
}

static int take_chat(gathering *g, const mr_chat_request *q, int64_t at, mr_error *err) {
    mr_rated *r = find_rated(g->out, q->id);
    mr_str text = mr_request_question(q, g->scratch);
    mr_intent_guess guess;
    if (in_period(g, at)) {
        g->out->chats++;
        if (add_id(g, hash_of(q->id), err) < 0) return -1;
    }
    if (text.n == 0) return 0;
    if (r) return keep_masked(g, cut(text), &r->question, err) < 0 ? -1 : keep_prompt(g, q, r, err);
    if (!in_period(g, at) || mr_intent_classify(g->o->intent, text, &guess, err) < 0) return 0;
    return guess.routine ? 0 : consider_unsure(g, q, text, &guess, at, err);
}

static int on_request(void *arg, const mr_record *rec, mr_error *err) {
    gathering *g = arg;
    mr_chat_request q;
    mr_error ignored;
    mr_arena_reset(g->scratch);
    if (mr_decode(&mr_chat_request_def, rec->value, mr_record_header(rec, "content-type"), g->scratch, &q,
                  &ignored) < 0) {
        return 0;
    }
    int64_t at = MR_HAS(&q, MR_CHAT_REQUEST_CREATED_MS) ? q.created_ms : rec->timestamp_ms;
    if (mr_request_purpose(&q) != MR_PURPOSE_CHAT) return 0;
    return take_chat(g, &q, at, err);
}

/* ---- chat.responses ---- */

static void hear_delta(mr_rated *r, const mr_response_delta *d) {
    mr_str fresh;
    if (mr_answer_delta(&r->heard, d->offset, d->text, d->hash, &fresh) != MR_ANSWER_NEW) return;
    if (d->channel == MR_CHANNEL_CONTENT) mr_buf_put(&r->answer, fresh.p, fresh.n);
}

static void hear_end(gathering *g, mr_rated *r, const mr_response_end *e) {
    bool kb = MR_HAS(e, MR_RESPONSE_END_SOURCE) && e->source == MR_SOURCE_KB;
    if (has_id(g, hash_of(e->request))) {
        g->out->from_kb += kb;
        g->out->from_model += !kb && e->finish_reason != MR_FINISH_ERROR;
    }
    if (!r) return;
    r->kb = kb;
    r->whole = e->finish_reason == MR_FINISH_STOP && !r->answer.failed && r->answer.n > 0 &&
               mr_answer_end(&r->heard, e->offset, e->hash) == MR_ANSWER_NEW;
}

static int on_response(void *arg, const mr_record *rec, mr_error *err) {
    gathering *g = arg;
    bool end = mr_str_eqz(mr_record_header(rec, "type"), mr_response_end_def.name);
    mr_rated *r = find_rated(g->out, rec->key);
    union {
        mr_response_delta delta;
        mr_response_end end;
    } m;
    mr_error ignored;
    (void)err;
    if (!r && !end) return 0;
    mr_arena_reset(g->scratch);
    if (mr_decode(end ? &mr_response_end_def : &mr_response_delta_def, rec->value,
                  mr_record_header(rec, "content-type"), g->scratch, &m, &ignored) < 0) {
        return 0;
    }
    if (end) {
        hear_end(g, r, &m.end);
    } else {
        hear_delta(r, &m.delta);
    }
    return 0;
}

/* ---- the whole ---- */

static int mask_answers(gathering *g, mr_error *err) {
    for (int i = 0; i < g->out->rated_n; i++) {
        mr_rated *r = &g->out->rated[i];
        mr_buf b;
        g->out->good += r->rating > 0;
        g->out->bad += r->rating < 0;
        g->out->unknown += r->question.n == 0;
        if (!r->whole) continue;
        mr_buf_init(&b, 4 * TALK_MAX);
        if (mask(g, mr_buf_str(&r->answer), &b, err) < 0) {
            mr_buf_done(&b);
            return -1;
        }
        mr_buf_done(&r->answer);
        r->answer = b;
    }
    return 0;
}

static int init(gathering *g, mr_error *err) {
    size_t n = (size_t)g->o->review_max + 1;
    g->out->arena = mr_arena_new(ARENA_MAX);
    g->scratch = mr_arena_new(MESSAGE_MAX);
    g->out->unsure = calloc(n, sizeof *g->out->unsure);
    g->distance = calloc(n, sizeof *g->distance);
    if (!g->out->arena || !g->scratch || !g->out->unsure || !g->distance) {
        return mr_fail(err, MR_ENOMEM, "no memory to gather feedback");
    }
    g->personal = mr_personal_new(MR_GUARD_MASK, err);
    return g->personal ? 0 : -1;
}

int mr_gather(const mr_gather_options *o, mr_gathered *out, mr_error *err) {
    gathering g = {.o = o, .out = out};
    *out = (mr_gathered){0};
    int64_t before = o->from_ms - LOOK_BACK_MS;
    int rc = init(&g, err);
    if (rc == 0) rc = mr_topic_read(o->kafka, MR_TOPIC_FEEDBACK, o->from_ms, on_feedback, &g, err);
    if (rc == 0) rc = mr_topic_read(o->kafka, MR_TOPIC_REQUESTS, before, on_request, &g, err);
    if (rc == 0) rc = mr_topic_read(o->kafka, MR_TOPIC_RESPONSES, before, on_response, &g, err);
    if (rc == 0) rc = mask_answers(&g, err);
    mr_arena_free(g.scratch);
    mr_personal_free(g.personal);
    free(g.ids);
    free(g.distance);
    return rc;
}

void mr_gathered_done(mr_gathered *g) {
    for (int i = 0; i < g->rated_n; i++) mr_buf_done(&g->rated[i].answer);
    free(g->rated);
    free(g->slots);
    free(g->unsure);
    mr_arena_free(g->arena);
    *g = (mr_gathered){0};
}

/* ---- samples ---- */

static bool is_outside(const mr_intent *in, mr_str label) {
    bool outside;
    for (int i = 0; i < mr_intent_labels(in); i++) {
        if (mr_str_eq(mr_intent_label_name(in, i, &outside), label)) return outside;
    }
    return false;
}

/* What the rating of one request tells of its intent; false: nothing. */
static bool sample_of(const mr_intent *in, const mr_rated *r, const mr_intent_guess *g, mr_sample *out) {
    mr_str guess = g->routine ? g->label : g->class_label;
    mr_str label = r->label.n == 0 && r->kb && r->rating > 0 && g->routine ? guess : r->label;
    bool right = label.n > 0 && (g->routine ? mr_str_eq(label, guess) : is_outside(in, label));
    mr_sample_kind wrong = label.n > 0 ? MR_SAMPLE_DISAGREES : MR_SAMPLE_REJECTED;
    *out = (mr_sample){.request = r->request,
                       .text = r->question,
                       .label = label,
                       .guess = guess,
                       .at_ms = r->at_ms,
                       .confidence = g->confidence,
                       .rating = r->rating,
                       .kind = right         ? MR_SAMPLE_CONFIRMED
                               : !g->routine ? MR_SAMPLE_UNSURE
                                             : wrong};
    return label.n > 0 || !g->routine || (r->kb && r->rating < 0);
}

int mr_gathered_sample(const mr_gathered *g, mr_intent *intent, mr_samples *out, mr_error *err) {
    for (int i = 0; i < g->rated_n; i++) {
        const mr_rated *r = &g->rated[i];
        mr_intent_guess guess;
        mr_sample s;
        if (r->question.n == 0 || (r->rating == 0 && r->label.n == 0)) continue;
        if (mr_intent_classify(intent, r->question, &guess, err) < 0) return -1;
        if (sample_of(intent, r, &guess, &s) && mr_samples_put(out, &s, err) < 0) return -1;
    }
    for (int i = 0; i < g->unsure_n; i++) {
        if (mr_samples_put(out, &g->unsure[i], err) < 0) return -1;
    }
    return 0;
}

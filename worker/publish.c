/* The way out of the worker. See publish.h. */
#include "worker/publish.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define RETRY_MS    500
#define LETTER_ROOM 16384 /* what a dead letter says besides the record */

struct mr_publisher {
    mr_publisher_options opt;
    mr_producer *producer;
    mr_timer *retry;
    mr_buf scratch;
    struct letter *letters;
    int nletters;
    bool closing;
    char responses[250], dead[250], workers[250], control[250];
    mr_counter *buried;
};

/* A dead letter on its way; kept until the brokers have it. */
typedef struct letter {
    struct letter *next;
    mr_publisher *p;
    mr_tag tag;
    mr_buf body;
    char request[MR_ID_MAX + 1], trace[64 + 1];
    int32_t partition;
    int64_t offset;
    bool last, in_air;
} letter;

/* ---- sending ---- */

static int send_to(mr_publisher *p, const char *topic, const char *type, int32_t partition, mr_str key,
                   mr_str body, mr_str trace, mr_tag *tag, mr_error *err) {
    char parent[MR_TRACEPARENT_LEN + 1];
    mr_trace_child(trace, parent);
    const mr_header headers[] = {{"type", mr_str_of(type)}, {"traceparent", mr_str_of(parent)}};
    const mr_produce rec = {.topic = topic,
                            .partition = partition,
                            .key = key,
                            .value = body,
                            .headers = headers,
                            .nheaders = 2,
                            .tag = tag};
    return mr_producer_send(p->producer, &rec, err);
}

int mr_publisher_send(mr_publisher *p, const char *type, int32_t partition, mr_str key, mr_str body,
                      mr_str trace, mr_tag *tag, mr_error *err) {
    return send_to(p, p->responses, type, partition, key, body, trace, tag, err);
}

int mr_publisher_status(mr_publisher *p, const mr_worker_status *s, mr_error *err) {
    mr_buf *body = mr_publisher_scratch(p);
    if (mr_pack(&mr_worker_status_def, s, body, err) != 0) return -1;
    return send_to(p, p->workers, "WorkerStatus", -1, s->worker, mr_buf_str(body), MR_STR(""), NULL, err);
}

static void on_delivered(void *arg, void *tag, const mr_error *err) {
    (void)arg;
    mr_tag *t = tag;
    if (t) t->delivered(t->of, err);
}

int mr_publisher_control(mr_publisher *p, const mr_control *c, mr_error *err) {
    char key[MR_NAME_MAX + 32];
    mr_buf *body = mr_publisher_scratch(p);
    if (mr_pack(&mr_control_def, c, body, err)) return -1;
    snprintf(key, sizeof(key), "%s/%.*s", mr_control_kind_names[c->kind], MR_FMT(c->worker));
    return send_to(p, p->control, "Control", -1, mr_str_of(key), mr_buf_str(body), MR_STR(""), NULL, err);
}

/* ---- dead letters ---- */

static void letter_free(letter *l) {
    mr_buf_done(&l->body);
    free(l);
}

static void letter_unlink(letter *l) {
    letter **at = &l->p->letters;
    while (*at != l) at = &(*at)->next;
    *at = l->next;
    l->p->nletters--;
}

static void letter_send(letter *l) {
    mr_error err;
    if (l->in_air) return;
    l->in_air = send_to(l->p, l->p->dead, "Dead", -1, mr_str_of(l->request), mr_buf_str(&l->body),
                        mr_str_of(l->trace), &l->tag, &err) == 0;
    if (!l->in_air) mr_log(MR_WARN, "dead letter waits", MR_S("error", err.msg));
}

static void letter_delivered(void *of, const mr_error *err) {
    letter *l = of;
    mr_publisher *p = l->p;
    l->in_air = false;
    if (p->closing) return; /* mr_publisher_free frees it */
    if (err) {
        mr_log(MR_WARN, "dead letter not delivered, sending it again", MR_S("error", err->msg));
        return;
    }
    mr_counter_add(p->buried, 1);
    letter_unlink(l);
    if (l->last) p->opt.buried(p->opt.arg, l->partition, l->offset);
    letter_free(l);
}

static void retry_letters(void *arg) {
    mr_publisher *p = arg;
    for (letter *l = p->letters; l; l = l->next) letter_send(l);
}

static void fit_record(const mr_publisher *p, mr_dead *d) {
    size_t most = (size_t)p->opt.kafka->message_max - LETTER_ROOM;
    if (!MR_HAS(d, MR_DEAD_RECORD) || d->record.n <= most) return;
    d->record.n = most;
    MR_SET(d, MR_DEAD_TRUNCATED, truncated, true);
}

int mr_publisher_dead(mr_publisher *p, mr_dead *d, mr_str trace, bool last, mr_error *err) {
    letter *l = calloc(1, sizeof(*l));
    if (!l) return mr_fail(err, MR_ENOMEM, "out of memory for a dead letter");
    fit_record(p, d);
    *l = (letter){.p = p, .tag = {letter_delivered, l}, .last = last};
    l->partition = (int32_t)d->partition;
    l->offset = d->offset;
    mr_str_copy(d->request, l->request, sizeof(l->request));
    mr_str_copy(trace, l->trace, sizeof(l->trace));
    mr_buf_init(&l->body, (size_t)p->opt.kafka->message_max);
    if (mr_pack(&mr_dead_def, d, &l->body, err)) {
        letter_free(l);
        return -1;
    }
    l->next = p->letters;
    p->letters = l;
    p->nletters++;
    letter_send(l);
    return 0;
}

int mr_publisher_letters(const mr_publisher *p) {
    return p->nletters;
}

/* ---- the publisher ---- */

mr_publisher *mr_publisher_new(const mr_publisher_options *opt, mr_loop *l, mr_metrics *m, mr_error *err) {
    mr_publisher *p = calloc(1, sizeof(*p));
    if (!p) {
        mr_fail(err, MR_ENOMEM, "out of memory for the publisher");
        return NULL;
    }
    p->opt = *opt;
    mr_buf_init(&p->scratch, (size_t)opt->kafka->message_max);
    mr_bus_topic(opt->kafka, MR_TOPIC_RESPONSES, p->responses);
    mr_bus_topic(opt->kafka, MR_TOPIC_DEAD, p->dead);
    mr_bus_topic(opt->kafka, MR_TOPIC_WORKERS, p->workers);
    mr_bus_topic(opt->kafka, MR_TOPIC_CONTROL, p->control);
    p->buried =
        mr_counter_new(m, "millrace_worker_dead_letters_total", NULL, "Requests given up to chat.dead.");
    p->producer = mr_producer_new(opt->kafka, l, m, "worker", on_delivered, p, err);
    if (p->producer) p->retry = mr_timer_new(l, RETRY_MS, retry_letters, p, err);
    if (p->retry) return p;
    mr_publisher_free(p, 0);
    return NULL;
}

void mr_publisher_free(mr_publisher *p, int flush_ms) {
    if (!p) return;
    p->closing = true;
    mr_producer_free(p->producer, flush_ms);
    mr_timer_free(p->retry);
    while (p->letters) {
        letter *l = p->letters;
        p->letters = l->next;
        letter_free(l);
    }
    mr_buf_done(&p->scratch);
    free(p);
}

bool mr_publisher_connected(const mr_publisher *p) {
    return mr_producer_connected(p->producer);
}

const mr_publisher_options *mr_publisher_describe(const mr_publisher *p) {
    return &p->opt;
}

mr_buf *mr_publisher_scratch(mr_publisher *p) {
    mr_buf_clear(&p->scratch);
    return &p->scratch;
}

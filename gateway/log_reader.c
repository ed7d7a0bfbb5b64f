/* One reader of chat.responses for all who go on with an answer (see log_reader.h). */
#include "gateway/log_reader.h"

#include "base/log.h"

#include <stdlib.h>

typedef struct cursor {
    struct cursor *following;
    int32_t partition;
    int users;
    int64_t round;
    int64_t begin, next; /* of the round, and of the next record */
    int64_t wanted;      /* where the next round begins; -1: none is wanted */
    bool at_end, gone;   /* gone: the place where the round began is not kept any more */
} cursor;

struct mr_log_reader {
    mr_kafka_conf kafka;
    mr_loop *loop;
    mr_metrics *metrics;
    mr_log_events events;
    mr_reader *reader; /* NULL until it is needed */
    char topic[250];
    cursor *cursors;
};

static cursor *find(const mr_log_reader *r, int32_t partition) {
    cursor *c = r->cursors;
    while (c && c->partition != partition) c = c->following;
    return c;
}

static int begin_round(mr_log_reader *r, cursor *c, int64_t position, mr_error *err) {
    c->round++;
    c->begin = c->next = position;
    c->wanted = -1;
    c->at_end = c->gone = false;
    return mr_reader_start(r->reader, r->topic, c->partition, position, err);
}

/* Whoever waits for it waits until its own time limit. */
static void begin_wanted(mr_log_reader *r, cursor *c) {
    mr_error err;
    if (begin_round(r, c, c->wanted, &err) < 0) {
        mr_log(MR_ERROR, "answers cannot be read again", MR_I("partition", c->partition),
               MR_S("error", err.msg));
    }
}

/* ---- the reader's events ---- */

static void on_record(void *arg, const mr_record *rec) {
    mr_log_reader *r = arg;
    cursor *c = find(r, rec->partition);
    c->next = rec->offset + 1;
    r->events.on_record(r->events.arg, rec, c->round);
}

static void on_end(void *arg, const char *topic, int32_t partition, int64_t next) {
    mr_log_reader *r = arg;
    cursor *c = find(r, partition);
    (void)topic;
    c->at_end = true;
    if (next > c->next) c->next = next;
    if (c->users && c->wanted >= 0) {
        begin_wanted(r, c);
    } else {
        r->events.on_end(r->events.arg, partition, c->round);
    }
}

/* Those whose place is gone are told so; for the others of the round it is read from the oldest record on. */
static void on_gone(void *arg, const char *topic, int32_t partition, const char *why) {
    mr_log_reader *r = arg;
    cursor *c = find(r, partition);
    mr_error err;
    (void)topic;
    if (!c->gone) /* the oldest record may go as well before it is read */
        mr_log(MR_WARN, "answers are not kept so long", MR_I("partition", partition),
               MR_I("offset", c->begin), MR_S("reason", why));
    c->gone = true;
    r->events.on_gone(r->events.arg, partition, c->round, c->begin);
    if (c->users && mr_reader_start(r->reader, r->topic, partition, MR_READ_OLDEST, &err) < 0) {
        mr_log(MR_ERROR, "answers cannot be read again", MR_I("partition", partition),
               MR_S("error", err.msg));
    }
}

/* ---- who wants what ---- */

static cursor *add(mr_log_reader *r, int32_t partition, mr_error *err) {
    const mr_reader_options opt = {on_record, on_end, on_gone, r};
    if (!r->reader) r->reader = mr_reader_new(&r->kafka, &opt, r->loop, r->metrics, "gateway_log", err);
    if (!r->reader) return NULL;
    cursor *c = calloc(1, sizeof(*c));
    if (!c) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    *c = (cursor){.following = r->cursors, .partition = partition, .wanted = -1};
    return r->cursors = c;
}

int64_t mr_log_want(mr_log_reader *r, int32_t partition, int64_t position, mr_error *err) {
    cursor *c = find(r, partition);
    if (!c && !(c = add(r, partition, err))) return -1;
    if (c->users == 0 || (position < c->next && c->at_end)) {
        if (begin_round(r, c, position, err) < 0) return -1;
    } else if (position < c->next) {
        if (c->wanted < 0 || position < c->wanted) c->wanted = position;
        c->users++;
        return c->round + 1;
    }
    c->users++;
    return c->round;
}

void mr_log_release(mr_log_reader *r, int32_t partition) {
    cursor *c = find(r, partition);
    if (--c->users > 0) return;
    mr_reader_stop(r->reader, r->topic, partition);
    c->wanted = -1;
}

/* ---- life ---- */

mr_log_reader *mr_log_reader_new(const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m,
                                 const mr_log_events *events, mr_error *err) {
    mr_log_reader *r = calloc(1, sizeof(*r));
    if (!r) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    r->kafka = *kafka;
    r->loop = l;
    r->metrics = m;
    r->events = *events;
    mr_bus_topic(kafka, MR_TOPIC_RESPONSES, r->topic);
    return r;
}

void mr_log_reader_free(mr_log_reader *r) {
    if (!r) return;
    mr_reader_free(r->reader);
    for (cursor *c = r->cursors, *following; c; c = following) {
        following = c->following;
        free(c);
    }
    free(r);
}

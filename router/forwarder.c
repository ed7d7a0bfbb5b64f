/* Parcels of records and their delivery; see forwarder.h. */
#include "router/forwarder.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

enum {
    TRIES = 3, /* of a delivery; each may take the producer's delivery timeout */
    RETRY_MS = 250,
    RECORD_OVERHEAD = 512, /* of headers and framing, kept free below kafka.message_max */
};

typedef struct item {
    mr_parcel *parcel;
    struct item *next;
    char topic[250];
    int32_t partition;
    mr_str key;
    mr_buf value;
    const char *type;
    char traceparent[MR_TRACEPARENT_LEN + 1];
    bool delivered;
    char key_bytes[];
} item;

struct mr_parcel {
    mr_forwarder *forwarder;
    mr_parcel *next; /* among those that wait for another try */
    void *job;
    item *items, **last;
    size_t bytes;
    int in_air, tries;
    bool failed, hopeless;
    mr_error why;
};

struct mr_forwarder {
    mr_producer *producer;
    mr_timer *timer;
    mr_parcel *waiting;
    mr_parcel_cb *cb;
    void *arg;
    size_t message_max, bytes;
    int parcels;
    bool closing;
};

static void fail_item(mr_parcel *p, const mr_error *why) {
    p->failed = true;
    p->why = *why;
    /* Sending the same bytes again cannot help. */
    if (why->code == MR_ETOOBIG || why->code == MR_ENOTFOUND) p->hopeless = true;
}

static void wait_for_retry(mr_parcel *p) {
    p->next = p->forwarder->waiting;
    p->forwarder->waiting = p;
}

static void finish(mr_parcel *p) {
    mr_forwarder *f = p->forwarder;
    void *job = p->job;
    mr_error why = p->why;
    bool failed = p->failed;
    f->parcels--;
    f->bytes -= p->bytes;
    mr_parcel_free(p);
    f->cb(f->arg, job, failed ? &why : NULL);
}

/* When nothing of the parcel is in the air any more. */
static void settle(mr_parcel *p) {
    if (p->in_air > 0) return;
    if (p->failed && !p->hopeless && p->tries < TRIES && !p->forwarder->closing) {
        wait_for_retry(p);
    } else {
        finish(p);
    }
}

static void on_delivered(void *arg, void *tag, const mr_error *err) {
    item *i = tag;
    (void)arg;
    i->delivered = err == NULL;
    if (err) fail_item(i->parcel, err);
    i->parcel->in_air--;
    settle(i->parcel);
}

static int send_item(const mr_forwarder *f, item *i, mr_error *err) {
    mr_header headers[] = {{"type", mr_str_of(i->type)}, {"traceparent", mr_str_of(i->traceparent)}};
    mr_produce rec = {.topic = i->topic,
                      .partition = i->partition,
                      .key = i->key,
                      .value = mr_buf_str(&i->value),
                      .headers = headers,
                      .nheaders = i->traceparent[0] ? 2 : 1,
                      .tag = i};
    return mr_producer_send(f->producer, &rec, err);
}

/* Puts what is not delivered yet into the air. What the producer does not take now waits for the timer, which costs no
 * try when its queue is only full. */
static void send_items(mr_parcel *p) {
    mr_error err;
    p->failed = false;
    p->tries++;
    for (item *i = p->items; i; i = i->next) {
        if (i->delivered) continue;
        if (send_item(p->forwarder, i, &err) == 0) {
            p->in_air++;
            continue;
        }
        fail_item(p, &err);
        if (err.code == MR_ESTATE) p->tries--;
        break;
    }
}

static void on_timer(void *arg) {
    mr_forwarder *f = arg;
    mr_parcel *p = f->waiting;
    f->waiting = NULL;
    while (p) {
        mr_parcel *next = p->next;
        send_items(p);
        settle(p);
        p = next;
    }
}

mr_forwarder *mr_forwarder_new(const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m, mr_parcel_cb *cb,
                               void *arg, mr_error *err) {
    mr_forwarder *f = calloc(1, sizeof *f);
    if (!f) {
        mr_fail(err, MR_ENOMEM, "no memory for the forwarder");
        return NULL;
    }
    f->cb = cb;
    f->arg = arg;
    f->message_max = (size_t)kafka->message_max;
    f->producer = mr_producer_new(kafka, l, m, "router", on_delivered, f, err);
    f->timer = f->producer ? mr_timer_new(l, RETRY_MS, on_timer, f, err) : NULL;
    if (f->timer) return f;
    mr_forwarder_free(f, 0);
    return NULL;
}

void mr_forwarder_free(mr_forwarder *f, int flush_ms) {
    if (!f) return;
    f->closing = true;
    mr_timer_free(f->timer);
    mr_producer_free(f->producer, flush_ms);
    while (f->waiting) {
        mr_parcel *p = f->waiting;
        f->waiting = p->next;
        finish(p);
    }
    free(f);
}

int mr_forwarder_parcels(const mr_forwarder *f) {
    return f->parcels;
}
size_t mr_forwarder_bytes(const mr_forwarder *f) {
    return f->bytes;
}
bool mr_forwarder_connected(const mr_forwarder *f) {
    return mr_producer_connected(f->producer);
}

mr_parcel *mr_parcel_new(mr_forwarder *f, void *job, mr_error *err) {
    mr_parcel *p = calloc(1, sizeof *p);
    if (!p) {
        mr_fail(err, MR_ENOMEM, "no memory to answer a request");
        return NULL;
    }
    p->forwarder = f;
    p->job = job;
    p->last = &p->items;
    return p;
}

static void item_free(item *i) {
    mr_buf_done(&i->value);
    free(i);
}

void mr_parcel_free(mr_parcel *p) {
    if (!p) return;
    while (p->items) {
        item *i = p->items;
        p->items = i->next;
        item_free(i);
    }
    free(p);
}

static item *item_new(mr_parcel *p, const mr_address *to, const char *type) {
    item *i = calloc(1, sizeof *i + to->key.n);
    if (!i) return NULL;
    i->parcel = p;
    i->partition = to->partition;
    i->type = type;
    i->key = (mr_str){i->key_bytes, to->key.n};
    if (to->key.n > 0) memcpy(i->key_bytes, to->key.p, to->key.n);
    mr_str_copy(mr_str_of(to->topic), i->topic, sizeof i->topic);
    mr_str_copy(mr_str_of(to->traceparent), i->traceparent, sizeof i->traceparent);
    return i;
}

int mr_parcel_add(mr_parcel *p, const mr_address *to, const mr_message_def *def, const void *msg,
                  mr_error *err) {
    item *i = item_new(p, to, def->name);
    if (!i) return mr_fail(err, MR_ENOMEM, "no memory for a record of topic %s", to->topic);
    mr_buf_init(&i->value, p->forwarder->message_max - RECORD_OVERHEAD - to->key.n);
    if (mr_pack(def, msg, &i->value, err) < 0) {
        item_free(i);
        return -1;
    }
    *p->last = i;
    p->last = &i->next;
    p->bytes += i->value.cap;
    return 0;
}

void mr_parcel_send(mr_parcel *p) {
    p->forwarder->parcels++;
    p->forwarder->bytes += p->bytes;
    send_items(p);
    /* Even a hopeless one goes over the timer, so that the caller is never called back from its own call. */
    if (p->in_air == 0) wait_for_retry(p);
}

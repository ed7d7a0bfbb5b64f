/* Packing and producing (see outbox.h). A ticket is owned by the outbox and freed when its delivery is reported. */
#include "gateway/outbox.h"

#include "base/log.h"

#include <stdlib.h>

struct mr_ticket {
    mr_acked_cb *cb;
    void *arg;
};

struct mr_outbox {
    const mr_kafka_conf *conf;
    mr_producer *producer;
    mr_buf packed;
};

static void on_delivered(void *arg, void *tag, const mr_error *err) {
    mr_ticket *t = tag;
    (void)arg;
    if (t && t->cb) {
        t->cb(t->arg, err);
    } else if (err) {
        mr_log(MR_WARN, "a record was not delivered", MR_S("reason", err->msg));
    }
    free(t);
}

mr_outbox *mr_outbox_new(const mr_kafka_conf *conf, mr_loop *l, mr_metrics *m, mr_error *err) {
    mr_outbox *o = calloc(1, sizeof(*o));
    if (!o) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    o->conf = conf;
    mr_buf_init(&o->packed, (size_t)conf->message_max);
    o->producer = mr_producer_new(conf, l, m, "gateway", on_delivered, o, err);
    if (o->producer) return o;
    mr_outbox_free(o, 0);
    return NULL;
}

void mr_outbox_free(mr_outbox *o, int flush_ms) {
    if (!o) return;
    if (o->producer) mr_producer_free(o->producer, flush_ms);
    mr_buf_done(&o->packed);
    free(o);
}

bool mr_outbox_connected(const mr_outbox *o) {
    return mr_producer_connected(o->producer);
}

static int pack(mr_outbox *o, const mr_outbox_record *rec, mr_error *err) {
    mr_buf_clear(&o->packed);
    int rc = mr_pack(rec->def, rec->msg, &o->packed, err);
    if (o->packed.failed) {
        return mr_fail(err, MR_ETOOBIG, "the request is over the limit of %lld bytes",
                       (long long)o->conf->message_max);
    }
    return rc;
}

static int produce(mr_outbox *o, const mr_outbox_record *rec, mr_ticket *t, mr_error *err) {
    char topic[250];
    mr_header headers[] = {{"type", mr_str_of(rec->def->name)}, {"traceparent", mr_str_of(rec->trace)}};
    mr_bus_topic(o->conf, rec->topic, topic);
    return mr_producer_send(o->producer,
                            &(mr_produce){.topic = topic,
                                          .partition = -1,
                                          .key = rec->key,
                                          .value = mr_buf_str(&o->packed),
                                          .headers = headers,
                                          .nheaders = rec->trace ? 2 : 1,
                                          .tag = t},
                            err);
}

int mr_outbox_send(mr_outbox *o, const mr_outbox_record *rec, mr_acked_cb *cb, void *arg, mr_ticket **ticket,
                   mr_error *err) {
    mr_ticket *t = calloc(1, sizeof(*t));
    if (!t) return mr_fail(err, MR_ENOMEM, "out of memory");
    *t = (mr_ticket){cb, arg};
    if (pack(o, rec, err) < 0 || produce(o, rec, t, err) < 0) {
        free(t);
        return -1;
    }
    if (ticket) *ticket = t;
    return 0;
}

mr_str mr_outbox_packed(const mr_outbox *o) {
    return mr_buf_str(&o->packed);
}

void mr_ticket_forget(mr_ticket *t) {
    t->cb = NULL;
}

/* See bus_offsets.h. */
#include "base/bus_offsets.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define COMMIT_US     200000  /* often, so that a crash repeats little */
#define COMMITTING_US 5000000 /* a commit without an answer for so long holds up no other */
#define ASK_MS        3000
#define ANSWER_MS     3600000 /* the longest that librdkafka takes */

void mr_offsets_open(mr_offsets *o, rd_kafka_t *rk, const char *group, mr_partitions *all, mr_bus_wake *w) {
    *o = (mr_offsets){.rk = rk, .group = group, .all = all, .answers = rd_kafka_queue_new(rk)};
    mr_bus_wake_on(w, o->answers);
}

void mr_offsets_close(mr_offsets *o) {
    if (o->answers) rd_kafka_queue_destroy(o->answers);
    o->answers = NULL;
}

/* ---- committing ---- */

static void add_commit(const mr_offsets *o, mr_partition *p, rd_kafka_topic_partition_list_t *list) {
    char text[MR_FINISHED_TEXT];
    int n = o->plain ? 0 : mr_finished_write(&p->done, text);
    rd_kafka_topic_partition_t *to = rd_kafka_topic_partition_list_add(list, p->topic, p->number);
    to->offset = mr_watermark_low(&p->done);
    to->metadata = n ? strdup(text) : NULL;
    to->metadata_size = to->metadata ? (size_t)n : 0;
    p->dirty = false;
}

void mr_offsets_commit(mr_offsets *o) {
    mr_partition *p;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(o->all->nassigned);
    MR_FOR_ASSIGNED(o->all, p) {
        if (p->dirty) add_commit(o, p, list);
    }
    if (list->cnt) {
        o->committed_us = mr_mono_us();
        rd_kafka_resp_err_t e = rd_kafka_commit(o->rk, list, 1);
        o->committing += e == RD_KAFKA_RESP_ERR_NO_ERROR;
        if (e != RD_KAFKA_RESP_ERR_NO_ERROR)
            mr_log(MR_WARN, "offsets not committed", MR_S("error", rd_kafka_err2str(e)));
    }
    rd_kafka_topic_partition_list_destroy(list);
}

void mr_offsets_commit_when_due(mr_offsets *o) {
    int64_t since = mr_mono_us() - o->committed_us;
    if (since > (o->committing ? COMMITTING_US : COMMIT_US)) mr_offsets_commit(o);
}

/* The broker refuses the metadata: from now on only the offset is committed. */
static void be_plain(mr_offsets *o, const mr_partition *p) {
    o->plain = true;
    mr_log(MR_WARN,
           "the broker takes no 3,000 bytes of metadata with an offset: what is finished behind it "
           "comes again "
           "(raise its offset.metadata.max.bytes)",
           MR_S("topic", p->topic));
}

/* What was refused goes along with the next commit. Where a partition is just being taken away there is none: its records are
 * done again elsewhere, which is allowed. */
void mr_offsets_committed(mr_offsets *o, rd_kafka_resp_err_t all,
                          const rd_kafka_topic_partition_list_t *list) {
    if (o->committing > 0) o->committing--;
    for (int i = 0; list && i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *of = &list->elems[i];
        mr_partition *p = mr_partitions_find(o->all, of->topic, of->partition);
        rd_kafka_resp_err_t e = of->err ? of->err : all;
        if (e == RD_KAFKA_RESP_ERR_NO_ERROR || !p) continue;
        p->dirty = mr_watermark_low(&p->done) >= 0;
        if (e == RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE && !o->plain) be_plain(o, p);
        mr_log(MR_DEBUG, "offset not committed", MR_S("topic", p->topic), MR_I("partition", p->number),
               MR_S("error", rd_kafka_err2str(e)));
    }
}

/* ---- what the last owner committed ---- */

/* The answer wakes the loop. Nobody waits for it longer than ASK_MS, but it may come later: librdkafka 2.0.2 fails an assertion when
 * one comes to a request that it has given up. */
static void send_question(mr_offsets *o, const rd_kafka_topic_partition_list_t *list) {
    char why[200];
    rd_kafka_ListConsumerGroupOffsets_t *q = rd_kafka_ListConsumerGroupOffsets_new(o->group, list);
    rd_kafka_AdminOptions_t *opt =
        rd_kafka_AdminOptions_new(o->rk, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS);
    rd_kafka_AdminOptions_set_request_timeout(opt, ANSWER_MS, why, sizeof(why));
    rd_kafka_ListConsumerGroupOffsets(o->rk, &q, 1, opt, o->answers);
    rd_kafka_AdminOptions_destroy(opt);
    rd_kafka_ListConsumerGroupOffsets_destroy(q);
}

void mr_offsets_ask(mr_offsets *o, const rd_kafka_topic_partition_list_t *list) {
    for (int i = 0; i < list->cnt; i++) {
        mr_partition *p = mr_partitions_find(o->all, list->elems[i].topic, list->elems[i].partition);
        if (!p || !p->assigned) continue;
        p->dirty = false;
        p->known.n = 0;
        p->asked_until_us = mr_mono_us() + ASK_MS * 1000LL;
    }
    if (o->answers && list->cnt) send_question(o, list); /* else the consumer is being closed */
}

bool mr_offsets_asked(const mr_partition *p) {
    return p->asked_until_us && mr_mono_us() < p->asked_until_us;
}

static void take_committed(mr_offsets *o, const rd_kafka_topic_partition_t *of) {
    mr_partition *p = mr_partitions_find(o->all, of->topic, of->partition);
    if (!p || !p->assigned || !p->asked_until_us) return;
    p->asked_until_us = 0;
    mr_str text = {of->metadata ? of->metadata : "", of->metadata ? of->metadata_size : 0};
    if (of->err == RD_KAFKA_RESP_ERR_NO_ERROR) mr_finished_read(&p->known, of->offset, text);
}

/* An answer that is late is as good: what was finished stays finished. */
static void take_answer(mr_offsets *o, rd_kafka_event_t *ev) {
    size_t n = 0;
    const rd_kafka_ListConsumerGroupOffsets_result_t *result =
        rd_kafka_event_ListConsumerGroupOffsets_result(ev);
    const rd_kafka_group_result_t **groups =
        result ? rd_kafka_ListConsumerGroupOffsets_result_groups(result, &n) : NULL;
    const rd_kafka_topic_partition_list_t *list = n == 1 ? rd_kafka_group_result_partitions(groups[0]) : NULL;
    for (int i = 0; list && i < list->cnt; i++) take_committed(o, &list->elems[i]);
    if (!list)
        mr_log(MR_WARN, "it is not known what is finished behind the committed offsets: it comes again",
               MR_S("error", rd_kafka_event_error_string(ev)));
}

void mr_offsets_serve(mr_offsets *o) {
    rd_kafka_event_t *ev;
    while (o->answers && (ev = rd_kafka_queue_poll(o->answers, 0)) != NULL) {
        take_answer(o, ev);
        rd_kafka_event_destroy(ev);
    }
}

/* What the files of the bus share, and no one else includes (tests of the bus excepted). */
#ifndef MR_BUS_INTERNAL_H
#define MR_BUS_INTERNAL_H

#include "base/bus.h"

#include <librdkafka/rdkafka.h>

/* A client configuration with what all our clients share. NULL and err on a bad kafka.extra. */
rd_kafka_conf_t *mr_bus_conf(const mr_kafka_conf *k, const char *part, mr_error *err);
/* kafka.extra last, so that it can change anything that was set before. */
int mr_bus_conf_extra(rd_kafka_conf_t *c, const mr_kafka_conf *k, mr_error *err);
int mr_bus_set(rd_kafka_conf_t *c, const char *name, const char *value, mr_error *err);
int mr_bus_set_int(rd_kafka_conf_t *c, const char *name, int64_t value, mr_error *err);

/* librdkafka's log lines; called by its threads. */
void mr_bus_log(const rd_kafka_t *rk, int level, const char *facility, const char *text);

/* Batches carry some bytes around the records: clients and topics allow for them beyond kafka.message_max. */
#define MR_BUS_OVERHEAD 65536

/* Wakes the loop when a librdkafka queue gets its first event. librdkafka writes only on the change from
 * empty to not empty, so whoever leaves events in the queue must call mr_bus_wake_again. */
typedef struct mr_bus_wake {
    int fd;
    struct event *ev;
    mr_loop_cb *cb;
    void *arg;
} mr_bus_wake;

int mr_bus_wake_init(mr_bus_wake *w, mr_loop *l, mr_loop_cb *cb, void *arg, mr_error *err);
void mr_bus_wake_done(mr_bus_wake *w);
void mr_bus_wake_on(mr_bus_wake *w, rd_kafka_queue_t *q);
void mr_bus_wake_again(mr_bus_wake *w);

/* The metric millrace_<part>_<what>. */
mr_counter *mr_bus_counter(mr_metrics *m, const char *part, const char *what, const char *help);
mr_gauge *mr_bus_gauge(mr_metrics *m, const char *part, const char *what, const char *help);

/* ---- the watermark of one partition: what is handed out, and up to where everything is finished ---- */

#define MR_WATERMARK_WINDOW                                                                                  \
    8192 /* records from the lowest unfinished one on; past it the partition is paused */

typedef struct mr_watermark {
    struct mr_watermark_slot *slots; /* a ring, ascending by offset */
    int cap, head, n;
    int unfinished;
    int64_t next; /* one past the finished prefix; 0: nothing is finished yet */
} mr_watermark;

void mr_watermark_reset(mr_watermark *w); /* forget everything, keep the memory */
void mr_watermark_free(mr_watermark *w);
/* false: out of memory, or not above the last offset that was begun */
bool mr_watermark_begin(mr_watermark *w, int64_t offset);
/* Undo the last begin; finish. Both are false when the record was not begun, or is finished already. */
bool mr_watermark_cancel(mr_watermark *w, int64_t offset);
bool mr_watermark_finish(mr_watermark *w, int64_t offset);
/* The lowest offset that is not finished, which is the one to commit; -1 when nothing has begun. */
int64_t mr_watermark_low(const mr_watermark *w);
static inline bool mr_watermark_full(const mr_watermark *w) {
    return w->n >= MR_WATERMARK_WINDOW;
}

/* ---- what is finished behind the watermark: it goes along with each commit, in its metadata, so that whoever has the partition
 * next leaves it out. The text, of version 1:
 *
 *     mr1:OFFSET:BITS
 *
 * OFFSET is the committed one; with another the text is not believed, since somebody has moved the offset. BITS are characters
 * of base64url, each for six offsets from OFFSET on, the lowest bit first. What is beyond the last is not known to be finished. A text of another form
 * says nothing: everything from the committed offset on comes again. ---- */

#define MR_FINISHED_CHARS 2730 /* 16,380 offsets, within the 4,096 bytes that a broker takes by default */
#define MR_FINISHED_TEXT  (MR_FINISHED_CHARS + 32)

typedef struct mr_finished {
    int64_t from;
    int n; /* of bits, which are as they came */
    char bits[MR_FINISHED_CHARS];
} mr_finished;

/* Empty when there is nothing to say. Its length. */
int mr_finished_write(const mr_watermark *w, char out[MR_FINISHED_TEXT]);
/* False, and nothing is finished: the text is none of ours, or not of this offset. */
bool mr_finished_read(mr_finished *f, int64_t committed, mr_str text);
bool mr_finished_has(const mr_finished *f, int64_t offset);

/* The record of a librdkafka message, which owns what it points to. */
mr_record mr_bus_record(const rd_kafka_message_t *m, const char *topic);

/* Tests provoke fatal errors through it. */
rd_kafka_t *mr_producer_client(mr_producer *p);

#endif

/* Three readers of Kafka in front of the requests in flight. See records.h. */
#include "gateway/records.h"

#include "base/log.h"

#include <stdlib.h>

#define RECORD_ARENA  (8u << 20)
#define CONTROL_ARENA (1u << 20)

struct mr_records {
    int32_t own; /* partition */
    char topic[250];
    mr_streams *streams;
    mr_consumer *answers, *control;
    mr_log_reader *log;
    mr_arena *arena, *control_arena;
};

/* from: NULL for a record of the own partition. */
static void take_record(mr_records *k, const mr_record *r, const mr_log_place *from) {
    mr_str type = mr_record_header(r, "type"), content = mr_record_header(r, "content-type");
    mr_error err;
    union {
        mr_response_delta delta;
        mr_response_end end;
    } msg;
    bool end = mr_str_eqz(type, mr_response_end_def.name);
    const mr_message_def *def = end ? &mr_response_end_def : &mr_response_delta_def;
    mr_arena_reset(k->arena);
    if (mr_decode(def, r->value, content, k->arena, &msg, &err) < 0) {
        mr_log(MR_WARN, "a record of chat.responses cannot be read", MR_I("offset", r->offset),
               MR_S("reason", err.msg));
    } else if (end) {
        mr_streams_end(k->streams, &msg.end, from);
    } else {
        mr_streams_delta(k->streams, &msg.delta, from);
    }
}

static bool on_record(void *arg, const mr_record *r) {
    take_record(arg, r, NULL);
    return true;
}

static void on_log_record(void *arg, const mr_record *r, int64_t round) {
    mr_records *k = arg;
    const mr_log_place from = {r->partition, r->offset, round};
    if (mr_streams_resumes(k->streams, r->key)) take_record(k, r, &from);
}

static void on_log_end(void *arg, int32_t partition, int64_t round) {
    mr_streams_log_end(((mr_records *)arg)->streams, partition, round);
}

static void on_log_gone(void *arg, int32_t partition, int64_t round, int64_t position) {
    mr_streams_log_gone(((mr_records *)arg)->streams, partition, round, position);
}

/* Of what is said to everybody, a gateway wants to know whose client went on elsewhere. */
static bool on_control(void *arg, const mr_record *r) {
    mr_records *k = arg;
    mr_control c;
    mr_error err;
    mr_arena_reset(k->control_arena);
    if (r->value.n > 0 &&
        mr_decode(&mr_control_def, r->value, mr_record_header(r, "content-type"), k->control_arena, &c,
                  &err) == 0 &&
        c.kind == MR_CONTROL_IS_RESUME) {
        mr_streams_came_back(k->streams, c.request, c.epoch);
    }
    return true;
}

static int start(mr_records *k, const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m, mr_error *err) {
    char control[250];
    const mr_log_events events = {on_log_record, on_log_end, on_log_gone, k};
    mr_bus_topic(kafka, MR_TOPIC_RESPONSES, k->topic);
    mr_bus_topic(kafka, MR_TOPIC_CONTROL, control);
    mr_consumer_options opt = {
        .topics = {k->topic}, .partition = k->own, .start = MR_FROM_END, .on_record = on_record, .arg = k};
    k->arena = mr_arena_new(RECORD_ARENA);
    k->control_arena = mr_arena_new(CONTROL_ARENA);
    if (!k->arena || !k->control_arena) return mr_fail(err, MR_ENOMEM, "out of memory");
    k->log = mr_log_reader_new(kafka, l, m, &events, err);
    if (!k->log) return -1;
    mr_streams_use_log(k->streams, k->log);
    k->answers = mr_consumer_new(kafka, &opt, l, m, "gateway", err);
    if (!k->answers) return -1;
    opt = (mr_consumer_options){
        .topics = {control}, .partition = -1, .start = MR_FROM_END, .on_record = on_control, .arg = k};
    k->control = mr_consumer_new(kafka, &opt, l, m, "gateway_control", err);
    return k->control ? 0 : -1;
}

mr_records *mr_records_new(const mr_gateway_conf *conf, const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m,
                           mr_streams *streams, mr_error *err) {
    mr_records *k = calloc(1, sizeof(*k));
    if (!k) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    k->own = (int32_t)conf->partition;
    k->streams = streams;
    if (start(k, kafka, l, m, err) == 0) return k;
    mr_records_free(k);
    return NULL;
}

void mr_records_free(mr_records *k) {
    if (!k) return;
    mr_consumer_free(k->answers);
    mr_consumer_free(k->control);
    mr_log_reader_free(k->log);
    mr_arena_free(k->arena);
    mr_arena_free(k->control_arena);
    free(k);
}

const char *mr_records_missing(const mr_records *k) {
    if (!mr_consumer_caught_up(k->answers)) return "the partition of answers is not being read yet";
    if (!mr_consumer_caught_up(k->control)) return "chat.control is not being read yet";
    return NULL;
}

int64_t mr_records_position(const mr_records *k) {
    return mr_consumer_position(k->answers, k->topic, k->own);
}

int mr_records_partitions(const mr_records *k) {
    return mr_consumer_partitions(k->answers, k->topic);
}

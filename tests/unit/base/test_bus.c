/* The bus against librdkafka's mock cluster: nothing is lost, nothing is committed too early, pauses hold. */
#include "base/bus_internal.h"
#include "support/support.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define JOIN_MS 20000
#define MAX_GOT 4096

typedef struct fixture {
    test_kafka *kafka;
    mr_kafka_conf conf;
    mr_loop *loop;
    mr_metrics *metrics;
    mr_producer *producer;
    int delivered, failed;
    void *last_tag;
    mr_error last_error;
} fixture;

static void on_delivered(void *arg, void *tag, const mr_error *err) {
    fixture *f = arg;
    f->last_tag = tag;
    if (err) {
        f->failed++;
        f->last_error = *err;
    } else {
        f->delivered++;
    }
}

static int setup(void **state) {
    mr_error err;
    fixture *f = calloc(1, sizeof(*f));
    f->kafka = test_kafka_start();
    test_kafka_topic(f->kafka, "one", 1);
    test_kafka_topic(f->kafka, "four", 4);
    f->conf = test_kafka_conf(f->kafka);
    f->loop = mr_loop_new(&err);
    f->metrics = mr_metrics_new(&err);
    f->producer = mr_producer_new(&f->conf, f->loop, f->metrics, "test", on_delivered, f, &err);
    *state = f;
    return f->producer ? 0 : -1;
}

static int teardown(void **state) {
    fixture *f = *state;
    mr_producer_free(f->producer, 1000);
    mr_metrics_free(f->metrics);
    mr_loop_free(f->loop);
    test_kafka_stop(f->kafka);
    free(f);
    return 0;
}

/* ---- producing ---- */

static int send_to(fixture *f, const char *topic, int partition, mr_str value, void *tag, mr_error *err) {
    mr_header headers[] = {{"type", MR_STR("Test")}, {"traceparent", MR_STR("00-abc")}};
    mr_produce rec = {.topic = topic,
                      .partition = partition,
                      .key = MR_STR("key"),
                      .value = value,
                      .headers = headers,
                      .nheaders = 2,
                      .tag = tag};
    return mr_producer_send(f->producer, &rec, err);
}

static bool nothing_in_flight(void *arg) {
    return mr_producer_in_flight(((fixture *)arg)->producer) == 0;
}

/* Sends the numbers from..to-1 and waits until the broker has them. */
static void produce(fixture *f, const char *topic, int partition, int from, int to) {
    mr_error err;
    int before = f->delivered;
    for (int i = from; i < to; i++) {
        char text[16];
        int n = snprintf(text, sizeof(text), "%d", i);
        assert_int_equal(send_to(f, topic, partition, (mr_str){text, (size_t)n}, f, &err), 0);
    }
    assert_true(test_wait(f->loop, 20000, nothing_in_flight, f));
    assert_int_equal(f->delivered - before, to - from);
}

/* ---- consuming ---- */

typedef struct reader {
    mr_consumer *c;
    int values[MAX_GOT];
    int64_t offsets[MAX_GOT];
    int partitions[MAX_GOT];
    int n, room, revoked;
    bool finish; /* mark each record done at once */
    int want;
} reader;

static bool on_record(void *arg, const mr_record *r) {
    reader *k = arg;
    char text[16] = {0};
    if (k->room == 0) return false;
    assert_true(k->n < MAX_GOT);
    memcpy(text, r->value.p, r->value.n < 15 ? r->value.n : 15);
    k->values[k->n] = atoi(text);
    k->offsets[k->n] = r->offset;
    k->partitions[k->n] = r->partition;
    k->n++;
    k->room--;
    if (k->finish) mr_bus_done(k->c, r->topic, r->partition, r->offset);
    return true;
}

static void on_revoked(void *arg, const char *topic, int32_t partition) {
    (void)topic, (void)partition;
    ((reader *)arg)->revoked++;
}

static void open_with(fixture *f, reader *k, const char *topic, mr_consumer_start start, int partition) {
    mr_error err;
    mr_consumer_options o = {.group = start == MR_FROM_COMMITTED ? "group" : NULL,
                             .topics = {topic},
                             .partition = partition,
                             .start = start,
                             .on_record = on_record,
                             .on_revoked = on_revoked,
                             .arg = k};
    k->c = mr_consumer_new(&f->conf, &o, f->loop, f->metrics, "test", &err);
    if (!k->c) fail_msg("%s", err.msg);
}

static void open_reader(fixture *f, reader *k, const char *topic, mr_consumer_start start) {
    open_with(f, k, topic, start, -1);
}

static bool has_wanted(void *arg) {
    return ((reader *)arg)->n >= ((reader *)arg)->want;
}
static bool is_assigned(void *arg) {
    return mr_consumer_assigned(((reader *)arg)->c) > 0;
}
static bool is_caught_up(void *arg) {
    return mr_consumer_caught_up(((reader *)arg)->c);
}

static void wait_for(fixture *f, reader *k, int want) {
    k->want = want;
    if (!test_wait(f->loop, JOIN_MS, has_wanted, k)) fail_msg("got %d of %d records", k->n, want);
}

static void assert_counts_up(const reader *k, int from, int to) {
    assert_int_equal(k->n, to - from);
    for (int i = 0; i < k->n; i++) assert_int_equal(k->values[i], from + i);
}

/* ---- producer ---- */

static void a_record_is_acknowledged_with_its_tag(void **state) {
    fixture *f = *state;
    int tag;
    mr_error err;
    assert_int_equal(send_to(f, "one", -1, MR_STR("hello"), &tag, &err), 0);
    assert_int_equal(mr_producer_in_flight(f->producer), 1);
    assert_true(test_wait(f->loop, 10000, nothing_in_flight, f));
    assert_int_equal(f->delivered, 1);
    assert_ptr_equal(f->last_tag, &tag);
}

static bool is_connected(void *arg) {
    return mr_producer_connected(((fixture *)arg)->producer);
}

static void the_producer_knows_that_it_is_connected(void **state) {
    fixture *f = *state;
    assert_true(test_wait(f->loop, 10000, is_connected, f));
}

static void a_record_over_the_limit_is_refused_and_one_just_under_passes(void **state) {
    fixture *f = *state;
    mr_error err;
    char *big = calloc(1, 3900001);
    assert_int_equal(send_to(f, "one", 0, (mr_str){big, 3900000}, NULL, &err), -1);
    assert_int_equal(err.code, MR_ETOOBIG);
    assert_non_null(strstr(err.msg, "kafka.message_max (3900000)"));
    assert_int_equal(send_to(f, "one", 0, (mr_str){big, 3899900}, f, &err), 0);
    assert_true(test_wait(f->loop, 10000, nothing_in_flight, f));
    assert_int_equal(f->delivered, 1);
    reader k = {.room = 1};
    open_reader(f, &k, "one", MR_FROM_BEGINNING);
    wait_for(f, &k, 1);
    mr_consumer_free(k.c);
    free(big);
}

static bool has_failed(void *arg) {
    return ((fixture *)arg)->failed > 0;
}

static void a_record_that_cannot_be_delivered_is_reported_with_the_reason(void **state) {
    fixture *f = *state;
    mr_error err;
    const char *extra[] = {"delivery.timeout.ms=300", "socket.timeout.ms=1000"};
    int tag;
    mr_producer_free(f->producer, 0);
    f->conf.extra = (mr_strlist){extra, 2};
    char brokers[32];
    snprintf(brokers, sizeof(brokers), "127.0.0.1:%d", test_free_port());
    f->conf.brokers = brokers;
    f->producer = mr_producer_new(&f->conf, f->loop, f->metrics, "test", on_delivered, f, &err);
    assert_int_equal(send_to(f, "one", 0, MR_STR("x"), &tag, &err), 0);
    assert_true(test_wait(f->loop, 10000, has_failed, f));
    assert_ptr_equal(f->last_tag, &tag);
    assert_non_null(strstr(f->last_error.msg, "topic one was not delivered"));
    assert_false(mr_producer_connected(f->producer));
}

static void freeing_the_producer_reports_what_is_still_in_the_air(void **state) {
    fixture *f = *state;
    mr_error err;
    char brokers[32];
    mr_kafka_conf nowhere = f->conf;
    snprintf(brokers, sizeof(brokers), "127.0.0.1:%d", test_free_port());
    nowhere.brokers = brokers;
    mr_producer_free(f->producer, 0);
    f->producer = mr_producer_new(&nowhere, f->loop, f->metrics, "test", on_delivered, f, &err);
    for (int i = 0; i < 10; i++) assert_int_equal(send_to(f, "one", 0, MR_STR("x"), NULL, &err), 0);
    mr_producer_free(f->producer, 50);
    f->producer = NULL;
    assert_int_equal(f->failed, 10);
}

static void after_a_fatal_error_a_new_producer_goes_on(void **state) {
    fixture *f = *state;
    produce(f, "one", 0, 0, 3);
    rd_kafka_t *old = mr_producer_client(f->producer);
    rd_kafka_test_fatal_error(old, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, "provoked");
    mr_error err;
    assert_int_equal(send_to(f, "one", 0, MR_STR("x"), NULL, &err), -1);
    assert_int_equal(err.code, MR_ESTATE);
    test_idle(f->loop, 300);
    produce(f, "one", 0, 3, 6);
    reader k = {.room = MAX_GOT};
    open_reader(f, &k, "one", MR_FROM_BEGINNING);
    wait_for(f, &k, 6);
    assert_counts_up(&k, 0, 6);
    mr_consumer_free(k.c);
}

static void a_bad_extra_property_is_named(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_kafka_conf conf = f->conf;
    const char *unknown[] = {"no.such=1"}, *shapeless[] = {"acks"};
    conf.extra = (mr_strlist){unknown, 1};
    assert_null(mr_producer_new(&conf, f->loop, f->metrics, "test", NULL, NULL, &err));
    assert_non_null(strstr(err.msg, "kafka.extra"));
    assert_non_null(strstr(err.msg, "no.such"));
    conf.extra = (mr_strlist){shapeless, 1};
    assert_null(mr_producer_new(&conf, f->loop, f->metrics, "test", NULL, NULL, &err));
    assert_string_equal(err.msg, "kafka.extra: 'acks' is not of the form property=value");
}

/* ---- consumer, assigned by hand ---- */

static bool check_headers(void *arg, const mr_record *r) {
    (*(int *)arg)++;
    assert_string_equal(r->topic, "one");
    assert_true(mr_str_eqz(r->key, "key"));
    assert_true(mr_str_eqz(r->value, "7"));
    assert_true(mr_str_eqz(mr_record_header(r, "type"), "Test"));
    assert_true(mr_str_eqz(mr_record_header(r, "traceparent"), "00-abc"));
    assert_int_equal(mr_record_header(r, "none").n, 0);
    assert_true(r->timestamp_ms > 1600000000000);
    return true;
}

static bool is_one(void *arg) {
    return *(int *)arg == 1;
}

static void a_record_arrives_with_key_headers_and_time(void **state) {
    fixture *f = *state;
    mr_error err;
    int seen = 0;
    produce(f, "one", -1, 7, 8);
    mr_consumer_options o = {.topics = {"one"},
                             .partition = 0,
                             .start = MR_FROM_BEGINNING,
                             .on_record = check_headers,
                             .arg = &seen};
    mr_consumer *c = mr_consumer_new(&f->conf, &o, f->loop, f->metrics, "test", &err);
    assert_non_null(c);
    assert_true(test_wait(f->loop, 10000, is_one, &seen));
    mr_consumer_free(c);
}

static void reading_from_the_end_sees_only_what_comes_later(void **state) {
    fixture *f = *state;
    produce(f, "one", 0, 0, 5);
    reader k = {.room = MAX_GOT};
    open_with(f, &k, "one", MR_FROM_END, 0);
    assert_true(test_wait(f->loop, 10000, is_caught_up, &k));
    produce(f, "one", 0, 5, 8);
    wait_for(f, &k, 3);
    assert_counts_up(&k, 5, 8);
    mr_consumer_free(k.c);
}

static void caught_up_means_that_all_partitions_were_read_to_their_end(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 3; i++) produce(f, "four", i, i * 100, i * 100 + 100); /* the fourth stays empty */
    reader k = {.room = MAX_GOT};
    open_reader(f, &k, "four", MR_FROM_BEGINNING);
    assert_int_equal(mr_consumer_assigned(k.c), 4);
    assert_false(mr_consumer_caught_up(k.c));
    assert_true(test_wait(f->loop, 10000, is_caught_up, &k));
    assert_int_equal(k.n, 300);
    mr_consumer_free(k.c);
}

static void a_partition_that_does_not_exist_is_a_clear_error(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_consumer_options o = {.topics = {"one"}, .partition = 5, .start = MR_FROM_END, .on_record = on_record};
    assert_null(mr_consumer_new(&f->conf, &o, f->loop, f->metrics, "test", &err));
    assert_string_equal(err.msg, "topic one has partitions 0 to 0, there is no partition 5");
}

static void a_refused_record_comes_again_after_resume_and_order_is_kept(void **state) {
    fixture *f = *state;
    produce(f, "one", 0, 0, 500);
    reader k = {.room = 100};
    open_reader(f, &k, "one", MR_FROM_BEGINNING);
    wait_for(f, &k, 100);
    test_idle(f->loop, 200);
    assert_int_equal(k.n, 100);
    for (int want = 150; want < 500; want += 50) {
        k.room = 50;
        mr_consumer_resume(k.c);
        wait_for(f, &k, want);
    }
    k.room = MAX_GOT;
    mr_consumer_resume(k.c);
    wait_for(f, &k, 500);
    test_idle(f->loop, 100);
    assert_counts_up(&k, 0, 500);
    mr_consumer_free(k.c);
}

static void a_pause_stops_the_flow_and_resume_loses_and_repeats_nothing(void **state) {
    fixture *f = *state;
    reader k = {.room = MAX_GOT};
    open_reader(f, &k, "one", MR_FROM_BEGINNING);
    for (int round = 0; round < 6; round++) {
        produce(f, "one", 0, round * 50, round * 50 + 25);
        wait_for(f, &k, round * 50 + 1);
        mr_consumer_pause(k.c);
        assert_true(mr_consumer_paused(k.c));
        produce(f, "one", 0, round * 50 + 25, round * 50 + 50);
        int seen = k.n;
        test_idle(f->loop, 30);
        assert_int_equal(k.n, seen);
        mr_consumer_resume(k.c);
    }
    wait_for(f, &k, 300);
    test_idle(f->loop, 100);
    assert_counts_up(&k, 0, 300);
    mr_consumer_free(k.c);
}

/* ---- reader ---- */

#define KEPT  (5 << 20) /* bytes of a partition, by the embedded broker */
#define LARGE 100000

typedef struct late {
    fixture *f;
    mr_reader *r;
    mr_timer *writer;
    int records, gone;
    int64_t first;
} late;

static void write_on(void *arg) {
    fixture *f = ((late *)arg)->f;
    mr_error err;
    static char text[LARGE];
    memset(text, 'x', sizeof(text));
    send_to(f, "one", 0, (mr_str){text, sizeof(text)}, NULL, &err);
}

static void on_late_record(void *arg, const mr_record *r) {
    late *l = arg;
    if (!l->records++) l->first = r->offset;
}

static void on_late_end(void *arg, const char *topic, int32_t partition, int64_t next) {
    (void)arg, (void)topic, (void)partition, (void)next;
}

static void on_late_gone(void *arg, const char *topic, int32_t partition, const char *why) {
    late *l = arg;
    mr_error err;
    (void)why;
    l->gone++;
    assert_int_equal(mr_reader_start(l->r, topic, partition, MR_READ_OLDEST, &err), 0);
}

static bool is_served(void *arg) {
    return ((late *)arg)->records >= 40;
}

static void whoever_comes_too_late_is_served_from_the_oldest_record_while_more_are_written(void **state) {
    fixture *f = *state;
    late l = {.f = f};
    const mr_reader_options opt = {on_late_record, on_late_end, on_late_gone, &l};
    mr_error err;
    for (int i = 0; i < KEPT / LARGE + 10; i++) { /* one by one: whole batches are dropped */
        write_on(&l);
        assert_true(test_wait(f->loop, 20000, nothing_in_flight, f));
    }
    l.r = mr_reader_new(&f->conf, &opt, f->loop, f->metrics, "late", &err);
    l.writer = mr_timer_new(f->loop, 100, write_on, &l, &err);
    assert_true(l.r && l.writer);
    assert_int_equal(mr_reader_start(l.r, "one", 0, 0, &err), 0);
    assert_true(test_wait(f->loop, 60000, is_served, &l));
    assert_true(l.gone > 0 && l.first > 0);
    mr_timer_free(l.writer);
    mr_reader_free(l.r);
}

/* ---- consumer, member of a group ---- */

static bool has_metric(fixture *f, const char *line) {
    mr_buf text;
    mr_buf_init(&text, 1 << 20);
    mr_metrics_text(f->metrics, &text);
    mr_buf_put(&text, "", 1);
    bool has = strstr(text.p, line) != NULL;
    mr_buf_done(&text);
    return has;
}

static bool lag_is_twenty(void *arg) {
    return has_metric(arg, "millrace_test_kafka_lag_records 20\n");
}

static bool lag_is_nine(void *arg) {
    return has_metric(arg, "millrace_test_kafka_lag_records 9\n");
}

static bool lag_is_none(void *arg) {
    return has_metric(arg, "millrace_test_kafka_lag_records 0\n");
}

static void the_lag_counts_from_the_lowest_unfinished_record_on(void **state) {
    fixture *f = *state;
    produce(f, "one", 0, 0, 20);
    reader a = {.room = 15};
    open_reader(f, &a, "one", MR_FROM_COMMITTED);
    wait_for(f, &a, 15);
    assert_true(test_wait(f->loop, JOIN_MS, lag_is_twenty, f));
    for (int i = 0; i < 15; i++) {
        if (i != 11) mr_bus_done(a.c, "one", 0, a.offsets[i]);
    }
    assert_true(test_wait(f->loop, JOIN_MS, lag_is_nine, f));
    mr_bus_done(a.c, "one", 0, a.offsets[11]);
    a.room = MAX_GOT;
    a.finish = true;
    mr_consumer_resume(a.c);
    assert_true(test_wait(f->loop, JOIN_MS, lag_is_none, f));
    mr_consumer_free(a.c);
}

static void after_a_restart_only_what_was_not_finished_comes_again(void **state) {
    fixture *f = *state;
    produce(f, "one", 0, 0, 20);
    reader a = {.room = MAX_GOT};
    open_reader(f, &a, "one", MR_FROM_COMMITTED);
    wait_for(f, &a, 20);
    assert_int_equal(mr_consumer_unfinished(a.c), 20);
    for (int i = 0; i < 20; i++) {
        if (i != 7 && i != 12) mr_bus_done(a.c, "one", 0, a.offsets[i]);
    }
    assert_int_equal(mr_consumer_unfinished(a.c), 2);
    mr_consumer_free(a.c);
    assert_int_equal(a.revoked, 1);
    produce(f, "one", 0, 20, 21);
    reader b = {.room = MAX_GOT, .finish = true};
    open_reader(f, &b, "one", MR_FROM_COMMITTED);
    wait_for(f, &b, 3);
    assert_int_equal(b.values[0], 7);
    assert_int_equal(b.values[1], 12);
    assert_int_equal(b.values[2], 20);
    assert_int_equal(mr_consumer_unfinished(b.c), 0);
    mr_consumer_free(b.c);
    produce(f, "one", 0, 21, 22);
    reader c = {.room = MAX_GOT};
    open_reader(f, &c, "one", MR_FROM_COMMITTED);
    wait_for(f, &c, 1);
    assert_counts_up(&c, 21, 22);
    mr_consumer_free(c.c);
}

/* As a tool does it, while nobody is in the group. */
static void commit_by_hand(fixture *f, int64_t offset, const char *metadata) {
    char why[200];
    mr_error err;
    rd_kafka_conf_t *conf = mr_bus_conf(&f->conf, "test", &err);
    assert_non_null(conf);
    assert_int_equal(mr_bus_set(conf, "group.id", "group", &err), 0);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
    assert_non_null(rk);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_t *p = rd_kafka_topic_partition_list_add(list, "one", 0);
    p->offset = offset;
    p->metadata = strdup(metadata);
    p->metadata_size = strlen(metadata);
    assert_int_equal(rd_kafka_commit(rk, list, 0), 0);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(rk);
}

static void offsets_that_somebody_moved_leave_nothing_out(void **state) {
    fixture *f = *state;
    produce(f, "one", 0, 0, 10);
    commit_by_hand(f, 2, "mr1:5:____");
    reader a = {.room = MAX_GOT, .finish = true};
    open_reader(f, &a, "one", MR_FROM_COMMITTED);
    wait_for(f, &a, 8);
    assert_counts_up(&a, 2, 10);
    mr_consumer_free(a.c);
}

static void a_refused_record_is_not_committed(void **state) {
    fixture *f = *state;
    produce(f, "one", 0, 0, 10);
    reader a = {.room = 4, .finish = true};
    open_reader(f, &a, "one", MR_FROM_COMMITTED);
    wait_for(f, &a, 4);
    test_idle(f->loop, 50);
    mr_consumer_free(a.c);
    reader b = {.room = MAX_GOT};
    open_reader(f, &b, "one", MR_FROM_COMMITTED);
    wait_for(f, &b, 6);
    assert_counts_up(&b, 4, 10);
    mr_consumer_free(b.c);
}

typedef struct pair {
    reader *a, *b;
} pair;

static bool both_have_two(void *arg) {
    pair *p = arg;
    return mr_consumer_assigned(p->a->c) == 2 && mr_consumer_assigned(p->b->c) == 2;
}

static bool a_has_four(void *arg) {
    return mr_consumer_assigned(((pair *)arg)->a->c) == 4;
}

static bool pair_has_forty(void *arg) {
    return ((pair *)arg)->a->n + ((pair *)arg)->b->n >= 40;
}

static void a_pause_survives_reassignment_and_so_does_a_resume(void **state) {
    fixture *f = *state;
    reader a = {.room = MAX_GOT, .finish = true}, b = {.room = MAX_GOT, .finish = true};
    pair both = {&a, &b};
    open_reader(f, &a, "four", MR_FROM_COMMITTED);
    assert_true(test_wait(f->loop, JOIN_MS, is_assigned, &a));
    mr_consumer_pause(a.c);
    open_reader(f, &b, "four", MR_FROM_COMMITTED);
    assert_true(test_wait(f->loop, 2 * JOIN_MS, both_have_two, &both));
    for (int i = 0; i < 4; i++) produce(f, "four", i, i * 10, i * 10 + 10);
    wait_for(f, &b, 20);
    test_idle(f->loop, 200);
    assert_int_equal(a.n, 0); /* paused, though all of its partitions were assigned anew */
    mr_consumer_free(b.c);
    assert_true(test_wait(f->loop, 2 * JOIN_MS, a_has_four, &both));
    mr_consumer_resume(a.c);
    assert_true(test_wait(f->loop, JOIN_MS, pair_has_forty, &both));
    assert_int_equal(a.n, 20);
    assert_true(a.revoked > 0);
    mr_consumer_free(a.c);
}

static void records_that_the_broker_dropped_are_noticed_and_the_rest_is_read(void **state) {
    fixture *f = *state;
    mr_error err;
    produce(f, "one", 0, 0, 2);
    reader a = {.room = 1, .finish = true};
    open_reader(f, &a, "one", MR_FROM_COMMITTED);
    wait_for(f, &a, 1);
    mr_consumer_free(a.c);
    /* the mock cluster keeps 5 MiB a partition and drops the oldest silently */
    char *big = calloc(1, 1 << 20);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(send_to(f, "one", 0, (mr_str){big, 1 << 20}, f, &err), 0);
        assert_true(test_wait(f->loop, 10000, nothing_in_flight, f));
    }
    free(big);
    produce(f, "one", 0, 5, 6);
    reader b = {.room = MAX_GOT};
    open_reader(f, &b, "one", MR_FROM_COMMITTED);
    wait_for(f, &b, 4);
    test_idle(f->loop, 200);
    assert_int_equal(b.values[b.n - 1], 5);
    assert_true(b.offsets[0] > 1);
    assert_true(has_metric(f, "millrace_test_kafka_lost_ranges_total 1\n"));
    mr_consumer_free(b.c);
}

/* ---- topics ---- */

static void on_a_broker_that_cannot_create_topics_they_are_checked(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_topic_spec there[] = {{.name = "one", .partitions = 1}, {.name = "four", .partitions = 4}};
    mr_topic_spec missing[] = {{.name = "one", .partitions = 1}, {.name = "none", .partitions = 4}};
    if (mr_bus_create_topics(&f->conf, there, 2, 10000, &err) != 0) fail_msg("%s", err.msg);
    assert_int_equal(mr_bus_create_topics(&f->conf, missing, 2, 3000, &err), -1);
    if (err.code != MR_ENOTFOUND) fail_msg("%s", err.msg);
}

static void *create_late(void *arg) {
    usleep(300000);
    test_kafka_topic(((fixture *)arg)->kafka, "late", 2);
    return NULL;
}

static void topics_that_the_broker_makes_while_it_starts_are_waited_for(void **state) {
    fixture *f = *state;
    mr_error err;
    pthread_t thread;
    mr_topic_spec specs[] = {{.name = "one", .partitions = 1}, {.name = "late", .partitions = 2}};
    assert_int_equal(pthread_create(&thread, NULL, create_late, f), 0);
    int rc = mr_bus_create_topics(&f->conf, specs, 2, 30000, &err);
    pthread_join(thread, NULL);
    if (rc != 0) fail_msg("%s", err.msg);
}

static void without_a_broker_topic_creation_fails_in_time_and_says_where(void **state) {
    fixture *f = *state;
    mr_error err;
    char brokers[32];
    mr_topic_spec spec = {.name = "one", .partitions = 1};
    snprintf(brokers, sizeof(brokers), "127.0.0.1:%d", test_free_port());
    f->conf.brokers = brokers;
    assert_int_equal(mr_bus_create_topics(&f->conf, &spec, 1, 300, &err), -1);
    assert_non_null(strstr(err.msg, brokers));
    assert_non_null(strstr(err.msg, "cannot be reached"));
}

int main(void) {
    cmocka_set_test_filter(getenv("ONLY"));
    test_log_init();
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_record_is_acknowledged_with_its_tag),
        TEST(the_producer_knows_that_it_is_connected),
        TEST(a_record_over_the_limit_is_refused_and_one_just_under_passes),
        TEST(a_record_that_cannot_be_delivered_is_reported_with_the_reason),
        TEST(freeing_the_producer_reports_what_is_still_in_the_air),
        TEST(after_a_fatal_error_a_new_producer_goes_on),
        TEST(a_bad_extra_property_is_named),
        TEST(a_record_arrives_with_key_headers_and_time),
        TEST(reading_from_the_end_sees_only_what_comes_later),
        TEST(caught_up_means_that_all_partitions_were_read_to_their_end),
        TEST(a_partition_that_does_not_exist_is_a_clear_error),
        TEST(a_refused_record_comes_again_after_resume_and_order_is_kept),
        TEST(a_pause_stops_the_flow_and_resume_loses_and_repeats_nothing),
        TEST(the_lag_counts_from_the_lowest_unfinished_record_on),
        TEST(whoever_comes_too_late_is_served_from_the_oldest_record_while_more_are_written),
        TEST(after_a_restart_only_what_was_not_finished_comes_again),
        TEST(offsets_that_somebody_moved_leave_nothing_out),
        TEST(a_refused_record_is_not_committed),
        TEST(a_pause_survives_reassignment_and_so_does_a_resume),
        TEST(records_that_the_broker_dropped_are_noticed_and_the_rest_is_read),
        TEST(on_a_broker_that_cannot_create_topics_they_are_checked),
        TEST(topics_that_the_broker_makes_while_it_starts_are_waited_for),
        TEST(without_a_broker_topic_creation_fails_in_time_and_says_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

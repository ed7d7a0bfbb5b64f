/* The lag of a group on its topic, as brokers tell it. */
#include "pool/lag.h"
#include "support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define WAIT_MS 30000

typedef struct fixture {
    test_kafka *kafka;
    mr_kafka_conf conf;
    mr_loop *loop;
    mr_metrics *metrics;
    mr_producer *producer;
    mr_lag_source source;
    mr_lag_reader *reader;
    int taken, take_until;
    int64_t wanted, asked_us;
} fixture;

static void on_delivered(void *arg, void *tag, const mr_error *err) {
    (void)arg, (void)tag;
    assert_null(err);
}

static bool on_record(void *arg, const mr_record *r) {
    fixture *f = arg;
    (void)r;
    if (f->taken == f->take_until) return false;
    f->taken++;
    return true;
}

/* The oldest record's time is left out of a round in which the broker is slow: a later one has it. */
static bool has_lag(void *arg) {
    fixture *f = arg;
    mr_lag lag = mr_lag_get(f->reader, 0);
    return lag.at_us > f->asked_us && lag.records == f->wanted && (lag.oldest_ms != 0) == (f->wanted != 0);
}

static mr_lag wait_lag(fixture *f, int64_t wanted) {
    f->wanted = wanted;
    f->asked_us = mr_mono_us();
    if (!test_wait(f->loop, WAIT_MS, has_lag, f))
        fail_msg("lag is %lld, not %lld", (long long)mr_lag_get(f->reader, 0).records, (long long)wanted);
    return mr_lag_get(f->reader, 0);
}

static bool has_taken(void *arg) {
    fixture *f = arg;
    return f->taken == f->take_until;
}

static void lag_is_what_is_not_committed(void **state) {
    mr_error err;
    fixture f = {.kafka = test_kafka_start()};
    (void)state;
    f.conf = test_kafka_conf(f.kafka);
    f.loop = mr_loop_new(&err);
    f.metrics = mr_metrics_new(&err);
    mr_lag_of_workers(&f.conf, "main", "blue", &f.source);
    test_kafka_topic(f.kafka, f.source.topic, 2);
    f.producer = mr_producer_new(&f.conf, f.loop, f.metrics, "test", on_delivered, &f, &err);
    f.reader = mr_lag_reader_new(&f.conf, &f.source, 1, 100, &err);
    assert_non_null(f.producer);
    assert_non_null(f.reader);
    assert_int_equal(wait_lag(&f, 0).oldest_ms, 0);

    for (int i = 0; i < 10; i++) {
        const mr_produce rec = {
            .topic = f.source.topic, .partition = i % 2, .key = MR_STR("k"), .value = MR_STR("v")};
        assert_int_equal(mr_producer_send(f.producer, &rec, &err), 0);
    }
    assert_true(wait_lag(&f, 10).oldest_ms > mr_now_ms() - 60000);

    const mr_consumer_options opt = {.group = f.source.group,
                                     .topics = {f.source.topic},
                                     .partition = -1,
                                     .start = MR_FROM_COMMITTED,
                                     .on_record = on_record,
                                     .arg = &f};
    f.take_until = 10;
    mr_consumer *c = mr_consumer_new(&f.conf, &opt, f.loop, f.metrics, "test", &err);
    assert_non_null(c);
    assert_true(test_wait(f.loop, WAIT_MS, has_taken, &f));
    wait_lag(&f, 10); /* taken is not finished */
    for (int i = 0; i < 10; i++) mr_bus_done(c, f.source.topic, i % 2, i / 2);
    assert_int_equal(wait_lag(&f, 0).oldest_ms, 0);

    mr_consumer_free(c);
    mr_lag_reader_free(f.reader);
    mr_producer_free(f.producer, 1000);
    mr_metrics_free(f.metrics);
    mr_loop_free(f.loop);
    test_kafka_stop(f.kafka);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(lag_is_what_is_not_committed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What tests need around the thing they test: free ports, servers of their own, and waiting without sleeping.
 *
 * Servers listen on 127.0.0.1 at ports that the system chose, and end with the test program, also when it crashes.
 * A failure in here ends the test with an assertion: no return codes to check. */
#ifndef MR_TEST_SUPPORT_H
#define MR_TEST_SUPPORT_H

#include "base/conf.h"
#include "base/loop.h"

#include <stdbool.h>
#include <sys/types.h>

/* The log of a test's own process: errors on stderr, or everything where VERBOSE is in the environment. */
void test_log_init(void);

/* A TCP port of 127.0.0.1 that nobody listens on, and that no other test gets while this one runs. */
int test_free_port(void);

/* A new empty folder under $TMPDIR; removed with its content by test_folder_done. */
void test_folder_init(char path[64]);
void test_folder_done(const char *path);
/* A file with just these bytes, or this text. */
void test_write(const char *path, const void *bytes, size_t n);
void test_write_text(const char *path, const char *text);

/* Run the loop until cond(arg) is true; false when it is not after timeout_ms. */
typedef bool test_cond(void *arg);
bool test_wait(mr_loop *l, int timeout_ms, test_cond *cond, void *arg);
/* Run the loop for ms: only to show that something does NOT happen. */
void test_idle(mr_loop *l, int ms);

/* What a process has had of the processors so far, user and kernel; 0 when there is none of that id. */
double test_cpu_seconds(pid_t pid);

/* A redis-server without persistence. NULL when the program is not installed (skip the test then). */
typedef struct test_redis test_redis;
test_redis *test_redis_start(int port, const char *password); /* port 0: any; password may be NULL */
int test_redis_port(const test_redis *r);
void test_redis_stop(test_redis *r);

/* librdkafka's mock cluster in this process. */
typedef struct test_kafka test_kafka;
test_kafka *test_kafka_start(void);
void test_kafka_topic(test_kafka *k, const char *topic, int partitions);
/* The kafka settings to reach it, with short linger and waits. Strings live as long as k. */
mr_kafka_conf test_kafka_conf(const test_kafka *k);
/* The next n produce requests, of any client, fail with this code of librdkafka; n = 0 takes back what is left. */
void test_kafka_fail_produce(test_kafka *k, int code, int n);
/* From now on every reply of the broker comes so much later. */
void test_kafka_delay(test_kafka *k, int ms);
/* While a partition has no leader nobody can read or write it. */
void test_kafka_lead(test_kafka *k, const char *topic, int partition, bool led);
void test_kafka_stop(test_kafka *k);

#endif

/* Metrics: the text that Prometheus reads, and the health pages over HTTP. */
#include "base/metrics.h"
#include "support/support.h"

#include <event2/buffer.h>
#include <event2/http.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void the_text_groups_samples_by_name(void **state) {
    (void)state;
    mr_error err;
    mr_metrics *m = mr_metrics_new(&err);
    mr_counter *kb = mr_counter_new(m, "millrace_router_answers_total", "source=\"kb\"", "Answers.");
    mr_gauge_set(mr_gauge_new(m, "millrace_router_queue_requests", NULL, "Waiting."), 2.5);
    mr_counter *model = mr_counter_new(m, "millrace_router_answers_total", "source=\"model\"", "Answers.");
    mr_counter_add(kb, 3);
    mr_counter_add(model, 4);
    mr_buf b;
    mr_buf_init(&b, 1 << 16);
    mr_metrics_text(m, &b);
    assert_string_equal(b.p, "# HELP millrace_router_answers_total Answers.\n"
                             "# TYPE millrace_router_answers_total counter\n"
                             "millrace_router_answers_total{source=\"kb\"} 3\n"
                             "millrace_router_answers_total{source=\"model\"} 4\n"
                             "# HELP millrace_router_queue_requests Waiting.\n"
                             "# TYPE millrace_router_queue_requests gauge\n"
                             "millrace_router_queue_requests 2.5\n");
    mr_buf_done(&b);
    mr_metrics_free(m);
}

static void histogram_buckets_are_cumulative(void **state) {
    (void)state;
    mr_error err;
    mr_metrics *m = mr_metrics_new(&err);
    mr_histogram *h = mr_histogram_new(m, "h_seconds", "a=\"b\"", "H.");
    mr_histogram_observe(h, 0.0004);
    mr_histogram_observe(h, 0.2);
    mr_histogram_observe(h, 1000);
    mr_histogram_observe(h, -1);
    mr_buf b;
    mr_buf_init(&b, 1 << 16);
    mr_metrics_text(m, &b);
    assert_non_null(strstr(b.p, "h_seconds_bucket{a=\"b\",le=\"0.0005\"} 2\n"));
    assert_non_null(strstr(b.p, "h_seconds_bucket{a=\"b\",le=\"0.25\"} 3\n"));
    assert_non_null(strstr(b.p, "h_seconds_bucket{a=\"b\",le=\"300\"} 3\n"));
    assert_non_null(strstr(b.p, "h_seconds_bucket{a=\"b\",le=\"+Inf\"} 4\n"));
    assert_non_null(strstr(b.p, "h_seconds_count{a=\"b\"} 4\n"));
    assert_non_null(strstr(b.p, "h_seconds_sum{a=\"b\"} 1000.2004\n"));
    mr_buf_done(&b);
    mr_metrics_free(m);
}

static void the_same_metric_registered_twice_is_one(void **state) {
    (void)state;
    mr_error err;
    mr_metrics *m = mr_metrics_new(&err);
    assert_ptr_equal(mr_counter_new(m, "a_total", NULL, "A."), mr_counter_new(m, "a_total", NULL, "A."));
    mr_metrics_free(m);
}

static void *count_up(void *arg) {
    for (int i = 0; i < 100000; i++) mr_counter_add(arg, 1);
    return NULL;
}

static void threads_lose_no_counts(void **state) {
    (void)state;
    mr_error err;
    pthread_t threads[4];
    mr_metrics *m = mr_metrics_new(&err);
    mr_counter *c = mr_counter_new(m, "a_total", NULL, "A.");
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, count_up, c), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    mr_buf b;
    mr_buf_init(&b, 1 << 16);
    mr_metrics_text(m, &b);
    assert_non_null(strstr(b.p, "a_total 400000\n"));
    mr_buf_done(&b);
    mr_metrics_free(m);
}

/* ---- over HTTP ---- */

typedef struct page {
    bool done;
    int code;
    char body[4096];
} page;

static void on_page(struct evhttp_request *req, void *arg) {
    page *p = arg;
    p->done = true;
    if (!req) return;
    p->code = evhttp_request_get_response_code(req);
    int n = evbuffer_remove(evhttp_request_get_input_buffer(req), p->body, sizeof(p->body) - 1);
    p->body[n > 0 ? n : 0] = '\0';
}

static bool is_done(void *arg) {
    return ((page *)arg)->done;
}

static page get(mr_loop *l, int port, const char *path) {
    page p = {0};
    struct evhttp_connection *c =
        evhttp_connection_base_new(mr_loop_base(l), NULL, "127.0.0.1", (uint16_t)port);
    struct evhttp_request *req = evhttp_request_new(on_page, &p);
    assert_int_equal(evhttp_make_request(c, req, EVHTTP_REQ_GET, path), 0);
    assert_true(test_wait(l, 5000, is_done, &p));
    evhttp_connection_free(c);
    return p;
}

static bool is_ready(void *arg, char *why, size_t n) {
    if (*(bool *)arg) return true;
    snprintf(why, n, "no partitions are assigned");
    return false;
}

static void health_pages_tell_the_state_and_the_reason(void **state) {
    (void)state;
    mr_error err;
    bool ready = false;
    int port = test_free_port();
    mr_loop *l = mr_loop_new(&err);
    mr_metrics *m = mr_metrics_new(&err);
    mr_counter_add(mr_counter_new(m, "a_total", NULL, "A."), 7);
    assert_int_equal(mr_metrics_serve(m, l, "127.0.0.1", port, is_ready, &ready, &err), 0);
    page p = get(l, port, "/readyz");
    assert_int_equal(p.code, 503);
    assert_string_equal(p.body, "no partitions are assigned\n");
    assert_int_equal(get(l, port, "/livez").code, 200);
    ready = true;
    assert_int_equal(get(l, port, "/readyz").code, 200);
    p = get(l, port, "/metrics");
    assert_int_equal(p.code, 200);
    assert_non_null(strstr(p.body, "a_total 7\n"));
    assert_int_equal(get(l, port, "/other").code, 404);
    mr_metrics_free(m);
    mr_loop_free(l);
}

static void a_taken_port_is_a_clear_error(void **state) {
    (void)state;
    mr_error err;
    char want[200];
    int port = test_free_port();
    mr_loop *l = mr_loop_new(&err);
    mr_metrics *a = mr_metrics_new(&err), *b = mr_metrics_new(&err);
    assert_int_equal(mr_metrics_serve(a, l, "127.0.0.1", port, NULL, NULL, &err), 0);
    assert_int_equal(mr_metrics_serve(b, l, "127.0.0.1", port, NULL, NULL, &err), -1);
    snprintf(want, sizeof(want),
             "metrics cannot be served on 127.0.0.1:%d: Address already in use; choose another metrics_port",
             port);
    assert_string_equal(err.msg, want);
    assert_int_equal(mr_metrics_serve(b, l, "127.0.0.1", 0, NULL, NULL, &err), 0);
    mr_metrics_free(a);
    mr_metrics_free(b);
    mr_loop_free(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_text_groups_samples_by_name),
        cmocka_unit_test(histogram_buckets_are_cumulative),
        cmocka_unit_test(the_same_metric_registered_twice_is_one),
        cmocka_unit_test(threads_lose_no_counts),
        cmocka_unit_test(health_pages_tell_the_state_and_the_reason),
        cmocka_unit_test(a_taken_port_is_a_clear_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

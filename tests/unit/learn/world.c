/* See world.h. */
#include "world.h"

#include "schemas/hash.h"
#include "support/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { WAIT_MS = 60000, IN_AIR_MAX = 2000, ARGS_MAX = 36 };

static void on_delivered(void *arg, void *tag, const mr_error *err) {
    world *w = arg;
    (void)tag;
    if (err) fail_msg("%s", err->msg);
    w->in_air--;
}

void world_init(world *w, const char *millrace) {
    static const char *const topics[] = {MR_TOPIC_REQUESTS, MR_TOPIC_RESPONSES, MR_TOPIC_FEEDBACK};
    mr_error err;
    memset(w, 0, sizeof(*w));
    w->millrace = millrace;
    test_folder_init(w->folder);
    snprintf(w->model, sizeof(w->model), "%s/intent.model", w->folder);
    snprintf(w->kept, sizeof(w->kept), "%s.learn", w->model);
    snprintf(w->output, sizeof(w->output), "%s/output", w->folder);
    w->kafka = test_kafka_start();
    for (size_t i = 0; i < 3; i++) test_kafka_topic(w->kafka, topics[i], 4);
    w->conf = test_kafka_conf(w->kafka);
    w->arena = mr_arena_new(16u << 20);
    w->loop = mr_loop_new(&err);
    w->metrics = mr_metrics_new(&err);
    w->producer = mr_producer_new(&w->conf, w->loop, w->metrics, "test", on_delivered, w, &err);
    if (!w->producer) fail_msg("%s", err.msg);
}

void world_done(world *w) {
    mr_producer_free(w->producer, 100);
    mr_metrics_free(w->metrics);
    mr_loop_free(w->loop);
    mr_arena_free(w->arena);
    test_kafka_stop(w->kafka);
    test_folder_done(w->folder);
}

/* ---- traffic ---- */

static bool has_room(void *arg) {
    return ((world *)arg)->in_air < IN_AIR_MAX;
}

static bool is_settled(void *arg) {
    return ((world *)arg)->in_air == 0;
}

void world_settle(world *w) {
    if (!test_wait(w->loop, WAIT_MS, is_settled, w)) fail_msg("Kafka does not take the records");
}

static void put(world *w, const char *topic, const char *key, const mr_message_def *def, const void *msg) {
    mr_buf b;
    mr_error err;
    const mr_header type = {"type", mr_str_of(def->name)};
    mr_buf_init(&b, 1 << 20);
    if (mr_pack(def, msg, &b, &err) < 0) fail_msg("%s", err.msg);
    if (!test_wait(w->loop, WAIT_MS, has_room, w)) fail_msg("Kafka does not take the records");
    w->in_air++;
    const mr_produce rec = {topic, -1, mr_str_of(key), mr_buf_str(&b), &type, 1, w};
    if (mr_producer_send(w->producer, &rec, &err) < 0) fail_msg("%s", err.msg);
    mr_buf_done(&b);
}

void world_chat(world *w, const char *id, const char *text, int64_t at_ms) {
    mr_chat_message m = {0};
    mr_chat_request q = {0};
    MR_SET(&m, MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_USER);
    MR_SET(&m, MR_CHAT_MESSAGE_CONTENT, content, mr_str_of(text));
    MR_SET(&q, MR_CHAT_REQUEST_V, v, MR_SCHEMA_VERSION);
    MR_SET(&q, MR_CHAT_REQUEST_ID, id, mr_str_of(id));
    MR_SET(&q, MR_CHAT_REQUEST_CREATED_MS, created_ms, at_ms);
    q.messages.v = &m;
    q.messages.n = 1;
    MR_MARK(&q, MR_CHAT_REQUEST_MESSAGES);
    put(w, MR_TOPIC_REQUESTS, id, &mr_chat_request_def, &q);
}

void world_answer(world *w, const char *id, const char *text, bool kb) {
    char hash[MR_TEXT_HASH_LEN + 1];
    mr_response_delta d = {0};
    mr_response_end e = {0};
    mr_text_hash_hex(mr_text_hash_feed(mr_text_hash_init(), mr_str_of(text)), hash);
    MR_SET(&d, MR_RESPONSE_DELTA_V, v, MR_SCHEMA_VERSION);
    MR_SET(&d, MR_RESPONSE_DELTA_REQUEST, request, mr_str_of(id));
    MR_SET(&d, MR_RESPONSE_DELTA_INDEX, index, 0);
    MR_SET(&d, MR_RESPONSE_DELTA_TOKENS, tokens, 0);
    MR_SET(&d, MR_RESPONSE_DELTA_OFFSET, offset, 0);
    MR_SET(&d, MR_RESPONSE_DELTA_CHANNEL, channel, MR_CHANNEL_CONTENT);
    MR_SET(&d, MR_RESPONSE_DELTA_TEXT, text, mr_str_of(text));
    MR_SET(&d, MR_RESPONSE_DELTA_HASH, hash, mr_str_of(hash));
    put(w, MR_TOPIC_RESPONSES, id, &mr_response_delta_def, &d);
    MR_SET(&e, MR_RESPONSE_END_V, v, MR_SCHEMA_VERSION);
    MR_SET(&e, MR_RESPONSE_END_REQUEST, request, mr_str_of(id));
    MR_SET(&e, MR_RESPONSE_END_TOKENS, tokens, 0);
    MR_SET(&e, MR_RESPONSE_END_OFFSET, offset, (int64_t)strlen(text));
    MR_SET(&e, MR_RESPONSE_END_HASH, hash, mr_str_of(hash));
    MR_SET(&e, MR_RESPONSE_END_FINISH_REASON, finish_reason, MR_FINISH_STOP);
    MR_SET(&e, MR_RESPONSE_END_SOURCE, source, kb ? MR_SOURCE_KB : MR_SOURCE_MODEL);
    put(w, MR_TOPIC_RESPONSES, id, &mr_response_end_def, &e);
}

void world_rate(world *w, const char *id, int rating, const char *label, int64_t at_ms) {
    mr_feedback f = {0};
    MR_SET(&f, MR_FEEDBACK_V, v, MR_SCHEMA_VERSION);
    MR_SET(&f, MR_FEEDBACK_REQUEST, request, mr_str_of(id));
    MR_SET(&f, MR_FEEDBACK_RATING, rating, rating);
    MR_SET(&f, MR_FEEDBACK_CREATED_MS, created_ms, at_ms);
    if (label) MR_SET(&f, MR_FEEDBACK_LABEL, label, mr_str_of(label));
    put(w, MR_TOPIC_FEEDBACK, id, &mr_feedback_def, &f);
}

/* ---- the command ---- */

static int exec_program(int argc, char **argv) {
    (void)argc;
    execv(argv[0], argv);
    return 98;
}

int world_run(world *w, const char *const *args) {
    const test_command c = {.run = exec_program,
                            .name = w->millrace,
                            .output = w->output,
                            .text = w->text,
                            .size = sizeof(w->text)};
    char brokers[200];
    const char *all[ARGS_MAX + 2] = {0};
    int n = 0;
    for (; args[n] && n < ARGS_MAX; n++) all[n] = args[n];
    snprintf(brokers, sizeof(brokers), "--kafka.brokers=%s", w->conf.brokers);
    if (strcmp(args[0], "learn") == 0) all[n++] = brokers;
    return test_command_run(&c, all);
}

void world_expect(const world *w, const char *needle) {
    if (!strstr(w->text, needle)) fail_msg("'%s' is not in:\n%s", needle, w->text);
}

void world_expect_not(const world *w, const char *needle) {
    if (strstr(w->text, needle)) fail_msg("'%s' is in:\n%s", needle, w->text);
}

/* ---- files ---- */

const char *world_path(const world *w, const char *name) {
    static char paths[4][200];
    static unsigned next;
    char *out = paths[next++ % 4];
    snprintf(out, sizeof(paths[0]), "%s/%s", w->folder, name);
    return out;
}

char *world_read(const char *path, size_t *n) {
    FILE *in = fopen(path, "r");
    if (!in) return NULL;
    fseek(in, 0, SEEK_END);
    *n = (size_t)ftell(in);
    rewind(in);
    char *p = malloc(*n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, in), *n);
    p[*n] = '\0';
    fclose(in);
    return p;
}

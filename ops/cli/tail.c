/* `millrace tail TOPIC`: the records of a topic as JSON, a line each, until Ctrl-C or --count. It reads without a group, so
 * nobody's offsets move. All on the loop's thread. */
#include "base/bus.h"
#include "base/log.h"
#include "base/main.h"
#include "ops/cli/commands.h"
#include "schemas/messages.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_BYTES (32 << 20) /* of one decoded record; a record itself is smaller than 4 MB */

typedef struct tail_conf {
    const char *from;
    int64_t partition, count;
} tail_conf;

#define AT(member) offsetof(tail_conf, member)
static const mr_conf_key tail_keys[] = {
    {"from", MR_CONF_STR, AT(from), "end", 0, 0, "beginning|end", "Where to begin."},
    {"partition", MR_CONF_INT, AT(partition), "-1", -1, 100000, NULL, "Only this partition; -1 is all."},
    {"count", MR_CONF_INT, AT(count), "0", 0, 9e15, NULL, "Stop after this many records; 0 goes on."},
    {0},
};

static tail_conf conf;
static mr_kafka_conf kafka;
static mr_log_conf logging;
static const char *topic_name;

static const mr_conf_group groups[] = {
    {"tail", tail_keys, &conf}, {"kafka", mr_kafka_keys, &kafka}, {"log", mr_log_keys, &logging}, {0}};

typedef struct tail {
    mr_loop *loop;
    mr_arena *arena;
    int64_t shown;
    bool done;
} tail;

/* By the record's own word; a topic of one kind of message tells it too. */
static const mr_message_def *kind_of(const mr_record *r, mr_str type) {
    const char *name = r->topic + strlen(kafka.prefix);
    for (const mr_message_def *const *d = mr_messages; *d; d++) {
        if (type.n ? mr_str_eqz(type, (*d)->name) : (*d)->topic && strcmp((*d)->topic, name) == 0) return *d;
    }
    return strcmp(name, MR_TOPIC_REQUESTS) == 0 ||
                   strncmp(name, MR_TOPIC_GENERATE, strlen(MR_TOPIC_GENERATE)) == 0
               ? &mr_chat_request_def
               : NULL;
}

static json_t *decoded(tail *t, const mr_record *r, const mr_message_def *def, mr_error *err) {
    void *message = mr_arena_alloc(t->arena, def->size);
    if (!message) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    if (mr_decode(def, r->value, mr_record_header(r, "content-type"), t->arena, message, err) != 0)
        return NULL;
    return mr_to_json(def, message, err);
}

/* A record that is no message of ours is shown as text, or by its size. */
static void put_value(tail *t, json_t *line, const mr_record *r) {
    mr_str type = mr_record_header(r, "type");
    const mr_message_def *def = kind_of(r, type);
    mr_error err;
    json_t *value = def ? decoded(t, r, def, &err) : NULL;
    if (value) {
        json_object_set_new(line, "type", json_string(def->name));
        json_object_set_new(line, "value", value);
        return;
    }
    if (def) json_object_set_new(line, "error", json_string(err.msg));
    json_object_set_new(line, "bytes", json_integer((json_int_t)r->value.n));
    if (mr_str_is_utf8(r->value)) json_object_set_new(line, "text", json_stringn(r->value.p, r->value.n));
}

static bool on_record(void *arg, const mr_record *r) {
    tail *t = arg;
    if (t->done) return false;
    mr_str trace = mr_record_header(r, "traceparent");
    json_t *line = json_pack("{s:s, s:i, s:I, s:I}", "topic", r->topic, "partition", r->partition, "offset",
                             (json_int_t)r->offset, "timestamp_ms", (json_int_t)r->timestamp_ms);
    if (mr_str_is_utf8(r->key)) json_object_set_new(line, "key", json_stringn(r->key.p, r->key.n));
    if (trace.n && mr_str_is_utf8(trace)) {
        json_object_set_new(line, "traceparent", json_stringn(trace.p, trace.n));
    }
    put_value(t, line, r);
    mr_arena_reset(t->arena);
    bool written = json_dumpf(line, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF && fflush(stdout) == 0;
    json_decref(line);
    /* a closed pipe is how `| head` says enough */
    t->done = ++t->shown == conf.count || !written;
    if (t->done) mr_loop_stop(t->loop);
    return true;
}

static void on_drain(void *arg) {
    mr_loop_stop(arg);
}

static int serve(mr_loop *loop, mr_error *err) {
    int rc = -1;
    char topic[250];
    mr_consumer *c = NULL;
    mr_metrics *m = mr_metrics_new(err);
    tail t = {.loop = loop, .arena = mr_arena_new(MESSAGE_BYTES)};
    if (!m) goto out;
    if (!t.arena) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        goto out;
    }
    mr_bus_topic(&kafka, topic_name, topic);
    const mr_consumer_options o = {
        .topics = {topic},
        .partition = (int32_t)conf.partition,
        .start = strcmp(conf.from, "end") == 0 ? MR_FROM_END : MR_FROM_BEGINNING,
        .on_record = on_record,
        .arg = &t,
    };
    c = mr_consumer_new(&kafka, &o, loop, m, "tail", err);
    if (!c) goto out;
    mr_loop_on_drain(loop, 1000, on_drain, loop);
    rc = mr_loop_run(loop);
out:
    mr_consumer_free(c);
    mr_arena_free(t.arena);
    mr_metrics_free(m);
    return rc;
}

int cmd_tail(int argc, char **argv) {
    const mr_main_options options = {
        .name = "millrace tail TOPIC",
        .part = "tail",
        .about = "Prints the records of a topic as JSON, one a line, until Ctrl-C.",
        .groups = groups,
        .log = &logging,
    };
    bool named = argc > 1 && argv[1][0] != '-', asks = argc > 1 && strcmp(argv[1], "--help") == 0;
    if (!named && !asks) {
        fprintf(stderr, "millrace tail: name a topic first, such as " MR_TOPIC_REQUESTS
                        ". Try millrace tail --help.\n");
        return 2;
    }
    if (named) topic_name = *++argv;
    return mr_main_serve(argc - named, argv, &options, serve);
}

/* `millrace replay`: requests of the log asked again, by batches:
 *
 *     READING    requests from the topic, until a batch is full or the range is read
 *     RECORDED   with --check: their answers, from chat.responses
 *     ASKING     the requests, a bounded number at once; what comes back is compared
 *
 * Answers go to the last partition of chat.responses, which no gateway has; nothing is read in a group, so nobody's offsets
 * move. */
#include "ops/cli/replay.h"

#include "base/log.h"
#include "base/main.h"
#include "ops/cli/commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_BYTES (64u << 20)
#define BATCH_BYTES (32u << 20)
#define LOOKUP_MS   10000
#define TICK_MS     50
#define FLUSH_MS    2000

enum { EXIT_SAME, EXIT_DIFFERS, EXIT_USAGE, EXIT_UNCHECKED };

#define AT(member) offsetof(mr_replay_conf, member)
static const mr_conf_key replay_keys[] = {
    {"topic", MR_CONF_STR, AT(topic), "", 0, 0, NULL,
     "Whose requests: chat.requests, chat.generate.<pool>.<color>, or chat.dead (the requests in its "
     "letters)."},
    {"from", MR_CONF_STR, AT(from), "", 0, 0, NULL,
     "Begin at this offset (4711), or time (2026-11-24T08:30:00Z, or 15 minutes ago: -15m). Empty: the "
     "oldest."},
    {"to", MR_CONF_STR, AT(to), "", 0, 0, NULL, "End with this offset or time. Empty: what is there now."},
    {"partition", MR_CONF_INT, AT(partition), "-1", -1, 100000, NULL, "Only this partition; -1 is all."},
    {"filter", MR_CONF_STR, AT(filter), "", 0, 0, NULL, "Only request=ID, session=NAME or tenant=NAME."},
    {"to_color", MR_CONF_STR, AT(to_color), "same", 0, 0, "same|blue|green",
     "Ask the workers of this color; same: put it into the topic that it was in."},
    {"speed", MR_CONF_STR, AT(speed), "max", 0, 0, "1x|max",
     "In the time that they came in, or as fast as it goes."},
    {"in_flight", MR_CONF_INT, AT(in_flight), "8", 1, MR_REPLAY_BATCH, NULL,
     "Requests being answered at once."},
    {"timeout_s", MR_CONF_INT, AT(timeout_s), "120", 1, 86400, NULL, "Seconds that an answer may take."},
    {"check", MR_CONF_BOOL, AT(check), "false", 0, 0, NULL,
     "Compare each answer with the recorded one, token by token."},
    {0},
};

/* A partition that is read to a bound: of the topic, or of the recorded answers. */
typedef struct range {
    int64_t begin, end; /* end: past the last one */
    bool wanted, done;
    bool unsure; /* begin is a guess of a broker that may not look up times */
} range;

typedef struct replay {
    mr_replay_conf *conf;
    mr_loop *loop;
    mr_arena *arena;
    mr_reader *source, *answers, *replies;
    mr_producer *producer;
    mr_timer *timer;
    enum { READING, RECORDED, ASKING } phase;
    char topic[250], responses[250];
    range *from, *records; /* by partition */
    int nfrom, nrecords;
    bool exhausted, failed;
    mr_replay_item items[MR_REPLAY_BATCH];
    int n, in_flight;
    size_t bytes;
    int64_t first_ms, first_us; /* of the first request: in the log, and now */
    int64_t asked, same, differs, unchecked;
} replay;

static void next_phase(replay *r);
static void ask_more(replay *r);

static void fail(replay *r, const mr_error *err) {
    fprintf(stderr, "millrace replay: %s\n", err->msg);
    r->failed = true;
    mr_loop_stop(r->loop);
}

/* ---- the report ---- */

static void report(replay *r, mr_replay_item *it) {
    char what[500] = "";
    mr_heard_verdict v = MR_HEARD_INCOMPARABLE;
    it->done = true;
    if (r->conf->check && !it->comparable && mr_heard_whole(&it->again)) {
        snprintf(what, sizeof(what), "it has no seed: another answer is no difference");
    } else if (r->conf->check) {
        v = mr_heard_compare(&it->recorded, &it->again, what, sizeof(what));
    } else if (mr_heard_whole(&it->again)) {
        v = MR_HEARD_SAME;
        snprintf(what, sizeof(what), "%u tokens, %" PRIu64 " bytes", it->again.tokens.n,
                 it->again.answer.bytes);
    } else {
        snprintf(what, sizeof(what), "%s", it->again.error[0] ? it->again.error : "no answer came in time");
    }
    static const char *const checked[] = {"same", "differs", "unchecked"}, *const made[] = {"answered", "",
                                                                                            "failed"};
    r->same += v == MR_HEARD_SAME;
    r->differs += v == MR_HEARD_DIFFERS;
    r->unchecked += v == MR_HEARD_INCOMPARABLE;
    printf("%-9s %s%s%s\n", r->conf->check ? checked[v] : made[v], it->id, what[0] ? ": " : "", what);
    fflush(stdout);
}

static void report_unreadable(replay *r, const mr_record *rec, const mr_replay_item *it,
                              const mr_error *err) {
    r->unchecked++;
    printf("%-9s %s (partition %d, offset %" PRId64 "): %s\n", r->conf->check ? "unchecked" : "failed",
           it->id[0] ? it->id : "a record", rec->partition, rec->offset, err->msg);
}

static int finish(const replay *r) {
    if (r->conf->check) {
        printf("%" PRId64 " requests: %" PRId64 " same, %" PRId64 " differ, %" PRId64
               " could not be checked\n",
               r->same + r->differs + r->unchecked, r->same, r->differs, r->unchecked);
    } else {
        printf("%" PRId64 " requests: %" PRId64 " answered, %" PRId64 " failed\n", r->same + r->unchecked,
               r->same, r->unchecked);
    }
    if (r->differs) return EXIT_DIFFERS;
    return r->unchecked || r->failed ? EXIT_UNCHECKED : EXIT_SAME;
}

/* ---- reading requests ---- */

static void range_done(replay *r, range *x, mr_reader *reader, const char *topic, int32_t partition) {
    if (x->done) return;
    x->done = true;
    mr_reader_stop(reader, topic, partition);
    range *all = reader == r->source ? r->from : r->records;
    int n = reader == r->source ? r->nfrom : r->nrecords;
    for (int i = 0; i < n; i++) {
        if (all[i].wanted && !all[i].done) return;
    }
    if (reader == r->source) r->exhausted = true;
    next_phase(r);
}

static bool is_before(const replay *r, const mr_record *rec) {
    return r->conf->begin.kind == MR_END_TIME && rec->timestamp_ms < r->conf->begin.value;
}

static bool is_past(const replay *r, const mr_record *rec) {
    return r->conf->end.kind == MR_END_TIME && rec->timestamp_ms > r->conf->end.value;
}

static void take(replay *r, const mr_record *rec) {
    mr_replay_item *it = &r->items[r->n];
    mr_error err;
    mr_arena_reset(r->arena);
    int rc = mr_replay_item_make(r->conf, rec, r->nrecords - 1, r->arena, it, &err);
    if (rc < 0 && (!*r->conf->filter)) report_unreadable(r, rec, it, &err);
    if (rc <= 0) return;
    r->bytes += it->record.n;
    r->n++;
}

static void on_request(void *arg, const mr_record *rec) {
    replay *r = arg;
    range *x = &r->from[rec->partition];
    mr_error err;
    if (x->unsure && rec->offset == x->begin && !is_before(r, rec)) {
        /* it looked up nothing, yet here is a record of that time: so all are looked at */
        x->unsure = false;
        if (mr_reader_start(r->source, r->topic, rec->partition, MR_READ_OLDEST, &err) < 0) fail(r, &err);
        return;
    }
    x->unsure = false;
    if (rec->offset < x->end && !is_before(r, rec) && !is_past(r, rec)) take(r, rec);
    if (rec->offset + 1 >= x->end) {
        range_done(r, x, r->source, r->topic, rec->partition);
    }
    if (r->phase == READING && (r->n == MR_REPLAY_BATCH || r->bytes > BATCH_BYTES)) next_phase(r);
}

static void on_source_end(void *arg, const char *topic, int32_t partition, int64_t next) {
    replay *r = arg;
    (void)next;
    range_done(r, &r->from[partition], r->source, topic, partition);
}

static void on_source_gone(void *arg, const char *topic, int32_t partition, const char *why) {
    replay *r = arg;
    fprintf(stderr, "millrace replay: partition %d cannot be read from there: %s\n", partition, why);
    r->failed = true;
    range_done(r, &r->from[partition], r->source, topic, partition);
}

/* ---- reading answers ---- */

typedef union message {
    mr_response_delta delta;
    mr_response_end end;
} message;

/* Into the item's recorded or new answer; false when it cannot be decoded. */
static void hear(replay *r, mr_heard *h, const mr_record *rec) {
    bool end = mr_str_eqz(mr_record_header(rec, "type"), mr_response_end_def.name);
    const mr_message_def *def = end ? &mr_response_end_def : &mr_response_delta_def;
    message m;
    mr_error err;
    mr_arena_reset(r->arena);
    if (mr_decode(def, rec->value, mr_record_header(rec, "content-type"), r->arena, &m, &err) < 0) return;
    if (end) {
        mr_heard_end(h, &m.end);
    } else {
        mr_heard_delta(h, &m.delta);
    }
}

static bool all_recorded(const replay *r) {
    for (int i = 0; i < r->n; i++) {
        if (!r->items[i].recorded.ended) return false;
    }
    return true;
}

static void on_recorded(void *arg, const mr_record *rec) {
    replay *r = arg;
    if (r->phase != RECORDED) return;
    for (int i = 0; i < r->n; i++) {
        if (mr_str_eqz(rec->key, r->items[i].id)) hear(r, &r->items[i].recorded, rec);
    }
    if (all_recorded(r)) {
        next_phase(r);
    } else if (rec->offset + 1 >= r->records[rec->partition].end) {
        range_done(r, &r->records[rec->partition], r->answers, r->responses, rec->partition);
    }
}

static void on_recorded_end(void *arg, const char *topic, int32_t partition, int64_t next) {
    replay *r = arg;
    (void)next;
    if (r->phase == RECORDED) range_done(r, &r->records[partition], r->answers, topic, partition);
}

/* The place is not kept any more: from the oldest record on, then. */
static void on_recorded_gone(void *arg, const char *topic, int32_t partition, const char *why) {
    replay *r = arg;
    mr_error err;
    (void)why;
    if (mr_reader_start(r->answers, topic, partition, MR_READ_OLDEST, &err) < 0) fail(r, &err);
}

static void want(replay *r, int32_t partition, int64_t position) {
    range *x = &r->records[partition];
    if (!x->wanted || position < x->begin) x->begin = position;
    x->wanted = true;
}

/* Where the item's answer may be: by its id, or by the time of the request. */
static int want_answer(replay *r, mr_replay_item *it, mr_error *err) {
    int first = it->partition >= 0 ? it->partition : 0,
        last = it->partition >= 0 ? it->partition : r->nrecords - 1;
    for (int32_t p = first; p <= last && p < r->nrecords; p++) {
        int64_t position = it->position;
        if (position < 0 && mr_reader_at_time(r->answers, r->responses, p, it->timestamp_ms - 1000, LOOKUP_MS,
                                              &position, err) < 0) {
            return -1;
        }
        want(r, p, position < 0 ? MR_READ_OLDEST : position);
    }
    return 0;
}

static int read_recorded(replay *r, mr_error *err) {
    bool any = false;
    memset(r->records, 0, (size_t)r->nrecords * sizeof(*r->records));
    for (int i = 0; i < r->n; i++) {
        if (want_answer(r, &r->items[i], err) < 0) return -1;
    }
    for (int32_t p = 0; p < r->nrecords; p++) {
        range *x = &r->records[p];
        int64_t low;
        if (!x->wanted) continue;
        if (mr_reader_bounds(r->answers, r->responses, p, LOOKUP_MS, &low, &x->end, err) < 0) return -1;
        x->wanted = low < x->end;
        if (!x->wanted) continue;
        any = true;
        if (x->begin >= x->end) x->begin = MR_READ_OLDEST;
        if (mr_reader_start(r->answers, r->responses, p, x->begin, err) < 0) return -1;
    }
    if (!any) next_phase(r);
    return 0;
}

/* ---- asking ---- */

static void answered(replay *r, mr_replay_item *it) {
    r->in_flight--;
    report(r, it);
}

static void on_reply(void *arg, const mr_record *rec) {
    replay *r = arg;
    for (int i = 0; i < r->n; i++) {
        mr_replay_item *it = &r->items[i];
        if (!it->sent || it->done || !mr_str_eqz(rec->key, it->new_id)) continue;
        hear(r, &it->again, rec);
        if (!it->again.ended) return;
        answered(r, it);
        ask_more(r);
        return;
    }
}

static void ignore_end(void *arg, const char *topic, int32_t partition, int64_t next) {
    (void)arg, (void)topic, (void)partition, (void)next;
}

static void on_replies_gone(void *arg, const char *topic, int32_t partition, const char *why) {
    mr_error err;
    mr_fail(&err, MR_EKAFKA, "partition %d of %s cannot be read: %s", partition, topic, why);
    fail(arg, &err);
}

static void on_delivered(void *arg, void *tag, const mr_error *err) {
    replay *r = arg;
    mr_replay_item *it = tag;
    if (!err || !it || it->done) return;
    snprintf(it->again.error, sizeof(it->again.error), "not accepted by Kafka: %.150s", err->msg);
    answered(r, it);
}

static bool is_due(replay *r, const mr_replay_item *it) {
    if (strcmp(r->conf->speed, "1x") != 0) return true;
    if (!r->first_us) {
        r->first_us = mr_mono_us();
        r->first_ms = it->timestamp_ms;
    }
    return (mr_mono_us() - r->first_us) / 1000 >= it->timestamp_ms - r->first_ms;
}

static void ask(replay *r, mr_replay_item *it) {
    mr_error err;
    const mr_header h = {"type", mr_str_of(mr_chat_request_def.name)};
    it->sent = true;
    it->sent_us = mr_mono_us();
    r->in_flight++;
    r->asked++;
    const mr_produce rec = {.topic = it->topic,
                            .partition = -1,
                            .key = mr_str_of(it->key),
                            .value = mr_buf_str(&it->record),
                            .headers = &h,
                            .nheaders = 1,
                            .tag = it};
    if (mr_producer_send(r->producer, &rec, &err) == 0) return;
    snprintf(it->again.error, sizeof(it->again.error), "%.150s", err.msg);
    answered(r, it);
}

static void ask_more(replay *r) {
    int done = 0;
    for (int i = 0; i < r->n; i++) {
        mr_replay_item *it = &r->items[i];
        if (!it->sent && r->in_flight < r->conf->in_flight && is_due(r, it)) ask(r, it);
        if (it->sent && !it->done && mr_mono_us() - it->sent_us > r->conf->timeout_s * 1000000)
            answered(r, it);
        done += it->done;
    }
    /* deliveries that are still to come must find their items */
    if (done == r->n && mr_producer_in_flight(r->producer) == 0) next_phase(r);
}

/* ---- the course ---- */

static int by_time(const void *a, const void *b) {
    int64_t x = ((const mr_replay_item *)a)->timestamp_ms, y = ((const mr_replay_item *)b)->timestamp_ms;
    return (x > y) - (x < y);
}

static void clear_batch(replay *r) {
    for (int i = 0; i < r->n; i++) mr_replay_item_done(&r->items[i]);
    r->n = 0;
    r->bytes = 0;
}

static void next_phase(replay *r) {
    mr_error err;
    switch (r->phase) {
    case READING:
        mr_reader_hold(r->source, true);
        qsort(r->items, (size_t)r->n, sizeof(r->items[0]), by_time);
        r->phase = r->conf->check && r->n > 0 ? RECORDED : ASKING;
        if (r->phase == RECORDED && read_recorded(r, &err) < 0) fail(r, &err);
        break;
    case RECORDED:
        for (int32_t p = 0; p < r->nrecords; p++) mr_reader_stop(r->answers, r->responses, p);
        r->phase = ASKING;
        break;
    case ASKING:
        clear_batch(r);
        if (r->exhausted) {
            mr_loop_stop(r->loop);
        } else {
            r->phase = READING;
            mr_reader_hold(r->source, false);
        }
        break;
    }
}

static void on_tick(void *arg) {
    replay *r = arg;
    if (r->phase == ASKING) ask_more(r);
}

static void on_drain(void *arg) {
    replay *r = arg;
    r->failed = true; /* cut short */
    mr_loop_stop(r->loop);
}

/* ---- opening ---- */

static int begin_of(replay *r, int32_t p, int64_t low, int64_t high, range *x, mr_error *err) {
    const mr_replay_end *from = &r->conf->begin;
    x->begin = low;
    if (from->kind == MR_END_OFFSET && from->value > low) x->begin = from->value;
    if (from->kind != MR_END_TIME) return 0;
    if (mr_reader_at_time(r->source, r->topic, p, from->value, LOOKUP_MS, &x->begin, err) < 0) return -1;
    x->unsure = x->begin < 0;
    if (x->unsure) x->begin = high - 1;
    return 0;
}

static int open_range(replay *r, int32_t p, mr_error *err) {
    range *x = &r->from[p];
    int64_t low, high;
    if (r->conf->partition >= 0 && p != r->conf->partition) return 0;
    if (mr_reader_bounds(r->source, r->topic, p, LOOKUP_MS, &low, &high, err) < 0) return -1;
    if (low >= high || begin_of(r, p, low, high, x, err) < 0) return low >= high ? 0 : -1;
    x->end = high;
    if (r->conf->end.kind == MR_END_OFFSET && r->conf->end.value + 1 < high) x->end = r->conf->end.value + 1;
    x->wanted = x->begin < x->end;
    return x->wanted ? mr_reader_start(r->source, r->topic, p, x->begin, err) : 0;
}

static int open_source(replay *r, mr_error *err) {
    r->nfrom = mr_reader_partitions(r->source, r->topic, LOOKUP_MS, err);
    if (r->nfrom < 0) return -1;
    if (r->conf->partition >= r->nfrom) {
        return mr_fail(err, MR_EINVAL, "%s has partitions 0 to %d", r->topic, r->nfrom - 1);
    }
    r->from = calloc((size_t)r->nfrom, sizeof(range));
    if (!r->from) return mr_fail(err, MR_ENOMEM, "out of memory");
    bool any = false;
    for (int32_t p = 0; p < r->nfrom; p++) {
        if (open_range(r, p, err) < 0) return -1;
        any = any || r->from[p].wanted;
    }
    if (!any) {
        r->exhausted = true;
        next_phase(r);
    }
    return 0;
}

static int open_replies(replay *r, mr_error *err) {
    int64_t low, high;
    r->nrecords = mr_reader_partitions(r->replies, r->responses, LOOKUP_MS, err);
    if (r->nrecords < 0) return -1;
    r->records = calloc((size_t)r->nrecords, sizeof(range));
    if (!r->records) return mr_fail(err, MR_ENOMEM, "out of memory");
    int32_t last = r->nrecords - 1;
    if (mr_reader_bounds(r->replies, r->responses, last, LOOKUP_MS, &low, &high, err) < 0) return -1;
    return mr_reader_start(r->replies, r->responses, last, high, err);
}

static int open_bus(replay *r, mr_metrics *m, mr_error *err) {
    const mr_kafka_conf *k = &r->conf->kafka;
    const mr_reader_options source = {on_request, on_source_end, on_source_gone, r};
    const mr_reader_options answers = {on_recorded, on_recorded_end, on_recorded_gone, r};
    const mr_reader_options replies = {on_reply, ignore_end, on_replies_gone, r};
    mr_bus_topic(k, r->conf->topic, r->topic);
    mr_bus_topic(k, MR_TOPIC_RESPONSES, r->responses);
    r->arena = mr_arena_new(ARENA_BYTES);
    if (!r->arena) return mr_fail(err, MR_ENOMEM, "out of memory");
    r->source = mr_reader_new(k, &source, r->loop, m, "replay_source", err);
    if (r->source) r->answers = mr_reader_new(k, &answers, r->loop, m, "replay_answers", err);
    if (r->answers) r->replies = mr_reader_new(k, &replies, r->loop, m, "replay_replies", err);
    if (r->replies) r->producer = mr_producer_new(k, r->loop, m, "replay", on_delivered, r, err);
    if (!r->producer || open_replies(r, err) < 0 || open_source(r, err) < 0) return -1;
    r->timer = mr_timer_new(r->loop, TICK_MS, on_tick, r, err);
    return r->timer ? 0 : -1;
}

static int run(mr_replay_conf *conf) {
    mr_error err;
    replay *r = calloc(1, sizeof(*r));
    mr_loop *loop = mr_loop_new(&err);
    mr_metrics *m = loop ? mr_metrics_new(&err) : NULL;
    int status = EXIT_UNCHECKED;
    if (!r || !m) {
        fprintf(stderr, "millrace replay: out of memory\n");
        goto out;
    }
    r->conf = conf;
    r->loop = loop;
    if (open_bus(r, m, &err) < 0) {
        fprintf(stderr, "millrace replay: %s\n", err.msg);
        goto out;
    }
    mr_loop_on_drain(loop, 1000, on_drain, r);
    mr_loop_run(loop);
    status = finish(r);
out:
    if (r) {
        mr_timer_free(r->timer);
        if (r->producer) mr_producer_free(r->producer, FLUSH_MS);
        mr_reader_free(r->source);
        mr_reader_free(r->answers);
        mr_reader_free(r->replies);
        clear_batch(r);
        free(r->from);
        free(r->records);
        mr_arena_free(r->arena);
    }
    mr_metrics_free(m);
    mr_loop_free(loop);
    free(r);
    return status;
}

/* ---- the command line ---- */

static int check_conf(mr_replay_conf *c, mr_error *err) {
    int64_t now = mr_now_ms();
    if (!*c->topic) return mr_fail(err, MR_EINVAL, "--topic is needed, such as --topic " MR_TOPIC_REQUESTS);
    if (!mr_replay_topic_ok(c->topic)) {
        return mr_fail(err, MR_EINVAL,
                       "--topic %.100s holds no requests; take " MR_TOPIC_REQUESTS ", " MR_TOPIC_GENERATE
                       ".<pool>.<color> or " MR_TOPIC_DEAD,
                       c->topic);
    }
    if (mr_replay_filter_check(c->filter, err) < 0 || mr_router_conf_check(&c->router, err) < 0) return -1;
    if (mr_replay_end_read(c->from, now, &c->begin, err) < 0) return mr_fail_in(err, "--from");
    if (mr_replay_end_read(c->to, now, &c->end, err) < 0) return mr_fail_in(err, "--to");
    return 0;
}

int cmd_replay(int argc, char **argv) {
    static char check[] = "--check=true";
    mr_replay_conf conf = {0};
    mr_log_conf logging;
    const mr_conf_group groups[] = {{"replay", replay_keys, &conf},
                                    {"kafka", mr_kafka_keys, &conf.kafka},
                                    {"router", mr_router_keys, &conf.router},
                                    {"log", mr_log_keys, &logging},
                                    {0}};
    const mr_main_options options = {
        .name = "millrace replay",
        .part = "replay",
        .about =
            "Asks requests of the log again, apart from their users; with --check compares the answers. Exit "
            "status: 0 all the same, 1 there are differences, 2 a wrong flag, 3 something could not be "
            "checked.",
        .groups = groups,
        .log = &logging,
    };
    mr_error err;
    int status;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--check") == 0) argv[i] = check;
    }
    mr_conf *c = mr_main_init(argc, argv, &options, &status);
    if (!c) return status;
    if (check_conf(&conf, &err) < 0) {
        fprintf(stderr, "millrace replay: %s. Try millrace replay --help.\n", err.msg);
        status = EXIT_USAGE;
    } else {
        status = run(&conf);
    }
    mr_conf_free(c);
    return status;
}

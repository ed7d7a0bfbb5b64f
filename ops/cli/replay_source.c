/* A record of the log to a request that is asked again (see replay.h). */
#include "gateway/request_id.h"
#include "ops/cli/replay.h"
#include "schemas/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NEW_ID "replay-"
#define TENANT "replay" /* the users' tenants do not pay for it with their turns */

static const char *const filters[] = {"request", "session", "tenant"};

bool mr_replay_topic_ok(const char *topic) {
    return strcmp(topic, MR_TOPIC_REQUESTS) == 0 || strcmp(topic, MR_TOPIC_DEAD) == 0 ||
           strncmp(topic, MR_TOPIC_GENERATE ".", strlen(MR_TOPIC_GENERATE ".")) == 0;
}

int mr_replay_filter_check(const char *filter, mr_error *err) {
    size_t n = strcspn(filter, "=");
    if (!*filter) return 0;
    for (size_t i = 0; filter[n] && i < sizeof(filters) / sizeof(*filters); i++) {
        if (mr_str_eqz((mr_str){filter, n}, filters[i])) return 0;
    }
    return mr_fail(err, MR_EINVAL,
                   "--filter: expected request=ID, session=NAME or tenant=NAME, found '%.60s'", filter);
}

static bool passes(const char *filter, const mr_chat_request *q) {
    const mr_str values[] = {q->id, q->session, q->tenant};
    size_t n = strcspn(filter, "=");
    if (!*filter) return true;
    for (size_t i = 0; i < sizeof(filters) / sizeof(*filters); i++) {
        if (mr_str_eqz((mr_str){filter, n}, filters[i])) return mr_str_eqz(values[i], filter + n + 1);
    }
    return false;
}

/* ---- reading ---- */

/* The request in a dead letter, and the topic where it was. */
static int open_letter(const mr_record *r, mr_arena *a, mr_replay_item *it, mr_str *value, char topic[250],
                       mr_error *err) {
    mr_dead d;
    if (mr_decode(&mr_dead_def, r->value, mr_record_header(r, "content-type"), a, &d, err) < 0) return -1;
    mr_str_copy(d.request, it->id, sizeof(it->id));
    mr_str_copy(d.topic, topic, 250);
    *value = d.record;
    return d.truncated ? mr_fail(err, MR_EINVAL, "its dead letter holds only a part of it") : 0;
}

static int read_request(const mr_replay_conf *conf, const mr_record *r, mr_arena *a, mr_replay_item *it,
                        mr_chat_request *q, mr_error *err) {
    mr_str value = r->value, type = mr_record_header(r, "content-type");
    snprintf(it->topic, sizeof(it->topic), "%s", r->topic);
    if (strcmp(conf->topic, MR_TOPIC_DEAD) == 0) {
        if (open_letter(r, a, it, &value, it->topic, err) < 0) return -1;
        type = MR_STR("");
    }
    if (mr_decode(&mr_chat_request_def, value, type, a, q, err) < 0) return -1;
    mr_str_copy(q->id, it->id, sizeof(it->id));
    return 0;
}

/* ---- the new request ---- */

/* Pool of a topic chat.generate.<pool>.<color>. */
static mr_str pool_of_topic(const mr_replay_conf *conf, const char *topic) {
    mr_str pool = mr_str_of(topic + strlen(conf->kafka.prefix) + strlen(MR_TOPIC_GENERATE "."));
    const char *dot = memrchr(pool.p, '.', pool.n);
    if (dot) pool.n = (size_t)(dot - pool.p);
    return pool;
}

static int choose_topic(const mr_replay_conf *conf, const mr_chat_request *q, mr_replay_item *it,
                        mr_error *err) {
    char name[MR_NAME_MAX + 1];
    const char *plain = it->topic + strlen(conf->kafka.prefix);
    if (strncmp(it->topic, conf->kafka.prefix, strlen(conf->kafka.prefix)) != 0 ||
        !mr_replay_topic_ok(plain)) {
        return mr_fail(err, MR_EINVAL, "it was in topic %.100s, which holds no requests", it->topic);
    }
    if (strcmp(conf->to_color, "same") == 0) return 0;
    mr_str pool = strcmp(plain, MR_TOPIC_REQUESTS) == 0 ? mr_router_pool(&conf->router, q->model)
                                                        : pool_of_topic(conf, it->topic);
    mr_str_copy(pool, name, sizeof(name));
    mr_bus_generate_topic(&conf->kafka, name, conf->to_color, it->topic);
    return 0;
}

/* The gateway's ids say where the answer is. */
static void place_answer(const mr_chat_request *q, mr_replay_item *it) {
    mr_str id = {q->id.p, q->id.n < MR_REQUEST_ID_LEN ? q->id.n : MR_REQUEST_ID_LEN};
    mr_request_place at;
    it->partition = MR_HAS(q, MR_CHAT_REQUEST_REPLY_TO) ? (int32_t)q->reply_to : -1;
    it->position = MR_READ_OLDEST;
    if (mr_request_id_read(id, q->tenant, &at) && at.partition == it->partition) it->position = at.position;
}

/* Without a seed the router drew one that is not in this record. */
static bool is_determined(const mr_replay_conf *conf, const mr_chat_request *q) {
    const mr_sampling *s = &q->sampling;
    bool greedy = MR_HAS(s, MR_SAMPLING_TEMPERATURE) && s->temperature == 0;
    (void)conf;
    return MR_HAS(s, MR_SAMPLING_SEED) || greedy;
}

static void rewrite(const mr_replay_conf *conf, const mr_record *r, int32_t reply_to, mr_chat_request *q,
                    mr_replay_item *it) {
    uint64_t h = mr_text_hash_feed(mr_text_hash_init(), q->id);
    h = mr_text_hash_feed(h, (mr_str){(const char *)&r->partition, sizeof(r->partition)});
    h = mr_text_hash_feed(h, (mr_str){(const char *)&r->offset, sizeof(r->offset)});
    int64_t now = mr_now_ms();
    snprintf(it->new_id, sizeof(it->new_id), NEW_ID "%016" PRIx64 "-%" PRIx64, h, (uint64_t)now);
    mr_str_copy(q->session.n ? q->session : q->id, it->key, sizeof(it->key));
    q->id = mr_str_of(it->new_id);
    MR_SET(q, MR_CHAT_REQUEST_TENANT, tenant, MR_STR(TENANT));
    MR_SET(q, MR_CHAT_REQUEST_CREATED_MS, created_ms, now);
    MR_SET(q, MR_CHAT_REQUEST_REPLY_TO, reply_to, reply_to);
    MR_SET(q, MR_CHAT_REQUEST_ATTEMPT, attempt, 1);
    /* as long as the whole batch may take before it */
    MR_SET(q, MR_CHAT_REQUEST_DEADLINE_MS, deadline_ms, now + (MR_REPLAY_BATCH + 1) * conf->timeout_s * 1000);
    MR_UNSET(q, MR_CHAT_REQUEST_TRACE);
}

int mr_replay_item_make(const mr_replay_conf *conf, const mr_record *r, int32_t reply_to, mr_arena *a,
                        mr_replay_item *it, mr_error *err) {
    mr_chat_request q;
    *it = (mr_replay_item){.timestamp_ms = r->timestamp_ms};
    if (read_request(conf, r, a, it, &q, err) < 0) return -1;
    if (!passes(conf->filter, &q) || strncmp(q.id.p, NEW_ID, strlen(NEW_ID)) == 0) return 0;
    if (choose_topic(conf, &q, it, err) < 0) return -1;
    it->comparable = is_determined(conf, &q);
    place_answer(&q, it);
    mr_heard_init(&it->recorded, &q);
    mr_heard_init(&it->again, &q);
    rewrite(conf, r, reply_to, &q, it);
    mr_buf_init(&it->record, (size_t)conf->kafka.message_max);
    if (mr_pack(&mr_chat_request_def, &q, &it->record, err) == 0 && !it->record.failed) return 1;
    if (it->record.failed) mr_fail(err, MR_ETOOBIG, "it is over kafka.message_max");
    mr_replay_item_done(it);
    return -1;
}

void mr_replay_item_done(mr_replay_item *it) {
    mr_buf_done(&it->record);
    mr_heard_done(&it->recorded);
    mr_heard_done(&it->again);
}

/* How often a request was started and never ended. See starts.h. */
#include "worker/starts.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX 200

typedef struct look {
    mr_starts_cb *cb;
    void *owner;
    char ended[48]; /* what the value is when this very record was answered */
} look;

static mr_str key_of(const mr_store *s, mr_str id, char out[KEY_MAX]) {
    return mr_store_key(s, out, KEY_MAX, "started:%.*s", MR_FMT(id));
}

static void ended_value(char out[48], int32_t partition, int64_t offset) {
    snprintf(out, 48, "end %" PRId32 "/%" PRId64, partition, offset);
}

static void on_value(void *arg, const redisReply *reply) {
    look *l = arg;
    int64_t starts = 0;
    bool ended = false;
    if (reply && reply->type == REDIS_REPLY_STRING) {
        ended = strcmp(reply->str, l->ended) == 0;
        starts = strtoll(reply->str, NULL, 10);
    }
    l->cb(l->owner, starts > 0 ? starts : 0, ended);
    free(l);
}

void mr_starts_look(mr_store *s, mr_str id, int32_t partition, int64_t offset, mr_starts_cb *cb,
                    void *owner) {
    char key[KEY_MAX];
    look *l = malloc(sizeof(*l));
    if (!l) {
        cb(owner, 0, false);
        return;
    }
    *l = (look){.cb = cb, .owner = owner};
    ended_value(l->ended, partition, offset);
    mr_store_command(s, on_value, l, 2, (mr_str[]){MR_STR("GET"), key_of(s, id, key)});
}

static void set(mr_store *s, mr_str id, const char *value, int ttl_s) {
    char key[KEY_MAX], ttl[16];
    snprintf(ttl, sizeof(ttl), "%d", ttl_s);
    mr_store_command(
        s, NULL, NULL, 5,
        (mr_str[]){MR_STR("SET"), key_of(s, id, key), mr_str_of(value), MR_STR("EX"), mr_str_of(ttl)});
}

void mr_starts_set(mr_store *s, mr_str id, int64_t starts) {
    char key[KEY_MAX], value[24];
    if (starts == 0) {
        mr_store_command(s, NULL, NULL, 2, (mr_str[]){MR_STR("DEL"), key_of(s, id, key)});
        return;
    }
    snprintf(value, sizeof(value), "%" PRId64, starts);
    set(s, id, value, MR_STARTS_TTL_S);
}

void mr_starts_end(mr_store *s, mr_str id, int32_t partition, int64_t offset) {
    char value[48];
    ended_value(value, partition, offset);
    set(s, id, value, MR_ENDED_TTL_S);
}

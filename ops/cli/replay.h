/* `millrace replay`, in parts: replay.c (command line, and the course of a batch), replay_source.c (records in, requests out of
 * them), replay_heard.c (answers), replay_range.c (from where to where). All on the loop's thread. */
#ifndef MR_CLI_REPLAY_H
#define MR_CLI_REPLAY_H

#include "base/bus.h"
#include "ops/cli/replay_heard.h"
#include "ops/cli/replay_range.h"
#include "router/conf.h"

#define MR_REPLAY_BATCH 64

typedef struct mr_replay_conf {
    const char *topic, *from, *to, *filter, *to_color, *speed;
    int64_t partition, in_flight, timeout_s;
    bool check;
    mr_kafka_conf kafka;
    mr_router_conf router;
    mr_replay_end begin, end; /* `from` and `to`, as read */
} mr_replay_conf;

/* A request to be made again. */
typedef struct mr_replay_item {
    char id[MR_ID_MAX + 1]; /* as it was… */
    char new_id[48];        /* …and as it is asked now */
    char topic[250];        /* where it goes */
    mr_buf record;          /* the new request, packed */
    char key[MR_NAME_MAX + 1];
    int64_t timestamp_ms;
    int32_t partition; /* of its recorded answer; -1: any */
    int64_t position;  /* before which that cannot be; MR_READ_OLDEST: not known */
    mr_heard recorded, again;
    bool comparable; /* the same tokens can be expected */
    bool sent, done;
    int64_t sent_us;
} mr_replay_item;

/* 1: *it is filled; 0: not wanted (by the filter, or a replay itself); -1: it cannot be replayed, err says why and it->id
 * which one it is. The arena is used up to the next reset. */
int mr_replay_item_make(const mr_replay_conf *conf, const mr_record *r, int32_t reply_to, mr_arena *a,
                        mr_replay_item *it, mr_error *err);
void mr_replay_item_done(mr_replay_item *it);

/* Is it a topic that holds requests? */
bool mr_replay_topic_ok(const char *topic);
int mr_replay_filter_check(const char *filter, mr_error *err);

#endif

/* Profiles in Redis: how a user is answered. A hash `profile/<tenant>/<user>` with the field `style`, written by
 * `millrace profile`. */
#ifndef MR_PROFILE_H
#define MR_PROFILE_H

#include "base/store.h"

#define MR_PROFILE_KEY_MAX 600

/* A string reply with the style's name, nil, or what mr_store_cb says. */
void mr_profile_load(mr_store *s, mr_str tenant, mr_str user, mr_store_cb *cb, void *arg);

/* For command-line tools. style: its name, NULL takes the profile away; get writes an empty one where there is none. */
int mr_profile_set(const mr_redis_conf *redis, mr_str tenant, mr_str user, const char *style, mr_error *err);
int mr_profile_get(const mr_redis_conf *redis, mr_str tenant, mr_str user, char style[65], mr_error *err);

#endif

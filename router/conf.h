/* The router's settings, and what they mean. Plain data; strings are the mr_conf's. */
#ifndef MR_ROUTER_CONF_H
#define MR_ROUTER_CONF_H

#include "base/conf.h"

#define MR_POOL_MAX     100 /* bytes of a pool's name, which is part of a topic's name */
#define MR_POOL_DEFAULT "main"

typedef struct mr_router_conf {
    mr_strlist pools;
    const char *kb;
    double kb_threshold;
    const char *kb_follow;
    int64_t kb_context, kb_context_tokens;
    double kb_context_min;
    const char *intent_model;
    double ai_share_min, ai_share_max;
    mr_strlist guard_lists;
    const char *guard_injection, *guard_personal, *guard_refusal;
    bool guard_audit_text;
    int64_t session_turns, session_tokens, session_ttl_s;
    bool profiles;
    mr_strlist styles;
    int64_t request_timeout_s, max_in_flight, drain_s;
    double status_s;
    const char *metrics_host;
    int64_t metrics_port;
} mr_router_conf;

extern const mr_conf_key mr_router_keys[];

/* Settings that the table cannot check. */
int mr_router_conf_check(const mr_router_conf *c, mr_error *err);

/* The pool that serves a model: borrowed from the settings, or MR_POOL_DEFAULT. */
mr_str mr_router_pool(const mr_router_conf *c, mr_str model);

#endif

/* The gateway's own settings, group `gateway` of the configuration (base/conf.h). Plain values; the strings belong to
 * the loaded mr_conf. */
#ifndef MR_GATEWAY_CONF_H
#define MR_GATEWAY_CONF_H

#include "base/conf.h"

typedef struct mr_gateway_conf {
    const char *host;
    int64_t port;
    const char *tls_cert, *tls_key;
    int64_t partition;
    const char *keys_file;
    mr_strlist keys, models, aliases, vision_models;
    int64_t max_tokens;
    const char *limits_key, *limits_tenant, *limits_global, *limits_without_redis;
    int64_t limits_answer;
    int64_t body_max, output_max;
    int64_t max_in_flight;
    int64_t request_timeout_s, accept_timeout_s, idle_timeout_s, keep_alive_s, headers_wait_ms, drain_s, resume_grace_s;
    mr_strlist guard_lists;
    const char *guard_injection, *guard_personal, *guard_answers, *guard_refusal;
    bool guard_audit_text;
    const char *ai_label;
    const char *metrics_host;
    int64_t metrics_port;
} mr_gateway_conf;

extern const mr_conf_key mr_gateway_keys[];

#endif

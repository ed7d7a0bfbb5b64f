/* Configuration: one libconfig file for all processes, a group a part.
 *
 *     gateway = { port = 8080; keys = ("sk-…"); };
 *     kafka = { brokers = "127.0.0.1:9092"; };
 *
 * A part describes its groups by tables of mr_conf_key over a plain struct. Loading checks the whole file: an
 * unknown group or key, a wrong type, or a number out of range is an error with file and line and, for an
 * unknown key, the nearest known one. Groups of other parts are only checked for their name, so that one file serves
 * every process: mr_conf_groups lists all of them.
 *
 * Every key can be set by the environment: MILLRACE_GATEWAY_PORT=8081 sets gateway.port (lists: comma-separated).
 * The environment wins over the file. Defaults come from the table, so `file` may be NULL.
 */
#ifndef MR_CONF_H
#define MR_CONF_H

#include "base/error.h"
#include "base/str.h"

typedef struct mr_conf mr_conf; /* owns every string handed out */

typedef enum { MR_CONF_STR, MR_CONF_INT, MR_CONF_NUM, MR_CONF_BOOL, MR_CONF_STRLIST } mr_conf_type;

/* What a STRLIST key fills in. Borrowed from the mr_conf. */
typedef struct mr_strlist {
    const char **v;
    int n;
} mr_strlist;

/* The struct member is: const char* (STR), int64_t (INT), double (NUM), bool (BOOL), mr_strlist (STRLIST). */
typedef struct mr_conf_key {
    const char *name;
    mr_conf_type type;
    size_t offset;       /* offsetof(struct, member) */
    const char *def;     /* as it would be written in the environment; NULL = required */
    double min, max;     /* for INT and NUM; both 0 = unchecked */
    const char *choices; /* for STR: "json|plain|auto", or NULL */
    const char *doc;     /* one sentence: what it does, its unit */
} mr_conf_key;

typedef struct mr_conf_group {
    const char *name;        /* "gateway" */
    const mr_conf_key *keys; /* ends with name == NULL */
    void *out;               /* the struct to fill; strings in it live as long as the mr_conf */
} mr_conf_group;

/* The names of all groups of all parts; ends with NULL. */
extern const char *const mr_conf_groups[];

/* MILLRACE_<GROUP>_<KEY> */
void mr_conf_env_name(const char *group, const char *key, char *out, size_t cap);

/* groups ends with name == NULL. Returns NULL and err on any problem. */
mr_conf *mr_conf_load(const char *file, const mr_conf_group *groups, mr_error *err);
void mr_conf_free(mr_conf *c);

/* Print every key of the groups with type, default and doc, as a commented config file (--print-config). */
void mr_conf_print(const mr_conf_group *groups, mr_buf *out);

/* The groups that every process shares: kafka, redis, log. Their structs are below. */
typedef struct mr_kafka_conf {
    const char *brokers;
    const char *prefix;  /* put before every topic name, so that two pipelines can share a broker */
    int64_t message_max; /* bytes; topics are created with it too */
    int64_t linger_ms, fetch_wait_ms;
    int64_t session_timeout_ms;
    mr_strlist extra; /* "property=value" handed to librdkafka as they are (SASL, TLS…) */
} mr_kafka_conf;
extern const mr_conf_key mr_kafka_keys[];

typedef struct mr_redis_conf {
    const char *address; /* host:port; empty = run without Redis */
    const char *user;    /* NULL is empty */
    const char *password;
    const char *prefix;
    int64_t timeout_ms;
} mr_redis_conf;
extern const mr_conf_key mr_redis_keys[];

typedef struct mr_log_conf {
    const char *level, *format;
} mr_log_conf;
extern const mr_conf_key mr_log_keys[];

#endif

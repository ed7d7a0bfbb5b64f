/* The configuration groups that every process shares. */
#include "base/conf.h"

const char *const mr_conf_groups[] = {"kafka",  "redis",     "log",   "gateway", "router",
                                      "worker", "simulated", "learn", NULL};

#define KAFKA(member) #member, .offset = offsetof(mr_kafka_conf, member)
const mr_conf_key mr_kafka_keys[] = {
    {.name = KAFKA(brokers),
     .type = MR_CONF_STR,
     .def = "127.0.0.1:9092",
     .doc = "Where Kafka is: host:port, several separated by commas."},
    {.name = KAFKA(prefix),
     .type = MR_CONF_STR,
     .def = "",
     .doc = "Put before every topic and group name, so that two pipelines can share a broker."},
    {.name = KAFKA(message_max),
     .type = MR_CONF_INT,
     .def = "3900000",
     .min = 10000,
     .max = 100000000,
     .doc = "Largest record in bytes; topics are created with this limit. The embedded broker takes less "
            "than 4 MB."},
    {.name = KAFKA(linger_ms),
     .type = MR_CONF_INT,
     .def = "1",
     .min = 0,
     .max = 1000,
     .doc = "Milliseconds that a record may wait for others to be sent with it."},
    {.name = KAFKA(fetch_wait_ms),
     .type = MR_CONF_INT,
     .def = "500",
     .min = 1,
     .max = 5000,
     .doc = "Milliseconds that the broker may hold an empty fetch; a real broker answers at once when a "
            "record comes, "
            "the embedded one always waits this long: 2 with it, as `millrace up` sets."},
    {.name = KAFKA(session_timeout_ms),
     .type = MR_CONF_INT,
     .def = "6000",
     .min = 3000,
     .max = 300000,
     .doc = "Milliseconds without a heartbeat after which a consumer's partitions go to others."},
    {.name = KAFKA(extra),
     .type = MR_CONF_STRLIST,
     .def = "",
     .doc = "Further librdkafka properties, each \"property=value\" (security.protocol, sasl.…, ssl.…)."},
    {0},
};

#define REDIS(member) #member, .offset = offsetof(mr_redis_conf, member)
const mr_conf_key mr_redis_keys[] = {
    {.name = REDIS(address),
     .type = MR_CONF_STR,
     .def = "127.0.0.1:6379",
     .doc = "Where Redis is, host:port; empty to run without it."},
    {.name = REDIS(user),
     .type = MR_CONF_STR,
     .def = "",
     .doc = "User of Redis' ACLs, whose password it then is; empty for the default one."},
    {.name = REDIS(password), .type = MR_CONF_STR, .def = "", .doc = "Password for AUTH; empty for none."},
    {.name = REDIS(prefix),
     .type = MR_CONF_STR,
     .def = "millrace:",
     .doc = "Put before every key, so that two pipelines can share a Redis."},
    {.name = REDIS(timeout_ms),
     .type = MR_CONF_INT,
     .def = "500",
     .min = 10,
     .max = 60000,
     .doc = "Milliseconds that a command or a connection attempt may take."},
    {0},
};

#define LOG(member) #member, .offset = offsetof(mr_log_conf, member)
const mr_conf_key mr_log_keys[] = {
    {.name = LOG(level),
     .type = MR_CONF_STR,
     .def = "info",
     .choices = "debug|info|warn|error",
     .doc = "The least important lines that are written."},
    {.name = LOG(format),
     .type = MR_CONF_STR,
     .def = "auto",
     .choices = "json|plain|auto",
     .doc = "json lines, plain lines, or auto: plain when stderr is a terminal."},
    {0},
};

/* The table of the gateway's settings. */
#include "gateway/conf.h"

#define AT(member) offsetof(mr_gateway_conf, member)

const mr_conf_key mr_gateway_keys[] = {
    {"host", MR_CONF_STR, AT(host), "127.0.0.1", 0, 0, NULL,
     "Address to listen on. Anything but loopback needs `keys`."},
    {"port", MR_CONF_INT, AT(port), "8080", 0, 65535, NULL,
     "TCP port of the OpenAI-compatible API; 0 takes a free one."},
    {"tls_cert", MR_CONF_STR, AT(tls_cert), "", 0, 0, NULL,
     "PEM file of the certificate with its chain, to serve HTTPS (TLS 1.2 and 1.3) on this port. A changed "
     "file is "
     "taken within a second. Empty: plain HTTP."},
    {"tls_key", MR_CONF_STR, AT(tls_key), "", 0, 0, NULL, "PEM file of its private key."},
    {"partition", MR_CONF_INT, AT(partition), "0", 0, 100000, NULL,
     "This gateway's own partition of chat.responses. Every running gateway needs another one."},
    {"keys", MR_CONF_STRLIST, AT(keys), "", 0, 0, NULL,
     "API keys, each `key` or `tenant=key`. Empty: open to everybody, which is allowed on loopback only."},
    {"keys_file", MR_CONF_STR, AT(keys_file), "", 0, 0, NULL,
     "File of hashed API keys with tenant, scopes, expiry, limits and style, written by `millrace keys new`. "
     "A changed file is "
     "taken within a second."},
    {"models", MR_CONF_STRLIST, AT(models), "millrace-demo", 0, 0, NULL,
     "Names of the models that are served."},
    {"aliases", MR_CONF_STRLIST, AT(aliases), "", 0, 0, NULL,
     "Other names for them, each `name=model`; `*=model` takes every name that is not known."},
    {"vision_models", MR_CONF_STRLIST, AT(vision_models), "", 0, 0, NULL,
     "Models (or aliases) whose messages may hold images; `*` is all."},
    {"max_tokens", MR_CONF_INT, AT(max_tokens), "1024", 1, 10000000, NULL,
     "Longest answer, in tokens, for requests that name no limit."},
    {"limits_key", MR_CONF_STR, AT(limits_key), "", 0, 0, NULL,
     "What each API key may have, as `requests=60 tokens=90000 concurrent=4`: requests and tokens a minute, "
     "requests being "
     "answered at once; what is not named is not limited. A key's own limits (`millrace keys`) take its "
     "place."},
    {"limits_tenant", MR_CONF_STR, AT(limits_tenant), "", 0, 0, NULL,
     "What each tenant may have with all its keys, in the same form."},
    {"limits_global", MR_CONF_STR, AT(limits_global), "", 0, 0, NULL, "And all of them together."},
    {"limits_answer", MR_CONF_INT, AT(limits_answer), "1024", 1, 10000000, NULL,
     "Tokens that an answer is taken to cost at most until it has ended; then what it cost counts."},
    {"limits_without_redis", MR_CONF_STR, AT(limits_without_redis), "local", 0, 0, "local|open|closed",
     "While Redis is away: local counts in each gateway for itself, open lets everybody in, closed nobody "
     "(503)."},
    {"body_max", MR_CONF_INT, AT(body_max), "3700000", 1024, 100000000, NULL,
     "Largest request body, in bytes. Images travel in it; kafka.message_max must hold it."},
    {"output_max", MR_CONF_INT, AT(output_max), "1000000", 1024, 100000000, NULL,
     "Bytes that may wait for a slow client before its answer is cancelled."},
    {"max_in_flight", MR_CONF_INT, AT(max_in_flight), "1024", 1, 1000000, NULL,
     "Requests being answered at once; more get 429."},
    {"request_timeout_s", MR_CONF_INT, AT(request_timeout_s), "600", 1, 86400, NULL,
     "Seconds that an answer may take in all."},
    {"accept_timeout_s", MR_CONF_INT, AT(accept_timeout_s), "20", 1, 55, NULL,
     "Seconds that Kafka may take to accept a request before it gets 503, or before an answer whose rest is "
     "asked for again ends with an "
     "error."},
    {"idle_timeout_s", MR_CONF_INT, AT(idle_timeout_s), "75", 6, 86400, NULL,
     "Seconds that an idle keep-alive connection stays open."},
    {"keep_alive_s", MR_CONF_INT, AT(keep_alive_s), "5", 1, 50, NULL,
     "Seconds of silence after which a stream gets a comment."},
    {"headers_wait_ms", MR_CONF_INT, AT(headers_wait_ms), "100", 0, 60000, NULL,
     "Milliseconds (and up to 250 more) that the headers of a stream wait for the first word of its answer, "
     "so that "
     "x-millrace-source can say where that comes from; without one they go out then."},
    {"drain_s", MR_CONF_INT, AT(drain_s), "30", 0, 86400, NULL,
     "Seconds that running answers get to finish after SIGTERM."},
    {"resume_grace_s", MR_CONF_INT, AT(resume_grace_s), "0", 0, 86400, NULL,
     "Seconds that an answer goes on after its client vanished, for requests without the header "
     "x-millrace-resume."},
    {"guard_lists", MR_CONF_STRLIST, AT(guard_lists), "", 0, 0, NULL,
     "Lists of words to look for, in requests before they are stored and in answers before they are sent, "
     "each a TSV file: word, block|replace|flag|allow, category. A changed list is loaded again."},
    {"guard_answers", MR_CONF_STR, AT(guard_answers), "stop", 0, 0, "off|stop|replace",
     "What a word that blocks does to an answer: nothing (no word is looked for in answers), it ends there "
     "with finish_reason content_filter, or *** goes out in its place."},
    {"guard_injection", MR_CONF_STR, AT(guard_injection), "off", 0, 0, "off|flag|block",
     "As router.guard_injection, before a request is stored."},
    {"guard_personal", MR_CONF_STR, AT(guard_personal), "off", 0, 0, "off|flag|mask",
     "As router.guard_personal, before a request (or a comment of feedback) is stored."},
    {"guard_refusal", MR_CONF_STR, AT(guard_refusal), "Sorry, I cannot help with this request.", 0, 0, NULL,
     "The answer to a request that is blocked."},
    {"guard_audit_text", MR_CONF_BOOL, AT(guard_audit_text), "false", 0, 0, NULL,
     "Whether chat.audit holds the words that were found (of personal data, the mask)."},
    {"ai_label", MR_CONF_STR, AT(ai_label), "", 0, 0, NULL,
     "A sentence to be put at the end of what the model wrote, such as `AI-generated`; the answer is then "
     "marked `millrace.ai_generated` as well. Empty: none. Tool calls and structured answers get the mark "
     "alone."},
    {"metrics_host", MR_CONF_STR, AT(metrics_host), "127.0.0.1", 0, 0, NULL,
     "Address of /metrics, /livez and /readyz."},
    {"metrics_port", MR_CONF_INT, AT(metrics_port), "8081", 0, 65535, NULL, "Their port; 0 is none."},
    {0},
};

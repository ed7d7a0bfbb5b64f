/* The table of the router's settings. */
#include "router/conf.h"

#include "session/session.h"

#include <stddef.h>
#include <string.h>

#define AT(member) offsetof(mr_router_conf, member)

const mr_conf_key mr_router_keys[] = {
    {"pools", MR_CONF_STRLIST, AT(pools), "", 0, 0, NULL,
     "Which pool of workers serves a model, each `model=pool`. Models that are not named go to pool main."},
    {"kb", MR_CONF_STR, AT(kb), "", 0, 0, NULL,
     "Knowledge base for routine questions, made by `millrace kb import`. Empty: the model answers "
     "everything."},
    {"kb_threshold", MR_CONF_NUM, AT(kb_threshold), "0.65", 0, 1, NULL,
     "Confidence from which the knowledge base answers: the probability that the answer is right; 1 is the "
     "same "
     "wording. `millrace kb search` shows it."},
    {"kb_follow", MR_CONF_STR, AT(kb_follow), "You can also ask:", 0, 0, NULL,
     "What stands over the numbered list of entries that follow an answer; empty: the list alone."},
    {"kb_context", MR_CONF_INT, AT(kb_context), "3", 0, 8, NULL,
     "Entries of the knowledge base that the model gets with a chat for which none was sure enough, as a "
     "system message "
     "before the last one; 0: none."},
    {"kb_context_min", MR_CONF_NUM, AT(kb_context_min), "0.1", 0, 1, NULL,
     "Least confidence of each of them."},
    {"kb_context_tokens", MR_CONF_INT, AT(kb_context_tokens), "800", 1, 100000, NULL,
     "Most tokens of all of them together, as estimated: what is too long is left out."},
    {"intent_model", MR_CONF_STR, AT(intent_model), "", 0, 0, NULL,
     "Model of intents, made by `millrace intent train`: the knowledge base answers what it calls routine, "
     "and of the "
     "rest only what is worded as in the base. Empty: none."},
    {"ai_share_min", MR_CONF_NUM, AT(ai_share_min), "0.15", 0, 1, NULL,
     "With a model of intents: the share of the last 1000 chats that the language model should at least get. "
     "Outside "
     "of the band a warning is logged and millrace_router_ai_share_out_of_band is 1."},
    {"ai_share_max", MR_CONF_NUM, AT(ai_share_max), "0.20", 0, 1, NULL, "And at most."},
    {"guard_lists", MR_CONF_STRLIST, AT(guard_lists), "", 0, 0, NULL,
     "Lists of words to look for in requests, each a TSV file: word, block|replace|flag|allow, category. A "
     "changed list is loaded again."},
    {"guard_injection", MR_CONF_STR, AT(guard_injection), "flag", 0, 0, "off|flag|block",
     "What happens to a request that tells the model to forget its instructions or to give them away: "
     "nothing, a record in chat.audit, a refusal."},
    {"guard_personal", MR_CONF_STR, AT(guard_personal), "flag", 0, 0, "off|flag|mask",
     "What happens to phone and ID numbers, bank cards and e-mail addresses in a request: nothing, a record "
     "in chat.audit, or [phone] and the like in their place, for the model as well."},
    {"guard_refusal", MR_CONF_STR, AT(guard_refusal), "Sorry, I cannot help with this request.", 0, 0, NULL,
     "The answer to a request that is blocked."},
    {"guard_audit_text", MR_CONF_BOOL, AT(guard_audit_text), "false", 0, 0, NULL,
     "Whether chat.audit holds the words that were found (of personal data, the mask)."},
    {"session_turns", MR_CONF_INT, AT(session_turns), "3", 0, MR_SESSION_TURNS_MAX, NULL,
     "Earlier questions and answers of a session that are put before a message that comes alone, from Redis; "
     "0 keeps no sessions."},
    {"session_tokens", MR_CONF_INT, AT(session_tokens), "2000", 0, 1000000, NULL,
     "Tokens, estimated, that they and the session's system message may have together: the newest come "
     "first."},
    {"session_ttl_s", MR_CONF_INT, AT(session_ttl_s), "86400", 1, 31536000, NULL,
     "Seconds after its last answer that a session is kept."},
    {"profiles", MR_CONF_BOOL, AT(profiles), "true", 0, 0, NULL,
     "Look up the style of a request's user in Redis (`millrace profile`); only requests with a `user` are."},
    {"styles", MR_CONF_STRLIST, AT(styles), "", 0, 0, NULL,
     "Styles besides `formal` and `casual`, or in their place, each `NAME|TEMPERATURE|TOP_P|LINE for the "
     "model`."},
    {"request_timeout_s", MR_CONF_INT, AT(request_timeout_s), "600", 1, 86400, NULL,
     "Seconds from its creation after which a request without a deadline expires."},
    {"max_in_flight", MR_CONF_INT, AT(max_in_flight), "1000", 1, 100000, NULL,
     "Requests on their way back to Kafka at once; at the limit the router stops reading."},
    {"drain_s", MR_CONF_INT, AT(drain_s), "10", 0, 86400, NULL,
     "Seconds that they get to arrive after SIGTERM."},
    {"status_s", MR_CONF_NUM, AT(status_s), "2", 0, 10, NULL,
     "Seconds between two words to the gateways on how long a request would wait; 0 is none."},
    {"metrics_host", MR_CONF_STR, AT(metrics_host), "127.0.0.1", 0, 0, NULL,
     "Address of /metrics, /livez and /readyz."},
    {"metrics_port", MR_CONF_INT, AT(metrics_port), "8082", 0, 65535, NULL, "Their port; 0 is none."},
    {0},
};

/* What may stand in a topic's name, without the dot that separates its parts. */
static bool is_pool_name(const char *z) {
    size_t n = strspn(z, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    return n > 0 && n <= MR_POOL_MAX && z[n] == '\0';
}

int mr_router_conf_check(const mr_router_conf *c, mr_error *err) {
    if (c->ai_share_min > c->ai_share_max) {
        return mr_fail(err, MR_EINVAL, "router.ai_share_min is %g, more than router.ai_share_max, %g",
                       c->ai_share_min, c->ai_share_max);
    }
    for (int i = 0; i < c->pools.n; i++) {
        const char *equals = strrchr(c->pools.v[i], '=');
        if (equals && equals > c->pools.v[i] && is_pool_name(equals + 1)) continue;
        return mr_fail(
            err, MR_EINVAL,
            "router.pools: \"%s\" is not of the form model=pool, with a pool of letters, digits, _ and -",
            c->pools.v[i]);
    }
    return 0;
}

mr_str mr_router_pool(const mr_router_conf *c, mr_str model) {
    for (int i = 0; i < c->pools.n; i++) {
        const char *name = c->pools.v[i], *equals = strrchr(name, '=');
        if (mr_str_eq(model, (mr_str){name, (size_t)(equals - name)})) return mr_str_of(equals + 1);
    }
    return MR_STR(MR_POOL_DEFAULT);
}

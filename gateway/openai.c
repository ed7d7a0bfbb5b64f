/* OpenAI request bodies to ChatRequest.
 *
 * The field tables of schemas/ do the checking: the body's members are arranged as a ChatRequest in JSON and go
 * through mr_from_json, whose errors name the field. Only what a table cannot know is done here: the other names and forms
 * that clients use, the features that we lack, models and images. */
#include "gateway/openai.h"

#include "gateway/catalog.h"
#include "gateway/structured.h"
#include "gateway/tools.h"
#include "schemas/hash.h"

#include <stdio.h>
#include <string.h>

#define SESSION_MAX  100
#define PRIORITY_MAX 100

/* ---- errors ---- */

int mr_refuse_field(mr_api_error *e, const char *msg) {
    static const char inner[] = "sampling.";
    if (strncmp(msg, inner, sizeof(inner) - 1) == 0) msg += sizeof(inner) - 1;
    size_t path = strspn(msg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.[]");
    char param[sizeof(e->param)] = "";
    if (path > 0 && path < sizeof(param) && strncmp(msg + path, ": ", 2) == 0) memcpy(param, msg, path);
    return mr_refuse(e, 400, "invalid_value", param, "%s", msg);
}

static int refuse_type(mr_api_error *e, const char *param, const char *expected) {
    return mr_refuse(e, 400, "invalid_type", param, "%s: expected %s", param, expected);
}

static int refuse_memory(mr_api_error *e) {
    return mr_refuse(e, 500, "out_of_memory", NULL, "Out of memory.");
}

/* ---- members of the body ---- */

static json_t *member(const json_t *body, const char *name) {
    json_t *v = json_object_get(body, name);
    return json_is_null(v) ? NULL : v;
}

static int get_bool(const json_t *object, const char *name, const char *param, bool *out, mr_api_error *e) {
    const json_t *v = member(object, name);
    *out = json_is_true(v);
    return !v || json_is_boolean(v) ? 0 : refuse_type(e, param, "true or false");
}

static bool is_string(const json_t *v, const char *z) {
    return json_is_string(v) && strcmp(json_string_value(v), z) == 0;
}

/* ---- features that we lack: saying so beats an answer that ignores them ---- */

static bool is_empty(const json_t *v) {
    return (json_is_array(v) && json_array_size(v) == 0) || (json_is_object(v) && json_object_size(v) == 0);
}

static bool choice_ok(const json_t *v) {
    return is_string(v, "none") || is_string(v, "auto");
}

static bool modalities_ok(const json_t *v) {
    return json_array_size(v) == 1 && is_string(json_array_get(v, 0), "text");
}

static const struct {
    const char *name;
    bool (*ok)(const json_t *v);
    const char *message;
} limited[] = {
    {"functions", is_empty, "functions are no longer supported: send them as tools"},
    {"function_call", choice_ok, "function_call is no longer supported: send tool_choice"},
    {"modalities", modalities_ok, "modalities: only [\"text\"] is supported"},
    {"logit_bias", is_empty, "logit_bias is not supported"},
    {"audio", is_empty, "audio is not supported"},
};

static int check_features(const json_t *body, mr_api_error *e) {
    for (size_t i = 0; i < sizeof(limited) / sizeof(limited[0]); i++) {
        const json_t *v = member(body, limited[i].name);
        if (v && !limited[i].ok(v)) {
            return mr_refuse(e, 400, "unsupported_parameter", limited[i].name, "%s", limited[i].message);
        }
    }
    return 0;
}

/* ---- sampling ---- */

/* `stop` may be one string; null and "" stand for none. */
static json_t *stop_list(json_t *stop) {
    if (!json_is_string(stop)) return json_incref(stop);
    return json_string_length(stop) > 0 ? json_pack("[O]", stop) : json_array();
}

/* New reference: the members of `body` that are sampling's, under their names there. NULL when out of memory. */
static json_t *sampling_json(const json_t *body, int64_t max_tokens) {
    json_t *out = json_object();
    int failed = !out;
    for (int i = 0; !failed && i < mr_sampling_def.nfields; i++) {
        const char *name = mr_sampling_def.fields[i].name;
        json_t *v = member(body, name);
        if (v)
            failed =
                json_object_set_new(out, name, strcmp(name, "stop") == 0 ? stop_list(v) : json_incref(v));
    }
    json_t *limit = member(body, "max_completion_tokens");
    if (!failed && limit) failed = json_object_set(out, "max_tokens", limit);
    if (!failed && !json_object_get(out, "max_tokens")) {
        failed = json_object_set_new(out, "max_tokens", json_integer(max_tokens));
    }
    if (failed) json_decref(out);
    return failed ? NULL : out;
}

static int check_sampling(const mr_sampling *s, mr_api_error *e) {
    if (MR_HAS(s, MR_SAMPLING_TOP_LOGPROBS) && s->top_logprobs > 0 && !s->logprobs) {
        return mr_refuse(e, 400, "invalid_value", "top_logprobs", "top_logprobs: needs logprobs to be true");
    }
    if (MR_HAS(s, MR_SAMPLING_MIN_TOKENS) && s->min_tokens > s->max_tokens) {
        return mr_refuse(e, 400, "invalid_value", "min_tokens", "min_tokens: is over max_tokens (%lld)",
                         (long long)s->max_tokens);
    }
    return 0;
}

/* ---- messages ---- */

/* An assistant's turn without content is what some clients send for an empty answer. */
static int fill_empty_turns(json_t *messages) {
    size_t i;
    json_t *m;
    json_array_foreach(messages, i, m) {
        if (is_string(json_object_get(m, "role"), "assistant") && !member(m, "content") &&
            !member(m, "tool_calls")) {
            if (json_object_set_new(m, "content", json_string("")) != 0) return -1;
        }
    }
    return 0;
}

static int check_image(mr_str url, const char *path, mr_api_error *e) {
    static const char prefix[] = "data:image/";
    if (url.n < sizeof(prefix) || memcmp(url.p, prefix, sizeof(prefix) - 1) != 0) {
        return mr_refuse(e, 400, "invalid_image_url", path,
                         "%s: images must be in the request, as a data:image/…;base64 URL", path);
    }
    if (!memmem(url.p, url.n < 100 ? url.n : 100, ";base64,", 8)) {
        return mr_refuse(e, 400, "invalid_image_url", path, "%s: expected data:image/TYPE;base64,DATA", path);
    }
    return 0;
}

static int check_images(const mr_chat_request *r, bool vision, mr_api_error *e) {
    for (uint32_t i = 0; i < r->messages.n; i++) {
        const mr_chat_message *m = &r->messages.v[i];
        for (uint32_t k = 0; MR_HAS(m, MR_CHAT_MESSAGE_PARTS) && k < m->parts.n; k++) {
            char path[64];
            if (m->parts.v[k].type != MR_PART_IS_IMAGE) continue;
            snprintf(path, sizeof(path), "messages[%u].content[%u].image_url", i, k);
            if (!vision) {
                return mr_refuse(e, 400, "images_unsupported", path, "This model does not take images.");
            }
            if (check_image(m->parts.v[k].image_url.url, path, e) < 0) return -1;
        }
    }
    return 0;
}

/* ---- session ---- */

/* What the user said first: the same in every turn of a conversation. */
static mr_str first_user_text(const mr_chat_request *r) {
    for (uint32_t i = 0; i < r->messages.n; i++) {
        const mr_chat_message *m = &r->messages.v[i];
        if (m->role != MR_ROLE_USER) continue;
        if (MR_HAS(m, MR_CHAT_MESSAGE_CONTENT)) return m->content;
        for (uint32_t k = 0; k < m->parts.n; k++) {
            if (m->parts.v[k].type == MR_PART_IS_TEXT) return m->parts.v[k].text;
        }
    }
    return MR_STR("");
}

/* Sessions of different tenants never meet: the tenant is part of the name. A client that names none gets one made
 * of the conversation's beginning, so that its turns find the same worker's cache. */
static int set_session(const mr_openai_caller *caller, const json_t *body, mr_arena *a, mr_chat_request *r,
                       mr_api_error *e) {
    const json_t *v = member(body, "session_id");
    mr_str named = mr_str_of(caller->session ? caller->session : v ? json_string_value(v) : NULL);
    char name[MR_NAME_MAX + 1];
    if (v && !json_is_string(v)) return refuse_type(e, "session_id", "a string");
    if (named.n > 0 && (named.n > SESSION_MAX || !mr_id_ok(named))) {
        return mr_refuse(e, 400, "invalid_value", "session_id",
                         "session_id: expected 1 to %d printable characters without spaces", SESSION_MAX);
    }
    mr_str tenant = caller->tenant;
    if (tenant.n > 64) tenant.n = 64;
    if (named.n > 0) {
        snprintf(name, sizeof(name), "%.*s/%.*s", MR_FMT(tenant), MR_FMT(named));
    } else {
        char hash[MR_TEXT_HASH_LEN + 1];
        mr_text_hash_hex(mr_text_hash_feed(mr_text_hash_init(), first_user_text(r)), hash);
        snprintf(name, sizeof(name), "%.*s/%s", MR_FMT(tenant), hash);
    }
    MR_SET(r, MR_CHAT_REQUEST_SESSION, session, mr_arena_str(a, mr_str_of(name)));
    return r->session.p ? 0 : refuse_memory(e);
}

/* ---- the whole ---- */

static json_t *parse_body(mr_str body, mr_api_error *e) {
    json_error_t je;
    json_t *j = json_loadb(body.p, body.n, 0, &je);
    if (!j) {
        mr_refuse(e, 400, "invalid_json", NULL, "The body is not valid JSON: line %d, column %d: %s", je.line,
                  je.column, je.text);
    } else if (!json_is_object(j)) {
        mr_refuse(e, 400, "invalid_json", NULL, "The body must be a JSON object.");
        json_decref(j);
        j = NULL;
    }
    return j;
}

static int find_model(const mr_gateway_conf *conf, const json_t *body, mr_openai_request *out,
                      mr_api_error *e) {
    const json_t *v = member(body, "model");
    if (!v) return mr_refuse(e, 400, "missing_required_parameter", "model", "model: is required");
    if (!json_is_string(v)) return refuse_type(e, "model", "a string");
    out->model = mr_catalog_find(conf, (mr_str){json_string_value(v), json_string_length(v)});
    if (!out->model) {
        return mr_refuse(e, 404, "model_not_found", "model", "The model `%.100s` does not exist.",
                         json_string_value(v));
    }
    return 0;
}

static int read_n(const json_t *body, int *n, mr_api_error *e) {
    const json_t *v = member(body, "n");
    json_int_t value = v ? json_integer_value(v) : 1;
    if (v && !json_is_integer(v)) return refuse_type(e, "n", "an integer");
    if (value < 1 || value > MR_CHOICES_MAX) {
        return mr_refuse(e, 400, "invalid_value", "n", "n: expected 1 to %d", MR_CHOICES_MAX);
    }
    *n = (int)value;
    return 0;
}

/* As vLLM has it: the lowest goes first. Everybody may stand back; to go ahead takes a scope. */
static int read_priority(const mr_openai_caller *caller, const json_t *body, mr_chat_request *chat,
                         mr_api_error *e) {
    const json_t *v = member(body, "priority");
    json_int_t value = json_integer_value(v);
    if (!v) return 0;
    if (!json_is_integer(v)) return refuse_type(e, "priority", "an integer");
    if (value < -PRIORITY_MAX || value > PRIORITY_MAX) {
        return mr_refuse(e, 400, "invalid_value", "priority", "priority: expected %d to %d", -PRIORITY_MAX,
                         PRIORITY_MAX);
    }
    if (value < 0 && !caller->may_go_ahead) {
        return mr_refuse(e, 403, "insufficient_scope", "priority",
                         "priority: to go ahead of others (below 0) takes a key with the scope priority");
    }
    MR_SET(chat, MR_CHAT_REQUEST_PRIORITY, priority, -value);
    return 0;
}

static int read_options(const json_t *body, mr_openai_request *out, mr_api_error *e) {
    const json_t *options = member(body, "stream_options");
    if (get_bool(body, "stream", "stream", &out->stream, e) < 0 || read_n(body, &out->n, e) < 0) return -1;
    if (!options) return 0;
    if (!json_is_object(options)) return refuse_type(e, "stream_options", "an object");
    return get_bool(options, "include_usage", "stream_options.include_usage", &out->include_usage, e);
}

static int decode_chat(const mr_gateway_conf *conf, const mr_openai_caller *caller, const json_t *body,
                       mr_arena *a, mr_chat_request *out, mr_api_error *e) {
    json_t *messages = member(body, "messages"), *user = member(body, "user"), *sampling = NULL, *chat = NULL;
    mr_error err;
    int rc = -1;
    if (!messages)
        return mr_refuse(e, 400, "missing_required_parameter", "messages", "messages: is required");
    if (fill_empty_turns(messages) < 0 || !(sampling = sampling_json(body, conf->max_tokens)) ||
        !(chat = json_pack("{s:i, s:s%, s:O, s:O, s:O*}", "v", MR_SCHEMA_VERSION, "id", caller->id.p,
                           caller->id.n, "messages", messages, "sampling", sampling, "user", user))) {
        refuse_memory(e);
    } else if (mr_structured_format(body, chat, e) < 0 || mr_tools_put(body, chat, e) < 0) {
        rc = -1;
    } else if (mr_from_json(&mr_chat_request_def, chat, a, out, &err) < 0) {
        mr_refuse_field(e, err.msg);
    } else {
        rc = check_sampling(&out->sampling, e);
    }
    json_decref(chat);
    json_decref(sampling);
    return rc;
}

static int fill(const mr_gateway_conf *conf, const mr_openai_caller *caller, const json_t *body, mr_arena *a,
                mr_openai_request *out, mr_api_error *e) {
    if (find_model(conf, body, out, e) < 0 || read_options(body, out, e) < 0 || check_features(body, e) < 0 ||
        decode_chat(conf, caller, body, a, &out->chat, e) < 0) {
        return -1;
    }
    mr_str asked = mr_str_of(json_string_value(member(body, "model")));
    if (check_images(&out->chat, mr_catalog_vision(conf, asked, out->model), e) < 0) return -1;
    if (set_session(caller, body, a, &out->chat, e) < 0) return -1;
    if (read_priority(caller, body, &out->chat, e) < 0) return -1;
    bool history;
    if (get_bool(body, "session_history", "session_history", &history, e) < 0) return -1;
    MR_SET(&out->chat, MR_CHAT_REQUEST_HISTORY, history,
           history); /* clients send their own, if they do not say else */
    if (caller->style && *caller->style)
        MR_SET(&out->chat, MR_CHAT_REQUEST_STYLE, style, mr_str_of(caller->style));
    MR_SET(&out->chat, MR_CHAT_REQUEST_TENANT, tenant, caller->tenant);
    MR_SET(&out->chat, MR_CHAT_REQUEST_MODEL, model, mr_str_of(out->model));
    MR_SET(&out->chat, MR_CHAT_REQUEST_STREAM, stream, out->stream);
    out->form = MR_HAS(&out->chat, MR_CHAT_REQUEST_RESPONSE_FORMAT) &&
                out->chat.response_format.type != MR_FORMAT_TEXT;
    return 0;
}

int mr_openai_parse(const mr_gateway_conf *conf, const mr_openai_caller *caller, mr_str body, mr_arena *a,
                    mr_openai_request *out, mr_api_error *e) {
    *out = (mr_openai_request){0};
    json_t *j = parse_body(body, e);
    if (!j) return -1;
    int rc = fill(conf, caller, j, a, out, e);
    json_decref(j);
    return rc;
}

mr_arena *mr_openai_arena(const mr_gateway_conf *conf) {
    return mr_arena_new(4 * (size_t)conf->body_max + (1u << 20));
}

int mr_openai_feedback(mr_str body, mr_arena *a, mr_feedback *out, mr_api_error *e) {
    mr_error err;
    int rc = -1;
    json_t *j = parse_body(body, e);
    if (!j) return -1;
    if (json_object_set_new(j, "v", json_integer(MR_SCHEMA_VERSION)) != 0) {
        refuse_memory(e);
    } else if (mr_from_json(&mr_feedback_def, j, a, out, &err) < 0) {
        mr_refuse_field(e, err.msg);
    } else if (!mr_id_ok(out->request)) {
        mr_refuse(e, 400, "invalid_value", "request", "request: expected the id of an answer");
    } else {
        rc = 0;
    }
    json_decref(j);
    return rc;
}

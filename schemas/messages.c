/* The tables of the messages, and the few rules that a table cannot say. No state; any thread. */
#include "schemas/messages.h"

#include "schemas/hash.h"

const char *const mr_role_names[] = {"system", "user", "assistant", "developer", "tool", NULL};
const char *const mr_part_type_names[] = {"text", "image_url", NULL};
const char *const mr_format_names[] = {"text", "json_object", "json_schema", NULL};
const char *const mr_purpose_names[] = {"chat", "title", "summary", NULL};
const char *const mr_tool_choice_names[] = {"none", "auto", "required", "function", NULL};
const char *const mr_channel_names[] = {"content", "reasoning", "tool_call", NULL};
const char *const mr_source_names[] = {"model", "kb", "guard", NULL};
const char *const mr_control_kind_names[] = {"cancel",  "weights",  "rollout", "drain",
                                             "recycle", "recycled", "resume",  NULL};
const char *const mr_color_names[] = {"blue", "green", NULL};
const char *const mr_rollout_state_names[] = {"waiting",   "shifting",    "draining", "stopping", "done",
                                              "returning", "rolled_back", "aborted",  NULL};
const char *const mr_worker_state_names[] = {"starting", "ready", "recycling", "draining",
                                             "standby",  "gone",  NULL};
const char *const mr_finish_names[] = {"stop",  "length", "content_filter", "tool_calls", "cancelled",
                                       "error", NULL};
const char *const mr_guard_layer_names[] = {"access", "input", "output", NULL};
const char *const mr_guard_action_names[] = {"flag", "replace", "mask", "block", NULL};

bool mr_id_ok(mr_str id) {
    if (id.n == 0 || id.n > MR_ID_MAX) return false;
    for (size_t i = 0; i < id.n; i++) {
        if (id.p[i] <= ' ' || id.p[i] > '~') return false;
    }
    return true;
}

static int mr_check_part(const void *msg, mr_error *err) {
    const mr_part *p = msg;
    if (p->type == MR_PART_IS_TEXT && !MR_HAS(p, MR_PART_TEXT)) {
        return mr_fail(err, MR_EINVAL, "a part of type text needs `text`");
    }
    if (p->type == MR_PART_IS_IMAGE && !MR_HAS(p, MR_PART_IMAGE_URL)) {
        return mr_fail(err, MR_EINVAL, "a part of type image_url needs `image_url`");
    }
    return 0;
}

static int mr_check_chat_message(const void *msg, mr_error *err) {
    const mr_chat_message *m = msg;
    bool content = MR_HAS(m, MR_CHAT_MESSAGE_CONTENT) || MR_HAS(m, MR_CHAT_MESSAGE_PARTS);
    if (!content && !MR_HAS(m, MR_CHAT_MESSAGE_TOOL_CALLS)) {
        return mr_fail(err, MR_EINVAL,
                       "a message needs `content` (a string or a list of parts) or `tool_calls`");
    }
    return 0;
}

static int mr_check_response_format(const void *msg, mr_error *err) {
    const mr_response_format *f = msg;
    if (f->type == MR_FORMAT_JSON_SCHEMA && !MR_HAS(f, MR_RESPONSE_FORMAT_SCHEMA)) {
        return mr_fail(err, MR_EINVAL, "a format of type json_schema needs `schema`");
    }
    return 0;
}

static bool tool_name_ok(mr_str name) {
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && c != '_' && c != '-') return false;
    }
    return true;
}

static int mr_check_tool(const void *msg, mr_error *err) {
    if (tool_name_ok(((const mr_tool *)msg)->name)) return 0;
    return mr_fail(err, MR_EINVAL, "`name` may have letters, digits, _ and - only");
}

static int mr_check_tool_choice(const void *msg, mr_error *err) {
    const mr_tool_choice *c = msg;
    if (c->type == MR_TOOLS_FUNCTION && !MR_HAS(c, MR_TOOL_CHOICE_NAME)) {
        return mr_fail(err, MR_EINVAL, "a choice of type function needs `name`");
    }
    return 0;
}

static bool has_tool(const mr_chat_request *r, mr_str name) {
    for (uint32_t i = 0; i < r->tools.n; i++) {
        if (mr_str_eq(r->tools.v[i].name, name)) return true;
    }
    return false;
}

/* Names are told apart by the model alone, and a choice must be one that it has. */
static int check_tools(const mr_chat_request *r, mr_error *err) {
    const mr_tool_choice *choice = MR_HAS(r, MR_CHAT_REQUEST_TOOL_CHOICE) ? &r->tool_choice : NULL;
    for (uint32_t i = 1; i < r->tools.n; i++) {
        for (uint32_t k = 0; k < i; k++) {
            if (!mr_str_eq(r->tools.v[i].name, r->tools.v[k].name)) continue;
            return mr_fail(err, MR_EINVAL, "two tools have the name %.*s", MR_FMT(r->tools.v[i].name));
        }
    }
    if (!choice) return 0;
    if (choice->type == MR_TOOLS_REQUIRED && r->tools.n == 0) {
        return mr_fail(err, MR_EINVAL, "`tool_choice` requires a call, and there are no `tools`");
    }
    if (choice->type == MR_TOOLS_FUNCTION && !has_tool(r, choice->name)) {
        return mr_fail(err, MR_EINVAL, "`tool_choice` names %.*s, which is none of the `tools`",
                       MR_FMT(choice->name));
    }
    return 0;
}

static int check_hash(mr_str hash, const char *field, mr_error *err) {
    uint64_t unused;
    if (!mr_text_hash_parse(hash, &unused)) {
        return mr_fail(err, MR_EINVAL, "`%s` must be 16 hexadecimal digits in lower case", field);
    }
    return 0;
}

static int mr_check_chat_request(const void *msg, mr_error *err) {
    const mr_chat_request *r = msg;
    if (!mr_id_ok(r->id)) return mr_fail(err, MR_EINVAL, "`id` must be printable ASCII without spaces");
    bool tools = MR_HAS(r, MR_CHAT_REQUEST_TOOLS) || MR_HAS(r, MR_CHAT_REQUEST_TOOL_CHOICE);
    if (tools && check_tools(r, err) < 0) return -1;
    if (!MR_HAS(r, MR_CHAT_REQUEST_FORCED)) return 0;
    if (!MR_HAS(r, MR_CHAT_REQUEST_FORCED_BYTES) || !MR_HAS(r, MR_CHAT_REQUEST_FORCED_HASH)) {
        return mr_fail(err, MR_EINVAL, "`forced` needs `forced_bytes` and `forced_hash`");
    }
    return check_hash(r->forced_hash, "forced_hash", err);
}

static int mr_check_response_delta(const void *msg, mr_error *err) {
    const mr_response_delta *d = msg;
    bool call = d->channel == MR_CHANNEL_TOOL_CALL;
    if (call != (bool)MR_HAS(d, MR_RESPONSE_DELTA_CALL)) {
        return mr_fail(err, MR_EINVAL, "`call` must be there exactly when `channel` is tool_call");
    }
    return check_hash(d->hash, "hash", err);
}

static int mr_check_response_end(const void *msg, mr_error *err) {
    const mr_response_end *e = msg;
    bool failed = e->finish_reason == MR_FINISH_ERROR;
    if (failed != (bool)MR_HAS(e, MR_RESPONSE_END_ERROR)) {
        return mr_fail(err, MR_EINVAL, "`error` must be there exactly when `finish_reason` is error");
    }
    return check_hash(e->hash, "hash", err);
}

/* It will stand in a line of TSV. */
static int mr_check_feedback(const void *msg, mr_error *err) {
    const mr_feedback *f = msg;
    for (size_t i = 0; i < f->label.n; i++) {
        if ((unsigned char)f->label.p[i] < ' ') {
            return mr_fail(err, MR_EINVAL, "label: expected the name of an intent, on one line");
        }
    }
    return 0;
}

static int mr_check_control(const void *msg, mr_error *err) {
    const mr_control *c = msg;
    bool of_request = c->kind == MR_CONTROL_IS_CANCEL || c->kind == MR_CONTROL_IS_RESUME;
    if (of_request && !MR_HAS(c, MR_CONTROL_REQUEST)) {
        return mr_fail(err, MR_EINVAL, "a %s needs `request`", mr_control_kind_names[c->kind]);
    }
    if (c->kind == MR_CONTROL_IS_WEIGHTS && (!MR_HAS(c, MR_CONTROL_POOL) || c->blue + c->green <= 0)) {
        return mr_fail(err, MR_EINVAL, "weights need `pool`, and a `blue` or `green` over 0");
    }
    if (c->kind == MR_CONTROL_IS_ROLLOUT && (!MR_HAS(c, MR_CONTROL_POOL) || !MR_HAS(c, MR_CONTROL_ROLLOUT))) {
        return mr_fail(err, MR_EINVAL, "a rollout needs `pool` and `rollout`");
    }
    if (c->kind == MR_CONTROL_IS_DRAIN && (!MR_HAS(c, MR_CONTROL_POOL) || !MR_HAS(c, MR_CONTROL_COLOR))) {
        return mr_fail(err, MR_EINVAL, "a drain needs `pool` and `color`");
    }
    bool recycling = c->kind == MR_CONTROL_IS_RECYCLE || c->kind == MR_CONTROL_IS_RECYCLED;
    if (recycling && (!MR_HAS(c, MR_CONTROL_WORKER) || !MR_HAS(c, MR_CONTROL_ORDER))) {
        return mr_fail(err, MR_EINVAL, "%s needs `worker` and `order`", mr_control_kind_names[c->kind]);
    }
    return 0;
}

#define MR_TABLE "schemas/messages.def"
#include "schemas/table_define.h"

/* clang-format off */
#define MR_MESSAGE(M, ctype, name, topic, check, doc) &ctype##_def,
#define MR_FIELD(M, F, decl, m, wire, type, req, lo, hi, each, names, sub, doc)
#define MR_MESSAGE_END(M, ctype)
#include "schemas/table_rows.h"
const mr_message_def *const mr_messages[] = {
#include "schemas/messages.def"
    NULL,
};
#include "schemas/table_undef.h"
/* clang-format on */

/* See tools.h. */
#include "gateway/tools.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int refuse(mr_api_error *e, const char *param, const char *expected) {
    return mr_refuse(e, 400, "invalid_type", param, "%s: expected %s", param, expected);
}

static int refuse_memory(mr_api_error *e) {
    return mr_refuse(e, 500, "out_of_memory", NULL, "Out of memory.");
}

static json_t *member(const json_t *object, const char *name) {
    json_t *v = json_object_get(object, name);
    return json_is_null(v) ? NULL : v;
}

static bool is_function(const json_t *v) {
    const char *type = json_string_value(member(v, "type"));
    return type && strcmp(type, "function") == 0;
}

/* The schema travels as text: its members are nobody's business before the engine's. */
static json_t *text_of(const json_t *schema) {
    char *text = json_dumps(schema, JSON_COMPACT);
    json_t *out = text ? json_string(text) : NULL;
    free(text);
    return out;
}

/* tools[i] to `list`; the field table checks the members. */
static int put_tool(const json_t *tool, size_t i, json_t *list, mr_api_error *e) {
    json_t *function = member(tool, "function"), *parameters = member(function, "parameters"), *text = NULL;
    char at[64];
    snprintf(at, sizeof(at), "tools[%zu].type", i);
    if (!is_function(tool))
        return mr_refuse(e, 400, "invalid_value", at, "%s: only function is supported", at);
    snprintf(at, sizeof(at), "tools[%zu].function", i);
    if (!json_is_object(function)) return refuse(e, at, "an object");
    snprintf(at, sizeof(at), "tools[%zu].function.parameters", i);
    if (parameters && !json_is_object(parameters)) return refuse(e, at, "a JSON schema");
    if (parameters && !(text = text_of(parameters))) return refuse_memory(e);
    json_t *out =
        json_pack("{s:O*, s:O*, s:o*, s:O*}", "name", member(function, "name"), "description",
                  member(function, "description"), "parameters", text, "strict", member(function, "strict"));
    return json_array_append_new(list, out) == 0 ? 0 : refuse_memory(e);
}

static int put_tools(const json_t *tools, json_t *chat, mr_api_error *e) {
    size_t i;
    const json_t *tool;
    if (!json_is_array(tools)) return refuse(e, "tools", "a list");
    if (json_array_size(tools) == 0) return 0;
    json_t *list = json_array();
    if (json_object_set_new(chat, "tools", list) != 0) return refuse_memory(e);
    json_array_foreach(tools, i, tool) {
        if (put_tool(tool, i, list, e) < 0) return -1;
    }
    return 0;
}

static bool is_one_of(const char *s, const char *const *words) {
    for (; s && *words; words++) {
        if (strcmp(s, *words) == 0) return true;
    }
    return false;
}

static int put_choice(const json_t *choice, json_t *chat, mr_api_error *e) {
    static const char *const words[] = {"none", "auto", "required", NULL};
    const char *word = json_string_value(choice);
    json_t *name = member(member(choice, "function"), "name"), *out = NULL;
    if (is_one_of(word, words)) {
        if (!member(chat, "tools") && strcmp(word, "required") != 0) return 0;
        out = json_pack("{s:s}", "type", word);
    } else if (is_function(choice) && json_is_string(name)) {
        out = json_pack("{s:s, s:O}", "type", "function", "name", name);
    } else {
        return refuse(e, "tool_choice", "none, auto, required, or {type: function, function: {name}}");
    }
    if (!member(chat, "tools")) {
        json_decref(out);
        return mr_refuse(e, 400, "invalid_value", "tool_choice",
                         "tool_choice: there are no tools to choose from");
    }
    return json_object_set_new(chat, "tool_choice", out) == 0 ? 0 : refuse_memory(e);
}

int mr_tools_put(const json_t *body, json_t *chat, mr_api_error *e) {
    json_t *tools = member(body, "tools"), *choice = member(body, "tool_choice"),
           *parallel = member(body, "parallel_tool_calls");
    if (tools && put_tools(tools, chat, e) < 0) return -1;
    if (choice && put_choice(choice, chat, e) < 0) return -1;
    if (!parallel) return 0;
    return json_object_set(chat, "parallel_tool_calls", parallel) == 0 ? 0 : refuse_memory(e);
}

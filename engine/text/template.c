/* Renders chats. A template is built at load and then only read, by any thread; a prompt under construction is on the
 * stack of its call. Text between two control tokens is encoded in one go, because tokens of plain text may reach over
 * what the template and what the user wrote. */
#include "engine/text/template.h"

#include "engine/text/buf.h"
#include "engine/text/pyjson.h"
#include "engine/text/template_internal.h"
#include "engine/text/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTROLS_MAX = 3, STOPS_MAX = 3 };

typedef enum { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL, ROLE_UNKNOWN } role;
static const char *const role_names[] = {"system", "user", "assistant", "tool"};

struct prompt;

/* One kind of template, and the traits it has when it is forced by name. */
struct style {
    const char *name;
    void (*render)(const chat_template *c, struct prompt *p, const engine_chat *chat);
    const char *controls[CONTROLS_MAX]; /* tokens that it cannot do without */
    const char *stops[STOPS_MAX];       /* ends of an answer beside eos, where the tokenizer has them */
    template_traits traits;
};

struct chat_template {
    const tokenizer *t;
    const struct style *style;
    template_traits traits;
    int32_t controls[CONTROLS_MAX];
};

/* ---- a prompt under construction ---- */

struct prompt {
    const tokenizer *t;
    text_buf text; /* since the last control token */
    int32_t *out;
    size_t cap;
    int64_t n; /* -1: failed, with err */
    engine_error *err;
};

static void flush_text(struct prompt *p) {
    if (p->n < 0) return;
    if (p->text.failed) {
        p->n = engine_fail(p->err, ENGINE_ENOMEM, "out of memory for the prompt");
        return;
    }
    size_t used = (uint64_t)p->n < p->cap ? (size_t)p->n : p->cap;
    int32_t *to = used ? p->out + used : p->out; /* which is NULL where nothing is wanted but the count */
    int64_t n =
        p->text.len ? tokenizer_encode(p->t, p->text.data, p->text.len, false, to, p->cap - used, p->err) : 0;
    p->text.len = 0;
    p->n = n < 0 ? -1 : p->n + n;
}

static void put_id(struct prompt *p, int32_t id) {
    flush_text(p);
    if (p->n < 0 || id < 0) return;
    if ((uint64_t)p->n < p->cap) p->out[p->n] = id;
    p->n++;
}

static void put(struct prompt *p, const char *s) {
    text_buf_puts(&p->text, s);
}

/* Text of a template in which tags may be tokens of their own. */
static void put_tagged(struct prompt *p, const char *s) {
    static const char *const tags[] = {"<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"};

    while (*s) {
        size_t plain = strcspn(s, "<");
        text_buf_put(&p->text, s, plain);
        s += plain;
        size_t len = *s ? 1 : 0;
        int32_t id = -1;
        for (size_t i = 0; i < sizeof tags / sizeof *tags && id < 0; i++) {
            if (strncmp(s, tags[i], strlen(tags[i])) != 0) continue;
            len = strlen(tags[i]);
            id = tokenizer_id(p->t, tags[i]);
        }
        if (id >= 0)
            put_id(p, id);
        else
            text_buf_put(&p->text, s, len);
        s += len;
    }
}

/* "<think>" is a token of its own in most tokenizers of models that think, and plain text in the others. */
static void put_opening(struct prompt *p, const char *opening) {
    static const char think[] = "<think>";

    if (strncmp(opening, think, sizeof think - 1) == 0 && tokenizer_id(p->t, think) >= 0) {
        put_id(p, tokenizer_id(p->t, think));
        opening += sizeof think - 1;
    }
    put(p, opening);
}

/* ---- what messages say ---- */

typedef struct span {
    const char *s;
    size_t n;
} span;

static void put_span(struct prompt *p, span s) {
    text_buf_put(&p->text, s.s, s.n);
}

static span content_of(const engine_message *m) {
    return (span){m->content, m->content_len};
}

static role role_of(const engine_message *m) {
    if (strcmp(m->role, "developer") == 0) return ROLE_SYSTEM;
    for (int i = 0; i < ROLE_UNKNOWN; i++)
        if (strcmp(m->role, role_names[i]) == 0) return (role)i;
    return ROLE_UNKNOWN;
}

/* Python's str.isspace of one character at s, which is at most n long; its length, or 0. */
static size_t space_at(const char *s, size_t n) {
    uint32_t c;
    size_t len;

    if (utf8_next(s, n, &c, &len) != UTF8_WHOLE) return 0;
    return utf8_is_space(c) || (c >= 0x1C && c <= 0x1F) ? len : 0;
}

/* Length of the space that ends s, or 0. */
static size_t space_before_end(span s) {
    for (size_t len = 1; len <= 4 && len <= s.n; len++)
        if (space_at(s.s + s.n - len, len) == len) return len;
    return 0;
}

/* Jinja's trim filter. */
static span trimmed(span s) {
    for (size_t len; s.n > 0 && (len = space_at(s.s, s.n)) > 0;) s = (span){s.s + len, s.n - len};
    for (size_t len; (len = space_before_end(s)) > 0;) s.n -= len;
    return s;
}

/* What stands after the last </think>. */
static span without_thoughts(span s) {
    static const char end[] = "</think>";

    for (const char *p; (p = memmem(s.s, s.n, end, sizeof end - 1)) != NULL;) {
        size_t skip = (size_t)(p - s.s) + sizeof end - 1;
        s = (span){s.s + skip, s.n - skip};
    }
    return s;
}

static span text_of(const chat_template *c, const engine_message *m) {
    return c->traits.trims ? trimmed(content_of(m)) : content_of(m);
}

/* ---- tools ---- */

static void fail_chat(struct prompt *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fail_chat(struct prompt *p, const char *fmt, ...) {
    char what[200];
    va_list ap;

    if (p->n < 0) return;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    p->n = engine_fail(p->err, ENGINE_EINVAL, "%s", what);
}

/* JSON that came as text, or NULL, which fails the prompt. */
static json_t *read_object(struct prompt *p, const char *text, size_t n, const char *what, int i) {
    json_error_t why;
    json_t *v = json_loadb(text, n, 0, &why);

    if (json_is_object(v)) return v;
    fail_chat(p, "%s[%d]: expected a JSON object as text%s%s", what, i, v ? "" : ": ", v ? "" : why.text);
    json_decref(v);
    return NULL;
}

/* As OpenAI's API has it, whatever the order in which it came. */
static void put_tool(struct prompt *p, const engine_tool *tools, int i, int indent) {
    const engine_tool *t = &tools[i];
    json_t *parameters = NULL;

    if (t->parameters &&
        !(parameters = read_object(p, t->parameters, t->parameters_len, "parameters of tools", i)))
        return;
    json_t *tool = json_pack("{s:s, s:{s:s, s:s*, s:o*}}", "type", "function", "function", "name", t->name,
                             "description", t->description, "parameters", parameters);
    if (tool)
        pyjson_put(&p->text, tool, indent);
    else
        fail_chat(p, "tools[%d]: the name or description is not UTF-8", i);
    json_decref(tool);
}

static void put_arguments(struct prompt *p, const engine_message *m, int i) {
    const engine_call *call = &m->calls[i];
    json_t *arguments = read_object(p, call->arguments, call->arguments_len, "arguments of tool_calls", i);

    if (arguments) pyjson_put(&p->text, arguments, 0);
    json_decref(arguments);
}

/* ---- the templates ---- */

static void begin(const chat_template *c, struct prompt *p) {
    if (c->traits.begins_with_bos) put_id(p, tokenizer_bos(c->t));
}

static void render_deepseek_llm(const chat_template *c, struct prompt *p, const engine_chat *chat) {
    const engine_message *m = chat->messages;

    begin(c, p);
    for (int i = 0; i < chat->nmessages; i++) {
        role r = role_of(&m[i]);
        put(p, r == ROLE_USER ? "User: " : r == ROLE_ASSISTANT ? "Assistant: " : "");
        put_span(p, text_of(c, &m[i]));
        if (r == ROLE_ASSISTANT)
            put_id(p, tokenizer_eos(c->t));
        else
            put(p, "\n\n");
    }
    put(p, "Assistant:");
}

/* All system messages stand before the dialogue, wherever they came. */
static void put_systems(const chat_template *c, struct prompt *p, const engine_message *m, int n) {
    const engine_message *last = NULL;

    for (int i = 0; i < n; i++) {
        if (role_of(&m[i]) != ROLE_SYSTEM) continue;
        if (c->traits.joins_systems) {
            if (last != NULL) put(p, "\n\n");
            put_span(p, text_of(c, &m[i]));
        }
        last = &m[i];
    }
    if (last != NULL && !c->traits.joins_systems) put_span(p, text_of(c, last));
}

enum { DEEPSEEK_USER, DEEPSEEK_ASSISTANT, DEEPSEEK_END };

static void render_deepseek(const chat_template *c, struct prompt *p, const engine_chat *chat) {
    const engine_message *m = chat->messages;

    begin(c, p);
    put_systems(c, p, m, chat->nmessages);
    for (int i = 0; i < chat->nmessages; i++) {
        span text = text_of(c, &m[i]);
        switch (role_of(&m[i])) {
        case ROLE_USER:
            put_id(p, c->controls[DEEPSEEK_USER]);
            put_span(p, text);
            break;
        case ROLE_ASSISTANT:
            put_id(p, c->controls[DEEPSEEK_ASSISTANT]);
            put_span(p, c->traits.drops_thoughts ? without_thoughts(text) : text);
            put_id(p, c->controls[DEEPSEEK_END]);
            break;
        default: break;
        }
    }
    put_id(p, c->controls[DEEPSEEK_ASSISTANT]);
    put_opening(p, c->traits.opening);
}

enum { LLAMA3_START, LLAMA3_END, LLAMA3_EOT };

static void put_llama3_header(const chat_template *c, struct prompt *p, const char *name) {
    put_id(p, c->controls[LLAMA3_START]);
    put(p, name);
    put_id(p, c->controls[LLAMA3_END]);
    put(p, "\n\n");
}

/* The template has no more than one call in a turn, and leaves its content out. */
static void put_llama3_call(struct prompt *p, const engine_message *m) {
    if (m->ncalls > 1)
        fail_chat(p, "the model's chat template takes one tool call in a turn, not %d", m->ncalls);
    put(p, "{\"name\": \"");
    put(p, m->calls[0].name);
    put(p, "\", \"parameters\": ");
    put_arguments(p, m, 0);
    put(p, "}");
}

static void put_llama3_turns(const chat_template *c, struct prompt *p, const engine_message *m, int n) {
    for (int i = 0; i < n; i++) {
        role r = role_of(&m[i]);
        put_llama3_header(c, p, r == ROLE_TOOL ? "ipython" : role_names[r]);
        if (m[i].ncalls)
            put_llama3_call(p, &m[i]);
        else if (r == ROLE_TOOL) /* a string is one of Jinja's iterables, and so written as JSON */
            pyjson_put_string(&p->text, m[i].content, m[i].content_len);
        else
            put_span(p, text_of(c, &m[i]));
        put_id(p, c->controls[LLAMA3_EOT]);
    }
    put_llama3_header(c, p, "assistant");
}

static void render_llama3(const chat_template *c, struct prompt *p, const engine_chat *chat) {
    begin(c, p);
    put_llama3_turns(c, p, chat->messages, chat->nmessages);
}

/* Tools are told in the first turn after the system's, before what the user says there. */
static void put_llama31_tools(const chat_template *c, struct prompt *p, const engine_chat *chat,
                              const engine_message *first) {
    put_llama3_header(c, p, "user");
    put(p, "Given the following functions, please respond with a JSON for a function call with its proper "
           "arguments that best answers the given prompt.\n\nRespond in the format {\"name\": function name, "
           "\"parameters\": dictionary of argument name and its value}.Do not use variables.\n\n");
    for (int i = 0; i < chat->ntools; i++) {
        put_tool(p, chat->tools, i, 4);
        put(p, "\n\n");
    }
    put_span(p, text_of(c, first));
    put_id(p, c->controls[LLAMA3_EOT]);
}

/* The date is the template's own fixed one: with today's, the same request would not give the same answer tomorrow. */
static void render_llama31(const chat_template *c, struct prompt *p, const engine_chat *chat) {
    const engine_message *m = chat->messages;
    int n = chat->nmessages, at = role_of(&m[0]) == ROLE_SYSTEM;

    begin(c, p);
    put_llama3_header(c, p, "system");
    if (chat->ntools) put(p, "Environment: ipython\n");
    put(p, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
    if (at) put_span(p, text_of(c, &m[0]));
    put_id(p, c->controls[LLAMA3_EOT]);
    if (chat->ntools) {
        if (at == n || role_of(&m[at]) != ROLE_USER) {
            fail_chat(p,
                      "the model's chat template tells of the tools in the first user message: there must be "
                      "one at the beginning");
            return;
        }
        put_llama31_tools(c, p, chat, &m[at++]);
    }
    put_llama3_turns(c, p, m + at, n - at);
}

enum { CHATML_START, CHATML_END };

static void put_chatml_turn(const chat_template *c, struct prompt *p, role r, span text) {
    put_id(p, c->controls[CHATML_START]);
    put(p, role_names[r]);
    put(p, "\n");
    put_span(p, text);
    put_id(p, c->controls[CHATML_END]);
    put(p, "\n");
}

/* An earlier answer as QwQ's template keeps it. */
static span chatml_text(const chat_template *c, const engine_message *m, bool last) {
    span text = text_of(c, m);

    if (!c->traits.drops_thoughts || (last && c->traits.keeps_last) || role_of(m) != ROLE_ASSISTANT)
        return text;
    text = without_thoughts(text);
    while (text.n > 0 && text.s[0] == '\n') text = (span){text.s + 1, text.n - 1};
    return text;
}

static void put_hermes_tools(const chat_template *c, struct prompt *p, const engine_chat *chat) {
    put_id(p, c->controls[CHATML_START]);
    put(p, "system\n");
    if (role_of(&chat->messages[0]) == ROLE_SYSTEM)
        put_span(p, text_of(c, &chat->messages[0]));
    else
        put(p, c->traits.system);
    put(p, "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "
           "provided "
           "with function signatures within <tools></tools> XML tags:\n<tools>");
    for (int i = 0; i < chat->ntools; i++) {
        put(p, "\n");
        put_tool(p, chat->tools, i, 0);
    }
    put_tagged(p,
               "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
               "within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, "
               "\"arguments\": <args-json-object>}\n</tool_call>");
    put_id(p, c->controls[CHATML_END]);
    put(p, "\n");
}

static void put_hermes_calls(const chat_template *c, struct prompt *p, const engine_message *m, span text) {
    put_id(p, c->controls[CHATML_START]);
    put(p, "assistant");
    if (m->content_len) {
        put(p, "\n");
        put_span(p, text);
    }
    for (int i = 0; i < m->ncalls; i++) {
        put_tagged(p, "\n<tool_call>\n");
        put(p, "{\"name\": \"");
        put(p, m->calls[i].name);
        put(p, "\", \"arguments\": ");
        put_arguments(p, m, i);
        put_tagged(p, "}\n</tool_call>");
    }
    put_id(p, c->controls[CHATML_END]);
    put(p, "\n");
}

/* What tools said one after the other is one turn of the user's. */
static void put_hermes_response(const chat_template *c, struct prompt *p, span text, bool first, bool last) {
    if (first) {
        put_id(p, c->controls[CHATML_START]);
        put(p, "user");
    }
    put_tagged(p, "\n<tool_response>\n");
    put_span(p, text);
    put_tagged(p, "\n</tool_response>");
    if (!last) return;
    put_id(p, c->controls[CHATML_END]);
    put(p, "\n");
}

static bool is_tool_at(const engine_chat *chat, int i) {
    return i >= 0 && i < chat->nmessages && role_of(&chat->messages[i]) == ROLE_TOOL;
}

static void render_chatml(const chat_template *c, struct prompt *p, const engine_chat *chat) {
    const char *system = c->traits.system;
    const engine_message *m = chat->messages;
    bool has_system = role_of(&m[0]) == ROLE_SYSTEM;

    begin(c, p);
    if (chat->ntools)
        put_hermes_tools(c, p, chat);
    else if (system[0] && !has_system)
        put_chatml_turn(c, p, ROLE_SYSTEM, (span){system, strlen(system)});
    for (int i = chat->ntools && has_system; i < chat->nmessages; i++) {
        role r = role_of(&m[i]);
        span text = chatml_text(c, &m[i], i == chat->nmessages - 1);
        if (r == ROLE_TOOL)
            put_hermes_response(c, p, text, !is_tool_at(chat, i - 1), !is_tool_at(chat, i + 1));
        else if (m[i].ncalls)
            put_hermes_calls(c, p, &m[i], text);
        else
            put_chatml_turn(c, p, r, text);
    }
    put_id(p, c->controls[CHATML_START]);
    put(p, "assistant\n");
    put_opening(p, c->traits.opening);
}

/* ---- the kinds ---- */

#define DEEPSEEK_CONTROLS                                                                                    \
    { "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>" }
#define LLAMA3_CONTROLS                                                                                      \
    { "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>" }
#define LLAMA3_STOPS                                                                                         \
    { "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>" }
#define CHATML_CONTROLS                                                                                      \
    { "<|im_start|>", "<|im_end|>" }
#define CHATML_STOPS                                                                                         \
    { "<|im_end|>", "<|endoftext|>" }

const char chat_template_names[] =
    "deepseek-llm, deepseek-v3, deepseek-r1, llama-3, llama-3.1, chatml, qwen2, qwen2.5, qwq";

static const struct style styles[TEMPLATE_KINDS] = {
    [TEMPLATE_DEEPSEEK_LLM] =
        {"deepseek-llm", render_deepseek_llm, {NULL}, {NULL}, {.begins_with_bos = true}},
    [TEMPLATE_DEEPSEEK_V3] = {"deepseek-v3",
                              render_deepseek,
                              DEEPSEEK_CONTROLS,
                              {"<｜end▁of▁sentence｜>"},
                              {.begins_with_bos = true, .joins_systems = true}},
    [TEMPLATE_DEEPSEEK_R1] =
        {"deepseek-r1",
         render_deepseek,
         DEEPSEEK_CONTROLS,
         {"<｜end▁of▁sentence｜>"},
         {.begins_with_bos = true, .joins_systems = true, .drops_thoughts = true, .opening = "<think>\n"}},
    [TEMPLATE_LLAMA3] =
        {"llama-3", render_llama3, LLAMA3_CONTROLS, LLAMA3_STOPS, {.begins_with_bos = true, .trims = true}},
    [TEMPLATE_LLAMA31] = {"llama-3.1",
                          render_llama31,
                          LLAMA3_CONTROLS,
                          LLAMA3_STOPS,
                          {.begins_with_bos = true, .trims = true, .calls = CALL_LLAMA}},
    [TEMPLATE_CHATML] = {"chatml", render_chatml, CHATML_CONTROLS, CHATML_STOPS, {.trims = false}},
    [TEMPLATE_QWEN2] =
        {"qwen2", render_chatml, CHATML_CONTROLS, CHATML_STOPS, {.system = "You are a helpful assistant."}},
    [TEMPLATE_QWEN25] = {"qwen2.5",
                         render_chatml,
                         CHATML_CONTROLS,
                         CHATML_STOPS,
                         {.system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
                          .calls = CALL_HERMES}},
    [TEMPLATE_QWQ] =
        {"qwq",
         render_chatml,
         CHATML_CONTROLS,
         CHATML_STOPS,
         {.drops_thoughts = true, .keeps_last = true, .opening = "<think>\n", .calls = CALL_HERMES}},
};

static const struct style *style_named(const char *name) {
    for (int i = 0; i < TEMPLATE_KINDS; i++)
        if (strcmp(styles[i].name, name) == 0) return &styles[i];
    return NULL;
}

/* ---- the contract ---- */

static int choose(chat_template *c, const char *name, engine_error *err) {
    const char *source = tokenizer_chat_template(c->t);
    template_kind kind = TEMPLATE_DEEPSEEK_LLM;

    if (name != NULL) {
        c->style = style_named(name);
        if (c->style == NULL)
            return engine_fail(err, ENGINE_EINVAL, "there is no chat template \"%.40s\"; there are %s", name,
                               chat_template_names);
        c->traits = c->style->traits;
        return 0;
    }
    if (source == NULL)
        return engine_fail(err, ENGINE_EFORMAT, "the checkpoint has no chat template; choose one of %s",
                           chat_template_names);
    if (template_recognize(source, &kind, &c->traits) != 0)
        return engine_fail(
            err, ENGINE_EFORMAT,
            "the checkpoint's chat template is not one that is known; choose the one of %s that it "
            "equals, if any",
            chat_template_names);
    c->style = &styles[kind];
    return 0;
}

static int find_controls(chat_template *c, engine_error *err) {
    for (int i = 0; i < CONTROLS_MAX && c->style->controls[i] != NULL; i++) {
        c->controls[i] = tokenizer_id(c->t, c->style->controls[i]);
        if (c->controls[i] < 0)
            return engine_fail(err, ENGINE_EFORMAT,
                               "the chat template %s needs the token %s, which tokenizer.json "
                               "does not have",
                               c->style->name, c->style->controls[i]);
    }
    if (c->style->render == render_deepseek_llm && tokenizer_eos(c->t) < 0)
        return engine_fail(err, ENGINE_EFORMAT,
                           "the chat template %s needs an eos_token in tokenizer_config.json",
                           c->style->name);
    return 0;
}

chat_template *chat_template_new(const tokenizer *t, const char *name, engine_error *err) {
    chat_template *c = calloc(1, sizeof *c);

    if (c == NULL) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
        return NULL;
    }
    c->t = t;
    if (choose(c, name, err) == 0 && find_controls(c, err) == 0) return c;
    free(c);
    return NULL;
}

void chat_template_free(chat_template *c) {
    free(c);
}

const char *chat_template_name(const chat_template *c) {
    return c->style->name;
}

bool chat_template_opens_thinking(const chat_template *c) {
    return c->traits.opening[0] != 0;
}

call_form chat_template_calls(const chat_template *c) {
    return c->traits.calls;
}

static int check_chat(const chat_template *c, const engine_chat *chat, engine_error *err) {
    bool tools = c->traits.calls != CALL_NONE;

    if (chat->nmessages <= 0)
        return engine_fail(err, ENGINE_EINVAL, "messages is empty: a chat needs at least one message");
    if (chat->ntools && !tools)
        return engine_fail(err, ENGINE_EINVAL, "tools: this model's chat template (%s) has none",
                           c->style->name);
    for (int i = 0; i < chat->nmessages; i++) {
        const engine_message *m = &chat->messages[i];
        role r = role_of(m);
        if (r == ROLE_UNKNOWN || (r == ROLE_TOOL && !tools))
            return engine_fail(
                err, ENGINE_EINVAL,
                "messages[%d] has the role \"%.20s\", which the model's chat template (%s) does not "
                "take; system, developer, user and assistant are",
                i, m->role, c->style->name);
        if (m->ncalls && (!tools || r != ROLE_ASSISTANT))
            return engine_fail(err, ENGINE_EINVAL, "messages[%d] has tool calls, which %s (%s) does not take",
                               i, tools ? "its role" : "the model's chat template",
                               tools ? m->role : c->style->name);
    }
    return 0;
}

int64_t chat_template_render(const chat_template *c, const engine_chat *chat, int32_t *out, size_t cap,
                             engine_error *err) {
    struct prompt p = {.t = c->t, .out = out, .cap = cap, .err = err};

    if (check_chat(c, chat, err) != 0) return -1;
    c->style->render(c, &p, chat);
    flush_text(&p);
    text_buf_done(&p.text);
    return p.n;
}

static int add_stop(int32_t out[8], int n, int32_t id) {
    for (int i = 0; i < n; i++)
        if (out[i] == id) return n;
    if (id >= 0) out[n++] = id;
    return n;
}

int chat_template_stops(const chat_template *c, int32_t out[8]) {
    int n = add_stop(out, 0, tokenizer_eos(c->t));

    for (int i = 0; i < STOPS_MAX && c->style->stops[i] != NULL; i++)
        n = add_stop(out, n, tokenizer_id(c->t, c->style->stops[i]));
    return n;
}

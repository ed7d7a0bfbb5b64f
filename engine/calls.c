/* See calls.h. Text is appended to `held`, and leaves it at the front as content, as arguments, or dropped as markup. The reader
 * relies on the grammar for the order of things, and on nothing for its bounds. */
#include "engine/calls.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char OPEN[] = "<tool_call>", CLOSE[] = "\n</tool_call>";
enum { OPEN_LEN = sizeof OPEN - 1, BLANKS_MAX = 64 };

int calls_init(calls *c, size_t longest_text, engine_error *err) {
    memset(c, 0, sizeof *c);
    c->cap = CALLS_HELD + 2 * longest_text;
    size_t each = c->cap + CALL_NAME_MAX + 1;
    c->held = malloc(each * (ANSWER_TEXTS + 1));
    for (size_t i = 0; c->held && i < ANSWER_TEXTS; i++) c->out[i] = c->held + (i + 1) * each;
    return c->held ? 0 : engine_fail(err, ENGINE_ENOMEM, "no memory for the tool calls of a sequence");
}

void calls_done(calls *c) {
    free(c->held);
    memset(c, 0, sizeof *c);
}

/* ---- the grammar ---- */

/* Is the tool held to its schema? */
static bool keeps_schema(const engine_tools *t, const engine_tool *tool) {
    return tool->parameters && (tool->strict || t->must_call);
}

static json_t *spec_of_tool(const engine_tools *t, const engine_tool *tool) {
    json_t *schema =
        keeps_schema(t, tool) ? json_loadb(tool->parameters, tool->parameters_len, 0, NULL) : NULL;
    return json_pack("{s:[s], s:o*, s:b}", "names", tool->name, "schema", schema, "strict", tool->strict);
}

/* Tools of which any object is an argument are one to the grammar. */
static int put_tools(const engine_tools *t, json_t *list) {
    json_t *free_names = json_array();
    int rc = free_names ? 0 : -1;
    for (int i = 0; i < t->n && rc == 0; i++) {
        const engine_tool *tool = &t->v[i];
        if (t->only && strcmp(t->only, tool->name) != 0) continue;
        if (keeps_schema(t, tool))
            rc = json_array_append_new(list, spec_of_tool(t, tool));
        else
            rc = json_array_append_new(free_names, json_string(tool->name));
    }
    if (rc == 0 && json_array_size(free_names))
        rc = json_array_append_new(list, json_pack("{s:O}", "names", free_names));
    json_decref(free_names);
    return rc;
}

static char *spec_of(call_form form, const engine_tools *t) {
    bool hermes = form == CALL_HERMES;
    json_t *list = json_array(), *spec = NULL;
    if (list && put_tools(t, list) == 0)
        spec = json_pack("{s:O, s:s, s:s*, s:s*, s:s*}", "tools", list, "arguments",
                         hermes ? "arguments" : "parameters", "open", hermes ? OPEN : NULL, "close",
                         hermes ? CLOSE : NULL, "again", hermes && !t->one_call ? "\n" : NULL);
    char *text = spec ? json_dumps(spec, JSON_COMPACT) : NULL;
    json_decref(spec);
    json_decref(list);
    return text;
}

static int check_tools(call_form form, const engine_tools *t, engine_error *err) {
    bool found = !t->only;
    if (form == CALL_NONE)
        return engine_fail(err, ENGINE_EINVAL, "tools: this model's chat template has none");
    for (int i = 0; i < t->n; i++) {
        const engine_tool *tool = &t->v[i];
        json_error_t why;
        json_t *schema =
            tool->parameters ? json_loadb(tool->parameters, tool->parameters_len, 0, &why) : NULL;
        bool wrong = tool->parameters && !json_is_object(schema);
        json_decref(schema);
        if (wrong)
            return engine_fail(err, ENGINE_EINVAL, "tools[%d]: the parameters must be a JSON schema", i);
        size_t n = strlen(tool->name);
        if (!n || n > CALL_NAME_MAX || strpbrk(tool->name, "\"\\"))
            return engine_fail(err, ENGINE_EINVAL,
                               "tools[%d]: the name must have 1 to %d letters, digits, _ or -", i,
                               CALL_NAME_MAX);
        found |= t->only && strcmp(t->only, tool->name) == 0;
    }
    return found ? 0 : engine_fail(err, ENGINE_EINVAL, "there is no tool %.64s to call", t->only);
}

int calls_start(calls *c, call_form form, const engine_tools *tools, grammar_store *grammars,
                engine_error *err) {
    calls_end(c);
    c->phase = CALLS_OFF;
    c->form = form;
    c->must = tools->n && tools->must_call;
    c->begun = c->depth = 0;
    c->part = CALL_BEFORE;
    c->quoted = c->escaped = false;
    c->nheld = c->nname = 0;
    if (!tools->n) return 0;
    if (check_tools(form, tools, err)) return -1;
    char *spec = spec_of(form, tools);
    grammar *g = spec ? grammar_store_calls(grammars, spec, strlen(spec), err) : NULL;
    if (!spec) engine_fail(err, ENGINE_ENOMEM, "out of memory for tools");
    free(spec);
    if (!g) return -1;
    c->cursor = grammar_cursor_new(g);
    grammar_unref(g);
    if (!c->cursor) return engine_fail(err, ENGINE_ENOMEM, "out of memory for tools");
    c->phase = c->must ? CALLS_READING : CALLS_LOOKING;
    return 0;
}

void calls_end(calls *c) {
    grammar_cursor_free(c->cursor);
    c->cursor = NULL;
}

/* ---- text ---- */

static bool is_blank(char ch) {
    return ch == ' ' || ch == '\n' || ch == '\r' || ch == '\t';
}

static size_t count_blanks(const calls *c) {
    size_t n = 0;
    while (n < c->nheld && is_blank(c->held[n])) n++;
    return n;
}

static void drop_held(calls *c, size_t n) {
    c->nheld -= n;
    memmove(c->held, c->held + n, c->nheld);
}

static char *next_out(calls *c) {
    char *out = c->out[c->turn];
    c->turn = (c->turn + 1) % ANSWER_TEXTS;
    return out;
}

static calls_text release(calls *c, size_t n) {
    char *text = next_out(c);
    memcpy(text, c->held, n);
    drop_held(c, n);
    return (calls_text){ENGINE_CONTENT, text, n, 0, ""};
}

/* ---- reading calls ---- */

/* A byte of the arguments; false behind their end. */
static bool in_arguments(calls *c, char ch) {
    if (c->quoted) {
        c->quoted = c->escaped || ch != '"';
        c->escaped = !c->escaped && ch == '\\';
        return true;
    }
    c->quoted = ch == '"';
    if (ch == '{' || ch == '[') c->depth++;
    if (ch == '}' || ch == ']') c->depth--;
    return c->depth > 0;
}

/* A byte before the arguments: the first string of a call is the key "name", the second is the name, the third the key of the
 * arguments, which begin with the next bracket. */
static void before_arguments(calls *c, char ch) {
    switch (c->part) {
    case CALL_BEFORE:
        c->nname = 0;
        if (ch == '{') c->part = CALL_KEY;
        break;
    case CALL_KEY:
        if (ch == ':') c->part = CALL_NAME;
        break;
    case CALL_NAME:
        if (ch == '"' && c->quoted) {
            c->name[c->nname] = 0;
            c->begun++;
            c->part = CALL_ARGUMENTS;
        } else if (c->quoted && c->nname < CALL_NAME_MAX) {
            c->name[c->nname++] = ch;
        }
        if (ch == '"') c->quoted = !c->quoted;
        break;
    case CALL_ARGUMENTS: break;
    }
}

/* Reads on in held text, up to where the arguments of one call end: what follows waits for the next push. */
static calls_text read_calls(calls *c) {
    char *out = next_out(c), *text = out + CALL_NAME_MAX + 1;
    size_t n = 0, at = 0;
    bool more = true;
    while (at < c->nheld && more) {
        char ch = c->held[at++];
        if (c->part != CALL_ARGUMENTS) {
            before_arguments(c, ch);
        } else if (c->depth || ch == '{') {
            text[n++] = ch;
            more = in_arguments(c, ch);
            if (!more) c->part = CALL_BEFORE;
        }
    }
    /* the bracket that closes the call itself is of CALL_BEFORE, as all markup is */
    memcpy(out, c->name, CALL_NAME_MAX + 1);
    drop_held(c, at);
    return n ? (calls_text){ENGINE_CALL, text, n, c->begun - 1, out}
             : (calls_text){ENGINE_CONTENT, text, 0, 0, ""};
}

/* ---- looking for the first ---- */

static size_t find_open(const calls *c) {
    const char *at = memmem(c->held, c->nheld, OPEN, OPEN_LEN);
    return at ? (size_t)(at - c->held) : c->nheld;
}

/* How much of the end of held text may be the beginning of a call, with the blanks before it. */
static size_t uncertain(const calls *c) {
    size_t keep = OPEN_LEN - 1 < c->nheld ? OPEN_LEN - 1 : c->nheld, blanks = 0;
    while (keep && memcmp(c->held + c->nheld - keep, OPEN, keep) != 0) keep--;
    while (blanks < BLANKS_MAX && keep < c->nheld && is_blank(c->held[c->nheld - keep - 1])) keep++, blanks++;
    return keep;
}

/* Does the text from `at` on begin calls, with what the answer still holds back behind it? The cursor stays where it does not. */
static bool begins_calls(calls *c, size_t at, const answer *a) {
    char text[2 * CALLS_HELD];
    size_t n = c->nheld - at, part = (size_t)a->chars.npart;
    if (n + a->nheld + part > sizeof text) return false;
    memcpy(text, c->held + at, n);
    memcpy(text + n, a->held, a->nheld);
    memcpy(text + n + a->nheld, a->chars.part, part);
    return grammar_cursor_take(c->cursor, text, n + a->nheld + part);
}

static calls_text look_hermes(calls *c, const answer *a) {
    size_t at = find_open(c), blanks = 0;
    if (at == c->nheld) return release(c, c->nheld - uncertain(c));
    if (!begins_calls(c, at, a)) return release(c, at + OPEN_LEN);
    while (blanks < at && is_blank(c->held[at - blanks - 1])) blanks++;
    calls_text content = release(c, at - blanks);
    drop_held(c, blanks);
    c->phase = CALLS_READING;
    return content.n ? content : read_calls(c);
}

/* Up to and with the quote that ends the tool's name? */
static bool has_name(const calls *c) {
    int quotes = 0;
    for (size_t i = 0; i < c->nheld; i++) quotes += c->held[i] == '"';
    return quotes >= 4;
}

/* fresh: bytes of held text that the cursor has not seen. */
static calls_text look_llama(calls *c, size_t fresh, const answer *a) {
    size_t blanks = count_blanks(c), unseen = c->nheld - blanks < fresh ? c->nheld - blanks : fresh;
    bool may_be = blanks <= BLANKS_MAX && c->nheld < CALLS_HELD &&
                  grammar_cursor_take(c->cursor, c->held + c->nheld - unseen, unseen);
    if (may_be && !has_name(c)) return release(c, 0);
    if (!may_be || !begins_calls(c, c->nheld, a)) {
        c->phase = CALLS_OFF;
        return release(c, c->nheld);
    }
    c->phase = CALLS_READING;
    return read_calls(c);
}

/* ---- the contract ---- */

calls_text calls_push(calls *c, const answer *a, answer_text text, bool *misfit) {
    if (c->phase == CALLS_OFF || text.channel != ENGINE_CONTENT)
        return (calls_text){text.channel, text.p, text.n, 0, ""};
    if (c->nheld + text.n > c->cap) {
        *misfit = true;
        return release(c, 0);
    }
    memcpy(c->held + c->nheld, text.p, text.n);
    c->nheld += text.n;
    if (c->phase == CALLS_READING) return read_calls(c);
    return c->form == CALL_HERMES ? look_hermes(c, a) : look_llama(c, text.n, a);
}

calls_text calls_finish(calls *c, const answer *a, answer_text text) {
    bool misfit = false;
    calls_text out = calls_push(c, a, text, &misfit);
    if (c->phase != CALLS_LOOKING || out.channel != ENGINE_CONTENT) return out;
    /* what might have begun a call is content after all, behind what the push has just given */
    char *joined = next_out(c);
    memcpy(joined, out.p, out.n);
    memcpy(joined + out.n, c->held, c->nheld);
    out = (calls_text){ENGINE_CONTENT, joined, out.n + c->nheld, 0, ""};
    c->nheld = 0;
    return out;
}

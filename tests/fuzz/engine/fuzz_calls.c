/* Any text as an answer that may call tools, in pieces of any size: what is no call comes out as it came in. From where a call
 * begins, the bytes choose among what the grammar allows, as a model does: every call then has a tool's name and a JSON object.
 * Without the grammar, which the reader does not rely on for its bounds, anything may come, and only memory is looked at.
 *
 * The first byte says how: the form, what is demanded of the calls, the grammar or not; the second, the size of the pieces. */
#include "engine/calls.h"
#include "tests/fuzz/engine/bytes.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { PIECE_MAX = 64, SAID_MAX = 1 << 16, BYTES_MAX = 1024 };
enum { LLAMA = 1, MUST = 2, ONE = 4, ONLY = 8, FREE = 16, STOPS = 32 };

static const char schema[] =
    "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"},\"days\":{\"enum\":[1,2]}},"
    "\"required\":[\"city\"],\"additionalProperties\":false}";
static const engine_tool tools[] = {
    {.name = "get_weather", .parameters = schema, .parameters_len = sizeof schema - 1, .strict = true},
    {.name = "get"},
};

typedef struct said {
    size_t n;
    char text[SAID_MAX];
} said;

typedef struct reader {
    int how;
    answer answer, plain; /* plain: the same text where there are no tools */
    calls calls;
    bool misfit;
    said content, untouched, arguments;
    int call; /* the one whose arguments come; -1: none yet */
} reader;

static void must(bool ok) {
    if (!ok) abort();
}

static void put(said *s, const char *p, size_t n) {
    must(n <= SAID_MAX - s->n);
    memcpy(s->text + s->n, p, n);
    s->n += n;
}

/* ---- what comes out ---- */

/* A call that another one follows is whole. */
static void check_arguments(const reader *r) {
    json_t *j = json_loadb(r->arguments.text, r->arguments.n, JSON_ALLOW_NUL, NULL);
    must(json_is_object(j));
    json_decref(j);
}

static void hear_call(reader *r, calls_text t) {
    must(strlen(t.name) <= CALL_NAME_MAX && t.call < r->calls.begun);
    if (r->how & FREE) return;
    must(strcmp(t.name, tools[0].name) == 0 || (strcmp(t.name, tools[1].name) == 0 && !(r->how & ONLY)));
    must(t.call == r->call || t.call == r->call + 1);
    if (t.call > r->call && r->call >= 0) check_arguments(r);
    if (t.call > r->call) r->arguments.n = 0;
    r->call = t.call;
    put(&r->arguments, t.p, t.n);
}

static void hear(reader *r, calls_text t) {
    if (t.channel == ENGINE_CALL) hear_call(r, t);
    if (t.channel != ENGINE_CONTENT || !t.n) return;
    must(r->calls.begun == 0 || r->how & FREE);
    put(&r->content, t.p, t.n);
}

static void hear_plain(reader *r, answer_text t) {
    if (t.channel == ENGINE_CONTENT) put(&r->untouched, t.p, t.n);
}

/* ---- what goes in, as engine.c does it ---- */

static void push(reader *r, const char *piece, size_t n) {
    if (r->calls.phase == CALLS_READING && !(r->how & FREE))
        r->misfit = r->answer.phase == ANSWER_THINKING || !grammar_cursor_take(r->calls.cursor, piece, n);
    hear(r, calls_push(&r->calls, &r->answer, answer_push(&r->answer, piece, n, true), &r->misfit));
    hear_plain(r, answer_push(&r->plain, piece, n, true));
    if (r->calls.phase == CALLS_READING) r->answer.nstops = r->plain.nstops = 0;
}

/* False: the grammar ends the answer. */
static bool draw(reader *r, uint8_t choice) {
    bool extendable = true;
    if (grammar_cursor_complete(r->calls.cursor, &extendable) && (!extendable || r->calls.begun == CALLS_MAX))
        return false;
    int32_t id = bytes_nth(grammar_cursor_mask(r->calls.cursor), choice);
    char byte = (char)id;
    must(id >= 0);
    if (id == BYTES_END) return false;
    push(r, &byte, 1);
    must(!r->misfit);
    return true;
}

static void finish(reader *r) {
    bool complete = false, extendable;
    if (r->calls.phase == CALLS_READING) complete = grammar_cursor_complete(r->calls.cursor, &extendable);
    hear(r, calls_finish(&r->calls, &r->answer, answer_finish(&r->answer)));
    hear_plain(r, answer_finish(&r->plain));
    if (r->how & FREE || r->misfit) return;
    if (complete) check_arguments(r);
    must(r->content.n <= r->untouched.n && memcmp(r->content.text, r->untouched.text, r->content.n) == 0);
    if (r->calls.phase != CALLS_READING) must(r->content.n == r->untouched.n);
}

static void begin(reader *r, int how) {
    static grammar_store *grammars;
    static const char *const stops[] = {"</tool_call>", "stop"};
    engine_error err;
    if (!grammars) grammars = grammar_store_new(bytes_vocab(), &err);
    *r = (reader){.how = how, .call = -1};
    must(grammars && answer_init(&r->answer, PIECE_MAX, &err) == 0 &&
         answer_init(&r->plain, PIECE_MAX, &err) == 0 && calls_init(&r->calls, r->answer.cap, &err) == 0);
    int nstops = how & STOPS ? 2 : 0;
    must(answer_start(&r->answer, false, stops, nstops, &err) == 0 &&
         answer_start(&r->plain, false, stops, nstops, &err) == 0);
    const engine_tools asked = {.v = tools,
                                .n = 2,
                                .must_call = how & MUST,
                                .only = how & ONLY ? "get_weather" : NULL,
                                .one_call = how & ONE};
    must(calls_start(&r->calls, how & LLAMA ? CALL_LLAMA : CALL_HERMES, &asked, grammars, &err) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static reader r;
    if (n < 2) return 0;
    size_t end = n < BYTES_MAX ? n : BYTES_MAX;
    begin(&r, data[0]);
    for (size_t at = 2, size; at < end && !r.misfit && !r.answer.stopped; at += size) {
        size = 1;
        if (r.calls.phase == CALLS_READING && !(r.how & FREE)) {
            if (!draw(&r, data[at])) break;
            continue;
        }
        size = 1 + (data[1] + at) % (1 + data[1] % PIECE_MAX);
        if (size > end - at) size = end - at;
        push(&r, (const char *)data + at, size);
    }
    finish(&r);
    calls_end(&r.calls);
    calls_done(&r.calls);
    answer_done(&r.answer);
    answer_done(&r.plain);
    return 0;
}

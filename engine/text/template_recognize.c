/* Which of the known templates a Jinja source is. Marks are looked for, nothing is evaluated; a source that has the marks
 * of a known family and of something more is refused, because a prompt that is nearly right makes answers nearly right.
 * Pure functions. */
#include "engine/text/template_internal.h"

#include <stddef.h>
#include <string.h>

static bool has(const char *source, const char *mark) {
    return strstr(source, mark) != NULL;
}

static const char *find_last(const char *source, const char *mark) {
    const char *last = NULL;

    for (const char *p = source; (p = strstr(p, mark)) != NULL; p++) last = p;
    return last;
}

/* Copies the rest of a string literal, from p to its quote, or to `stop` in it. False when it is not there or too long. */
static bool rest_of_literal(const char *p, const char *stop, char out[TEMPLATE_TEXT_MAX]) {
    size_t n = 0;

    for (; *p != 0 && n < TEMPLATE_TEXT_MAX - 1; p++) {
        bool quote = *p == '\'' || *p == '"';
        if (stop ? strncmp(p, stop, strlen(stop)) == 0 : quote) {
            out[n] = 0;
            return true;
        }
        if (quote) return false;
        if (*p == '\\' && p[1] != 0) {
            p++;
            out[n++] = (char)(*p == 'n' ? '\n' : *p);
        } else {
            out[n++] = *p;
        }
    }
    return false;
}

/* What the generation prompt puts after `mark`, the last one in the source. */
static bool read_opening(const char *source, const char *mark, template_traits *traits) {
    const char *p = find_last(source, mark);

    if (p == NULL || !rest_of_literal(p + strlen(mark), NULL, traits->opening)) return false;
    return traits->opening[0] == 0 || strcmp(traits->opening, "<think>\n") == 0 ||
           strcmp(traits->opening, "<think>") == 0;
}

/* A line break in a literal is written as \n, or is one. */
static const char *after_newline(const char *p) {
    if (p[0] == '\n') return p + 1;
    return p[0] == '\\' && p[1] == 'n' ? p + 2 : NULL;
}

static int recognize_deepseek(const char *source, template_kind *kind, template_traits *traits) {
    bool thinks = has(source, "</think>");

    /* V3.1 and later open or close thinking by a parameter */
    if (has(source, "is_last_user") || !read_opening(source, "<｜Assistant｜>", traits)) return -1;
    if (!thinks && traits->opening[0]) return -1;
    *kind = thinks ? TEMPLATE_DEEPSEEK_R1 : TEMPLATE_DEEPSEEK_V3;
    traits->begins_with_bos = true;
    traits->joins_systems = has(source, "is_first_sp");
    traits->drops_thoughts = thinks;
    return 0;
}

/* Tools are told to the model in one wording a form: another is taken for a template without tools. */
static call_form recognize_calls(const char *source) {
    static const struct {
        call_form form;
        const char *marks[4];
    } known[] = {
        {CALL_HERMES,
         {"# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\nYou are "
          "provided with "
          "function signatures within <tools></tools> XML tags:\\n<tools>",
          "\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments "
          "within "
          "<tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\\"name\\\": <function-name>, "
          "\\\"arguments\\\": "
          "<args-json-object>}\\n</tool_call><|im_end|>",
          "tool_call.arguments | tojson", "\\n<tool_response>\\n"}},
        {CALL_LLAMA,
         {"set tools_in_user_message = true",
          "with its proper arguments that best answers the given prompt.\\n\\n",
          "'Respond in the format {\"name\": function name, \"parameters\": dictionary of argument name and "
          "its value}.'",
          "t | tojson(indent=4)"}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        int found = 0;
        while (found < 4 && has(source, known[i].marks[found])) found++;
        if (found == 4) return known[i].form;
    }
    return CALL_NONE;
}

static int recognize_llama3(const char *source, template_kind *kind, template_traits *traits) {
    if (has(source, "<think>")) return -1;
    *kind = has(source, "Cutting Knowledge Date: December 2023") ? TEMPLATE_LLAMA31 : TEMPLATE_LLAMA3;
    traits->begins_with_bos = has(source, "bos_token");
    traits->trims = has(source, "trim");
    if (*kind == TEMPLATE_LLAMA31) traits->calls = recognize_calls(source);
    return 0;
}

/* The system prompt that stands in the template as a literal. */
static void read_default_system(const char *source, template_traits *traits) {
    static const char mark[] = "<|im_start|>system";

    for (const char *p = source; (p = strstr(p, mark)) != NULL; p++) {
        const char *text = after_newline(p + sizeof mark - 1);
        if (text != NULL && rest_of_literal(text, "<|im_end|>", traits->system)) return;
        traits->system[0] = 0;
    }
}

static bool read_chatml_opening(const char *source, template_traits *traits) {
    static const char *const marks[] = {"<|im_start|>assistant\\n", "<|im_start|>assistant\n"};

    return read_opening(source, marks[0], traits) || read_opening(source, marks[1], traits);
}

static int recognize_chatml(const char *source, template_kind *kind, template_traits *traits) {
    /* Qwen3 and its like choose by parameters how to think */
    if (has(source, "enable_thinking") || has(source, "reasoning_content")) return -1;
    if (!read_chatml_opening(source, traits)) return -1;
    if (has(source, "</think>") != (traits->opening[0] != 0)) return -1;
    read_default_system(source, traits);
    if (traits->system[0] == 0 && has(source, "You are a")) return -1;
    traits->begins_with_bos = has(source, "bos_token");
    traits->trims = has(source, "trim");
    traits->drops_thoughts = traits->opening[0] != 0;
    traits->keeps_last = has(source, "not loop.last");
    traits->calls = recognize_calls(source);
    if (traits->opening[0])
        *kind = TEMPLATE_QWQ;
    else if (strncmp(traits->system, "You are Qwen", 12) == 0)
        *kind = TEMPLATE_QWEN25;
    else
        *kind = traits->system[0] ? TEMPLATE_QWEN2 : TEMPLATE_CHATML;
    return 0;
}

static int recognize_deepseek_llm(const char *source, template_kind *kind, template_traits *traits) {
    if (!has(source, "'Assistant: ' + message['content'] + eos_token")) return -1;
    *kind = TEMPLATE_DEEPSEEK_LLM;
    traits->begins_with_bos = true;
    return 0;
}

int template_recognize(const char *source, template_kind *kind, template_traits *traits) {
    *traits = (template_traits){0};
    if (has(source, "<｜User｜>")) return recognize_deepseek(source, kind, traits);
    if (has(source, "<|start_header_id|>")) return recognize_llama3(source, kind, traits);
    if (has(source, "<|im_start|>")) return recognize_chatml(source, kind, traits);
    if (has(source, "'User: '")) return recognize_deepseek_llm(source, kind, traits);
    return -1;
}

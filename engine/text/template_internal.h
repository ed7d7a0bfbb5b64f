/* Between template.c, which renders, and template_recognize.c, which reads a checkpoint's Jinja source. */
#ifndef ENGINE_TEXT_TEMPLATE_INTERNAL_H
#define ENGINE_TEXT_TEMPLATE_INTERNAL_H

#include "engine/error.h"
#include "engine/text/template.h"

#include <stdbool.h>

typedef enum {
    TEMPLATE_DEEPSEEK_LLM,
    TEMPLATE_DEEPSEEK_V3,
    TEMPLATE_DEEPSEEK_R1,
    TEMPLATE_LLAMA3,
    TEMPLATE_LLAMA31,
    TEMPLATE_CHATML,
    TEMPLATE_QWEN2,
    TEMPLATE_QWEN25,
    TEMPLATE_QWQ,
    TEMPLATE_KINDS,
} template_kind;

enum { TEMPLATE_TEXT_MAX = 1024 };

/* In what checkpoints of one kind differ. */
typedef struct template_traits {
    bool begins_with_bos;
    bool trims;                      /* white space around every content is dropped */
    bool joins_systems;              /* several system messages are all kept; else the last one counts */
    bool drops_thoughts;             /* of an earlier answer, what stands before </think> is left out… */
    bool keeps_last;                 /* …but not of one that is the last message */
    call_form calls;                 /* the form of its parts for tools */
    char system[TEMPLATE_TEXT_MAX];  /* the system prompt where none is given; "": none */
    char opening[TEMPLATE_TEXT_MAX]; /* how an answer begins: "" or "<think>\n" */
} template_traits;

/* Finds kind and traits by marks in the source. -1 for a template that is none of ours. */
int template_recognize(const char *source, template_kind *kind, template_traits *traits);

#endif

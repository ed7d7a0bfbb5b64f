/* See pyjson.h. Values come from jansson, which bounds their nesting. */
#include "engine/text/pyjson.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pyjson_put_string(text_buf *b, const char *s, size_t n) {
    static const char plain[] = "\"\\\n\r\t\b\f", letters[] = "\"\\nrtbf";
    text_buf_puts(b, "\"");
    for (size_t i = 0; i < n; i++) {
        const char *special = s[i] ? strchr(plain, s[i]) : NULL;
        if (special)
            text_buf_put(b, (const char[]){'\\', letters[special - plain]}, 2);
        else if ((unsigned char)s[i] < 0x20)
            text_buf_printf(b, "\\u%04x", (unsigned)s[i]);
        else
            text_buf_put(b, s + i, 1);
    }
    text_buf_puts(b, "\"");
}

/* repr of a float: the fewest digits that give it back, with an exponent below 1e-4 and from 1e16 on. */
static void put_real(text_buf *b, double x) {
    char text[40], digits[32];
    int precision = 0;
    do snprintf(text, sizeof text, "%.*e", precision, x);
    while (strtod(text, NULL) != x && ++precision < 17);
    char *mark = strchr(text, 'e');
    int exponent = (int)strtol(mark + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) {
        *mark = 0;
        text_buf_printf(b, "%se%c%02d", text, exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    int after = precision > exponent ? precision - exponent : 0;
    snprintf(digits, sizeof digits, "%.*f", after ? after : 1, x);
    text_buf_puts(b, digits);
}

static void put_break(text_buf *b, int indent, int depth) {
    if (!indent) return;
    text_buf_puts(b, "\n");
    for (int i = 0; i < indent * depth; i++) text_buf_puts(b, " ");
}

static void put_value(text_buf *b, const json_t *v, int indent, int depth);

static void put_array(text_buf *b, const json_t *v, int indent, int depth) {
    size_t i;
    const json_t *item;
    text_buf_puts(b, "[");
    json_array_foreach(v, i, item) {
        if (i) text_buf_puts(b, indent ? "," : ", ");
        put_break(b, indent, depth + 1);
        put_value(b, item, indent, depth + 1);
    }
    if (i) put_break(b, indent, depth);
    text_buf_puts(b, "]");
}

static void put_object(text_buf *b, const json_t *v, int indent, int depth) {
    bool any = false;
    json_t *object = (json_t *)v, *member; /* jansson's iterators take it without const, and leave it alone */
    const char *key;
    text_buf_puts(b, "{");
    json_object_foreach(object, key, member) {
        if (any) text_buf_puts(b, indent ? "," : ", ");
        any = true;
        put_break(b, indent, depth + 1);
        pyjson_put_string(b, key, strlen(key));
        text_buf_puts(b, ": ");
        put_value(b, member, indent, depth + 1);
    }
    if (any) put_break(b, indent, depth);
    text_buf_puts(b, "}");
}

static void put_value(text_buf *b, const json_t *v, int indent, int depth) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: put_object(b, v, indent, depth); break;
    case JSON_ARRAY: put_array(b, v, indent, depth); break;
    case JSON_STRING: pyjson_put_string(b, json_string_value(v), json_string_length(v)); break;
    case JSON_INTEGER: text_buf_printf(b, "%lld", (long long)json_integer_value(v)); break;
    case JSON_REAL: put_real(b, json_real_value(v)); break;
    case JSON_TRUE: text_buf_puts(b, "true"); break;
    case JSON_FALSE: text_buf_puts(b, "false"); break;
    case JSON_NULL: text_buf_puts(b, "null"); break;
    }
}

void pyjson_put(text_buf *b, const json_t *v, int indent) {
    put_value(b, v, indent, 0);
}

/* millrace-schemas-doc: writes the reference page of the messages from their tables, so that the page cannot say
 * anything else than the programs do.
 *
 *     millrace-schemas-doc EXAMPLES > schemas/README.md       EXAMPLES is the folder schemas/examples
 *     millrace-schemas-doc EXAMPLES --check schemas/README.md exits with 1 when the page is out of date
 *
 * The examples <Message>.json and <Message>.<case>.json are decoded by the tables before they go into the page. A tool of
 * the build: one thread, everything freed at the end.
 */
#include "base/str.h"
#include "schemas/messages.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_MAX = 1 << 20, ARENA_MAX = 1 << 20 };

static const char intro[] =
    "# Messages\n"
    "\n"
    "<!-- Made by millrace-schemas-doc from schemas/messages.def and schemas/examples; do not edit. -->\n"
    "\n"
    "Everything that Millrace's processes tell each other is a record on Kafka, and every record's value is "
    "one of these\n"
    "messages. Any program may read the topics, and any program may produce a ChatRequest to "
    "`chat.requests`.\n"
    "\n"
    "- A value is a **msgpack** map with the field names below as keys. Millrace writes msgpack; it also "
    "reads **JSON**,\n"
    "  when the record has the header `content-type: application/json` or its first byte is `{`.\n"
    "- Records that Millrace writes have the headers `type` (the message's name) and `traceparent` (W3C).\n"
    "- Fields that a reader does not know are skipped, and `null` is the same as absent. A `v` that is newer "
    "than the\n"
    "  reader is an error that says so; new optional fields do not raise it.\n"
    "- Sizes of text are bytes of UTF-8. *Bytes* are msgpack `bin`, and base64 in JSON.\n"
    "- A number without a fraction is taken for an integer, `100.0` too. Where a field has two rows, the "
    "type that is\n"
    "  found chooses.\n"
    "- A message is nested at most 16 levels deep and has at most 1,048,576 values. A record is at most\n"
    "  `kafka.message_max` bytes long.\n"
    "- What breaks a rule goes to `chat.dead` with the reason, which names the place:\n"
    "  `messages[2].content: expected a string or a list of Part, found an integer`. Where the id could be "
    "read, its user\n"
    "  gets a ResponseEnd with an error.\n"
    "\n";

/* ---- cells of the tables ---- */

static void put_anchor(mr_buf *out, const char *name) {
    mr_buf_printf(out, "[%s](#", name);
    for (; *name; name++) mr_buf_printf(out, "%c", *name >= 'A' && *name <= 'Z' ? *name - 'A' + 'a' : *name);
    mr_buf_puts(out, ")");
}

static void put_names(mr_buf *out, const char *const *names) {
    for (int i = 0; names[i]; i++) mr_buf_printf(out, "%s`%s`", i > 0 ? ", " : "", names[i]);
}

static void put_type(mr_buf *out, const mr_field *f) {
    switch (f->type) {
    case MR_T_BOOL: mr_buf_puts(out, "boolean"); break;
    case MR_T_I64: mr_buf_puts(out, "integer"); break;
    case MR_T_F64: mr_buf_puts(out, "number"); break;
    case MR_T_STR: mr_buf_puts(out, "text"); break;
    case MR_T_BYTES: mr_buf_puts(out, "bytes"); break;
    case MR_T_ENUM: mr_buf_puts(out, "one of "), put_names(out, f->names); break;
    case MR_T_STRUCT: put_anchor(out, f->sub->name); break;
    case MR_T_I64S: mr_buf_puts(out, "list of integers"); break;
    case MR_T_STRS: mr_buf_puts(out, "list of text"); break;
    case MR_T_STRUCTS: mr_buf_puts(out, "list of "), put_anchor(out, f->sub->name); break;
    }
}

/* The whole range of an integer is no limit: as a double its end is 2^63. */
static void put_range(mr_buf *out, const mr_field *f) {
    bool any_top = f->max >= 0x1p63;
    if (f->min <= -0x1p63 && any_top) {
        mr_buf_puts(out, "any of 64 bits");
    } else if (any_top) {
        mr_buf_printf(out, "%.16g or more", f->min);
    } else {
        mr_buf_printf(out, "%.16g to %.16g", f->min, f->max);
    }
}

static void put_size(mr_buf *out, const mr_field *f, const char *unit) {
    if (f->min == f->max) {
        mr_buf_printf(out, "%.16g %s", f->min, unit);
    } else if (f->min > 0) {
        mr_buf_printf(out, "%.16g to %.16g %s", f->min, f->max, unit);
    } else {
        mr_buf_printf(out, "at most %.16g %s", f->max, unit);
    }
}

static void put_limits(mr_buf *out, const mr_field *f) {
    switch (f->type) {
    case MR_T_I64:
    case MR_T_F64: put_range(out, f); break;
    case MR_T_STR:
    case MR_T_BYTES: put_size(out, f, "bytes"); break;
    case MR_T_STRS:
        put_size(out, f, "entries"), mr_buf_printf(out, " of at most %.16g bytes", f->each);
        break;
    case MR_T_I64S:
    case MR_T_STRUCTS: put_size(out, f, "entries"); break;
    case MR_T_BOOL:
    case MR_T_ENUM:
    case MR_T_STRUCT: break;
    }
}

static void put_fields(mr_buf *out, const mr_message_def *def) {
    mr_buf_puts(out, "| field | type | required | limits | meaning |\n|---|---|---|---|---|\n");
    for (int i = 0; i < def->nfields; i++) {
        const mr_field *f = &def->fields[i];
        mr_buf_printf(out, "| `%s` | ", f->name);
        put_type(out, f);
        mr_buf_printf(out, " | %s | ", f->required ? "yes" : "");
        put_limits(out, f);
        mr_buf_printf(out, " | %s |\n", f->doc);
    }
    mr_buf_puts(out, "\n");
}

/* ---- examples ---- */

static int read_file(const char *path, mr_buf *out, mr_error *err) {
    FILE *in = fopen(path, "re");
    if (!in) return mr_fail(err, MR_ENOTFOUND, "%s: %s", path, strerror(errno));
    char part[4096];
    size_t n;
    while ((n = fread(part, 1, sizeof part, in)) > 0) mr_buf_put(out, part, n);
    int rc = ferror(in) || out->failed ? mr_fail(err, MR_EIO, "%s cannot be read", path) : 0;
    fclose(in);
    return rc;
}

static int check_example(const mr_message_def *def, mr_str json, mr_error *err) {
    mr_arena *a = mr_arena_new(ARENA_MAX);
    void *msg = a ? mr_arena_alloc(a, def->size) : NULL;
    int rc = msg ? mr_decode(def, json, MR_STR("application/json"), a, msg, err)
                 : mr_fail(err, MR_ENOMEM, "no memory");
    mr_arena_free(a);
    return rc;
}

static int put_example(mr_buf *out, const mr_message_def *def, const char *path, mr_error *err) {
    mr_buf json;
    mr_buf_init(&json, PAGE_MAX);
    int rc = read_file(path, &json, err);
    if (rc == 0) rc = check_example(def, mr_buf_str(&json), err);
    if (rc < 0) mr_fail_in(err, "%s", path);
    if (rc == 0) mr_buf_printf(out, "```json\n%.*s```\n\n", MR_FMT(mr_buf_str(&json)));
    mr_buf_done(&json);
    return rc;
}

static bool is_example_of(const char *file, const char *name) {
    size_t n = strlen(name), length = strlen(file);
    return strncmp(file, name, n) == 0 && file[n] == '.' && length > 5 &&
           strcmp(file + length - 5, ".json") == 0;
}

static int put_examples(mr_buf *out, const mr_message_def *def, const char *folder, mr_error *err) {
    struct dirent **files = NULL;
    char path[4096];
    int n = scandir(folder, &files, NULL, alphasort), rc = 0;
    if (n < 0) return mr_fail(err, MR_ENOTFOUND, "%s: %s", folder, strerror(errno));
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]->d_name);
        if (rc == 0 && is_example_of(files[i]->d_name, def->name)) rc = put_example(out, def, path, err);
        free(files[i]);
    }
    free(files);
    return rc;
}

/* ---- the page ---- */

static void put_contents(mr_buf *out) {
    mr_buf_puts(out, "| message | topic | |\n|---|---|---|\n");
    for (int i = 0; mr_messages[i]; i++) {
        if (!mr_messages[i]->topic) continue;
        mr_buf_puts(out, "| ");
        put_anchor(out, mr_messages[i]->name);
        mr_buf_printf(out, " | `%s` | %s |\n", mr_messages[i]->topic, mr_messages[i]->doc);
    }
    mr_buf_puts(out, "\n");
}

static int put_page(mr_buf *out, const char *folder, mr_error *err) {
    mr_buf_puts(out, intro);
    put_contents(out);
    for (int parts = 0; parts < 2; parts++) {
        if (parts) mr_buf_puts(out, "# Parts of messages\n\n");
        for (int i = 0; mr_messages[i]; i++) {
            const mr_message_def *def = mr_messages[i];
            if ((def->topic == NULL) != parts) continue;
            mr_buf_printf(out, "## %s\n\n%s", def->name, def->doc);
            if (def->topic) mr_buf_printf(out, " Topic: `%s`.", def->topic);
            mr_buf_puts(out, "\n\n");
            put_fields(out, def);
            if (put_examples(out, def, folder, err) < 0) return -1;
        }
    }
    return out->failed ? mr_fail(err, MR_ETOOBIG, "the page is larger than %d bytes", PAGE_MAX) : 0;
}

static int check_page(mr_str page, const char *path, mr_error *err) {
    mr_buf there;
    mr_buf_init(&there, PAGE_MAX);
    int rc = read_file(path, &there, err);
    if (rc == 0 && !mr_str_eq(page, mr_buf_str(&there))) {
        rc = mr_fail(err, MR_ESTATE, "%s is out of date: run `millrace-schemas-doc schemas/examples > %s`",
                     path, path);
    }
    mr_buf_done(&there);
    return rc;
}

int main(int argc, char **argv) {
    bool check = argc == 4 && strcmp(argv[2], "--check") == 0;
    if (argc != 2 && !check) {
        fprintf(stderr, "Usage: millrace-schemas-doc EXAMPLES [--check FILE]\n");
        return 2;
    }
    mr_error err;
    mr_buf page;
    mr_buf_init(&page, PAGE_MAX);
    int rc = put_page(&page, argv[1], &err);
    if (rc == 0 && check) rc = check_page(mr_buf_str(&page), argv[3], &err);
    if (rc == 0 && !check && fwrite(page.p, 1, page.n, stdout) != page.n) {
        rc = mr_fail(&err, MR_EIO, "the page could not be written");
    }
    mr_buf_done(&page);
    if (rc < 0) fprintf(stderr, "millrace-schemas-doc: %s\n", err.msg);
    return rc == 0 ? 0 : 1;
}

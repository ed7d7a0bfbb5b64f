/* What the codec's files share: paths for errors, checks of single values, and nodes, the common view of a decoded
 * msgpack or JSON tree from which decode.c fills structs. Not for other parts. */
#ifndef MR_CODEC_INTERNAL_H
#define MR_CODEC_INTERNAL_H

#include "schemas/codec.h"

/* Where in a message we are: a list of frames on the C stack, from the inside out. A frame is a field or, with
 * `name` NULL, an item of the list around it. NULL is the message itself. */
typedef struct mr_path {
    const struct mr_path *up;
    const char *name;
    uint32_t index;
} mr_path;

/* "messages[2].content: …" */
int mr_fail_at(const mr_path *at, mr_error *err, enum mr_error_code code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Runs def->check, putting the path before its words. */
int mr_run_check(const mr_message_def *def, const void *msg, const mr_path *at, mr_error *err);

int mr_check_int(const mr_field *f, int64_t v, const mr_path *at, mr_error *err);
int mr_check_num(const mr_field *f, double v, const mr_path *at, mr_error *err);
int mr_check_count(const mr_field *f, uint64_t n, const mr_path *at, mr_error *err);
int mr_check_bytes(size_t n, double min, double max, const mr_path *at, mr_error *err);
int mr_check_text(mr_str s, double min, double max, const mr_path *at, mr_error *err);

/* The fields that are there; bits past the table mean nothing. */
static inline uint64_t mr_present(const mr_message_def *def, const void *msg) {
    return *(const uint64_t *)msg & (UINT64_MAX >> (64 - def->nfields));
}

/* Lists of any element type share this layout; copied in and out, because their pointer types differ. */
typedef MR_LIST(void) mr_any_list;
mr_any_list mr_list_get(const void *member);
void mr_list_put(void *member, void *v, uint32_t n);

typedef enum {
    MR_NODE_NULL,
    MR_NODE_BOOL,
    MR_NODE_INT,
    MR_NODE_HUGE, /* an integer past INT64_MAX; its value is in f */
    MR_NODE_FLOAT,
    MR_NODE_STR,
    MR_NODE_BYTES,
    MR_NODE_LIST,
    MR_NODE_MAP,
    MR_NODE_OTHER,
} mr_node_kind;

typedef struct mr_node {
    mr_node_kind kind;
    bool b;
    int64_t i;
    double f;
    mr_str s;
    const void *tree; /* list or map, as its format has it */
    uint32_t n;       /* its entries */
} mr_node;

typedef struct mr_node_iter {
    uint32_t i;
    void *at;
} mr_node_iter;

/* One for each format. Nodes borrow from the tree. */
typedef struct mr_node_ops {
    mr_node (*item)(const mr_node *list, uint32_t i);
    /* The next entry of a map with a string for a key; `it` starts zeroed. */
    bool (*next)(const mr_node *map, mr_node_iter *it, mr_str *key, mr_node *value);
    bool text_only; /* bytes come as base64 text */
} mr_node_ops;

int mr_decode_tree(const mr_message_def *def, const mr_node_ops *ops, const mr_node *root, mr_arena *a,
                   void *out, mr_error *err);

/* Base64 of RFC 4648 with padding. `out` of decode has room for n / 4 * 3 bytes; returns the length, or -1. */
size_t mr_base64_len(size_t n);
void mr_base64_encode(mr_str in, char *out);
int64_t mr_base64_decode(mr_str in, char *out);

#endif

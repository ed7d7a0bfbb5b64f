/* Messages by field table: one table per message drives msgpack and JSON both ways, validation, and the reference
 * page. The messages themselves are in messages.def; table_declare.h makes the structs.
 *
 * A C struct for a message holds `uint64_t set` first: bit i says that field i of its table was present in the input
 * (or is to be written). Strings are mr_str, lists are {T *v; uint32_t n;}. Decoding allocates from the caller's arena and
 * copies, so that the input may go away; limits of the table (length, range, count, nesting) are checked before anything
 * is allocated for them.
 *
 * Unknown fields are skipped, and null is the same as absent. Two rows of a table may share a wire name: the type that is
 * found chooses. Every message has a field `v` (version, now 1): a newer one is an error that says so. Errors name the
 * path: "messages[2].content: expected a string or a list of Part, found an integer".
 *
 * Everything here is free of I/O and state, so any thread may call it.
 */
#ifndef MR_CODEC_H
#define MR_CODEC_H

#include "base/error.h"
#include "base/str.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#define MR_SCHEMA_VERSION 1

typedef enum {
    MR_T_BOOL,
    MR_T_I64,
    MR_T_F64,
    MR_T_STR,    /* UTF-8 checked */
    MR_T_BYTES,  /* msgpack bin; base64 in JSON */
    MR_T_ENUM,   /* int in C, its name on the wire */
    MR_T_STRUCT, /* inline */
    MR_T_I64S,   /* list of integers */
    MR_T_STRS,
    MR_T_STRUCTS,
} mr_type;

typedef struct mr_message_def mr_message_def;

typedef struct mr_field {
    const char *name;
    mr_type type;
    size_t offset;
    bool required;
    double min, max;           /* value of a number; bytes of a string; count of a list */
    double each;               /* MR_T_STRS: bytes of each string */
    const char *const *names;  /* MR_T_ENUM, ends with NULL; values are indices */
    const mr_message_def *sub; /* MR_T_STRUCT(S) */
    const char *doc;
} mr_field;

struct mr_message_def {
    const char *name;
    const char *topic; /* where it travels, for the reference page; NULL for parts of others */
    const char *doc;
    size_t size;
    const mr_field *fields;
    int nfields; /* <= 64 */
    /* What a table cannot say (e.g. "content or tool_calls must be there"); NULL where there is nothing. */
    int (*check)(const void *msg, mr_error *err);
};

#define MR_LIST(T)                                                                                           \
    struct {                                                                                                 \
        T *v;                                                                                                \
        uint32_t n;                                                                                          \
    }
typedef MR_LIST(int64_t) mr_i64s;
typedef MR_LIST(mr_str) mr_strs;

/* Is field number F (MR_SAMPLING_TEMPERATURE) present in *m? */
#define MR_HAS(m, F)                (((m)->set >> (F)) & 1)
/* Give it a value: MR_SET(&s, MR_SAMPLING_TEMPERATURE, temperature, 0.7). */
#define MR_SET(m, F, member, value) ((m)->member = (value), (m)->set |= UINT64_C(1) << (F))
/* Say that it is there, after its members were filled in place (structs and lists). */
#define MR_MARK(m, F)               ((m)->set |= UINT64_C(1) << (F))
#define MR_UNSET(m, F)              ((m)->set &= ~(UINT64_C(1) << (F)))

/* `out` has def->size bytes and is overwritten, also on failure. */
int mr_unpack(const mr_message_def *def, mr_str in, mr_arena *a, void *out, mr_error *err);
/* Appends to `out`. Validates first, so that nothing is written that a reader would refuse. */
int mr_pack(const mr_message_def *def, const void *msg, mr_buf *out, mr_error *err);

int mr_from_json(const mr_message_def *def, const json_t *in, mr_arena *a, void *out, mr_error *err);
/* New reference for the caller. */
json_t *mr_to_json(const mr_message_def *def, const void *msg, mr_error *err);

/* A record's value as it came: JSON when `content_type` starts with application/json or the first byte says so ('{'),
 * msgpack otherwise. */
int mr_decode(const mr_message_def *def, mr_str in, mr_str content_type, mr_arena *a, void *out,
              mr_error *err);

/* Ranges, sizes, required fields and def->check of a message built in C. */
int mr_validate(const mr_message_def *def, const void *msg, mr_error *err);

#endif

/* Frames: field tables, the encoder, and the incremental reader. See frames.h. */
#include "worker/frames.h"

#include <stdlib.h>
#include <string.h>

const char *const mr_frame_names[] = {"hello",  "ready",  "tokens", "end", "load",
                                      "submit", "cancel", "drain",  NULL};
const char *const mr_frame_channels[] = {"content", "reasoning", NULL};
const char *const mr_frame_finishes[] = {"stop", "length", "cancelled", "error", NULL};

/* ---- field tables ---- */

#define ID_MAX       9007199254740992.0 /* 2^53: exact as a double, in which the codec keeps its limits */
#define TEXT_MAX     (1 << 20)
#define COUNT(table) (int)(sizeof(table) / sizeof((table)[0]))
#define FIELD(s, member, wire_type, lo, hi)                                                                  \
    .name = #member, .type = (wire_type), .offset = offsetof(s, member), .required = true, .min = (lo),      \
    .max = (hi)
#define NUMBER(s, member)                                                                                    \
    { FIELD(s, member, MR_T_I64, 0, ID_MAX) }
#define SECONDS(s, member)                                                                                   \
    { FIELD(s, member, MR_T_F64, 0, 1e9) }
#define LOGPROB(s, member)                                                                                   \
    { FIELD(s, member, MR_T_F64, -1e30, 1e30) }
#define TEXT(s, member)                                                                                      \
    { FIELD(s, member, MR_T_STR, 0, TEXT_MAX) }
#define BYTES(s, member, most)                                                                               \
    { FIELD(s, member, MR_T_BYTES, 0, most) }
#define IDS(s, member, most)                                                                                 \
    { FIELD(s, member, MR_T_I64S, 0, most) }
#define ENUM(s, member, all)                                                                                 \
    { FIELD(s, member, MR_T_ENUM, 0, 0), .names = (all) }
#define LIST(s, member, most, def)                                                                           \
    { FIELD(s, member, MR_T_STRUCTS, 0, most), .sub = (def) }
#define MESSAGE(title, s, table)                                                                             \
    { .name = (title), .size = sizeof(s), .fields = (table), .nfields = COUNT(table) }

static const mr_field top_fields[] = {
    BYTES(mr_frame_top, token, 4096),
    LOGPROB(mr_frame_top, logprob),
};
static const mr_message_def top_def = MESSAGE("top", mr_frame_top, top_fields);

static const mr_field logprob_fields[] = {
    BYTES(mr_frame_logprob, token, 4096),
    LOGPROB(mr_frame_logprob, logprob),
    LIST(mr_frame_logprob, top, 64, &top_def),
};
static const mr_message_def logprob_def = MESSAGE("logprob", mr_frame_logprob, logprob_fields);

static const mr_field hello_fields[] = {
    NUMBER(mr_frame_hello, protocol),    NUMBER(mr_frame_hello, pid),
    TEXT(mr_frame_hello, engine),        TEXT(mr_frame_hello, model),
    TEXT(mr_frame_hello, architecture),  TEXT(mr_frame_hello, isa),
    NUMBER(mr_frame_hello, parameters),  NUMBER(mr_frame_hello, max_seqs),
    NUMBER(mr_frame_hello, max_context), NUMBER(mr_frame_hello, kv_tokens),
    NUMBER(mr_frame_hello, threads),
};

static const mr_field ready_fields[] = {
    SECONDS(mr_frame_ready, load_seconds),
    SECONDS(mr_frame_ready, first_token_seconds),
    NUMBER(mr_frame_ready, max_seqs),
    NUMBER(mr_frame_ready, max_context),
};

static const mr_field tokens_fields[] = {
    NUMBER(mr_frame_tokens, id),        NUMBER(mr_frame_tokens, index),
    IDS(mr_frame_tokens, tokens, 4096), ENUM(mr_frame_tokens, channel, mr_frame_channels),
    TEXT(mr_frame_tokens, text),        LIST(mr_frame_tokens, logprobs, 4096, &logprob_def),
};

static const mr_field end_fields[] = {
    NUMBER(mr_frame_end, id),
    ENUM(mr_frame_end, finish, mr_frame_finishes),
    ENUM(mr_frame_end, channel, mr_frame_channels),
    TEXT(mr_frame_end, text),
    NUMBER(mr_frame_end, prompt_tokens),
    NUMBER(mr_frame_end, completion_tokens),
    NUMBER(mr_frame_end, reasoning_tokens),
    NUMBER(mr_frame_end, cached_tokens),
    NUMBER(mr_frame_end, status),
    TEXT(mr_frame_end, code),
    TEXT(mr_frame_end, message),
};

static const mr_field load_fields[] = {
    NUMBER(mr_frame_load, running),
    NUMBER(mr_frame_load, waiting),
    NUMBER(mr_frame_load, kv_blocks_used),
    NUMBER(mr_frame_load, kv_blocks),
    NUMBER(mr_frame_load, steps),
    NUMBER(mr_frame_load, prompt_tokens),
    NUMBER(mr_frame_load, generated_tokens),
    NUMBER(mr_frame_load, preemptions),
};

static const mr_field submit_fields[] = {
    NUMBER(mr_frame_submit, id),
    BYTES(mr_frame_submit, request, MR_FRAME_MAX),
    IDS(mr_frame_submit, forced, 1 << 20),
};

static const mr_field cancel_fields[] = {
    NUMBER(mr_frame_cancel, id),
};

static const mr_message_def defs[MR_FRAME_TYPES] = {
    [MR_FRAME_HELLO] = MESSAGE("hello", mr_frame_hello, hello_fields),
    [MR_FRAME_READY] = MESSAGE("ready", mr_frame_ready, ready_fields),
    [MR_FRAME_TOKENS] = MESSAGE("tokens", mr_frame_tokens, tokens_fields),
    [MR_FRAME_END] = MESSAGE("end", mr_frame_end, end_fields),
    [MR_FRAME_LOAD] = MESSAGE("load", mr_frame_load, load_fields),
    [MR_FRAME_SUBMIT] = MESSAGE("submit", mr_frame_submit, submit_fields),
    [MR_FRAME_CANCEL] = MESSAGE("cancel", mr_frame_cancel, cancel_fields),
    [MR_FRAME_DRAIN] = {.name = "drain", .size = sizeof(uint64_t)},
};

/* ---- encoder ---- */

#define HEADER 5 /* length and type */

static void put_header(char *p, uint32_t length, mr_frame_type type) {
    for (int i = 0; i < 4; i++) p[i] = (char)(length >> (8 * i));
    p[4] = (char)type;
}

int mr_frame_encode(const mr_frame *f, mr_buf *out, mr_error *err) {
    const mr_message_def *def = &defs[f->type];
    size_t start = out->n;
    mr_frame all = *f;
    all.hello.set = UINT64_MAX; /* every struct begins with it */
    mr_buf_put(out, "\0\0\0\0\0", HEADER);
    int rc = mr_pack(def, &all.hello, out, err);
    if (!rc && out->failed) rc = mr_fail(err, MR_ETOOBIG, "a %s frame does not fit in the buffer", def->name);
    size_t length = out->n - start - 4;
    if (!rc && length > MR_FRAME_MAX)
        rc = mr_fail(err, MR_ETOOBIG, "a %s frame of %zu bytes, the limit is %u", def->name, length,
                     MR_FRAME_MAX);
    if (rc)
        out->n = start;
    else
        put_header(out->p + start, (uint32_t)length, f->type);
    return rc;
}

/* ---- reader ---- */

struct mr_frame_reader {
    mr_buf in;
    size_t at;       /* bytes of `in` that were taken */
    mr_arena *arena; /* of the frame handed out last */
};

mr_frame_reader *mr_frame_reader_new(mr_error *err) {
    mr_frame_reader *r = calloc(1, sizeof(*r));
    mr_arena *arena =
        mr_arena_new(4 * MR_FRAME_MAX); /* decoded lists of structs are larger than their bytes */
    if (!r || !arena) {
        free(r);
        mr_arena_free(arena);
        mr_fail(err, MR_ENOMEM, "out of memory for a frame reader");
        return NULL;
    }
    mr_buf_init(&r->in, 2 * (MR_FRAME_MAX + HEADER));
    r->arena = arena;
    return r;
}

void mr_frame_reader_free(mr_frame_reader *r) {
    if (!r) return;
    mr_buf_done(&r->in);
    mr_arena_free(r->arena);
    free(r);
}

int mr_frame_feed(mr_frame_reader *r, const void *p, size_t n, mr_error *err) {
    /* Move the rest to the front only here, so that a burst of small frames is not moved once for each. */
    if (r->at) {
        memmove(r->in.p, r->in.p + r->at, r->in.n - r->at);
        r->in.n -= r->at;
        r->at = 0;
    }
    mr_buf_put(&r->in, p, n);
    if (r->in.failed) return mr_fail(err, MR_ETOOBIG, "frames were fed faster than they were taken");
    return 0;
}

static uint32_t get_length(const char *p) {
    const unsigned char *b = (const unsigned char *)p;
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static int decode(mr_frame_reader *r, mr_str body, mr_frame *f, mr_error *err) {
    unsigned type = (unsigned char)body.p[0];
    if (type >= MR_FRAME_TYPES) return mr_fail(err, MR_EINVAL, "unknown frame type %u", type);
    memset(f, 0, sizeof(*f));
    f->type = (mr_frame_type)type;
    mr_arena_reset(r->arena);
    if (mr_unpack(&defs[type], (mr_str){body.p + 1, body.n - 1}, r->arena, &f->hello, err))
        return mr_fail_in(err, "%s frame", mr_frame_names[type]);
    return 0;
}

int mr_frame_next(mr_frame_reader *r, mr_frame *f, mr_error *err) {
    size_t left = r->in.n - r->at;
    if (left < HEADER) return 0;
    const char *p = r->in.p + r->at;
    uint32_t length = get_length(p);
    if (length < 1 || length > MR_FRAME_MAX)
        return mr_fail(err, MR_EINVAL, "a frame of %u bytes, expected 1 to %u", length, MR_FRAME_MAX);
    if (left - 4 < length) return 0;
    if (decode(r, (mr_str){p + 4, length}, f, err)) return -1;
    r->at += 4 + (size_t)length;
    return 1;
}

/* Frames: field tables, the encoder, and the incremental reader. See frames.h. */
#include "worker/frames.h"

#include <stdlib.h>
#include <string.h>

#define MR_TABLE "worker/frames.def"
#include "schemas/table_define.h"

static const mr_message_def *const defs[MR_FRAME_TYPES] = {
    [MR_FRAME_HELLO] = &mr_frame_hello_def,   [MR_FRAME_READY] = &mr_frame_ready_def,
    [MR_FRAME_TOKENS] = &mr_frame_tokens_def, [MR_FRAME_END] = &mr_frame_end_def,
    [MR_FRAME_LOAD] = &mr_frame_load_def,     [MR_FRAME_SUBMIT] = &mr_frame_submit_def,
    [MR_FRAME_CANCEL] = &mr_frame_cancel_def, [MR_FRAME_DRAIN] = &mr_frame_drain_def,
};

const char *mr_frame_name(mr_frame_type type) {
    return defs[type]->name;
}

/* ---- encoder ---- */

#define HEADER 5 /* length and type */

static void put_header(char *p, uint32_t length, mr_frame_type type) {
    for (int i = 0; i < 4; i++) p[i] = (char)(length >> (8 * i));
    p[4] = (char)type;
}

int mr_frame_encode(const mr_frame *f, mr_buf *out, mr_error *err) {
    const mr_message_def *def = defs[f->type];
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

void mr_frame_reader_reset(mr_frame_reader *r) {
    mr_buf_clear(&r->in);
    r->at = 0;
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
    if (mr_unpack(defs[type], (mr_str){body.p + 1, body.n - 1}, r->arena, &f->hello, err))
        return mr_fail_in(err, "%s frame", defs[type]->name);
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

/* Frames: what the supervisor and its engine host say to each other over a socket pair.
 *
 * A frame is a little-endian u32 length, counting what follows it; one byte with the mr_frame_type; and a msgpack map
 * with the fields of that type's struct below. Nothing here does I/O: bytes are fed to a reader and frames come out,
 * frames are written to a buffer.
 *
 *     host -> supervisor                           supervisor -> host
 *     hello   at once, before the model loads      submit  one request, and the tokens it already has
 *     ready   a real token has been generated      cancel  an END with finish=cancelled follows
 *     tokens  one step's tokens of one sequence    drain   no more submits come: exit when idle
 *     end     exactly one for each submit
 *     load    every 250 ms, from the step loop, so that a hang shows
 *
 * On a closed socket the host exits at once: its supervisor is gone, and no one is left to answer.
 * Memory: strings and lists of a decoded frame are the reader's, until the next call with it. An encoder
 * only reads the frame. Not thread-safe; a reader belongs to one thread.
 */
#ifndef MR_FRAMES_H
#define MR_FRAMES_H

#include "base/error.h"
#include "base/str.h"
#include "schemas/codec.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MR_FRAME_PROTOCOL 1
#define MR_FRAME_MAX                                                                                         \
    (8u << 20) /* bytes of a frame's body: the largest request and room for its forced tokens */

typedef enum {
    MR_FRAME_HELLO,
    MR_FRAME_READY,
    MR_FRAME_TOKENS,
    MR_FRAME_END,
    MR_FRAME_LOAD,
    MR_FRAME_SUBMIT,
    MR_FRAME_CANCEL,
    MR_FRAME_DRAIN,
    MR_FRAME_TYPES
} mr_frame_type;
extern const char *const mr_frame_names[]; /* by mr_frame_type, ends with NULL */

typedef enum { MR_FRAME_CONTENT, MR_FRAME_REASONING } mr_frame_channel;
typedef enum { MR_FRAME_STOP, MR_FRAME_LENGTH, MR_FRAME_CANCELLED, MR_FRAME_ERROR } mr_frame_finish;
extern const char *const mr_frame_channels[], *const mr_frame_finishes[];

/* Lists as the codec has them. */
typedef struct mr_frame_ids {
    int64_t *v;
    uint32_t n;
} mr_frame_ids;

/* One alternative of a sampled token, and the sampled token with its alternatives. A token's bytes may be a part
 * of a UTF-8 character. */
typedef struct mr_frame_top {
    uint64_t set;
    mr_str token;
    double logprob;
} mr_frame_top;

typedef struct mr_frame_logprob {
    uint64_t set;
    mr_str token;
    double logprob;
    struct {
        mr_frame_top *v;
        uint32_t n;
    } top;
} mr_frame_logprob;

/* `set` belongs to the codec: the encoder writes every field, whatever it holds. In the lists above the writer
 * gives it this value. */
#define MR_FRAME_ALL UINT64_MAX

typedef struct mr_frame_hello {
    uint64_t set;
    int64_t protocol, pid;
    mr_str engine; /* name and version, for the log */
    mr_str model, architecture, isa;
    int64_t parameters, max_seqs, max_context, kv_tokens, threads;
} mr_frame_hello;

typedef struct mr_frame_ready {
    uint64_t set;
    double load_seconds, first_token_seconds;
    int64_t max_seqs,
        max_context; /* what the engine settled on: 0 in hello, which comes before the model is open */
} mr_frame_ready;

typedef struct mr_frame_tokens {
    uint64_t set;
    int64_t id;
    int64_t index;       /* of the first of `tokens` in the answer, forced ones counted */
    mr_frame_ids tokens; /* usually one */
    int channel;         /* mr_frame_channel */
    mr_str text;         /* may be empty: a character or a possible stop string is still incomplete */
    struct {
        mr_frame_logprob *v;
        uint32_t n;
    } logprobs; /* empty, or one for each of `tokens` */
} mr_frame_tokens;

typedef struct mr_frame_end {
    uint64_t set;
    int64_t id;
    int finish, channel; /* mr_frame_finish, mr_frame_channel */
    mr_str text;         /* held-back text that belongs to the answer after all */
    int64_t prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens;
    /* finish=error: HTTP status (400 the request is wrong, 500 the engine is), OpenAI's code, and what to do. */
    int64_t status;
    mr_str code, message;
} mr_frame_end;

typedef struct mr_frame_load {
    uint64_t set;
    int64_t running, waiting, kv_blocks_used, kv_blocks;
    int64_t steps, prompt_tokens, generated_tokens, preemptions;
} mr_frame_load;

typedef struct mr_frame_submit {
    uint64_t set;
    int64_t id;
    mr_str request;      /* ChatRequest in msgpack */
    mr_frame_ids forced; /* the answer's tokens so far: tokens and text start after them */
} mr_frame_submit;

typedef struct mr_frame_cancel {
    uint64_t set;
    int64_t id;
} mr_frame_cancel;

typedef struct mr_frame {
    mr_frame_type type;
    union {
        mr_frame_hello hello;
        mr_frame_ready ready;
        mr_frame_tokens tokens;
        mr_frame_end end;
        mr_frame_load load;
        mr_frame_submit submit;
        mr_frame_cancel cancel;
    };
} mr_frame;

/* Appends the frame to out, which must have room for MR_FRAME_MAX. On failure out is as it was. */
int mr_frame_encode(const mr_frame *f, mr_buf *out, mr_error *err);

typedef struct mr_frame_reader mr_frame_reader;

mr_frame_reader *mr_frame_reader_new(mr_error *err);
void mr_frame_reader_free(mr_frame_reader *r);

/* Adds bytes as they came from the socket. Take out what is there by mr_frame_next before feeding more. */
int mr_frame_feed(mr_frame_reader *r, const void *p, size_t n, mr_error *err);
/* 1 and the next frame; 0 when more bytes are needed; -1 when the peer does not speak this protocol (final). */
int mr_frame_next(mr_frame_reader *r, mr_frame *f, mr_error *err);

#endif

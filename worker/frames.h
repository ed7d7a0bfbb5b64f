/* Frames: what the supervisor and its engine host say to each other over a socket pair.
 *
 * A frame is a little-endian u32 length, counting what follows it; one byte with the mr_frame_type; and a msgpack map
 * with the fields of frames.def. Nothing here does I/O: bytes are fed to a reader and frames come out, frames are
 * written to a buffer.
 *
 *     host -> supervisor                           supervisor -> host
 *     hello   at once, before the model loads      submit  one request, and the tokens it already has
 *     ready   a real token has been generated      cancel  an end with finish=cancelled follows
 *     tokens  one step's tokens of one sequence    drain   no more submits come: exit when idle
 *     end     exactly one for each submit
 *     load    every 250 ms after ready, from the step loop, so that a hang shows
 *
 * The supervisor starts the host as
 *     millrace-engine-host --fd N --model DIR --threads N --tp N --max-seqs N --max-context N --guess-tokens N
 *                          [--device NAME] [--weights HOW] [--kv HOW] [--chat-template NAME] [--deterministic BOOL]
 * where 0 is the engine's own choice, and submits nothing before ready. On a closed socket the host exits
 * at once: its supervisor is gone, and no one is left to answer.
 *
 * Memory: strings and lists of a decoded frame are the reader's, until the next call with it. An encoder
 * only reads the frame. Not thread-safe; a reader belongs to one thread.
 */
#ifndef MR_FRAMES_H
#define MR_FRAMES_H

#include "base/error.h"
#include "base/str.h"
#include "schemas/messages.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MR_FRAME_PROTOCOL 1
#define MR_FRAME_MAX      (8u << 20) /* bytes of a frame: the largest request, and room for its forced tokens */

#define MR_TABLE          "worker/frames.def"
#include "schemas/table_declare.h"

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

/* `set` of the members is the encoder's business: every field of a frame is written. Only the logprobs inside a
 * frame are given theirs by MR_SET, as everywhere. */
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
        mr_frame_drain drain;
    };
} mr_frame;

const char *mr_frame_name(mr_frame_type type);

/* Appends the frame to out. On failure out is as it was. */
int mr_frame_encode(const mr_frame *f, mr_buf *out, mr_error *err);

typedef struct mr_frame_reader mr_frame_reader;

mr_frame_reader *mr_frame_reader_new(mr_error *err);
void mr_frame_reader_free(mr_frame_reader *r);
void mr_frame_reader_reset(mr_frame_reader *r); /* for a new peer: forgets what was fed */

/* Adds bytes as they came from the socket. Take out what is there by mr_frame_next before feeding more. */
int mr_frame_feed(mr_frame_reader *r, const void *p, size_t n, mr_error *err);
/* 1 and the next frame; 0 when more bytes are needed; -1 when the peer does not speak this protocol (final). */
int mr_frame_next(mr_frame_reader *r, mr_frame *f, mr_error *err);

#endif

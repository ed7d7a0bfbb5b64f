/* The pushdown machine: where in a grammar an answer may be, and what a byte does to that.
 *
 * A place is a set of threads, one for each way in which the text so far can be read: branches of anyOf that begin alike, a
 * declared and an additional property whose names begin alike. Each thread is inside of one leaf (a string, a number…) and
 * has its own stack of open containers. Stacks are lists that share their tails: a frame is never changed, and a thread
 * that moves on gets a new one, so trying a token and going back costs nothing but the mark of how many frames there were.
 *
 * Steps allocate nothing: frames and threads beyond what there is room for are forgotten, which loses some answers and
 * never lets a wrong one through. Plain values of their owner; one thread.
 */
#ifndef ENGINE_GRAMMAR_MACHINE_H
#define ENGINE_GRAMMAR_MACHINE_H

#include "engine/grammar/node.h"

enum {
    MACHINE_THREADS = 64,
    MACHINE_FRAMES = 8192, /* of one place, and of one token that is tried from it */
};

/* An open container. */
typedef struct frame {
    const node *node;
    uint32_t parent; /* 0: none */
    uint32_t
        count; /* array: items before the present one; object: properties that may no longer come; sequence:
                       parts before the present one, all of them before `again` */
    uint32_t depth;
} frame;

typedef struct frames {
    frame v[MACHINE_FRAMES]; /* v[0] is none */
    uint32_t n;
} frames;

typedef enum {
    AT_VALUE,    /* before the first byte of `node`, a leaf or container */
    AT_CLOSE,    /* before the bracket that closes the innermost container */
    AT_NEXT,     /* after a value in a container */
    AT_NAME,     /* before the quote of a name */
    IN_NAME,     /* of a declared property */
    IN_NEW_NAME, /* of an additional one */
    AT_COLON,
    IN_LITERAL,
    IN_STRING,
    IN_NUMBER,
    IN_TEXT, /* of markup, before any byte of it too */
    AT_END,  /* after the whole value */
} machine_phase;

typedef struct thread {
    const node *node;
    uint32_t frame;
    uint32_t lo, hi; /* literals or names that begin as what has been read */
    uint32_t count;  /* bytes of a literal or name; characters of a string */
    uint32_t dfa;    /* state of the string's pattern */
    uint8_t phase;
    uint8_t blanks; /* read so far at this place; see next_blank */
    uint8_t text;   /* within a character; see next_text */
    uint8_t unused;
    number_state number;
} thread;

typedef struct place {
    thread v[MACHINE_THREADS];
    uint32_t n;
    uint32_t nframes; /* how many there were when it was made: what came later is not of it */
} place;

/* The beginning of an answer. */
void machine_start(const node *root, place *p, frames *f);
/* The place after one more byte; empty when the byte cannot come. `to` is not `from`. */
void machine_step(const place *from, unsigned char c, place *to, frames *f);
/* Is the value whole? *extendable: can more follow all the same? */
bool machine_complete(const place *p, bool *extendable);
/* Is the thread between two characters of a string or name that may go on with any? *room: how many may follow. */
bool machine_in_text(const thread *t, uint32_t *room);
/* Between two characters of a string with a pattern: its automaton, whose state is t->dfa. Else NULL. */
const regex_dfa *machine_in_pattern(const thread *t);
/* Moves the frames that the place needs to the beginning and forgets the others. */
void machine_compact(place *p, frames *f, frames *scratch);

#endif

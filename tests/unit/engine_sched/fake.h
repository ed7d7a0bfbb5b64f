/* A model for tests of what stands around a model: the engine's parts without weights.
 *
 * Its "KV cache" keeps the token of every position in the physical block that the scheduler named, and logits are a
 * hash of what is read back from there: if a block is shared by mistake, freed too early or left unwritten, tokens change.
 * Ids 0 to 255 are the bytes of text, so characters, tags and stop strings can be split anywhere.
 */
#ifndef TEST_ENGINE_SCHED_FAKE_H
#define TEST_ENGINE_SCHED_FAKE_H

#include "engine/engine_internal.h"

/* Makes of a forward pass that knows no halves a backend that has them, as a GPU does: it draws, so that no logits of such rows come
 * back, and lets a second pass be begun with tokens that the first one draws. */
typedef struct drawer {
    int (*forward)(void *owner, const batch_seq *seqs, int nseqs, float **logits, engine_error *err);
    void *owner;
    int row; /* floats in one */
    bool draws, ahead;
    struct sampler *sampler;
    struct {
        float *logits;
        int32_t *drawn;
        bool all; /* rows are drawn */
    } turn[2];
    int begun, finished;
    uint64_t rows_drawn, tokens_ahead;
} drawer;

void drawer_init(drawer *d, int vocab, int max_rows);
void drawer_done(drawer *d);
int drawer_begin(drawer *d, const batch_seq *seqs, int nseqs, engine_error *err);
int drawer_finish(drawer *d, batch_result *result, engine_error *err);
bool drawer_runs_ahead(const drawer *d);

enum {
    FAKE_END = 256,   /* special, ends an answer */
    FAKE_THINK = 257, /* one token "<think>" */
    FAKE_UNTHINK = 258,
    FAKE_POISON = 259, /* once it is in a sequence, its logits are not numbers */
    FAKE_QUIET = 260,  /* special, without visible text */
    FAKE_VOCAB = 261,
    FAKE_ROW = 272, /* floats in a row: the rest is padding */
};

typedef struct fake {
    engine_limits limits;
    bool opens_thinking;
    call_form calls;
    const int32_t *script; /* what it says, when not NULL; from position script_at on */
    int nscript, script_at;
    int period;  /* when not 0: it likes to say again what stood so many tokens before */
    bool broken; /* forward fails */
    /* what the batches were like */
    int most_tokens, most_seqs, most_logits, copies;
    uint64_t tokens;
    /* inside */
    int32_t *cache; /* [kv_blocks][block_tokens] */
    float *logits;
    drawer drawer;
    bool closed;
} fake;

/* Fakes that are opened from now on compute beside their caller, as a GPU does. */
extern bool fake_overlaps;
/* And draw, so that no logits come back; and begin a pass before the last one's tokens are known. */
extern bool fake_draws, fake_runs_ahead;
/* As a test's argument says: "overlap", "draw", "ahead", or none. */
void fake_be(const char *how);

/* limits->… of 0 get small defaults. The fake must outlive the engine. */
engine *fake_open(fake *f, const engine_limits *limits);
void fake_done(fake *f);

/* What came out of one request. */
typedef struct said {
    uint64_t id;
    int choice;
    int32_t token[4096];
    float logprob[4096];
    int index_first, n;
    char text[3][16384]; /* content, reasoning, calls as NAME(ARGUMENTS)NAME(ARGUMENTS */
    size_t len[3];
    int calls;
    bool ended, contiguous;
    engine_finish finish;
    int prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens;
    char error[200];
} said;

void said_init(said *s, uint64_t id);
void said_add(said *s, const engine_event *ev);
/* Steps until every one of s[0..n) has ended; false when the engine stops before or fails. */
bool run_all(engine *e, said *s, int n);

/* A request over the bytes of `prompt`. */
engine_request request_of(uint64_t id, const char *prompt);
/* Submits it (asserting that this works), runs to the end of its one answer. */
void say(engine *e, const engine_request *r, said *out);

uint64_t mix(uint64_t x);
/* A small generator for random schedules. */
static inline uint32_t rnd(uint64_t *state, uint32_t n) {
    return (uint32_t)(mix((*state)++) >> 33) % n;
}

#endif

/* The Millrace engine: a loaded model and one step loop over many sequences.
 *
 * The engine knows nothing of Kafka, Redis, HTTP or JSON schemas of others. A program opens a checkpoint, submits
 * requests, and calls engine_step() again and again; each step runs one forward pass over a mixed batch (running decodes and
 * chunks of prefill) and yields events: text deltas and one END per request.
 *
 *     engine *e = engine_open(&opt, &err);
 *     engine_submit(e, &req, &err);
 *     while (engine_busy(e)) {
 *         engine_event ev[64];
 *         int n = engine_step(e, ev, 64, &err);
 *         …
 *     }
 *     engine_close(e);
 *
 * Threads: an engine belongs to the thread that calls it; its own compute threads are inside. Memory: weights are mmap'ed or
 * repacked at open, KV blocks and workspace are taken at open; a step allocates nothing.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "engine/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct engine engine;

typedef struct engine_options {
    const char *model_dir; /* HuggingFace checkpoint folder… */
    const char *
        random_shape; /* …or a config.json: a model of that shape with random weights and no text, to measure */
    const char
        *chat_template; /* NULL: recognised from the checkpoint; else a name of engine/text/template.h */
    int threads;        /* 0: the CPUs this process may use */
    int tp;             /* ranks that the model is split over, which share the threads out; 0: one */
    int max_seqs;       /* sequences that run at once; 0: 16 */
    int max_waiting;    /* requests that wait beyond those; 0: 4 * max_seqs */
    int max_context;    /* tokens of one sequence, prompt and answer; 0: the model's own, at most 8192 */
    int kv_tokens; /* KV cache in tokens, rounded up to blocks; 0: max_seqs * max_context, capped by memory */
    int step_tokens;     /* token budget of a step, at least max_seqs; 0: 256 */
    int reserve_tokens;  /* growth of each sequence that must find room before another is admitted; 0: 512 */
    int guess_tokens;    /* speculation: guesses fill a step up to so many tokens; 0: none */
    const char *weights; /* NULL or "stored"; "int8" quantises them, "int8-a16" without rounding activations;
                        "fp8" and "fp8-a16", GPUs only: the same in e4m3 */
    const char *kv; /* NULL or "full"; "int8" keeps keys and values in 8 bits: half of the memory or less */
    bool
        any_order; /* not deterministic: a token may depend on its batch, in the rounding of its logits. GPUs multiply by
                         * cuBLASLt then; a CPU is deterministic in any case */
    const char *device; /* NULL or "cpu"; "cuda": GPUs 0 to tp - 1; "auto": those, where there are any */
    /* As weights go to GPUs: bytes of the checkpoint that rank 0 has read, of all that it will; on the caller's thread. NULL: not
     * told. A CPU maps its files, or copies them faster than one could look. */
    void (*loading)(void *arg, size_t done, size_t total);
    void *loading_arg;
    const char *isa; /* NULL: the best this CPU has; "generic", "avx2"… to force a path */
} engine_options;

typedef struct engine_info {
    const char *name;         /* folder name of the checkpoint */
    const char *architecture; /* "LlamaForCausalLM"… */
    const char *isa;
    const char *chat_template;
    int64_t parameters;
    int layers, hidden, heads, kv_heads, head_dim, vocab;
    int max_context, max_seqs, kv_block_tokens, kv_blocks, threads, tp;
    size_t weight_bytes, kv_bytes, workspace_bytes;
    size_t token_weight_bytes; /* what computing one token reads of the weights */
    int max_events;            /* a step's most */
} engine_info;

engine *engine_open(const engine_options *opt, engine_error *err);
void engine_close(engine *e);
const engine_info *engine_describe(const engine *e);

/* A call that an earlier answer asked for. */
typedef struct engine_call {
    const char *name;
    const char *arguments; /* a JSON object as text */
    size_t arguments_len;
} engine_call;

typedef struct engine_message {
    const char *role;    /* system, user, assistant, developer; where the template has tools: tool */
    const char *content; /* UTF-8 of content_len bytes */
    size_t content_len;
    const engine_call *calls; /* of an assistant's turn */
    int ncalls;
} engine_message;

/* A function that the model may call. */
typedef struct engine_tool {
    const char *name;        /* letters, digits, _ and - */
    const char *description; /* NULL: none */
    const char *parameters;  /* a JSON schema of an object, as text; NULL: none */
    size_t parameters_len;
    bool strict; /* its calls are held to the schema, which is refused where that cannot be */
} engine_tool;

/* What a prompt is rendered from. */
typedef struct engine_chat {
    const engine_message *messages;
    int nmessages;
    const engine_tool *tools;
    int ntools;
} engine_chat;

typedef struct engine_sampling {
    float temperature;                         /* 0: greedy */
    float top_p;                               /* 1: off */
    int top_k;                                 /* 0: off */
    float min_p;                               /* 0: off */
    float presence_penalty, frequency_penalty; /* OpenAI's, over generated tokens */
    float repetition_penalty;                  /* 1: off; HuggingFace's, over prompt and generated tokens */
    uint64_t seed;                             /* with the position, the whole state of the sampler */
    int max_tokens;                            /* 0: what the context leaves */
    int min_tokens;
    bool ignore_eos;
    int logprobs;            /* -1: none; else this many alternatives (<= 20) beside the sampled token */
    const char *const *stop; /* strings that end the answer and are not part of it */
    int nstop;               /* <= 16, each <= 256 bytes */
} engine_sampling;
void engine_sampling_default(engine_sampling *s);

/* Structured output: the answer's content is JSON and nothing else; reasoning before it is free. The answer ends with the
 * value, so only one cut off by max_tokens is not whole. What of JSON schema can be asked for is in engine/grammar. */
typedef struct engine_format {
    bool json;          /* any object… */
    const char *schema; /* …or, where this is not NULL, a value of this JSON schema */
    size_t schema_len;
} engine_format;

/* Tools: the answer may be calls of them, which come out as events of their own, or must be. Once a call begins, it is held to
 * its form and to the names of the tools, its arguments to a JSON object; to the tool's schema where the tool is strict, or
 * where a call must come and the schema can be kept. Nothing but further calls follows a call. */
typedef struct engine_tools {
    const engine_tool *v;
    int n;
    bool must_call;
    const char *only; /* the one that may be called; NULL: any */
    bool one_call;    /* the answer ends with the first */
} engine_tools;

typedef struct engine_request {
    uint64_t id;                    /* the caller's; unique among what is submitted */
    const engine_message *messages; /* rendered with the chat template… */
    int nmessages;
    const int32_t *prompt; /* …or token ids (then nmessages is 0) */
    int nprompt;
    const int32_t
        *forced; /* tokens already generated by an earlier run: taken as the answer's beginning, events
                                 start after them */
    int nforced;
    int n; /* answers to draw, each with an END of its own; 0: 1. They share the prompt's computation and memory */
    int choice; /* number of the first: to draw a single one again. Each has a seed of its own, the first `sampling`'s */
    engine_sampling sampling;
    engine_format format;
    engine_tools tools; /* with messages only, and without a format */
    /* The cache shares prefixes only among requests of the same salt: one a tenant, so that nobody can learn from the
     * time to first token what others have asked. */
    uint64_t cache_salt;
} engine_request;

/* Copies what it needs. Fails with ENGINE_EINVAL (bad request: say it to the user), ENGINE_ETOOLONG (prompt does not fit;
 * the message has the numbers), ENGINE_EBUSY (waiting queue full: try again later). */
int engine_submit(engine *e, const engine_request *req, engine_error *err);
/* Frees its slots and blocks before the next step; END events with ENGINE_FINISH_CANCELLED follow. False when there is no
 * such request. */
bool engine_cancel(engine *e, uint64_t id);

typedef enum { ENGINE_TOKENS, ENGINE_END } engine_event_kind;
typedef enum { ENGINE_CONTENT, ENGINE_REASONING, ENGINE_CALL } engine_channel;
typedef enum {
    ENGINE_FINISH_STOP,   /* end of sequence or a stop string */
    ENGINE_FINISH_CALLS,  /* the same, and there were tool calls */
    ENGINE_FINISH_LENGTH, /* max_tokens or the context is used up */
    ENGINE_FINISH_CANCELLED,
    ENGINE_FINISH_ERROR, /* the engine could not go on with this sequence; see error */
} engine_finish;

typedef struct engine_top_logprob {
    int32_t token;
    float logprob;
} engine_top_logprob;

/* One event; its pointers are borrowed until the next call with this engine. */
typedef struct engine_event {
    engine_event_kind kind;
    uint64_t id;
    int choice;
    /* ENGINE_TOKENS: one sampled token. Text may be empty (a UTF-8 character or a possible stop string is still
     * incomplete) and may belong to earlier tokens too. */
    int32_t token;
    int index; /* 0 for the answer's first token, forced ones counted */
    engine_channel channel;
    const char *text;
    size_t text_len;
    int call;              /* ENGINE_CALL: text is arguments of the answer's call of this number… */
    const char *call_name; /* …to this tool */
    bool has_logprob;      /* asked for: the next three are there */
    float logprob;
    const engine_top_logprob *top;
    int ntop;
    /* ENGINE_END; it may carry the last held-back text in text/channel as well */
    engine_finish finish;
    int prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens;
    const char *error;
} engine_event;

/* Run one step. Returns the number of events written, or -1 with err when the engine itself is broken and must be closed. 0
 * with nothing to do. max is to be engine_info.max_events in every call; down to 2 * max_seqs it works, with fewer guesses, in every
 * call. On GPUs the next step's computation has begun when it returns: it goes on while the caller handles the events. */
int engine_step(engine *e, engine_event *events, int max, engine_error *err);
bool engine_busy(const engine *e);

typedef struct engine_load {
    int running, waiting;
    int kv_blocks_used, kv_blocks;
    uint64_t steps, prompt_tokens, generated_tokens, preemptions;
    uint64_t wanted_tokens, cached_tokens;  /* known when first admitted; of those, in the prefix cache */
    uint64_t guessed_tokens, right_guesses; /* computed on a guess; of those, what was then drawn */
} engine_load;
engine_load engine_load_now(const engine *e);

/* The text of tokens and back, for tools and tests. */
struct tokenizer;
const struct tokenizer *engine_tokenizer(const engine *e);

#endif

/* An engine host without an engine, for tests and for measuring everything around the engine: it speaks the
 * frames, and answers at once with words made from the seed and the token's number.
 *
 * The last user message may script it, in words anywhere in it:
 *     tokens N     length of the answer (16)            slow MS      pause before each token (0)
 *     think N      the first N tokens are reasoning     error        ends with an error
 *     crash AT     dies before token AT                 hang AT      goes silent before token AT, the whole host
 * `crash` and `hang` happen whenever the request gets there: a poison. Nothing here is random: the same seed
 * gives the same answer, also when it goes on from forced tokens.
 *
 * One thread: waits for the socket or for the next token that is due. NOOP_READY_MS delays ready.
 */
#include "schemas/hash.h"
#include "worker/frames.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_SEQS 4096
#define LOAD_US  250000

typedef struct sequence {
    int64_t id; /* 0: free */
    uint64_t seed;
    int64_t index, tokens, think, crash, hang, slow_us, due_us, prompt_tokens;
    bool error, logprobs;
} sequence;

typedef struct noop {
    int fd, max_seqs, running;
    mr_frame_reader *reader;
    mr_arena *arena;
    mr_buf out;
    sequence seqs[MAX_SEQS];
    int64_t load_due_us, steps, generated;
    bool draining;
} noop;

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void die(const char *what, const char *why) {
    fprintf(stderr, "noop engine host: %s: %s\n", what, why);
    exit(1);
}

/* ---- out ---- */

static void put(noop *n, const mr_frame *f) {
    mr_error err;
    if (mr_frame_encode(f, &n->out, &err)) die("encode", err.msg);
}

static void write_out(noop *n) {
    size_t at = 0;
    while (at < n->out.n) {
        ssize_t w = write(n->fd, n->out.p + at, n->out.n - at);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) exit(0); /* the supervisor is gone */
        at += (size_t)w;
    }
    mr_buf_clear(&n->out);
}

static void put_end(noop *n, sequence *s, int finish) {
    mr_frame f = {.type = MR_FRAME_END};
    f.end.id = s->id;
    f.end.finish = finish;
    f.end.prompt_tokens = s->prompt_tokens;
    f.end.completion_tokens = s->index;
    f.end.reasoning_tokens = s->index < s->think ? s->index : s->think;
    f.end.text = f.end.code = f.end.message = MR_STR("");
    if (finish == MR_FINISH_ERROR) {
        f.end.status = 500;
        f.end.code = MR_STR("scripted");
        f.end.message = MR_STR("the request asked for an error");
    }
    put(n, &f);
    s->id = 0;
    n->running--;
}

static mr_str word_of(uint64_t seed, int64_t index) {
    static const char *const words[] = {"river ", "mill ",   "wheel ", "grain ", "水",   "车",
                                        "café ",  "stone, ", "🙂 ",  "flow ",  "the ", "\n",
                                        "of ",    "a ",      "磨坊",   "runs. "};
    uint64_t h = seed + (uint64_t)index * UINT64_C(0x9e3779b97f4a7c15);
    h ^= h >> 29;
    return mr_str_of(words[(h * UINT64_C(0xbf58476d1ce4e5b9)) >> 60]);
}

static void put_token(noop *n, sequence *s) {
    mr_frame f = {.type = MR_FRAME_TOKENS};
    int64_t id = s->index;
    mr_logprob lp = {.set = 0};
    f.tokens.id = s->id;
    f.tokens.index = s->index;
    f.tokens.tokens.v = &id;
    f.tokens.tokens.n = 1;
    f.tokens.channel = s->index < s->think ? MR_CHANNEL_REASONING : MR_CHANNEL_CONTENT;
    f.tokens.text = word_of(s->seed, s->index);
    if (s->logprobs) {
        MR_SET(&lp, MR_LOGPROB_TOKEN, token, f.tokens.text);
        MR_SET(&lp, MR_LOGPROB_LOGPROB, logprob, -0.5);
        f.tokens.logprobs.v = &lp;
        f.tokens.logprobs.n = 1;
    }
    put(n, &f);
    s->index++;
    n->generated++;
}

static void put_load(noop *n, int64_t now) {
    mr_frame f = {.type = MR_FRAME_LOAD};
    if (now < n->load_due_us) return;
    f.load.running = n->running;
    f.load.kv_blocks = n->max_seqs;
    f.load.kv_blocks_used = n->running;
    f.load.steps = n->steps;
    f.load.generated_tokens = n->generated;
    put(n, &f);
    n->load_due_us = now + LOAD_US;
}

/* ---- in ---- */

static int64_t number_after(const char *script, const char *word, int64_t otherwise) {
    const char *at = strstr(script, word);
    if (!at) return otherwise;
    return strtoll(at + strlen(word), NULL, 10);
}

static void read_script(sequence *s, const char *text) {
    s->tokens = number_after(text, "tokens ", 16);
    s->think = number_after(text, "think ", 0);
    s->crash = number_after(text, "crash ", -1);
    s->hang = number_after(text, "hang ", -1);
    s->slow_us = 1000 * number_after(text, "slow ", 0);
    s->error = strstr(text, "error") != NULL;
}

static const char *last_user_text(const mr_chat_request *q) {
    for (uint32_t i = q->messages.n; i-- > 0;) {
        const mr_chat_message *m = &q->messages.v[i];
        if (m->role == MR_ROLE_USER && m->content.p) return m->content.p;
    }
    return "";
}

static void submit(noop *n, const mr_frame_submit *f) {
    mr_chat_request q;
    mr_error err;
    sequence *s = n->seqs;
    while (s < n->seqs + n->max_seqs && s->id) s++;
    if (s == n->seqs + n->max_seqs) die("submit", "more than max_seqs");
    mr_arena_reset(n->arena);
    if (mr_unpack(&mr_chat_request_def, f->request, n->arena, &q, &err)) die("request", err.msg);
    *s = (sequence){.id = f->id, .seed = (uint64_t)q.sampling.seed, .index = f->forced.n, .due_us = now_us()};
    read_script(s, last_user_text(&q));
    if (MR_HAS(&q.sampling, MR_SAMPLING_MAX_TOKENS) && q.sampling.max_tokens < s->tokens)
        s->tokens = q.sampling.max_tokens;
    s->logprobs = q.sampling.logprobs;
    s->prompt_tokens = (int64_t)strlen(last_user_text(&q)) / 4 + 1;
    n->running++;
}

static void cancel(noop *n, int64_t id) {
    for (int i = 0; i < n->max_seqs; i++) {
        if (n->seqs[i].id == id) put_end(n, &n->seqs[i], MR_FINISH_CANCELLED);
    }
}

static void read_in(noop *n) {
    char chunk[65536];
    mr_error err;
    mr_frame f;
    ssize_t got = read(n->fd, chunk, sizeof(chunk));
    if (got == 0 || (got < 0 && errno != EINTR)) exit(0);
    if (got < 0) return;
    int rc = mr_frame_feed(n->reader, chunk, (size_t)got, &err);
    while (rc == 0 && (rc = mr_frame_next(n->reader, &f, &err)) == 1) {
        if (f.type == MR_FRAME_SUBMIT) submit(n, &f.submit);
        if (f.type == MR_FRAME_CANCEL) cancel(n, f.cancel.id);
        if (f.type == MR_FRAME_DRAIN) n->draining = true;
        rc = 0;
    }
    if (rc < 0) die("frame", err.msg);
}

/* ---- steps ---- */

static void step_one(noop *n, sequence *s, int64_t now) {
    if (s->index == s->crash || s->index == s->hang) write_out(n);
    if (s->index == s->crash) raise(SIGKILL);
    if (s->index == s->hang) raise(SIGSTOP);
    if (s->error && s->index >= s->tokens / 2) {
        put_end(n, s, MR_FINISH_ERROR);
    } else if (s->index >= s->tokens) {
        put_end(n, s, MR_FINISH_STOP);
    } else {
        put_token(n, s);
        s->due_us = now + s->slow_us;
    }
}

/* One token of each sequence that is due. */
static void step(noop *n) {
    int64_t now = now_us();
    n->steps++;
    for (int i = 0; i < n->max_seqs; i++) {
        if (n->seqs[i].id && n->seqs[i].due_us <= now) step_one(n, &n->seqs[i], now);
    }
    put_load(n, now);
    write_out(n);
}

static int wait_ms(const noop *n) {
    int64_t now = now_us(), due = n->load_due_us;
    for (int i = 0; i < n->max_seqs; i++) {
        if (n->seqs[i].id && n->seqs[i].due_us < due) due = n->seqs[i].due_us;
    }
    return due <= now ? 0 : (int)((due - now + 999) / 1000);
}

static void say_hello(noop *n) {
    mr_frame f = {.type = MR_FRAME_HELLO};
    f.hello = (mr_frame_hello){.protocol = MR_FRAME_PROTOCOL, .pid = getpid(), .engine = MR_STR("noop")};
    put(n, &f);
    write_out(n);
    const char *delay = getenv("NOOP_READY_MS");
    if (delay) poll(NULL, 0, atoi(delay));
    f = (mr_frame){.type = MR_FRAME_READY};
    f.ready = (mr_frame_ready){.model = MR_STR("noop"),
                               .architecture = MR_STR("none"),
                               .isa = MR_STR("none"),
                               .max_seqs = n->max_seqs,
                               .max_context = 1000000};
    put(n, &f);
    write_out(n);
}

static int64_t flag(int argc, char **argv, const char *name) {
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], name) == 0) return strtoll(argv[i + 1], NULL, 10);
    }
    return 0;
}

int main(int argc, char **argv) {
    static noop n;
    mr_error err;
    n.fd = (int)flag(argc, argv, "--fd");
    n.max_seqs = (int)flag(argc, argv, "--max-seqs");
    if (n.max_seqs <= 0 || n.max_seqs > MAX_SEQS) n.max_seqs = 256;
    if (n.fd <= 0) die("arguments", "this program is started by a test, with --fd N");
    n.reader = mr_frame_reader_new(&err);
    n.arena = mr_arena_new(64u << 20);
    if (!n.reader || !n.arena) die("start", "out of memory");
    mr_buf_init(&n.out, 64u << 20);
    say_hello(&n);
    while (!n.draining || n.running) {
        struct pollfd in = {.fd = n.fd, .events = POLLIN};
        if (poll(&in, 1, wait_ms(&n)) > 0) read_in(&n);
        step(&n);
    }
    mr_buf_done(&n.out);
    mr_arena_free(n.arena);
    mr_frame_reader_free(n.reader);
    return 0;
}

/* millrace-engine generate: one request, its answer to stdout as it comes, its reasoning and the speed to stderr. */
#include "engine/cli/args.h"
#include "engine/cli/cli.h"
#include "engine/model/shard.h"
#include "engine/text/tokenizer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PROMPT_MAX = 8 << 20, GUESSES_MAX = 64 };

typedef struct job {
    engine_options engine;
    engine_sampling sampling;
    const char *system, *prompt, *stop;
    bool raw;
    /* what is measured */
    double started, first, ended;
    int prompt_tokens, answer_tokens;
    bool dimmed;
    engine_finish finish;
    engine_load load;
} job;

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal) {
    (void)signal;
    interrupted = 1;
}

static int parse(job *j, int argc, char **argv) {
    engine_options *e = &j->engine;
    engine_sampling *s = &j->sampling;
    const arg args[] = {
        {"model", ARG_TEXT, &e->model_dir, 0, 0, "DIR", "HuggingFace checkpoint folder (required)"},
        {"prompt", ARG_TEXT, &j->prompt, 0, 0, "TEXT",
         "what the user says; - reads it from stdin (required)"},
        {"system", ARG_TEXT, &j->system, 0, 0, "TEXT", "a system message before it"},
        {"raw", ARG_FLAG, &j->raw, 0, 0, NULL, "no chat template: go on where the prompt ends"},
        {"max-tokens", ARG_INT, &s->max_tokens, 0, 1e9, "N", "longest answer (0: what the context leaves)"},
        {"temperature", ARG_NUMBER, &s->temperature, 0, 100, "F", "0 is greedy (1)"},
        {"top-p", ARG_NUMBER, &s->top_p, 0, 1, "F", "likeliest tokens up to this share (1: all)"},
        {"top-k", ARG_INT, &s->top_k, 0, 1e9, "N", "so many of the likeliest tokens (0: all)"},
        {"min-p", ARG_NUMBER, &s->min_p, 0, 1, "F", "at least this share of the best token (0: off)"},
        {"repetition-penalty", ARG_NUMBER, &s->repetition_penalty, 0.01, 100, "F", "1: off"},
        {"seed", ARG_SEED, &s->seed, 0, 0, "N", "the same seed gives the same answer (0)"},
        {"stop", ARG_TEXT, &j->stop, 0, 0, "TEXT", "the answer ends before this text"},
        {"ignore-eos", ARG_FLAG, &s->ignore_eos, 0, 0, NULL, "go on past the end of the answer"},
        {"max-context", ARG_INT, &e->max_context, 0, 1e9, "N",
         "tokens of prompt and answer (0: the model's)"},
        {"chat-template", ARG_TEXT, &e->chat_template, 0, 0, "NAME", "in place of the checkpoint's own"},
        {"guess-tokens", ARG_INT, &e->guess_tokens, 0, GUESSES_MAX, "N",
         "speculation: guesses fill a step up to so many tokens; the answer is the same (0: none)"},
        {"device", ARG_TEXT, &e->device, 0, 0, "NAME", "auto (GPUs where there are any), cpu or cuda (cpu)"},
        {"threads", ARG_INT, &e->threads, 0, 1024, "N", "0: the CPUs this process may use"},
        {"tp", ARG_INT, &e->tp, 0, SHARD_RANKS_MAX, "N", "ranks that the model is split over (1)"},
        {"weights", ARG_TEXT, &e->weights, 0, 0, "HOW",
         "stored, int8, int8-a16; on a GPU also fp8, fp8-a16 (stored)"},
        {"kv", ARG_TEXT, &e->kv, 0, 0, "HOW", "KV cache: full or int8 (full)"},
        {"deterministic", ARG_UNLESS, &e->any_order, 0, 0, "BOOL",
         "true; false: a token may depend on its batch, and a GPU multiplies by cuBLASLt"},
        {"isa", ARG_TEXT, &e->isa, 0, 0, "NAME", "force generic, avx2, avx512, avx512-vnni or avx512-bf16"},
        {0},
    };
    const command c = {"generate", "Answers a prompt, streaming to stdout.", args, NULL};
    int status = args_parse(&c, argc, argv);
    if (status >= 0) return status;
    if (!e->model_dir) return args_wrong(&c, "--model is missing");
    return j->prompt ? -1 : args_wrong(&c, "--prompt is missing");
}

static char *read_stdin(engine_error *err) {
    char *text = malloc(PROMPT_MAX + 1);
    size_t n = text ? fread(text, 1, PROMPT_MAX, stdin) : 0;
    if (text && !ferror(stdin) && n < PROMPT_MAX) {
        text[n] = 0;
        return text;
    }
    free(text);
    engine_fail(err, ENGINE_EIO, "the prompt cannot be read from stdin (at most %d bytes)", PROMPT_MAX);
    return NULL;
}

/* The prompt's ids without a template; special tokens may be written in it. The caller frees. */
static int32_t *encode_raw(const engine *e, const char *prompt, int *count, engine_error *err) {
    const tokenizer *t = engine_tokenizer(e);
    size_t cap = strlen(prompt) + 2, at = 0;
    int32_t *ids = malloc(cap * sizeof *ids);
    if (!ids) {
        engine_fail(err, ENGINE_ENOMEM, "no memory for the prompt");
        return NULL;
    }
    if (tokenizer_adds_bos(t) && tokenizer_bos(t) >= 0) ids[at++] = tokenizer_bos(t);
    int64_t n = tokenizer_encode(t, prompt, strlen(prompt), true, ids + at, cap - at, err);
    if (n >= 0 && (size_t)n <= cap - at) {
        *count = (int)at + (int)n;
        return ids;
    }
    if (n >= 0) engine_fail(err, ENGINE_EINTERNAL, "the prompt has more tokens than bytes");
    free(ids);
    return NULL;
}

static int submit(engine *e, job *j, engine_error *err) {
    engine_message messages[2];
    int32_t *ids = NULL;
    engine_request r = {.id = 1, .sampling = j->sampling};
    r.sampling.stop = &j->stop;
    r.sampling.nstop = j->stop != NULL;
    if (j->raw) {
        ids = encode_raw(e, j->prompt, &r.nprompt, err);
        if (!ids) return -1;
        r.prompt = ids;
    } else {
        if (j->system)
            messages[r.nmessages++] =
                (engine_message){.role = "system", .content = j->system, .content_len = strlen(j->system)};
        messages[r.nmessages++] =
            (engine_message){.role = "user", .content = j->prompt, .content_len = strlen(j->prompt)};
        r.messages = messages;
    }
    int rc = engine_submit(e, &r, err);
    free(ids);
    return rc;
}

/* Reasoning is shown apart, so that what is piped on is the answer alone. */
static void show(job *j, const engine_event *ev) {
    bool reasoning = ev->channel == ENGINE_REASONING;
    if (!ev->text_len) return;
    if (reasoning != j->dimmed && isatty(2)) fputs(reasoning ? "\033[2m" : "\033[0m\n\n", stderr);
    j->dimmed = reasoning;
    FILE *to = reasoning ? stderr : stdout;
    fwrite(ev->text, 1, ev->text_len, to);
    fflush(to);
}

static int take(job *j, const engine_event *ev, engine_error *err) {
    show(j, ev);
    if (ev->kind == ENGINE_TOKENS) {
        if (ev->index == 0) j->first = cli_seconds();
        return 0;
    }
    j->prompt_tokens = ev->prompt_tokens;
    j->answer_tokens = ev->completion_tokens;
    j->finish = ev->finish;
    if (ev->finish == ENGINE_FINISH_ERROR) return engine_fail(err, ENGINE_EINTERNAL, "%s", ev->error);
    if (fflush(stdout)) return engine_fail(err, ENGINE_EIO, "writing the answer: %s", strerror(errno));
    return 0;
}

static int run(engine *e, job *j, engine_error *err) {
    engine_event ev[2 + GUESSES_MAX];
    j->started = j->first = cli_seconds();
    if (submit(e, j, err)) return -1;
    while (engine_busy(e)) {
        if (interrupted) engine_cancel(e, 1);
        int n = engine_step(e, ev, 2 + GUESSES_MAX, err);
        if (n < 0) return -1;
        for (int i = 0; i < n; i++) {
            if (take(j, &ev[i], err)) return -1;
        }
    }
    j->ended = cli_seconds();
    j->load = engine_load_now(e);
    return 0;
}

static void report(const job *j) {
    static const char *const finishes[] = {"stop", "calls", "length", "interrupted", "error"};
    double prefill = j->first - j->started, decode = j->ended - j->first;
    if (j->dimmed && isatty(2)) fputs("\033[0m", stderr);
    putchar('\n');
    fflush(stdout);
    fprintf(stderr,
            "prompt %d tokens in %.2f s (%.1f tokens/s), answer %d tokens in %.2f s (%.1f tokens/s), %s\n",
            j->prompt_tokens, prefill, prefill > 0 ? j->prompt_tokens / prefill : 0, j->answer_tokens, decode,
            decode > 0 && j->answer_tokens > 1 ? (j->answer_tokens - 1) / decode : 0, finishes[j->finish]);
    if (j->engine.guess_tokens) {
        fprintf(stderr, "%llu of %llu guessed tokens were right; %llu steps\n",
                (unsigned long long)j->load.right_guesses, (unsigned long long)j->load.guessed_tokens,
                (unsigned long long)j->load.steps);
    }
}

static int generate(job *j, engine_error *err) {
    char *text = NULL;
    engine *e = NULL;
    cli_bar bar = {.started = cli_seconds(), .percent = -1};
    int rc = -1;
    if (!strcmp(j->prompt, "-")) {
        j->prompt = text = read_stdin(err);
        if (!text) return -1;
    }
    j->engine.loading = cli_bar_show;
    j->engine.loading_arg = &bar;
    e = engine_open(&j->engine, err);
    if (!e) goto out;
    signal(SIGINT, on_interrupt);
    rc = run(e, j, err);
    if (rc == 0) report(j);
out:
    engine_close(e);
    free(text);
    return rc;
}

int cli_generate(int argc, char **argv) {
    job j = {.engine = {.max_seqs = 1}};
    engine_error err;
    engine_sampling_default(&j.sampling);
    int status = parse(&j, argc, argv);
    if (status >= 0) return status;
    if (generate(&j, &err)) return cli_fail("generate", &err);
    return interrupted ? 130 : 0;
}

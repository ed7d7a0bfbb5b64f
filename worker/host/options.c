/* See options.h. */
#include "worker/host/options.h"

#include "base/main.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "Usage: millrace-engine-host --fd N --model DIR [options]\n"
    "Runs the engine for millrace-worker, which starts it and speaks with it over socket N.\n\n"
    "  --fd N                the socket\n"
    "  --model DIR           HuggingFace checkpoint folder\n"
    "  --device NAME         auto (GPUs where there are any), cpu or cuda (cpu)\n"
    "  --threads N           compute threads (0: the CPUs this process may use)\n"
    "  --tp N                ranks that the model is split over (0: one)\n"
    "  --max-seqs N          sequences that run at once (0: 16)\n"
    "  --max-context N       tokens of a sequence, prompt and answer (0: the model's, at most 8192)\n"
    "  --weights HOW         stored, int8, int8-a16; on a GPU also fp8, fp8-a16 (stored)\n"
    "  --kv HOW              KV cache: full or int8 (full)\n"
    "  --guess-tokens N      speculation: guesses fill a step up to so many tokens (0: none)\n"
    "  --chat-template NAME  force a chat template in place of the checkpoint's own\n"
    "  --deterministic BOOL  false: a token may depend on its batch, and a GPU multiplies by cuBLASLt "
    "(true)\n"
    "  --help, --version\n";

enum {
    FD,
    MODEL,
    DEVICE,
    THREADS,
    TP,
    MAX_SEQS,
    MAX_CONTEXT,
    WEIGHTS,
    KV,
    GUESS_TOKENS,
    CHAT_TEMPLATE,
    DETERMINISTIC,
    HELP,
    VERSION
};

static const struct option flags[] = {
    {"fd", required_argument, NULL, FD},
    {"model", required_argument, NULL, MODEL},
    {"device", required_argument, NULL, DEVICE},
    {"threads", required_argument, NULL, THREADS},
    {"tp", required_argument, NULL, TP},
    {"max-seqs", required_argument, NULL, MAX_SEQS},
    {"max-context", required_argument, NULL, MAX_CONTEXT},
    {"weights", required_argument, NULL, WEIGHTS},
    {"kv", required_argument, NULL, KV},
    {"guess-tokens", required_argument, NULL, GUESS_TOKENS},
    {"chat-template", required_argument, NULL, CHAT_TEMPLATE},
    {"deterministic", required_argument, NULL, DETERMINISTIC},
    {"help", no_argument, NULL, HELP},
    {"version", no_argument, NULL, VERSION},
    {0},
};

static int wrong(const char *what, const char *value) {
    fprintf(stderr, "millrace-engine-host: %s%s (see --help)\n", what, value);
    return 2;
}

static bool parse_count(const char *text, int *out) {
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    *out = (int)v;
    return !errno && end != text && !*end && v >= 0 && v <= 1000000000;
}

static int parse_deterministic(const char *text, bool *any_order) {
    *any_order = !strcmp(text, "false");
    return *any_order || !strcmp(text, "true") ? -1 : wrong("neither true nor false: ", text);
}

static int set_option(int flag, mr_engine_host_options *o) {
    int *const counts[] = {[FD] = &o->fd,
                           [THREADS] = &o->engine.threads,
                           [TP] = &o->engine.tp,
                           [MAX_SEQS] = &o->engine.max_seqs,
                           [MAX_CONTEXT] = &o->engine.max_context,
                           [GUESS_TOKENS] = &o->engine.guess_tokens};
    switch (flag) {
    case MODEL: o->engine.model_dir = optarg; return -1;
    case DEVICE: o->engine.device = *optarg ? optarg : NULL; return -1;
    case WEIGHTS: o->engine.weights = *optarg ? optarg : NULL; return -1;
    case KV: o->engine.kv = *optarg ? optarg : NULL; return -1;
    case CHAT_TEMPLATE: o->engine.chat_template = *optarg ? optarg : NULL; return -1;
    case DETERMINISTIC: return parse_deterministic(optarg, &o->engine.any_order);
    case HELP: fputs(usage, stdout); return 0;
    case VERSION: printf("millrace-engine-host %s\n", mr_version()); return 0;
    case FD:
    case THREADS:
    case TP:
    case MAX_SEQS:
    case MAX_CONTEXT:
    case GUESS_TOKENS:
        return parse_count(optarg, counts[flag]) ? -1 : wrong("not a number from 0 up: ", optarg);
    default: return 2;
    }
}

int mr_engine_host_options_parse(int argc, char **argv, mr_engine_host_options *out) {
    *out = (mr_engine_host_options){.fd = -1};
    int flag;
    opterr = 0;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        if (flag == '?') return wrong("wrong option: ", argv[optind - 1]);
        int status = set_option(flag, out);
        if (status >= 0) return status;
    }
    if (optind < argc) return wrong("unexpected argument: ", argv[optind]);
    if (out->fd < 0) return wrong("--fd is missing: this program is started by millrace-worker", "");
    return out->engine.model_dir ? -1 : wrong("--model is missing", "");
}

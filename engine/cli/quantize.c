/* millrace-engine quantize: a checkpoint in 8 bits, made once instead of at every start. */
#include "engine/model/quantize.h"
#include "engine/cli/args.h"
#include "engine/cli/cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal) {
    (void)signal;
    interrupted = 1;
}

static bool show(void *bar, size_t done, size_t total) {
    cli_bar_show(bar, done, total);
    return !interrupted;
}

static int choose(const command *c, quantize_options *o, const char *scales, const char *weights,
                  int file_mb) {
    o->whole_rows = !strcmp(scales, "row");
    o->a16 = !strcmp(weights, "int8-a16");
    o->file_bytes = (size_t)file_mb * 1000000;
    if (!o->whole_rows && strcmp(scales, "group"))
        return args_wrong(c, "--scales is %s: expected group or row", scales);
    if (!o->a16 && strcmp(weights, "int8"))
        return args_wrong(c, "--weights is %s: expected int8 or int8-a16", weights);
    return -1;
}

int cli_quantize(int argc, char **argv) {
    cli_bar b = {.percent = -1};
    quantize_options o = {.progress = show, .arg = &b};
    const char *scales = "group", *weights = "int8";
    int file_mb = 5000;
    const arg args[] = {
        {"weights", ARG_TEXT, &weights, 0, 0, "HOW",
         "how they are meant to be used: int8, or int8-a16 with activations unrounded (int8)"},
        {"scales", ARG_TEXT, &scales, 0, 0, "OF",
         "group: one for 128 columns; row: for a whole row, less exact (group)"},
        {"keep-head", ARG_FLAG, &o.keep_head, 0, 0, NULL, "the head stays as it is"},
        {"file-mb", ARG_INT, &file_mb, 1, 1e9, "N", "largest file of weights in MB, tensors whole (5000)"},
        {"force", ARG_FLAG, &o.replace, 0, 0, NULL, "replace a checkpoint at DST"},
        {0},
    };
    const operand operands[] = {{"SRC", &o.from}, {"DST", &o.to}, {0}};
    const command c = {"quantize", "Makes of the checkpoint SRC one in 8 bits, in the new folder DST.", args,
                       operands};
    quantize_result r;
    engine_error err;
    int status = args_parse(&c, argc, argv);
    if (status < 0) status = choose(&c, &o, scales, weights, file_mb);
    if (status >= 0) return status;
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    b.started = cli_seconds();
    if (quantize_checkpoint(&o, &r, &err)) {
        cli_fail("quantize", &err);
        return interrupted ? 130 : 1;
    }
    printf("%s: %.1f MB of weights are %.1f MB in %s, %d file%s, %.1f s\n", o.from,
           (double)r.bytes_before / 1e6, (double)r.bytes_after / 1e6, o.to, r.files, r.files > 1 ? "s" : "",
           cli_seconds() - b.started);
    return 0;
}

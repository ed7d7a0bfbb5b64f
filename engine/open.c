/* engine_open: from a checkpoint folder and options to an engine. Resolves every default, sizes the KV cache by the memory
 * that is there, and joins model, backend, tokenizer and template into the parts of the step loop.
 */
#include "engine/engine_internal.h"

#include "engine/comm/comm.h"
#include "engine/comm/group.h"
#include "engine/cpu/kv_layout.h"
#include "engine/cuda/cuda.h"
#include "engine/model/shard.h"
#include "engine/text/template.h"
#include "engine/text/tokenizer.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_TOKENS = 16,
    DEFAULT_SEQS = 16,
    DEFAULT_CONTEXT = 8192,
    DEFAULT_STEP_TOKENS = 256,
    DEFAULT_RESERVE = 512,
    GUESSES_MAX = 4096,
    LEAST_CONTEXT = 128, /* a context lowered to fit memory below this is of no use */
    SEQS_MAX = 4096,
    WAITING_MAX = 65536,
};
#define GPU_RESERVE ((size_t)768 << 20)

typedef struct checkpoint {
    model *model;
    backend *backend;
    tokenizer *tokenizer;
    chat_template *template;
    char name[256];
} checkpoint;

static void checkpoint_close(void *owner) {
    checkpoint *c = owner;
    if (!c) return;
    backend_close(c->backend);
    chat_template_free(c->template);
    tokenizer_free(c->tokenizer);
    model_close(c->model);
    free(c);
}

static int checkpoint_forward(void *owner, const batch_seq *seqs, int nseqs, float **logits,
                              engine_error *err) {
    return backend_forward(((checkpoint *)owner)->backend, seqs, nseqs, logits, err);
}

static int checkpoint_begin(void *owner, const batch_seq *seqs, int nseqs, engine_error *err) {
    return backend_begin(((checkpoint *)owner)->backend, seqs, nseqs, err);
}

static int checkpoint_finish(void *owner, batch_result *result, engine_error *err) {
    return backend_finish(((checkpoint *)owner)->backend, result, err);
}

static bool checkpoint_runs_ahead(void *owner) {
    return backend_runs_ahead(((checkpoint *)owner)->backend);
}

static void checkpoint_copy_block(void *owner, int32_t from, int32_t to) {
    backend_copy_block(((checkpoint *)owner)->backend, from, to);
}

static int64_t checkpoint_render(void *owner, const engine_chat *chat, int32_t *out, size_t cap,
                                 engine_error *err) {
    const checkpoint *c = owner;
    if (c->template) return chat_template_render(c->template, chat, out, cap, err);
    return engine_fail(err, ENGINE_EINVAL, "a model of random weights takes token ids, not messages");
}

static const char *checkpoint_piece(void *owner, int32_t id, size_t *n, bool *special) {
    const checkpoint *c = owner;
    return c->tokenizer ? tokenizer_piece(c->tokenizer, id, n, special) : NULL;
}

/* The folder's own name: the last component of its path. */
static void name_of(const char *dir, char *out, size_t cap) {
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    size_t start = n;
    while (start && dir[start - 1] != '/') start--;
    snprintf(out, cap, "%.*s", (int)(n - start), dir + start);
}

static int open_text(checkpoint *c, const engine_options *o, engine_error *err) {
    c->tokenizer = tokenizer_load(o->model_dir, err);
    if (c->tokenizer) c->template = chat_template_new(c->tokenizer, o->chat_template, err);
    return c->template ? 0 : -1;
}

static checkpoint *checkpoint_open(const engine_options *o, engine_error *err) {
    const char *path = o->random_shape ? o->random_shape : o->model_dir;
    checkpoint *c = path ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        if (path)
            engine_fail(err, ENGINE_ENOMEM, "no memory to open %s", path);
        else
            engine_fail(err, ENGINE_EINVAL, "neither model_dir nor random_shape is given");
        return NULL;
    }
    name_of(path, c->name, sizeof c->name);
    c->model = o->random_shape ? model_random(path, err) : model_open(path, err);
    if (c->model && (o->random_shape || !open_text(c, o, err))) return c;
    checkpoint_close(c);
    return NULL;
}

/* ---- sizes ---- */

static int usable_cpus(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set)) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

/* The number that follows `key` in a file, in bytes times `unit`; SIZE_MAX when there is none. */
static size_t read_limit(const char *path, const char *key, size_t unit) {
    FILE *f = fopen(path, "r");
    if (!f) return SIZE_MAX;
    char line[256];
    unsigned long long v;
    size_t found = SIZE_MAX, k = strlen(key);
    while (found == SIZE_MAX && fgets(line, sizeof line, f)) {
        if (!strncmp(line, key, k) && sscanf(line + k, "%llu", &v) == 1) found = (size_t)v * unit;
    }
    fclose(f);
    return found;
}

size_t engine_available_memory(void) {
    size_t system = read_limit("/proc/meminfo", "MemAvailable:", 1024);
    size_t group = read_limit("/sys/fs/cgroup/memory.max", "", 1);
    return system < group ? system : group;
}

int engine_on_gpu(const char *device, engine_error *err) {
    if (!device || !strcmp(device, "cpu")) return 0;
    if (!strcmp(device, "cuda")) return 1;
    if (!strcmp(device, "auto")) return cuda_devices() > 0;
    return engine_fail(err, ENGINE_EINVAL, "unknown device \"%s\": use auto, cpu or cuda", device);
}

/* Known to be a device: check_options has seen it. */
static bool on_gpu(const engine_options *o) {
    return engine_on_gpu(o->device, NULL) > 0;
}

size_t engine_kv_bytes_per_token(const model_config *c, dtype type) {
    return kv_layout_of(c, type, BLOCK_TOKENS).block_bytes * (size_t)c->layers / BLOCK_TOKENS;
}

static bool quantises(const engine_options *o) {
    return o->weights && !strncmp(o->weights, "int8", 4);
}

/* A KV head that several ranks need is cached by each of them. */
static size_t kv_bytes_per_token(const engine_options *o, const model_config *c) {
    const size_t copies = o->tp > c->kv_heads ? (size_t)(o->tp / c->kv_heads) : 1;
    dtype type;
    kv_type(c, o->kv, &type, NULL);
    return engine_kv_bytes_per_token(c, type) * copies;
}

int engine_measure(const model *m, bool gpu, int ranks, backend_options o, backend_memory *out,
                   engine_error *err) {
    int (*measure)(const model *, const backend_options *, backend_memory *, engine_error *) =
        gpu ? backend_measure_cuda : backend_measure_cpu;
    model shard;
    comm end = {.rank = 0, .size = ranks};
    if (ranks <= 1) return measure(m, &o, out, err);
    o.comm = &end;
    if (shard_init(&shard, m, 0, ranks, err)) return -1;
    int rc = measure(&shard, &o, out, err);
    shard_done(&shard);
    return rc;
}

static int blocks_for(size_t tokens) {
    return (int)((tokens + BLOCK_TOKENS - 1) / BLOCK_TOKENS);
}

static backend_options options_of(const engine_options *o, const engine_limits *l, int threads) {
    return (backend_options){
        .threads = threads,
        .isa = o->isa,
        .weights = o->weights,
        .kv = o->kv,
        .any_order = o->any_order,
        .loading = o->loading,
        .loading_arg = o->loading_arg,
        .kv_blocks = l->kv_blocks,
        .block_tokens = l->block_tokens,
        .max_tokens = l->step_tokens,
        .max_logits = l->max_seqs + l->guess_tokens,
        .max_seqs = l->max_seqs,
        .max_blocks_per_seq = blocks_for((size_t)l->max_context),
    };
}

/* What is left beside all else that the backend takes, and beside what the driver, graphs and NCCL take when they are used. */
static int affordable_on_gpus(const engine_options *o, const engine_limits *l, const model *m, size_t *tokens,
                              engine_error *err) {
    backend_options b = options_of(o, l, 1);
    backend_memory need;
    b.kv_blocks = 1;
    if (engine_measure(m, true, o->tp, b, &need, err)) return -1;
    if (!cuda_devices())
        return engine_fail(err, ENGINE_EINVAL,
                           "no GPU can be used here: see whether nvidia-smi shows one, or choose device cpu");
    const size_t room = cuda_free_memory(), taken = need.weights + need.workspace + GPU_RESERVE;
    *tokens = room > taken ? (room - taken) / need.kv * BLOCK_TOKENS : 0;
    return 0;
}

/* Tokens of KV cache that fit beside the weights, with a quarter of the rest left alone. */
static int affordable_tokens(const engine_options *o, const engine_limits *l, const model *m, size_t *tokens,
                             engine_error *err) {
    if (on_gpu(o)) return affordable_on_gpus(o, l, m, tokens, err);
    size_t memory = engine_available_memory(), weights = quantises(o) ? (size_t)m->parameters : m->bytes;
    size_t room = memory > weights ? memory - weights : 0;
    *tokens = room / 4 * 3 / kv_bytes_per_token(o, &m->config);
    return 0;
}

static int check_option(const char *name, int value, int min, int max, engine_error *err) {
    if (value == 0 || (value >= min && value <= max)) return 0;
    return engine_fail(err, ENGINE_EINVAL, "%s is %d: expected %d to %d, or 0 for the default", name, value,
                       min, max);
}

static int check_options(const engine_options *o, const model_config *c, engine_error *err) {
    if (o->max_context > c->max_position) {
        return engine_fail(err, ENGINE_EINVAL, "max_context is %d, but the model was made for %d positions",
                           o->max_context, c->max_position);
    }
    const int gpu = engine_on_gpu(o->device, err);
    if (gpu < 0 || check_option("threads", o->threads, 1, 1024, err)) return -1;
    if (!gpu && o->weights && !strncmp(o->weights, "fp8", 3))
        return engine_fail(err, ENGINE_EINVAL, "weights \"%s\" are for GPUs: use int%s on a CPU", o->weights,
                           o->weights + 2);
    dtype type;
    if (kv_type(c, o->kv, &type, err)) return -1;
    if (o->tp && shard_check(c, o->tp, err)) return engine_fail_in(err, "tp");
    if (check_option("max_seqs", o->max_seqs, 1, SEQS_MAX, err)) return -1;
    if (check_option("max_waiting", o->max_waiting, 1, WAITING_MAX, err)) return -1;
    if (check_option("max_context", o->max_context, 2, c->max_position, err)) return -1;
    if (check_option("kv_tokens", o->kv_tokens, 2, INT32_MAX / 2, err)) return -1;
    if (check_option("reserve_tokens", o->reserve_tokens, 1, INT32_MAX / 2, err)) return -1;
    if (check_option("guess_tokens", o->guess_tokens, 1, GUESSES_MAX, err)) return -1;
    return check_option("step_tokens", o->step_tokens, 1, 1 << 20, err);
}

/* The cache must hold at least one sequence of max_context; a default context gives way to it, a chosen one does not. */
static int size_cache(engine_limits *l, const engine_options *o, const model *m, engine_error *err) {
    size_t affordable = 0, wanted = (size_t)o->kv_tokens;
    if (affordable_tokens(o, l, m, &affordable, err)) return -1;
    if (!wanted) wanted = (size_t)l->max_seqs * (size_t)l->max_context;
    if (wanted > INT32_MAX / 2) wanted = INT32_MAX / 2;
    size_t tokens = o->kv_tokens || wanted <= affordable ? wanted : affordable;
    if (tokens < (size_t)l->max_context) {
        if (o->max_context || tokens < LEAST_CONTEXT) {
            return engine_fail(
                err, o->kv_tokens ? ENGINE_EINVAL : ENGINE_ENOMEM,
                "the KV cache holds %zu tokens, fewer than a context of %d (%.1f MB a thousand tokens): "
                "lower max_context, or give it more memory",
                tokens, l->max_context, (double)kv_bytes_per_token(o, &m->config) / 1000);
        }
        l->max_context = (int)tokens;
    }
    l->kv_blocks = blocks_for(tokens);
    return 0;
}

static int resolve(engine_limits *l, const engine_options *o, const model *m, engine_error *err) {
    const model_config *c = &m->config;
    if (check_options(o, c, err)) return -1;
    l->block_tokens = BLOCK_TOKENS;
    l->max_seqs = o->max_seqs ? o->max_seqs : DEFAULT_SEQS;
    l->max_waiting = o->max_waiting ? o->max_waiting : 4 * l->max_seqs;
    l->max_context = c->max_position < DEFAULT_CONTEXT ? c->max_position : DEFAULT_CONTEXT;
    if (o->max_context) l->max_context = o->max_context;
    l->step_tokens = o->step_tokens ? o->step_tokens : DEFAULT_STEP_TOKENS;
    if (l->step_tokens < l->max_seqs) l->step_tokens = l->max_seqs;
    l->reserve_tokens = o->reserve_tokens ? o->reserve_tokens : DEFAULT_RESERVE;
    l->guess_tokens = o->guess_tokens < l->step_tokens ? o->guess_tokens : l->step_tokens;
    return size_cache(l, o, m, err);
}

/* ---- parts ---- */

static backend *open_backend(const checkpoint *c, const engine_options *o, const engine_limits *l,
                             int threads, engine_error *err) {
    const backend_options b = options_of(o, l, threads);
    if (on_gpu(o)) {
        return o->tp > 1 ? backend_open_cuda_ranks(c->model, &b, o->tp, err)
                         : backend_open_cuda(c->model, &b, err);
    }
    return o->tp > 1 ? backend_open_cpu_ranks(c->model, &b, o->tp, err) : backend_open_cpu(c->model, &b, err);
}

static void add_stop(engine_parts *p, int32_t id) {
    for (int i = 0; i < p->nstop_ids; i++) {
        if (p->stop_ids[i] == id) return;
    }
    if (id >= 0 && id < p->known_vocab && p->nstop_ids < ENGINE_STOP_IDS_MAX)
        p->stop_ids[p->nstop_ids++] = id;
}

static void collect_stops(engine_parts *p, const checkpoint *c) {
    int32_t ids[8];
    int n = c->template ? chat_template_stops(c->template, ids) : 0;
    for (int i = 0; i < n; i++) add_stop(p, ids[i]);
    for (int i = 0; i < c->model->config.neos; i++) add_stop(p, c->model->config.eos[i]);
}

/* All but an embedding of its own, of which a token needs one row. */
static size_t token_weights(const checkpoint *c, size_t weights) {
    const tensor *t = &c->model->embed;
    return weights - (c->model->config.tied_embeddings ? 0 : tensor_bytes(t));
}

static engine_info describe(const checkpoint *c, const engine_options *o, const engine_limits *l,
                            int threads) {
    const model_config *m = &c->model->config;
    backend_memory memory = backend_memory_now(c->backend);
    return (engine_info){
        .name = c->name,
        .architecture = m->architecture,
        .isa = backend_isa(c->backend),
        .chat_template = c->template ? chat_template_name(c->template) : "none",
        .parameters = c->model->parameters,
        .layers = m->layers,
        .hidden = m->hidden,
        .heads = m->heads,
        .kv_heads = m->kv_heads,
        .head_dim = m->head_dim,
        .vocab = m->vocab,
        .max_context = l->max_context,
        .max_seqs = l->max_seqs,
        .kv_block_tokens = l->block_tokens,
        .kv_blocks = l->kv_blocks,
        .threads = threads,
        .tp = o->tp ? o->tp : 1,
        .weight_bytes = memory.weights,
        .kv_bytes = memory.kv,
        .workspace_bytes = memory.workspace,
        .token_weight_bytes = token_weights(c, memory.weights),
    };
}

engine *engine_open(const engine_options *o, engine_error *err) {
    engine_limits limits;
    int threads = o->threads ? o->threads : usable_cpus();
    if (o->tp > 1) threads = threads > o->tp ? threads / o->tp * o->tp : o->tp;
    checkpoint *c = checkpoint_open(o, err);
    if (!c) return NULL;
    if (!resolve(&limits, o, c->model, err)) c->backend = open_backend(c, o, &limits, threads, err);
    if (!c->backend) {
        checkpoint_close(c);
        return NULL;
    }
    const bool overlaps = backend_overlaps(c->backend);
    int vocab = c->model->config.vocab, known = c->tokenizer ? tokenizer_vocab(c->tokenizer) : vocab;
    engine_parts parts = {
        .owner = c,
        .forward = checkpoint_forward,
        .begin = overlaps ? checkpoint_begin : NULL,
        .finish = overlaps ? checkpoint_finish : NULL,
        .runs_ahead = overlaps ? checkpoint_runs_ahead : NULL,
        .copy_block = checkpoint_copy_block,
        .render = checkpoint_render,
        .piece = checkpoint_piece,
        .close = checkpoint_close,
        .vocab = vocab,
        .known_vocab = known < vocab ? known : vocab,
        .opens_thinking = c->template && chat_template_opens_thinking(c->template),
        .calls = c->template ? chat_template_calls(c->template) : CALL_NONE,
        .tokenizer = c->tokenizer,
        .info = describe(c, o, &limits, threads),
    };
    collect_stops(&parts, c);
    return engine_open_with(&limits, &parts, err);
}

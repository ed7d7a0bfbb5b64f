/* See fake.h. */
#include "fake.h"

#include "engine/sample.h"
#include "tests/unit/engine_sched/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool fake_overlaps, fake_draws, fake_runs_ahead;

void fake_be(const char *how) {
    fake_runs_ahead = !strcmp(how, "ahead");
    fake_draws = fake_runs_ahead || !strcmp(how, "draw");
    fake_overlaps = fake_draws || !strcmp(how, "overlap");
}

uint64_t mix(uint64_t x) {
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

/* ---- the drawer ---- */

void drawer_init(drawer *d, int vocab, int max_rows) {
    engine_error err;
    d->sampler = sampler_new(vocab, &err);
    assert_non_null(d->sampler);
    for (int i = 0; i < 2; i++) {
        d->turn[i].logits = calloc((size_t)max_rows * (size_t)d->row, sizeof(float));
        d->turn[i].drawn = calloc((size_t)max_rows, sizeof(int32_t));
        assert_true(d->turn[i].logits && d->turn[i].drawn);
    }
}

void drawer_done(drawer *d) {
    sampler_free(d->sampler);
    for (int i = 0; i < 2; i++) {
        free(d->turn[i].logits);
        free(d->turn[i].drawn);
    }
}

static float changed(float x, const batch_draw *d, int count) {
    if (count == LOGIT_BANNED) return -1e30f; /* the sampler wants numbers */
    return (x > 0 ? x / d->repetition : x * d->repetition) -
           (count ? d->presence + d->frequency * (float)count : 0);
}

/* The token that is not among the changes yet counts once more. */
static void change_row(const batch_draw *d, float *row, int32_t coming) {
    bool known = coming < 0;
    for (int i = 0; i < d->nchanges; i++) {
        const logit_change *c = &d->changes[i];
        const bool more = c->token == coming && c->count != LOGIT_BANNED;
        known = known || c->token == coming;
        row[c->token] = changed(row[c->token], d, c->count + more);
    }
    if (!known) row[coming] = changed(row[coming], d, 1);
}

/* The token after a row, by what is said about its draw alone; the row is nobody's any more. */
static int32_t draw_row(drawer *w, const batch_draw *d, float *row, int tokens, int32_t coming) {
    engine_sampling h;
    engine_sampling_default(&h);
    h.temperature = d->temperature, h.top_p = d->top_p, h.min_p = d->min_p, h.top_k = d->top_k;
    h.seed = d->seed;
    sample_output out = {0};
    engine_error err;
    const sample_input in = {.logits = row, .how = &h, .ntokens = tokens, .allowed = d->allowed};
    bool numbers = true;
    for (int i = 0; i < d->vocab; i++) numbers = numbers && isfinite(row[i]);
    change_row(d, row, coming);
    const int rc = numbers ? sampler_draw(w->sampler, &in, &out, &err) : 0;
    for (int i = 0; i < w->row; i++) row[i] = NAN;
    w->rows_drawn++;
    return !numbers ? DRAWN_NO_NUMBERS : rc ? DRAWN_NONE_LEFT : out.token;
}

/* As a GPU would: rows that come after a guess are not changed, and so not drawn where something would change them. */
static void draw_rows(drawer *w, const batch_seq *seqs, int nseqs, const int32_t *coming) {
    float *row = w->turn[w->begun % 2].logits;
    int32_t *id = w->turn[w->begun % 2].drawn;
    bool all = w->draws;
    for (int i = 0; i < nseqs; i++) {
        const batch_draw *d = seqs[i].draw;
        const int first = seqs[i].pos + seqs[i].ntokens - seqs[i].nlogits + 1;
        for (int k = 0; k < seqs[i].nlogits; k++, row += w->row, id++) {
            const bool here = w->draws && d && (!k || (!d->nchanges && !d->allowed));
            *id = here ? draw_row(w, d, row, first + k, coming[i]) : DRAWN_NOT;
            all = all && here;
        }
    }
    w->turn[w->begun % 2].all = all;
}

/* All of it is in the device's queue when this returns: what the caller does afterwards comes after it. */
int drawer_begin(drawer *w, const batch_seq *seqs, int nseqs, engine_error *err) {
    enum { SEQS = 64 };
    batch_seq known[SEQS];
    int32_t coming[SEQS];
    float *logits;
    int rows = 0;
    assert_true(w->begun == w->finished || drawer_runs_ahead(w));
    assert_in_range(nseqs, 1, SEQS);
    for (int i = 0; i < nseqs; i++) {
        known[i] = seqs[i];
        coming[i] = seqs[i].tokens ? -1 : w->turn[(w->begun + 1) % 2].drawn[seqs[i].drawn_row];
        rows += seqs[i].nlogits;
        if (seqs[i].tokens) continue;
        assert_int_equal(w->begun - w->finished, 1);
        if (coming[i] < 0) coming[i] = 0; /* none could be drawn: nobody asks for what follows */
        known[i].tokens = &coming[i];
        w->tokens_ahead++;
    }
    if (w->forward(w->owner, known, nseqs, &logits, err)) return -1;
    memcpy(w->turn[w->begun % 2].logits, logits, (size_t)rows * (size_t)w->row * sizeof *logits);
    draw_rows(w, seqs, nseqs, coming);
    w->begun++;
    return 0;
}

int drawer_finish(drawer *w, batch_result *result, engine_error *err) {
    const int turn = w->finished++ % 2;
    (void)err;
    assert_true(w->finished <= w->begun);
    *result = (batch_result){w->turn[turn].logits, w->draws ? w->turn[turn].drawn : NULL};
    return 0;
}

bool drawer_runs_ahead(const drawer *w) {
    return w->ahead && w->begun == w->finished + 1 && w->turn[(w->begun + 1) % 2].all;
}

/* ---- the model ---- */

static int32_t *cell(fake *f, const batch_seq *s, int pos) {
    int32_t block = s->blocks[pos / f->limits.block_tokens];
    assert_in_range(block, 0, f->limits.kv_blocks - 1);
    return &f->cache[block * f->limits.block_tokens + pos % f->limits.block_tokens];
}

static void write_row(fake *f, float *row, uint64_t hash, int next, bool poisoned) {
    for (int i = 0; i < FAKE_ROW; i++) {
        row[i] = poisoned ? NAN : (float)(mix(hash + (uint64_t)i) >> 40) * 0x1p-21f - 4;
        if (i >= FAKE_POISON) row[i] -= 100;
    }
    if (!f->script) return;
    int at = next - f->script_at;
    row[at >= 0 && at < f->nscript ? f->script[at] : FAKE_END] = 50;
}

static int fake_forward(void *owner, const batch_seq *seqs, int nseqs, float **logits, engine_error *err) {
    fake *f = owner;
    if (f->broken) return engine_fail(err, ENGINE_EINTERNAL, "the fake is broken");
    int tokens = 0, rows = 0;
    for (int i = 0; i < nseqs; i++) {
        const batch_seq *s = &seqs[i];
        assert_true(s->ntokens > 0 && s->nlogits >= 0 && s->nlogits <= s->ntokens);
        for (int t = 0; t < s->ntokens; t++) *cell(f, s, s->pos + t) = s->tokens[t];
        tokens += s->ntokens;
    }
    for (int i = 0; i < nseqs; i++) {
        const batch_seq *s = &seqs[i];
        int end = s->pos + s->ntokens;
        uint64_t hash = 1;
        bool poisoned = false;
        for (int p = 0; p < end; p++) {
            hash = mix(hash ^ (uint64_t)*cell(f, s, p));
            poisoned |= *cell(f, s, p) == FAKE_POISON;
            if (p < end - s->nlogits) continue;
            float *row = f->logits + (size_t)rows++ * FAKE_ROW;
            write_row(f, row, hash, p + 1, poisoned);
            if (f->period && p + 1 >= f->period) row[*cell(f, s, p + 1 - f->period)] += 7;
        }
    }
    f->tokens += (uint64_t)tokens;
    if (tokens > f->most_tokens) f->most_tokens = tokens;
    if (nseqs > f->most_seqs) f->most_seqs = nseqs;
    if (rows > f->most_logits) f->most_logits = rows;
    *logits = f->logits;
    return 0;
}

static int fake_begin(void *owner, const batch_seq *seqs, int nseqs, engine_error *err) {
    return drawer_begin(&((fake *)owner)->drawer, seqs, nseqs, err);
}

static int fake_finish(void *owner, batch_result *result, engine_error *err) {
    return drawer_finish(&((fake *)owner)->drawer, result, err);
}

static bool fake_goes_ahead(void *owner) {
    return drawer_runs_ahead(&((fake *)owner)->drawer);
}

static void fake_copy_block(void *owner, int32_t from, int32_t to) {
    fake *f = owner;
    size_t n = (size_t)f->limits.block_tokens;
    assert_int_not_equal(from, to);
    memcpy(&f->cache[(size_t)to * n], &f->cache[(size_t)from * n], n * sizeof *f->cache);
    f->copies++;
}

static int64_t fake_render(void *owner, const engine_chat *chat, int32_t *out, size_t cap,
                           engine_error *err) {
    const engine_message *m = chat->messages;
    (void)owner;
    (void)err;
    size_t need = 0;
    for (int i = 0; i < chat->nmessages; i++) {
        for (size_t k = 0; k < m[i].content_len; k++, need++) {
            if (need < cap) out[need] = (unsigned char)m[i].content[k];
        }
    }
    return (int64_t)need;
}

static const char *fake_piece(void *owner, int32_t id, size_t *n, bool *special) {
    static const char *const named[] = {"<|end|>", "<think>", "</think>", "<|poison|>", "<|quiet|>"};
    static char bytes[256];
    (void)owner;
    if (id < 0 || id >= FAKE_VOCAB) return NULL;
    *special = id >= 256;
    if (id < 256) {
        bytes[id] = (char)id;
        *n = 1;
        return &bytes[id];
    }
    *n = strlen(named[id - 256]);
    return named[id - 256];
}

static void fake_close(void *owner) {
    fake *f = owner;
    f->closed = true;
    drawer_done(&f->drawer);
}

engine *fake_open(fake *f, const engine_limits *limits) {
    engine_limits l = limits ? *limits : (engine_limits){0};
    if (!l.max_seqs) l.max_seqs = 4;
    if (!l.max_waiting) l.max_waiting = 8;
    if (!l.max_context) l.max_context = 256;
    if (!l.step_tokens) l.step_tokens = 32;
    if (!l.block_tokens) l.block_tokens = 16;
    if (!l.reserve_tokens) l.reserve_tokens = 1;
    if (!l.kv_blocks) l.kv_blocks = l.max_seqs * (l.max_context / l.block_tokens);
    f->limits = l;
    f->cache = calloc((size_t)(l.kv_blocks * l.block_tokens), sizeof *f->cache);
    f->logits = calloc((size_t)(l.max_seqs + l.guess_tokens), FAKE_ROW * sizeof *f->logits);
    engine_error err;
    assert_true(f->cache && f->logits);
    f->drawer = (drawer){
        .forward = fake_forward, .owner = f, .row = FAKE_ROW, .draws = fake_draws, .ahead = fake_runs_ahead};
    drawer_init(&f->drawer, FAKE_VOCAB, l.max_seqs + l.guess_tokens);
    engine_parts parts = {
        .owner = f,
        .forward = fake_forward,
        .begin = fake_overlaps ? fake_begin : NULL,
        .finish = fake_overlaps ? fake_finish : NULL,
        .runs_ahead = fake_runs_ahead ? fake_goes_ahead : NULL,
        .copy_block = fake_copy_block,
        .render = fake_render,
        .piece = fake_piece,
        .close = fake_close,
        .vocab = FAKE_ROW,
        .known_vocab = FAKE_VOCAB,
        .stop_ids = {FAKE_END},
        .nstop_ids = 1,
        .opens_thinking = f->opens_thinking,
        .calls = f->calls,
    };
    engine *e = engine_open_with(&l, &parts, &err);
    assert_non_null(e);
    return e;
}

void fake_done(fake *f) {
    assert_true(f->closed);
    free(f->cache);
    free(f->logits);
    f->cache = NULL;
    f->logits = NULL;
    f->closed = false;
}

void said_init(said *s, uint64_t id) {
    memset(s, 0, sizeof *s);
    s->id = id;
    s->index_first = -1;
    s->contiguous = true;
}

/* "NAME(ARGUMENTS)NAME(ARGUMENTS": each call is written when its arguments begin. */
static void said_begin_call(said *s, const engine_event *ev) {
    if (!s->calls) s->calls = ev->call; /* those before it are in the forced tokens */
    if (ev->call < s->calls) {
        assert_int_equal(ev->call, s->calls - 1);
        return;
    }
    assert_int_equal(ev->call, s->calls);
    char *to = s->text[ENGINE_CALL] + s->len[ENGINE_CALL];
    s->len[ENGINE_CALL] += (size_t)sprintf(to, "%s%s(", s->calls ? ")" : "", ev->call_name);
    s->calls++;
}

void said_add(said *s, const engine_event *ev) {
    if (ev->id != s->id || ev->choice != s->choice) return;
    assert_false(s->ended);
    size_t *len = &s->len[ev->channel];
    if (ev->channel == ENGINE_CALL && ev->text_len) said_begin_call(s, ev);
    assert_true(*len + ev->text_len < sizeof s->text[0]);
    memcpy(s->text[ev->channel] + *len, ev->text, ev->text_len);
    *len += ev->text_len;
    if (ev->kind == ENGINE_TOKENS) {
        if (s->index_first < 0) s->index_first = ev->index;
        if (ev->index != s->index_first + s->n) s->contiguous = false;
        s->logprob[s->n] = ev->logprob;
        s->token[s->n++] = ev->token;
        return;
    }
    s->ended = true;
    s->finish = ev->finish;
    s->prompt_tokens = ev->prompt_tokens;
    s->completion_tokens = ev->completion_tokens;
    s->reasoning_tokens = ev->reasoning_tokens;
    s->cached_tokens = ev->cached_tokens;
    snprintf(s->error, sizeof s->error, "%s", ev->error ? ev->error : "");
}

bool run_all(engine *e, said *s, int n) {
    engine_event ev[64];
    engine_error err;
    for (int ended = 0; ended < n;) {
        if (!engine_busy(e)) return false;
        int k = engine_step(e, ev, 64, &err);
        if (k < 0) return false;
        for (int i = 0; i < k; i++) {
            for (int j = 0; j < n; j++) said_add(&s[j], &ev[i]);
            ended += ev[i].kind == ENGINE_END;
        }
    }
    return true;
}

engine_request request_of(uint64_t id, const char *prompt) {
    static engine_message m;
    m = (engine_message){.role = "user", .content = prompt, .content_len = strlen(prompt)};
    engine_request r = {.id = id, .messages = &m, .nmessages = 1};
    engine_sampling_default(&r.sampling);
    return r;
}

void say(engine *e, const engine_request *r, said *out) {
    engine_error err;
    said_init(out, r->id);
    out->choice = r->choice;
    if (engine_submit(e, r, &err)) fail_msg("%s", err.msg);
    assert_true(run_all(e, out, 1));
    assert_true(out->contiguous);
}

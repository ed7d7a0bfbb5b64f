/* The step loop: requests become slots, the scheduler plans their tokens, the backend computes logits, the sampler draws,
 * and the answer's text comes out as events.
 *
 * Where the backend computes beside its caller, a step leaves the next one's pass begun, which goes on while the caller
 * handles the events: a request that comes meanwhile is in the pass after that, as one that comes while a step computes is. See pass.h.
 *
 * Runs on the caller's thread. Slots (running, waiting, or ended and not yet reported) are all taken at open, with their
 * token and text buffers; a step allocates nothing.
 */
#include "engine/pass.h"
#include "engine/slot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- open and close ---- */

static size_t longest_piece(const engine_parts *p) {
    size_t longest = 0;
    for (int32_t id = 0; id < p->known_vocab; id++) {
        size_t n = 0;
        bool special;
        if (p->piece(p->owner, id, &n, &special) && n > longest) longest = n;
    }
    return longest;
}

static int make_slots(engine *e, engine_error *err) {
    const engine_limits *l = &e->limits;
    size_t context = (size_t)l->max_context;
    size_t blocks = (context + (size_t)l->block_tokens - 1) / (size_t)l->block_tokens;
    size_t n = (size_t)l->max_seqs + (size_t)l->max_waiting;
    e->slots = calloc(n, sizeof *e->slots);
    e->ids = calloc(n, context * sizeof *e->ids);
    e->tables = calloc(n, blocks * sizeof *e->tables);
    if (!e->slots || !e->ids || !e->tables) {
        return engine_fail(err, ENGINE_ENOMEM,
                           "no memory for %zu sequences of %zu tokens: lower max_seqs or max_context", n,
                           context);
    }
    size_t longest = longest_piece(&e->parts);
    for (size_t i = 0; i < n; i++) {
        slot *s = &e->slots[i];
        e->nslots++;
        if (answer_init(&s->answer, longest, err) || calls_init(&s->calls, s->answer.cap, err)) return -1;
        s->seq.tokens = e->ids + i * context;
        s->seq.table.block = e->tables + i * blocks;
        slot_put(e, s);
    }
    return 0;
}

/* What a backend is told that draws by itself. */
static int make_changes(engine *e, engine_error *err) {
    const size_t seqs = (size_t)e->limits.max_seqs,
                 each = (size_t)e->limits.max_context + ENGINE_STOP_IDS_MAX;
    e->mask_words = (e->parts.known_vocab + 63) / 64;
    e->changes = calloc(seqs, each * sizeof *e->changes);
    e->masks = calloc(seqs, (size_t)e->mask_words * sizeof *e->masks);
    return e->changes && e->masks ? 0 : engine_fail(err, ENGINE_ENOMEM, "no memory for penalties and masks");
}

engine *engine_open_with(const engine_limits *limits, const engine_parts *parts, engine_error *err) {
    engine *e = calloc(1, sizeof *e);
    if (!e) {
        parts->close(parts->owner);
        engine_fail(err, ENGINE_ENOMEM, "no memory for an engine");
        return NULL;
    }
    e->parts = *parts;
    e->parts.info.max_events = 2 * limits->max_seqs + limits->guess_tokens;
    e->limits = *limits;
    e->sched = scheduler_new(&(scheduler_limits){.max_seqs = limits->max_seqs,
                                                 .max_waiting = limits->max_waiting,
                                                 .step_tokens = limits->step_tokens,
                                                 .reserve_tokens = limits->reserve_tokens,
                                                 .guess_tokens = limits->guess_tokens,
                                                 .kv_blocks = limits->kv_blocks,
                                                 .block_tokens = limits->block_tokens},
                             err);
    e->sampler = e->sched ? sampler_new(parts->known_vocab, err) : NULL;
    if (!e->sampler || make_slots(e, err) || (parts->begin && make_changes(e, err))) {
        engine_close(e);
        return NULL;
    }
    return e;
}

void engine_close(engine *e) {
    if (!e) return;
    for (int i = 0; i < e->nslots; i++) {
        answer_done(&e->slots[i].answer);
        slot_drop_format(&e->slots[i]);
        calls_done(&e->slots[i].calls);
    }
    grammar_store_free(e->formats);
    grammar_vocab_free(e->words);
    free(e->slots);
    free(e->ids);
    free(e->tables);
    free(e->changes);
    free(e->masks);
    sampler_free(e->sampler);
    scheduler_free(e->sched);
    e->parts.close(e->parts.owner);
    free(e);
}

const engine_info *engine_describe(const engine *e) {
    return &e->parts.info;
}
const struct tokenizer *engine_tokenizer(const engine *e) {
    return e->parts.tokenizer;
}
const struct scheduler *engine_scheduler(const engine *e) {
    return e->sched;
}

/* ---- submit ---- */

void engine_sampling_default(engine_sampling *s) {
    *s = (engine_sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .logprobs = -1};
}

static int check_sampling(const engine_sampling *h, engine_error *err) {
    const struct {
        const char *name;
        float value, min, max;
    } ranges[] = {
        {"temperature", h->temperature, 0, 100},
        {"top_p", h->top_p, 0, 1},
        {"min_p", h->min_p, 0, 1},
        {"presence_penalty", h->presence_penalty, -100, 100},
        {"frequency_penalty", h->frequency_penalty, -100, 100},
        {"repetition_penalty", h->repetition_penalty, 0.01f, 100},
        {"max_tokens", (float)h->max_tokens, 0, INFINITY},
        {"min_tokens", (float)h->min_tokens, 0, INFINITY},
        {"logprobs", (float)h->logprobs, -1, SAMPLE_TOP_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (ranges[i].value >= ranges[i].min && ranges[i].value <= ranges[i].max) continue;
        return engine_fail(err, ENGINE_EINVAL, "%s is %g: expected %g to %g", ranges[i].name,
                           (double)ranges[i].value, (double)ranges[i].min, (double)ranges[i].max);
    }
    return 0;
}

static int check_ids(const engine *e, const int32_t *ids, int n, const char *what, engine_error *err) {
    for (int i = 0; i < n; i++) {
        if (ids[i] >= 0 && ids[i] < e->parts.known_vocab) continue;
        return engine_fail(err, ENGINE_EINVAL, "%s: %d is no token id: the vocabulary has %d", what, ids[i],
                           e->parts.known_vocab);
    }
    return 0;
}

static int set_prompt(engine *e, slot *s, const engine_request *r, engine_error *err) {
    int64_t n = r->nprompt;
    size_t cap = (size_t)e->limits.max_context;
    if (r->nmessages > 0) {
        const engine_chat chat = {r->messages, r->nmessages, r->tools.v, r->tools.n};
        n = e->parts.render(e->parts.owner, &chat, s->seq.tokens, cap, err);
        if (n < 0) return -1;
    } else if (n > 0 && (size_t)n < cap) {
        memcpy(s->seq.tokens, r->prompt, (size_t)n * sizeof *r->prompt);
    }
    if (n <= 0) return engine_fail(err, ENGINE_EINVAL, "the request has neither messages nor a prompt");
    if ((size_t)n >= cap) {
        return engine_fail(
            err, ENGINE_ETOOLONG,
            "the prompt has %lld tokens, and the model's context holds %zu with the answer: shorten it",
            (long long)n, cap);
    }
    s->nprompt = s->seq.ntokens = (int)n;
    s->seq.limit = e->limits.max_context;
    if (s->how.max_tokens && s->how.max_tokens < s->seq.limit - s->nprompt)
        s->seq.limit = s->nprompt + s->how.max_tokens;
    return check_ids(e, s->seq.tokens, s->nprompt, "prompt", err);
}

/* Replays the tokens of an earlier run. *ended: the answer was complete with them. */
static int replay(engine *e, slot *s, const engine_request *r, bool *ended, engine_error *err) {
    *ended = false;
    for (int i = 0; i < r->nforced; i++) {
        if (*ended) return engine_fail(err, ENGINE_EINVAL, "forced tokens go on after the end of the answer");
        if (slot_is_end(e, s, r->forced[i])) {
            s->finish = ENGINE_FINISH_STOP;
            *ended = true;
            continue;
        }
        slot_append(e, s, r->forced[i]);
        if (s->misfit) return engine_fail(err, ENGINE_EINVAL, "forced tokens are not of the response format");
        *ended = slot_is_complete(s, &s->finish);
    }
    return 0;
}

static bool is_known(const engine *e, uint64_t id) {
    for (int i = 0; i < e->nslots; i++) {
        if (e->slots[i].state != SLOT_FREE && e->slots[i].id == id) return true;
    }
    return false;
}

/* The first choice is drawn as if it were the only one. */
static uint64_t seed_of_choice(uint64_t seed, int choice) {
    uint64_t z = seed + (uint64_t)choice * UINT64_C(0x9E3779B97F4A7C15);
    if (!choice) return seed;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static int begin_answer(engine *e, slot *s, const engine_request *r, int choice, engine_error *err) {
    s->id = r->id;
    s->choice = choice;
    s->how = r->sampling;
    s->how.stop = NULL;
    s->how.seed = seed_of_choice(r->sampling.seed, choice);
    s->seq.reused = -1;
    s->seq.width = 1;
    s->seq.guessed = 0;
    s->reasoning = 0;
    s->pending = NULL;
    drafter_start(&s->drafter);
    slot_let_backend_draw(e, s);
    bool thinking = r->nmessages > 0 && e->parts.opens_thinking;
    if (slot_begin_format(e, s, &r->format, err) || slot_begin_calls(e, s, r, err)) return -1;
    return answer_start(&s->answer, thinking, r->sampling.stop, r->sampling.nstop, err);
}

static int fill_slot(engine *e, slot *s, const engine_request *r, bool *ended, engine_error *err) {
    s->seq.table.salt = r->cache_salt;
    if (check_sampling(&r->sampling, err) || begin_answer(e, s, r, r->choice, err)) return -1;
    if (set_prompt(e, s, r, err)) return -1;
    if (check_ids(e, r->forced, r->nforced, "forced tokens", err)) return -1;
    return replay(e, s, r, ended, err);
}

/* A choice beside the first. */
static int add_choice(engine *e, slot *first, const engine_request *r, engine_error *err) {
    slot *s = e->free.first;
    if (begin_answer(e, s, r, r->choice + first->seq.width, err)) return -1;
    slot_take(e);
    s->state = SLOT_PENDING;
    s->nprompt = s->seq.ntokens = first->nprompt;
    s->seq.limit = first->seq.limit;
    s->next = first->pending;
    first->pending = s;
    first->seq.width++;
    slot_let_backend_draw(e, first);
    return 0;
}

static void drop_choices(engine *e, slot *first) {
    for (slot *s = first->pending, *next; s; s = next) {
        next = s->next;
        slot_put(e, s);
    }
    slot_put(e, first);
}

static int check_choices(const engine *e, const engine_request *r, engine_error *err) {
    if (r->n < 0 || r->n > e->limits.max_seqs || r->choice < 0) {
        return engine_fail(err, ENGINE_EINVAL, "n is %d: this engine gives 1 to %d answers to a request",
                           r->n, e->limits.max_seqs);
    }
    if (r->n > 1 && r->nforced) {
        return engine_fail(err, ENGINE_EINVAL, "forced tokens belong to one choice: ask for each by itself");
    }
    return 0;
}

static int check_room(const engine *e, const engine_request *r, engine_error *err) {
    scheduler_stats now = scheduler_stats_now(e->sched);
    if (is_known(e, r->id)) {
        return engine_fail(err, ENGINE_EINVAL, "request id %llu is already in use",
                           (unsigned long long)r->id);
    }
    if (e->nfree < (r->n > 1 ? r->n : 1) || now.waiting >= e->limits.max_waiting) {
        return engine_fail(err, ENGINE_EBUSY,
                           "%d requests run and %d wait, which is all that can: try again later", now.running,
                           now.waiting);
    }
    return 0;
}

int engine_submit(engine *e, const engine_request *r, engine_error *err) {
    bool ended;
    if (check_choices(e, r, err) || check_room(e, r, err)) return -1;
    slot *s = e->free.first;
    if (fill_slot(e, s, r, &ended, err)) return -1;
    slot_take(e);
    s->state = SLOT_LIVE;
    while (s->seq.width < r->n) {
        if (add_choice(e, s, r, err) == 0) continue;
        drop_choices(e, s);
        return -1;
    }
    if (ended)
        slot_end(e, s, s->finish);
    else
        scheduler_add(e->sched, &s->seq);
    return 0;
}

bool engine_cancel(engine *e, uint64_t id) {
    bool found = false;
    for (int i = 0; i < e->nslots; i++) {
        slot *s = &e->slots[i];
        if (s->state == SLOT_FREE || s->id != id) continue;
        if (s->state != SLOT_ENDED) slot_end(e, s, ENGINE_FINISH_CANCELLED);
        found = true;
    }
    return found;
}

/* ---- step ---- */

static int cached(const slot *s) {
    int known = s->seq.reused > 0 ? s->seq.reused : 0;
    return known < s->nprompt ? known : s->nprompt;
}

/* The slots are free for new requests, but what the events borrow stays until the next call. */
static void report_ended(engine *e, event_list *out) {
    while (e->ended.first && out->n < out->max) {
        slot *s = slot_pop(&e->ended);
        out->v[out->n++] = (engine_event){
            .kind = ENGINE_END,
            .id = s->id,
            .choice = s->choice,
            .channel = s->last.channel,
            .text = s->last.p,
            .text_len = s->last.n,
            .call = s->last.call,
            .call_name = s->last.name,
            .finish = s->finish,
            .prompt_tokens = s->nprompt,
            .completion_tokens = slot_answered(s),
            .reasoning_tokens = s->reasoning,
            .cached_tokens = cached(s),
            .error = s->finish == ENGINE_FINISH_ERROR ? s->error.msg : NULL,
        };
        slot_put(e, s);
    }
}

int engine_step(engine *e, engine_event *events, int max, engine_error *err) {
    event_list out = {events, 0, max};
    if (e->broken.code && err) *err = e->broken;
    if (e->broken.code) return -1;
    report_ended(e, &out);
    const int room = max - out.n - 2 * e->limits.max_seqs;
    if (room < 0 || (e->passes && e->guesses > room)) return out.n;
    if (!e->passes && pass_begin(e, room, err)) return -1;
    if (pass_runs_ahead(e)) pass_begin(e, 0, &e->broken);
    if (e->passes && pass_finish(e, &out, err)) return -1;
    report_ended(e, &out);
    /* the next step has room for guesses if this one had all that is asked for */
    const int guesses = max >= e->parts.info.max_events ? e->limits.guess_tokens : 0;
    if (e->parts.begin && !e->passes) pass_begin(e, guesses, &e->broken);
    return out.n;
}

bool engine_busy(const engine *e) {
    scheduler_stats now = scheduler_stats_now(e->sched);
    return e->ended.first || now.running || now.waiting;
}

engine_load engine_load_now(const engine *e) {
    const kv_pool *pool = scheduler_pool(e->sched);
    scheduler_stats now = scheduler_stats_now(e->sched);
    return (engine_load){
        .running = now.running,
        .waiting = now.waiting,
        .kv_blocks_used = kv_pool_blocks(pool) - kv_pool_free_blocks(pool),
        .kv_blocks = kv_pool_blocks(pool),
        .steps = e->steps,
        .prompt_tokens = e->prompt_tokens,
        .generated_tokens = e->generated_tokens,
        .preemptions = now.preemptions,
        .wanted_tokens = now.wanted_tokens,
        .cached_tokens = now.reused_tokens,
        .guessed_tokens = e->guessed_tokens,
        .right_guesses = e->right_guesses,
    };
}

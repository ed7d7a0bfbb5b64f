/* See request.h. */
#include "worker/host/request.h"

#include "schemas/hash.h"

#include <string.h>

static int no_memory(mr_error *err) {
    return mr_fail(err, MR_ENOMEM, "the conversation is too large for the engine host");
}

/* The texts of a message's parts, one after the other. */
static int join_parts(const mr_chat_message *m, mr_arena *a, mr_str *out, mr_error *err) {
    size_t n = 0;
    for (uint32_t i = 0; i < m->parts.n; i++) {
        if (m->parts.v[i].type == MR_PART_IS_IMAGE) {
            return mr_fail(err, MR_EINVAL, "this model does not take images: send text only");
        }
        n += m->parts.v[i].text.n;
    }
    char *p = mr_arena_alloc(a, n + 1);
    if (!p) return no_memory(err);
    *out = (mr_str){p, n};
    for (uint32_t i = 0; i < m->parts.n; i++) {
        if (m->parts.v[i].text.n) memcpy(p, m->parts.v[i].text.p, m->parts.v[i].text.n);
        p += m->parts.v[i].text.n;
    }
    return 0;
}

static int map_calls(const mr_chat_message *m, mr_arena *a, engine_message *out, mr_error *err) {
    engine_call *calls = mr_arena_alloc(a, m->tool_calls.n * sizeof(*calls));
    if (!calls && m->tool_calls.n) return no_memory(err);
    for (uint32_t i = 0; i < m->tool_calls.n; i++) {
        const mr_function_call *f = &m->tool_calls.v[i].function;
        if (!MR_HAS(&m->tool_calls.v[i], MR_TOOL_CALL_FUNCTION))
            return mr_fail(err, MR_EINVAL, "tool_calls[%u] has no function", i);
        /* clients leave the arguments out where there are none */
        mr_str arguments = f->arguments.n ? f->arguments : MR_STR("{}");
        calls[i] = (engine_call){f->name.p, arguments.p, arguments.n};
    }
    out->calls = calls;
    out->ncalls = (int)m->tool_calls.n;
    return 0;
}

static int map_messages(const mr_chat_request *r, mr_arena *a, engine_request *out, mr_error *err) {
    engine_message *messages = mr_arena_alloc(a, r->messages.n * sizeof(*messages));
    if (!messages) return no_memory(err);
    for (uint32_t i = 0; i < r->messages.n; i++) {
        const mr_chat_message *m = &r->messages.v[i];
        mr_str text = MR_HAS(m, MR_CHAT_MESSAGE_CONTENT) ? m->content : MR_STR("");
        if (MR_HAS(m, MR_CHAT_MESSAGE_PARTS) && join_parts(m, a, &text, err)) return -1;
        messages[i] =
            (engine_message){.role = mr_role_names[m->role], .content = text.p, .content_len = text.n};
        if (MR_HAS(m, MR_CHAT_MESSAGE_TOOL_CALLS) && map_calls(m, a, &messages[i], err)) return -1;
    }
    out->messages = messages;
    out->nmessages = (int)r->messages.n;
    return 0;
}

static int map_stops(const mr_sampling *s, mr_arena *a, engine_sampling *out, mr_error *err) {
    const char **stop = mr_arena_alloc(a, s->stop.n * sizeof(*stop));
    if (!stop && s->stop.n) return no_memory(err);
    out->stop = stop;
    for (uint32_t i = 0; i < s->stop.n; i++) {
        /* OpenAI's clients may send an empty one, which stops nothing */
        if (s->stop.v[i].n) stop[out->nstop++] = s->stop.v[i].p;
    }
    return 0;
}

/* What is not set keeps the engine's default. */
static int map_sampling(const mr_sampling *s, mr_arena *a, engine_sampling *out, mr_error *err) {
    if (MR_HAS(s, MR_SAMPLING_TEMPERATURE)) out->temperature = (float)s->temperature;
    if (MR_HAS(s, MR_SAMPLING_TOP_P)) out->top_p = (float)s->top_p;
    if (MR_HAS(s, MR_SAMPLING_TOP_K)) out->top_k = (int)s->top_k;
    if (MR_HAS(s, MR_SAMPLING_MIN_P)) out->min_p = (float)s->min_p;
    if (MR_HAS(s, MR_SAMPLING_PRESENCE_PENALTY)) out->presence_penalty = (float)s->presence_penalty;
    if (MR_HAS(s, MR_SAMPLING_FREQUENCY_PENALTY)) out->frequency_penalty = (float)s->frequency_penalty;
    if (MR_HAS(s, MR_SAMPLING_REPETITION_PENALTY)) out->repetition_penalty = (float)s->repetition_penalty;
    if (MR_HAS(s, MR_SAMPLING_SEED)) out->seed = (uint64_t)s->seed;
    if (MR_HAS(s, MR_SAMPLING_MAX_TOKENS)) out->max_tokens = (int)s->max_tokens;
    if (MR_HAS(s, MR_SAMPLING_MIN_TOKENS)) out->min_tokens = (int)s->min_tokens;
    if (MR_HAS(s, MR_SAMPLING_IGNORE_EOS)) out->ignore_eos = s->ignore_eos;
    if (MR_HAS(s, MR_SAMPLING_LOGPROBS) && s->logprobs) {
        out->logprobs = MR_HAS(s, MR_SAMPLING_TOP_LOGPROBS) ? (int)s->top_logprobs : 0;
    }
    return MR_HAS(s, MR_SAMPLING_STOP) ? map_stops(s, a, out, err) : 0;
}

static void map_format(const mr_response_format *f, engine_format *out) {
    out->json = f->type == MR_FORMAT_JSON_OBJECT;
    if (f->type != MR_FORMAT_JSON_SCHEMA) return;
    out->schema = f->schema.p;
    out->schema_len = f->schema.n;
}

/* With a choice of none the model is not told of any. */
static int map_tools(const mr_chat_request *r, mr_arena *a, engine_tools *out, mr_error *err) {
    int choice = MR_HAS(r, MR_CHAT_REQUEST_TOOL_CHOICE) ? r->tool_choice.type : MR_TOOLS_AUTO;
    if (choice == MR_TOOLS_NONE) return 0;
    engine_tool *tools = mr_arena_alloc(a, r->tools.n * sizeof(*tools));
    if (!tools && r->tools.n) return no_memory(err);
    for (uint32_t i = 0; i < r->tools.n; i++) {
        const mr_tool *t = &r->tools.v[i];
        bool described = MR_HAS(t, MR_TOOL_DESCRIPTION), typed = MR_HAS(t, MR_TOOL_PARAMETERS);
        tools[i] = (engine_tool){.name = t->name.p,
                                 .description = described ? t->description.p : NULL,
                                 .parameters = typed ? t->parameters.p : NULL,
                                 .parameters_len = t->parameters.n,
                                 .strict = t->strict};
    }
    *out = (engine_tools){.v = tools,
                          .n = (int)r->tools.n,
                          .must_call = choice != MR_TOOLS_AUTO,
                          .only = choice == MR_TOOLS_FUNCTION ? r->tool_choice.name.p : NULL,
                          .one_call =
                              choice == MR_TOOLS_FUNCTION ||
                              (MR_HAS(r, MR_CHAT_REQUEST_PARALLEL_TOOL_CALLS) && !r->parallel_tool_calls)};
    return 0;
}

static int map_forced(const mr_i64s *forced, mr_arena *a, engine_request *out, mr_error *err) {
    int32_t *ids = mr_arena_alloc(a, forced->n * sizeof(*ids));
    if (!ids && forced->n) return no_memory(err);
    for (uint32_t i = 0; i < forced->n; i++) {
        int64_t id = forced->v[i];
        ids[i] = id >= 0 && id <= INT32_MAX ? (int32_t)id : -1; /* which the engine refuses */
    }
    out->forced = ids;
    out->nforced = (int)forced->n;
    return 0;
}

int mr_host_request(const mr_frame_submit *f, mr_arena *a, engine_request *out, mr_error *err) {
    mr_chat_request r;
    if (mr_unpack(&mr_chat_request_def, f->request, a, &r, err)) return -1;
    *out = (engine_request){.id = (uint64_t)f->id};
    engine_sampling_default(&out->sampling);
    /* without a seed of its own a request still gives the same answer when it is begun again */
    out->sampling.seed = mr_text_hash_feed(mr_text_hash_init(), r.id);
    if (MR_HAS(&r, MR_CHAT_REQUEST_TENANT))
        out->cache_salt = mr_text_hash_feed(mr_text_hash_init(), r.tenant);
    if (MR_HAS(&r, MR_CHAT_REQUEST_CHOICE)) out->choice = (int)r.choice;
    if (MR_HAS(&r, MR_CHAT_REQUEST_RESPONSE_FORMAT)) map_format(&r.response_format, &out->format);
    if (MR_HAS(&r, MR_CHAT_REQUEST_TOOLS) && map_tools(&r, a, &out->tools, err)) return -1;
    if (map_messages(&r, a, out, err) || map_forced(&f->forced, a, out, err)) return -1;
    return MR_HAS(&r, MR_CHAT_REQUEST_SAMPLING) ? map_sampling(&r.sampling, a, &out->sampling, err) : 0;
}

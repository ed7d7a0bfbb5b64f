/* See calls.h. */
#include "gateway/calls.h"

#include <stdlib.h>
#include <string.h>

#define ARGUMENTS_MAX (16u << 20) /* bytes, of one call */

static mr_calls_verdict begin(mr_calls *c, const mr_delta_call *call) {
    mr_call_text *v = realloc(c->v, (size_t)(c->n + 1) * sizeof(*v));
    if (!v) return MR_CALLS_NO_MEMORY;
    c->v = v;
    v = &c->v[c->n];
    *v = (mr_call_text){strndup(call->id.p, call->id.n), strndup(call->name.p, call->name.n), {0}};
    mr_buf_init(&v->arguments, ARGUMENTS_MAX);
    c->n++;
    return v->id && v->name ? MR_CALLS_BEGINS : MR_CALLS_NO_MEMORY;
}

mr_calls_verdict mr_calls_see(mr_calls *c, const mr_delta_call *call) {
    if (call->index == c->n) return c->n < MR_CALLS_MAX ? begin(c, call) : MR_CALLS_MISMATCH;
    if (call->index != c->n - 1) return MR_CALLS_MISMATCH;
    const mr_call_text *last = &c->v[c->n - 1];
    bool same = mr_str_eqz(call->id, last->id) && mr_str_eqz(call->name, last->name);
    return same ? MR_CALLS_GOES_ON : MR_CALLS_MISMATCH;
}

void mr_calls_append(mr_calls *c, mr_str arguments) {
    mr_buf_put(&c->v[c->n - 1].arguments, arguments.p, arguments.n);
}

static json_t *call_json(const mr_call_text *v) {
    mr_str arguments = mr_buf_str(&v->arguments);
    if (v->arguments.failed) return NULL;
    return json_pack("{s:s, s:s, s:{s:s, s:s%}}", "id", v->id, "type", "function", "function", "name",
                     v->name, "arguments", arguments.p, arguments.n);
}

json_t *mr_calls_json(const mr_calls *c) {
    json_t *list = json_array();
    for (int64_t i = 0; list && i < c->n; i++) {
        if (json_array_append_new(list, call_json(&c->v[i])) == 0) continue;
        json_decref(list);
        list = NULL;
    }
    return list;
}

void mr_calls_done(mr_calls *c) {
    for (int64_t i = 0; i < c->n; i++) {
        free(c->v[i].id);
        free(c->v[i].name);
        mr_buf_done(&c->v[i].arguments);
    }
    free(c->v);
    *c = (mr_calls){0};
}

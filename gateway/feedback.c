/* See feedback.h. */
#include "gateway/feedback.h"

#include "base/log.h"
#include "gateway/openai.h"

static void on_acked(void *arg, const mr_error *err) {
    mr_call *call = arg;
    mr_api_error e;
    mr_call_on_close(call, NULL, NULL);
    if (!err) {
        mr_call_json(call, 200, json_pack("{s:s}", "object", "feedback"));
        return;
    }
    mr_refuse(&e, 503, "not_accepted", NULL, "The feedback could not be stored; please try again.");
    mr_call_error(call, &e);
}

static void on_closed(void *arg) {
    mr_ticket_forget(arg);
}

static int take(const mr_feedback_desk *d, mr_call *call, mr_api_error *e) {
    mr_feedback f;
    mr_grant grant;
    mr_error err;
    mr_ticket *ticket;
    char trace[MR_TRACEPARENT_LEN + 1];
    if (mr_access_check(d->access, call, MR_SCOPE_FEEDBACK, &grant, e) < 0) return -1;
    if (mr_openai_feedback(mr_call_body(call), d->arena, &f, e) < 0) return -1;
    if (mr_ready_check(d->ready, e) < 0) return -1;
    mr_trace_child(mr_str_of(mr_call_header(call, "traceparent")), trace);
    if (MR_HAS(&f, MR_FEEDBACK_COMMENT) &&
        mr_protection_remark(d->access->protection, &f.comment, d->arena, &err) < 0) {
        return mr_refuse(e, 413, "request_too_large", "comment", "comment: is too long to be looked through");
    }
    MR_SET(&f, MR_FEEDBACK_CREATED_MS, created_ms, mr_now_ms());
    mr_outbox_record rec = {MR_TOPIC_FEEDBACK, f.request, &mr_feedback_def, &f, trace};
    if (mr_outbox_send(d->outbox, &rec, on_acked, call, &ticket, &err) < 0) {
        return mr_refuse(e, 503, "not_accepted", NULL, "The feedback could not be stored; please try again.");
    }
    mr_call_on_close(call, on_closed, ticket);
    return 0;
}

void mr_feedback_take(const mr_feedback_desk *d, mr_call *call) {
    mr_api_error e;
    mr_arena_reset(d->arena);
    if (take(d, call, &e) < 0) mr_call_error(call, &e);
}

/* See pages.h. */
#include "gateway/pages.h"

#include "gateway/catalog.h"

#include <string.h>

static void reply_authorized(const mr_pages *p, mr_call *call, unsigned scope, json_t *page) {
    mr_grant grant;
    mr_api_error e;
    if (mr_access_check(p->access, call, scope, &grant, &e) == 0) {
        mr_call_json(call, 200, page);
        return;
    }
    json_decref(page);
    mr_call_error(call, &e);
}

static json_t *model_json(const mr_pages *p, const char *name, size_t n) {
    return json_pack("{s:s%, s:s, s:I, s:s}", "id", name, n, "object", "model", "created",
                     (json_int_t)(p->created_ms / 1000), "owned_by", "millrace");
}

void mr_pages_models(const mr_pages *p, mr_call *call) {
    json_t *list = json_array();
    for (int i = 0; list && i < p->conf->models.n; i++) {
        const char *name = p->conf->models.v[i];
        json_array_append_new(list, model_json(p, name, strlen(name)));
    }
    for (int i = 0; list && i < p->conf->aliases.n; i++) {
        const char *name = p->conf->aliases.v[i];
        size_t n = (size_t)(strrchr(name, '=') - name);
        if (n > 1 || *name != '*') json_array_append_new(list, model_json(p, name, n));
    }
    reply_authorized(p, call, MR_SCOPE_MODELS, json_pack("{s:s, s:o}", "object", "list", "data", list));
}

void mr_pages_model(const mr_pages *p, mr_call *call) {
    const char *name = strstr(mr_call_path(call), "models/") + strlen("models/");
    mr_grant grant;
    mr_api_error e;
    if (mr_access_check(p->access, call, MR_SCOPE_MODELS, &grant, &e) == 0) {
        if (mr_catalog_find(p->conf, mr_str_of(name))) {
            mr_call_json(call, 200, model_json(p, name, strlen(name)));
            return;
        }
        mr_refuse(&e, 404, "model_not_found", "model", "The model `%.100s` does not exist.", name);
    }
    mr_call_error(call, &e);
}

/* NextChat's settings page shows these two. Nothing is billed here, so nothing is used up. */
void mr_pages_usage(const mr_pages *p, mr_call *call) {
    reply_authorized(p, call, MR_SCOPE_BILLING,
                     json_pack("{s:s, s:[], s:i}", "object", "list", "daily_costs", "total_usage", 0));
}

void mr_pages_subscription(const mr_pages *p, mr_call *call) {
    reply_authorized(p, call, MR_SCOPE_BILLING,
                     json_pack("{s:s, s:b, s:i, s:i, s:i}", "object", "billing_subscription",
                               "has_payment_method", 1, "soft_limit_usd", 1000000, "hard_limit_usd", 1000000,
                               "system_hard_limit_usd", 1000000));
}

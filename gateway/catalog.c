/* Model names. Lists are short, so they are searched from the front. */
#include "gateway/catalog.h"

#include <string.h>

static const char *listed(const mr_strlist *list, mr_str name) {
    for (int i = 0; i < list->n; i++) {
        if (mr_str_eqz(name, list->v[i])) return list->v[i];
    }
    return NULL;
}

/* The model that alias `name` stands for. */
static const char *aliased(const mr_gateway_conf *conf, mr_str name) {
    for (int i = 0; i < conf->aliases.n; i++) {
        const char *entry = conf->aliases.v[i], *eq = strrchr(entry, '=');
        if (eq && mr_str_eq(name, (mr_str){entry, (size_t)(eq - entry)})) return eq + 1;
    }
    return NULL;
}

int mr_catalog_check(const mr_gateway_conf *conf, mr_error *err) {
    if (conf->models.n == 0)
        return mr_fail(err, MR_EINVAL, "gateway.models is empty: name at least one model");
    for (int i = 0; i < conf->aliases.n; i++) {
        const char *entry = conf->aliases.v[i], *eq = strrchr(entry, '=');
        if (!eq || eq == entry) {
            return mr_fail(err, MR_EINVAL, "gateway.aliases: \"%s\" is not of the form name=model", entry);
        }
        if (!listed(&conf->models, mr_str_of(eq + 1))) {
            return mr_fail(err, MR_EINVAL,
                           "gateway.aliases: \"%s\" names a model that is not in gateway.models", entry);
        }
    }
    return 0;
}

const char *mr_catalog_find(const mr_gateway_conf *conf, mr_str name) {
    const char *model = listed(&conf->models, name);
    if (!model) model = aliased(conf, name);
    if (!model) model = aliased(conf, MR_STR("*"));
    return model;
}

bool mr_catalog_vision(const mr_gateway_conf *conf, mr_str name, const char *model) {
    const mr_strlist *vision = &conf->vision_models;
    return listed(vision, name) || listed(vision, mr_str_of(model)) || listed(vision, MR_STR("*"));
}

/* The models that are served: names, aliases, and which of them take images. Reads the configuration, owns nothing. */
#ifndef MR_CATALOG_H
#define MR_CATALOG_H

#include "base/error.h"
#include "base/str.h"
#include "gateway/conf.h"

/* Every alias must be `name=model` with a served model. */
int mr_catalog_check(const mr_gateway_conf *conf, mr_error *err);

/* The served model that answers for `name`, or NULL. */
const char *mr_catalog_find(const mr_gateway_conf *conf, mr_str name);

/* May a request for `name`, answered by `model`, hold images? */
bool mr_catalog_vision(const mr_gateway_conf *conf, mr_str name, const char *model);

#endif

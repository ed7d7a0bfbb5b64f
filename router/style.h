/* Styles: how a user is answered, by name: sampling, and a line for the model. `formal` and `casual` are there; router.styles
 * adds more, or takes their place. Read-only once made; borrows the configuration's strings. */
#ifndef MR_STYLE_H
#define MR_STYLE_H

#include "base/conf.h"
#include "schemas/messages.h"

#define MR_STYLES_MAX 64

typedef struct mr_style {
    mr_str name;
    double temperature, top_p;
    mr_str line; /* may be empty */
} mr_style;

typedef struct mr_styles {
    mr_style v[MR_STYLES_MAX];
    int n;
} mr_styles;

/* own: each `NAME|TEMPERATURE|TOP_P|LINE`. */
int mr_styles_read(mr_styles *s, const mr_strlist *own, mr_error *err);
const mr_style *mr_styles_find(const mr_styles *s, mr_str name); /* NULL: none of that name */

/* Sets what the request leaves open: temperature and top_p if it has neither, the line if it has no system message of its own. -1: the arena
 * is full. */
int mr_style_apply(const mr_style *s, mr_chat_request *q, mr_arena *a);

#endif

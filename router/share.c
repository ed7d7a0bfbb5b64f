/* A running share; see share.h. */
#include "router/share.h"

#include <math.h>

static const double BORDER = 0.01;

void mr_share_add(mr_share *s, bool model) {
    if (s->n == MR_SHARE_WINDOW) {
        s->sum -= s->model[s->next];
    } else {
        s->n++;
    }
    s->model[s->next] = model;
    s->sum += model;
    s->next = (s->next + 1) % MR_SHARE_WINDOW;
}

double mr_share_value(const mr_share *s) {
    return s->n > 0 ? (double)s->sum / s->n : NAN;
}

bool mr_share_crossed(mr_share *s, double low, double high) {
    double v = mr_share_value(s), border = s->outside ? fmin(BORDER, (high - low) / 4) : 0;
    bool outside = s->n >= MR_SHARE_ENOUGH && (v < low + border || v > high - border);
    bool crossed = outside != s->outside;
    s->outside = outside;
    return crossed;
}

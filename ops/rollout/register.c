/* See register.h. */
#include "ops/rollout/register.h"

#include <stdio.h>
#include <string.h>

void mr_register_init(mr_register *r, const char *pool) {
    *r = (mr_register){.share = {[MR_BLUE] = 1}};
    snprintf(r->pool, sizeof(r->pool), "%s", pool);
}

static void read_at(mr_rollout_at *at, const mr_control *c) {
    const mr_rollout *r = &c->rollout;
    *at = (mr_rollout_at){
        .epoch = c->epoch,
        .created_ms = c->created_ms,
        .state = r->state,
        .to = r->to,
        .step = (int)r->step,
        .started_ms = r->started_ms,
        .hold_ms = r->hold_ms,
        .limits = {r->max_error_rate, r->max_ttft_ratio, r->min_speed_ratio, r->min_requests}};
    mr_str_copy(r->owner, at->owner, sizeof(at->owner));
    mr_str_copy(r->reason, at->reason, sizeof(at->reason));
    for (; at->nsteps < (int)r->steps.n && at->nsteps < MR_STEPS_MAX; at->nsteps++) {
        at->steps[at->nsteps] = r->steps.v[at->nsteps];
    }
    if (at->step >= at->nsteps) at->step = at->nsteps - 1;
}

static void feed_rollout(mr_register *r, const mr_control *c) {
    bool mine = c->epoch == r->at.epoch && mr_str_eqz(c->rollout.owner, r->at.owner);
    if (r->known && c->epoch <= r->at.epoch && !mine) {
        r->contested = true;
        return;
    }
    read_at(&r->at, c);
    r->known = true;
    r->contested = false;
}

void mr_register_feed(mr_register *r, const mr_control *c) {
    if (!mr_str_eqz(c->pool, r->pool)) return;
    if (c->kind == MR_CONTROL_IS_ROLLOUT) feed_rollout(r, c);
    if (c->kind != MR_CONTROL_IS_WEIGHTS || c->epoch < r->weights_epoch) return;
    r->share[MR_BLUE] = c->blue;
    r->share[MR_GREEN] = c->green;
    r->weights_epoch = c->epoch;
}

bool mr_register_active(const mr_register *r) {
    return r->known && r->at.state != MR_ROLLOUT_DONE && r->at.state != MR_ROLLOUT_ROLLED_BACK &&
           r->at.state != MR_ROLLOUT_ABORTED;
}

int64_t mr_register_next_epoch(const mr_register *r) {
    return (r->at.epoch > r->weights_epoch ? r->at.epoch : r->weights_epoch) + 1;
}

double mr_register_percent(const mr_register *r, int color) {
    return 100.0 * (double)r->share[color] / (double)(r->share[MR_BLUE] + r->share[MR_GREEN]);
}

void mr_register_control(const mr_rollout_at *at, mr_str pool, mr_control *out) {
    mr_rollout *r = &out->rollout;
    *out = (mr_control){0};
    MR_SET(out, MR_CONTROL_V, v, MR_SCHEMA_VERSION);
    MR_SET(out, MR_CONTROL_KIND, kind, MR_CONTROL_IS_ROLLOUT);
    MR_SET(out, MR_CONTROL_POOL, pool, pool);
    MR_SET(out, MR_CONTROL_EPOCH, epoch, at->epoch);
    MR_SET(out, MR_CONTROL_CREATED_MS, created_ms, at->created_ms);
    MR_MARK(out, MR_CONTROL_ROLLOUT);
    MR_SET(r, MR_ROLLOUT_STATE, state, at->state);
    MR_SET(r, MR_ROLLOUT_TO, to, at->to);
    MR_SET(r, MR_ROLLOUT_OWNER, owner, mr_str_of(at->owner));
    MR_SET(r, MR_ROLLOUT_STEPS, steps, ((mr_i64s){(int64_t *)at->steps, (uint32_t)at->nsteps}));
    MR_SET(r, MR_ROLLOUT_STEP, step, at->step);
    MR_SET(r, MR_ROLLOUT_STARTED_MS, started_ms, at->started_ms);
    MR_SET(r, MR_ROLLOUT_HOLD_MS, hold_ms, at->hold_ms);
    MR_SET(r, MR_ROLLOUT_MAX_ERROR_RATE, max_error_rate, at->limits.max_error_rate);
    MR_SET(r, MR_ROLLOUT_MAX_TTFT_RATIO, max_ttft_ratio, at->limits.max_ttft_ratio);
    MR_SET(r, MR_ROLLOUT_MIN_SPEED_RATIO, min_speed_ratio, at->limits.min_speed_ratio);
    MR_SET(r, MR_ROLLOUT_MIN_REQUESTS, min_requests, at->limits.min_requests);
    MR_SET(r, MR_ROLLOUT_REASON, reason, mr_str_of(at->reason));
}

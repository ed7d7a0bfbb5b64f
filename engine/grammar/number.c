/* See number.h. Bounds are scaled once, so that each number with a limited fraction is an integer; a validator that reads the
 * digits back as a double must agree with the comparison, so the ends of the range are tried as doubles. Pure functions. */
#include "engine/grammar/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static number_wide power_of_ten(int n) {
    number_wide p = 1;
    while (n-- > 0) p *= 10;
    return p;
}

/* Readers take integers of 64 bits. */
static number_wide limit_of(const number_range *r) {
    return INT64_MAX * power_of_ten(r->fraction);
}

/* n / 10^fraction as a reader of JSON gets it. */
static double read_back(number_wide n, int fraction) {
    char text[64];
    number_wide scale = power_of_ten(fraction), whole = (n < 0 ? -n : n) / scale,
                rest = (n < 0 ? -n : n) % scale;
    snprintf(text, sizeof text, "%s%llu%012llu.%0*llu", n < 0 ? "-" : "",
             (unsigned long long)(whole / 1000000000000), (unsigned long long)(whole % 1000000000000),
             fraction ? fraction : 1, (unsigned long long)rest);
    return strtod(text, NULL);
}

/* A double scaled, a little below or above; the limit where it is beyond. */
static number_wide scaled(double x, const number_range *r, int nudge) {
    number_wide limit = limit_of(r);
    long double v = (long double)x * (long double)power_of_ten(r->fraction);
    if (v >= (long double)limit) return limit;
    if (v <= -(long double)limit) return -limit;
    number_wide n = (number_wide)floorl(v) + nudge;
    return n > limit ? limit : n < -limit ? -limit : n;
}

static bool is_below(number_wide n, double bound, bool excluded, int fraction) {
    double x = read_back(n, fraction);
    return excluded ? x <= bound : x < bound;
}

static bool is_above(number_wide n, double bound, bool excluded, int fraction) {
    double x = read_back(n, fraction);
    return excluded ? x >= bound : x > bound;
}

enum {
    NUDGES_MAX = 4096
}; /* neighbours that one double may swallow, at the magnitudes that the limit lets in */

static void raise_lo(number_range *r, double bound, bool excluded) {
    if (isnan(bound)) return;
    number_wide n = scaled(bound, r, -2);
    for (int i = 0; i < NUDGES_MAX && n <= r->hi && is_below(n, bound, excluded, r->fraction); i++) n++;
    if (is_below(n, bound, excluded, r->fraction)) n = limit_of(r) + 1;
    if (n > r->lo) r->lo = n;
    r->exponent = false;
}

static void lower_hi(number_range *r, double bound, bool excluded) {
    if (isnan(bound)) return;
    number_wide n = scaled(bound, r, 2);
    for (int i = 0; i < NUDGES_MAX && n >= r->lo && is_above(n, bound, excluded, r->fraction); i++) n--;
    if (is_above(n, bound, excluded, r->fraction)) n = -limit_of(r) - 1;
    if (n < r->hi) r->hi = n;
    r->exponent = false;
}

/* So many digits after the point that the bounds, scaled, are still exact in a double. */
static uint8_t fraction_for(const number_bounds *b) {
    const double bounds[] = {b->minimum, b->maximum, b->exclusive_minimum, b->exclusive_maximum};
    int digits = NUMBER_FRACTION_DIGITS;
    for (int i = 0; i < 4; i++) {
        if (isnan(bounds[i])) continue;
        while (digits > 0 && fabs(bounds[i]) * pow(10, digits) > 1e15) digits--;
    }
    return (uint8_t)digits;
}

number_range number_range_of(const number_bounds *b) {
    bool whole = b->integer || !isnan(b->multiple_of);
    number_range r = {.fraction = whole ? 0 : fraction_for(b), .multiple = 1, .exponent = !whole};
    r.hi = limit_of(&r);
    r.lo = -r.hi;
    if (!isnan(b->multiple_of)) r.multiple = (number_wide)b->multiple_of;
    raise_lo(&r, b->minimum, false);
    raise_lo(&r, b->exclusive_minimum, true);
    lower_hi(&r, b->maximum, false);
    lower_hi(&r, b->exclusive_maximum, true);
    return r;
}

/* The magnitudes of one sign. Zero has none, so that there is no -0. */
static void magnitudes(const number_range *r, bool negative, number_wide *lo, number_wide *hi) {
    *lo = negative ? (r->hi < 0 ? -r->hi : 1) : (r->lo > 0 ? r->lo : 0);
    *hi = negative ? -r->lo : r->hi;
}

/* Is there a multiple in [a, b] that is in the range too? a, b >= 0. */
static bool meets(const number_range *r, bool negative, number_wide a, number_wide b) {
    number_wide lo, hi;
    magnitudes(r, negative, &lo, &hi);
    if (a > lo) lo = a;
    if (b < hi) hi = b;
    return lo <= hi && hi / r->multiple * r->multiple >= lo;
}

/* Can the digits so far become a number of the range? */
static bool viable(const number_range *r, const number_state *s) {
    number_wide unit = power_of_ten(r->fraction - s->after);
    if (meets(r, s->negative, s->v * unit, (s->v + 1) * unit - 1)) return true;
    if (s->point || (s->digits == 1 && s->v == 0)) return false;
    for (int more = 1; more <= NUMBER_INT_DIGITS - s->digits; more++) {
        unit *= 10;
        if (meets(r, s->negative, s->v * unit, (s->v + 1) * unit - 1)) return true;
    }
    return false;
}

bool number_possible(const number_range *r) {
    number_wide limit = limit_of(r);
    return meets(r, false, 0, limit) || meets(r, true, 0, limit);
}

static bool take_digit(const number_range *r, number_state *s, int digit) {
    if (s->point ? s->after == r->fraction : s->digits == NUMBER_INT_DIGITS) return false;
    if (!s->point && s->digits == 1 && s->v == 0) return false; /* no leading zero */
    s->v = s->v * 10 + digit;
    if (s->point)
        s->after++;
    else
        s->digits++;
    return viable(r, s);
}

static bool take_exponent(number_state *s, unsigned char c) {
    bool digit = c >= '0' && c <= '9';
    if (s->exponent == 0 && (c == 'e' || c == 'E')) {
        s->exponent = 1;
    } else if (s->exponent == 1 && (c == '+' || c == '-')) {
        s->exponent = 2;
    } else if (digit && s->exponent >= 1 && s->exponent < 4) {
        s->exponent = s->exponent < 3 ? 3 : 4;
    } else {
        return false;
    }
    return true;
}

static bool is_blank_state(const number_state *s) {
    return !s->negative && s->digits == 0;
}

static bool take(const number_range *r, number_state *s, unsigned char c) {
    bool whole = s->digits > 0 && (!s->point || s->after > 0);
    if (s->exponent || c == 'e' || c == 'E') return r->exponent && whole && take_exponent(s, c);
    if (c >= '0' && c <= '9') return take_digit(r, s, c - '0');
    if (c == '-' && is_blank_state(s)) {
        s->negative = true;
        return meets(r, true, 0, limit_of(r));
    }
    if (c != '.' || s->point || s->digits == 0 || r->fraction == 0) return false;
    s->point = true;
    return viable(r, s);
}

bool number_step(const number_range *r, number_state *s, unsigned char c) {
    number_state next = *s;
    if (!take(r, &next, c)) return false;
    *s = next;
    return true;
}

bool number_complete(const number_range *r, const number_state *s) {
    if (s->digits == 0 || (s->point && s->after == 0)) return false;
    if (s->exponent) return s->exponent >= 3;
    number_wide v = s->v * power_of_ten(r->fraction - s->after);
    return meets(r, s->negative, v, v);
}

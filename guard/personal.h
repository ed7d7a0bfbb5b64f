/* Personal data in text: mobile numbers (Chinese ones, international ones with their +), Chinese ID numbers, bank cards and
 * e-mail addresses. Hyperscan finds where digits or an @ are; what stands there is then read and verified: the ID's
 * date and check digit, the card's issuer, length and Luhn sum. Full width digits, characters that cannot be seen, and
 * spaces and hyphens where people put them are read over. One thread.
 */
#ifndef MR_GUARD_PERSONAL_H
#define MR_GUARD_PERSONAL_H

#include "guard/words.h"

typedef struct mr_personal mr_personal;

/* What is found has this action: MASK or FLAG. */
mr_personal *mr_personal_new(mr_guard_action action, mr_error *err);
void mr_personal_free(mr_personal *p);

/* Calls back for each, in order; they do not overlap. */
int mr_personal_scan(mr_personal *p, mr_str text, mr_guard_hit_cb *cb, void *arg, mr_error *err);

#endif

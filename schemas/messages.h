/* The messages on Kafka. Field by field reference: schemas/README.md (generated from the tables in messages.c).
 *
 * `set` bit of a field: MR_HAS(m, MR_SAMPLING_TEMPERATURE); enum constants follow the table's order. Setting one:
 * MR_SET(m, MR_X, member, value).
 */
#ifndef MR_MESSAGES_H
#define MR_MESSAGES_H

#include "schemas/codec.h"

/* The field lists live in messages.def as X-macros; this header expands them into the structs and the field-index
 * enums, messages.c into the tables. */

#endif

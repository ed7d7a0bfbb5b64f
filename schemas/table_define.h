/* Expands the table named by MR_TABLE into its definitions: in one .c file a table, after its header and after the
 * declarations of the check functions that the table names. The width limit of `set` is checked at build time.
 * clang-format off: the expansions are not C until they are put together. */
#include "schemas/table_rows.h"

/* clang-format off */
#define MR_MESSAGE(M, ctype, name, topic, check, doc) static const mr_field ctype##_fields[] = {
#define MR_FIELD(M, F, decl, m, wire, type, req, lo, hi, each, names, sub, doc) \
    {wire, type, offsetof(MR_##M##_t, m), req, (double)(lo), (double)(hi), each, names, sub, doc},
#define MR_MESSAGE_END(M, ctype) }; \
    _Static_assert(MR_##M##_NFIELDS <= 64, "a message has at most 64 fields: `set` has a bit for each");
#include MR_TABLE
#undef MR_MESSAGE
#undef MR_FIELD
#undef MR_MESSAGE_END

#define MR_MESSAGE(M, ctype, name, topic, check, doc) \
    const mr_message_def ctype##_def = {name, topic, doc, sizeof(ctype), ctype##_fields, MR_##M##_NFIELDS, check};
#define MR_FIELD(M, F, decl, m, wire, type, req, lo, hi, each, names, sub, doc)
#define MR_MESSAGE_END(M, ctype)
#include MR_TABLE
#undef MR_MESSAGE
#undef MR_FIELD
#undef MR_MESSAGE_END
/* clang-format on */

#include "schemas/table_undef.h"
#undef MR_TABLE

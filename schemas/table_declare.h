/* Expands the table named by MR_TABLE into structs, field numbers and the declarations of the definitions:
 *
 *     #define MR_TABLE "schemas/messages.def"
 *     #include "schemas/table_declare.h"
 *
 * A message MR_MESSAGE(SAMPLING, mr_sampling, …) gives `mr_sampling` (its first member is `set`), the numbers
 * MR_SAMPLING_TEMPERATURE… of its fields in order, and `extern const mr_message_def mr_sampling_def`.
 * clang-format off: the expansions are not C until they are put together. */
#include "schemas/codec.h"
#include "schemas/table_rows.h"

/* clang-format off */
#define MR_MESSAGE(M, ctype, name, topic, check, doc) typedef struct ctype { uint64_t set;
#define MR_FIELD(M, F, decl, m, wire, type, req, lo, hi, each, names, sub, doc) decl;
#define MR_MESSAGE_END(M, ctype) } ctype; typedef ctype MR_##M##_t; extern const mr_message_def ctype##_def;
#include MR_TABLE
#undef MR_MESSAGE
#undef MR_FIELD
#undef MR_MESSAGE_END

#define MR_MESSAGE(M, ctype, name, topic, check, doc) enum ctype##_field {
#define MR_FIELD(M, F, decl, m, wire, type, req, lo, hi, each, names, sub, doc) MR_##M##_##F,
#define MR_MESSAGE_END(M, ctype) MR_##M##_NFIELDS };
#include MR_TABLE
#undef MR_MESSAGE
#undef MR_FIELD
#undef MR_MESSAGE_END
/* clang-format on */

#include "schemas/table_undef.h"
#undef MR_TABLE

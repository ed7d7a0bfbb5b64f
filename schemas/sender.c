/* Reads who sent a broken request; see sender.h. */
#include "schemas/sender.h"

#define MR_TABLE "schemas/sender.def"
#include "schemas/table_define.h"

bool mr_sender_read(mr_str record, mr_str content_type, mr_arena *a, mr_sender *out) {
    mr_error ignored;
    return mr_decode(&mr_sender_def, record, content_type, a, out, &ignored) == 0 && mr_id_ok(out->id);
}

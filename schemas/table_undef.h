/* Forgets the row forms of table_rows.h, so that their short names do not leak out of the expansion. */
#undef MR_REQ
#undef MR_OPT
#undef MR_BOOL
#undef MR_I64
#undef MR_F64
#undef MR_STRING
#undef MR_BYTES
#undef MR_ENUM
#undef MR_STRUCT
#undef MR_I64S
#undef MR_STRS
#undef MR_STRUCTS
#undef MR_STRUCTS_AS

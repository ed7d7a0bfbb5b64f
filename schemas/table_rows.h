/* The row forms of a message table (*.def). Each becomes one MR_FIELD(…), which the includer defines; so a table is
 * written once and expanded three ways: structs, field numbers, and the run-time tables.
 *
 * Columns: message prefix, field prefix, member (also the name on the wire), MR_REQ or MR_OPT, limits, one sentence of
 * documentation. Limits are those of mr_field: value of a number, bytes of a string, count of a list; MR_STRS has a
 * third one, the bytes of each string.
 *
 * Included by table_declare.h and table_define.h only; no include guard because it is included once a table.
 */
#define MR_REQ true
#define MR_OPT false

#define MR_BOOL(M, F, m, req, doc) MR_FIELD(M, F, bool m, m, #m, MR_T_BOOL, req, 0, 1, 0, NULL, NULL, doc)
#define MR_I64(M, F, m, req, lo, hi, doc)                                                                    \
    MR_FIELD(M, F, int64_t m, m, #m, MR_T_I64, req, lo, hi, 0, NULL, NULL, doc)
#define MR_F64(M, F, m, req, lo, hi, doc) MR_FIELD(M, F, double m, m, #m, MR_T_F64, req, lo, hi, 0, NULL, NULL, doc)
#define MR_STRING(M, F, m, req, lo, hi, doc)                                                                 \
    MR_FIELD(M, F, mr_str m, m, #m, MR_T_STR, req, lo, hi, 0, NULL, NULL, doc)
#define MR_BYTES(M, F, m, req, lo, hi, doc)                                                                  \
    MR_FIELD(M, F, mr_str m, m, #m, MR_T_BYTES, req, lo, hi, 0, NULL, NULL, doc)
#define MR_ENUM(M, F, m, req, names, doc) MR_FIELD(M, F, int m, m, #m, MR_T_ENUM, req, 0, 0, 0, names, NULL, doc)
#define MR_STRUCT(M, F, m, req, ctype, doc)                                                                  \
    MR_FIELD(M, F, ctype m, m, #m, MR_T_STRUCT, req, 0, 0, 0, NULL, &ctype##_def, doc)
#define MR_I64S(M, F, m, req, lo, hi, doc)                                                                   \
    MR_FIELD(M, F, mr_i64s m, m, #m, MR_T_I64S, req, lo, hi, 0, NULL, NULL, doc)
#define MR_STRS(M, F, m, req, lo, hi, each, doc)                                                             \
    MR_FIELD(M, F, mr_strs m, m, #m, MR_T_STRS, req, lo, hi, each, NULL, NULL, doc)
#define MR_STRUCTS(M, F, m, req, lo, hi, ctype, doc) MR_STRUCTS_AS(M, F, m, #m, req, lo, hi, ctype, doc)
/* The same with a wire name of its own: a second row for one name on the wire, chosen by the type that is found. */
#define MR_STRUCTS_AS(M, F, m, wire, req, lo, hi, ctype, doc)                                                \
    MR_FIELD(M, F, MR_LIST(ctype) m, m, wire, MR_T_STRUCTS, req, lo, hi, 0, NULL, &ctype##_def, doc)

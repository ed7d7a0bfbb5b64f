/* Deduplication of an answer by byte offset and running hash. */
#include "gateway/answer.h"

#include "schemas/hash.h"

void mr_answer_init(mr_answer *a) {
    *a = (mr_answer){.hash = mr_text_hash_init()};
}

static bool is_hash(uint64_t have, mr_str hex) {
    uint64_t want = 0;
    return mr_text_hash_parse(hex, &want) && want == have;
}

mr_answer_verdict mr_answer_delta(mr_answer *a, int64_t offset, mr_str text, mr_str hash, mr_str *fresh) {
    uint64_t begin = (uint64_t)offset, end = begin + text.n;
    *fresh = MR_STR("");
    if (offset < 0 || begin > a->bytes) return MR_ANSWER_GAP;
    if (end < a->bytes) { /* the hash at its end is no longer known; a later delta or the end will prove it */
        a->duplicate_bytes += text.n;
        return MR_ANSWER_DUPLICATE;
    }
    size_t known = (size_t)(a->bytes - begin);
    mr_str rest = {text.p + known, text.n - known};
    uint64_t hash_after = mr_text_hash_feed(a->hash, rest);
    if (!is_hash(hash_after, hash)) return MR_ANSWER_MISMATCH;
    a->duplicate_bytes += known;
    if (rest.n == 0 && known > 0) return MR_ANSWER_DUPLICATE;
    a->bytes = end;
    a->hash = hash_after;
    *fresh = rest;
    return MR_ANSWER_NEW;
}

mr_answer_verdict mr_answer_end(const mr_answer *a, int64_t offset, mr_str hash) {
    if (offset < 0 || (uint64_t)offset > a->bytes) return MR_ANSWER_GAP;
    return (uint64_t)offset == a->bytes && is_hash(a->hash, hash) ? MR_ANSWER_NEW : MR_ANSWER_MISMATCH;
}

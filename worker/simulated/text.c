/* See text.h. */
#include "worker/simulated/text.h"

static const char *const words[] = {
    "river ", "mill ",  "wheel ", "grain ", "水",      "车",     "café ", "stone, ", "flow ",
    "the ",   "\n",     "of ",    "a ",     "磨坊",    "runs. ", "and ",  "slow ",   "bread ",
    "Über ",  "night ", "it ",    "turns ", "weir — ", "by ",    "day, ", "façade",  " ",
    "with ",  "flour ", "日本 ",  "to ",    "is ",     "water ", "2 ",    "miller",  "'s ",
    "naïve ", "where ", "old ",   "рожь ",  "in ",     "song. ",
};

#define WORDS ((int64_t)(sizeof(words) / sizeof(*words)))
#define HALF  WORDS       /* the first half of a character… */
#define REST  (WORDS + 1) /* …and the other one, which always follows */

static uint64_t mix(uint64_t h) {
    h = (h ^ h >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ h >> 27) * UINT64_C(0x94d049bb133111eb);
    return h ^ h >> 31;
}

void mr_sim_text_init(mr_sim_text *t, uint64_t key) {
    *t = (mr_sim_text){.state = mix(key + UINT64_C(0x9e3779b97f4a7c15)), .last = -1};
}

int64_t mr_sim_text_next(const mr_sim_text *t, bool last, bool wrong) {
    if (t->last == HALF) return REST;
    return (int64_t)(mix(t->state + (wrong ? 1 : 0)) % (uint64_t)(last ? WORDS : WORDS + 1));
}

void mr_sim_text_take(mr_sim_text *t, int64_t token) {
    t->state = mix(t->state ^ (uint64_t)(token + 1) * UINT64_C(0x9e3779b97f4a7c15));
    t->last = token;
}

mr_str mr_sim_token_bytes(int64_t token) {
    if (token == HALF) return MR_STR("\xf0\x9f");
    if (token == REST) return MR_STR("\x8c\xbe ");
    return mr_str_of(token >= 0 && token < WORDS ? words[token] : "");
}

bool mr_sim_token_is_half(int64_t token) {
    return token == HALF;
}

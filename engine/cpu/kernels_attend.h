/* Attention over the paged cache, a part of kernels_body.h, for each type that a cache may have.
 *
 * In 8 bits a token's key and value have a scale each. It is taken out of the sums: a score is scaled by its position's key,
 * and a weight by its position's value, before they go on. In bf16 what is added up lies in pairs (kv_layout.h), which are
 * multiplied by pairs of factors: elements of the query, or weights of positions. The factors are rounded to bf16 too where the CPU
 * multiplies it, as the reference does.
 */

#ifdef KERNELS_HAVE_BF16
typedef uint16_t factor;

INLINE vf dot_pair(vf acc, vi pair, const factor *two) {
    return vf_dot_bf16(acc, pair, (const unsigned char *)two);
}

/* `space` may be where x is; it has room for whole vectors. */
INLINE const factor *factors(const float *x, int n, void *space) {
    for (int i = 0; i < n; i += KERNEL_LANES)
        vf_store_bf16((uint16_t *)space + i, vf_load_n(x + i, lanes_left(i, n)));
    return space;
}
#else
typedef float factor;

INLINE vf dot_pair(vf acc, vi pair, const factor *two) {
    return vf_fma(vf_set1(two[1]), vf_high_bf16(pair), vf_fma(vf_set1(two[0]), vf_low_bf16(pair), acc));
}

INLINE const factor *factors(const float *x, int n, void *space) {
    (void)n, (void)space;
    return x;
}
#endif

static void kv_put_f32(const kv_layout *kv, unsigned char *head, int slot, const float *k, const float *v) {
    const int d = kv->head_dim;
    float *kt = (float *)(void *)head, *values = (float *)(void *)(head + kv->value_offset);
    for (int i = 0; i < d; i++) kt[(size_t)i * (size_t)kv->block_tokens + (size_t)slot] = k[i];
    memcpy(values + (size_t)slot * (size_t)kv->value_stride, v, (size_t)d * sizeof *v);
}

static void kv_put_bf16(const kv_layout *kv, unsigned char *head, int slot, const float *k, const float *v) {
    const int d = kv->head_dim, bt = kv->block_tokens, odd = slot % 2;
    uint16_t *kt = (uint16_t *)(void *)head + (size_t)slot * 2;
    uint16_t *vt =
        (uint16_t *)(void *)(head + kv->value_offset) + (size_t)(slot - odd) * (size_t)kv->value_stride + odd;
    for (int i = 0; i < d; i += KERNEL_LANES) {
        const int left = lanes_left(i, d);
        uint16_t key[KERNEL_LANES], value[KERNEL_LANES];
        vf_store_bf16(key, vf_load_n(k + i, left));
        vf_store_bf16(value, vf_load_n(v + i, left));
        for (int j = 0; j < left; j += 2) memcpy(kt + (size_t)(i + j) * (size_t)bt, key + j, 2 * sizeof *key);
        for (int j = 0; j < left; j++) vt[(size_t)(i + j) * 2] = value[j];
    }
}

static void kv_put_int8(const kv_layout *kv, unsigned char *head, int slot, const float *k, const float *v) {
    const int d = kv->head_dim;
    int8_t bytes[KV_HEAD_DIM_MAX], *kt = (int8_t *)head, *values = (int8_t *)(head + kv->value_offset);
    float *scales = (float *)(void *)(head + kv->scale_offset);
    scales[slot] = quantise_group(bytes, k, d);
    for (int i = 0; i < d; i++) kt[(size_t)i * (size_t)kv->block_tokens + (size_t)slot] = bytes[i];
    scales[kv->block_tokens + slot] = quantise_group(bytes, v, d);
    memcpy(values + (size_t)slot * (size_t)kv->value_stride, bytes, (size_t)d);
}

static void kv_put(const kv_layout *kv, unsigned char *head, int slot, const float *k, const float *v) {
    if (kv->type == DTYPE_F32)
        kv_put_f32(kv, head, slot, k, v);
    else if (kv->type == DTYPE_BF16)
        kv_put_bf16(kv, head, slot, k, v);
    else
        kv_put_int8(kv, head, slot, k, v);
}

/* So many elements of a key, or positions, are taken at once. */
#define TAKEN_OF(type) ((type) == DTYPE_BF16 ? 2 : 1)

INLINE vi kv_pairs(const void *base, size_t at) {
    return vi_load((const uint16_t *)base + at);
}

/* Not for bf16 */
INLINE vf kv_load(const void *base, size_t at, const dtype type) {
    if (type == DTYPE_F32) return vf_load((const float *)base + at);
    return vf_load_int8((const int8_t *)base + at);
}

/* Of a block in 8 bits, from slot on */
INLINE const float *key_scales(const attend_args *a, const unsigned char *block, size_t slot) {
    return (const float *)(const void *)(block + a->kv->scale_offset) + slot;
}
INLINE const float *value_scales(const attend_args *a, const unsigned char *block, size_t slot) {
    return key_scales(a, block, (size_t)a->kv->block_tokens + slot);
}

static inline const unsigned char *kv_block(const attend_args *a, int position) {
    return a->head + (size_t)a->blocks[position / a->kv->block_tokens] * a->kv->block_bytes;
}

/* Scores of R rows against the 16 positions from `position`; they may reach beyond a row's limit, which is not read later. */
INLINE void score_strip(const attend_args *a, int row, const factor *const *query, int position, const int R,
                        const dtype type) {
    const size_t bt = (size_t)a->kv->block_tokens;
    const unsigned char *keys = kv_block(a, position);
    const size_t slot = (size_t)position % bt;
    vf acc[ATTEND_ROWS];
    UNROLL for (int r = 0; r < R; r++) acc[r] = vf_set1(0);
    for (int i = 0; i < a->kv->head_dim; i += TAKEN_OF(type)) {
        if (type == DTYPE_BF16) {
            const vi k = kv_pairs(keys, (size_t)i * bt + 2 * slot);
            UNROLL for (int r = 0; r < R; r++) acc[r] = dot_pair(acc[r], k, query[r] + i);
        } else {
            const vf k = kv_load(keys, (size_t)i * bt + slot, type);
            UNROLL for (int r = 0; r < R; r++) acc[r] = vf_fma(vf_set1(a->q[row + r][i]), k, acc[r]);
        }
    }
    vf scale = vf_set1(a->scale);
    if (type == DTYPE_I8) scale = vf_mul(scale, vf_load(key_scales(a, keys, slot)));
    UNROLL for (int r = 0; r < R; r++) {
        vf_store(a->scores + (size_t)(row + r) * a->scores_stride + position, vf_mul(acc[r], scale));
    }
}

/* Turns a row of scores into weights e^(s - max) and returns one over their sum. */
static float softmax_row(float *s, int limit) {
    /* the lanes beyond the limit repeat a valid score for the maximum and then weigh nothing */
    int padded = (limit + KERNEL_LANES - 1) / KERNEL_LANES * KERNEL_LANES;
    for (int i = limit; i < padded; i++) s[i] = s[limit - 1];
    vf top = vf_load(s);
    for (int i = KERNEL_LANES; i < padded; i += KERNEL_LANES) top = vf_max(top, vf_load(s + i));
    const vf max = vf_set1(vf_top(top));
    for (int i = 0; i < padded; i += KERNEL_LANES) vf_store(s + i, vf_exp(vf_sub(vf_load(s + i), max)));
    for (int i = limit; i < padded; i++) s[i] = 0;
    vf sum = vf_set1(0);
    for (int i = 0; i < padded; i += KERNEL_LANES) sum = vf_add(sum, vf_load(s + i));
    return 1.0f / vf_sum(sum);
}

/* So many vectors of columns are summed at once for R rows that their sums stay in registers. */
enum { VALUE_VECTORS = 4 };
#define VALUES_OF(R) (ATTEND_SUMS >= 4 * (R) ? VALUE_VECTORS : ATTEND_SUMS >= 2 * (R) ? 2 : 1)

/* acc[row][c] += weights of positions [from, to) within one block x its values, columns from `column` on. For bf16 `from` is even,
 * and of a pair of which the second is not seen, only the first counts. */
INLINE void weigh_values(const attend_args *a, int row, const factor *const *weight, int from, int to,
                         int column, vf acc[][VALUE_VECTORS], const int R, const int C, const dtype type) {
    const unsigned char *block = kv_block(a, from), *values = block + a->kv->value_offset;
    const int base = from - from % a->kv->block_tokens;
    for (int p = from; p < to; p += TAKEN_OF(type)) {
        const size_t slot = (size_t)(p - base), at = slot * (size_t)a->kv->value_stride;
        if (type == DTYPE_BF16) {
            vi v[VALUE_VECTORS];
            UNROLL for (int c = 0; c < C; c++) {
                v[c] = kv_pairs(values, at + 2 * (size_t)(column + c * KERNEL_LANES));
                if (p + 1 == to) v[c] = vi_low_halves(v[c]);
            }
            UNROLL for (int r = 0; r < R; r++) {
                UNROLL for (int c = 0; c < C; c++) acc[r][c] = dot_pair(acc[r][c], v[c], weight[r] + p);
            }
            continue;
        }
        const float scale = type == DTYPE_I8 ? *value_scales(a, block, slot) : 1;
        vf v[VALUE_VECTORS];
        UNROLL for (int c = 0; c < C; c++) v[c] =
            kv_load(values, at + (size_t)(column + c * KERNEL_LANES), type);
        UNROLL for (int r = 0; r < R; r++) {
            vf w = vf_set1(scale * a->scores[(size_t)(row + r) * a->scores_stride + (size_t)p]);
            UNROLL for (int c = 0; c < C; c++) acc[r][c] = vf_fma(w, v[c], acc[r][c]);
        }
    }
}

/* Columns [column, column + 16 C) of the output of R rows. What all rows see is walked together; then each row alone
 * goes on to its own limit, so that its sum is always in the order of positions. */
INLINE void value_strip(const attend_args *a, int row, const factor *const *weight, int column,
                        const float *inv, const int R, const int C, const dtype type) {
    const int bt = a->kv->block_tokens;
    vf acc[ATTEND_ROWS][VALUE_VECTORS];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int c = 0; c < C; c++) acc[r][c] = vf_set1(0);
    const int shared = a->limit[row] - a->limit[row] % TAKEN_OF(type);
    for (int p = 0; p < shared; p += bt) {
        weigh_values(a, row, weight, p, shared < p + bt ? shared : p + bt, column, acc, R, C, type);
    }
    UNROLL for (int r = 0; r < R; r++) {
        for (int p = shared; p < a->limit[row + r];) {
            int end = (p / bt + 1) * bt;
            if (end > a->limit[row + r]) end = a->limit[row + r];
            weigh_values(a, row + r, weight + r, p, end, column, &acc[r], 1, C, type);
            p = end;
        }
        UNROLL for (int c = 0; c < C; c++) {
            int left = a->kv->head_dim - column - c * KERNEL_LANES;
            if (left <= 0) continue;
            vf_store_n(a->out[row + r] + column + c * KERNEL_LANES, vf_mul(acc[r][c], vf_set1(inv[r])),
                       left < KERNEL_LANES ? left : KERNEL_LANES);
        }
    }
}

INLINE void attend_rows(const attend_args *a, int row, const int R, const dtype type) {
    factor space[ATTEND_TILE][KV_HEAD_DIM_MAX];
    const factor *query[ATTEND_TILE], *weight[ATTEND_TILE];
    float inv[ATTEND_TILE];
    for (int r = 0; r < R && type == DTYPE_BF16; r++)
        query[r] = factors(a->q[row + r], a->kv->head_dim, space[r]);
    for (int p = 0; p < a->limit[row + R - 1]; p += KERNEL_LANES) score_strip(a, row, query, p, R, type);
    for (int r = 0; r < R; r++) {
        float *s = a->scores + (size_t)(row + r) * a->scores_stride;
        inv[r] = softmax_row(s, a->limit[row + r]);
        if (type == DTYPE_BF16) weight[r] = factors(s, a->limit[row + r], s);
    }
    int column = 0;
    for (; column + VALUES_OF(R) * KERNEL_LANES <= a->kv->value_stride; column += VALUES_OF(R) * KERNEL_LANES)
        value_strip(a, row, weight, column, inv, R, VALUES_OF(R), type);
    for (; column < a->kv->value_stride; column += KERNEL_LANES)
        value_strip(a, row, weight, column, inv, R, 1, type);
}

/* The cache is read once for as many rows as have their sums in registers. */
#define ATTEND_CASE(R)                                                                                       \
    case R: attend_rows(a, row, R, type); break
INLINE void attend_all(const attend_args *a, const dtype type) {
    for (int row = 0; row < a->rows; row += ATTEND_TILE) {
        switch (a->rows - row) {
            ATTEND_CASE(1);
            ATTEND_CASE(2);
            ATTEND_CASE(3);
#if ATTEND_TILE == 8
            ATTEND_CASE(4);
            ATTEND_CASE(5);
            ATTEND_CASE(6);
            ATTEND_CASE(7);
#endif
        default: attend_rows(a, row, ATTEND_TILE, type);
        }
    }
}

static void attend(const attend_args *a) {
    if (a->kv->type == DTYPE_F32)
        attend_all(a, DTYPE_F32);
    else if (a->kv->type == DTYPE_BF16)
        attend_all(a, DTYPE_BF16);
    else
        attend_all(a, DTYPE_I8);
}

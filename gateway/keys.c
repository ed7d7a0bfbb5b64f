/* The file of API keys (see keys.h). */
#include "gateway/keys.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define FILE_MAX_BYTES (16u << 20)
#define FIELDS         7

struct mr_keys {
    mr_key *v; /* sorted by id */
    int n, cap;
};

static const struct {
    const char *name;
    unsigned bit;
} scopes[] = {
    {"chat", MR_SCOPE_CHAT},       {"models", MR_SCOPE_MODELS}, {"feedback", MR_SCOPE_FEEDBACK},
    {"billing", MR_SCOPE_BILLING}, {"admin", MR_SCOPE_ADMIN},   {"priority", MR_SCOPE_PRIORITY},
};
#define NSCOPES (sizeof(scopes) / sizeof(scopes[0]))

/* ---- pieces of text ---- */

static bool is_one_of(char c, const char *set) {
    return c != '\0' && strchr(set, c) != NULL;
}

/* The text up to the next of `separators`, which is taken off *rest with it. False at the end. */
static bool next_piece(mr_str *rest, const char *separators, mr_str *piece) {
    if (!rest->p) return false;
    size_t n = 0;
    while (n < rest->n && !is_one_of(rest->p[n], separators)) n++;
    *piece = (mr_str){rest->p, n};
    *rest = n < rest->n ? (mr_str){rest->p + n + 1, rest->n - n - 1} : (mr_str){NULL, 0};
    return true;
}

static mr_str trim(mr_str s) {
    while (s.n > 0 && is_one_of(s.p[0], " \r")) s = (mr_str){s.p + 1, s.n - 1};
    while (s.n > 0 && is_one_of(s.p[s.n - 1], " \r")) s.n--;
    return s;
}

static bool from_hex(mr_str s, unsigned char *out, size_t n) {
    if (s.n != 2 * n) return false;
    for (size_t i = 0; i < n; i++) {
        int high = mr_hex_digit(s.p[2 * i]), low = mr_hex_digit(s.p[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

static bool id_ok(mr_str id) {
    for (size_t i = 0; i < id.n; i++) {
        if (mr_hex_digit(id.p[i]) < 0) return false;
    }
    return id.n == MR_KEY_ID_LEN;
}

bool mr_key_name_ok(mr_str s) {
    for (size_t i = 0; i < s.n; i++) {
        if (!is_one_of(s.p[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")) {
            return false;
        }
    }
    return s.n > 0 && s.n <= MR_KEY_NAME_MAX;
}

/* ---- hashes ---- */

static bool hash_of(const unsigned char salt[MR_KEY_SALT], mr_str text, unsigned char out[MR_KEY_HASH]) {
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool ok = c && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(c, salt, MR_KEY_SALT) == 1 && EVP_DigestUpdate(c, text.p, text.n) == 1 &&
              EVP_DigestFinal_ex(c, out, NULL) == 1;
    EVP_MD_CTX_free(c);
    return ok;
}

void mr_key_digest(mr_str secret, char out[MR_KEY_ID_LEN + 1]) {
    static const unsigned char salt[MR_KEY_SALT] = "millrace: an id";
    unsigned char hash[MR_KEY_HASH] = {0};
    (void)hash_of(salt, secret, hash); /* without memory all such keys share one id */
    mr_hex(hash, MR_KEY_ID_LEN / 2, out);
}

/* ---- fields ---- */

int mr_scopes_parse(mr_str text, unsigned *out, mr_error *err) {
    mr_str rest = text, piece;
    *out = 0;
    while (next_piece(&rest, ",", &piece)) {
        size_t i = 0;
        while (i < NSCOPES && !mr_str_eqz(piece, scopes[i].name)) i++;
        if (i == NSCOPES) {
            return mr_fail(err, MR_EINVAL,
                           "unknown scope '%.*s', known: chat, models, feedback, billing, priority, admin",
                           (int)(piece.n < 40 ? piece.n : 40), piece.p);
        }
        *out |= scopes[i].bit;
    }
    return *out ? 0 : mr_fail(err, MR_EINVAL, "no scope is given");
}

static bool number_of(mr_str s, int64_t *out) {
    *out = 0;
    if (s.n == 0 || s.n > 12) return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') return false;
        *out = *out * 10 + (s.p[i] - '0');
    }
    return true;
}

static int set_limit(mr_str piece, mr_limits *out, mr_error *err) {
    const char *equals = memchr(piece.p, '=', piece.n);
    mr_str name = {piece.p, equals ? (size_t)(equals - piece.p) : piece.n};
    int64_t *where = mr_str_eqz(name, "requests")     ? &out->requests
                     : mr_str_eqz(name, "tokens")     ? &out->tokens
                     : mr_str_eqz(name, "concurrent") ? &out->concurrent
                                                      : NULL;
    if (equals && where && number_of((mr_str){equals + 1, piece.n - name.n - 1}, where)) return 0;
    return mr_fail(err, MR_EINVAL,
                   "'%.*s' is no limit: expected requests=N, tokens=N or concurrent=N, with N a whole number",
                   (int)(piece.n < 60 ? piece.n : 60), piece.p);
}

int mr_limits_parse(mr_str text, mr_limits *out, mr_error *err) {
    mr_str rest = text, piece;
    *out = (mr_limits){0};
    while (next_piece(&rest, ", ", &piece)) {
        if (piece.n > 0 && set_limit(piece, out, err) < 0) return -1;
    }
    return 0;
}

static bool time_of(mr_str s, int64_t *ms) {
    char z[32];
    struct tm tm = {0};
    if (s.n >= sizeof(z)) return false;
    memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    const char *end = strptime(z, "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (!end || *end != '\0') return false;
    *ms = (int64_t)timegm(&tm) * 1000;
    return *ms > 0;
}

static bool secret_of(mr_str s, mr_key *k) {
    mr_str kind, salt, hash;
    return next_piece(&s, ":", &kind) && mr_str_eqz(kind, "sha256") && next_piece(&s, ":", &salt) &&
           from_hex(salt, k->salt, MR_KEY_SALT) && next_piece(&s, ":", &hash) && !s.p &&
           from_hex(hash, k->hash, MR_KEY_HASH);
}

static bool is_none(mr_str s) {
    return mr_str_eqz(s, "-");
}

static int fill(const mr_str f[FIELDS], mr_key *k, mr_error *err) {
    *k = (mr_key){0};
    if (!id_ok(f[0])) return mr_fail(err, MR_EINVAL, "the id is not %d hexadecimal digits", MR_KEY_ID_LEN);
    mr_str_copy(f[0], k->id, sizeof(k->id));
    if (!secret_of(f[1], k)) return mr_fail(err, MR_EINVAL, "the hash is not sha256:SALT:HASH");
    if (!mr_key_name_ok(f[2])) {
        return mr_fail(err, MR_EINVAL,
                       "the tenant is not 1 to %d letters, digits, dots, underscores and hyphens",
                       MR_KEY_NAME_MAX);
    }
    mr_str_copy(f[2], k->tenant, sizeof(k->tenant));
    if (mr_scopes_parse(f[3], &k->scopes, err) < 0) return -1;
    if (!is_none(f[4]) && !time_of(f[4], &k->expires_ms)) {
        return mr_fail(err, MR_EINVAL, "the expiry is neither - nor a time as 2027-02-22T00:00:00Z");
    }
    k->limited = !is_none(f[5]);
    if (k->limited && mr_limits_parse(f[5], &k->limits, err) < 0) return -1;
    if (is_none(f[6])) return 0;
    if (!mr_key_name_ok(f[6])) return mr_fail(err, MR_EINVAL, "the style is no name");
    mr_str_copy(f[6], k->style, sizeof(k->style));
    return 0;
}

/* ---- the table ---- */

static mr_key *add(mr_keys *k, mr_error *err) {
    if (k->n == k->cap) {
        int cap = k->cap ? 2 * k->cap : 16;
        mr_key *v = realloc(k->v, (size_t)cap * sizeof(*v));
        if (!v) {
            mr_fail(err, MR_ENOMEM, "out of memory");
            return NULL;
        }
        k->v = v;
        k->cap = cap;
    }
    return &k->v[k->n++];
}

static int parse_line(mr_keys *k, mr_str line, mr_error *err) {
    mr_str field[FIELDS], rest = line, piece;
    int n = 0;
    while (next_piece(&rest, "\t", &piece)) {
        if (n < FIELDS) field[n] = trim(piece);
        n++;
    }
    if (n != FIELDS) {
        return mr_fail(err, MR_EINVAL, "it has %d fields with tabs between them, expected %d", n, FIELDS);
    }
    mr_key *key = add(k, err);
    return key ? fill(field, key, err) : -1;
}

static int by_id(const void *a, const void *b) {
    return strcmp(((const mr_key *)a)->id, ((const mr_key *)b)->id);
}

static int sort(mr_keys *k, mr_error *err) {
    if (k->n > 0) qsort(k->v, (size_t)k->n, sizeof(k->v[0]), by_id);
    for (int i = 1; i < k->n; i++) {
        if (strcmp(k->v[i - 1].id, k->v[i].id) == 0) {
            return mr_fail(err, MR_EINVAL, "the id %s is there twice", k->v[i].id);
        }
    }
    return 0;
}

static int parse(mr_keys *k, mr_str text, const char *name, mr_error *err) {
    mr_str rest = text, line;
    for (int number = 1; next_piece(&rest, "\n", &line); number++) {
        line = trim(line);
        if (line.n == 0 || line.p[0] == '#') continue;
        if (parse_line(k, line, err) < 0) return mr_fail_in(err, "%s:%d", name, number);
    }
    return sort(k, err) < 0 ? mr_fail_in(err, "%s", name) : 0;
}

mr_keys *mr_keys_parse(mr_str text, const char *name, mr_error *err) {
    mr_keys *k = calloc(1, sizeof(*k));
    if (!k) {
        mr_fail(err, MR_ENOMEM, "out of memory for API keys");
        return NULL;
    }
    if (parse(k, text, name, err) == 0) return k;
    mr_keys_free(k);
    return NULL;
}

mr_keys *mr_keys_read(const char *path, mr_error *err) {
    mr_keys *k = NULL;
    mr_buf text;
    char part[8192];
    size_t n;
    FILE *in = fopen(path, "re");
    if (!in) {
        mr_fail(err, MR_EIO, "the file of API keys %.300s cannot be read: %s", path, strerror(errno));
        return NULL;
    }
    mr_buf_init(&text, FILE_MAX_BYTES);
    while ((n = fread(part, 1, sizeof(part), in)) > 0) mr_buf_put(&text, part, n);
    if (ferror(in)) {
        mr_fail(err, MR_EIO, "the file of API keys %.300s cannot be read", path);
    } else if (text.failed) {
        mr_fail(err, MR_ETOOBIG, "the file of API keys %.300s is over %u MB", path, FILE_MAX_BYTES >> 20);
    } else {
        k = mr_keys_parse(mr_buf_str(&text), path, err);
    }
    mr_buf_done(&text);
    fclose(in);
    return k;
}

void mr_keys_free(mr_keys *k) {
    if (!k) return;
    free(k->v);
    free(k);
}

int mr_keys_count(const mr_keys *k) {
    return k->n;
}

const mr_key *mr_keys_at(const mr_keys *k, int i) {
    return &k->v[i];
}

static const mr_key *find_id(const mr_keys *k, mr_str text) {
    mr_key wanted;
    if (k->n == 0) return NULL;
    memcpy(wanted.id, text.p + 3, MR_KEY_ID_LEN);
    wanted.id[MR_KEY_ID_LEN] = '\0';
    return bsearch(&wanted, k->v, (size_t)k->n, sizeof(k->v[0]), by_id);
}

const mr_key *mr_keys_find(const mr_keys *k, mr_str text) {
    unsigned char hash[MR_KEY_HASH];
    if (text.n != MR_KEY_TEXT_LEN || memcmp(text.p, "sk-", 3) != 0) return NULL;
    const mr_key *key = find_id(k, text);
    if (!key || !hash_of(key->salt, text, hash)) return NULL;
    return CRYPTO_memcmp(hash, key->hash, MR_KEY_HASH) == 0 ? key : NULL;
}

/* ---- new keys ---- */

int mr_key_new(mr_key *k, char text[MR_KEY_TEXT_LEN + 1], mr_error *err) {
    unsigned char r[MR_KEY_ID_LEN / 2 + 24 + MR_KEY_SALT];
    char secret[49];
    if (getrandom(r, sizeof(r), 0) != (ssize_t)sizeof(r)) {
        return mr_fail(err, MR_EIO, "the system has no randomness");
    }
    mr_hex(r, MR_KEY_ID_LEN / 2, k->id);
    mr_hex(r + MR_KEY_ID_LEN / 2, 24, secret);
    memcpy(k->salt, r + MR_KEY_ID_LEN / 2 + 24, MR_KEY_SALT);
    snprintf(text, MR_KEY_TEXT_LEN + 1, "sk-%s-%s", k->id, secret);
    return hash_of(k->salt, mr_str_of(text), k->hash) ? 0 : mr_fail(err, MR_ENOMEM, "out of memory");
}

static void write_limits(const mr_key *k, mr_buf *out) {
    const mr_limits *l = &k->limits;
    if (!k->limited) {
        mr_buf_puts(out, "-");
        return;
    }
    mr_buf_printf(out, "requests=%lld,tokens=%lld,concurrent=%lld", (long long)l->requests,
                  (long long)l->tokens, (long long)l->concurrent);
}

void mr_key_write(const mr_key *k, mr_buf *out) {
    char salt[2 * MR_KEY_SALT + 1], hash[2 * MR_KEY_HASH + 1], expires[32] = "-";
    struct tm tm;
    time_t seconds = (time_t)(k->expires_ms / 1000);
    mr_hex(k->salt, MR_KEY_SALT, salt);
    mr_hex(k->hash, MR_KEY_HASH, hash);
    if (k->expires_ms && gmtime_r(&seconds, &tm)) strftime(expires, sizeof(expires), "%FT%TZ", &tm);
    mr_buf_printf(out, "%s\tsha256:%s:%s\t%s\t", k->id, salt, hash, k->tenant);
    bool first = true;
    for (size_t i = 0; i < NSCOPES; i++) {
        if (!(k->scopes & scopes[i].bit)) continue;
        mr_buf_printf(out, "%s%s", first ? "" : ",", scopes[i].name);
        first = false;
    }
    mr_buf_printf(out, "\t%s\t", expires);
    write_limits(k, out);
    mr_buf_printf(out, "\t%s\n", k->style[0] ? k->style : "-");
}

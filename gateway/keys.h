/* The file of API keys: who may ask for what, with the hash of each key in place of the key.
 *
 *     # id          hash                    tenant  scopes         expires               limits        style
 *     3f2a9c01be77  sha256:SALT:HASH        acme    chat,feedback  2027-02-22T00:00:00Z  requests=60   formal
 *
 * Seven fields with tabs between them, `-` for none; `#` begins a comment. A key is "sk-ID-SECRET" with 192 random bits,
 * so one salted SHA-256 guards it; its id finds the line, and only the hash lets in. Tables are read-only once made: any thread.
 */
#ifndef MR_KEYS_H
#define MR_KEYS_H

#include "base/error.h"
#include "base/str.h"

#include <stdio.h>

#define MR_KEY_ID_LEN   12 /* hexadecimal digits */
#define MR_KEY_TEXT_LEN (3 + MR_KEY_ID_LEN + 1 + 48)
#define MR_KEY_NAME_MAX 64 /* bytes of a tenant's and of a style's name */
#define MR_KEY_SALT     16
#define MR_KEY_HASH     32

enum mr_scope {
    MR_SCOPE_CHAT = 1,
    MR_SCOPE_MODELS = 2,
    MR_SCOPE_FEEDBACK = 4,
    MR_SCOPE_BILLING = 8,
    MR_SCOPE_ADMIN = 16,    /* everything */
    MR_SCOPE_PRIORITY = 32, /* chats that go ahead of others */
};

/* 0: no limit. */
typedef struct mr_limits {
    int64_t requests, tokens; /* a minute */
    int64_t concurrent;       /* requests being answered */
} mr_limits;

typedef struct mr_key {
    char id[MR_KEY_ID_LEN + 1];
    unsigned char salt[MR_KEY_SALT], hash[MR_KEY_HASH];
    char tenant[MR_KEY_NAME_MAX + 1];
    unsigned scopes;
    int64_t expires_ms; /* unix time; 0: never */
    bool limited;       /* it has limits of its own, in place of those for every key */
    mr_limits limits;
    char style[MR_KEY_NAME_MAX + 1]; /* may be empty */
} mr_key;

typedef struct mr_keys mr_keys;

/* `name` is the file's in errors, which say the line. */
mr_keys *mr_keys_parse(mr_str text, const char *name, mr_error *err);
mr_keys *mr_keys_read(const char *path, mr_error *err);
void mr_keys_free(mr_keys *k);
int mr_keys_count(const mr_keys *k);
const mr_key *mr_keys_at(const mr_keys *k, int i); /* by id */

/* The line of this key, or NULL; whether it has expired is the caller's to see. What it takes tells nothing but whether
 * the id is there. */
const mr_key *mr_keys_find(const mr_keys *k, mr_str text);

/* Fills in id, salt and hash of a new key, and writes the key itself. -1 when the system has no randomness. */
int mr_key_new(mr_key *k, char text[MR_KEY_TEXT_LEN + 1], mr_error *err);
/* Appends its line. */
void mr_key_write(const mr_key *k, mr_buf *out);

/* "chat,feedback" */
int mr_scopes_parse(mr_str text, unsigned *out, mr_error *err);
/* "requests=60 tokens=90000 concurrent=4", any of them, with blanks or commas between */
int mr_limits_parse(mr_str text, mr_limits *out, mr_error *err);
/* Letters, digits, `_`, `.` and `-`. */
bool mr_key_name_ok(mr_str name);

/* 12 hexadecimal digits that stand for a secret without telling it. */
void mr_key_digest(mr_str secret, char out[MR_KEY_ID_LEN + 1]);

#endif

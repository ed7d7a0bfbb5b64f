/* See helpers.h. */
#include "helpers.h"

#include <jansson.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 1 << 22 };

mr_buf read_file(const char *path) {
    char part[4096];
    size_t n;
    mr_buf b;
    mr_buf_init(&b, FILE_MAX);
    FILE *in = fopen(path, "rb");
    if (!in) fail_msg("%s is not there", path);
    while ((n = fread(part, 1, sizeof(part), in)) > 0) mr_buf_put(&b, part, n);
    fclose(in);
    mr_buf_put(&b, "", 1);
    assert_false(b.failed);
    b.n--;
    return b;
}

mr_buf from_hex(const char *hex) {
    mr_buf b;
    mr_buf_init(&b, FILE_MAX);
    for (unsigned byte; hex += strspn(hex, "\n"), sscanf(hex, "%2x", &byte) == 1; hex += 2) {
        mr_buf_put(&b, &(char){(char)byte}, 1);
    }
    return b;
}

static int write_buf(void *data, const char *p, size_t n) {
    mr_buf_put(data, p, n);
    return 0;
}

static void pack_text(msgpack_packer *pk, const char *p, size_t n) {
    msgpack_pack_str(pk, n);
    msgpack_pack_str_body(pk, p, n);
}

static void pack_value(msgpack_packer *pk, json_t *j) {
    const char *key;
    json_t *value;
    size_t i;
    switch (json_typeof(j)) {
    case JSON_NULL: msgpack_pack_nil(pk); break;
    case JSON_TRUE: msgpack_pack_true(pk); break;
    case JSON_FALSE: msgpack_pack_false(pk); break;
    case JSON_INTEGER: msgpack_pack_int64(pk, json_integer_value(j)); break;
    case JSON_REAL: msgpack_pack_double(pk, json_real_value(j)); break;
    case JSON_STRING: pack_text(pk, json_string_value(j), json_string_length(j)); break;
    case JSON_ARRAY:
        msgpack_pack_array(pk, json_array_size(j));
        json_array_foreach(j, i, value) pack_value(pk, value);
        break;
    case JSON_OBJECT:
        msgpack_pack_map(pk, json_object_size(j));
        json_object_foreach(j, key, value) {
            pack_text(pk, key, strlen(key));
            pack_value(pk, value);
        }
        break;
    }
}

mr_buf pack_json(const char *json) {
    msgpack_packer pk;
    json_error_t why;
    mr_buf b;
    mr_buf_init(&b, FILE_MAX);
    json_t *j = json_loads(json, 0, &why);
    if (!j) fail_msg("%s: %s", json, why.text);
    msgpack_packer_init(&pk, &b, write_buf);
    pack_value(&pk, j);
    json_decref(j);
    assert_false(b.failed);
    return b;
}

const mr_message_def *find_message(const char *name) {
    for (int i = 0; mr_messages[i]; i++) {
        if (strcmp(mr_messages[i]->name, name) == 0) return mr_messages[i];
    }
    fail_msg("there is no message %s", name);
    return NULL;
}

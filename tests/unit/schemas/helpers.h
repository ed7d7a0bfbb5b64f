/* What the tests of the messages share: files, hex, and JSON turned into msgpack without the codec under test. */
#ifndef SCHEMAS_HELPERS_H
#define SCHEMAS_HELPERS_H

#include "schemas/messages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* The whole file, from the repository's root; freed with mr_buf_done. A failure is an assertion. */
mr_buf read_file(const char *path);
/* Hex digits, line breaks ignored. */
mr_buf from_hex(const char *hex);
/* JSON text as msgpack, packed by msgpack-c alone. */
mr_buf pack_json(const char *json);

const mr_message_def *find_message(const char *name);

#endif

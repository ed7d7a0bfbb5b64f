/* What stands beside a committed offset is from outside: any tool may have put it there. Nothing but our own text of just that
 * offset says anything, and what was written is read as it was. */
#include "base/bus_internal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void must(bool truth) {
    if (!truth) abort();
}

/* Whatever is said to be finished lies behind the committed offset, and within what a text can hold. */
static void read_any(int64_t committed, mr_str text) {
    static mr_finished f;
    bool ours = mr_finished_read(&f, committed, text);
    for (int64_t at = -8; at < 6 * MR_FINISHED_CHARS + 8; at++) {
        bool inside = at >= 0 && at < 6 * MR_FINISHED_CHARS;
        must(!mr_finished_has(&f, committed + at) || (ours && inside));
    }
}

/* Each byte is a record: its distance to the one before, and whether it is finished. */
static void write_and_read(const uint8_t *p, size_t n) {
    static mr_finished f;
    char text[MR_FINISHED_TEXT];
    mr_watermark w = {0};
    int64_t offset = 1000000;
    for (size_t i = 0; i < n; i++) must(mr_watermark_begin(&w, offset += 1 + p[i] / 2 % 16));
    for (size_t i = n; i-- > 0; offset -= 1 + p[i] / 2 % 16) {
        if (p[i] & 1) mr_watermark_finish(&w, offset);
    }
    int64_t low = mr_watermark_low(&w);
    size_t length = (size_t)mr_finished_write(&w, text);
    must(mr_finished_read(&f, low, (mr_str){text, length}) == (length > 0));
    for (size_t i = 0; i < n; i++) {
        offset += 1 + p[i] / 2 % 16;
        bool finished = p[i] & 1, told = offset - low < 6 * MR_FINISHED_CHARS;
        if (offset >= low) must(mr_finished_has(&f, offset) == (finished && told));
    }
    mr_watermark_free(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    read_any(5, (mr_str){(const char *)p, n});
    read_any(INT64_MAX / 2, (mr_str){(const char *)p, n});
    write_and_read(p, n < MR_WATERMARK_WINDOW ? n : MR_WATERMARK_WINDOW);
    return 0;
}

/* A model's file is from outside: whatever is changed in it, it is refused or classifies every text without harm.
 * The input is tried as a file, as changes to a good one whose checksum is set right again, as a message, and as
 * a file of messages. */
#include "router/intent.h"
#include "router/intent_data.h"
#include "router/intent_model.h"
#include "router/intent_train.h"
#include "tests/support/support.h"
#include "text/text_norm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char lines[] =
    "pay\tHow do I pay?\npay\tcan I pay by card\npay\t如何付款\npay\tpay the bill\n"
    "open\twhen do you open\nopen\tare you open now\nopen\t几点开门\nopen\topening hours\n"
    "oos\ttell me a joke\noos\t讲个笑话\noos\tsing a song\noos\twho are you\n";

static char folder[] = "/tmp/millrace-fuzz-XXXXXX", path[100], tsv[100];
static mr_intent *in;
static char *good, *changed;
static size_t good_n;

static void must(int truth) {
    if (!truth) abort();
}

static void remove_files(void) {
    mr_intent_close(in);
    free(good);
    free(changed);
    unlink(path);
    unlink(tsv);
    rmdir(folder);
}

static void make_model(void) {
    static const char *const outside[] = {"oos"};
    mr_intent_train_options o = {
        .seed = 1, .outside = outside, .outside_n = 1, .share_low = 0.2, .share_high = 0.3};
    mr_intent_data d = {0};
    mr_intent_trained trained;
    mr_error err;
    must(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/model", folder);
    snprintf(tsv, sizeof tsv, "%s/data.tsv", folder);
    test_write(tsv, lines, sizeof lines - 1);
    must(mr_intent_data_read(&d, tsv, &err) == 0);
    must(mr_intent_train(&d, NULL, &o, path, &trained, &err) == 0);
    mr_intent_data_done(&d);
    in = mr_intent_open(path, &err);
    must(in != NULL);
    good_n = trained.bytes;
    good = aligned_alloc(64, good_n);
    changed = aligned_alloc(64, good_n);
    FILE *f = fopen(path, "r");
    must(good && changed && f && fread(good, 1, good_n, f) == good_n && fclose(f) == 0);
    atexit(remove_files);
}

static void use_image(const void *bytes, size_t n) {
    mr_intent_image m;
    mr_error err;
    if (mr_intent_image_check(bytes, n, &m, &err) < 0) return;
    mr_intent_scores *s = mr_intent_scores_new(&m, &err);
    must(s != NULL);
    mr_intent_score(&m, MR_STR("how do i pay the bill 几点开门"), s);
    mr_intent_judge(&m, s);
    must(s->best >= 0 && s->best < (int)m.head.labels && s->best_routine < (int)m.head.labels);
    must(strlen(m.text + m.label[s->best].name) < m.head.text);
    mr_intent_scores_free(s);
}

/* Each four bytes of the input: a place, in the header or anywhere, and what is there instead. */
static void check_changed(const uint8_t *data, size_t n) {
    mr_intent_header h;
    memcpy(changed, good, good_n);
    for (size_t i = 0; i + 4 <= n && i < 400; i += 4) {
        size_t at = (size_t)data[i] << 16 | (size_t)data[i + 1] << 8 | data[i + 2];
        changed[data[i] & 0x80 ? at % sizeof h : at % good_n] = (char)data[i + 3];
    }
    memcpy(&h, changed, sizeof h);
    h.bytes = good_n;
    h.checksum = mr_intent_image_checksum(changed, good_n);
    memcpy(changed, &h, sizeof h);
    use_image(changed, good_n);
}

static void check_message(mr_str text) {
    mr_intent_guess g, again;
    mr_error err;
    if (mr_intent_classify(in, text, &g, &err) < 0) return;
    must(g.confidence >= 0 && g.confidence <= 1 && g.probability <= g.confidence);
    must(mr_intent_classify(in, text, &again, &err) == 0 && again.confidence == g.confidence);
}

static void check_data(const uint8_t *data, size_t n) {
    mr_intent_data d = {0};
    mr_error err;
    test_write(tsv, data, n);
    if (mr_intent_data_read(&d, tsv, &err) < 0) must(strstr(err.msg, tsv) != NULL);
    for (int i = 0; i < d.n; i++) must(d.v[i].label < d.labels_n && d.v[i].words.n > 0);
    mr_intent_data_done(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!in) make_model();
    char *copy = aligned_alloc(64, (n + 64) / 64 * 64);
    must(copy != NULL);
    memcpy(copy, data, n);
    use_image(copy, n);
    free(copy);
    check_changed(data, n);
    check_message((mr_str){(const char *)data, n});
    if (n % 32 == 5) check_data(data, n);
    return 0;
}

/* Any text is a question: the knowledge base answers without an error, with scores from 0 to 1 in order, and asking twice
 * gives the same. The text is also a TSV file: what an import takes can be found again. */
#include "router/kb.h"
#include "router/kb_import.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char entries[] = "How do I reset my password?\tBy the link.\n"
                              "What are your opening hours?\tNine to six.\n"
                              "如何重置密码？\t点击忘记密码。\n"
                              "退款\t七天内。\n"
                              "パスワードを忘れました\tリンクから。\n"
                              "비밀번호를 잊었어요\t링크로.\n";

static char folder[] = "/tmp/millrace-fuzz-XXXXXX", db[100], tsv[100], other[100];
static mr_kb *kb;

static void must(int truth) {
    if (!truth) abort();
}

static void write_file(const char *path, const void *p, size_t n) {
    FILE *out = fopen(path, "w");
    must(out && fwrite(p, 1, n, out) == n && fclose(out) == 0);
}

static void remove_files(void) {
    mr_kb_close(kb);
    unlink(db);
    unlink(tsv);
    unlink(other);
    rmdir(folder);
}

static void open_kb(void) {
    mr_error err;
    mr_kb_counts n;
    must(mkdtemp(folder) != NULL);
    snprintf(db, sizeof db, "%s/kb.db", folder);
    snprintf(tsv, sizeof tsv, "%s/kb.tsv", folder);
    snprintf(other, sizeof other, "%s/other.db", folder);
    write_file(tsv, entries, sizeof entries - 1);
    must(mr_kb_import(db, tsv, false, &n, &err) == 0);
    kb = mr_kb_open(db, &err);
    must(kb != NULL);
    atexit(remove_files);
}

static void check_search(mr_str question) {
    mr_kb_hit hits[MR_KB_HITS_MAX], again[MR_KB_HITS_MAX];
    double scores[MR_KB_HITS_MAX];
    mr_error err;
    int n = mr_kb_search(kb, question, hits, MR_KB_HITS_MAX, &err);
    must(n >= 0 && n <= mr_kb_entries(kb));
    for (int i = 0; i < n; i++) {
        scores[i] = hits[i].score;
        must(scores[i] > 0 && scores[i] < 1 + 1e-9 && (i == 0 || scores[i] <= scores[i - 1]));
    }
    must(mr_kb_search(kb, question, again, MR_KB_HITS_MAX, &err) == n);
    for (int i = 0; i < n; i++) must(again[i].score == scores[i]);
}

/* The file system makes this slow; a part of the inputs will do. */
static void check_import(const uint8_t *data, size_t n) {
    mr_error err;
    mr_kb_counts counts;
    write_file(tsv, data, n);
    if (mr_kb_import(other, tsv, true, &counts, &err) < 0) {
        must(strstr(err.msg, tsv) != NULL);
        return;
    }
    mr_kb *made = mr_kb_open(other, &err);
    must(made && mr_kb_entries(made) == counts.total && counts.added == counts.total);
    mr_kb_close(made);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!kb) open_kb();
    check_search((mr_str){(const char *)data, n});
    if (n % 32 == 5) check_import(data, n);
    return 0;
}

/* Any text is a question: the knowledge base answers without an error, with confidences from 0 to 1 in order, and asking
 * twice gives the same; its tokens are those of the text, and their stems no longer than they were. The text is also a TSV
 * and a JSONL file: what an import takes is exported so that importing it again exports the same bytes. */
#include "router/kb.h"
#include "router/kb_answer.h"
#include "router/kb_import.h"
#include "router/kb_text.h"
#include "tests/support/support.h"

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

static char folder[] = "/tmp/millrace-fuzz-XXXXXX", db[100], tsv[100], jsonl[100], other[100];
static mr_kb *kb;

static void must(int truth) {
    if (!truth) abort();
}

static void remove_files(void) {
    mr_kb_close(kb);
    unlink(db);
    unlink(tsv);
    unlink(jsonl);
    unlink(other);
    rmdir(folder);
}

static void open_kb(void) {
    mr_error err;
    mr_kb_counts n;
    must(mkdtemp(folder) != NULL);
    snprintf(db, sizeof db, "%s/kb.db", folder);
    snprintf(tsv, sizeof tsv, "%s/kb.tsv", folder);
    snprintf(jsonl, sizeof jsonl, "%s/kb.jsonl", folder);
    snprintf(other, sizeof other, "%s/other.db", folder);
    test_write(tsv, entries, sizeof entries - 1);
    must(mr_kb_import(db, tsv, false, &n, &err) == 0);
    kb = mr_kb_open(db, &err);
    must(kb != NULL);
    atexit(remove_files);
}

static void check_search(mr_str question) {
    mr_kb_hit hits[MR_KB_HITS_MAX], again[MR_KB_HITS_MAX];
    double confidence[MR_KB_HITS_MAX];
    mr_error err;
    int n = mr_kb_search(kb, question, NULL, hits, MR_KB_HITS_MAX, &err);
    must(n >= 0 && n <= mr_kb_entries(kb));
    for (int i = 0; i < n; i++) {
        confidence[i] = hits[i].confidence;
        must(hits[i].similarity >= 0 && hits[i].similarity <= 1);
        must(confidence[i] >= 0 && confidence[i] <= 1 && (i == 0 || confidence[i] <= confidence[i - 1]));
    }
    must(mr_kb_search(kb, question, NULL, again, MR_KB_HITS_MAX, &err) == n);
    for (int i = 0; i < n; i++) must(again[i].confidence == confidence[i]);
}

static int check_token(void *arg, mr_str token) {
    size_t *room = arg;
    must(token.n > 0 && token.n <= MR_KB_QUESTION_MAX && mr_kb_token_hash(token) != 0 && *room > 0);
    (*room)--;
    return 0;
}

static void check_text(mr_str text) {
    mr_buf out;
    mr_error err;
    size_t room = 2 * text.n + 8;
    if (!mr_str_is_utf8(text) || text.n > MR_KB_QUESTION_MAX) return;
    mr_kb_tokens(text, check_token, &room);
    mr_buf_init(&out, 1 << 20);
    mr_kb_answer_expand(text, &(mr_kb_values){MR_STR("u"), MR_STR("t"), MR_STR("m"), 0}, &out);
    must(!out.failed && mr_str_is_utf8(mr_buf_str(&out)));
    mr_buf_done(&out);
    if (mr_kb_answer_check(text, &err) < 0) must(strstr(err.msg, "is no placeholder") != NULL);
    mr_str title = mr_kb_answer_pick(text, MR_STR("1"));
    must(title.n == 0 || (title.p >= text.p && title.p + title.n <= text.p + text.n));
}

static char *export_all(mr_kb_format format, size_t *n) {
    char *text = NULL;
    mr_error err;
    FILE *out = open_memstream(&text, n);
    must(out && mr_kb_export(other, format, out, &err) == 0 && fclose(out) == 0);
    return text;
}

static void check_again(mr_kb_format format, const char *path, int total) {
    mr_kb_counts counts;
    mr_error err;
    size_t n = 0, m = 0;
    char *text = export_all(format, &n);
    test_write(path, text, n);
    must(mr_kb_import(other, path, true, &counts, &err) == 0 && counts.total == total);
    char *again = export_all(format, &m);
    must(n == m && memcmp(text, again, n) == 0);
    free(text);
    free(again);
}

/* The file system makes this slow; a part of the inputs will do. */
static void check_import(const char *path, const uint8_t *data, size_t n) {
    mr_error err;
    mr_kb_counts counts;
    test_write(path, data, n);
    if (mr_kb_import(other, path, true, &counts, &err) < 0) {
        must(strstr(err.msg, path) != NULL);
        return;
    }
    mr_kb *made = mr_kb_open(other, &err);
    must(made && mr_kb_entries(made) == counts.total);
    mr_kb_close(made);
    check_again(MR_KB_TSV, tsv, counts.total);
    check_again(MR_KB_JSONL, jsonl, counts.total);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!kb) open_kb();
    check_search((mr_str){(const char *)data, n});
    check_text((mr_str){(const char *)data, n});
    bool json = n > 0 && data[0] == '{';
    if (json || n % 32 == 5) check_import(json ? jsonl : tsv, data, n);
    return 0;
}

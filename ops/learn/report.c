/* See report.h. */
#include "ops/learn/report.h"

#include "ops/learn/files.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MONTHS_MAX = 1200, RUNS_BYTES = 64 << 20, MONTH_NAME = 16 };

typedef struct month {
    char name[MONTH_NAME]; /* 2026-11 */
    int64_t chats, from_kb, from_model, good, bad;
    int labelled, right, runs, version;
    mr_retrained last; /* of its last run that trained */
} month;

typedef struct months {
    month v[MONTHS_MAX]; /* ascending */
    int n;
} months;

/* ---- the runs ---- */

int mr_runs_add(const char *path, const mr_learn_run *r, mr_error *err) {
    mr_buf b;
    const mr_retrained *t = &r->trained;
    mr_buf_init(&b, RUNS_BYTES);
    int rc = mr_file_read(path, &b, err);
    if (rc == 0) {
        json_t *line = json_pack(
            "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:b, s:f, s:f, s:f, s:f, s:f, s:f, s:f, "
            "s:f, s:i}",
            "at_ms", (json_int_t)r->at_ms, "from_ms", (json_int_t)r->from_ms, "to_ms", (json_int_t)r->to_ms,
            "chats", (json_int_t)r->chats, "from_kb", (json_int_t)r->from_kb, "from_model",
            (json_int_t)r->from_model, "good", (json_int_t)r->good, "bad", (json_int_t)r->bad, "learned",
            t->learned, "held_out", t->held_out, "standing", t->standing, "trained", (int)t->enough,
            "held_before", t->held_before, "held_after", t->held_after, "standing_before", t->standing_before,
            "standing_after", t->standing_after, "held_error_before", t->held_error_before,
            "held_error_after", t->held_error_after, "standing_error_before", t->standing_error_before,
            "standing_error_after", t->standing_error_after, "version", r->version);
        rc = mr_lines_put(&b, line, err);
    }
    if (rc == 0) rc = mr_file_write(path, mr_buf_str(&b), err);
    mr_buf_done(&b);
    return rc;
}

static int read_end(void *arg, const json_t *line, mr_error *err) {
    (void)err;
    *(int64_t *)arg = mr_line_int(line, "to_ms");
    return 0;
}

int mr_runs_last_end(const char *path, int64_t *to_ms, mr_error *err) {
    *to_ms = 0;
    return mr_lines_read(path, read_end, to_ms, err);
}

/* ---- months ---- */

static month *month_of(months *m, int64_t ms, mr_error *err) {
    char name[MONTH_NAME];
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    if (!gmtime_r(&t, &tm) || strftime(name, sizeof name, "%Y-%m", &tm) == 0) {
        mr_fail(err, MR_EINVAL, "%" PRId64 " is no time", ms);
        return NULL;
    }
    int i = m->n;
    while (i > 0 && strcmp(m->v[i - 1].name, name) > 0) i--;
    if (i > 0 && strcmp(m->v[i - 1].name, name) == 0) return &m->v[i - 1];
    if (m->n == MONTHS_MAX) {
        mr_fail(err, MR_ETOOBIG, "there are more than %d months", MONTHS_MAX);
        return NULL;
    }
    memmove(m->v + i + 1, m->v + i, (size_t)(m->n++ - i) * sizeof m->v[0]);
    memset(&m->v[i], 0, sizeof m->v[i]);
    memcpy(m->v[i].name, name, sizeof name);
    return &m->v[i];
}

static double number(const json_t *line, const char *name) {
    return json_number_value(json_object_get(line, name));
}

/* A run belongs to the month in which its period began. */
static int add_run(void *arg, const json_t *line, mr_error *err) {
    month *m = month_of(arg, mr_line_int(line, "from_ms"), err);
    if (!m) return -1;
    m->runs++;
    m->chats += mr_line_int(line, "chats");
    m->from_kb += mr_line_int(line, "from_kb");
    m->from_model += mr_line_int(line, "from_model");
    m->good += mr_line_int(line, "good");
    m->bad += mr_line_int(line, "bad");
    if (mr_line_int(line, "version") > 0) m->version = (int)mr_line_int(line, "version");
    if (!json_is_true(json_object_get(line, "trained"))) return 0;
    m->last = (mr_retrained){.enough = true,
                             .held_out = (int)mr_line_int(line, "held_out"),
                             .held_before = number(line, "held_before"),
                             .held_after = number(line, "held_after"),
                             .standing_before = number(line, "standing_before"),
                             .standing_after = number(line, "standing_after")};
    return 0;
}

static int add_samples(months *m, const mr_samples *s, mr_error *err) {
    for (int i = 0; i < s->n; i++) {
        month *x = month_of(m, s->v[i].at_ms, err);
        if (!x) return -1;
        x->labelled++;
        x->right += s->v[i].kind == MR_SAMPLE_CONFIRMED;
    }
    return 0;
}

/* ---- the table ---- */

static void print_share(FILE *out, int64_t part, int64_t whole, int width) {
    if (whole > 0) {
        fprintf(out, " %*.1f %%", width - 2, 100.0 * (double)part / (double)whole);
    } else {
        fprintf(out, " %*s", width, "-");
    }
}

static void print_change(FILE *out, const mr_retrained *t, double before, double after) {
    if (t->enough) {
        fprintf(out, "   %5.1f -> %5.1f %%", 100 * before, 100 * after);
    } else {
        fprintf(out, "   %16s", "-");
    }
}

static void print_month(FILE *out, const month *m) {
    fprintf(out, "%-7s %8" PRId64, m->name, m->chats);
    print_share(out, m->from_model, m->from_model + m->from_kb, 9);
    fprintf(out, " %8" PRId64, m->good + m->bad);
    print_share(out, m->good, m->good + m->bad, 7);
    fprintf(out, " %8d", m->labelled);
    print_share(out, m->right, m->labelled, 8);
    print_change(out, &m->last, m->last.held_before, m->last.held_after);
    print_change(out, &m->last, m->last.standing_before, m->last.standing_after);
    if (m->version) {
        fprintf(out, "   version %d\n", m->version);
    } else {
        fprintf(out, "   %s\n", m->last.enough ? "not better" : "-");
    }
}

int mr_report_print(const char *runs_path, const mr_samples *samples, FILE *out, mr_error *err) {
    months *m = calloc(1, sizeof *m);
    if (!m) return mr_fail(err, MR_ENOMEM, "no memory for the report");
    int rc = mr_lines_read(runs_path, add_run, m, err);
    if (rc == 0) rc = add_samples(m, samples, err);
    if (rc == 0) {
        fprintf(out, "%-7s %8s %9s %8s %7s %8s %8s   %16s   %16s   %s\n", "month", "chats", "AI share",
                "ratings", "good", "labelled", "right", "held out", "standing set", "new model");
        for (int i = 0; i < m->n; i++) print_month(out, &m->v[i]);
        if (m->n == 0) fprintf(out, "There was no run of millrace learn yet.\n");
    }
    free(m);
    return rc;
}

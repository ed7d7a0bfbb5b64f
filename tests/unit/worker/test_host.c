/* The engine host as a child process: replaced when it dies, hangs or speaks nonsense; never outlives its supervisor. */
#include "support/support.h"
#include "worker/host.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS 30000

typedef struct fixture {
    mr_loop *loop;
    mr_host *host;
    int ready, lost, loads;
    char why[300], folder[64], pid_file[128];
} fixture;

static void on_ready(void *arg, const mr_frame_ready *f) {
    (void)f;
    ((fixture *)arg)->ready++;
}

static void on_frame(void *arg, const mr_frame *f) {
    if (f->type == MR_FRAME_LOAD) ((fixture *)arg)->loads++;
}

static void on_lost(void *arg, const char *why) {
    fixture *f = arg;
    f->lost++;
    snprintf(f->why, sizeof(f->why), "%s", why);
}

static int setup(void **state) {
    mr_error err;
    fixture *f = calloc(1, sizeof(*f));
    f->loop = mr_loop_new(&err);
    test_folder_init(f->folder);
    snprintf(f->pid_file, sizeof(f->pid_file), "%s/engine.pid", f->folder);
    *state = f;
    return f->loop ? 0 : -1;
}

static int teardown(void **state) {
    fixture *f = *state;
    mr_host_free(f->host);
    mr_loop_free(f->loop);
    test_folder_done(f->folder);
    free(f);
    return 0;
}

static void start(fixture *f, const char *const *argv) {
    mr_error err;
    const mr_host_options opt = {.argv = argv,
                                 .pid_file = f->pid_file,
                                 .step_timeout_ms = 1000,
                                 .start_timeout_ms = 2000,
                                 .ready = on_ready,
                                 .frame = on_frame,
                                 .lost = on_lost,
                                 .arg = f};
    f->host = mr_host_new(&opt, f->loop, &err);
    if (!f->host) fail_msg("%s", err.msg);
}

static void start_simulated(fixture *f) {
    static const char *const argv[] = {SIMULATED_HOST, "--profile", SCRIPTED, "--max-seqs", "4", NULL};
    start(f, argv);
}

static bool is_ready(void *arg) {
    return mr_host_ready(((fixture *)arg)->host);
}
static bool is_lost(void *arg) {
    return ((fixture *)arg)->lost > 0;
}
static bool restarted_thrice(void *arg) {
    return mr_host_restarts(((fixture *)arg)->host) >= 3;
}

static int pid_in_file(const fixture *f) {
    int pid = 0;
    FILE *file = fopen(f->pid_file, "r");
    if (!file) return 0;
    if (fscanf(file, "%d", &pid) != 1) pid = 0;
    fclose(file);
    return pid;
}

static void it_becomes_ready_and_its_pid_is_in_the_file(void **state) {
    fixture *f = *state;
    start_simulated(f);
    assert_true(test_wait(f->loop, WAIT_MS, is_ready, f));
    assert_int_equal(pid_in_file(f), mr_host_pid(f->host));
}

static void replaced_after(fixture *f, int signal_number, const char *why) {
    start_simulated(f);
    assert_true(test_wait(f->loop, WAIT_MS, is_ready, f));
    int old = mr_host_pid(f->host);
    kill(old, signal_number);
    assert_true(test_wait(f->loop, WAIT_MS, is_lost, f));
    if (!strstr(f->why, why)) fail_msg("'%s' does not say '%s'", f->why, why);
    assert_true(test_wait(f->loop, WAIT_MS, is_ready, f));
    assert_int_not_equal(mr_host_pid(f->host), old);
    assert_int_equal(pid_in_file(f), mr_host_pid(f->host));
    assert_int_equal(f->lost, 1);
    assert_int_equal(kill(old, 0), -1);
}

static void one_that_is_killed_is_replaced(void **state) {
    replaced_after(*state, SIGKILL, "");
}
static void one_that_hangs_is_killed_and_replaced(void **state) {
    replaced_after(*state, SIGSTOP, "silent for 1000 ms");
}

static void one_that_stays_quiet_is_not_taken_for_hung_while_its_load_comes(void **state) {
    fixture *f = *state;
    start_simulated(f);
    assert_true(test_wait(f->loop, WAIT_MS, is_ready, f));
    test_idle(f->loop, 1500);
    assert_int_equal(f->lost, 0);
    assert_in_range(f->loads, 3, 8);
}

static void one_that_never_becomes_ready_is_started_again_and_says_why(void **state) {
    fixture *f = *state;
    static const char *const argv[] = {"/bin/sh", "-c", "exit 7", NULL};
    start(f, argv);
    assert_true(test_wait(f->loop, WAIT_MS, restarted_thrice, f));
    assert_false(mr_host_ready(f->host));
    assert_int_equal(f->lost, 0);
    assert_true(*mr_host_why(f->host));
}

static void one_that_speaks_another_language_is_killed(void **state) {
    fixture *f = *state;
    static const char *const argv[] = {"/bin/sh", "-c", "echo 'hello, supervisor' >&3; exec sleep 60", NULL};
    start(f, argv);
    assert_true(test_wait(f->loop, WAIT_MS, restarted_thrice, f));
    assert_non_null(strstr(mr_host_why(f->host), "bytes, expected"));
}

static void it_ends_with_its_supervisor(void **state) {
    fixture *f = *state;
    start_simulated(f);
    assert_true(test_wait(f->loop, WAIT_MS, is_ready, f));
    int pid = mr_host_pid(f->host);
    mr_host_free(f->host);
    f->host = NULL;
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(pid_in_file(f), 0);
}

static bool is_gone(void *arg) {
    return mr_host_gone(((fixture *)arg)->host);
}

static void one_that_is_ended_on_purpose_is_not_lost(void **state) {
    fixture *f = *state;
    start_simulated(f);
    assert_true(test_wait(f->loop, WAIT_MS, is_ready, f));
    int old = mr_host_pid(f->host);
    mr_host_end(f->host, true, "test");
    assert_false(mr_host_ready(f->host));
    assert_true(test_wait(f->loop, WAIT_MS, is_ready, f));
    assert_int_not_equal(mr_host_pid(f->host), old);
    mr_host_end(f->host, false, "test");
    assert_true(test_wait(f->loop, WAIT_MS, is_gone, f));
    assert_int_equal(mr_host_pid(f->host), 0);
    assert_int_equal(f->lost, 0);
}

static bool is_looping(void *arg) {
    return mr_host_looping(((fixture *)arg)->host);
}

static void one_that_dies_again_and_again_is_called_a_crash_loop(void **state) {
    fixture *f = *state;
    static const char *const argv[] = {"/bin/sh", "-c", "exit 7", NULL};
    start(f, argv);
    assert_false(mr_host_looping(f->host));
    assert_true(test_wait(f->loop, WAIT_MS, is_looping, f));
    assert_in_range(mr_host_restarts(f->host), 6, 8);
}

/* Dead, or a zombie: an orphan is buried by init, where there is one. */
static bool is_dead(void *arg) {
    int pid = *(int *)arg;
    char path[64], line[256] = "";
    if (kill(pid, 0) != 0) return true;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *stat = fopen(path, "r");
    if (!stat) return true;
    bool zombie = fgets(line, sizeof(line), stat) && strstr(line, ") Z");
    fclose(stat);
    return zombie;
}

/* A supervisor that is killed has no time to say goodbye. */
static void it_dies_when_its_supervisor_is_killed(void **state) {
    fixture *f = *state;
    int report[2], pid = 0;
    assert_int_equal(pipe(report), 0);
    pid_t supervisor = fork();
    if (supervisor == 0) {
        mr_error err;
        f->loop = mr_loop_new(&err);
        start_simulated(f);
        test_wait(f->loop, WAIT_MS, is_ready, f);
        pid = mr_host_pid(f->host);
        if (write(report[1], &pid, sizeof(pid)) != sizeof(pid)) _exit(1);
        pause();
    }
    assert_int_equal(read(report[0], &pid, sizeof(pid)), sizeof(pid));
    assert_int_equal(kill(pid, 0), 0);
    kill(supervisor, SIGKILL);
    waitpid(supervisor, NULL, 0);
    assert_true(test_wait(f->loop, WAIT_MS, is_dead, &pid));
    close(report[0]);
    close(report[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    test_log_init();
    const struct CMUnitTest tests[] = {
        TEST(it_becomes_ready_and_its_pid_is_in_the_file),
        TEST(one_that_is_killed_is_replaced),
        TEST(one_that_hangs_is_killed_and_replaced),
        TEST(one_that_stays_quiet_is_not_taken_for_hung_while_its_load_comes),
        TEST(one_that_never_becomes_ready_is_started_again_and_says_why),
        TEST(one_that_speaks_another_language_is_killed),
        TEST(one_that_is_ended_on_purpose_is_not_lost),
        TEST(one_that_dies_again_and_again_is_called_a_crash_loop),
        TEST(it_ends_with_its_supervisor),
        TEST(it_dies_when_its_supervisor_is_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

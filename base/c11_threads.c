/* C11 threads over POSIX threads, for builds with ThreadSanitizer only.
 *
 * librdkafka uses C11 threads, and gcc's ThreadSanitizer knows nothing of glibc's: the first malloc of such a thread would
 * crash. These definitions stand in front of glibc's, and take the way that the sanitizer watches. They rely on glibc's
 * types being the POSIX ones under another name. */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

_Static_assert(sizeof(mtx_t) >= sizeof(pthread_mutex_t), "mtx_t holds a pthread_mutex_t");
_Static_assert(sizeof(cnd_t) >= sizeof(pthread_cond_t), "cnd_t holds a pthread_cond_t");
_Static_assert(sizeof(thrd_t) == sizeof(pthread_t), "thrd_t is a pthread_t");

static int result(int err) {
    switch (err) {
    case 0: return thrd_success;
    case ENOMEM: return thrd_nomem;
    case ETIMEDOUT: return thrd_timedout;
    case EBUSY: return thrd_busy;
    default: return thrd_error;
    }
}

/* ---- threads ---- */

typedef struct start {
    thrd_start_t run;
    void *arg;
} start;

static void *run_thread(void *arg) {
    start s = *(start *)arg;
    free(arg);
    return (void *)(intptr_t)s.run(s.arg);
}

int thrd_create(thrd_t *t, thrd_start_t run, void *arg) {
    start *s = malloc(sizeof(*s));
    if (!s) return thrd_nomem;
    *s = (start){run, arg};
    int err = pthread_create((pthread_t *)t, NULL, run_thread, s);
    if (err) free(s);
    return result(err);
}

int thrd_join(thrd_t t, int *value) {
    void *returned = NULL;
    int err = pthread_join((pthread_t)t, &returned);
    if (!err && value) *value = (int)(intptr_t)returned;
    return result(err);
}

/* ---- mutexes ---- */

int mtx_init(mtx_t *m, int type) {
    pthread_mutexattr_t a;
    int err = pthread_mutexattr_init(&a);
    if (err) return result(err);
    if (type & mtx_recursive) pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
    err = pthread_mutex_init((pthread_mutex_t *)m, &a);
    pthread_mutexattr_destroy(&a);
    return result(err);
}

void mtx_destroy(mtx_t *m) {
    pthread_mutex_destroy((pthread_mutex_t *)m);
}

int mtx_lock(mtx_t *m) {
    return result(pthread_mutex_lock((pthread_mutex_t *)m));
}

int mtx_unlock(mtx_t *m) {
    return result(pthread_mutex_unlock((pthread_mutex_t *)m));
}

/* ---- conditions ---- */

int cnd_init(cnd_t *c) {
    return result(pthread_cond_init((pthread_cond_t *)c, NULL));
}

void cnd_destroy(cnd_t *c) {
    pthread_cond_destroy((pthread_cond_t *)c);
}

int cnd_signal(cnd_t *c) {
    return result(pthread_cond_signal((pthread_cond_t *)c));
}

int cnd_broadcast(cnd_t *c) {
    return result(pthread_cond_broadcast((pthread_cond_t *)c));
}

int cnd_wait(cnd_t *c, mtx_t *m) {
    return result(pthread_cond_wait((pthread_cond_t *)c, (pthread_mutex_t *)m));
}

int cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m, const struct timespec *restrict until) {
    return result(pthread_cond_timedwait((pthread_cond_t *)c, (pthread_mutex_t *)m, until));
}

/* ---- what the sanitizer cannot know ---- */

const char *__tsan_default_suppressions(void);

/* librdkafka is not instrumented: the atomic counters that order its memory are not seen, its calls to free(), memcpy()
 * and of the functions above are. */
const char *__tsan_default_suppressions(void) {
    return "called_from_lib:librdkafka.so.1\nrace:librdkafka.so.1\n";
}

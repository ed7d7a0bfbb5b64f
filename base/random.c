/* A stock of the system's random bytes for each thread; see random.h. */
#include "base/random.h"

#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* getrandom gives up to 256 bytes at once or none at all. */
static _Thread_local struct {
    unsigned char v[256];
    size_t left;
    pid_t of; /* a child must not draw what its parent draws as well */
} stock;

bool mr_random(void *out, size_t n) {
    if (n > MR_RANDOM_MAX) return false;
    if (stock.left < n || stock.of != getpid()) {
        stock.left = 0;
        if (getrandom(stock.v, sizeof stock.v, 0) != (ssize_t)sizeof stock.v) return false;
        stock.left = sizeof stock.v;
        stock.of = getpid();
    }
    stock.left -= n;
    memcpy(out, stock.v + stock.left, n);
    memset(stock.v + stock.left, 0, n); /* what was given out is nowhere else */
    return true;
}

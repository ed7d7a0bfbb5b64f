/* A TCP proxy between processes and a server, which holds back, delays or loses what passes, one way or both: a network that is
 * cut or bad, for tests without a right to change the machine's own.
 *
 * What is lost is seen as TCP shows it: nothing is missing, it comes later, and all that follows with it. A way that is held
 * keeps what is in it, ends of connections too, and gives it when it is opened again; connections that are made meanwhile
 * are accepted, and hear nothing.
 *
 * It works on a thread of its own. Settings may be changed at any time, and hold for what comes from then on.
 */
#ifndef MR_TEST_PROXY_H
#define MR_TEST_PROXY_H

typedef enum {
    PROXY_NONE = 0,
    PROXY_UP = 1,
    PROXY_DOWN = 2,
    PROXY_BOTH = 3
} proxy_ways; /* up: to the server */

typedef struct test_proxy test_proxy;

/* On a free port of 127.0.0.1, for the server at another one. A failure fails the test. */
test_proxy *test_proxy_start(int server_port);
int test_proxy_port(const test_proxy *p);
void test_proxy_hold(test_proxy *p, proxy_ways ways);
void test_proxy_delay(test_proxy *p, int ms);      /* each way */
void test_proxy_lose(test_proxy *p, int per_cent); /* of what passes, and is sent again later */
void test_proxy_stop(test_proxy *p);

#endif

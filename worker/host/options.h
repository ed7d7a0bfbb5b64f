/* The command line of millrace-engine-host. */
#ifndef MR_HOST_OPTIONS_H
#define MR_HOST_OPTIONS_H

#include "worker/host/engine_host.h"

/* Fills *out from argv. Returns -1 to go on, or the exit status when the process is to end now (0 after --help, 2
 * after a wrong flag, said on stderr). */
int mr_engine_host_options_parse(int argc, char **argv, mr_engine_host_options *out);

#endif

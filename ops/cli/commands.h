/* The commands of `millrace` that are not programs of their own. Each gets its own name as argv[0] and returns the
 * exit status: 0, 1 for a failure that was said on stderr, 2 for a wrong command line. */
#ifndef MR_CLI_COMMANDS_H
#define MR_CLI_COMMANDS_H

int cmd_up(int argc, char **argv);
int cmd_topics(int argc, char **argv);
int cmd_kb(int argc, char **argv);
int cmd_intent(int argc, char **argv);
int cmd_learn(int argc, char **argv); /* more exit statuses: its --help */
int cmd_keys(int argc, char **argv);
int cmd_profile(int argc, char **argv);
int cmd_tail(int argc, char **argv);
int cmd_replay(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_rollout(int argc, char **argv); /* more exit statuses: its --help */
int cmd_recycle(int argc, char **argv);

#endif

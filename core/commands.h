/* The verbs. Each parses its own arguments (argv[0] is the verb) and returns the exit code: 0
 * success, 1 a failure while running (of coin also: INVALID), 2 bad input. */
#ifndef FAIRWAY_COMMANDS_H
#define FAIRWAY_COMMANDS_H

int cmd_run(int argc, char **argv);
int cmd_train(int argc, char **argv);
int cmd_pack(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_submit(int argc, char **argv);
int cmd_plugins(int argc, char **argv);
int cmd_data(int argc, char **argv);
int cmd_prove(int argc, char **argv);
int cmd_coin(int argc, char **argv);
int cmd_doctor(int argc, char **argv);

#endif

/* fairway: argv -> verb. The table below is the program's table of contents. */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cache_child.h"
#include "cache_process.h"
#include "commands.h"
#include "params.h"
#include "waiting.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
};

static int cmd_help(int argc, char **argv);

static const struct command commands[] = {
    {"run", cmd_run, "train, average, pack, reload and score, as an INI file says"},
    {"train", cmd_train, "train only, and save the weights"},
    {"pack", cmd_pack, "pack saved weights into an artifact"},
    {"eval", cmd_eval, "score an artifact on tokens or text"},
    {"generate", cmd_generate, "go on with a text, token by token"},
    {"check", cmd_check, "probe a cache, or an artifact: can its score be trusted?"},
    {"compare", cmd_compare, "finished runs against a reference: differences and p-values"},
    {"submit", cmd_submit, "make a record folder of a finished run"},
    {"plugins", cmd_plugins, "list plugins and their parameters"},
    {"data", cmd_data, "turn text or JSONL into token shards, or describe shards"},
    {"prove", cmd_prove, "decode a text from a file that model and cache wrote, in a jail"},
    {"coin", cmd_coin, "write uniformly random tokens, or judge a score on such tokens"},
    {"doctor", cmd_doctor, "what this machine has, and what to install for the rest"},
    {"help", cmd_help, "this list, or the help of one verb"},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_usage(FILE *out) {
    (void)fputs("Fairway " FAIRWAY_VERSION
                ": trains, packs and scores tiny language models; every part is a plugin.\n\n"
                "usage: fairway VERB [arguments]\n\n",
                out);
    for (int i = 0; i < N_COMMANDS; i++)
        (void)fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].summary);
    (void)fputs(
        "\nStart with:  fairway run configs/quickstart.ini\n"
        "Then swap a part by one key:  fairway run configs/quickstart.ini "
        "--set attention.plugin=xsa\n"
        "`fairway VERB --help` explains a verb, `fairway plugins -v` every plugin's keys.\n",
        out);
}

static const struct command *find_command(const char *name) {
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static int no_verb(const char *name) {
    const char *names[N_COMMANDS];
    for (int i = 0; i < N_COMMANDS; i++) names[i] = commands[i].name;
    const char *near = nearest_name(name, names, N_COMMANDS);
    if (near != NULL)
        (void)fprintf(stderr, "fairway: there is no verb \"%s\"; did you mean %s?\n", name, near);
    else
        (void)fprintf(stderr, "fairway: there is no verb \"%s\"; `fairway help` lists them\n",
                      name);
    return 2;
}

static int cmd_help(int argc, char **argv) {
    const bool own = argc < 2 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0;
    const struct command *command = own ? NULL : find_command(argv[1]);
    if (!own && command == NULL) return no_verb(argv[1]);
    if (own || command->run == cmd_help) {
        print_usage(stdout);
        return 0;
    }
    char help[] = "--help";
    char *arguments[] = {argv[1], help, NULL};
    return command->run(2, arguments);
}

/* Results that could not be written to standard output are lost: say so. */
static int close_output(int code) {
    if (fflush(stdout) == 0 && ferror(stdout) == 0) return code;
    (void)fprintf(stderr, "fairway: standard output cannot be written: %s\n", strerror(errno));
    return code != 0 ? code : 2;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], CACHE_CHILD_VERB) == 0)
        return cache_child_main(argc - 1, argv + 1);
    waiting_limit_spinning(argv);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGCHLD, SIG_DFL); /* how children end is asked for, whoever started this one */
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return close_output(cmd_help(1, argv + 1));
    if (strcmp(argv[1], "--version") == 0) {
        (void)puts("fairway " FAIRWAY_VERSION);
        return 0;
    }
    const struct command *command = find_command(argv[1]);
    if (command != NULL) return close_output(command->run(argc - 1, argv + 1));
    return no_verb(argv[1]);
}

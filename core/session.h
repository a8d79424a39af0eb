/* What a verb opens before it can work: registry, configuration, host and device, tokenizer,
 * corpora. */
#ifndef FAIRWAY_SESSION_H
#define FAIRWAY_SESSION_H

#include "arguments.h"
#include "corpus.h"
#include "host.h"
#include "log.h"
#include "progress.h"
#include "token_table.h"

#define CHECKPOINT_NAME "checkpoint.fw"

struct session {
    struct registry *registry;
    struct config *config;
    const struct experiment *experiment;
    struct host *host;
    const fw_host *services;
    const fw_tokenizer *tokenizer;
    void *tokenizer_self;
    struct token_table *table;
    struct corpus *training, *validation;
    struct log *log;
    struct progress progress;
    double deadline; /* of the phase at work, by clock_seconds; 0: none */
};

/* Registry, configuration (from the INI `path`, or from `text` under that name), host and device.
 * `bind` as for config_resolve. On failure everything is closed again. */
fw_status session_open(const struct arguments *arguments, const char *path, const char *text,
                       uint32_t bind, struct session *session, fw_error *error);

/* session_open in two steps, for whoever has something to do in between: the first reads the
 * configuration and loads the code of plugins, the second creates host and device, unless they are
 * there. */
fw_status session_bind(const struct arguments *arguments, const char *path, const char *text,
                       uint32_t bind, struct session *session, fw_error *error);
fw_status session_start(struct session *session, fw_error *error);

/* The configured tokenizer and its token table. E_CONFIG: not of model.vocabulary tokens. */
fw_status session_open_tokenizer(struct session *session, fw_error *error);

/* [data] train and validation; the latter from validation or, with hold_out_every, from train. */
fw_status session_open_training(struct session *session, fw_error *error);
fw_status session_open_validation(struct session *session, fw_error *error);

/* Create the run directory, remove an earlier run's results from it, write the resolved INI and
 * open the log. To resume, the results stay and the log goes on. A checkpoint stays in either case,
 * until the run writes its own: it carries the settings that it belongs to. */
fw_status session_open_directory(struct session *session, const char *log_name, bool resume,
                                 fw_error *error);

/* DIRECTORY/NAME of the run, in a static buffer that the next call overwrites. */
const char *session_path(const struct session *session, const char *name);

void session_close(struct session *session);

#endif

/* A record folder in the challenge's form, made of a finished run directory: README.md,
 * submission.json, a log for each seed, the artifact, the sources (fairway.tar.xz) and
 * train_gpt.py, which builds and starts Fairway with the run's INI. */
#ifndef FAIRWAY_SUBMISSION_H
#define FAIRWAY_SUBMISSION_H

#include "results.h"

/* Most bytes of model and code together, by the challenge's rule. */
#define SUBMISSION_LIMIT 16000000

struct submission {
    /* As asked for; texts, never NULL. */
    const char *run, *output;
    const char *name, *author, *github, *blurb, *date, *track;
    /* From the run. */
    struct results *results; /* by the receipts themselves */
    const char *score;       /* the name of the score that stands for the record */
    char *ini;               /* with marks for what depends on the machine */
    double tokens;           /* that the score is about; 0: unknown */
    /* Of the files written. */
    char code_sha256[65];
    size_t bundle_bytes, script_bytes, model_bytes; /* the last: the largest of all seeds */
};

/* resolved.ini -> text for any machine: no output, data below @DATA@, the tokenizer's file
 * @TOKENIZER@, plugins that are named by path @PLUGINS@/FILE. E_CONFIG for any other path, which a
 * record folder could not carry. Caller frees. */
fw_status submission_ini(const char *path, char **ini, fw_error *error);

/* The text of core/train_gpt.py, which the build turns into an array. */
extern const char train_gpt_script[];

/* The texts of the folder; the caller frees them. E_MEMORY. */
fw_status submission_script(const struct submission *submission, char **text, fw_error *error);
fw_status submission_json(const struct submission *submission, char **text, fw_error *error);
fw_status submission_readme(const struct submission *submission, char **text, fw_error *error);

/* Make the folder. Errors: E_NOT_FOUND for what the run lacks; E_FORMAT when a file is not the one
 * that the receipt speaks of; E_CONFIG when no score counts, or the output is not empty; E_LIMIT
 * when model and code are larger than SUBMISSION_LIMIT. Then no folder is left behind. */
fw_status submission_make(struct submission *submission, fw_error *error);
void submission_free(struct submission *submission);

#endif

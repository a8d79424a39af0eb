/* fairway submit: a record folder of a finished run. */
#include <string.h>
#include <time.h>

#include "arguments.h"
#include "commands.h"
#include "submission.h"

static const char help[] =
    "usage: fairway submit RUN --output DIR [--name TEXT] [--author TEXT] [--github ID]\n"
    "                      [--blurb TEXT] [--date YYYY-MM-DD] [--track NAME]\n\n"
    "Makes the challenge's record folder of a finished run directory, of one seed or of several:\n"
    "  README.md         the result, how to run it, the bytes, every key of the experiment\n"
    "  submission.json   author, name, val_bpb, val_loss, seeds, bytes\n"
    "  train_seedN.log   the log of each seed\n"
    "  model.fairway     the artifact (of the first seed)\n"
    "  fairway.tar.xz    the sources of the program and of the plugins in use, as the run kept "
    "them\n"
    "  train_gpt.py      builds and starts Fairway with the run's INI, with Python's own library\n"
    "                    alone; its --help says how\n\n"
    "Every file is held against the receipt. val_bpb is the best score that counts: never one\n"
    "that is INVALID or counts targets several times. Bytes are counted from the files on disk:\n"
    "artifact, fairway.tar.xz and train_gpt.py must stay within 16,000,000.\n\n"
    "examples\n"
    "  fairway submit runs/mine --output record --name 'My record' --author 'A. Name' --github "
    "aname\n"
    "  python3 record/train_gpt.py --dry-run\n"
    "  python3 record/train_gpt.py --data fineweb10B_sp1024 --tokenizer fineweb_1024_bpe.model\n";

static void print_folder(const struct submission *submission) {
    const size_t code = submission->bundle_bytes + submission->script_bytes;
    (void)printf("%s: %zu run%s, scored as %s\n"
                 "  model %zu + sources %zu + train_gpt.py %zu = %zu bytes of %d\n",
                 submission->output, submission->results->n, submission->results->n == 1 ? "" : "s",
                 submission->score, submission->model_bytes, submission->bundle_bytes,
                 submission->script_bytes, submission->model_bytes + code, SUBMISSION_LIMIT);
    if (submission->author[0] == '\0' || submission->github[0] == '\0')
        (void)puts("  author or github_id is empty in submission.json: --author and --github");
    (void)printf("try it: python3 %s/train_gpt.py --dry-run\n", submission->output);
}

/* YYYY-MM-DD, and a day that there is. */
static fw_status check_date(const char *date, fw_error *error) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year = 0, month = 0, day = 0, end = 0;
    if (strlen(date) == 10 && strspn(date, "0123456789-") == 10 &&
        sscanf(date, "%4d-%2d-%2d%n", &year, &month, &day, &end) == 3 && end == 10 && month >= 1 &&
        month <= 12) {
        const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        if (day >= 1 && day <= days[month - 1] + (month == 2 && leap ? 1 : 0)) return FW_OK;
    }
    return fw_fail(error, FW_E_CONFIG, "--date %s: is no day written as YYYY-MM-DD", date);
}

static fw_status check(const struct arguments *arguments, const struct submission *submission,
                       fw_error *error) {
    if (arguments->input == NULL)
        return fw_fail(error, FW_E_CONFIG,
                       "no run directory is given, such as `fairway submit runs/mine --output "
                       "record`");
    if (submission->output == NULL)
        return fw_fail(error, FW_E_CONFIG, "--output DIR is missing: where the record goes");
    return check_date(submission->date, error);
}

int cmd_submit(int argc, char **argv) {
    char today[16] = "";
    const time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) != NULL) (void)strftime(today, sizeof today, "%Y-%m-%d", &utc);
    struct submission submission = {.name = "",
                                    .author = "",
                                    .github = "",
                                    .blurb = "",
                                    .date = today,
                                    .track = "non_record_16mb"};
    const struct option options[] = {
        {"--output", &submission.output, NULL}, {"--name", &submission.name, NULL},
        {"--author", &submission.author, NULL}, {"--github", &submission.github, NULL},
        {"--blurb", &submission.blurb, NULL},   {"--date", &submission.date, NULL},
        {"--track", &submission.track, NULL},   {NULL, NULL, NULL}};
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    fw_status status = arguments_parse(argc, argv, options, &arguments, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    if (status == FW_OK) status = check(&arguments, &submission, &error);
    submission.run = arguments.input;
    if (status == FW_OK) status = submission_make(&submission, &error);
    if (status == FW_OK) print_folder(&submission);
    submission_free(&submission);
    return report_failure(status, &error);
}

/* Evaluation cases: the losses of record 993's own evaluation; see case_eval_stream.h. */
#include <math.h>
#include <stdio.h>

#include "case_eval_stream.h"
#include "cases.h"

static const char *const arrays[] = {"tokens", "lut/base_bytes", "lut/leading_space",
                                     "lut/boundary", "token_bytes_of_targets"};

static bool recognise(const struct folder *folder) {
    return folder_find(folder, "token_bytes_of_targets") != NULL;
}

/* The tolerances are absolute, in nats a token and bits a byte. */
static void print_line(void *argument, const struct eval_stream_line *line) {
    struct verdicts *verdicts = argument;
    char text[64];
    (void)snprintf(text, sizeof text, "%.8f nats, %.8f bpb", line->loss, line->bpb);
    verdict_line(verdicts, line->name, text,
                 fmax(fabs(line->loss - line->expected_loss), fabs(line->bpb - line->expected_bpb)),
                 EVAL_STREAM_TOLERANCE);
}

static fw_status run(struct folder *folder, const struct case_options *options,
                     struct verdicts *verdicts, fw_error *error) {
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        (void)folder_take(folder, arrays[i]);
    FW_TRY(case_eval_stream(folder->path, options->arguments, print_line, verdicts, error));
    if (verdicts->lines > 0) return FW_OK;
    return fw_fail(error, FW_E_FORMAT, "%s/results.txt: there is no line in it", folder->path);
}

const struct case_kind case_eval = {
    "eval_stream", "tokens, results.txt: sliding and hashed-cache losses of a synthetic model",
    recognise, run};

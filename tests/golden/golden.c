/* Holds the program against recorded numbers: runs whatever case it finds in each folder, prints a
 * table of the largest errors, and exits with 1 past a tolerance. */
#include <stdio.h>
#include <string.h>

#include "cases.h"

/* A new kind of case is a line here. */
static const struct case_kind *const kinds[] = {&case_model, &case_quantize, &case_newton_schulz,
                                                &case_eval};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

static void print_help(void) {
    (void)printf(
        "usage: golden DIR... [--device cpu|cuda] [--plugin-dir DIR] [--set SECTION.KEY=VALUE]\n"
        "\n"
        "Runs the recorded cases in the directories, prints for each quantity the largest\n"
        "relative error and its tolerance, and exits with 0 when all are within it, with 1 when\n"
        "one is past it, and with 2 when a directory cannot be read or holds no known case.\n"
        "\n"
        "A directory has manifest.txt, a line \"name dtype rank dims... offset\" for each array,\n"
        "and data.bin, little-endian, in C order. Every array has to belong to a case:\n"
        "\n");
    for (int i = 0; i < N_KINDS; i++) (void)printf("  %-14s %s\n", kinds[i]->name, kinds[i]->what);
    (void)printf(
        "\n"
        "options\n"
        "  --device NAME     device plugin, cpu unless given; one that computes in bfloat16 has\n"
        "                    wider tolerances\n"
        "  --plugin-dir DIR  search plugins here first\n"
        "  --set S.K=VALUE   override a key of the model cases' configuration\n"
        "\n"
        "example\n"
        "  golden tests/golden/model_tiny ../shared/golden/*\n");
}

static fw_status run_cases(struct folder *folder, const struct case_options *options,
                           struct verdicts *all, fw_error *error) {
    int n = 0;
    for (int i = 0; i < N_KINDS; i++) {
        if (!kinds[i]->recognise(folder)) continue;
        struct verdicts verdicts = {0};
        (void)printf("%s: %s\n", folder->path, kinds[i]->name);
        const fw_status status = kinds[i]->run(folder, options, &verdicts, error);
        all->lines += verdicts.lines;
        all->failures += verdicts.failures;
        FW_TRY(status);
        n++;
    }
    if (n == 0)
        return fw_fail(error, FW_E_FORMAT,
                       "%s holds no case that is known here; --help lists what there is",
                       folder->path);
    return folder_all_used(folder, error);
}

static fw_status run_folder(const char *path, const struct case_options *options,
                            struct verdicts *all, fw_error *error) {
    struct folder folder;
    FW_TRY(folder_open(path, &folder, error));
    const fw_status status = run_cases(&folder, options, all, error);
    folder_close(&folder);
    return status;
}

int main(int argc, char **argv) {
    struct arguments arguments;
    const char *device = "cpu";
    const struct option options[] = {{"--device", &device, NULL}, {NULL, NULL, NULL}};
    fw_error error = {.struct_size = sizeof error};
    fw_status status = arguments_parse_many(argc, argv, options, &arguments, &error);
    if (status == FW_OK && arguments.help) return print_help(), 0;
    if (status == FW_OK && arguments.n_inputs == 0)
        status = fw_fail(&error, FW_E_ARGUMENT, "no directory is given; --help says what they are");
    const struct case_options case_options = {device, &arguments};
    struct verdicts all = {0};
    int unread = 0;
    for (size_t i = 0; status == FW_OK && i < arguments.n_inputs; i++) {
        /* The next directories still run: one report says all that is wrong. */
        if (run_folder(arguments.inputs[i], &case_options, &all, &error) == FW_OK) continue;
        (void)fprintf(stderr, "golden: %s\n", error.message);
        unread++;
    }
    if (status != FW_OK) return (void)fprintf(stderr, "golden: %s\n", error.message), 2;
    (void)printf("%d quantities, %d past their tolerance\n", all.lines, all.failures);
    if (unread > 0) (void)printf("directories that could not be run: %d\n", unread);
    return unread > 0 ? 2 : all.failures > 0 ? 1 : 0;
}

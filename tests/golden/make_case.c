/* golden_make DIR [KEY=VALUE...]: writes a model case of any shape, in the format of the recorded
 * ones, with random weights and what the float64 reference makes of them. */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "random_case.h"

static const char defaults[] =
    "vocab = 48\nlayers = 3\ndim = 32\nheads = 4\nkv = 2\nmlp = 2.0\nbigram_slots = 20\n"
    "bigram_dim = 8\nxsa = 3\nrope_dims = 4\nve_dim = 8\nve_layers = 1,2\nbatch = 2\nseq = 24\n"
    "seed = 7\n";

/* Replace the line of KEY in the text of config.txt, or add one. */
static int set_key(char *text, size_t size, const char *setting) {
    const char *equals = strchr(setting, '=');
    if (equals == NULL) return 0;
    const size_t length = (size_t)(equals - setting);
    char *copy = malloc(size);
    if (copy == NULL) abort();
    size_t used = 0;
    for (const char *line = text; *line != '\0';) {
        const size_t n = strcspn(line, "\n") + 1;
        if (strncmp(line, setting, length) != 0 || line[length] != ' ')
            memcpy(copy + used, line, n), used += n;
        line += n;
    }
    const int added =
        snprintf(copy + used, size - used, "%.*s = %s\n", (int)length, setting, equals + 1);
    (void)memcpy(text, copy, used + (size_t)added + 1);
    free(copy);
    return 1;
}

/* data.bin and manifest.txt, written side by side. */
struct writer {
    FILE *data, *manifest;
    long offset;
};

static void write_array(struct writer *w, const char *name, const char *dtype, uint32_t rank,
                        const int64_t *shape, const void *data, size_t bytes) {
    (void)fprintf(w->manifest, "%s %s %u", name, dtype, rank);
    for (uint32_t i = 0; i < rank; i++) (void)fprintf(w->manifest, " %lld", (long long)shape[i]);
    (void)fprintf(w->manifest, " %ld\n", w->offset);
    static const char zeros[16];
    const size_t padding = (16 - bytes % 16) % 16;
    (void)fwrite(data, 1, bytes, w->data);
    (void)fwrite(zeros, 1, padding, w->data);
    w->offset += (long)(bytes + padding);
}

static void write_floats(struct writer *w, const char *name, uint32_t rank, const int64_t *shape,
                         const double *values, int64_t n) {
    float *single = calloc((size_t)n, sizeof *single);
    if (single == NULL) abort();
    for (int64_t i = 0; i < n; i++) single[i] = (float)values[i];
    write_array(w, name, "f32", rank, shape, single, (size_t)n * sizeof *single);
    free(single);
}

static void write_scalar(struct writer *w, const char *name, double value) {
    const int64_t one = 1;
    write_array(w, name, "f64", 1, &one, &value, sizeof value);
}

static void write_group(struct writer *w, const struct reference *r, const char *group,
                        bool gradients) {
    for (uint32_t i = 0; i < r->n_tensors; i++) {
        const struct reference_tensor *t = &r->tensor[i];
        char name[96];
        (void)snprintf(name, sizeof name, "%s/%s", group, t->name);
        write_floats(w, name, t->rank, t->shape, gradients ? t->gradient : t->value, t->count);
    }
}

/* The step takes gradients as they are recorded, in float32. */
static void round_gradients(struct reference *r) {
    for (uint32_t i = 0; i < r->n_tensors; i++)
        for (int64_t j = 0; j < r->tensor[i].count; j++)
            r->tensor[i].gradient[j] = (double)(float)r->tensor[i].gradient[j];
}

static void write_case(struct writer *w, struct reference *r, const int32_t *inputs,
                       const int32_t *targets) {
    const struct shape *s = &r->shape;
    const int64_t tokens[] = {s->batch, s->seq, s->vocab};
    const size_t n = (size_t)(s->batch * s->seq);
    write_array(w, "input_ids", "i32", 2, tokens, inputs, n * sizeof *inputs);
    write_array(w, "target_ids", "i32", 2, tokens, targets, n * sizeof *targets);
    write_group(w, r, "param", false);
    write_scalar(w, "loss", reference_forward(r, inputs, targets));
    write_floats(w, "logits", 3, tokens, r->logits, (int64_t)n * s->vocab);
    reference_backward(r);
    write_group(w, r, "grad", true);
    round_gradients(r);
    write_scalar(w, "grad_norm", reference_step(r));
    write_group(w, r, "after_step", false);
    write_scalar(w, "loss_after_step", reference_forward(r, inputs, targets));
}

static FILE *create(const char *folder, const char *name) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL) (void)fprintf(stderr, "golden_make: %s: %s\n", path, strerror(errno));
    return file;
}

static int write_folder(const char *folder, const char *config, const struct shape *shape) {
    (void)mkdir(folder, 0777);
    FILE *text = create(folder, "config.txt");
    struct writer writer = {create(folder, "data.bin"), create(folder, "manifest.txt"), 0};
    if (text == NULL || writer.data == NULL || writer.manifest == NULL) return 2;
    (void)fputs(config, text);
    int32_t *tokens = calloc((size_t)(2 * shape->batch * shape->seq), sizeof *tokens);
    if (tokens == NULL) abort();
    struct reference *reference = random_case(shape, tokens);
    write_case(&writer, reference, tokens, tokens + shape->batch * shape->seq);
    reference_destroy(reference);
    free(tokens);
    const int failed = fclose(text) | fclose(writer.data) | fclose(writer.manifest);
    if (failed != 0) (void)fprintf(stderr, "golden_make: %s: %s\n", folder, strerror(errno));
    return failed != 0 ? 2 : 0;
}

int main(int argc, char **argv) {
    char config[4096];
    (void)strcpy(config, defaults);
    if (argc < 2 || argv[1][0] == '-') {
        (void)printf(
            "usage: golden_make DIR [KEY=VALUE...]\n\n"
            "Writes a random model case into DIR for the program golden. Unless given:\n%s",
            defaults);
        return argc < 2 ? 2 : 0;
    }
    for (int i = 2; i < argc; i++)
        if (strlen(config) + strlen(argv[i]) + 8 > sizeof config ||
            !set_key(config, sizeof config, argv[i])) {
            (void)fprintf(stderr, "golden_make: \"%s\" is not KEY=VALUE\n", argv[i]);
            return 2;
        }
    struct shape shape;
    fw_error error = {.struct_size = sizeof error};
    if (shape_parse("golden_make", config, &shape, &error) != FW_OK) {
        (void)fprintf(stderr, "%s\n", error.message);
        return 2;
    }
    return write_folder(argv[1], config, &shape);
}

/* core/weights_file: saved weights come back bit for bit; files cut short, damaged, foreign or of
 * another model are refused with the reason. */
#include <session.h>
#include <stdio.h>
#include <weights_file.h>

#include "workspace.h"

enum { VOCABULARY = 37 };

static fw_error error = {.struct_size = sizeof error};
static const uint8_t file_magic[8] = {'F', 'W', 'W', 'E', 'I', 'G', 'H', 'T'};

struct fixture {
    struct session session;
    struct model *model;
    float *raw, *averaged; /* host arenas */
    fw_token_info infos[VOCABULARY];
    struct token_table table;
};

static size_t arena_bytes(const struct fixture *f) {
    return (size_t)model_arena_count(f->model) * sizeof(float);
}

/* Random numbers in every weight; padding stays zero, as the format does not hold it. */
static float *random_arena(const struct model *model, uint64_t seed) {
    float *arena = calloc((size_t)model_arena_count(model), sizeof *arena);
    assert_non_null(arena);
    test_random random = {seed};
    for (uint32_t i = 0; i < model_n_weights(model); i++) {
        const fw_tensor view = model_view(model, arena, i);
        float *data = view.data;
        for (int64_t j = 0; j < fw_tensor_count(&view); j++) data[j] = (float)test_normal(&random);
    }
    return arena;
}

static void open_fixture(struct fixture *f, const char *model_keys) {
    char ini[512];
    (void)snprintf(ini, sizeof ini,
                   "[model]\n%s\n[attention]\nplugin = gqa\nheads = 4\nkv_heads = 2\n"
                   "rope_dims = 4\n",
                   model_keys);
    const struct arguments arguments = {0};
    const uint32_t kinds = CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_ATTENTION);
    assert_ok(session_open(&arguments, "weights test", ini, kinds, &f->session, &error), &error);
    const struct model_options options = {.experiment = f->session.experiment,
                                          .host = f->session.services,
                                          .vocabulary = VOCABULARY,
                                          .batch = 1,
                                          .tokens = 8};
    assert_ok(model_create(&options, &f->model, &error), &error);
    f->raw = random_arena(f->model, 1);
    f->averaged = random_arena(f->model, 2);
    for (uint16_t i = 0; i < VOCABULARY; i++)
        f->infos[i] = (fw_token_info){.struct_size = sizeof f->infos[i],
                                      .base_bytes = (uint16_t)(i * 11), /* two bytes of it */
                                      .leading_space = i % 2,
                                      .boundary = i % 3 == 0};
    f->table = (struct token_table){
        .vocabulary = VOCABULARY, .begin_token = 3, .fingerprint = {1, 2, 3}, .tokens = f->infos};
}

static void close_fixture(struct fixture *f) {
    free(f->raw);
    free(f->averaged);
    model_destroy(f->model);
    session_close(&f->session);
}

static const char small_keys[] = "layers = 2\nwidth = 16\nmlp_width = 24";

static void save(const struct fixture *f, const char *path) {
    assert_ok(weights_save(path, f->model, &f->table, "0123abcd", f->raw, f->averaged, &error),
              &error);
}

static void test_round_trip(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f, small_keys);
    save(&f, "w");
    assert_string_equal(listing(), "w ");
    struct weights_file *file;
    assert_ok(weights_open("w", &file, &error), &error);
    for (int averaged = 0; averaged < 2; averaged++) {
        float *arena = calloc(1, arena_bytes(&f));
        assert_non_null(arena);
        assert_ok(weights_read(file, f.model, averaged == 1, arena, &error), &error);
        assert_memory_equal(arena, averaged == 1 ? f.averaged : f.raw, arena_bytes(&f));
        free(arena);
    }
    const struct token_table *table = weights_table(file);
    assert_int_equal(table->vocabulary, VOCABULARY);
    assert_int_equal(table->begin_token, 3);
    assert_memory_equal(table->fingerprint, f.table.fingerprint, 32);
    for (uint32_t i = 0; i < VOCABULARY * VOCABULARY; i++)
        assert_int_equal(token_table_bytes(table, i / VOCABULARY, i % VOCABULARY),
                         token_table_bytes(&f.table, i / VOCABULARY, i % VOCABULARY));
    weights_close(file);
    weights_close(NULL);
    close_fixture(&f);
}

static void refuse(const void *data, size_t size, fw_status expected, const char *why) {
    struct weights_file *file = NULL;
    write_bytes("bad", data, size);
    assert_fails(weights_open("bad", &file, &error), expected, &error, "bad: ", why);
    assert_null(file);
}

static void test_truncated(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f, small_keys);
    save(&f, "w");
    size_t size;
    char *data = read_bytes("w", &size);
    for (size_t length = 0; length < size; length += length < 200 || size - length < 100 ? 1 : 499)
        refuse(data, length, length < 44 ? FW_E_FORMAT : FW_E_CHECKSUM,
               length < 44 ? "not a file of Fairway weights" : "truncated or damaged");
    free(data);
    close_fixture(&f);
}

/* Bits of magic and version have their own sentences; every other one is found by the checksum. */
static void test_flipped_bits(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f, small_keys);
    save(&f, "w");
    size_t size;
    char *data = read_bytes("w", &size);
    for (size_t bit = 0; bit < 8 * size; bit += bit < 8 * 200 ? 1 : 4001) {
        const size_t byte = bit / 8;
        data[byte] = (char)(data[byte] ^ (1 << bit % 8));
        if (byte < 8)
            refuse(data, size, FW_E_FORMAT, "not a file of Fairway weights");
        else if (byte < 12)
            refuse(data, size, FW_E_FORMAT, "weights of format version");
        else
            refuse(data, size, FW_E_CHECKSUM, "truncated or damaged");
        data[byte] = (char)(data[byte] ^ (1 << bit % 8));
    }
    free(data);
    close_fixture(&f);
}

static void test_foreign(void **state) {
    (void)state;
    char zeros[100] = {0};
    struct weights_file *file = NULL;
    refuse("", 0, FW_E_FORMAT, "not a file of Fairway weights");
    refuse("[run]\nsteps = 5\n", 16, FW_E_FORMAT, "not a file of Fairway weights");
    refuse(zeros, sizeof zeros, FW_E_FORMAT, "not a file of Fairway weights");
    memcpy(zeros, file_magic, sizeof file_magic);
    zeros[8] = 9;
    refuse(zeros, sizeof zeros, FW_E_FORMAT, "format version 9; this program reads 1");
    assert_fails(weights_open("none", &file, &error), FW_E_IO, &error, "none");
    assert_null(file);
}

/* Read the small model's weights into another: it must fail so. */
static void refuse_other_model(const char *keys, const char *part, const char *other) {
    struct fixture f;
    open_fixture(&f, keys);
    struct weights_file *file;
    assert_ok(weights_open("w", &file, &error), &error);
    float *arena = calloc(1, arena_bytes(&f));
    assert_non_null(arena);
    assert_fails(weights_read(file, f.model, false, arena, &error), FW_E_SHAPE, &error, part,
                 other);
    for (int64_t i = 0; i < model_arena_count(f.model); i++) assert_true(arena[i] == 0);
    free(arena);
    weights_close(file);
    close_fixture(&f);
}

static void test_another_model(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f, small_keys);
    save(&f, "w");
    /* The tensors whose shapes differ, found here rather than written down. */
    struct fixture wider;
    open_fixture(&wider, "layers = 2\nwidth = 16\nmlp_width = 32");
    assert_int_equal(model_n_weights(f.model), model_n_weights(wider.model));
    uint32_t first = 0;
    while (memcmp(model_weight(f.model, first)->shape, model_weight(wider.model, first)->shape,
                  sizeof model_weight(f.model, first)->shape) == 0)
        first++;
    char expected[256];
    (void)snprintf(expected, sizeof expected, "tensor %u is not the configured model's %s", first,
                   model_weight(wider.model, first)->name);
    close_fixture(&wider);
    close_fixture(&f);
    refuse_other_model("layers = 2\nwidth = 16\nmlp_width = 32", "w: ", expected);
    refuse_other_model("layers = 2\nwidth = 32\nmlp_width = 24", "w: tensor 0 ", "embedding");
    refuse_other_model("layers = 3\nwidth = 16\nmlp_width = 24", "w: holds", "tensors");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip), TEST(test_truncated),     TEST(test_flipped_bits),
        TEST(test_foreign),    TEST(test_another_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

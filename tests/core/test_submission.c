/* The parts of a record that can be held against what they should be without a run: the portable
 * INI, and the tar of sources. The rest is tests/e2e/submit.sh. */
#include "code_bundle.h"
#include "submission.h"
#include "support.h"
#include "workspace.h"

static void check_ini(const char *from, const char *expected) {
    fw_error error = {.struct_size = sizeof error};
    char *ini = NULL;
    write_text("resolved.ini", from);
    assert_ok(submission_ini("resolved.ini", &ini, &error), &error);
    assert_string_equal(ini, expected);
    free(ini);
}

static void places(void **state) {
    (void)state;
    check_ini("[run]\nname = x\noutput = /home/me/runs/x\nseed = 3\n\n"
              "[data]\ntrain = /data/fineweb/fineweb_train_*.bin\n"
              "validation = /data/fineweb/fineweb_val_*.bin\n\n"
              "[tokenizer]\nplugin = sentencepiece\nmodel = /data/tok/1024.model\n",
              "[run]\nname = x\nseed = 3\n\n"
              "[data]\ntrain = @DATA@/fineweb_train_*.bin\n"
              "validation = @DATA@/fineweb_val_*.bin\n\n"
              "[tokenizer]\nplugin = sentencepiece\nmodel = @TOKENIZER@\n");
    check_ini("[compress]\nplugin = /home/me/compressor-own.so:own\nlevel = 3\n",
              "[compress]\nplugin = @PLUGINS@/compressor-own.so:own\nlevel = 3\n");
    check_ini("[run]\ndevice = /opt/device-mine.so\n",
              "[run]\ndevice = @PLUGINS@/device-mine.so\n");
    check_ini("[attention.0]\nplugin = gqa\n", "[attention.0]\nplugin = gqa\n");
}

/* The directory that all sources share, whatever their kinds and patterns. */
static void data_places(void **state) {
    (void)state;
    check_ini("[data]\ntrain = text:/d/en/*.txt jsonl:/d/fr/x.jsonl\nvalidation = /d/en/v.bin\n",
              "[data]\ntrain = text:@DATA@/en/*.txt jsonl:@DATA@/fr/x.jsonl\n"
              "validation = @DATA@/en/v.bin\n");
    check_ini("[data]\ntrain = /d/*/t.bin\nvalidation =\n",
              "[data]\ntrain = @DATA@/*/t.bin\nvalidation =\n");
    check_ini("[data]\ntrain = /abc/t.bin\nvalidation = /abd/v.bin\n",
              "[data]\ntrain = @DATA@/abc/t.bin\nvalidation = @DATA@/abd/v.bin\n");
    check_ini("[data]\ntrain =\nvalidation = text:/d/t[0-9].txt\nsequence = 64\n",
              "[data]\ntrain =\nvalidation = text:@DATA@/t[0-9].txt\nsequence = 64\n");
}

static void other_paths(void **state) {
    (void)state;
    fw_error error = {.struct_size = sizeof error};
    char *ini = NULL;
    write_text("resolved.ini", "[quantize]\ntable = /home/me/table.bin\n");
    assert_fails(submission_ini("resolved.ini", &ini, &error), FW_E_CONFIG, &error, "resolved.ini",
                 "[quantize] table = /home/me/table.bin", "carries no file");
    assert_null(ini);
}

/* A tar of one file "a" with the byte 'x', made by bundle_put_binary and renamed. */
static void bundles(void **state) {
    (void)state;
    struct bytes one = {0}, two = {0};
    bundle_put_binary(&one, "a.so", (const uint8_t *)"x", 1);
    assert_int_equal(one.size, 1024);
    assert_string_equal((char *)one.data, "binaries/a.so");
    assert_string_equal((char *)one.data + 124, "00000000001");
    unsigned sum = 0;
    for (size_t i = 0; i < 512; i++) sum += i >= 148 && i < 156 ? ' ' : one.data[i];
    assert_int_equal(strtoul((char *)one.data + 148, NULL, 8), sum);
    bundle_end(&one);
    assert_int_equal(one.size, 2048);
    /* Joined, the end marks between the parts go. */
    assert_true(bundle_put_tar(&two, one.data, one.size));
    assert_true(bundle_put_tar(&two, one.data, one.size));
    assert_int_equal(two.size, 2048);
    assert_memory_equal(two.data, two.data + 1024, 1024);
    /* Zeros at the end of a file are the file's, not the end mark's. */
    struct bytes zeros = {0}, three = {0};
    bundle_put_binary(&zeros, "table", (const uint8_t[1024]){0}, 1024);
    bundle_end(&zeros);
    assert_true(bundle_put_tar(&three, zeros.data, zeros.size));
    assert_int_equal(three.size, 1536);
    assert_false(bundle_put_tar(&three, zeros.data, 1024)); /* cut short */
    assert_int_equal(three.size, 1536);
    bytes_free(&zeros);
    bytes_free(&three);
    /* What is no tar is not taken. */
    uint8_t other[1024] = {'P', 'K'};
    assert_false(bundle_put_tar(&two, other, sizeof other));
    assert_false(bundle_put_tar(&two, one.data, 1000));
    assert_false(bundle_put_tar(&two, one.data, 0));
    assert_int_equal(two.size, 2048);
    bytes_free(&one);
    bytes_free(&two);
}

#define in_workspace(test)                                                                         \
    cmocka_unit_test_setup_teardown(test, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        in_workspace(places),
        in_workspace(data_places),
        in_workspace(other_paths),
        cmocka_unit_test(bundles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Parameters: parsing, ranges, canonical text, broken tables, suggestions. */
#include "params.h"

#include <math.h>

#include "workspace.h"

static fw_error error = {.struct_size = sizeof error};

static const fw_param integer =
    FW_PARAM_RANGE(FW_PARAM_INT, "heads", "8", -5, 64000000, "heads", "query heads");
static const fw_param real = FW_PARAM_RANGE(FW_PARAM_FLOAT, "rate", "0.1", 0, 1e6, "", "rate");
static const fw_param flag = FW_PARAM_PLAIN(FW_PARAM_BOOL, "on", "yes", "flag");
static const char *const shapes[] = {"round", "square", NULL};
static const fw_param choice = FW_PARAM_CHOICE("shape", "round", shapes, "shape");
static const fw_param free_integer = FW_PARAM_PLAIN(FW_PARAM_INT, "n", "0", "any integer");

static int64_t parsed(const fw_param *param, const char *text) {
    fw_value value = {0};
    assert_ok(param_parse(param, text, &value, &error), &error);
    return value.integer;
}

static void refused(const fw_param *param, const char *text, fw_status status, const char *part) {
    fw_value value = {.integer = 77};
    assert_fails(param_parse(param, text, &value, &error), status, &error, param->key, part);
    assert_int_equal(value.integer, 77);
}

static void integers(void **state) {
    (void)state;
    assert_int_equal(parsed(&integer, "12"), 12);
    assert_int_equal(parsed(&integer, "-5"), -5);
    assert_int_equal(parsed(&integer, "+7"), 7);
    assert_int_equal(parsed(&integer, "3K"), 3000);
    assert_int_equal(parsed(&integer, "64M"), 64000000);
    assert_int_equal(parsed(&free_integer, "2G"), 2000000000);
    assert_int_equal(parsed(&free_integer, "-9223372036854775808"), INT64_MIN);
    refused(&integer, "64000001", FW_E_RANGE, "-5 to 64000000 heads");
    refused(&integer, "65M", FW_E_RANGE, "65M is out of range");
    static const char *const wrong[] = {"1.5", "12k", "K", "-", "1 2", "0x10", "1KK", "", "1e3"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        refused(&integer, wrong[i], FW_E_CONFIG, wrong[i]);
    refused(&free_integer, "9223372036854775808", FW_E_RANGE, "64 bits");
    refused(&free_integer, "9223372036854775G", FW_E_RANGE, "64 bits");
}

static void reals(void **state) {
    (void)state;
    fw_value value;
    assert_ok(param_parse(&real, "2.5e-3", &value, &error), &error);
    assert_true(value.real == 2.5e-3);
    refused(&real, "-1e-9", FW_E_RANGE, "0 to 1000000");
    static const char *const wrong[] = {"nan", "inf", "1e999", "1,5", "0.1x", "", " 1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        refused(&real, wrong[i], FW_E_CONFIG, wrong[i]);
}

static void flags_and_choices(void **state) {
    (void)state;
    static const char *const yes[] = {"yes", "true", "on", "1"};
    static const char *const no[] = {"no", "false", "off", "0"};
    for (int i = 0; i < 4; i++) assert_int_equal(parsed(&flag, yes[i]), 1);
    for (int i = 0; i < 4; i++) assert_int_equal(parsed(&flag, no[i]), 0);
    refused(&flag, "maybe", FW_E_CONFIG, "yes");
    refused(&flag, "YES", FW_E_CONFIG, "YES");
    assert_int_equal(parsed(&choice, "square"), 1);
    refused(&choice, "squire", FW_E_CONFIG, "did you mean 'square'");
    refused(&choice, "oval", FW_E_CONFIG, "round|square");
}

static void round_trip(const fw_param *param, fw_value value, const char *expected) {
    char text[64];
    (void)param_format(param, &value, text, sizeof text);
    assert_string_equal(text, expected);
    fw_value again;
    assert_ok(param_parse(param, text, &again, &error), &error);
    assert_memory_equal(&again, &value, sizeof value);
}

static void canonical_text(void **state) {
    (void)state;
    round_trip(&flag, (fw_value){.integer = 1}, "yes");
    round_trip(&choice, (fw_value){.integer = 1}, "square");
    round_trip(&free_integer, (fw_value){.integer = INT64_MIN}, "-9223372036854775808");
    round_trip(&real, (fw_value){.real = 0.1}, "0.1");
    round_trip(&real, (fw_value){.real = 1.0 / 3.0}, "0.3333333333333333");
    round_trip(&real, (fw_value){.real = 0.1 + 0.2}, "0.30000000000000004");
    round_trip(&real, (fw_value){.real = 5e-324}, "5e-324");
    char small[3];
    assert_int_equal(param_format(&free_integer, &(fw_value){.integer = 12345}, small, 3), 5);
    assert_string_equal(small, "12");
}

static void ranges(void **state) {
    (void)state;
    static const fw_param open = FW_PARAM_RANGE(FW_PARAM_INT, "a", "1", 0, INFINITY, "", "doc");
    char text[64];
    (void)param_range(&integer, text, sizeof text);
    assert_string_equal(text, "-5 to 64000000");
    (void)param_range(&open, text, sizeof text);
    assert_string_equal(text, "at least 0");
    (void)param_range(&flag, text, sizeof text);
    assert_string_equal(text, "yes|no");
    assert_int_equal(param_range(&choice, text, 4), (int)strlen("round|square"));
    assert_string_equal(text, "rou");
    (void)param_range(&free_integer, text, sizeof text);
    assert_string_equal(text, "");
}

static void broken(fw_param param, const char *part) {
    const fw_param table[] = {integer, param};
    assert_fails(params_check(table, 2, &error), FW_E_CONFIG, &error, part);
}

static void broken_tables(void **state) {
    (void)state;
    const fw_param good[] = {integer, real, flag, choice};
    assert_ok(params_check(good, 4, &error), &error);
    assert_ok(params_check(NULL, 0, &error), &error);
    assert_fails(params_check(NULL, 3, &error), FW_E_CONFIG, &error, "no table");
    assert_fails(params_check(good, 1001, &error), FW_E_CONFIG, &error, "1001");
    broken(integer, "twice");
    fw_param p = real;
    p.key = "Rate";
    broken(p, "lower case");
    p.key = NULL;
    broken(p, "key of parameter 1");
    p = real, p.key = "plugin";
    broken(p, "'plugin'");
    p = real, p.doc = "";
    broken(p, "description");
    p = real, p.type = 9;
    broken(p, "type 9");
    p = real, p.default_text = "2e6";
    broken(p, "2e6 is out of range");
    p = choice, p.choices = NULL;
    broken(p, "no choices");
    p = real, p.struct_size = 12;
    broken(p, "12 bytes");
    p = real, p.default_text = NULL; /* required is fine */
    assert_ok(params_check(&p, 1, &error), &error);
}

static void suggestions(void **state) {
    (void)state;
    static const char *const known[] = {"learning_rate", "momentum", "beta1", "beta2", "steps"};
    assert_string_equal(nearest_name("learning_rte", known, 5), "learning_rate");
    assert_string_equal(nearest_name("momentmu", known, 5), "momentum");
    assert_string_equal(nearest_name("beta3", known, 5), "beta1"); /* the first of equals */
    assert_null(nearest_name("zebra", known, 5));
    assert_null(nearest_name("", known, 5));
    assert_null(nearest_name("x", known, 5));
    char huge[4096];
    memset(huge, 'a', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    assert_null(nearest_name(huge, known, 5));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers),
        cmocka_unit_test(reals),
        cmocka_unit_test(flags_and_choices),
        cmocka_unit_test(canonical_text),
        cmocka_unit_test(ranges),
        cmocka_unit_test(broken_tables),
        cmocka_unit_test(suggestions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* run.seeds: what is read, and what every wrong list is told. */
#include "seeds.h"
#include "support.h"
#include "workspace.h"

static void lists(void **state) {
    (void)state;
    fw_error error = {.struct_size = sizeof error};
    int64_t seeds[MAX_SEEDS] = {7};
    size_t n = 9;
    assert_ok(seeds_parse("", "a.ini:3", seeds, &n, &error), &error);
    assert_int_equal(n, 0);
    assert_ok(seeds_parse("  ", "a.ini:3", seeds, &n, &error), &error);
    assert_int_equal(n, 0);
    assert_ok(seeds_parse("1337, 42,2024", "a.ini:3", seeds, &n, &error), &error);
    assert_int_equal(n, 3);
    assert_true(seeds[0] == 1337 && seeds[1] == 42 && seeds[2] == 2024);
    assert_ok(seeds_parse(" \t0 ", "a.ini:3", seeds, &n, &error), &error);
    assert_true(n == 1 && seeds[0] == 0);
    assert_ok(seeds_parse("999999999999999", "a.ini:3", seeds, &n, &error), &error);
    assert_true(n == 1 && seeds[0] == INT64_C(999999999999999));
}

static void refuse(const char *text, fw_status status, const char *part, const char *other) {
    fw_error error = {.struct_size = sizeof error};
    int64_t seeds[MAX_SEEDS] = {7};
    size_t n = 9;
    assert_fails(seeds_parse(text, "a.ini:3", seeds, &n, &error), status, &error, "a.ini:3: ", part,
                 other);
    assert_true(n == 9 && seeds[0] == 7); /* untouched */
}

static void wrong_lists(void **state) {
    (void)state;
    refuse("1, 2, 1", FW_E_CONFIG, "seed 1 occurs twice", "items 1 and 3");
    refuse("5,05", FW_E_CONFIG, "seed 5 occurs twice", "items 1 and 2");
    refuse("1,,2", FW_E_CONFIG, "item 2 is empty", "comma");
    refuse("1,", FW_E_CONFIG, "item 2 is empty", "comma");
    refuse(", 1", FW_E_CONFIG, "item 1 is empty", "comma");
    refuse(",", FW_E_CONFIG, "item 1 is empty", "comma");
    refuse("1, two", FW_E_CONFIG, "\"two\" is no seed", "whole number");
    refuse("1 2", FW_E_CONFIG, "\"1 2\" is no seed", "whole number");
    refuse("-1", FW_E_CONFIG, "\"-1\" is no seed", "from 0");
    refuse("1.5", FW_E_CONFIG, "\"1.5\" is no seed", "whole number");
    refuse("0x10", FW_E_CONFIG, "\"0x10\" is no seed", "whole number");
    refuse("1000000000000000", FW_E_CONFIG, "is no seed", "999999999999999");
    refuse("99999999999999999999999999", FW_E_CONFIG, "is no seed", "whole number");
}

static void many(void **state) {
    (void)state;
    char text[1024] = "0";
    for (int i = 1; i < MAX_SEEDS; i++)
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), ",%d", i);
    fw_error error = {.struct_size = sizeof error};
    int64_t seeds[MAX_SEEDS];
    size_t n = 0;
    assert_ok(seeds_parse(text, "a.ini:3", seeds, &n, &error), &error);
    assert_int_equal(n, MAX_SEEDS);
    assert_int_equal(seeds[MAX_SEEDS - 1], MAX_SEEDS - 1);
    (void)strcat(text, ",64");
    refuse(text, FW_E_LIMIT, "more than 64 seeds", "run.seeds");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),
        cmocka_unit_test(wrong_lists),
        cmocka_unit_test(many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

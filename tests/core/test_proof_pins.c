/* Pins: each that differs is named, with what it is here, and numbers with what they were. */
#include "proof_pins.h"

#include "workspace.h"

static fw_error error = {.struct_size = sizeof error};

static struct proof_pins example(void) {
    return (struct proof_pins){
        .n = 3,
        .items = {
            {"device model", false, "a processor", "it can be decoded on such a device alone"},
            {"threads", true, "2", "give the same --set run.threads"},
            {"cache plugin", false, "ngram 1.0.0, SHA-256 12ab", "name the other one"}}};
}

static struct proof_file coded(const struct proof_pins *pins) {
    struct proof_file file = {.n_pins = pins->n};
    for (uint32_t i = 0; i < pins->n; i++) file.pins[i] = proof_pin_code(&pins->items[i]);
    return file;
}

static void test_codes(void **state) {
    (void)state;
    const struct proof_pins pins = example();
    assert_int_equal(proof_pin_code(&pins.items[1]), 2);
    /* SHA-256 of "a processor" begins with a7 92. */
    assert_int_equal(proof_pin_code(&pins.items[0]), 0x92a7);
    assert_int_not_equal(proof_pin_code(&pins.items[0]), proof_pin_code(&pins.items[2]));
    assert_string_equal(proof_pin_value(&pins, "threads"), "2");
    assert_string_equal(proof_pin_value(&pins, "phase of the moon"), "");
}

static void test_what_differs_is_named(void **state) {
    (void)state;
    const struct proof_pins here = example();
    const struct proof_file file = coded(&here);
    assert_ok(proof_pins_compare(&here, &file, &error), &error);
    struct proof_pins there = here;
    (void)strcpy(there.items[1].value, "16");
    assert_fails(proof_pins_compare(&there, &file, &error), FW_E_CONFIG, &error,
                 "threads: 2 when it was written, 16 here; give the same --set run.threads");
    for (uint32_t i = 0; i < here.n; i += 2) {
        there = here;
        (void)strcat(there.items[i].value, "!");
        assert_fails(proof_pins_compare(&there, &file, &error), FW_E_CONFIG, &error,
                     there.items[i].name, there.items[i].value, there.items[i].remedy);
    }
    there = here;
    there.n = 2;
    assert_fails(proof_pins_compare(&there, &file, &error), FW_E_FORMAT, &error,
                 "it has 3 pins, this program's files have 2");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_codes),
                                       cmocka_unit_test(test_what_differs_is_named)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The device's driver: what it says about itself, memory, copies, and that the table of ops is
 * whole. */
#include "harness.h"

#include <math.h>

static const fw_device_driver *driver(void) {
    const char *id = getenv("FAIRWAY_TEST_DEVICE");
    return test_plugin(FW_DEVICE, id != NULL ? id : "cpu")->vtable;
}

static void test_describe(void **state) {
    (void)state;
    fw_error error = {.struct_size = sizeof error};
    uint32_t count = 0;
    assert_int_equal(driver()->count(&count, &error), FW_OK);
    assert_true(count >= 1);
    fw_device_info info = {.struct_size = sizeof info};
    assert_int_equal(driver()->describe(0, &info, &error), FW_OK);
    assert_int_equal(info.type, device->type);
    assert_true(strlen(info.name) > 0 && strlen(info.libraries) > 0);
    assert_true(info.memory_bytes > (uint64_t)1 << 28);
    print_message("%s; %s\n", info.name, info.libraries);
    assert_int_equal(driver()->describe((int32_t)count, &info, &error), FW_E_NOT_FOUND);
    assert_int_equal(driver()->describe(-1, &info, &error), FW_E_NOT_FOUND);
}

static void test_ops_are_whole(void **state) {
    (void)state;
    assert_int_equal(device->ops->struct_size, sizeof(fw_ops));
    const size_t first = offsetof(fw_ops, gemm), n = (sizeof(fw_ops) - first) / sizeof(void *);
    void *members[sizeof(fw_ops) / sizeof(void *)];
    memcpy(members, (const char *)device->ops + first, sizeof(fw_ops) - first);
    for (size_t i = 0; i < n; i++) assert_non_null(members[i]);
}

static void test_memory(void **state) {
    (void)state;
    const size_t sizes[] = {0, 1, 257, (size_t)5 << 20};
    fw_error error = {.struct_size = sizeof error};
    for (int i = 0; i < 4; i++) {
        void *memory = NULL;
        assert_int_equal(device->allocate(device, sizes[i], &memory, &error), FW_OK);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 256, 0);
        device->release(device, memory);
    }
    void *untouched = &error;
    assert_int_equal(device->allocate(device, SIZE_MAX - 4096, &untouched, &error), FW_E_MEMORY);
    assert_ptr_equal(untouched, &error);
    device->release(device, NULL);
}

static void test_copies(void **state) {
    (void)state;
    array *a = make_random(1000, FW_F32, 1.0), *b = make_poison(1000, FW_F32);
    fw_error error = {.struct_size = sizeof error};
    assert_int_equal(device->copy(device, b->memory, a->memory, 4000, &error), FW_OK);
    expect_close("copy", b, a->host, 0.0);
    assert_int_equal(device->zero(device, b->memory, 2000, &error), FW_OK);
    assert_int_equal(device->synchronize(device, &error), FW_OK);
    for (int i = 0; i < 500; i++) a->host[i] = 0.0;
    expect_close("zero", b, a->host, 0.0);
    assert_int_equal(device->copy(device, NULL, NULL, 0, &error), FW_OK);
    assert_int_equal(device->copy(device, NULL, a->memory, 4, &error), FW_E_ARGUMENT);
}

/* The same product on one thread and on three: rows of c are whole on one thread either way. */
static void test_threads(void **state) {
    (void)state;
    if (device->type != FW_CPU) skip();
    fw_error error = {.struct_size = sizeof error};
    array *x = make_random(300 * 64, FW_F32, 1.0), *out = make_poison(300 * 300, FW_F32);
    const fw_gemm g = {.struct_size = sizeof g,
                       .transpose_b = 1,
                       .alpha = 1.0f,
                       .a = fw_matrix(x->memory, FW_F32, 300, 64),
                       .b = fw_matrix(x->memory, FW_F32, 300, 64),
                       .c = fw_matrix(out->memory, FW_F32, 300, 300)};
    RUN(gemm, &g);
    fetch(out);
    double *want = make_values(out->host, out->n, FW_F32)->host;
    for (int64_t threads = 1; threads <= 3; threads += 2) {
        fw_device *other = NULL;
        const fw_value value = {.integer = threads};
        assert_int_equal(driver()->create(test_host(NULL), &value, 0, &other, &error), FW_OK);
        poison(out);
        assert_int_equal(other->ops->gemm(other, &g, &error), FW_OK);
        expect_close("gemm", out, want, 1e-6);
        driver()->destroy(other);
    }
    fw_device *none = NULL;
    const fw_value value = {.integer = 1};
    assert_int_equal(driver()->create(test_host(NULL), &value, 7, &none, &error), FW_E_NOT_FOUND);
    assert_null(none);
}

int main(void) {
    const struct CMUnitTest tests[] = {OP_TEST(test_describe), OP_TEST(test_ops_are_whole),
                                       OP_TEST(test_memory), OP_TEST(test_copies),
                                       OP_TEST(test_threads)};
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}

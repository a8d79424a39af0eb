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

/* From linear_activation on ops are optional. */
static void test_ops_are_whole(void **state) {
    (void)state;
    const size_t first = offsetof(fw_ops, gemm), end = offsetof(fw_ops, linear_activation_saved);
    assert_true(device->ops->struct_size >= end);
    void *members[sizeof(fw_ops) / sizeof(void *)];
    memcpy(members, (const char *)device->ops + first, end - first);
    for (size_t i = 0; i < (end - first) / sizeof(void *); i++) assert_non_null(members[i]);
    const bool has[] = {FW_HAS(device->ops, linear_activation_saved),
                        FW_HAS(device->ops, linear_activation_forward),
                        FW_HAS(device->ops, linear_activation_backward)};
    assert_true(has[0] == has[1] && has[1] == has[2]);
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

/* ---- what is optional since 0.3 ---- */

static void must(fw_status status, const fw_error *error) {
    if (status != FW_OK) fail_msg("%s", error->message);
}

static bool has_fences(void) {
    return FW_HAS(device, fence_create) && FW_HAS(device, fence_destroy) &&
           FW_HAS(device, fence_record) && FW_HAS(device, fence_wait);
}

static bool has_host_memory(void) {
    return FW_HAS(device, allocate_host) && FW_HAS(device, release_host) &&
           FW_HAS(device, copy_to_host_async);
}

static void test_fences(void **state) {
    (void)state;
    if (!has_fences()) skip();
    fw_error error = {.struct_size = sizeof error};
    void *fence = NULL;
    must(device->fence_create(device, &fence, &error), &error);
    must(device->fence_wait(device, fence, &error), &error); /* never recorded */
    array *a = make_random(1000, FW_F32, 1.0), *b = make_poison(1000, FW_F32);
    for (int i = 0; i < 3; i++) {
        must(device->copy(device, b->memory, a->memory, 4000, &error), &error);
        must(device->fence_record(device, fence, &error), &error);
        must(device->fence_wait(device, fence, &error), &error);
        must(device->fence_wait(device, fence, &error), &error);
    }
    expect_close("copy", b, a->host, 0.0);
    device->fence_destroy(device, fence);
}

/* There and back through memory that copies do not wait for; two copies are on their way at once.
 */
static void test_copies_that_do_not_wait(void **state) {
    (void)state;
    if (!has_fences() || !has_host_memory()) skip();
    enum { N = 1 << 20, HALF = N / 2 };
    fw_error error = {.struct_size = sizeof error};
    void *fence = NULL, *memory = NULL;
    must(device->fence_create(device, &fence, &error), &error);
    must(device->allocate_host(device, 2 * N * sizeof(float), &memory, &error), &error);
    float *from = memory, *to = from + N;
    for (int i = 0; i < N; i++) from[i] = (float)i, to[i] = -1.0f;
    array *a = make_poison(N, FW_F32);
    const size_t half = HALF * sizeof(float);
    char *there = a->memory;
    must(device->copy_from_host(device, there, from, half, &error), &error);
    must(device->copy_from_host(device, there + half, from + HALF, half, &error), &error);
    must(device->copy_to_host_async(device, to + HALF, there, half, &error), &error);
    must(device->copy_to_host_async(device, to, there + half, half, &error), &error);
    must(device->fence_record(device, fence, &error), &error);
    must(device->fence_wait(device, fence, &error), &error);
    for (int i = 0; i < HALF; i++) {
        assert_true(to[i] == (float)(i + HALF));
        assert_true(to[HALF + i] == (float)i);
    }
    device->release_host(device, memory);
    device->release_host(device, NULL);
    device->fence_destroy(device, fence);
}

/* A long copy and, beside it, work on other memory; a fence is behind both. */
static void test_copies_beside_work(void **state) {
    (void)state;
    if (!has_fences() || !has_host_memory() || !FW_HAS(device, copy_to_host_beside)) skip();
    enum { N = 1 << 20 };
    fw_error error = {.struct_size = sizeof error};
    void *fence = NULL, *memory = NULL;
    must(device->fence_create(device, &fence, &error), &error);
    must(device->allocate_host(device, 2 * N * sizeof(float), &memory, &error), &error);
    float *first = memory, *second = first + N;
    array *a = make_random(N, FW_F32, 1.0), *b = make_poison(N, FW_F32);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2 * N; i++) first[i] = -1.0f;
        must(device->zero(device, b->memory, N * sizeof(float), &error), &error);
        must(device->copy_to_host_beside(device, first, a->memory, N * sizeof(float), &error),
             &error);
        must(device->copy(device, b->memory, a->memory, N * sizeof(float), &error), &error);
        must(device->copy_to_host_beside(device, second, b->memory, N * sizeof(float), &error),
             &error);
        must(device->fence_record(device, fence, &error), &error);
        must(device->fence_wait(device, fence, &error), &error);
        for (int i = 0; i < N; i++) {
            assert_true((double)first[i] == a->host[i]);
            assert_true((double)second[i] == a->host[i]);
        }
    }
    must(device->copy_to_host_beside(device, NULL, NULL, 0, &error), &error);
    assert_int_equal(device->copy_to_host_beside(device, NULL, a->memory, 4, &error),
                     FW_E_ARGUMENT);
    device->release_host(device, memory);
    device->fence_destroy(device, fence);
}

/* Memory that the caller writes to as soon as copy_from_host is back. */
static void test_copies_from_any_memory(void **state) {
    (void)state;
    enum { N = 300000 };
    fw_error error = {.struct_size = sizeof error};
    array *a = make_poison(N, FW_F32), *b = make_poison(N, FW_F32);
    float *from = calloc(N, sizeof *from);
    assert_non_null(from);
    for (int i = 0; i < N; i++) from[i] = 1.0f;
    must(device->copy_from_host(device, a->memory, from, N * sizeof *from, &error), &error);
    for (int i = 0; i < N; i++) from[i] = 2.0f;
    must(device->copy_from_host(device, b->memory, from, N * sizeof *from, &error), &error);
    free(from);
    fetch(a), fetch(b);
    for (int i = 0; i < N; i++) assert_true(a->host[i] == 1.0 && b->host[i] == 2.0);
}

/* Three ops and two copies, as one graph: out = cast(x y^T) of whatever x holds when it runs. */
typedef struct recorded {
    array *x, *y, *product, *out;
    float *inputs, *outputs; /* of allocate_host */
    fw_gemm gemm;
    fw_cast cast;
    fw_axpby twice;
} recorded;

enum { ROWS = 33, INNER = 40, COLUMNS = 24 };

static recorded make_recorded(void) {
    recorded r = {.x = make_poison(ROWS * INNER, FW_F32),
                  .y = make_random(COLUMNS * INNER, compute, 1.0),
                  .product = make_poison(ROWS * COLUMNS, FW_F32),
                  .out = make_poison(ROWS * INNER, compute)};
    fw_error error = {.struct_size = sizeof error};
    void *memory = NULL;
    const size_t floats = ROWS * INNER + ROWS * COLUMNS;
    must(device->allocate_host(device, floats * sizeof(float), &memory, &error), &error);
    r.inputs = memory;
    r.outputs = r.inputs + ROWS * INNER;
    r.cast = (fw_cast){.struct_size = sizeof r.cast,
                       .from = fw_vector(r.x->memory, FW_F32, ROWS * INNER),
                       .to = fw_vector(r.out->memory, compute, ROWS * INNER)};
    r.gemm = (fw_gemm){.struct_size = sizeof r.gemm,
                       .transpose_b = 1,
                       .alpha = 1.0f,
                       .a = fw_matrix(r.out->memory, compute, ROWS, INNER),
                       .b = fw_matrix(r.y->memory, compute, COLUMNS, INNER),
                       .c = fw_matrix(r.product->memory, FW_F32, ROWS, COLUMNS)};
    r.twice = (fw_axpby){.struct_size = sizeof r.twice,
                         .alpha = 1.0f,
                         .beta = 1.0f,
                         .x = fw_vector(r.product->memory, FW_F32, ROWS * COLUMNS),
                         .y = fw_vector(r.product->memory, FW_F32, ROWS * COLUMNS)};
    return r;
}

static void issue(const recorded *r) {
    fw_error error = {.struct_size = sizeof error};
    must(device->copy_from_host(device, r->x->memory, r->inputs, ROWS * INNER * sizeof(float),
                                &error),
         &error);
    RUN(cast, &r->cast);
    RUN(gemm, &r->gemm);
    RUN(axpby, &r->twice);
    must(device->copy_to_host_async(device, r->outputs, r->product->memory,
                                    ROWS * COLUMNS * sizeof(float), &error),
         &error);
}

static bool has_graphs(void) {
    return has_host_memory() && FW_HAS(device, capture_begin) && FW_HAS(device, capture_end) &&
           FW_HAS(device, graph_launch) && FW_HAS(device, graph_destroy);
}

/* A replay reads what the buffers hold by then, and gives the bits that the ops give one by one. */
static void test_graphs(void **state) {
    (void)state;
    if (!has_graphs()) skip();
    fw_error error = {.struct_size = sizeof error};
    recorded r = make_recorded();
    void *graph = NULL;
    float *want = calloc(ROWS * COLUMNS, sizeof *want);
    assert_non_null(want);
    for (int i = 0; i < ROWS * INNER; i++) r.inputs[i] = 0.0f;
    issue(&r); /* once before, so that what is decided by timing is decided */
    must(device->synchronize(device, &error), &error);
    must(device->capture_begin(device, &error), &error);
    issue(&r);
    must(device->capture_end(device, &graph, &error), &error);
    assert_non_null(graph);
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < ROWS * INNER; i++) r.inputs[i] = (float)test_normal(&random_);
        issue(&r);
        must(device->synchronize(device, &error), &error);
        memcpy(want, r.outputs, ROWS * COLUMNS * sizeof *want);
        memset(r.outputs, 0xff, ROWS * COLUMNS * sizeof *want);
        poison(r.product), poison(r.out);
        must(device->graph_launch(device, graph, &error), &error);
        must(device->synchronize(device, &error), &error);
        assert_memory_equal(r.outputs, want, ROWS * COLUMNS * sizeof *want);
        assert_true(r.outputs[0] == r.outputs[0]);
    }
    device->graph_destroy(device, graph);
    device->graph_destroy(device, NULL);
    device->release_host(device, r.inputs);
    free(want);
}

/* An op that refuses while a graph is recorded leaves a device that works. */
static void test_graph_after_a_refusal(void **state) {
    (void)state;
    if (!has_graphs()) skip();
    fw_error error = {.struct_size = sizeof error};
    recorded r = make_recorded();
    void *graph = NULL;
    fw_gemm bad = r.gemm;
    bad.c.shape[0] = 1;
    must(device->capture_begin(device, &error), &error);
    REFUSES(FW_E_SHAPE, gemm, &bad);
    (void)device->capture_end(device, &graph, &error);
    device->graph_destroy(device, graph);
    for (int i = 0; i < ROWS * INNER; i++) r.inputs[i] = 1.0f;
    issue(&r);
    must(device->synchronize(device, &error), &error);
    assert_true(r.outputs[0] == r.outputs[0]);
    device->release_host(device, r.inputs);
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
    const struct CMUnitTest tests[] = {OP_TEST(test_describe),
                                       OP_TEST(test_ops_are_whole),
                                       OP_TEST(test_memory),
                                       OP_TEST(test_copies),
                                       OP_TEST(test_fences),
                                       OP_TEST(test_copies_that_do_not_wait),
                                       OP_TEST(test_copies_beside_work),
                                       OP_TEST(test_copies_from_any_memory),
                                       OP_TEST(test_graphs),
                                       OP_TEST(test_graph_after_a_refusal),
                                       OP_TEST(test_threads)};
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}

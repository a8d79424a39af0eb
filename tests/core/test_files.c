/* core/files: whole reads, atomic writes (also on a full disk), globs, hashes and xz sizes. */
#include <files.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workspace.h"

static fw_error error = {.struct_size = sizeof error};

static void test_read_whole_file(void **state) {
    (void)state;
    uint8_t *data;
    size_t size;
    write_bytes("a", "x\0y", 3);
    assert_ok(file_read("a", 0, &data, &size, &error), &error);
    assert_int_equal(size, 3);
    assert_memory_equal(data, "x\0y", 4); /* the NUL that follows included */
    free(data);
    write_text("empty", "");
    assert_ok(file_read("empty", 0, &data, &size, &error), &error);
    assert_int_equal(size, 0);
    assert_int_equal(data[0], 0);
    free(data);
    assert_ok(file_read("/proc/self/status", 0, &data, &size, &error), &error); /* says 0 bytes */
    assert_true(size > 100);
    free(data);
}

static void test_read_failures(void **state) {
    (void)state;
    uint8_t *data = NULL;
    size_t size = 77;
    assert_fails(file_read("no/such", 0, &data, &size, &error), FW_E_IO, &error, "no/such",
                 "No such file");
    assert_fails(file_read(".", 0, &data, &size, &error), FW_E_IO, &error, "directory");
    write_text("five", "12345");
    assert_fails(file_read("five", 4, &data, &size, &error), FW_E_LIMIT, &error, "five", "4");
    assert_null(data);
    assert_int_equal(size, 77);
    assert_ok(file_read("five", 5, &data, &size, &error), &error);
    free(data);
    assert_fails(file_read("/dev/zero", 100000, &data, &size, &error), FW_E_LIMIT, &error,
                 "/dev/zero");
}

static void test_map(void **state) {
    (void)state;
    const uint8_t *data;
    size_t size;
    write_text("a", "mapped");
    assert_ok(file_map("a", &data, &size, &error), &error);
    assert_int_equal(size, 6);
    assert_memory_equal(data, "mapped", 6);
    file_unmap(data, size);
    write_text("empty", "");
    assert_ok(file_map("empty", &data, &size, &error), &error);
    assert_null(data);
    assert_int_equal(size, 0);
    file_unmap(data, size);
    assert_fails(file_map(".", &data, &size, &error), FW_E_IO, &error, "directory");
    assert_int_equal(mkfifo("pipe", 0600), 0);
    assert_fails(file_map("pipe", &data, &size, &error), FW_E_IO, &error, "pipe");
    assert_fails(file_map("none", &data, &size, &error), FW_E_IO, &error, "none");
}

static void assert_content(const char *name, const char *expected) {
    size_t size;
    char *data = read_bytes(name, &size);
    assert_string_equal(data, expected);
    assert_int_equal(size, strlen(expected));
    free(data);
}

static void test_write_appears_at_commit(void **state) {
    (void)state;
    struct file_writer *writer;
    write_text("out", "old");
    assert_ok(file_create("out", &writer, &error), &error);
    assert_ok(file_append(writer, "....tail", 8, &error), &error);
    assert_ok(file_patch(writer, 0, "head", 4, &error), &error);
    assert_ok(file_append(writer, "!", 1, &error), &error);
    assert_content("out", "old");
    char expected[64];
    (void)snprintf(expected, sizeof expected, "out out.tmp-%ld ", (long)getpid());
    assert_string_equal(listing(), expected);
    assert_ok(file_commit(writer, &error), &error);
    assert_content("out", "headtail!");
    assert_string_equal(listing(), "out ");
}

static void test_abandon_leaves_nothing(void **state) {
    (void)state;
    struct file_writer *writer;
    write_text("out", "old");
    assert_ok(file_create("out", &writer, &error), &error);
    assert_ok(file_append(writer, "new", 3, &error), &error);
    file_abandon(writer);
    file_abandon(NULL);
    assert_content("out", "old");
    assert_string_equal(listing(), "out ");
}

/* Prepared files are complete but not there yet; abandoning them leaves nothing. */
static void test_prepare(void **state) {
    (void)state;
    struct file_writer *writer;
    write_text("out", "old");
    for (int commit = 0; commit < 2; commit++) {
        assert_ok(file_create("out", &writer, &error), &error);
        assert_ok(file_append(writer, "new", 3, &error), &error);
        assert_ok(file_prepare(writer, &error), &error);
        assert_content("out", "old");
        char temporary[64];
        (void)snprintf(temporary, sizeof temporary, "out.tmp-%ld", (long)getpid());
        assert_content(temporary, "new");
        if (commit == 1)
            assert_ok(file_commit(writer, &error), &error);
        else
            file_abandon(writer);
        assert_content("out", commit == 1 ? "new" : "old");
        assert_string_equal(listing(), "out ");
    }
    assert_ok(file_create("out", &writer, &error), &error);
    assert_ok(file_append(writer, "more", 4, &error), &error);
    limit_file_size(2);
    const fw_status status = file_prepare(writer, &error);
    limit_file_size(0);
    assert_fails(status, FW_E_IO, &error, "cannot write out", "removed");
    assert_fails(file_commit(writer, &error), FW_E_IO, &error, "earlier");
    assert_content("out", "new");
    assert_string_equal(listing(), "out ");
}

/* Sizes around the writer's buffer, in pieces that do not divide it. */
static void test_write_large(void **state) {
    (void)state;
    enum { SIZE = 3000001 };
    uint8_t *data = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++) data[i] = (uint8_t)(i * 2654435761u >> 13);
    const size_t pieces[] = {1, 7, 99991, 262144, 262145, 1000000};
    struct file_writer *writer;
    assert_ok(file_create("large", &writer, &error), &error);
    for (size_t done = 0, p = 0; done < SIZE; p = (p + 1) % 6) {
        const size_t size = pieces[p] < SIZE - done ? pieces[p] : SIZE - done;
        assert_ok(file_append(writer, data + done, size, &error), &error);
        done += size;
    }
    assert_ok(file_commit(writer, &error), &error);
    size_t size;
    char *found = read_bytes("large", &size);
    assert_int_equal(size, SIZE);
    assert_memory_equal(found, data, SIZE);
    free(found);
    free(data);
}

static void test_leftover_of_same_process_id(void **state) {
    (void)state;
    char name[64];
    (void)snprintf(name, sizeof name, "out.tmp-%ld", (long)getpid());
    write_text(name, "half-written");
    assert_ok(file_write("out", "whole", 5, &error), &error);
    assert_content("out", "whole");
    assert_string_equal(listing(), "out ");
}

static void test_create_failures(void **state) {
    (void)state;
    struct file_writer *writer = NULL;
    assert_fails(file_create("none/out", &writer, &error), FW_E_IO, &error, "none/out");
    assert_int_equal(mkdir("directory", 0777), 0);
    assert_fails(file_create("directory", &writer, &error), FW_E_IO, &error, "directory");
    assert_null(writer);
    assert_string_equal(listing(), "directory ");
}

/* The file's size limit stops the process as a full disk would; wherever it strikes, the old file
 * stays and nothing else. */
static void test_no_room(void **state) {
    (void)state;
    static const char data[400000];
    write_text("out", "old");
    for (size_t room = 1; room < sizeof data; room += 39999) {
        limit_file_size(room);
        const fw_status status = file_write("out", data, sizeof data, &error);
        limit_file_size(0);
        assert_fails(status, FW_E_IO, &error, "cannot write out", "removed");
        assert_content("out", "old");
        assert_string_equal(listing(), "out ");
    }
}

static void test_no_room_in_small_pieces(void **state) {
    (void)state;
    struct file_writer *writer;
    limit_file_size(300000);
    assert_ok(file_create("out", &writer, &error), &error);
    fw_status status = FW_OK;
    size_t pieces = 0;
    for (; status == FW_OK && pieces < 1000; pieces++)
        status = file_append(writer, error.message, 1000, &error);
    limit_file_size(0);
    assert_fails(status, FW_E_IO, &error, "cannot write out");
    assert_true(pieces > 300);
    assert_string_equal(listing(), "");
    /* The failed writer stays failed, also though there is room now. */
    assert_fails(file_append(writer, "x", 1, &error), FW_E_IO, &error, "earlier");
    assert_fails(file_patch(writer, 0, "x", 1, &error), FW_E_IO, &error, "earlier");
    assert_fails(file_commit(writer, &error), FW_E_IO, &error, "earlier");
    assert_string_equal(listing(), "");
}

static void test_full_device(void **state) {
    (void)state;
    if (access("/dev/full", W_OK) != 0) skip();
    assert_fails(file_write("/dev/full", "data", 4, &error), FW_E_IO, &error,
                 "cannot write /dev/full: the disk is full");
    assert_ok(file_write("/dev/null", "data", 4, &error), &error);
    struct stat information;
    assert_int_equal(stat("/dev/null", &information), 0);
    assert_true(S_ISCHR(information.st_mode)); /* not replaced by a file */
}

static void test_make_directories(void **state) {
    (void)state;
    struct stat information;
    assert_ok(file_make_directories("a/b//c", &error), &error);
    assert_ok(file_make_directories("a/b/c/", &error), &error);
    assert_int_equal(stat("a/b/c", &information), 0);
    write_text("file", "");
    assert_fails(file_make_directories("file/x", &error), FW_E_IO, &error, "file", "in the way");
    assert_fails(file_make_directories("", &error), FW_E_IO, &error, "directory");
}

static void test_glob(void **state) {
    (void)state;
    write_text("b2", "");
    write_text("B1", "");
    write_text("b10", "");
    write_text("b[1]", "");
    char **paths;
    size_t n;
    assert_ok(file_glob("[bB]*", &paths, &n, &error), &error);
    assert_int_equal(n, 4);
    assert_string_equal(paths[0], "B1"); /* byte order, whatever the locale */
    assert_string_equal(paths[1], "b10");
    assert_string_equal(paths[2], "b2");
    file_free_paths(paths, n);
    assert_ok(file_glob("b[1]", &paths, &n, &error), &error);
    assert_int_equal(n, 1);
    assert_string_equal(paths[0], "b[1]");
    file_free_paths(paths, n);
    assert_fails(file_glob("c*", &paths, &n, &error), FW_E_NOT_FOUND, &error, "no file matches c*");
    assert_fails(file_glob("c", &paths, &n, &error), FW_E_NOT_FOUND, &error, "no file c");
}

/* FIPS 180-4 examples. */
static void test_sha256(void **state) {
    (void)state;
    uint8_t hash[32];
    char hex[65];
    sha256_bytes("abc", 3, hash);
    sha256_hex(hash, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_bytes(NULL, 0, hash);
    sha256_hex(hash, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    char *a = malloc(1000000);
    memset(a, 'a', 1000000);
    write_bytes("million", a, 1000000);
    free(a);
    assert_ok(sha256_file("million", hash, &error), &error);
    sha256_hex(hash, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_fails(sha256_file("none", hash, &error), FW_E_IO, &error, "none");
    assert_fails(sha256_file(".", hash, &error), FW_E_IO, &error, "directory");
}

static size_t xz_tool_size(const char *name) {
    char command[128];
    (void)snprintf(command, sizeof command, "xz -9e -c -T1 %s 2>/dev/null | wc -c", name);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    unsigned long size = 0;
    assert_int_equal(fscanf(pipe, "%lu", &size), 1);
    (void)pclose(pipe);
    return size;
}

static void test_xz_size_is_the_tools(void **state) {
    (void)state;
    write_text("empty", "");
    if (xz_tool_size("empty") == 0) skip(); /* no xz on PATH */
    assert_int_equal(xz_size("", 0), xz_tool_size("empty"));
    enum { SIZE = 300000 };
    uint8_t *data = malloc(SIZE);
    test_random random = {7};
    for (size_t i = 0; i < SIZE; i++) /* words of a small language, with noise in the middle */
        data[i] = i / 50000 == 3 ? (uint8_t)test_below(&random, 256)
                                 : (uint8_t)("etaoin shrdlu"[test_below(&random, 13)]);
    write_bytes("data", data, SIZE);
    assert_int_equal(xz_size(data, SIZE), xz_tool_size("data"));
    free(data);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_read_whole_file),
        TEST(test_read_failures),
        TEST(test_map),
        TEST(test_write_appears_at_commit),
        TEST(test_abandon_leaves_nothing),
        TEST(test_prepare),
        TEST(test_write_large),
        TEST(test_leftover_of_same_process_id),
        TEST(test_create_failures),
        TEST(test_no_room),
        TEST(test_no_room_in_small_pieces),
        TEST(test_full_device),
        TEST(test_make_directories),
        TEST(test_glob),
        TEST(test_sha256),
        TEST(test_xz_size_is_the_tools),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "workspace.h"

#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[PATH_MAX];

int workspace_setup(void **state) {
    (void)state;
    (void)snprintf(directory, sizeof directory, "/tmp/fairway-test-XXXXXX");
    return mkdtemp(directory) != NULL && chdir(directory) == 0 ? 0 : -1;
}

static void remove_tree(const char *path) {
    DIR *entries = opendir(path);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char name[PATH_MAX];
        (void)snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        struct stat information;
        if (lstat(name, &information) == 0 && S_ISDIR(information.st_mode))
            remove_tree(name);
        else
            (void)unlink(name);
    }
    if (entries != NULL) (void)closedir(entries);
    (void)rmdir(path);
}

int workspace_teardown(void **state) {
    (void)state;
    limit_file_size(0);
    if (chdir("/") != 0) return -1;
    remove_tree(directory);
    return 0;
}

void write_bytes(const char *name, const void *data, size_t size) {
    FILE *file = fopen(name, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

void write_text(const char *name, const char *text) { write_bytes(name, text, strlen(text)); }

char *read_bytes(const char *name, size_t *size) {
    FILE *file = fopen(name, "rb");
    if (file == NULL) fail_msg("%s is missing", name);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *size = (size_t)ftell(file);
    rewind(file);
    char *data = malloc(*size + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *size, file), *size);
    data[*size] = '\0';
    (void)fclose(file);
    return data;
}

void write_shard(const char *name, int32_t magic, int32_t version, int32_t count,
                 const uint16_t *tokens, size_t n) {
    char *data = calloc(1, 1024 + 2 * n + 1);
    assert_non_null(data);
    const int32_t header[3] = {magic, version, count};
    memcpy(data, header, sizeof header);
    if (n > 0) memcpy(data + 1024, tokens, 2 * n);
    write_bytes(name, data, 1024 + 2 * n);
    free(data);
}

static int compare(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

const char *listing(void) {
    static char text[8192];
    char *names[256];
    size_t n = 0;
    DIR *entries = opendir(".");
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL && n < 256;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            names[n++] = strdup(entry->d_name);
    (void)closedir(entries);
    qsort(names, n, sizeof names[0], compare);
    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        const size_t used = strlen(text);
        (void)snprintf(text + used, sizeof text - used, "%s ", names[i]);
        free(names[i]);
    }
    return text;
}

void limit_file_size(size_t bytes) {
    (void)signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes > 0 ? (rlim_t)bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

void check_failure(const char *file, int line, fw_status status, fw_status expected,
                   const fw_error *error, const char *const *parts) {
    bool right = status == expected;
    for (; right && *parts != NULL; parts++) right = strstr(error->message, *parts) != NULL;
    if (right) return;
    print_error("status %d (expected %d), message: %s\n", status, expected, error->message);
    if (*parts != NULL) print_error("expected in it: %s\n", *parts);
    _fail(file, line);
}

void check_ok(const char *file, int line, fw_status status, const fw_error *error) {
    if (status == FW_OK) return;
    print_error("status %d, message: %s\n", status, error->message);
    _fail(file, line);
}

/* `fairway data`: what it writes, what it refuses, and that failures leave nothing behind. */
#include <commands.h>
#include <corpus.h>
#include <fcntl.h>
#include <shard.h>
#include <stdio.h>
#include <unistd.h>

#include "workspace.h"

static char printed[16384], complained[16384];

static int redirect(int stream, const char *path) {
    const int saved = dup(stream);
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(saved >= 0 && file >= 0 && dup2(file, stream) >= 0);
    (void)close(file);
    return saved;
}

static void restore(int stream, int saved, const char *path, char *text, size_t room) {
    assert_true(dup2(saved, stream) >= 0);
    (void)close(saved);
    size_t size;
    char *data = read_bytes(path, &size);
    (void)snprintf(text, room, "%s", data);
    free(data);
    (void)unlink(path);
}

/* Run `fairway data WORD...`, capturing both streams; the exit code. The output files are limited
 * to `room` bytes when that is not 0. */
static int run_in(size_t room, const char *words) {
    char line[1024];
    char *argv[64] = {line};
    (void)snprintf(line, sizeof line, "data %s", words);
    int argc = 0;
    for (char *rest = NULL, *word = strtok_r(line, " ", &rest); word != NULL && argc < 63;
         word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    (void)fflush(NULL);
    char out_path[64], err_path[64]; /* outside the workspace, whose listing is compared */
    (void)snprintf(out_path, sizeof out_path, "/tmp/fairway-test-%ld.out", (long)getpid());
    (void)snprintf(err_path, sizeof err_path, "/tmp/fairway-test-%ld.err", (long)getpid());
    const int out = redirect(STDOUT_FILENO, out_path);
    const int err = redirect(STDERR_FILENO, err_path);
    if (room > 0) limit_file_size(room);
    const int code = cmd_data(argc, argv);
    limit_file_size(0);
    (void)fflush(NULL);
    restore(STDOUT_FILENO, out, out_path, printed, sizeof printed);
    restore(STDERR_FILENO, err, err_path, complained, sizeof complained);
    return code;
}

static int run(const char *words) { return run_in(0, words); }

static void expect_success(const char *words) {
    if (run(words) != 0) fail_msg("data %s: %s", words, complained);
}

static void expect_refusal(const char *words, const char *part) {
    assert_int_equal(run(words), 2);
    if (strncmp(complained, "fairway: ", 9) != 0 || strstr(complained, part) == NULL)
        fail_msg("data %s: \"%s\" where \"%s\" was expected", words, complained, part);
    assert_int_equal(strcspn(complained, "\n") + 1, strlen(complained)); /* one line */
}

static void write_numbered(size_t n) {
    char lines[4096] = "";
    for (size_t i = 0; i < n; i++) {
        const size_t used = strlen(lines);
        (void)snprintf(lines + used, sizeof lines - used, "{\"text\":\"d%zu\"}\n", i % 10);
    }
    write_text("in.jsonl", lines);
}

/* All of a shard's tokens as text, '|' for the begin token. */
static const char *shard_text(const char *path) {
    static char text[4096];
    fw_error error = {.struct_size = sizeof error};
    struct shard shard;
    assert_ok(shard_open(path, &shard, &error), &error);
    assert_true(shard.n_tokens < sizeof text);
    for (uint64_t i = 0; i < shard.n_tokens; i++)
        text[i] = shard.tokens[i] == 256 ? '|' : (char)shard.tokens[i];
    text[shard.n_tokens] = '\0';
    shard_close(&shard);
    return text;
}

static void test_one_shard(void **state) {
    (void)state;
    write_numbered(3);
    write_text("a b.txt", "file");
    write_text("c.md", "more");
    expect_success("--out o in.jsonl text:*.txt c.md");
    assert_string_equal(shard_text("o_000000.bin"), "|d0|d1|d2|file|more");
    assert_string_equal(listing(), "a b.txt c.md in.jsonl o_000000.bin o_000000.bin.documents ");
    assert_non_null(strstr(printed, "o_000000.bin"));
    expect_success("--info o_000000.bin");
    assert_non_null(strstr(printed, "tokens         19\n"));
    assert_non_null(strstr(printed, "largest token  256\n"));
    assert_non_null(strstr(printed, "documents      5\n"));
    assert_non_null(strstr(printed, "raw bytes      14 "));
    assert_int_equal(unlink("o_000000.bin.documents"), 0);
    expect_success("--info o_000000.bin");
    assert_non_null(strstr(printed, "documents      unknown"));
}

/* A document stays whole; one that is longer than a shard may be has its own. */
static void test_split(void **state) {
    (void)state;
    write_text("in.jsonl", "{\"text\":\"ab\"}\n{\"text\":\"cd\"}\n{\"text\":\"efghijkl\"}\n"
                           "{\"text\":\"m\"}\n{\"text\":\"n\"}\n{\"text\":\"o\"}\n");
    expect_success("--out o --shard-tokens 6 in.jsonl");
    assert_string_equal(shard_text("o_000000.bin"), "|ab|cd");
    assert_string_equal(shard_text("o_000001.bin"), "|efghijkl");
    assert_string_equal(shard_text("o_000002.bin"), "|m|n|o");
    assert_int_equal(access("o_000003.bin", F_OK), -1);
}

static void test_hold_out_and_shuffle(void **state) {
    (void)state;
    write_numbered(10);
    expect_success("--out o --hold-out 4 in.jsonl");
    assert_string_equal(shard_text("o_000000.bin"), "|d0|d1|d2|d4|d5|d6|d8|d9");
    assert_string_equal(shard_text("o_val_000000.bin"), "|d3|d7");
    assert_non_null(strstr(printed, "validation = o_val_*.bin"));
    expect_success("--out p --shuffle --seed 3 in.jsonl");
    char first[256];
    (void)snprintf(first, sizeof first, "%s", shard_text("p_000000.bin"));
    assert_string_not_equal(first, "|d0|d1|d2|d3|d4|d5|d6|d7|d8|d9");
    expect_success("--out q --shuffle --seed 3 in.jsonl");
    assert_string_equal(shard_text("q_000000.bin"), first);
}

/* Shards and the text they were made of are the same corpus. */
static void test_tokenizer_from_ini(void **state) {
    (void)state;
    write_numbered(4);
    write_text("x.ini", "[run]\nsteps = 1\n[tokenizer]\nplugin = bytes\nbegin = no\n");
    expect_success("--config x.ini --out o in.jsonl");
    assert_string_equal(shard_text("o_000000.bin"), "d0d1d2d3");
    expect_success("--set tokenizer.begin=no --tokenizer bytes --out p in.jsonl");
    assert_string_equal(shard_text("p_000000.bin"), "d0d1d2d3");
}

static void test_existing_shards(void **state) {
    (void)state;
    write_numbered(9);
    expect_success("--out o --shard-tokens 9 in.jsonl");
    assert_int_equal(access("o_000002.bin", F_OK), 0);
    expect_refusal("--out o in.jsonl", "o_000000.bin exists already");
    expect_success("--out o --force in.jsonl"); /* one shard now: the others would be found too */
    assert_string_equal(listing(), "in.jsonl o_000000.bin o_000000.bin.documents ");
}

/* The listing, and every file's bytes folded into one number. */
static uint64_t state_of_files(void) {
    char names[8192];
    (void)snprintf(names, sizeof names, "%s", listing());
    uint64_t hash = 14695981039346656037u;
    for (char *rest = NULL, *name = strtok_r(names, " ", &rest); name != NULL;
         name = strtok_r(NULL, " ", &rest)) {
        size_t size;
        char *data = read_bytes(name, &size);
        for (size_t i = 0; i < size; i++) hash = (hash ^ (uint8_t)data[i]) * 1099511628211u;
        for (; *name != '\0'; name++) hash = (hash ^ (uint8_t)*name) * 1099511628211u;
        free(data);
    }
    return hash;
}

/* The shard of validation is the larger one: wherever the room ends, also when all of training was
 * written, what --force was to replace is still there. */
static void test_failure_keeps_what_force_would_replace(void **state) {
    (void)state;
    char text[3001];
    memset(text, 'x', 3000);
    text[3000] = '\0';
    write_text("long.txt", text);
    write_numbered(9);
    expect_success("--out o --hold-out 3 --shard-tokens 6 in.jsonl");
    assert_int_equal(access("o_000001.bin", F_OK), 0);
    assert_int_equal(access("o_val_000001.bin", F_OK), 0);
    const uint64_t before = state_of_files();
    size_t failures = 0, room = 300;
    for (; run_in(room, "--out o --force --hold-out 10 in.jsonl long.txt") != 0; room += 411) {
        if (strstr(complained, "fairway: cannot write o_") == NULL) fail_msg("%s", complained);
        assert_true(state_of_files() == before);
        failures++;
    }
    assert_true(failures > 8);
    assert_true(room > 1024 + 2 * 3000);
    assert_string_equal(listing(), "in.jsonl long.txt o_000000.bin o_000000.bin.documents "
                                   "o_val_000000.bin o_val_000000.bin.documents ");
    assert_string_equal(shard_text("o_000000.bin"), "|d0|d1|d2|d3|d4|d5|d6|d7|d8");
    assert_non_null(strstr(printed, "Removed 2 older training shards, from o_000001.bin on.\n"));
}

/* Documents held out before are now trained on: their shards must not stay as validation data. */
static void test_force_removes_older_validation_shards(void **state) {
    (void)state;
    write_numbered(9);
    expect_success("--out o --hold-out 3 in.jsonl");
    assert_null(strstr(printed, "Removed"));
    assert_int_equal(unlink("o_000000.bin"), 0);
    expect_refusal("--out o in.jsonl", "o_val_000000.bin exists already");
    expect_success("--out o --force in.jsonl");
    assert_string_equal(listing(), "in.jsonl o_000000.bin o_000000.bin.documents ");
    assert_non_null(strstr(printed, "Removed 1 older validation shard, from o_val_000000.bin on."));
    assert_null(strstr(printed, "validation = "));
}

static void test_refusals(void **state) {
    (void)state;
    write_numbered(3);
    write_text("bad.jsonl", "{\"text\":\"a\"}\n{\"texts\":\"b\"}\n");
    write_text("empty.jsonl", "");
    expect_refusal("", "name text or JSON lines");
    expect_refusal("--info", "name the shards");
    expect_refusal("in.jsonl", "--out PREFIX is missing");
    expect_refusal("--out", "--out needs a value");
    expect_refusal("--oot o in.jsonl", "did you mean --out?");
    expect_refusal("--out o bad.jsonl", "bad.jsonl:2: the object has no \"text\"");
    expect_refusal("--out o empty.jsonl", "no document");
    expect_refusal("--out o none.jsonl", "no file none.jsonl");
    expect_refusal("--out o in.xyz", "text:in.xyz or jsonl:in.xyz");
    expect_refusal("--out o txt:in", "text:FILES");
    expect_refusal("--out none/o in.jsonl", "none/o_000000.bin");
    expect_refusal("--out o --hold-out 1 in.jsonl", "--hold-out");
    expect_refusal("--out o --hold-out 4 in.jsonl", "only 3 documents");
    expect_refusal("--out o --shard-tokens 0 in.jsonl", "--shard-tokens");
    expect_refusal("--out o --shard-tokens x in.jsonl", "--shard-tokens");
    expect_refusal("--out o --tokenizer nosuch in.jsonl", "nosuch");
    expect_refusal("--out o --config none.ini in.jsonl", "none.ini");
    expect_refusal("--info in.jsonl", "in.jsonl is not a token shard");
    expect_refusal("--info none.bin", "none.bin");
    assert_string_equal(listing(), "bad.jsonl empty.jsonl in.jsonl ");
}

/* Some shards fit, the last one does not: none stays. The messages need some of the room as well.
 */
static void test_no_room(void **state) {
    (void)state;
    char text[701];
    memset(text, 'x', 700);
    text[700] = '\0';
    write_text("long.txt", text);
    write_numbered(40);
    size_t failures = 0, room = 300;
    for (; run_in(room, "--out o --hold-out 5 --shard-tokens 50 in.jsonl long.txt") != 0;
         room += 173) {
        if (strstr(complained, "fairway: cannot write o_") == NULL) fail_msg("%s", complained);
        assert_string_equal(listing(), "in.jsonl long.txt ");
        failures++;
    }
    assert_true(failures > 8);
    assert_true(room > 1024 + 2 * 700);
    assert_int_equal(access("o_val_000000.bin", F_OK), 0);
}

static void test_help(void **state) {
    (void)state;
    assert_int_equal(run("--help"), 0);
    assert_non_null(strstr(printed, "usage: fairway data"));
    assert_non_null(strstr(printed, "--hold-out"));
    assert_string_equal(complained, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_one_shard),
        TEST(test_split),
        TEST(test_hold_out_and_shuffle),
        TEST(test_tokenizer_from_ini),
        TEST(test_existing_shards),
        TEST(test_failure_keeps_what_force_would_replace),
        TEST(test_force_removes_older_validation_shards),
        TEST(test_refusals),
        TEST(test_no_room),
        TEST(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

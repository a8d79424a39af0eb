#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

struct log {
    FILE *file;
    double start;
    char path[];
};

static fw_status open_as(const char *path, const char *mode, struct log **log, fw_error *error) {
    struct log *made = malloc(sizeof *made + strlen(path) + 1);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the log");
    (void)strcpy(made->path, path);
    made->start = clock_seconds();
    made->file = fopen(path, mode);
    if (made->file == NULL) {
        free(made);
        return fw_fail(error, FW_E_IO, "%s: cannot be written: %s", path, strerror(errno));
    }
    *log = made;
    return FW_OK;
}

fw_status log_open(const char *path, struct log **log, fw_error *error) {
    return open_as(path, "w", log, error);
}

/* Where the last complete line ends. */
static off_t end_of_lines(FILE *file) {
    off_t end = 0, at = 0;
    for (int c; (c = getc(file)) != EOF;) {
        at++;
        if (c == '\n') end = at;
    }
    return end;
}

fw_status log_append(const char *path, struct log **log, fw_error *error) {
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        const off_t end = end_of_lines(file);
        (void)fclose(file);
        if (truncate(path, end) != 0)
            return fw_fail(error, FW_E_IO, "%s: cannot be written: %s", path, strerror(errno));
    }
    return open_as(path, "a", log, error);
}

void log_close(struct log *log) {
    if (log == NULL) return;
    (void)fclose(log->file);
    free(log);
}

static fw_status write_line(struct log *log, cJSON *line, fw_error *error) {
    char *text = cJSON_PrintUnformatted(line);
    if (text == NULL) return fw_fail(error, FW_E_MEMORY, "%s: no memory for a line", log->path);
    const int written = fprintf(log->file, "%s\n", text);
    cJSON_free(text);
    if (written < 0 || fflush(log->file) != 0)
        return fw_fail(error, FW_E_IO, "%s: cannot be written: %s", log->path, strerror(errno));
    return FW_OK;
}

fw_status log_event(struct log *log, const char *event, cJSON *fields, fw_error *error) {
    cJSON *line = fields != NULL ? fields : cJSON_CreateObject();
    fw_status status = FW_OK;
    if (log != NULL) {
        (void)cJSON_AddStringToObject(line, "event", event);
        (void)cJSON_AddNumberToObject(line, "seconds", clock_seconds() - log->start);
        status = write_line(log, line, error);
    }
    cJSON_Delete(line);
    return status;
}

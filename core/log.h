/* The run's log: JSON lines, each with "event" and "seconds" since the log was opened, flushed as
 * written. */
#ifndef FAIRWAY_LOG_H
#define FAIRWAY_LOG_H

#include <cjson/cJSON.h>
#include <fairway/error.h>

struct log;

/* Create (truncate) `path`. E_IO. */
fw_status log_open(const char *path, struct log **log, fw_error *error);
/* As log_open, but go on behind the lines that are there; an incomplete last line is cut off. */
fw_status log_append(const char *path, struct log **log, fw_error *error);
void log_close(struct log *log); /* NULL is fine */

/* Write one line and free `fields` (an object made by cJSON_CreateObject; NULL: no further fields).
 * With log = NULL it only frees. E_IO when the line could not be written (a full disk). */
fw_status log_event(struct log *log, const char *event, cJSON *fields, fw_error *error);

#endif

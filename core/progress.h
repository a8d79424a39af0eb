/* Progress of long work on standard error: one line rewritten in place on a terminal, a plain line
 * now and then elsewhere. Nothing of it reaches standard output or the log. */
#ifndef FAIRWAY_PROGRESS_H
#define FAIRWAY_PROGRESS_H

#include <fairway/abi.h>
#include <stdbool.h>

struct progress {
    bool terminal;
    bool open;       /* an unfinished line stands on the terminal */
    double last;     /* when something was last shown */
    double interval; /* least seconds between updates */
};

void progress_begin(struct progress *progress);

/* Show a line if enough time has passed since the last one. */
void progress_update(struct progress *progress, const char *format, ...) FW_PRINTF(2, 3);

/* Clear the line, so that other output can follow. */
void progress_end(struct progress *progress);

/* "done of total (rate/s, time left)" for work that began at `start` (clock_seconds). */
void progress_work(struct progress *progress, const char *what, double done, double total,
                   const char *unit, double start);

/* "1 h 02 min", "3 min 10 s", "12 s"; "?" for negative seconds. */
const char *format_duration(double seconds, char *out, size_t size);

#endif

#include "progress.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "clock.h"

void progress_begin(struct progress *progress) {
    const bool terminal = isatty(STDERR_FILENO) == 1;
    const double last = terminal ? -INFINITY : clock_seconds();
    *progress = (struct progress){terminal, false, last, terminal ? 0.2 : 15.0};
}

static void show(struct progress *progress, const char *format, va_list arguments) {
    if (progress->terminal) (void)fputs("\r\033[K", stderr);
    (void)vfprintf(stderr, format, arguments);
    if (!progress->terminal) (void)fputc('\n', stderr);
    (void)fflush(stderr);
    progress->open = progress->terminal;
}

void progress_update(struct progress *progress, const char *format, ...) {
    const double now = clock_seconds();
    if (now - progress->last < progress->interval) return;
    progress->last = now;
    va_list arguments;
    va_start(arguments, format);
    show(progress, format, arguments);
    va_end(arguments);
}

void progress_end(struct progress *progress) {
    if (progress->open) (void)fputs("\r\033[K", stderr);
    (void)fflush(stderr);
    progress->open = false;
}

void progress_work(struct progress *progress, const char *what, double done, double total,
                   const char *unit, double start) {
    const double elapsed = clock_seconds() - start;
    const double rate = elapsed > 0 ? done / elapsed : 0;
    char left[32];
    progress_update(progress, "%s %3.0f%%  %.0f of %.0f %s, %.0f %s/s, %s left", what,
                    total > 0 ? 100 * done / total : 0.0, done, total, unit, rate, unit,
                    format_duration(rate > 0 ? (total - done) / rate : -1, left, sizeof left));
}

const char *format_duration(double seconds, char *out, size_t size) {
    if (seconds < 0)
        (void)snprintf(out, size, "?");
    else if (seconds < 60)
        (void)snprintf(out, size, "%.0f s", seconds);
    else if (seconds < 3600)
        (void)snprintf(out, size, "%d min %02d s", (int)seconds / 60, (int)seconds % 60);
    else
        (void)snprintf(out, size, "%d h %02d min", (int)seconds / 3600, (int)seconds / 60 % 60);
    return out;
}

#include "verdict.h"

#include <stdio.h>

void verdict_line(struct verdicts *verdicts, const char *quantity, const char *where, double error,
                  double tolerance) {
    const int ok = error <= tolerance;
    if (verdicts->lines == 0)
        (void)printf("  %-38s %-10s %-9s %-6s  %s\n", "quantity", "error", "tolerance", "",
                     "largest at");
    verdicts->lines++;
    if (!ok) verdicts->failures++;
    (void)printf("  %-38s %-10.3g %-9.3g %-6s  %s\n", quantity, error, tolerance,
                 ok ? "ok" : "FAILED", where);
    (void)fflush(stdout);
}

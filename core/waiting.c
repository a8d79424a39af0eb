#include "waiting.h"

#include <stdlib.h>
#include <unistd.h>

void waiting_limit_spinning(char **argv) {
    if (getenv("GOMP_SPINCOUNT") != NULL || getenv("OMP_WAIT_POLICY") != NULL) return;
    if (setenv("GOMP_SPINCOUNT", "10000", 1) == 0) (void)execv("/proc/self/exe", argv);
}

/* Signals that end long work in good order: the first SIGINT or SIGTERM is noted, the second ends
 * the program at once. */
#ifndef FAIRWAY_INTERRUPT_H
#define FAIRWAY_INTERRUPT_H

#include <stdbool.h>

void interrupt_catch(void);

/* Whether a signal came since. */
bool interrupt_seen(void);

#endif

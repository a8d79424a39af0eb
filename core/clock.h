/* Wall-clock seconds from an arbitrary origin that never runs backwards. */
#ifndef FAIRWAY_CLOCK_H
#define FAIRWAY_CLOCK_H

double clock_seconds(void);

#endif

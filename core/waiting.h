/* How long OpenMP's threads spin before they sleep. */
#ifndef FAIRWAY_WAITING_H
#define FAIRWAY_WAITING_H

/* GNU OpenMP's threads spin for milliseconds at every barrier unless told otherwise, which makes a
 * run several times slower as soon as another program wants a core. Its runtime reads the limit
 * only when it is loaded, so this sets a short one and starts the program again, once. It does
 * nothing when the user has chosen (GOMP_SPINCOUNT or OMP_WAIT_POLICY), and goes on as it is when
 * that fails. */
void waiting_limit_spinning(char **argv);

#endif

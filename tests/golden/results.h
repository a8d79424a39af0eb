/* The table that the golden program prints: a line for each quantity, with the largest relative
 * error that was seen, what it may be, and a word. */
#ifndef GOLDEN_RESULTS_H
#define GOLDEN_RESULTS_H

struct results {
    int lines, failures;
};

/* `where` names the tensor or place of the largest error; "" for none. Not a number fails. */
void results_line(struct results *results, const char *quantity, const char *where, double error,
                  double tolerance);

#endif

/* The table that the golden program prints: a line for each quantity, with the largest relative
 * error that was seen, what it may be, and a word. */
#ifndef GOLDEN_VERDICT_H
#define GOLDEN_VERDICT_H

struct verdicts {
    int lines, failures;
};

/* `where` names the tensor or place of the largest error; "" for none. Not a number fails. */
void verdict_line(struct verdicts *verdicts, const char *quantity, const char *where, double error,
                  double tolerance);

#endif

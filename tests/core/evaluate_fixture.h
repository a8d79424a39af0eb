/* What tests of evaluate() share: a session, a tiny model, a small corpus whose tokens are known.
 */
#ifndef TEST_EVALUATE_FIXTURE_H
#define TEST_EVALUATE_FIXTURE_H

#include "evaluate.h"
#include "model.h"
#include "script_cache.h"
#include "session.h"
#include "workspace.h"
#include "wrapped_device.h"

enum { V = 37, WINDOW = 8, N = 61, MOST_BATCH = 3 };

/* Matrix products of other shapes add in another order: the same log-probabilities but for some
 * units in the last place of float32 (6e-8 relative), which 60 targets average out. A target in a
 * wrong context moves the sum by 1e-3 and more. */
#define ROUNDING 2e-7

extern struct session session;
extern struct wrapped_device device; /* the session's, or that with more members */
extern struct experiment experiment; /* the session's, with the script as cache; free to change */
extern const struct token_table table;
extern uint16_t stream[N];
extern struct corpus *corpus; /* of the stream */

/* cmocka fixtures of the group and of each test. Ahead: on a device that works by itself, whose
 * rows come by as many as fit a pass; or by five, beside later work, so that windows and passes are
 * torn apart. */
int evaluate_open_session(void **state);
int evaluate_open_ahead(void **state);
int evaluate_open_ahead_by_five(void **state);
int evaluate_close_session(void **state);
int evaluate_setup(void **state);
int evaluate_teardown(void **state);

void open_corpus(const char *source);
struct model *open_model(int64_t batch, int64_t window);
struct evaluate_options options_for(struct model *model, int64_t mode, bool with_cache);
struct evaluate_result evaluate_with(int64_t batch, int64_t mode, bool with_cache);

/* The code length of the target behind position t, its context beginning at `begin`, from the
 * model's own log-probabilities. */
double target_nats(struct model *model, size_t begin, size_t t);

void assert_close(double a, double b, double relative);

#endif

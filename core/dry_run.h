/* fairway run --dry-run: what a run would be, without data and without training. */
#ifndef FAIRWAY_DRY_RUN_H
#define FAIRWAY_DRY_RUN_H

#include "arguments.h"

/* Resolve the INI, build the model and try what packs it; print parameters by optimizer group,
 * attention by layer, and the size of a step. The tokenizer is opened only when model.vocabulary
 * does not say how many tokens there are; data are not looked at. Errors: as for a run. */
fw_status dry_run(const struct arguments *arguments, fw_error *error);

#endif

/* progress_bars.h - a line for each part of long work, drawn on the terminal. */
#ifndef LODGE_CLI_PROGRESS_BARS_H
#define LODGE_CLI_PROGRESS_BARS_H

#include "image/progress.h"

struct progress_bars;

/* On the standard error when that is a terminal; else NULL, which all functions take. */
struct progress_bars *progress_bars_create(void);
/* Wipes the lines. */
void progress_bars_destroy(struct progress_bars *bars);
struct progress *progress_bars_progress(struct progress_bars *bars);

#endif

/* report.h - how a forked child that goes on tells its parent, once, that all is well or, in one
 * line, why it is not: over sockets, whose end without a word says that the child died. */
#ifndef LODGE_BASE_REPORT_H
#define LODGE_BASE_REPORT_H

#include "base/error.h"

/* The two ends are the caller's to close: ends[0] for the parent, ends[1] for the child. */
int report_open(int ret_ends[2], struct error *err);

/* In the child: say so, and close *fd, which becomes -1. why NULL: all is well. What is said when
 * *fd is -1 is lost, as is what nobody waits for; no signal comes of it. */
void report_send(int *fd, const struct error *why);

/* In the parent, which has closed ends[1]: wait for the word. Returns 0 or -EIO with the child's
 * line; one that ended without is called by who. */
int report_await(int fd, const char *who, struct error *err);

#endif

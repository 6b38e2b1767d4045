/* excused.h - the rows of the decode table that are not tried at CPL 3 on the
 * host, each with its reason. */
#ifndef LODGE_TESTS_ORACLE_EXCUSED_H
#define LODGE_TESTS_ORACLE_EXCUSED_H

/* Why the row is not tried, or NULL when it must be. */
const char *excused(unsigned row);

#endif

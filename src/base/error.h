/* error.h - the one error type. A function that can fail returns 0 (or a
 * count) on success and a negative errno on failure, and fills its trailing
 * `struct error *err` with one line that says what is wrong, where, and what
 * to do. The line travels up unchanged or gains context on its way
 * (error_prepend); only the command prints it. `err` may be NULL everywhere:
 * then only the code is returned. */
#ifndef LODGE_BASE_ERROR_H
#define LODGE_BASE_ERROR_H

#include <errno.h>

struct error {
    int code;       /* a positive errno; 0: no error */
    char text[512]; /* one line, no newline, cut with "..." when too long */
};

/* Fill err with code (a positive errno) and the formatted line.
 * Returns -code, so that `return error_set(err, EINVAL, "...")` reads well. */
int error_set(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Like error_set, and appends ": " and the system's words for code. */
int error_system(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put the formatted text and ": " before what err says. The code stays. */
void error_prepend(struct error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif

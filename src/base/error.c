#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void finish(struct error *err, int length)
{
    if (length >= (int)sizeof(err->text))
        memcpy(err->text + sizeof(err->text) - 4, "...", 4);
    for (char *c = err->text; *c; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
}

int error_set(struct error *err, int code, const char *format, ...)
{
    va_list args;

    if (!err)
        return -code;
    err->code = code;
    va_start(args, format);
    finish(err, vsnprintf(err->text, sizeof(err->text), format, args));
    va_end(args);
    return -code;
}

int error_system(struct error *err, int code, const char *format, ...)
{
    char what[sizeof(err->text)];
    char words[128];
    va_list args;

    if (!err)
        return -code;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    return error_set(err, code, "%s: %s", what, strerror_r(code, words, sizeof(words)));
}

void error_prepend(struct error *err, const char *format, ...)
{
    char before[sizeof(err->text)];
    char after[sizeof(err->text)];
    va_list args;

    if (!err)
        return;
    memcpy(after, err->text, sizeof(after));
    va_start(args, format);
    vsnprintf(before, sizeof(before), format, args);
    va_end(args);
    error_set(err, err->code, "%s: %s", before, after);
}

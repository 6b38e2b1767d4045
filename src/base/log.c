#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void log_write(const struct log *log, enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"error: ", "warning: ", "", "debug: "};
    char line[1024];
    va_list args;
    int length;

    if (!log || level > log->level)
        return;
    length = snprintf(line, sizeof(line), "lodge: %s", names[level]);
    va_start(args, format);
    length += vsnprintf(line + length, sizeof(line) - (size_t)length - 1, format, args);
    va_end(args);
    if (length > (int)sizeof(line) - 2)
        length = (int)sizeof(line) - 2;
    line[length++] = '\n';
    if (write(log->fd, line, (size_t)length) < 0)
        return; /* nobody is left to tell */
}

/* log.h - the one logger: lines for the operator, never for the guest's data.
 * A `struct log` is made by main and passed down; a NULL log is silent. Lines
 * may be written from any thread; each is one write(2). */
#ifndef LODGE_BASE_LOG_H
#define LODGE_BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

struct log {
    int fd;               /* where lines go; not owned */
    enum log_level level; /* what is above it is dropped */
};

void log_write(const struct log *log, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(log, ...)   log_write(log, LOG_ERROR, __VA_ARGS__)
#define log_warning(log, ...) log_write(log, LOG_WARNING, __VA_ARGS__)
#define log_info(log, ...)    log_write(log, LOG_INFO, __VA_ARGS__)
#define log_debug(log, ...)   log_write(log, LOG_DEBUG, __VA_ARGS__)

#endif

/* progress.h - how far long work is, for whoever shows it. */
#ifndef LODGE_IMAGE_PROGRESS_H
#define LODGE_IMAGE_PROGRESS_H

#include <stddef.h>
#include <stdint.h>

/* A pointer to one is NULL where nobody looks. */
struct progress {
    /* Item number i, known as label, has done of total bytes. Comes often and from any thread. */
    void (*update)(struct progress *progress, size_t i, const char *label, uint64_t done,
                   uint64_t total);
};

static inline void progress_update(struct progress *progress, size_t i, const char *label,
                                   uint64_t done, uint64_t total)
{
    if (progress)
        progress->update(progress, i, label, done, total);
}

#endif

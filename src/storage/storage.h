/* storage.h - how the disks of one thread do their I/O: io_uring(7), or a pool
 * of threads where the kernel forbids that. One `struct storage` serves any
 * number of disks. It and its disks belong to the thread that made it (which is
 * the loop's, when there is a loop); nothing here may be called from others. */
#ifndef LODGE_STORAGE_STORAGE_H
#define LODGE_STORAGE_STORAGE_H

#include "base/error.h"
#include "base/loop.h"
#include "base/sandbox.h"

struct storage;

/* engine: "auto" (or NULL), "uring" or "threads". With a loop, requests end from
 * its loop_run; without one (NULL), from storage_wait. */
int storage_create(struct loop *loop, const char *engine, struct storage **ret_storage,
                   struct error *err);
/* All disks must have been closed. NULL is ignored. */
void storage_destroy(struct storage *storage);

/* "uring" or "threads". */
const char *storage_engine(const struct storage *storage);

/* Block until some I/O ends, and handle all that has ended. Returns at once when
 * nothing is under way. Not from a request's done. */
void storage_wait(struct storage *storage);

/* Threads that this storage has started keep to the sandbox (or NULL) before they do any further
 * I/O; in one that refuses, every I/O fails. The sandbox lives as long. */
void storage_confine(struct storage *storage, const struct sandbox *sandbox);

/* Between hold and release, new I/O is gathered; release hands it to the kernel
 * with one call. They nest. A device that takes many requests off a ring wants
 * this; all else works without. */
void storage_hold(struct storage *storage);
void storage_release(struct storage *storage);

#endif

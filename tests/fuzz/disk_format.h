/* disk_format.h - a hostile disk image of one format: opened, mapped and read here and there;
 * what can be written is written to, checked and repaired too. */
#ifndef LODGE_TESTS_FUZZ_DISK_FORMAT_H
#define LODGE_TESTS_FUZZ_DISK_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "storage/format.h"

void fuzz_disk(const struct disk_format *format, bool writable, const uint8_t *image,
               size_t length);

#endif

/* size.h - sizes as people write them: 512M, 10G, 1.5T, 65536. */
#ifndef LODGE_BASE_SIZE_H
#define LODGE_BASE_SIZE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Parse text into bytes. Suffixes K M G T P E (powers of 1024, either case, an
 * optional "iB" or "B" after them); no suffix means unit times the number
 * (unit 1: bytes). Fractions are allowed with a suffix. -EINVAL with a line
 * that quotes the text when it is not a size, -ERANGE when it is too large. */
int size_parse(const char *text, uint64_t unit, uint64_t *ret_size, struct error *err);

/* Write bytes as a short text ("1.5 GiB") into buffer, and return it. */
const char *size_format(uint64_t bytes, char *buffer, size_t length);

#endif

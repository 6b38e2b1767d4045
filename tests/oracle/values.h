/* values.h - numbers worth computing with: mostly random, often a limit of
 * their type, for floating point every class there is. */
#ifndef LODGE_TESTS_ORACLE_VALUES_H
#define LODGE_TESTS_ORACLE_VALUES_H

#include "image.h"
#include "random.h"

uint64_t value_integer(struct random *r);

/* 16 bytes: integers, floating point of either size, text, or noise. */
void value_vector(struct random *r, uint8_t *bytes);

/* Every register, flag and byte of data; the FPU's modes mask all exceptions
 * but now and then. RSP, RIP and segments are the caller's. */
void values_fill(struct random *r, struct image *image, struct image_memory *memory);

#endif

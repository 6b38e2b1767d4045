/* generate.h - makes instructions from the rows of the decode table, and
 * states in which they do something: pointers point to data, counts are
 * small, branches stay near.
 *
 * What the code under test can reach is bounded, so that it may also run on
 * the host: its pointers, its stack and its branch targets lead to the pages
 * of image.h or to unmapped ones. */
#ifndef LODGE_TESTS_ORACLE_GENERATE_H
#define LODGE_TESTS_ORACLE_GENERATE_H

#include "image.h"
#include "random.h"

/* An instruction of that row into bytes, with immediates and displacements
 * still as they fell. False: the row has none in this mode. */
bool generate_bytes(struct random *r, unsigned row, enum x86_mode mode,
                    uint8_t bytes[X86_INSN_MAX], struct x86_insn *ret_insn);

/* Lead it somewhere. bytes is the instruction and will be at the linear
 * address `address`; registers, memory and the bytes themselves (displacement,
 * branch) are adjusted. A calm one seldom faults. False: this one has no safe use, make another. */
bool generate_aim(struct random *r, struct image *image, struct image_memory *memory,
                  uint64_t address, uint8_t *bytes, struct x86_insn *insn, bool calm);

#endif

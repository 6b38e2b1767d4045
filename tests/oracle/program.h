/* program.h - sequences of instructions: straight runs, branches over some of
 * them, bounded loops, calls and indirect jumps, stores into the code that
 * runs, memory operands that cross pages or fault. */
#ifndef LODGE_TESTS_ORACLE_PROGRAM_H
#define LODGE_TESTS_ORACLE_PROGRAM_H

#include "image.h"
#include "random.h"

struct program {
    enum x86_mode mode;
    bool privileged;  /* instructions for CPL 0 too */
    bool for_host;    /* nothing that could reach memory of the process, or is the model's */
    bool ways;        /* many loops with conditions, calls and indirect branches */
    uint64_t start;   /* linear address of the first instruction */
    unsigned length;  /* bytes */
    unsigned count;   /* instructions, those that set up pointers included */
};

/* Make a program of that mode and kind, and the state to start it in; fills
 * the rest of *program. */
void program_make(struct random *r, struct program *program, struct image *image,
                  struct image_memory *memory);

/* Instead: bytes, some of them instructions. */
void program_noise(struct random *r, enum x86_mode mode, struct image *image,
                   struct image_memory *memory, struct program *ret_program);

/* Its disassembly, one instruction a line, to stdout. */
void program_print(const struct program *program, const struct image_memory *memory);

#endif

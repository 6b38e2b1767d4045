/* library.h - libraries that only some verbs need, loaded when first needed.
 *
 * Linked in the usual way, libarchive, libcurl and OpenSSL bring forty libraries
 * with them, and the dynamic linker binds them all at each start of `lodge`: 14 ms
 * here, more than a whole container takes. So the program holds a jump for each of
 * their functions instead, and library_load binds the jumps. Sources call the
 * functions as their headers declare them, but only after library_load has said
 * that the library is there. A function belongs to one library only. */
#ifndef LODGE_BASE_LIBRARY_H
#define LODGE_BASE_LIBRARY_H

#include "base/error.h"

struct library {
    const char *soname, *package;
    const struct library_symbol {
        const char *name;
        void **slot; /* where its jump leads; written once, always with the same value */
    } * symbols;
};

/* Bind the functions of a library. Cheap when it is loaded already; any thread.
 * -ENOENT when the library or one of its functions is missing. */
int library_load(const struct library *library, struct error *err);

/* At file scope: the jump of a function, and its row in a table that {NULL, NULL} ends. */
#define LIBRARY_SYMBOL(function)                                                                   \
    __attribute__((used)) static void *slot_##function __asm__("slot_" #function);                 \
    __asm__(".pushsection .text\n"                                                                 \
            ".globl " #function "\n"                                                               \
            ".type " #function ", @function\n" #function ":\n"                                     \
            "    jmp *slot_" #function "(%rip)\n"                                                  \
            ".size " #function ", . - " #function "\n"                                             \
            ".popsection");

#define LIBRARY_ROW(function) {#function, &slot_##function},

#endif

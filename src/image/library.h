/* library.h - libraries that only some verbs need, loaded when first needed.
 *
 * Linked in the usual way, libarchive, libcurl and libcrypto bring forty
 * libraries with them, and the dynamic linker binds them all at each start of
 * `lodge`: 14 ms here, more than a whole container takes. So the program holds
 * a jump for each of their functions instead, and library_load binds the jumps.
 * Sources call the functions as their headers declare them, but only after
 * library_load has said that the library is there. */
#ifndef LODGE_IMAGE_LIBRARY_H
#define LODGE_IMAGE_LIBRARY_H

#include "base/error.h"

struct library;
extern const struct library library_archive, library_crypto, library_curl;

/* Bind the functions of a library. Cheap when it is loaded already; any thread.
 * -ENOENT when the library or one of its functions is missing. */
int library_load(const struct library *library, struct error *err);

#endif

/* library.h - the libraries that images need, to be loaded before their functions
 * are called (base/library.h). */
#ifndef LODGE_IMAGE_LIBRARY_H
#define LODGE_IMAGE_LIBRARY_H

#include "base/library.h"

extern const struct library library_archive, library_crypto, library_curl;

#endif

/* interpret.h - the reference engine: complete and obvious. The oracle of the
 * translator, and what runs where nothing else does. */
#ifndef LODGE_ENGINE_INTERPRET_INTERPRET_H
#define LODGE_ENGINE_INTERPRET_INTERPRET_H

#include "engine/engine.h"

extern const struct engine_ops interpret_engine;

#endif

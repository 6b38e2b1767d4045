/* translate.h - the engine that turns guest code into host code; for the table of engines. */
#ifndef LODGE_ENGINE_TRANSLATE_TRANSLATE_H
#define LODGE_ENGINE_TRANSLATE_TRANSLATE_H

#include "engine/engine.h"

extern const struct engine_ops translate_engine;

#endif

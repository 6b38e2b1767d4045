/* interpret.h - the reference engine: complete and obvious. The oracle of the
 * translator, and what runs where nothing else does. */
#ifndef LODGE_ENGINE_INTERPRET_INTERPRET_H
#define LODGE_ENGINE_INTERPRET_INTERPRET_H

#include "engine/engine.h"

/* Carry out one instruction, exceptions included; the vCPU is not running. False: it shut down. */
bool interpret_step(struct vcpu *vcpu);

extern const struct engine_ops interpret_engine;

#endif

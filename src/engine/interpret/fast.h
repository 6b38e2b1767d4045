/* fast.h - bodies for the forms that make up most of what runs: operation,
 * size and kinds of operands fixed, so that nothing is decided at run time.
 * Each does exactly what the general body does. */
#ifndef LODGE_ENGINE_INTERPRET_FAST_H
#define LODGE_ENGINE_INTERPRET_FAST_H

#include "engine/interpret/cpu.h"

/* The fast form of insn, or general when it has none. */
interpret_body *interpret_fast_body(const struct x86_insn *insn, interpret_body *general);

#endif

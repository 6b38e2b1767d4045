/* stack.h - pushes, pops, and RSP, which may be behind what they moved it by: see stack.c.
 * Private to the files that emit. */
#ifndef LODGE_ENGINE_TRANSLATE_STACK_H
#define LODGE_ENGINE_TRANSLATE_STACK_H

#include "engine/translate/build.h"

/* Move RSP, flags stay. */
void stack_move(struct build *b, int32_t by);
/* It is to be where it belongs. */
void stack_bring_in(struct build *b);
/* The same, if step i or a way to it asks for that. */
void stack_before_step(struct build *b, unsigned i);
/* Whether the step only moves RSP by a constant, and so needs no code now. */
bool stack_moves(struct build *b, unsigned i);
void stack_emit_push(struct build *b, unsigned i);
void stack_emit_pop(struct build *b, unsigned i);
void stack_emit_leave(struct build *b, unsigned i);
/* Operand 0 of PUSH, CALL and JMP into scratch_value. */
void stack_fetch_operand(struct build *b, unsigned i);
/* What a call pushes; what a return pops, into s1, and what it moves RSP by. */
void stack_push_return(struct build *b, unsigned i);
int stack_pop_return(struct build *b, unsigned i);

#endif

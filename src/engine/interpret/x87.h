/* x87.h - the x87 registers as they are kept: ST(i) relative to TOP. Private
 * to src/engine/interpret/. */
#ifndef LODGE_ENGINE_INTERPRET_X87_H
#define LODGE_ENGINE_INTERPRET_X87_H

#include "x86/state.h"

static inline unsigned x87_top(const struct x86_xsave *fpu)
{
    return (fpu->fsw & FSW_TOP) >> FSW_TOP_SHIFT;
}

/* Move TOP; every physical register keeps its content. */
void x87_set_top(struct x86_xsave *fpu, unsigned top);

/* Make the summary bits ES and B agree with flags and masks (SDM 1 8.1.3.3). */
void x87_summarize(struct x86_xsave *fpu);

#endif

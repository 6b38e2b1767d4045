/* trap.h - exceptions that the host raises in emitted code (#DE of a division,
 * #GP of an unaligned operand): they come as signals, and go on as exits. */
#ifndef LODGE_ENGINE_TRANSLATE_TRAP_H
#define LODGE_ENGINE_TRANSLATE_TRAP_H

#include "engine/translate/translator.h"

/* Make the thread ready to run t's code: GS, an alternate stack, and the
 * process's handlers for SIGSEGV and SIGFPE, which pass on what is not ours. */
int trap_prepare_thread(struct translator *t, struct error *err);
/* t goes: this thread runs its code no more. */
void trap_release_thread(const struct translator *t);

#endif

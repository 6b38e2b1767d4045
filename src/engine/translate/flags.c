/* The status flags to memory and back, around code that has to use them. PUSHF and
 * POPF are slow, and there is no stack: LAHF and SETO take them, an addition that
 * overflows and SAHF give them back. */
#include "engine/translate/build.h"

void flags_emit_save(struct emit *e)
{
    static const uint8_t get[] = {0x9f, 0x0f, 0x90, 0xc0}; /* LAHF; SETO AL */

    emit_store(e, FIELD(saved_rax), X86_RAX);
    emit_bytes(e, get, sizeof(get));
    emit_rm(e, false, 0x89, X86_RAX, FIELD(saved_flags));
    emit_load(e, X86_RAX, FIELD(saved_rax));
}

void flags_emit_restore(struct emit *e)
{
    static const uint8_t put[] = {0x04, 0x7f, 0x9e}; /* ADD AL, 127; SAHF */

    emit_store(e, FIELD(saved_rax), X86_RAX);
    emit_rm(e, false, 0x8b, X86_RAX, FIELD(saved_flags));
    emit_bytes(e, put, sizeof(put));
    emit_load(e, X86_RAX, FIELD(saved_rax));
}

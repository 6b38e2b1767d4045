/* A second look, out of line: what an address check did not find in the software TLB may
 * be in its second way, where a page with the same index displaced it (interpret/tlb.h).
 *
 * Assumption: pages that displace each other are used in turn, as where a kernel's random
 * layout puts two things a multiple of 256 MiB apart, or a program copies from one large
 * area to another. So the two ways change over without a way to C, and the check is made
 * again. The flags are left alone, for who needs them. */
#include "base/bytes.h"
#include "engine/translate/build.h"

#define TABLE(rights, field)                                                                       \
    (offsetof(struct translator, cpu.tlb.tables) + (rights) * sizeof(struct tlb_table) +          \
     offsetof(struct tlb_table, field))

/* What changes over: where each lies in an entry, and in its second way. */
static const struct {
    size_t first, second;
} fields[] = {
    {offsetof(struct tlb_table, read), offsetof(struct tlb_second, read)},
    {offsetof(struct tlb_table, write), offsetof(struct tlb_second, write)},
    {offsetof(struct tlb_table, execute), offsetof(struct tlb_second, execute)},
    {offsetof(struct tlb_table, physical), offsetof(struct tlb_second, physical)},
    {offsetof(struct tlb_table, addend), offsetof(struct tlb_second, addend)},
};

static void restore(struct emit *e)
{
    emit_load(e, X86_RAX, FIELD(second_rax));
    emit_load(e, X86_RCX, FIELD(second_rcx));
    emit_load(e, X86_RDX, FIELD(second_rdx));
}

/* R10 holds the number of the site, for leaving; R11 where to go on. The address is in
 * scratch_address; registers are as between units. */
static void emit_look(struct translator *t, struct emit *e, enum tlb_rights rights, bool write)
{
    const size_t table = TABLE(rights, read), second = TABLE(rights, second);
    const size_t tag = write ? offsetof(struct tlb_second, write)
                             : offsetof(struct tlb_second, read);
    uint8_t *hit;

    emit_store(e, FIELD(second_rax), X86_RAX);
    emit_store(e, FIELD(second_rcx), X86_RCX);
    emit_store(e, FIELD(second_rdx), X86_RDX);
    emit_store(e, FIELD(second_resume), X86_R11);
    emit_load(e, X86_RAX, FIELD(scratch_address));
    emit_rorx(e, X86_RDX, X86_RAX, 12);
    emit_movzx16(e, X86_RDX, X86_RDX);
    emit_lea(e, X86_R11, /* eighths of a second way */
             (struct emit_memory){EMIT_NONE, X86_RDX, sizeof(struct tlb_second) / 8, false, 0});
    emit_load(e, X86_RCX, emit_element(second + tag, X86_R11));
    emit_lea(e, X86_RCX, emit_based(X86_RCX, X86_RAX, 0));
    emit_pext(e, X86_RCX, X86_RCX, FIELD(page_mask));
    hit = emit_jrcxz(e);
    restore(e);
    emit_jump_to(e, t->leave);
    emit_patch_short(hit, e->at);
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        const struct emit_memory a = emit_element(table + fields[i].first, X86_RDX);
        const struct emit_memory b = emit_element(second + fields[i].second, X86_R11);

        emit_load(e, X86_RAX, a);
        emit_load(e, X86_RCX, b);
        emit_store(e, a, X86_RCX);
        emit_store(e, b, X86_RAX);
    }
    emit_load(e, X86_RAX, FIELD(stats.seconds));
    emit_lea(e, X86_RAX, emit_based(X86_RAX, EMIT_NONE, 1));
    emit_store(e, FIELD(stats.seconds), X86_RAX);
    restore(e);
    emit_rm(e, false, 0xff, 4, FIELD(second_resume)); /* JMP */
}

void second_emit_routines(struct translator *t)
{
    for (unsigned rights = 0; rights < TLB_RIGHTS; rights++)
        for (unsigned write = 0; write < 2; write++) {
            t->second_look[rights][write] = t->cache.emit.at;
            emit_look(t, &t->cache.emit, (enum tlb_rights)rights, write);
        }
}

void second_leave(struct build *b, const struct site *site, enum tlb_rights rights)
{
    static const uint8_t lea_r11[] = {0x4c, 0x8d, 0x1d}; /* LEA R11, [RIP+displacement] */
    struct emit *e = b->e;
    uint8_t *resume;

    emit_bytes(e, lea_r11, sizeof(lea_r11));
    resume = e->at;
    emit_u32(e, 0);
    emit_constant(e, X86_R10, (uint64_t)(site - b->t->cache.sites));
    relocate_note(&b->relocations, RELOCATE_SITE, e->at - 4);
    emit_jump_to(e, b->t->second_look[rights][site->checked == X86_WRITE]);
    emit_patch(resume, e->at);
}

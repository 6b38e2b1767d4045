/* The state of the CPUs as text, for crash files. */
#include "machine/machine-private.h"

static const char *const gpr_names[X86_GPRS] = {
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15",
};
static const char *const segment_names[X86_SEGMENTS] = {"es", "cs", "ss",  "ds",
                                                        "fs", "gs", "ldtr", "tr"};
static const char *const activities[] = {"running", "halted", "wait for SIPI", "shutdown"};

static void dump_cpu(const struct machine_cpu *cpu, FILE *out)
{
    struct x86_state s;

    cpu->vcpu->ops->get_state(cpu->vcpu, &s);
    fprintf(out, "cpu %u: %s%s%s%s%s\n", cpu->index, activities[s.activity],
            s.interrupt_shadow ? ", interrupt shadow" : "", s.nmi_blocked ? ", NMIs blocked" : "",
            s.nmi_pending ? ", NMI pending" : "", s.debug_trap ? ", debug trap due" : "");
    for (int i = 0; i < X86_GPRS; i++)
        fprintf(out, "%-4s %016llx%c", gpr_names[i], (unsigned long long)s.gpr[i],
                i % 4 == 3 ? '\n' : ' ');
    fprintf(out, "rip  %016llx rflags %016llx\n", (unsigned long long)s.rip,
            (unsigned long long)s.rflags);
    for (int i = 0; i < X86_SEGMENTS; i++)
        fprintf(out, "%-4s %04x base %016llx limit %08x attributes %04x\n", segment_names[i],
                s.segment[i].selector, (unsigned long long)s.segment[i].base, s.segment[i].limit,
                s.segment[i].attributes);
    fprintf(out, "gdtr base %016llx limit %04x; idtr base %016llx limit %04x\n",
            (unsigned long long)s.gdtr.base, s.gdtr.limit, (unsigned long long)s.idtr.base,
            s.idtr.limit);
    fprintf(out, "cr0 %llx cr2 %llx cr3 %llx cr4 %llx cr8 %llx efer %llx xcr0 %llx\n",
            (unsigned long long)s.cr0, (unsigned long long)s.cr2, (unsigned long long)s.cr3,
            (unsigned long long)s.cr4, (unsigned long long)s.cr8, (unsigned long long)s.efer,
            (unsigned long long)s.xcr0);
    fprintf(out, "dr0 %llx dr1 %llx dr2 %llx dr3 %llx dr6 %llx dr7 %llx\n\n",
            (unsigned long long)s.dr[0], (unsigned long long)s.dr[1], (unsigned long long)s.dr[2],
            (unsigned long long)s.dr[3], (unsigned long long)s.dr6, (unsigned long long)s.dr7);
}

void machine_dump(struct machine *machine, FILE *out)
{
    fprintf(out, "%s\nengine %s\n\n", machine->outcome.why.text, machine->engine->ops->name);
    for (unsigned i = 0; i < machine->config.cpus; i++)
        dump_cpu(&machine->cpus[i], out);
}

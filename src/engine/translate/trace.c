#include "engine/translate/trace.h"

#include <errno.h>
#include <unistd.h>

int trace_open(struct translator *t, struct error *err)
{
    const struct engine_config *config = &t->cpu.soft->config;
    char path[64];

    if (config->trace_path) {
        t->trace = fopen(config->trace_path, "ae"); /* all CPUs write to it, a line at a time */
        if (!t->trace)
            return error_system(err, errno, "cannot write the trace '%s'", config->trace_path);
        setlinebuf(t->trace);
    }
    if (config->perf_map) {
        snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid()); /* where perf looks */
        t->perf_map = fopen(path, "ae");
        if (!t->perf_map)
            return error_system(err, errno, "cannot write '%s'", path);
        setlinebuf(t->perf_map); /* perf may look at any time */
    }
    return 0;
}

void trace_close(struct translator *t)
{
    if (t->trace)
        fclose(t->trace);
    if (t->perf_map)
        fclose(t->perf_map);
}

void trace_unit(struct translator *t, const struct unit *unit)
{
    if (t->perf_map)
        fprintf(t->perf_map, "%lx %x guest_%llx\n", (unsigned long)code_of(&t->cache, unit->code),
                unit->size, (unsigned long long)unit->linear);
}

/* As far as the unit's first branch. */
void trace_entry(struct translator *t, const struct unit *unit)
{
    struct memory_slot *slot;
    const uint8_t *host = soft_engine_host(t->cpu.soft, unit->physical, &slot);
    size_t left = (size_t)(PAGE_SIZE - (unit->physical & ~PAGE_MASK));
    uint64_t rip = unit->linear;
    struct x86_insn insn;
    char text[128];

    fprintf(t->trace, "cpu %u unit %llx mode %x\n", t->cpu.vcpu.index,
            (unsigned long long)unit->linear, unit->mode);
    while (host && left && x86_decode(host, left, t->cpu.code_size, &insn) == X86_DECODE_OK) {
        fprintf(t->trace, "cpu %u     %llx: %s\n", t->cpu.vcpu.index, (unsigned long long)rip,
                x86_disassemble(&insn, rip, text, sizeof(text)));
        if (x86_rows[insn.row].attributes & X86_ATTR_BRANCH)
            break;
        host += insn.length;
        rip += insn.length;
        left -= insn.length;
    }
}

#include "excused.h"

#include <string.h>

#include "base/bytes.h"
#include "x86/decode.h"

#define TABLES "reads descriptor tables that Linux and the guest fill differently"
#define KERNEL "enters the kernel, which is Linux on the host"
#define FAR    "leads to segments that only one of the two has"
#define MODEL  "tells of the model, not of the program"

static const struct {
    uint16_t op;
    const char *reason;
} reasons[] = {
    {X86_OP_VERR, TABLES},     {X86_OP_VERW, TABLES},     {X86_OP_LAR, TABLES},
    {X86_OP_LSL, TABLES},      {X86_OP_SLDT, TABLES},     {X86_OP_STR, TABLES},
    {X86_OP_SGDT, TABLES},     {X86_OP_SIDT, TABLES},     {X86_OP_SMSW, TABLES},
    {X86_OP_MOV_TO_SREG, TABLES}, {X86_OP_POP_SREG, TABLES}, {X86_OP_LDS, TABLES},
    {X86_OP_LES, TABLES},      {X86_OP_LSS, TABLES},      {X86_OP_LFS, TABLES},
    {X86_OP_LGS, TABLES},
    {X86_OP_INT, KERNEL},      {X86_OP_SYSCALL, KERNEL},  {X86_OP_SYSENTER, KERNEL},
    {X86_OP_JMP_FAR, FAR},     {X86_OP_CALL_FAR, FAR},    {X86_OP_RET_FAR, FAR},
    {X86_OP_IRET, FAR},
    {X86_OP_CPUID, MODEL},     {X86_OP_RDPMC, MODEL},     {X86_OP_MONITOR, MODEL},
    {X86_OP_MWAIT, MODEL},     {X86_OP_VMCALL, MODEL},    {X86_OP_VMMCALL, MODEL},
    {X86_OP_SYSRET, "outside 64-bit mode Intel has none, AMD has"},
    {X86_OP_ICEBP, "traps at another address where the host is itself a virtual machine"},
    {X86_OP_WRFSBASE, "moves the base that the C library's thread data hangs on"},
    {X86_OP_WRGSBASE, "moves a base that the harness counts on"},
};

const char *excused(unsigned row)
{
    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
        if (reasons[i].op == x86_rows[row].op)
            return reasons[i].reason;
    if (!strcmp(x86_rows[row].encoding, "0F 0D /r reg"))
        return "is a NOP on Intel, invalid on AMD";
    return NULL;
}

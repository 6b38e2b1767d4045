#include "compare.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const gpr_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

#define FSW_ES   (1u << 7)
#define MXCSR_OE (1u << 3)
#define MXCSR_UE (1u << 4)
#define MXCSR_PE (1u << 5)

/* The tolerance, once it is known whether it faulted. */
struct allowed {
    uint64_t flags;
    uint32_t from, to;
    uint16_t registers, halves, vectors, high, mxcsr;
    bool x87;
};

/* One faulted, the other did nothing but note an x87 exception for the next instruction. */
static bool only_one_is_pending(const struct image *a, const struct image *b)
{
    const struct image *done = a->vector == X86_BP ? a : b;

    return (a->vector == X86_BP) != (b->vector == X86_BP) && (done->fpu.fsw & FSW_ES);
}

/* What differs, as text that grows. */
struct findings {
    char *text;
    size_t length, used;
};

__attribute__((format(printf, 2, 3))) static void found(struct findings *f, const char *format, ...)
{
    va_list arguments;
    int n;

    if (f->used >= f->length)
        return;
    va_start(arguments, format);
    n = vsnprintf(f->text + f->used, f->length - f->used, format, arguments);
    va_end(arguments);
    f->used += n > 0 ? (size_t)n : 0;
}

static void compare_number(struct findings *f, const char *name, uint64_t a, uint64_t b)
{
    if (a != b)
        found(f, " %s %llx/%llx", name, (unsigned long long)a, (unsigned long long)b);
}

static void compare_vector(struct findings *f, const char *name, unsigned i, const uint8_t *a,
                           const uint8_t *b)
{
    if (!memcmp(a, b, 16))
        return;
    found(f, " %s%u ", name, i);
    for (unsigned k = 16; k-- > 0;)
        found(f, "%02x", a[k]);
    found(f, "/");
    for (unsigned k = 16; k-- > 0;)
        found(f, "%02x", b[k]);
}

/* FIP, FDP and FOP are left out: AMD keeps them only for exceptions. */
static void compare_fpu(struct findings *f, const struct x86_xsave *a, const struct x86_xsave *b,
                        const struct allowed *t)
{
    compare_number(f, "fcw", a->fcw, b->fcw);
    compare_number(f, "mxcsr", a->mxcsr & ~(uint32_t)t->mxcsr, b->mxcsr & ~(uint32_t)t->mxcsr);
    if (!t->x87) {
        compare_number(f, "fsw", a->fsw, b->fsw);
        compare_number(f, "ftw", a->ftw, b->ftw);
    }
    for (unsigned i = 0; !t->x87 && i < 8; i++)
        if (a->st[i].significand != b->st[i].significand ||
            a->st[i].sign_exponent != b->st[i].sign_exponent)
            found(f, " st%u %04x:%016llx/%04x:%016llx", i, a->st[i].sign_exponent,
                  (unsigned long long)a->st[i].significand, b->st[i].sign_exponent,
                  (unsigned long long)b->st[i].significand);
    for (unsigned i = 0; i < 16; i++) {
        if (t->vectors >> i & 1)
            continue;
        compare_vector(f, "xmm", i, a->xmm[i], b->xmm[i]);
        if (!(t->high >> i & 1))
            compare_vector(f, "ymm_high", i, a->ymm_high[i], b->ymm_high[i]);
    }
}

static void compare_bytes(struct findings *f, uint32_t address, const uint8_t *a, const uint8_t *b,
                          size_t size, size_t from, size_t to)
{
    unsigned shown = 0;

    if (!memcmp(a, b, size))
        return;
    for (size_t i = 0; i < size && shown < 8; i++)
        if (a[i] != b[i] && (i < from || i >= to)) {
            found(f, " [%zx] %02x/%02x", address + i, a[i], b[i]);
            shown++;
        }
}

/* Our pages, and around them. */
static bool is_near(uint64_t address)
{
    const uint64_t around = 0x100000;

    return address - (IMAGE_CODE - around) < 2 * around ||
           address - (IMAGE_DATA - around) < 2 * around || address < IMAGE_CODE;
}

bool compare_outcomes(const struct image *a, const struct image_memory *a_memory,
                      const struct image *b, const struct image_memory *b_memory,
                      const struct tolerance *tolerance, char *text, size_t length)
{
    struct findings f = {text, length, 0};
    struct allowed t = {.flags = tolerance->flags, .registers = tolerance->registers,
                        .halves = tolerance->halves, .from = tolerance->from, .to = tolerance->to};

    /* What faulted has not happened: little of it is undefined. */
    if (a->vector != X86_BP || b->vector != X86_BP) {
        if (tolerance->fault_any || (tolerance->fault_pending && only_one_is_pending(a, b)))
            return true;
        t = (struct allowed){.flags = tolerance->fault_flags,
                             .registers = tolerance->fault_registers,
                             .halves = tolerance->fault_halves,
                             .vectors = tolerance->fault_vectors,
                             .high = tolerance->fault_high,
                             .mxcsr = tolerance->fault_mxcsr,
                             .to = tolerance->fault_memory ? IMAGE_DATA_SIZE : 0,
                             .x87 = tolerance->fault_x87};
        /* Whether an unmasked overflow or underflow is also inexact. */
        if (a->vector == X86_XM && (a->fpu.mxcsr & (MXCSR_OE | MXCSR_UE)))
            t.mxcsr |= MXCSR_PE;
    }
    compare_number(&f, "vector", (uint64_t)(int64_t)a->vector, (uint64_t)(int64_t)b->vector);
    /* What lies elsewhere may be mapped on the host, by its kernel, or as a sanitizer's shadow. */
    compare_number(&f, "error", a->error_code | (is_near(a->cr2) ? 0 : X86_PFEC_P),
                   b->error_code | (is_near(b->cr2) ? 0 : X86_PFEC_P));
    if (!tolerance->fault_address)
        compare_number(&f, "cr2", a->cr2, b->cr2);
    compare_number(&f, "rip", a->rip, b->rip);
    compare_number(&f, "rflags", a->rflags & ~t.flags, b->rflags & ~t.flags);
    for (unsigned i = 0; i < X86_GPRS; i++)
        if (!(t.registers >> i & 1)) {
            const uint64_t mask = t.halves >> i & 1 ? UINT32_MAX : UINT64_MAX;

            compare_number(&f, gpr_names[i], a->gpr[i] & mask, b->gpr[i] & mask);
        }
    compare_fpu(&f, &a->fpu, &b->fpu, &t);
    compare_bytes(&f, IMAGE_DATA, a_memory->data, b_memory->data, IMAGE_DATA_SIZE, t.from, t.to);
    compare_bytes(&f, IMAGE_CODE, a_memory->code, b_memory->code, IMAGE_CODE_SIZE, 0, 0);
    return !f.used;
}

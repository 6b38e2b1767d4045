#include "compare.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const gpr_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

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
                        const struct tolerance *t)
{
    compare_number(f, "fcw", a->fcw, b->fcw);
    compare_number(f, "fsw", a->fsw & ~t->fsw, b->fsw & ~t->fsw);
    compare_number(f, "ftw", a->ftw, b->ftw);
    compare_number(f, "mxcsr", a->mxcsr, b->mxcsr);
    for (unsigned i = 0; i < 8; i++)
        if (a->st[i].significand != b->st[i].significand ||
            a->st[i].sign_exponent != b->st[i].sign_exponent)
            found(f, " st%u %04x:%016llx/%04x:%016llx", i, a->st[i].sign_exponent,
                  (unsigned long long)a->st[i].significand, b->st[i].sign_exponent,
                  (unsigned long long)b->st[i].significand);
    for (unsigned i = 0; i < 16; i++) {
        compare_vector(f, "xmm", i, a->xmm[i], b->xmm[i]);
        compare_vector(f, "ymm_high", i, a->ymm_high[i], b->ymm_high[i]);
    }
}

static void compare_bytes(struct findings *f, uint32_t address, const uint8_t *a, const uint8_t *b,
                          size_t size, const struct tolerance *t, bool data)
{
    unsigned shown = 0;

    if (!memcmp(a, b, size))
        return;
    for (size_t i = 0; i < size && shown < 8; i++)
        if (a[i] != b[i] && !(data && i >= t->from && i < t->to)) {
            found(f, " [%zx] %02x/%02x", address + i, a[i], b[i]);
            shown++;
        }
}

bool compare_outcomes(const struct image *a, const struct image_memory *a_memory,
                      const struct image *b, const struct image_memory *b_memory,
                      const struct tolerance *tolerance, char *text, size_t length)
{
    static const struct tolerance none;
    struct findings f = {text, length, 0};
    const struct tolerance *t = tolerance;

    /* What faulted has not happened: nothing of it is undefined. */
    if (a->vector != X86_BP || b->vector != X86_BP)
        t = &none;
    compare_number(&f, "vector", (uint64_t)(int64_t)a->vector, (uint64_t)(int64_t)b->vector);
    compare_number(&f, "error", a->error_code, b->error_code);
    compare_number(&f, "cr2", a->cr2, b->cr2);
    compare_number(&f, "rip", a->rip, b->rip);
    compare_number(&f, "rflags", a->rflags & ~t->flags, b->rflags & ~t->flags);
    for (unsigned i = 0; i < X86_GPRS; i++)
        if (!(t->registers >> i & 1))
            compare_number(&f, gpr_names[i], a->gpr[i], b->gpr[i]);
    if (!t->fpu)
        compare_fpu(&f, &a->fpu, &b->fpu, t);
    compare_bytes(&f, IMAGE_DATA, a_memory->data, b_memory->data, IMAGE_DATA_SIZE, t, true);
    compare_bytes(&f, IMAGE_CODE, a_memory->code, b_memory->code, IMAGE_CODE_SIZE, t, false);
    return !f.used;
}

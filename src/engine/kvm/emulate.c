/* What KVM has to emulate (an access to a device's registers, mostly) and its
 * emulator lacks, the interpreter carries out: one instruction, on the CPU's
 * state, with the machine's own callbacks. It is rare, so an interpreter is
 * made for each anew and nothing of it can grow old. */
#include "engine/interpret/interpret.h"
#include "engine/kvm/kvm.h"

static int map_slots(const struct kvm_engine *kvm, struct engine *interpreter, struct error *err)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < KVM_SLOTS_MAX; i++) {
        const struct kvm_userspace_memory_region *slot = &kvm->slots[i].region;

        if (slot->memory_size)
            r = interpreter->ops->map(interpreter, slot->guest_phys_addr, slot->memory_size,
                                      (void *)(uintptr_t)slot->userspace_addr,
                                      slot->flags & KVM_MEM_READONLY ? ENGINE_MEMORY_READONLY : 0,
                                      err);
    }
    return r;
}

int kvm_emulate(struct kvm_vcpu *vcpu, struct error *err)
{
    const unsigned index = vcpu->vcpu.index;
    struct engine_config config = vcpu->kvm->config;
    struct engine *interpreter;
    struct x86_state state;
    int r;

    config.cpuid = vcpu->kvm->cpuid;
    config.keep_apics = false;
    r = interpret_engine.create(&config, &interpreter, err);
    if (r < 0)
        return r;
    r = map_slots(vcpu->kvm, interpreter, err);
    if (r == 0)
        r = kvm_get_state(vcpu, &state, err);
    if (r == 0) {
        struct vcpu *one = interpreter->vcpus[index];

        interpret_engine.set_state(one, &state);
        interpret_step(one);
        interpret_engine.get_state(one, &state);
        r = kvm_set_state(vcpu, &state, err);
    }
    interpret_engine.destroy(interpreter);
    return r;
}

/* call.h - the way into the kernel: all that the engine asks of /dev/kvm goes
 * through these three, so that a test can stand in for a host it has not got
 * (tests/unit/engine/kvm.c defines them anew). Private to src/engine/kvm/. */
#ifndef LODGE_ENGINE_KVM_CALL_H
#define LODGE_ENGINE_KVM_CALL_H

#include <stdint.h>
#include <sys/stat.h>

/* open(2) of /dev/kvm; -1 with errno. */
int kvm_call_open(void);
/* stat(2) of it. */
int kvm_call_stat(struct stat *ret_status);
/* ioctl(2); argument is a pointer or a number. */
int kvm_call(int fd, unsigned long request, uintptr_t argument);

/* With a pointer. */
#define KVM_CALL(fd, request, pointer) kvm_call(fd, request, (uintptr_t)(pointer))

#endif

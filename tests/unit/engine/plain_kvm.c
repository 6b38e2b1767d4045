/* KVM as Linux 5.10 has it at least: this host's own, but for what the engine asks for and can
 * do without. Linked into the test of engines' contract, so that both ways are held to it. */
#include <linux/kvm.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/ioctl.h>

#include "base/bytes.h"
#include "engine/kvm/call.h"

static const int optional[] = {KVM_CAP_DIRTY_LOG_RING, KVM_CAP_EXCEPTION_PAYLOAD,
                               KVM_CAP_EXIT_ON_EMULATION_FAILURE};

static bool is_optional(int capability)
{
    for (size_t i = 0; i < ARRAY_SIZE(optional); i++)
        if (optional[i] == capability)
            return true;
    return false;
}

static int refuse(void)
{
    errno = EINVAL;
    return -1;
}

int kvm_call_open(void)
{
    return open("/dev/kvm", O_RDWR | O_CLOEXEC);
}

int kvm_call_stat(struct stat *ret_status)
{
    return stat("/dev/kvm", ret_status);
}

int kvm_call(int fd, unsigned long request, uintptr_t argument)
{
    switch (request) {
    case KVM_CHECK_EXTENSION:
        return is_optional((int)argument) ? 0 : ioctl(fd, request, argument);
    case KVM_ENABLE_CAP:
        return is_optional((int)((const struct kvm_enable_cap *)argument)->cap)
                   ? refuse() : ioctl(fd, request, argument);
    case KVM_IRQFD: case KVM_GET_SREGS2: case KVM_SET_SREGS2: case KVM_GET_DEVICE_ATTR:
    case KVM_SET_DEVICE_ATTR:
        return refuse();
    default:
        return ioctl(fd, request, argument);
    }
}

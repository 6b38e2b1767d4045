"""What the tests under the names of OCI's validation programs share: the configuration that those
programs begin with, and a runtime that may be a peer (OCI_RUNTIME)."""
import json
import os
import shutil

import pytest

from system.oci import Runtime, command_of, needs_root, wait_for

PEER = os.environ.get("OCI_RUNTIME")
CAPABILITIES = [
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP "
        "NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
]


def mount(target, kind, source, options):
    return {"destination": target, "type": kind, "source": source, "options": options.split(",")}


# Calls that a runtime may use, and profiles of some years ago do not know.
NEWER = set(
    "openat2 faccessat2 close_range clone3 epoll_pwait2 mount_setattr open_tree move_mount fsopen "
    "fsconfig fsmount fspick pidfd_open pidfd_getfd pidfd_send_signal fchmodat2 statx rseq "
    "landlock_create_ruleset landlock_add_rule landlock_restrict_self futex_waitv".split()
)


def old_profile():
    """A seccomp profile as OCI's generator makes: what is not named is an EPERM."""
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(os.path.join(top, "src/guest/seccomp.json")) as file:
        rows = json.load(file)["syscalls"]
    names = {
        name for row in rows for name in row["names"]
        if row["action"] == "SCMP_ACT_ALLOW" and not row.get("includes") and not row.get("args")
    }
    names |= {"socket", "personality", "chroot"}
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": sorted(names - NEWER), "action": "SCMP_ACT_ALLOW"}],
    }


# What OCI's generator makes, and the validation programs begin with.
CONFIG = {
    "ociVersion": "1.0.2-dev",
    "hostname": "mrsdalloway",
    "root": {"path": "rootfs"},
    "process": {
        "user": {"uid": 0, "gid": 0},
        "args": ["true"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "capabilities": {
            kind: CAPABILITIES
            for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
        },
    },
    "mounts": [
        mount("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        mount("/dev", "tmpfs", "tmpfs", "nosuid,noexec,strictatime,mode=755,size=65536k"),
        mount(
            "/dev/pts", "devpts", "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
    ],
    "linux": {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in "pid network ipc uts mount".split()],
        "seccomp": old_profile(),
    },
}
NAMESPACES = {
    "ipc": "ipc", "mount": "mnt", "network": "net", "pid": "pid", "uts": "uts", "user": "user",
    "cgroup": "cgroup",
}


V1 = "/sys/fs/cgroup"


def v1_value(controller, group, file):
    with open(os.path.join(V1, controller, group.lstrip("/"), file)) as stream:
        return stream.read().strip()


def needs_controller(controller, file=""):
    for name in ("tasks", file):  # the first is v1's alone
        if not os.path.exists(os.path.join(V1, controller, name)):
            pytest.skip(f"the host has no v1 tree of {controller} with {file or 'it'}")


@pytest.fixture
def runtime(lodge, tmp_path):
    needs_root()
    command = command_of(lodge)
    if PEER:
        command = [shutil.which(PEER)]
    if PEER == "crun":  # it refuses a host with both trees
        hide = 'umount /sys/fs/cgroup/unified; exec "$@"'
        command = ["unshare", "-m", "sh", "-c", hide, "sh", *command]
    runtime = Runtime(command, str(tmp_path))
    spec = runtime.run

    def run(*words, **keywords):
        if words[0] == "spec":  # the configuration is this page's
            with open(os.path.join(words[2], "config.json"), "w") as file:
                json.dump(CONFIG, file)
            return None
        return spec(*words, **keywords)

    runtime.run = run
    yield runtime
    runtime.clean()


def stop(runtime, name):
    runtime.run("kill", name, "KILL")
    assert wait_for(lambda: runtime.status(name) == "stopped")


def wait_stopped(runtime, name):
    assert wait_for(lambda: runtime.status(name) == "stopped")

"""What OCI's validation programs (runtime-tools, validation/) look at, each test under the name of
its program and with the clause of the runtime specification that it holds a runtime to.

OCI_RUNTIME=runc (or crun) runs the same on a peer: what differs there is said where it does.
"""
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time

import pytest

from system.oci import Runtime, cgroups_named, command_of, needs_root
from system.test_oci import wait_for

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


# --- runtime.md: operations ---


def test_create(runtime):
    """runtime.md, Create: an error without an id, and for one that is taken; else a container."""
    bundle = runtime.bundle().save()
    assert runtime.run("create", "--bundle", bundle.path).status != 0
    name = runtime.create(bundle)
    assert runtime.run("create", "--bundle", bundle.path, name).status != 0
    assert runtime.status(name) == "created"


def test_state(runtime):
    """runtime.md, Query State: an error without an id, and for one that is nobody's."""
    assert runtime.run("state").status != 0
    assert runtime.run("state", "nobody").status != 0
    bundle = runtime.bundle()
    bundle.config["annotations"] = {"org.x": "y"}
    state = runtime.run("state", runtime.create(bundle)).json
    assert {"ociVersion", "id", "status", "pid", "bundle", "annotations"} <= set(state)
    assert state["bundle"] == bundle.path and state["annotations"] == {"org.x": "y"}


def test_start(runtime):
    """runtime.md, Start: an error unless it is created, and then no effect."""
    assert runtime.run("start").status != 0
    assert runtime.run("start", "nobody").status != 0
    bundle = runtime.bundle().shell("echo x >> /started; sleep 100")
    name = runtime.start(bundle)
    started = os.path.join(bundle.rootfs, "started")
    assert wait_for(lambda: os.path.exists(started))
    assert runtime.run("start", name).status != 0
    stop(runtime, name)
    assert runtime.run("start", name).status != 0
    with open(started) as file:
        assert file.read() == "x\n"


def test_start_without_a_process_is_an_error(runtime):
    """config.md, Process: REQUIRED when start is called."""
    bundle = runtime.bundle()
    del bundle.config["process"]
    name = runtime.create(bundle, check=False)
    assert runtime.run("start", name).status != 0


@pytest.mark.parametrize("state", ["created", "running"])
def test_delete(runtime, state):
    """runtime.md, Delete: of what is not stopped MUST be an error, and MUST have no effect.
    (runc and crun delete a created container.)"""
    assert runtime.run("delete").status != 0
    bundle = runtime.bundle().args("sleep", "30")
    name = runtime.create(bundle) if state == "created" else runtime.start(bundle)
    assert runtime.run("delete", name).status != 0
    assert runtime.status(name) == state
    stop(runtime, name)
    runtime.run("delete", name, check=True)
    assert runtime.run("state", name).status != 0


def test_delete_resources(runtime):
    """runtime.md, Delete: what create made MUST be deleted."""
    bundle = runtime.bundle()
    name = "lodge-validation-" + runtime.new_id()
    bundle.linux["cgroupsPath"] = "/" + name
    bundle.linux["resources"]["pids"] = {"limit": 1000}
    container = runtime.start(bundle)
    assert cgroups_named(name)
    wait_stopped(runtime, container)
    runtime.run("delete", container, check=True)
    assert not cgroups_named(name)


def test_delete_only_create_resources(runtime):
    """runtime.md, Delete: what create did not make MUST NOT be deleted."""
    needs_controller("pids")
    group = "/sys/fs/cgroup/pids/lodge-validation-other"
    os.makedirs(group, exist_ok=True)
    try:
        name = runtime.create(runtime.bundle())
        with open(os.path.join(group, "cgroup.procs"), "w") as file:
            file.write(str(runtime.run("state", name).json["pid"]))
        runtime.run("start", name, check=True)
        wait_stopped(runtime, name)
        runtime.run("delete", name, check=True)
        assert os.path.isdir(group)
    finally:
        os.rmdir(group)


@pytest.mark.parametrize("state", ["created", "running"])
def test_kill(runtime, state):
    """runtime.md, Kill: the signal MUST be sent to a created or running container's process."""
    assert runtime.run("kill", "KILL").status != 0
    bundle = runtime.bundle().args("sleep", "30")
    name = runtime.create(bundle) if state == "created" else runtime.start(bundle)
    runtime.run("kill", name, "KILL", check=True)
    wait_stopped(runtime, name)


def test_kill_no_effect(runtime):
    """runtime.md, Kill: MUST be an error and have no effect on one that is stopped."""
    assert runtime.run("kill", "nobody", "KILL").status != 0
    name = runtime.start(runtime.bundle())
    wait_stopped(runtime, name)
    state = runtime.run("state", name).json
    assert runtime.run("kill", name, "KILL").status != 0
    assert runtime.run("state", name).json == state


@pytest.mark.parametrize("word", ["TERM", "USR1", "USR2", "10", "SIGHUP"])
def test_killsig(runtime, word):
    """runtime.md, Kill: the signal that is given, no other."""
    bundle = runtime.bundle().shell(
        "for s in TERM USR1 USR2 HUP; do trap \"echo $s > /got\" $s; done; echo > /ready;"
        "while true; do sleep 0.05; done"
    )
    name = runtime.start(bundle)
    assert wait_for(lambda: os.path.exists(os.path.join(bundle.rootfs, "ready")))
    runtime.run("kill", name, word, check=True)
    got = os.path.join(bundle.rootfs, "got")
    assert wait_for(lambda: os.path.exists(got) and open(got).read())
    wanted = {"10": "USR1", "SIGHUP": "HUP"}.get(word, word)
    assert open(got).read() == wanted + "\n"
    stop(runtime, name)


def test_config_updates_without_affect(runtime):
    """runtime.md, Lifecycle, step 2: later changes of config.json MUST NOT affect the container."""
    needs_controller("pids")
    bundle = runtime.bundle().shell("hostname; sleep 100")
    bundle.linux["resources"]["pids"] = {"limit": 77}
    name = runtime.create(bundle)
    state = runtime.run("state", name).json
    bundle.args("false").config["hostname"] = "other"
    bundle.linux["resources"]["pids"] = {"limit": 78}
    bundle.save()
    runtime.run("start", name, check=True)
    assert runtime.run("state", name).json["pid"] == state["pid"]
    with open(f"/proc/{state['pid']}/cgroup") as file:
        group = re.search(r":pids:(.*)", file.read())[1]
    with open(f"/sys/fs/cgroup/pids{group}/pids.max") as file:
        assert file.read() == "77\n"
    assert wait_for(lambda: runtime.output() == "mrsdalloway\n")
    stop(runtime, name)


def test_pidfile(runtime):
    path = os.path.join(runtime.directory, "pid")
    name = runtime.create(runtime.bundle(), "--pid-file", path)
    with open(path) as file:
        assert file.read() == str(runtime.run("state", name).json["pid"])


@pytest.mark.parametrize(
    "change,valid",
    [
        (lambda c: c.update(annotations={"org.unknown": ""}), True),
        (lambda c: c.update(unknown="unknown"), True),
        (lambda c: c["linux"].update(unknown={"a": [1]}), True),
        (lambda c: c.update(ociVersion="invalid"), False),
        (lambda c: c["root"].update(path="not-there"), False),
        (lambda c: c["linux"]["namespaces"].append({"type": "pid"}), False),
    ],
    ids=["annotation", "property", "inner-property", "version", "root", "namespace-twice"],
)
def test_misc_props(runtime, change, valid):
    """config.md, Extensibility, Annotations: what is unknown MUST be ignored; Valid values."""
    bundle = runtime.bundle()
    change(bundle.config)
    assert (runtime.once(bundle).status == 0) == valid


# --- config.md: hooks ---


def hook(script, *, path="/bin/sh", timeout=5):
    return {"path": path, "args": ["sh", "-c", script], "timeout": timeout}


def log_of(runtime):
    return os.path.join(runtime.directory, "log")


def read_log(runtime):
    path = log_of(runtime)
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return file.read().split()


def test_hooks(runtime):
    """config.md, POSIX-platform Hooks: each kind in the order it is listed in, at its time."""
    bundle = runtime.bundle().shell("echo process >> /log")
    log = os.path.join(bundle.rootfs, "log")
    bundle.config["hooks"] = {
        kind: [hook(f"echo {kind}1 >> {log}"), hook(f"echo {kind}2 >> {log}")]
        for kind in ("prestart", "poststart", "poststop")
    }
    name = runtime.start(bundle)
    wait_stopped(runtime, name)
    runtime.run("delete", name, check=True)
    with open(log) as file:
        lines = file.read().split()
    # The process and what follows its start run side by side.
    assert lines[:2] == ["prestart1", "prestart2"] and lines[-2:] == ["poststop1", "poststop2"]
    assert sorted(lines[2:5]) == ["poststart1", "poststart2", "process"]
    assert lines.index("poststart1") < lines.index("poststart2")


def test_hooks_stdin(runtime):
    """config.md, POSIX-platform Hooks: the state over stdin; prestart's container is created.
    (runc says creating.)"""
    bundle = runtime.bundle().args("sleep", "0.3")
    bundle.config["annotations"] = {"org.opencontainers.runtime-tools": "hook stdin test"}
    kinds = "prestart", "poststart", "poststop"
    bundle.config["hooks"] = {
        kind: [hook(f"cat > {runtime.directory}/{kind}")] for kind in kinds
    }
    name = runtime.create(bundle)
    pid = runtime.run("state", name).json["pid"]
    runtime.run("start", name, check=True)
    wait_stopped(runtime, name)
    runtime.run("delete", name, check=True)
    for kind, status in zip(kinds, ("created", "running", "stopped")):
        with open(os.path.join(runtime.directory, kind)) as file:
            state = json.load(file)
        assert (state["id"], state["bundle"], state["status"]) == (name, bundle.path, status)
        assert state["annotations"] == bundle.config["annotations"]
        assert kind == "poststop" or state["pid"] == pid


def test_prestart(runtime):
    """runtime.md, Lifecycle, step 3: before the program."""
    bundle = runtime.bundle().shell("cat /mark > /copy")
    bundle.config["hooks"] = {"prestart": [hook(f"echo first > {bundle.rootfs}/mark")]}
    wait_stopped(runtime, runtime.start(bundle))
    with open(os.path.join(bundle.rootfs, "copy")) as file:
        assert file.read() == "first\n"


def test_prestart_fail(runtime):
    """runtime.md, Lifecycle: MUST be an error, and the program never runs; poststop follows."""
    bundle = runtime.bundle().shell(f"echo program >> /log")
    log = os.path.join(bundle.rootfs, "log")
    bundle.config["hooks"] = {
        "prestart": [hook(f"echo pre >> {log}"), hook("exit 1"), hook(f"echo never >> {log}")],
    }
    assert runtime.once(bundle).status != 0
    with open(log) as file:
        assert file.read() == "pre\n"


def test_poststart(runtime):
    """config.md, Poststart: after the start, before start returns."""
    bundle = runtime.bundle().args("sleep", "100")
    log = log_of(runtime)
    bundle.config["hooks"] = {"poststart": [hook(f"echo post >> {log}")]}
    name = runtime.create(bundle)
    assert read_log(runtime) == []
    runtime.run("start", name, check=True)
    assert read_log(runtime) == ["post"]
    stop(runtime, name)


def test_poststart_fail(runtime):
    """runtime.md, Lifecycle, step 9: MUST log a warning, but the remaining hooks and the lifecycle
    continue as if it had succeeded. (runc ends the container.)"""
    bundle = runtime.bundle().args("sleep", "100")
    log = log_of(runtime)
    bundle.config["hooks"] = {"poststart": [hook("exit 1"), hook(f"echo post >> {log}")]}
    name = runtime.start(bundle)
    assert read_log(runtime) == ["post"] and runtime.status(name) == "running"
    stop(runtime, name)


def test_poststop(runtime):
    """config.md, Poststop: after the container is deleted, before delete returns."""
    bundle = runtime.bundle()
    log = log_of(runtime)
    bundle.config["hooks"] = {"poststop": [hook(f"echo post >> {log}")]}
    name = runtime.start(bundle)
    wait_stopped(runtime, name)
    assert read_log(runtime) == []
    runtime.run("delete", name, check=True)
    assert read_log(runtime) == ["post"]


def test_poststop_fail(runtime):
    """runtime.md, Lifecycle, step 13: MUST log a warning; the rest continues."""
    bundle = runtime.bundle()
    log = log_of(runtime)
    bundle.config["hooks"] = {"poststop": [hook("exit 1"), hook(f"echo post >> {log}")]}
    name = runtime.start(bundle)
    wait_stopped(runtime, name)
    runtime.run("delete", name, check=True)
    assert read_log(runtime) == ["post"] and runtime.run("state", name).status != 0


# --- config.md: what a process finds ---


def look(runtime, bundle, script):
    result = runtime.once(bundle.shell(script))
    assert result.status == 0, result.err
    return result.out


def test_hostname(runtime):
    bundle = runtime.bundle()
    bundle.config["hostname"] = "hostname-specific"
    assert look(runtime, bundle, "hostname") == "hostname-specific\n"


def test_hostname_needs_a_uts_namespace(runtime):
    """config.md, Hostname."""
    bundle = runtime.bundle()
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "uts"]
    own = os.uname().nodename
    assert runtime.once(bundle).status != 0 and os.uname().nodename == own


def test_mounts(runtime):
    """config.md, Mounts: all are there, in the order listed, of their type and source."""
    bundle = runtime.bundle()
    bundle.config["mounts"].append(mount("/tmp", "tmpfs", "tmpfs", "nosuid,strictatime,size=4k"))
    lines = look(runtime, bundle, "cat /proc/self/mountinfo").splitlines()
    found = [(line.split()[4], *line.split(" - ")[1].split()[:2]) for line in lines]
    wanted = [(m["destination"], m["type"], m["source"]) for m in bundle.config["mounts"]]
    assert [entry for entry in found if entry in wanted] == wanted


def test_process(runtime):
    """config.md, Process: args, env, cwd."""
    bundle = runtime.bundle()
    bundle.process.update(cwd="/test", env=["testa=valuea", "testb=123"])
    result = runtime.once(bundle.args("/bin/sh", "-c", "pwd; echo $testa $testb $0", "name"))
    assert result.out == "/test\nvaluea 123 name\n"


def test_process_user(runtime):
    """config.md, User: uid, gid, umask, additionalGids."""
    bundle = runtime.bundle()
    bundle.process["user"] = {
        "uid": 10, "gid": 10, "umask": 0o2, "additionalGids": [5, 500]
    }
    out = look(runtime, bundle, "id -u; id -g; id -G; umask").split("\n")
    assert out[:2] == ["10", "10"] and {"5", "500"} <= set(out[2].split()) and out[3] == "0002"


def test_process_capabilities(runtime):
    """config.md, Linux Process: each set is exactly what is listed."""
    bundle = runtime.bundle()
    bundle.process["capabilities"] = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_CHOWN"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_CHOWN", "CAP_KILL"],
        "ambient": ["CAP_KILL"],
    }
    bundle.process["user"] = {"uid": 9, "gid": 9}
    text = look(runtime, bundle, "grep ^Cap /proc/self/status")
    sets = dict(line.split(":\t") for line in text.splitlines())
    # After the program is executed a user's effective and permitted sets are the ambient one.
    wanted = {"CapInh": 0x21, "CapPrm": 0x20, "CapEff": 0x20, "CapBnd": 0x2021, "CapAmb": 0x20}
    assert {key: int(value, 16) for key, value in sets.items()} == wanted


def test_process_capabilities_fail(runtime):
    """config.md, Linux Process: what the kernel does not know MUST be logged, and SHOULD NOT
    fail; before 1.1 it was an error. (crun refuses it.)"""
    bundle = runtime.bundle()
    bundle.process["capabilities"] = dict(bundle.process["capabilities"])
    bundle.process["capabilities"]["bounding"] = [*CAPABILITIES, "CAP_TEST"]
    result = runtime.once(bundle)
    assert result.status == 0 and "CAP_TEST" in result.err


def test_process_oom_score_adj(runtime):
    bundle = runtime.bundle()
    bundle.process["oomScoreAdj"] = 500
    assert look(runtime, bundle, "cat /proc/self/oom_score_adj") == "500\n"


LIMITS = {  # the name in /proc/PID/limits, and a value
    "RLIMIT_AS": ("Max address space", 4 << 30),
    "RLIMIT_CORE": ("Max core file size", 3 << 30),
    "RLIMIT_CPU": ("Max cpu time", 60),
    "RLIMIT_DATA": ("Max data size", 4 << 30),
    "RLIMIT_FSIZE": ("Max file size", 3 << 30),
    "RLIMIT_NOFILE": ("Max open files", 4000),
    "RLIMIT_STACK": ("Max stack size", 9 << 20),
    "RLIMIT_NPROC": ("Max processes", 5000),
    "RLIMIT_MSGQUEUE": ("Max msgqueue size", 70000),
    "RLIMIT_LOCKS": ("Max file locks", 800),
}


def test_process_rlimits(runtime):
    """config.md, POSIX process, rlimits."""
    bundle = runtime.bundle()
    bundle.process["rlimits"] = [
        {"type": name, "hard": value, "soft": value - 1} for name, (_, value) in LIMITS.items()
    ]
    text = look(runtime, bundle, "cat /proc/self/limits")
    for title, value in LIMITS.values():
        assert re.search(rf"^{title} +{value - 1} +{value} ", text, re.M), title


@pytest.mark.parametrize(
    "rlimits",
    [
        [{"type": "RLIMIT_TEST", "hard": 1024, "soft": 1024}],
        [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}] * 2,
    ],
    ids=["unknown", "twice"],
)
def test_process_rlimits_fail(runtime, rlimits):
    """config.md, POSIX process, rlimits: the type MUST be known, and MUST be there once.
    (runc and crun do not look for the second.)"""
    bundle = runtime.bundle()
    bundle.process["rlimits"] = rlimits
    assert runtime.once(bundle).status != 0


def test_root_readonly_true(runtime):
    """config.md, Root: readonly."""
    bundle = runtime.bundle()
    bundle.config["root"]["readonly"] = True
    assert look(runtime, bundle, "touch /x 2>/dev/null || echo no") == "no\n"


def test_default_filesystems_devices_and_links(runtime):
    """config-linux.md, Default Filesystems and Devices; runtime-linux.md, Dev symbolic links."""
    out = look(
        runtime, runtime.bundle(),
        "for l in fd stdin stdout stderr; do readlink /dev/$l; done;"
        "for d in null zero full random urandom tty ptmx; do test -c /dev/$d && echo $d; done;"
        "for m in /proc /sys /dev/pts /dev/shm; do stat -f -c %T $m; done",
    ).split()
    assert out[:4] == ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]
    assert out[4:11] == "null zero full random urandom tty ptmx".split()
    assert out[11:] == ["proc", "sysfs", "devpts", "tmpfs"]


# --- config-linux.md ---


def test_linux_devices(runtime):
    """config-linux.md, Devices."""
    bundle = runtime.bundle()
    bundle.linux["devices"] = [
        {"path": "/dev/test1", "type": "c", "major": 10, "minor": 666, "fileMode": 0o660,
         "uid": 1, "gid": 2},
        {"path": "/dev/test2", "type": "b", "major": 8, "minor": 666, "fileMode": 0o432,
         "uid": 0, "gid": 0},
        {"path": "/dev/test3", "type": "p", "major": 8, "minor": 666, "fileMode": 0o640},
        {"path": "/made/test4", "type": "u", "major": 1, "minor": 3},
    ]
    script = "cd /dev; stat -c '%F %t:%T %a %u:%g' test1 test2 test3; test -c /made/test4"
    lines = look(runtime, bundle, script).splitlines()
    assert lines[0] == "character special file a:29a 660 1:2"
    assert lines[1] == "block special file 8:29a 432 0:0"
    assert lines[2].startswith("fifo") and lines[2].endswith("640 0:0")


def test_linux_masked_paths(runtime):
    """config-linux.md, Masked Paths: files and directories alike; absolute paths only."""
    bundle = runtime.bundle()
    os.makedirs(os.path.join(bundle.rootfs, "masked/dir/sub"))
    for path in ("masked/file", "masked/dir/file"):
        with open(os.path.join(bundle.rootfs, path), "w") as file:
            file.write("secret")
    os.symlink("masked/file", os.path.join(bundle.rootfs, "link"))
    bundle.linux["maskedPaths"] = ["/masked/dir", "/masked/file", "/not/there"]
    script = "ls -A /masked/dir; cat /masked/file; cat /link; touch /masked/dir/x || echo no"
    assert look(runtime, bundle, f"({script}) 2>/dev/null") == "no\n"


def test_linux_readonly_paths(runtime):
    """config-linux.md, Readonly Paths."""
    bundle = runtime.bundle()
    os.makedirs(os.path.join(bundle.rootfs, "fixed/dir/sub"))
    for path in ("fixed/file", "fixed/dir/file"):
        with open(os.path.join(bundle.rootfs, path), "w") as file:
            file.write("text")
    bundle.linux["readonlyPaths"] = ["/fixed/dir", "/fixed/file", "/not/there"]
    script = "cat /fixed/file /fixed/dir/file; for f in /fixed/file /fixed/dir/file " \
        "/fixed/dir/new /fixed/dir/sub/new; do (: >> $f) 2>/dev/null && echo $f; done; true"
    assert look(runtime, bundle, script) == "texttext"


def test_nodes_can_be_masked_and_read_only(runtime):
    """config-linux.md, Masked Paths, Readonly Paths: block and character devices and fifos too,
    and paths below one that is covered already."""
    bundle = runtime.bundle()
    nodes = {"block": stat.S_IFBLK, "character": stat.S_IFCHR, "fifo": stat.S_IFIFO}
    os.makedirs(os.path.join(bundle.rootfs, "dir/sub"))
    for name, kind in nodes.items():
        os.mknod(os.path.join(bundle.rootfs, name), kind | 0o666, 0)
    paths = [*("/" + name for name in nodes), "/dir", "/dir/sub"]
    bundle.linux["maskedPaths"] = paths
    assert look(runtime, bundle, "cat /block /character /fifo; ls -A /dir") == ""
    bundle.linux["maskedPaths"], bundle.linux["readonlyPaths"] = [], paths
    assert look(runtime, bundle, "touch /dir/sub/x 2>/dev/null || echo no") == "no\n"


@pytest.mark.parametrize("field", ["maskedPaths", "readonlyPaths"])
@pytest.mark.parametrize("path", ["relative", "/loop"])
def test_masked_and_readonly_paths_that_are_none(runtime, field, path):
    """config-linux.md: absolute paths; a link that leads nowhere. (runc takes relative ones.)"""
    bundle = runtime.bundle()
    os.symlink("../loop", os.path.join(bundle.rootfs, "loop"))
    bundle.linux[field] = [path]
    assert runtime.once(bundle).status != 0


@pytest.mark.parametrize("mode", ["shared", "slave", "private", "unbindable"])
@pytest.mark.parametrize("recursive", ["", "r"])
def test_linux_rootfs_propagation(runtime, mode, recursive):
    """config-linux.md, Rootfs Mount Propagation: as found inside."""
    bundle = runtime.bundle()
    bundle.linux["rootfsPropagation"] = recursive + mode
    fields = look(runtime, bundle, "grep ' / / ' /proc/self/mountinfo || "
                  "grep '^[0-9]* [0-9]* [0-9:]* [^ ]* / ' /proc/self/mountinfo").split(" - ")[0]
    words = {word.split(":")[0] for word in fields.split()[6:]}
    wanted = {"shared": "shared", "unbindable": "unbindable"}.get(mode)
    assert (wanted in words) if wanted else not words & {"shared", "unbindable"}


def test_a_shared_root_passes_mounts_on_and_a_private_one_does_not(runtime):
    """config-linux.md, Rootfs Mount Propagation: by what a further mount of the root sees."""
    seen = {}
    for mode in ("shared", "private", "unbindable"):
        bundle = runtime.bundle(mode).privileged()
        bundle.linux["rootfsPropagation"] = mode
        for name in ("a", "b"):
            os.mkdir(os.path.join(bundle.rootfs, name))
        seen[mode] = look(
            runtime, bundle,
            "mount -o bind / /b 2>/dev/null || echo refused; mount -t tmpfs none /a;"
            "touch /a/x; ls /b/a 2>/dev/null; true",
        )
    assert seen == {"shared": "x\n", "private": "", "unbindable": "refused\n"}


def test_linux_seccomp(runtime):
    """config-linux.md, Seccomp: a call that is denied by name has its error."""
    bundle = runtime.bundle()
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}],
    }
    out = look(runtime, bundle, "/bin/pwd 2>&1; true")
    assert "Operation not permitted" in out


def test_linux_sysctl(runtime):
    """config-linux.md, Sysctl."""
    bundle = runtime.bundle()
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    assert look(runtime, bundle, "cat /proc/sys/net/ipv4/ip_forward") == "1\n"


def test_linux_uid_mappings(runtime):
    """config-linux.md, User namespace mappings."""
    bundle = runtime.bundle()
    bundle.linux["namespaces"].append({"type": "user"})
    for kind in ("uid", "gid"):
        bundle.linux[kind + "Mappings"] = [{"hostID": 1000, "containerID": 0, "size": 2000}]
    subprocess.run(["chown", "-R", "1000:1000", bundle.rootfs], check=True)
    os.chmod(runtime.directory, 0o755)
    out = look(runtime, bundle, "cat /proc/self/uid_map /proc/self/gid_map; id -u")
    assert out.split() == ["0", "1000", "2000"] * 2 + ["0"]


def test_linux_process_apparmor_profile(runtime):
    """config.md, Linux Process: a profile where the host has AppArmor; without it, refused or
    passed over, never crashed on."""
    bundle = runtime.bundle()
    bundle.process["apparmorProfile"] = "acme_secure_profile"
    result = runtime.once(bundle)
    if os.path.exists("/sys/module/apparmor/parameters/enabled"):
        assert result.status != 0  # there is no such profile
    else:
        assert result.status in (0, 1)


PROFILE = """profile lodge-test flags=(attach_disconnected,mediate_deleted) {
  file, capability, signal, ptrace, network, deny /etc/secret rwklx,
}
"""


def test_linux_process_apparmor_profile_that_is_loaded(runtime):
    """config.md, Linux Process: the program, and those that exec adds, run under it."""
    parser = shutil.which("apparmor_parser", path="/usr/sbin:/sbin")
    if not parser or not os.path.exists("/sys/kernel/security/apparmor/profiles"):
        pytest.skip("the host has no AppArmor")
    subprocess.run([parser, "-rK"], input=PROFILE, text=True, check=True)
    bundle = runtime.bundle()
    with open(os.path.join(bundle.rootfs, "etc/secret"), "w") as file:
        file.write("secret")
    bundle.process["apparmorProfile"] = "lodge-test"
    out = look(runtime, bundle, "cat /proc/self/attr/current; cat /etc/secret 2>&1; true")
    assert out.startswith("lodge-test (enforce)\n") and "Permission denied" in out
    name = runtime.start(bundle.args("sleep", "100"))
    result = runtime.run("exec", "--apparmor", "lodge-test", name, "cat", "/proc/self/attr/current")
    assert result.out == "lodge-test (enforce)\n"
    runtime.run("delete", "--force", name, check=True)
    subprocess.run([parser, "-R"], input=PROFILE, text=True, check=True)


def test_linux_mount_label(runtime):
    """config-linux.md, Mount Label: where the host has no SELinux, nothing is labelled."""
    if os.path.exists("/sys/fs/selinux/enforce"):
        pytest.skip("the host has SELinux, whose policy decides")
    bundle = runtime.bundle()
    bundle.linux["mountLabel"] = "system_u:object_r:svirt_sandbox_file_t:s0:c715,c811"
    assert runtime.once(bundle).status == 0


def link(pid, kind):
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def mounts_below(path):
    with open("/proc/self/mountinfo") as file:
        return [line for line in file if line.split()[4].startswith(path)]


@pytest.fixture
def inheriting(runtime):
    """A bundle of a container that has no namespace of its own, and its pid."""
    bundle = runtime.bundle().args("sleep", "100")
    bundle.linux["namespaces"] = []
    del bundle.config["hostname"]
    name = runtime.create(bundle)
    yield name, bundle, runtime.run("state", name).json["pid"]
    runtime.clean()
    if PEER:  # theirs stay
        subprocess.run(["umount", "-R", bundle.rootfs])


def test_linux_ns_itype(inheriting):
    """config-linux.md, Namespaces: a type that is not listed is the runtime's own."""
    for kind in NAMESPACES.values():
        assert link(inheriting[2], kind) == link("self", kind), kind


def test_a_container_in_the_mount_namespace_of_the_host_has_its_root_and_leaves_no_mount(
    runtime, inheriting
):
    """runtime.md, Delete: what create made MUST be deleted. (runc and crun leave the mounts.)"""
    name, bundle, _ = inheriting
    runtime.run("start", name, check=True)
    assert mounts_below(bundle.rootfs)
    listed = set(os.listdir(bundle.rootfs))
    assert set(runtime.run("exec", name, "ls", "/").out.split()) == listed
    stop(runtime, name)
    runtime.run("delete", name, check=True)
    assert not mounts_below(bundle.rootfs)


@pytest.mark.skipif(PEER is not None, reason="the host would lose its root")
def test_the_mount_namespace_of_the_runtime_is_not_one_to_join(runtime):
    """Its root would be changed, which is the host's."""
    bundle = runtime.bundle()
    for entry in bundle.linux["namespaces"]:
        if entry["type"] == "mount":
            entry["path"] = "/proc/self/ns/mnt"
    result = runtime.once(bundle)
    assert result.status == 1 and "leave" in result.err and not mounts_below(bundle.rootfs)


@pytest.mark.skipif(PEER is not None, reason="it would mount on the host's directories")
def test_the_root_of_the_host_needs_a_mount_namespace(runtime):
    """Where it is covered nobody can reach the mount to take it away again."""
    bundle = runtime.bundle()
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "mount"]
    bundle.config["root"]["path"] = "/"
    result = runtime.once(bundle)
    assert result.status == 1 and "mount" in result.err


def test_masked_paths_need_a_mount_namespace(runtime):
    """Masked on the host, they would be hidden from the host itself."""
    bundle = runtime.bundle()
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "mount"]
    bundle.linux["maskedPaths"] = ["/proc/kcore"]
    assert runtime.once(bundle).status != 0 and not mounts_below(bundle.rootfs)


def test_linux_ns_nopath(runtime):
    """config-linux.md, Namespaces: without a path, a new one."""
    bundle = runtime.bundle().args("sleep", "100")
    bundle.linux["namespaces"] = [{"type": kind} for kind in NAMESPACES]
    for kind in ("uid", "gid"):
        bundle.linux[kind + "Mappings"] = [{"hostID": 1000, "containerID": 0, "size": 1000}]
    subprocess.run(["chown", "-R", "1000:1000", bundle.rootfs], check=True)
    os.chmod(runtime.directory, 0o755)
    pid = runtime.run("state", runtime.create(bundle)).json["pid"]
    for kind in NAMESPACES.values():
        assert link(pid, kind) != link("self", kind), kind


@pytest.mark.parametrize("name,option", [
    ("ipc", "--ipc"), ("mount", "--mount"), ("network", "--net"), ("pid", "--pid"),
    ("uts", "--uts"),
])
def test_linux_ns_path(runtime, name, option):
    """config-linux.md, Namespaces: with a path, that one."""
    holder = subprocess.Popen(["unshare", option, "--fork", "sleep", "100"], process_group=0)
    try:
        kind = NAMESPACES[name]
        source = kind + "_for_children" if name == "pid" else kind
        assert wait_for(lambda: _differs(holder.pid, source, kind))
        bundle = runtime.bundle().args("sleep", "100")
        for entry in bundle.linux["namespaces"]:
            if entry["type"] == name:
                entry["path"] = f"/proc/{holder.pid}/ns/{source}"
        pid = runtime.run("state", runtime.create(bundle)).json["pid"]
        assert link(pid, kind) == link(holder.pid, source)
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


def _differs(pid, source, kind):
    try:
        return link(pid, source) != link("self", kind)
    except OSError:
        return False


@pytest.mark.parametrize("name", ["ipc", "network", "uts"])
def test_linux_ns_path_type(runtime, name):
    """config-linux.md, Namespaces: a path of another type MUST be an error."""
    bundle = runtime.bundle()
    other = "uts" if name != "uts" else "ipc"
    for entry in bundle.linux["namespaces"]:
        if entry["type"] == name:
            entry["path"] = f"/proc/self/ns/{other}"
    assert runtime.once(bundle).status != 0


# --- config-linux.md: control groups ---

@pytest.fixture(params=["absolute", "relative"])
def group(request, runtime):
    """A bundle under a cgroupsPath, and a function that creates its container and reads values."""
    absolute = request.param == "absolute"
    path = f"lodge-validation/{runtime.new_id()}"
    bundle = runtime.bundle().args("sleep", "100")
    bundle.linux["cgroupsPath"] = "/" + path if absolute else path

    def read(controller, *files):
        made = [n for n in runtime.ids if os.path.exists(os.path.join(runtime.state, n))]
        name = made[0] if made else runtime.create(bundle)
        with open(f"/proc/{runtime.run('state', name).json['pid']}/cgroup") as file:
            own = re.search(rf"^\d+:(?:[^:]*,)?{controller}(?:,[^:]*)?:(.*)$", file.read(), re.M)[1]
        assert own == "/" + path if absolute else own.endswith("/" + path)
        values = [v1_value(controller, own, file) for file in files]
        return values if len(values) > 1 else values[0]

    yield bundle, read
    runtime.clean()
    for parent in subprocess.run(
        ["find", V1, "-maxdepth", "8", "-name", "lodge-validation"],
        stdout=subprocess.PIPE, text=True,
    ).stdout.split():
        try:
            os.rmdir(parent)
        except OSError:
            pass


@pytest.mark.parametrize("cpus", sorted({"0", f"0-{os.cpu_count() - 1}"} - {"0-0"}))
def test_linux_cgroups_cpus(group, cpus):
    """config-linux.md, CPU."""
    needs_controller("cpu", "cpu.shares")
    bundle, read = group
    bundle.linux["resources"]["cpu"] = {
        "shares": 2048, "period": 500000, "quota": 200000, "cpus": cpus, "mems": "0",
        "burst": 1000,
    }
    found = read("cpu", "cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us")
    assert found == ["2048", "500000", "200000"]
    # One group is named as the kernel names it.
    assert read("cpuset", "cpuset.cpus", "cpuset.mems") == [cpus, "0"]


def test_linux_cgroups_cpus_that_are_empty(group):
    needs_controller("cpu", "cpu.shares")
    bundle, read = group
    bundle.linux["resources"]["cpu"] = {}
    assert read("cpu", "cpu.shares", "cpu.cfs_quota_us") == ["1024", "-1"]
    assert read("cpuset", "cpuset.cpus") == v1_value("cpuset", "", "cpuset.cpus")


def test_linux_cgroups_cpus_realtime(group):
    """config-linux.md, CPU: realtimePeriod, realtimeRuntime."""
    needs_controller("cpu", "cpu.rt_period_us")
    bundle, read = group
    bundle.linux["resources"]["cpu"] = {"realtimePeriod": 900000}
    assert read("cpu", "cpu.rt_period_us") == "900000"


MEMORY = {"limit": 50593792, "reservation": 40593792, "swap": 50593792, "kernelTCP": 50593792}


@pytest.mark.parametrize("swappiness", [10, 100])
def test_linux_cgroups_memory(group, swappiness):
    """config-linux.md, Memory."""
    needs_controller("memory")
    bundle, read = group
    bundle.linux["resources"]["memory"] = dict(
        MEMORY, kernel=50593792, swappiness=swappiness, disableOOMKiller=True
    )
    aligned = [str(MEMORY[key] // 4096 * 4096) for key in ("limit", "reservation", "swap")]
    assert read("memory", "memory.limit_in_bytes", "memory.soft_limit_in_bytes",
                "memory.memsw.limit_in_bytes") == aligned
    assert read("memory", "memory.kmem.tcp.limit_in_bytes") == str(50593792 // 4096 * 4096)
    assert read("memory", "memory.swappiness") == str(swappiness)
    assert "oom_kill_disable 1" in read("memory", "memory.oom_control")


def test_linux_cgroups_pids(group):
    """config-linux.md, PIDs."""
    needs_controller("pids")
    bundle, read = group
    bundle.linux["resources"]["pids"] = {"limit": 1000}
    assert read("pids", "pids.max") == "1000"


def test_linux_cgroups_devices(group):
    """config-linux.md, Allowed Device list: whole majors and minors, ranges by absence."""
    needs_controller("devices")
    bundle, read = group
    bundle.linux["resources"]["devices"] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
        {"allow": True, "type": "b", "major": 8, "minor": 20, "access": "rw"},
        {"allow": True, "type": "b", "major": 10, "minor": 200, "access": "r"},
        {"allow": True, "type": "c", "major": 11, "access": "w"},
    ]
    wanted = ["c 10:229 rwm", "b 8:20 rw", "b 10:200 r", "c 11:* w"]
    found = read("devices", "devices.list").splitlines()
    # In the listed order, before those that every container has. (runc sorts them.)
    assert found[:4] == wanted and "a *:* rwm" not in found
    assert {"c 1:3 rwm", "c 5:0 rwm", "c 136:* rwm", "c *:* m", "b *:* m"} <= set(found)


def a_disk():
    """A whole block device that can be throttled: its number."""
    for name in sorted(os.listdir("/sys/block")):
        if name.startswith(("vd", "sd", "nvme")):
            with open(f"/sys/block/{name}/dev") as file:
                return [int(n) for n in file.read().split(":")]
    pytest.skip("the host has no disk")


@pytest.mark.parametrize("rate", [102400, 204800])
def test_linux_cgroups_blkio(group, rate):
    """config-linux.md, Block IO: throttles of a device."""
    needs_controller("blkio", "blkio.throttle.read_bps_device")
    bundle, read = group
    major, minor = a_disk()
    entry = [{"major": major, "minor": minor, "rate": rate}]
    kinds = {"read_bps": "ReadBps", "write_bps": "WriteBps", "read_iops": "ReadIOPS",
             "write_iops": "WriteIOPS"}
    bundle.linux["resources"]["blockIO"] = {f"throttle{k}Device": entry for k in kinds.values()}
    found = read("blkio", *(f"blkio.throttle.{kind}_device" for kind in kinds))
    assert found == [f"{major}:{minor} {rate}"] * 4


def test_linux_cgroups_blkio_weights(group):
    """config-linux.md, Block IO: weights, by whichever scheduler the host has."""
    for prefix in ("blkio.bfq.", "blkio."):
        if os.path.exists(f"{V1}/blkio/{prefix}weight"):
            break
    else:
        pytest.skip("the host has no scheduler with weights")
    bundle, read = group
    major, minor = a_disk()
    bundle.linux["resources"]["blockIO"] = {
        "weight": 500,
        "weightDevice": [{"major": major, "minor": minor, "weight": 300}],
    }
    assert "500" in read("blkio", prefix + "weight")
    assert f"{major}:{minor} 300" in read("blkio", prefix + "weight_device")


def test_linux_cgroups_hugetlb(group):
    """config-linux.md, Huge page limits; also with a size that the host does not have."""
    sizes = os.listdir("/sys/kernel/mm/hugepages") if os.path.isdir(
        "/sys/kernel/mm/hugepages") else []
    needs_controller("hugetlb")
    bundle, read = group
    pages = {int(s.split("-")[1][:-2]) for s in sizes}
    names = [f"{kb >> 10}MB" if kb < 1 << 20 else f"{kb >> 20}GB" for kb in sorted(pages)]
    bundle.linux["resources"]["hugepageLimits"] = [
        {"pageSize": name, "limit": 1 << 30} for name in names
    ]
    assert read("hugetlb", *(f"hugetlb.{name}.limit_in_bytes" for name in names)) in (
        str(1 << 30), [str(1 << 30)] * len(names)
    )


def test_linux_cgroups_hugetlb_of_no_size(group, runtime):
    bundle, _ = group
    bundle.linux["resources"]["hugepageLimits"] = [{"pageSize": "3MB", "limit": 10}]
    assert runtime.once(bundle).status != 0


@pytest.mark.parametrize("without", [None, "network"])
def test_linux_cgroups_network(group, without):
    """config-linux.md, Network."""
    needs_controller("net_cls")
    needs_controller("net_prio")
    bundle, read = group
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != without]
    bundle.linux["resources"]["network"] = {
        "classID": 255, "priorities": [{"name": "lo", "priority": 10}]
    }
    assert read("net_cls", "net_cls.classid") == "255"
    assert "lo 10" in read("net_prio", "net_prio.ifpriomap").splitlines()

"""The same as test_oci_validation.py for what a process finds: config.md, config-linux.md."""
import os
import re
import shutil
import signal
import stat
import subprocess

import pytest

from system.oci import wait_for
from system.validation import CAPABILITIES, NAMESPACES, PEER, mount, runtime, stop  # noqa: F401

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

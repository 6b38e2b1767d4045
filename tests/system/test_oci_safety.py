"""Attacks on the runtime from inside a container or its image: each is tried."""
import ctypes
import os
import subprocess
import threading

import pytest

from system.oci import wait_for

pytestmark = pytest.mark.usefixtures("oci")


def link(bundle, path, target):
    path = os.path.join(bundle.rootfs, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.symlink(target, path)


@pytest.fixture
def outside(oci):
    """A directory of the host that links inside the root point to."""
    path = os.path.join(oci.directory, "outside")
    os.mkdir(path)
    return path


@pytest.mark.parametrize("target", ["absolute", "dots"])
def test_mount_targets_do_not_follow_links_out_of_the_root(oci, outside, target):
    bundle = oci.bundle().shell("cat /trap/inner/file")
    link(bundle, "trap", outside if target == "absolute" else "../../../../../../../.." + outside)
    source = os.path.join(oci.directory, "source")
    os.mkdir(source)
    with open(os.path.join(source, "file"), "w") as file:
        file.write("mounted\n")
    bundle.config["root"]["readonly"] = False
    bundle.config["mounts"].append(
        {"destination": "/trap/inner", "type": "bind", "source": source, "options": ["bind"]}
    )
    result = oci.once(bundle)
    assert os.listdir(outside) == []
    assert result.status == 1 or result.out == "mounted\n"


def exchange(libc, one, other):
    """renameat2(2) with RENAME_EXCHANGE."""
    libc.renameat2(-100, one.encode(), -100, other.encode(), 2)


def test_a_mount_target_that_turns_into_a_link_meanwhile_leads_nowhere(oci, outside):
    """CVE-2021-30465: of two containers that share a volume, one exchanges a directory in it and
    a link to the host while the other is made."""
    bundle = oci.bundle().args("true")
    volume = os.path.join(oci.directory, "volume")
    place, trap = os.path.join(volume, "place"), os.path.join(volume, "trap")
    os.makedirs(os.path.join(place, "inner"))
    os.symlink(outside, trap)
    os.mkdir(os.path.join(outside, "inner"))
    bundle.config["mounts"] += [
        {"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"]},
        {"destination": "/volume/place/inner", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/volume/place/made", "type": "tmpfs", "source": "tmpfs"},
    ]
    bundle.shell(f"cut -d' ' -f4 /proc/self/mountinfo | grep -c '{outside}'; true")
    bundle.linux["maskedPaths"].append("/volume/place/masked")
    libc = ctypes.CDLL(None, use_errno=True)
    ended = threading.Event()

    def turn():
        while not ended.is_set():
            exchange(libc, place, trap)

    turner = threading.Thread(target=turn)
    turner.start()
    try:
        results = [oci.once(bundle) for _ in range(30)]
    finally:
        ended.set()
        turner.join()
    assert os.listdir(outside) == ["inner"] and os.listdir(os.path.join(outside, "inner")) == []
    assert any(result.status == 0 for result in results)  # some were made while it was a directory
    assert all(result.out == "0\n" for result in results if result.status == 0)
    with open("/proc/self/mountinfo") as mounts:
        assert outside not in mounts.read()


def test_devices_are_not_made_through_links_out_of_the_root(oci, outside):
    bundle = oci.bundle().args("true")
    link(bundle, "away", outside)
    bundle.config["root"]["readonly"] = False
    bundle.linux["devices"] = [{"path": "/away/device", "type": "c", "major": 1, "minor": 3}]
    oci.once(bundle)
    assert os.listdir(outside) == []


def test_the_working_directory_is_not_made_outside_of_the_root(oci, outside):
    bundle = oci.bundle().args("true")
    link(bundle, "away", outside)
    bundle.config["root"]["readonly"] = False
    bundle.process["cwd"] = "/away/made"
    oci.once(bundle)
    assert os.listdir(outside) == []


def test_masked_and_read_only_paths_do_not_follow_links_out_of_the_root(oci, outside):
    """The mount would be on the host's file, and the container's left open."""
    with open(os.path.join(outside, "file"), "w") as file:
        file.write("host\n")
    bundle = oci.bundle().args("true")
    link(bundle, "masked", os.path.join(outside, "file"))
    bundle.linux["maskedPaths"].append("/masked")
    bundle.linux["readonlyPaths"].append("/masked")
    oci.once(bundle)
    with open("/proc/self/mountinfo") as mounts:
        assert outside not in mounts.read()
    with open(file.name) as file:
        assert file.read() == "host\n"


@pytest.mark.parametrize("directory", ["proc", "sys"])
def test_proc_and_sys_are_not_mounted_on_a_link(oci, directory):
    """CVE-2019-19921, CVE-2023-27561: a /proc that is turned round escapes its masks."""
    bundle = oci.bundle().args("true")
    os.rmdir(os.path.join(bundle.rootfs, directory))
    link(bundle, directory, "evil")
    os.mkdir(os.path.join(bundle.rootfs, "evil"))
    result = oci.once(bundle)
    assert result.status == 1 and "not a link" in result.err


def test_the_runtimes_program_cannot_be_written_from_a_container(oci):
    """CVE-2019-5736: a container executes /proc/self/exe, the runtime, and writes to it."""
    bundle = oci.bundle().privileged()
    bundle.linux["seccomp"] = None
    link(bundle, "bin/self", "/proc/self/exe")
    with open(oci.command[0], "rb") as file:
        before = file.read()
    # While the runtime's program runs inside, another process writes to it through /proc.
    script = (
        "for i in 1 2 3; do for p in /proc/[0-9]*; do "
        "( exec 9<$p/exe && echo broken > /proc/self/fd/9 ) 2>/dev/null; "
        "( echo broken > $p/exe ) 2>/dev/null; done; done; echo done"
    )
    name = oci.start(bundle.args("sleep", "100"))
    attack = subprocess.Popen(
        [*oci.command, "exec", name, "sh", "-c", script], stdout=subprocess.PIPE
    )
    for _ in range(10):
        oci.run("exec", name, "/bin/self", "--version")
    assert b"done" in attack.communicate(timeout=60)[0]
    result = oci.run("exec", name, "sh", "-c", "exec 9</proc/self/exe; readlink /proc/self/exe")
    assert result.status == 0
    with open(oci.command[0], "rb") as file:
        assert file.read() == before
    # What ran is the copy: the kernel names it, and it is sealed or on a read-only mount.
    result = oci.once(oci.bundle("second").args("/proc/self/exe", "spec", "--bundle", "/proc/none"))
    with open(oci.command[0], "rb") as file:
        assert file.read() == before


@pytest.mark.parametrize("number", range(3, 14))
def test_no_descriptor_of_the_host_can_be_the_working_directory(oci, number):
    """CVE-2024-21626: process.cwd is /proc/self/fd/N, a directory of the host."""
    bundle = oci.bundle().shell("pwd; ls")
    bundle.process["cwd"] = f"/proc/self/fd/{number}"
    result = oci.once(bundle)
    assert result.status == 1 and result.out == ""


@pytest.mark.parametrize("number", range(3, 14))
def test_no_descriptor_of_the_host_can_be_the_working_directory_of_exec(oci, number):
    name = oci.start(oci.bundle().args("sleep", "100"))
    result = oci.run("exec", "--cwd", f"/proc/self/fd/{number}", name, "ls")
    assert result.status == 1 and result.out == ""


def test_no_descriptor_leaks_into_the_program_or_by_exec(oci):
    bundle = oci.bundle().shell("ls -l /proc/self/fd | wc -l; sleep 100")
    name = oci.start(bundle)
    pid = oci.run("state", name).json["pid"]
    # The shell has a pipe of its own for a moment.
    assert wait_for(lambda: {int(n) for n in os.listdir(f"/proc/{pid}/fd")} <= {0, 1, 2})
    result = oci.run("exec", name, "sh", "-c", "ls /proc/self/fd")
    assert len(result.out.split()) == 4  # 0, 1, 2 and that of ls


def test_what_enters_a_container_cannot_be_looked_into_by_it(oci):
    """CVE-2016-9962: descriptors of the runtime's process, before it becomes the program."""
    bundle = oci.bundle().shell(
        "while [ ! -e /tmp/end ]; do for p in /proc/[0-9]*; do "
        "for f in cwd root exe fd/*; do readlink $p/$f; done; done; done 2>/dev/null | "
        "grep -v -e '^/$' -e '^/bin' -e pipe: -e '^/dev' -e '^/proc' -e '^/tmp'; echo end"
    )
    bundle.config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    name = oci.start(bundle)
    for _ in range(25):
        oci.run("exec", name, "true", check=True)
    oci.run("exec", name, "touch", "/tmp/end", check=True)
    assert wait_for(lambda: oci.status(name) == "stopped")
    assert oci.output() == "end\n"


def test_capabilities_are_not_inherited_unless_the_configuration_says_so(oci):
    """CVE-2022-29162: files with inheritable capabilities would give them to any user."""
    name = oci.start(oci.bundle().args("sleep", "100"))
    for options in ([], ["--cap", "CAP_NET_RAW"], ["--cap", "CAP_NET_RAW", "--user", "5"]):
        result = oci.run("exec", *options, name, "grep", "CapInh", "/proc/self/status", check=True)
        assert result.out.split() == ["CapInh:", "0" * 16]


def test_a_null_device_made_by_the_image_masks_nothing(oci):
    """CVE-2025-31133: /dev/null of the image is a link to a file that would be bound instead."""
    bundle = oci.bundle().shell("cat /proc/keys | wc -c; cat /etc/secret")
    bundle.config["mounts"] = [
        m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")
    ]
    link(bundle, "dev/null", "/etc/passwd")
    with open(os.path.join(bundle.rootfs, "etc/passwd"), "w") as file:
        file.write("not null\n")
    with open(os.path.join(bundle.rootfs, "etc/secret"), "w") as file:
        file.write("secret\n")
    bundle.linux["maskedPaths"].append("/etc/secret")
    bundle.config["root"]["readonly"] = False
    result = oci.once(bundle)
    assert "not null" not in result.out and "secret" not in result.out
    assert result.status == 1 or result.out == "0\n"


@pytest.mark.parametrize("target", ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern"])
def test_the_console_is_not_bound_over_what_a_link_points_to(oci, target):
    """CVE-2025-52565: /dev/console or /dev/pts/N leads to a file of /proc."""
    bundle = oci.bundle().shell("grep -c ' %s ' /proc/self/mountinfo; true" % target)
    bundle.process["terminal"] = True
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/dev"]
    os.mkdir(os.path.join(bundle.rootfs, "dev/pts"))
    link(bundle, "dev/console", target)
    bundle.config["root"]["readonly"] = False
    result = oci.once(bundle)
    with open("/proc/self/mountinfo") as mounts:
        assert target not in mounts.read()
    assert result.status == 1 or result.out.strip() in ("0", "1")


def test_a_terminal_device_made_by_the_image_is_refused(oci):
    bundle = oci.bundle().args("true")
    bundle.process["terminal"] = True
    bundle.config["mounts"] = [
        m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")
    ]
    os.mkdir(os.path.join(bundle.rootfs, "dev/pts"))
    with open(os.path.join(bundle.rootfs, "dev/pts/ptmx"), "w"):
        pass
    bundle.config["root"]["readonly"] = False
    result = oci.once(bundle)
    assert result.status == 1 and "is not that of a devpts" in result.err


@pytest.mark.parametrize("path", ["../../../escape", "/a/../../escape"])
def test_a_cgroup_path_does_not_climb(oci, path):
    bundle = oci.bundle().args("true")
    bundle.linux["cgroupsPath"] = path
    result = oci.once(bundle)
    assert result.status == 1 and "cgroup path" in result.err


def test_sysctls_of_the_host_are_refused(oci):
    """CVE-2025-52881's kin: a write that would reach the host's kernel."""
    bundle = oci.bundle().args("true")
    for name in (
        "kernel.core_pattern",
        "kernel/../kernel/core_pattern",
        "vm.swappiness",
        "net/../kernel/panic",
    ):
        bundle.linux["sysctl"] = {name: "0"}
        assert oci.once(bundle).status == 1


def test_a_sysctl_is_not_written_to_what_the_image_has_in_its_place(oci, outside):
    """CVE-2025-52881: a mount over /proc/sys turns the runtime's write round."""
    os.mkdir(os.path.join(outside, "kernel"))
    path = os.path.join(outside, "kernel/shmmax")
    with open(path, "w") as file:
        file.write("host")
    bundle = oci.bundle().args("true")
    bundle.linux["sysctl"] = {"kernel.shmmax": "12345678"}
    bundle.config["mounts"].append(
        {"destination": "/proc/sys", "type": "bind", "source": outside, "options": ["bind"]}
    )
    assert oci.once(bundle).status == 0
    with open(path) as file:
        assert file.read() == "host"


def test_set_user_id_programs_give_nothing_without_new_privileges(oci):
    bundle = oci.bundle().shell("/bin/suid id -u")
    os.chmod(os.path.join(bundle.rootfs, "bin/busybox"), 0o4755)
    os.symlink("busybox", os.path.join(bundle.rootfs, "bin/suid"))
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.args("/bin/busybox", "id", "-u")
    assert oci.once(bundle).out == "1000\n"


def test_a_container_does_not_see_the_hosts_cgroups_or_mounts(oci):
    bundle = oci.bundle().shell("cat /proc/self/cgroup; cat /proc/self/mountinfo")
    out = oci.once(bundle).out
    assert "lodge-test" not in out.split("\n/")[0] or "0::/\n" in out
    assert oci.directory not in "".join(
        line.split(" - ")[0].split()[4] for line in out.split("\n") if " - " in line
    )

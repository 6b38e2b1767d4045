"""What containers are on Linux, clause by clause of the OCI runtime specification 1.2:
config-linux.md."""
import json
import os
import socket
import subprocess
import time

import pytest

from system.oci import cgroups_named, wait_for


def test_every_new_namespace_is_new(oci):
    """config-linux.md, Namespaces."""
    bundle = oci.bundle().shell(
        "for n in pid net ipc uts mnt cgroup time; do readlink /proc/self/ns/$n; done"
    )
    bundle.linux["namespaces"].append({"type": "time"})
    inside = oci.once(bundle).out.split()
    outside = [os.readlink(f"/proc/self/ns/{n}") for n in "pid net ipc uts mnt cgroup time".split()]
    assert len(inside) == 7 and not set(inside) & set(outside)


def test_namespaces_are_joined_by_path(oci):
    """config-linux.md, Namespaces: path."""
    first = oci.start(oci.bundle().args("sleep", "100"))
    pid = oci.run("state", first).json["pid"]
    files = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts"}
    second = oci.bundle("second").shell(
        "; ".join(f"readlink /proc/self/ns/{n}" for n in files.values())
    )
    second.config.pop("hostname")
    second.linux["namespaces"] = [
        {"type": t, "path": f"/proc/{pid}/ns/{n}"} for t, n in files.items()
    ]
    second.linux["namespaces"].append({"type": "mount"})
    result = oci.once(second)
    assert result.out.split() == [
        os.readlink(f"/proc/{pid}/ns/{n}") for n in files.values()
    ], result.err


def test_a_joined_mount_namespace_keeps_its_own_root(oci):
    """config-linux.md, Namespaces: path. Others in there must not find themselves elsewhere."""
    holder = subprocess.Popen(["unshare", "--mount", "sleep", "100"])
    try:
        assert wait_for(lambda: os.readlink(f"/proc/{holder.pid}/ns/mnt")
                        != os.readlink("/proc/self/ns/mnt"))

        def look():
            return subprocess.run(["nsenter", "--mount", "-t", str(holder.pid), "ls", "/"],
                                  stdout=subprocess.PIPE, check=True, text=True).stdout

        before = look()
        bundle = oci.bundle().shell("ls /; echo in > /tmp/made; sleep 100")
        bundle.config["root"]["readonly"] = False
        for entry in bundle.linux["namespaces"]:
            if entry["type"] == "mount":
                entry["path"] = f"/proc/{holder.pid}/ns/mnt"
        name = oci.start(bundle)
        assert wait_for(lambda: os.path.exists(f"{bundle.rootfs}/tmp/made"))
        pid = oci.run("state", name).json["pid"]
        assert os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink(f"/proc/{holder.pid}/ns/mnt")
        assert oci.output().split() == sorted("bin dev etc proc sys tmp".split())
        assert look() == before
        assert oci.run("exec", name, "ls", "/").out.split() == oci.output().split()
        oci.run("delete", "--force", name, check=True)
        assert look() == before
    finally:
        holder.kill()
        holder.wait()


def test_a_joined_mount_namespace_without_the_root_is_refused_by_name(oci):
    first = oci.start(oci.bundle().args("sleep", "100"))
    second = oci.bundle("second").args("true")
    for entry in second.linux["namespaces"]:
        if entry["type"] == "mount":
            entry["path"] = f"/proc/{oci.run('state', first).json['pid']}/ns/mnt"
    assert "root.path" in oci.once(second).err


def test_a_path_of_another_kind_of_namespace_is_refused(oci):
    bundle = oci.bundle().args("true")
    bundle.linux["namespaces"] = [
        {"type": "mount"},
        {"type": "network", "path": "/proc/self/ns/ipc"},
    ]
    bundle.config.pop("hostname")
    assert "is not a namespace of type" in oci.once(bundle).err


def test_a_user_namespace_maps_ids(oci):
    """config-linux.md, User namespace mappings."""
    bundle = oci.bundle().shell("cat /proc/self/uid_map; id -u; stat -c %u /")
    os.chmod(oci.directory, 0o755)
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    os.chown(bundle.rootfs, 100000, 100000)
    result = oci.once(bundle)
    assert result.out.split() == ["0", "100000", "1000", "0", "0"], result.err


def test_a_time_namespace_has_its_offset(oci):
    """config-linux.md, timeOffsets."""
    bundle = oci.bundle().shell("cut -d. -f1 /proc/uptime")
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 1000000, "nanosecs": 0}}
    with open("/proc/uptime") as file:
        host = float(file.read().split()[0])
    assert 1000000 - 1 <= int(oci.once(bundle).out) - host < 1000060


def test_default_devices_and_links_are_there(oci):
    """config-linux.md, Default Devices; runtime-linux.md, Dev symbolic links."""
    bundle = oci.bundle().shell(
        "for d in null zero full random urandom tty; do stat -c '%n %t:%T %F' /dev/$d; done;"
        "for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; echo x > /dev/null"
    )
    lines = oci.once(bundle).out.split("\n")
    assert [line.split()[1] for line in lines[:6]] == ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"]
    assert "/proc/self/fd" in lines and "pts/ptmx" in lines


def test_devices_are_made_with_mode_and_owner(oci):
    """config-linux.md, Devices."""
    bundle = oci.bundle().shell("stat -c '%F %t:%T %a %u:%g' /dev/mine /dev/pipe")
    bundle.linux["devices"] = [
        {
            "path": "/dev/mine",
            "type": "c",
            "major": 1,
            "minor": 3,
            "fileMode": 0o640,
            "uid": 4,
            "gid": 5,
        },
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
    ]
    assert oci.once(bundle).out == ("character special file 1:3 640 4:5\nfifo 0:0 600 0:0\n")


def test_a_device_that_is_not_allowed_cannot_be_opened(oci):
    """config-linux.md, Allowed Device list. No driver has this one: where the rules let it
    pass, the kernel says that it is not there."""
    bundle = oci.bundle().privileged()
    bundle.shell("mknod /dev/none c 240 77; (exec 3</dev/none) 2>&1; echo x > /dev/zero && echo z")
    out = oci.once(bundle).out
    assert "Operation not permitted" in out and out.endswith("z\n")
    bundle.linux["resources"]["devices"].append(
        {"allow": True, "type": "c", "major": 240, "minor": 77, "access": "r"}
    )
    assert "No such device" in oci.once(bundle).out


def test_masked_paths_show_nothing_and_read_only_paths_cannot_be_written(oci):
    """config-linux.md, Masked Paths and Readonly Paths."""
    bundle = (
        oci.bundle()
        .privileged()
        .shell(
            "cat /etc/secret; ls /hidden; touch /fixed/x 2>/dev/null || echo fixed; "
            "cat /proc/keys | wc -c"
        )
    )
    with open(os.path.join(bundle.rootfs, "etc/secret"), "w") as file:
        file.write("secret")
    for name in ("hidden", "fixed"):
        os.mkdir(os.path.join(bundle.rootfs, name))
        with open(os.path.join(bundle.rootfs, name, "file"), "w"):
            pass
    bundle.linux["maskedPaths"] += ["/etc/secret", "/hidden", "/not/there"]
    bundle.linux["readonlyPaths"] += ["/fixed", "/not/there"]
    assert oci.once(bundle).out == "fixed\n0\n"


def test_sysctls_are_set_in_the_containers_namespaces(oci):
    """config-linux.md, Sysctl."""
    bundle = oci.bundle().shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni")
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmni": "77"}
    assert oci.once(bundle).out == "1\n77\n"


def test_a_seccomp_filter_has_its_actions(oci):
    """config-linux.md, Seccomp."""
    bundle = oci.bundle()
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["sync"], "action": "SCMP_ACT_KILL_PROCESS"},
            {
                "names": ["kill"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 1,
                "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}],
            },
        ],
    }
    result = oci.once(
        bundle.shell(
            "mkdir /tmp/x 2>&1; chmod 600 /tmp 2>&1; kill -USR1 1 2>&1; "
            "kill -0 1 && echo fine; sync; echo $?"
        )
    )
    assert "No space" in result.out and "Operation not permitted" in result.out
    assert result.out.endswith("fine\nBad system call\n159\n") or result.out.endswith("fine\n159\n")
    bundle.process["noNewPrivileges"] = False
    assert oci.once(bundle.shell("mkdir /tmp/x 2>&1; true")).out.endswith(
        "No space left on device\n"
    )


def test_a_seccomp_listener_is_sent_with_the_state(oci):
    """config-linux.md, Seccomp: listenerPath; runtime.md, The Seccomp process state."""
    path = os.path.join(oci.directory, "listener")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen()
        bundle = oci.bundle().shell("sleep 100")
        bundle.linux["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": path,
            "listenerMetadata": "mine",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
        }
        name = oci.create(bundle)
        server.settimeout(10)
        client, _ = server.accept()
        data, descriptors, _, _ = socket.recv_fds(client, 65536, 4)
        message = json.loads(data)
        assert len(descriptors) == 1 and message["fds"] == ["seccompFd"]
        assert message["metadata"] == "mine" and message["state"]["id"] == name
        assert os.readlink(f"/proc/self/fd/{descriptors[0]}") == "anon_inode:seccomp notify"
        for descriptor in descriptors:
            os.close(descriptor)
        client.close()


def test_intel_rdt_is_refused_clearly(oci):
    bundle = oci.bundle().args("true")
    bundle.linux["intelRdt"] = {"closID": "x"}
    result = oci.once(bundle)
    assert result.status == 1 and "Intel RDT is not supported" in result.err


def test_personality_changes_the_machine(oci):
    """config-linux.md, Personality."""
    bundle = oci.bundle().args("uname", "-m")
    bundle.linux["personality"] = {"domain": "LINUX32"}
    assert oci.once(bundle).out == "i686\n"


def group_value(name, *files):
    """The first of the files that one of the container's groups has."""
    for directory in cgroups_named(name):
        for file in files:
            path = os.path.join(directory, file)
            if os.path.exists(path):
                with open(path) as stream:
                    return stream.read().strip()
    return None


def test_limits_are_applied_and_updated(oci):
    """config-linux.md, Memory, CPU, PIDs; and update."""
    bundle = oci.bundle().args("sleep", "100")
    bundle.linux["resources"].update(
        memory={"limit": 64 << 20},
        pids={"limit": 33},
        cpu={"shares": 512, "quota": 50000, "period": 100000},
    )
    name = oci.start(bundle)
    memory = "memory.limit_in_bytes", "memory.max"
    if group_value(name, *memory) is None:
        pytest.skip("the host has no memory controller")
    assert group_value(name, *memory) == str(64 << 20)
    assert group_value(name, "pids.max") == "33"
    assert group_value(name, "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    oci.run(
        "update",
        "--memory",
        str(32 << 20),
        "--pids-limit",
        "44",
        "--cpu-quota",
        "20000",
        name,
        check=True,
    )
    assert group_value(name, *memory) == str(32 << 20)
    assert group_value(name, "pids.max") == "44"
    assert group_value(name, "cpu.cfs_quota_us", "cpu.max").split()[0] == "20000"
    oci.run(
        "update", "--resources", "-", name, stdin=None, input='{"pids":{"limit":55}}', check=True
    )
    assert group_value(name, "pids.max") == "55"
    assert oci.run("update", "--memory", "many", name).status == 1
    oci.run("update", "--memory", "48m", name, check=True)
    assert group_value(name, *memory) == str(48 << 20)
    stats = oci.run("events", "--stats", name, check=True).json
    assert stats["type"] == "stats" and stats["data"]["pids"]["limit"] == 55


def test_a_hog_is_killed_at_its_limit_and_events_tells(oci):
    bundle = oci.bundle().shell(
        "while [ ! -e /tmp/go ]; do sleep 0.1; done; "
        "(x=a; while true; do x=$x$x; done); echo $? > /tmp/status; sleep 100"
    )
    bundle.config["root"]["readonly"] = False
    bundle.linux["resources"]["memory"] = {"limit": 16 << 20}
    name = oci.start(bundle)
    events = subprocess.Popen([*oci.command, "events", name], stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.3)
        with open(os.path.join(bundle.rootfs, "tmp/go"), "w"):
            pass
        assert json.loads(events.stdout.readline()) == {"type": "oom", "id": name}
        status = os.path.join(bundle.rootfs, "tmp/status")
        assert wait_for(lambda: os.path.exists(status) and open(status).read() == "137\n")
    finally:
        events.kill()
        events.wait()


def test_a_control_group_with_processes_is_not_taken_over(oci):
    """config-linux.md, Cgroups Path: two containers do not share limits, nor a death."""
    bundle = oci.bundle().args("sleep", "100")
    bundle.linux["cgroupsPath"] = "/" + oci.new_id()
    first = oci.start(bundle)
    result = oci.once(oci.bundle("second").args("true"))
    assert result.status == 0, result.err
    second = oci.bundle("third").args("true")
    second.linux["cgroupsPath"] = bundle.linux["cgroupsPath"]
    result = oci.once(second)
    assert result.status == 1 and "processes already" in result.err
    assert oci.status(first) == "running"

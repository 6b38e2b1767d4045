"""config.json as an enemy would write it: one line that names the field, and nothing left."""
import json
import os

import pytest

from system.oci import cgroups_named


def drop(*path):
    def change(config):
        for name in path[:-1]:
            config = config[name]
        del config[path[-1]]

    return change


def put(value, *path):
    def change(config):
        for name in path[:-1]:
            config = config.setdefault(name, {}) if isinstance(config, dict) else config[name]
        config[path[-1]] = value

    return change


BAD = [
    # what the error must name, what is done to the configuration
    ("ociVersion", drop("ociVersion")),
    ("ociVersion", put(1, "ociVersion")),
    ("ociVersion", put("2.0.0", "ociVersion")),
    ("ociVersion", put("one", "ociVersion")),
    ("root", drop("root")),
    ("root", put("rootfs", "root")),
    ("root.path", drop("root", "path")),
    ("root.path", put(7, "root", "path")),
    ("root.path", put("", "root", "path")),
    ("root.path", put("no/such/directory", "root", "path")),
    ("root.readonly", put("yes", "root", "readonly")),
    ("process", drop("process")),
    ("process", put([], "process")),
    ("process.args", drop("process", "args")),
    ("process.args", put([], "process", "args")),
    ("process.args", put("sh", "process", "args")),
    ("process.args[1]", put(["sh", 7], "process", "args")),
    ("process.cwd", drop("process", "cwd")),
    ("process.cwd", put("relative", "process", "cwd")),
    ("process.env", put({"A": "b"}, "process", "env")),
    ("process.terminal", put(1, "process", "terminal")),
    ("process.user.uid", put(-1, "process", "user", "uid")),
    ("process.user.gid", put(1 << 33, "process", "user", "gid")),
    ("process.user.umask", put(0o7777, "process", "user", "umask")),
    ("process.user.additionalGids", put(["wheel"], "process", "user", "additionalGids")),
    ("process.oomScoreAdj", put(1001, "process", "oomScoreAdj")),
    (
        "process.rlimits[0].type",
        put([{"type": "RLIMIT_X", "soft": 1, "hard": 1}], "process", "rlimits"),
    ),
    (
        "process.rlimits[0].soft",
        put([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}], "process", "rlimits"),
    ),
    (
        "process.rlimits[1].type",
        put([{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2, "process", "rlimits"),
    ),
    ("process.capabilities", put("all", "process", "capabilities")),
    ("process.scheduler.policy", put({"policy": "SCHED_BEST"}, "process", "scheduler")),
    (
        "process.ioPriority.priority",
        put({"class": "IOPRIO_CLASS_BE", "priority": 9}, "process", "ioPriority"),
    ),
    ("process.consoleSize", put(80, "process", "consoleSize")),
    ("hostname", put(["a"], "hostname")),
    ("hostname", put([{"type": "mount"}], "linux", "namespaces")),
    ("mounts", put({}, "mounts")),
    ("mounts[0].destination", put([{"type": "tmpfs"}], "mounts")),
    ("mounts[0].destination", put([{"destination": "relative", "type": "tmpfs"}], "mounts")),
    ("/x", put([{"destination": "/x"}], "mounts")),
    ("/x", put([{"destination": "/x", "type": "bind", "options": ["bind"]}], "mounts")),
    (
        "/x",
        put(
            [{"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]}],
            "mounts",
        ),
    ),
    ("/x", put([{"destination": "/x", "type": "nofs", "source": "none"}], "mounts")),
    (
        "/x",
        put(
            [{"destination": "/x", "type": "tmpfs", "source": "t", "options": ["x" * 5000]}],
            "mounts",
        ),
    ),
    ("/x", put([{"destination": "/x", "type": "tmpfs", "options": ["idmap"]}], "mounts")),
    ("hooks.prestart[0].path", put([{"path": "relative"}], "hooks", "prestart")),
    ("hooks.poststop[0].path", put([{}], "hooks", "poststop")),
    ("hooks.prestart[0].timeout", put([{"path": "/bin/true", "timeout": 0}], "hooks", "prestart")),
    ("namespace", put([], "linux", "namespaces")),
    ("linux.namespaces[0].type", put([{"type": "disk"}], "linux", "namespaces")),
    ("linux.namespaces[1].type", put([{"type": "mount"}] * 2, "linux", "namespaces")),
    ("linux.namespaces[0].path", put([{"type": "pid", "path": "self"}], "linux", "namespaces")),
    (
        "/no/such",
        put(
            [{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/no/such"}],
            "linux",
            "namespaces",
        ),
    ),
    (
        "linux.uidMappings",
        put([{"containerID": 0, "hostID": 0, "size": 1}], "linux", "uidMappings"),
    ),
    (
        "linux.uidMappings[0].size",
        put([{"containerID": 0, "hostID": 0, "size": 0}], "linux", "uidMappings"),
    ),
    ("linux.timeOffsets", put({"boottime": {"secs": 1}}, "linux", "timeOffsets")),
    ("linux.devices[0].type", put([{"path": "/dev/x", "type": "z"}], "linux", "devices")),
    ("linux.devices[0].path", put([{"path": "x", "type": "p"}], "linux", "devices")),
    ("linux.devices[0].major", put([{"path": "/dev/x", "type": "c"}], "linux", "devices")),
    (
        "linux.devices[0].major",
        put([{"path": "/dev/x", "type": "c", "major": 1 << 40, "minor": 1}], "linux", "devices"),
    ),
    (
        "linux.resources.devices[0].access",
        put([{"allow": True, "access": "rx"}], "linux", "resources", "devices"),
    ),
    ("linux.resources.memory.limit", put({"limit": "1G"}, "linux", "resources", "memory")),
    ("linux.resources.pids.limit", put({}, "linux", "resources", "pids")),
    ("linux.resources.unified", put({"../escape": "1"}, "linux", "resources", "unified")),
    ("linux.seccomp.defaultAction", put({}, "linux", "seccomp")),
    ("linux.seccomp.defaultAction", put({"defaultAction": "SCMP_ACT_NOTIFY"}, "linux", "seccomp")),
    (
        "linux.seccomp.architectures",
        put(
            {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]},
            "linux",
            "seccomp",
        ),
    ),
    (
        "linux.seccomp.flags",
        put({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}, "linux", "seccomp"),
    ),
    (
        "linux.seccomp.syscalls[0].action",
        put(
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "X"}]},
            "linux",
            "seccomp",
        ),
    ),
    (
        "linux.seccomp.syscalls[0].args[0].index",
        put(
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {
                        "names": ["read"],
                        "action": "SCMP_ACT_ERRNO",
                        "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}],
                    }
                ],
            },
            "linux",
            "seccomp",
        ),
    ),
    ("linux.rootfsPropagation", put("everywhere", "linux", "rootfsPropagation")),
    ("linux.maskedPaths[0]", put(["relative"], "linux", "maskedPaths")),
    ("linux.readonlyPaths", put("/x", "linux", "readonlyPaths")),
    ("linux.sysctl", put({"net.ipv4.ip_forward": 1}, "linux", "sysctl")),
    ("linux.sysctl", put({"net/../kernel/panic": "0"}, "linux", "sysctl")),
    ("linux.sysctl", put({"net..x": "0"}, "linux", "sysctl")),
    ("linux.sysctl", put({"net.": "0"}, "linux", "sysctl")),
    ("linux.personality.domain", put({"domain": "MINIX"}, "linux", "personality")),
    ("linux.cgroupsPath", put(7, "linux", "cgroupsPath")),
    ("annotations", put({"a": 1}, "annotations")),
]


@pytest.mark.parametrize("named,change", BAD, ids=[f"{i}-{b[0]}" for i, b in enumerate(BAD)])
def test_a_wrong_field_is_named_in_one_line_and_nothing_is_left(oci, named, change):
    bundle = oci.bundle().args("true")
    with open(os.path.join(bundle.path, "config.json"), "w") as file:
        file.write(bundle.changed(change))
    name = oci.new_id()
    result = oci.run("create", "--bundle", bundle.path, name)
    assert result.status == 1 and named in result.err and result.err.count("\n") == 1, result.err
    assert not os.path.exists(os.path.join(oci.state, name)) and not cgroups_named(name)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '{"ociVersion": "1.0.0", }', "\0", '{"a":' * 3000, "[" * 100000],
)
def test_what_is_no_object_is_refused(oci, text):
    bundle = oci.bundle()
    with open(os.path.join(bundle.path, "config.json"), "w") as file:
        file.write(text)
    result = oci.run("create", "--bundle", bundle.path, oci.new_id())
    assert result.status == 1 and "config.json" in result.err and result.err.count("\n") == 1


def test_a_bundle_that_is_not_there_is_named(oci):
    assert "/no/such/bundle" in oci.run("create", "--bundle", "/no/such/bundle", oci.new_id()).err
    empty = os.path.join(oci.directory, "empty")
    os.mkdir(empty)
    assert "config.json" in oci.run("create", "--bundle", empty, oci.new_id()).err


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"pid": "x"}', '{"pid": -1, "cgroup": 7}', '{"cgroup": [{"mount": 7}]}'],
)
def test_a_damaged_state_can_still_be_deleted(oci, text):
    name = oci.create(oci.bundle().args("true"))
    pid = oci.run("state", name).json["pid"]
    with open(os.path.join(oci.state, name, "state.json"), "w") as file:
        file.write(text)
    oci.run("state", name)
    oci.run("list")
    assert oci.run("delete", "--force", name).status == 0
    assert not os.path.exists(os.path.join(oci.state, name))
    os.kill(pid, 9)
    for directory in cgroups_named(name):
        for _ in range(100):
            try:
                os.rmdir(directory)
                break
            except OSError:
                import time

                time.sleep(0.02)


@pytest.mark.parametrize(
    "arguments",
    [
        ["create"],
        ["create", "a", "b"],
        ["state"],
        ["kill", "a", "b", "c"],
        ["no-such-verb"],
        ["--no-such-option"],
        ["create", "--preserve-fds"],
        ["list", "extra"],
        ["--log-format", "xml", "list"],
    ],
)
def test_a_wrong_command_line_is_a_usage_error(oci, arguments):
    result = oci.run(*arguments)
    assert result.status == 2 and result.err.count("\n") == 1


@pytest.mark.parametrize(
    "process", ["", "{}", '{"args": ["sh"], "cwd": "x"}', '{"args": [], "cwd": "/"}', "[1]"]
)
def test_a_wrong_process_file_is_refused(oci, process):
    name = oci.start(oci.bundle().args("sleep", "100"))
    path = os.path.join(oci.directory, "process.json")
    with open(path, "w") as file:
        file.write(process)
    result = oci.run("exec", "--process", path, name)
    assert result.status == 1 and result.err.count("\n") == 1


@pytest.mark.parametrize(
    "resources",
    ["", "7", '{"memory": 1}', '{"memory": {"limit": "x"}}', '{"unified": {"a/b": "1"}}'],
)
def test_wrong_resources_change_nothing(oci, resources):
    name = oci.start(oci.bundle().args("sleep", "100"))
    result = oci.run("update", "--resources", "-", name, stdin=None, input=resources)
    assert result.status == 1 and result.err.count("\n") == 1
    assert json.loads(oci.run("state", name).out)["status"] == "running"

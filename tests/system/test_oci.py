"""What containers are and do, clause by clause of the OCI runtime specification 1.2."""
import json
import os
import socket
import subprocess
import time

import pytest

from system.oci import cgroups_named


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


# --- runtime.md: Lifecycle, State, Operations ---


def test_a_container_goes_from_created_to_running_to_stopped_and_is_gone(oci):
    """runtime.md, Lifecycle and State."""
    name = oci.create(oci.bundle().args("sleep", "100"))
    state = oci.run("state", name, check=True).json
    assert state["status"] == "created" and state["id"] == name and state["pid"] > 1
    assert state["ociVersion"].startswith("1.") and os.path.isdir(state["bundle"])
    oci.run("start", name, check=True)
    assert oci.status(name) == "running"
    oci.run("kill", name, "KILL", check=True)
    assert wait_for(lambda: oci.status(name) == "stopped")
    oci.run("delete", name, check=True)
    assert oci.run("state", name).status == 1
    assert not cgroups_named(name) and not os.path.exists(os.path.join(oci.state, name))


def test_the_program_does_not_run_before_start(oci):
    """runtime.md, Create: the user-specified program MUST NOT be run at this time."""
    bundle = oci.bundle().shell("echo ran")
    name = oci.create(bundle)
    time.sleep(0.1)
    assert oci.output() == ""
    oci.run("start", name, check=True)
    assert wait_for(lambda: oci.output() == "ran\n")


def test_each_operation_refuses_a_container_in_the_wrong_state(oci):
    """runtime.md, Start, Kill, Delete: an error in any other state, and no effect."""
    bundle = oci.bundle().args("sleep", "100")
    name = oci.start(bundle)
    assert oci.run("start", name).status == 1
    assert oci.run("delete", name).status == 1
    assert oci.run("resume", name).status == 1
    assert oci.run("create", "--bundle", bundle.path, name).status == 1
    assert oci.status(name) == "running"
    oci.run("kill", name, "9", check=True)
    assert wait_for(lambda: oci.status(name) == "stopped")
    for verb in (["start"], ["kill"], ["pause"], ["exec"]):
        assert oci.run(*verb, name, *(["true"] if verb == ["exec"] else [])).status == 1


@pytest.mark.parametrize("verb", ["state", "start", "kill", "delete", "pause", "resume", "ps"])
def test_an_operation_on_an_unknown_container_is_one_line_of_error(oci, verb):
    result = oci.run(verb, "lodge-test-nobody")
    assert result.status == 1 and "does not exist" in result.err and result.err.count("\n") == 1


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "../x", "a b", "x" * 2000])
def test_an_id_that_could_leave_the_state_directory_is_refused(oci, name):
    bundle = oci.bundle().save()
    assert oci.run("create", "--bundle", bundle.path, name).status in (1, 2)


def test_the_exit_status_is_the_programs_or_tells_the_signal(oci):
    bundle = oci.bundle()
    assert oci.once(bundle.shell("exit 42")).status == 42
    assert oci.once(bundle.shell("kill -TERM $$; sleep 1; exit 3")).status in (3, 143)
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "pid"]
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "proc"]
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    assert oci.once(bundle.shell("kill -TERM $$")).status == 143


def test_a_program_that_is_not_there_fails_the_creation(oci):
    result = oci.once(oci.bundle().args("no-such-program"))
    assert result.status == 1 and "executable file not found in $PATH" in result.err
    result = oci.once(oci.bundle("second").args("/etc"))
    assert result.status == 1 and "ermission denied" in result.err


def test_exec_joins_the_container_and_gives_its_exit_status(oci):
    bundle = oci.bundle().args("sleep", "100")
    name = oci.start(bundle)
    result = oci.run(
        "exec",
        "--env",
        "A=b",
        "--cwd",
        "/tmp",
        "--user",
        "7:8",
        name,
        "sh",
        "-c",
        "echo $A $PWD $(id -u) $(id -g) $(hostname); exit 9",
    )
    assert (result.status, result.out) == (9, "b /tmp 7 8 lodge\n")
    with open(os.path.join(oci.directory, "process.json"), "w") as file:
        json.dump(dict(bundle.process, args=["sh", "-c", "exit 5"]), file)
    assert oci.run("exec", "--process", file.name, name).status == 5
    assert oci.run("exec", name, "nothing").status == 1


def test_many_join_a_container_at_once(oci):
    name = oci.start(oci.bundle().args("sleep", "100"))
    processes = [
        subprocess.Popen(
            [*oci.command, "exec", name, "sh", "-c", f"exit {i}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for i in range(30)
    ]
    assert [p.wait(timeout=120) for p in processes] == list(range(30))


def test_exec_takes_capabilities_groups_and_a_control_group(oci):
    bundle = oci.bundle().privileged()
    bundle.process["capabilities"] = {kind: ["CAP_KILL"] for kind in ("bounding", "permitted")}
    name = oci.start(bundle.args("sleep", "100"))
    look = "grep CapBnd /proc/self/status; id -G; cat /proc/self/cgroup"
    inner = [os.path.join(path, "inner") for path in cgroups_named(name)]
    for path in inner:
        os.mkdir(path)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if os.path.exists(os.path.join(path, file)):
                with open(os.path.join(os.path.dirname(path), file)) as above:
                    value = above.read()
                with open(os.path.join(path, file), "w") as below:
                    below.write(value)
    result = oci.run(
        "exec",
        "--cap",
        "CAP_CHOWN",
        "--additional-gids",
        "9",
        "--cgroup",
        "inner",
        name,
        "sh",
        "-c",
        look,
    )
    assert "0000000000000021" in result.out and "0 9" in result.out, result.err
    assert all(line.endswith("/inner") for line in result.out.split() if ":/" in line)
    assert oci.run("exec", "--cgroup", "../..", name, "true").status == 1


def test_the_verb_of_the_command_is_the_same_runtime(oci, lodge):
    bundle = oci.bundle().shell("cat; exit 3").save()
    command = [lodge, "--help"] if lodge.endswith("lodge-oci") else [lodge, "oci"]
    if command[1] != "oci":
        pytest.skip("the program under test is the runtime alone")
    result = subprocess.run(
        [*command, *oci.command[1:], "run", "--bundle", bundle.path, oci.new_id()],
        input="through\n",
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stdout) == (3, "through\n")


def test_list_and_ps_have_runcs_forms(oci):
    name = oci.start(oci.bundle().args("sleep", "100"))
    (entry,) = oci.run("list", "--format", "json", check=True).json
    assert entry["id"] == name and entry["status"] == "running" and entry["owner"] == "root"
    assert oci.run("list", "-q").out == name + "\n"
    assert "ID" in oci.run("list").out.split("\n")[0]
    assert oci.run("ps", "--format", "json", name).json == [entry["pid"]]
    assert "sleep" in oci.run("ps", name).out


def test_a_paused_container_stands_still_until_it_is_resumed(oci):
    name = oci.start(oci.bundle().args("sleep", "100"))
    oci.run("pause", name, check=True)
    assert oci.status(name) == "paused"
    assert "paused" in oci.run("exec", name, "true").err
    oci.run("resume", name, check=True)
    assert oci.run("exec", name, "true").status == 0
    oci.run("pause", name, check=True)
    oci.run("delete", "--force", name, check=True)
    assert not cgroups_named(name)


def test_errors_are_written_to_the_log_as_json(oci):
    log = os.path.join(oci.directory, "log")
    assert oci.run("--log", log, "--log-format=json", "start", "lodge-test-nobody").status == 1
    with open(log) as file:
        entry = json.loads(file.readline())
    assert entry["level"] == "error" and "does not exist" in entry["msg"] and "T" in entry["time"]


def test_a_sysctl_is_set_where_the_runtimes_own_proc_is_covered(oci):
    """As in a container, where /proc/sys is a read-only mount of its own."""
    bundle = oci.bundle().args("cat", "/proc/sys/kernel/shmmax")
    bundle.linux["sysctl"] = {"kernel.shmmax": "12345678"}
    cover = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec"
    oci.command = ["unshare", "-m", "sh", "-c", cover + ' "$@"', "sh", *oci.command]
    assert oci.once(bundle).out == "12345678\n"


@pytest.mark.parametrize("verb", ["checkpoint", "restore"])
def test_checkpoints_are_refused_and_the_engines_log_says_so(oci, verb):
    name = oci.create(oci.bundle())
    log = os.path.join(oci.directory, "log")
    options = ["--image-path", oci.directory, "--work-path", oci.directory, "--tcp-established"]
    words = ["--log", log, "--log-format", "json", verb, *options, name]
    assert oci.run(*words).status == 1 and oci.status(name) == "created"
    with open(log) as file:
        assert "no checkpoints" in json.loads(file.readline())["msg"]


def test_features_names_what_the_specification_asks_for(oci):
    """features.md."""
    features = oci.run("features", check=True).json
    assert features["ociVersionMax"] >= "1.2" and len(features["hooks"]) == 6
    assert {"time", "user", "pid"} <= set(features["linux"]["namespaces"])
    assert "rbind" in features["mountOptions"] and features["linux"]["seccomp"]["enabled"]
    assert "SCMP_ACT_NOTIFY" in features["linux"]["seccomp"]["actions"]


# --- config.md: Root, Mounts, Process, Hostname ---


def test_the_root_is_read_only_when_asked(oci):
    """config.md, Root: readonly."""
    bundle = oci.bundle().shell("touch /x && echo written")
    assert "Read-only" in oci.once(bundle).err
    bundle.config["root"]["readonly"] = False
    assert oci.once(bundle).out == "written\n"


MOUNTS = [
    # options, what to run, what it prints
    (["bind", "ro"], "touch /m/x || echo no", "no\n"),
    (["rbind", "rw"], "touch /m/x && echo yes", "yes\n"),
    (["bind", "noexec"], "/m/program || echo no", "no\n"),
    (
        ["bind", "nosuid", "nodev"],
        "grep -o ' /m [a-z,]*' /proc/self/mountinfo | grep -c nosuid,nodev",
        "1\n",
    ),
    (["rbind", "rro"], "touch /m/below/x || echo no", "no\n"),
    (["rbind", "ro"], "touch /m/below/x && echo yes", "yes\n"),
    (["rbind", "rnoexec", "exec"], "/m/program || echo no", "no\n"),
    (
        ["bind", "rprivate"],
        "grep ' /m ' /proc/self/mountinfo | grep -c -E 'shared|master'; true",
        "0\n",
    ),
    (["bind", "rshared"], "grep ' /m ' /proc/self/mountinfo | grep -c shared", "1\n"),
    (["bind", "nosymfollow"], "cat /m/link 2>/dev/null || echo no", "no\n"),
    (["bind", "noatime"], "grep -o ' /m [a-z,]*' /proc/self/mountinfo | grep -c noatime", "1\n"),
]


@pytest.mark.parametrize("options,script,printed", MOUNTS, ids=[",".join(m[0]) for m in MOUNTS])
def test_a_bind_mount_has_its_options(oci, options, script, printed):
    """config.md, Mounts, Linux mount options."""
    source = os.path.join(oci.directory, "source")
    os.makedirs(os.path.join(source, "below"))
    with open(os.path.join(source, "program"), "w") as file:
        file.write("#!/bin/sh\necho ran\n")
    os.chmod(file.name, 0o755)
    os.symlink("program", os.path.join(source, "link"))
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", os.path.join(source, "below")], check=True)
    try:
        bundle = oci.bundle().shell("(" + script + ") 2>/dev/null")
        bundle.config["mounts"].append(
            {"destination": "/m", "type": "bind", "source": source, "options": options}
        )
        result = oci.once(bundle)
        assert result.out == printed, result.err
    finally:
        subprocess.run(["umount", os.path.join(source, "below")], check=True)


def test_a_tmpfs_with_tmpcopyup_begins_with_what_was_there(oci):
    bundle = oci.bundle().shell("cat /etc/a/b; stat -c %a /etc/a; touch /etc/new && echo new")
    os.makedirs(os.path.join(bundle.rootfs, "etc/a"), mode=0o750)
    with open(os.path.join(bundle.rootfs, "etc/a/b"), "w") as file:
        file.write("kept\n")
    bundle.config["mounts"].append(
        {
            "destination": "/etc",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["tmpcopyup", "mode=755"],
        }
    )
    assert oci.once(bundle).out == "kept\n750\nnew\n"
    assert not os.path.exists(os.path.join(bundle.rootfs, "etc/new"))


@pytest.mark.parametrize(
    "there,options,wanted",
    [
        (True, [], "711 5:6"),
        (True, ["mode=700", "uid=3"], "700 3:6"),
        (False, [], "1777 0:0"),
        (False, ["mode=700"], "700 0:0"),
    ],
)
def test_options_of_a_tmpfs_say_more_than_the_directory_it_begins_with(oci, there, options, wanted):
    bundle = oci.bundle().shell("stat -c '%a %u:%g' /place")
    if there:
        place = os.path.join(bundle.rootfs, "place")
        os.mkdir(place)
        os.chown(place, 5, 6)
        os.chmod(place, 0o711)
    bundle.config["mounts"].append({"destination": "/place", "type": "tmpfs", "source": "tmpfs",
                                    "options": ["tmpcopyup", *options]})
    assert oci.once(bundle).out == wanted + "\n"


@pytest.mark.parametrize(
    "program,words",
    [
        ("/no/such", "no such file or directory"),
        ("no-such", "executable file not found in $PATH"),
        ("/etc", "permission denied"),
        ("/script", "no such file or directory"),
    ],
)
def test_a_program_that_cannot_run_is_told_in_the_words_that_engines_look_for(oci, program, words):
    """docker gives 126 or 127 by them."""
    bundle = oci.bundle().args(program)
    with open(os.path.join(bundle.rootfs, "script"), "w", opener=lambda path, flags: os.open(
            path, flags, 0o755)) as file:
        file.write("#!/no/interpreter\n")
    result = oci.once(bundle)
    assert result.status != 0 and result.err.endswith(f'exec: "{program}": {words}\n')


def test_an_overlay_is_mounted_by_its_type(oci):
    """config.md, Mounts: type is a filesystem of the kernel."""
    for name in ("lower", "upper", "work"):
        os.mkdir(os.path.join(oci.directory, name))
    with open(os.path.join(oci.directory, "lower", "file"), "w") as file:
        file.write("below\n")
    bundle = oci.bundle().shell("cat /o/file; echo above > /o/file; cat /o/file")
    data = ["{0}dir={1}/{0}".format(n, oci.directory) for n in ("lower", "upper", "work")]
    bundle.config["mounts"].append(
        {"destination": "/o", "type": "overlay", "source": "overlay", "options": data}
    )
    assert oci.once(bundle).out == "below\nabove\n"
    with open(os.path.join(oci.directory, "lower", "file")) as file:
        assert file.read() == "below\n"


def test_an_id_mapped_mount_shows_files_with_mapped_owners(oci):
    """config.md, Mounts: uidMappings and gidMappings."""
    source = os.path.join(oci.directory, "source")
    os.mkdir(source)
    with open(os.path.join(source, "file"), "w"):
        pass
    os.chown(os.path.join(source, "file"), 0, 0)
    bundle = oci.bundle().shell("stat -c %u:%g /m/file")
    bundle.config["mounts"].append(
        {
            "destination": "/m",
            "type": "bind",
            "source": source,
            "options": ["bind"],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 10}],
        }
    )
    result = oci.once(bundle)
    if "cannot id-map" in result.err:
        pytest.skip("the filesystem of the temporary directory cannot be id-mapped")
    assert result.out == "1000:2000\n", result.err


def test_the_process_is_what_the_configuration_says(oci):
    """config.md, Process and User."""
    bundle = oci.bundle().shell(
        "pwd; umask; id -u; id -g; id -G; echo $X; ulimit -n; cat /proc/self/oom_score_adj; "
        "cut -d' ' -f19 /proc/self/stat; "
        "grep -E 'NoNewPrivs|CapBnd|CapEff' /proc/self/status"
    )
    bundle.process.update(
        cwd="/made/for/it",
        env=["PATH=/bin", "X=y"],
        oomScoreAdj=100,
        user={"uid": 5, "gid": 6, "umask": 0o27, "additionalGids": [8, 9]},
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 78}],
        scheduler={"policy": "SCHED_BATCH", "nice": 5},
        ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6},
        capabilities={
            kind: ["CAP_KILL"]
            for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
        },
    )
    bundle.config["root"]["readonly"] = False
    result = oci.once(bundle)
    assert result.out.split("\n")[:9] == [
        "/made/for/it",
        "0027",
        "5",
        "6",
        "6 8 9",
        "y",
        "77",
        "100",
        "5",
    ], result.err
    assert "CapEff:\t0000000000000020" in result.out and "CapBnd:\t0000000000000020" in result.out
    assert "NoNewPrivs:\t1" in result.out


def test_home_is_found_in_the_containers_passwd(oci):
    bundle = oci.bundle().shell("echo $HOME")
    with open(os.path.join(bundle.rootfs, "etc/passwd"), "w") as file:
        file.write("other:x:1:1::/wrong:\nuser:x:12:12::/home/user:/bin/sh\n")
    bundle.process["user"] = {"uid": 12, "gid": 12}
    assert oci.once(bundle).out == "/home/user\n"
    bundle.process["user"] = {"uid": 99, "gid": 12}
    assert oci.once(bundle).out == "/\n"


def test_host_and_domain_name_are_the_containers_own(oci):
    """config.md, Hostname and Domainname."""
    bundle = oci.bundle().shell("hostname; cat /proc/sys/kernel/domainname")
    bundle.config.update(hostname="inside", domainname="example.test")
    before = os.uname().nodename
    assert oci.once(bundle).out == "inside\nexample.test\n"
    assert os.uname().nodename == before


def test_descriptors_are_passed_on_only_when_asked(oci):
    reading, writing = os.pipe()
    os.write(writing, b"through\n")
    os.close(writing)
    bundle = oci.bundle().shell(
        f"ls /proc/self/fd | wc -l; cat <&{reading} 2>/dev/null || echo none"
    )
    try:
        assert oci.once(bundle, pass_fds=(reading,)).out == "4\nnone\n"
        result = oci.once(bundle, "--preserve-fds", str(reading - 2), pass_fds=(reading,))
        assert result.out.endswith("through\n")
    finally:
        os.close(reading)


# --- config-linux.md ---


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


# --- config.md, Hooks ---


def test_hooks_run_in_order_and_in_their_namespaces(oci):
    """config.md, POSIX-platform Hooks; runtime.md, Lifecycle."""
    log = os.path.join(oci.directory, "hooks")
    script = os.path.join(oci.directory, "hook")
    with open(script, "w") as file:
        file.write(
            f"#!/bin/sh\nread state\n"
            f"echo \"$1 $(echo \"$state\" | sed 's/.*\"status\":\"\\([a-z]*\\).*/\\1/') "
            f"$(readlink /proc/self/ns/mnt)\" >> {log}\n"
        )
    os.chmod(script, 0o755)
    bundle = oci.bundle().shell("echo program >> /log")
    bundle.config["root"]["readonly"] = False
    kinds = "prestart createRuntime createContainer startContainer poststart poststop".split()
    bundle.config["hooks"] = {kind: [{"path": script, "args": ["hook", kind]}] for kind in kinds}
    bundle.config["hooks"]["startContainer"] = [
        {"path": "/bin/sh", "args": ["sh", "-c", "read s; echo startContainer >> /log"]}
    ]
    name = oci.start(bundle)
    assert wait_for(lambda: oci.status(name) == "stopped")
    oci.run("delete", name, check=True)
    with open(log) as file:
        lines = [line.split() for line in file]
    assert [line[0] for line in lines] == [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ]
    assert [line[1] for line in lines] == ["created", "creating", "creating", "running", "stopped"]
    own = os.readlink("/proc/self/ns/mnt")
    assert [line[2] == own for line in lines] == [True, True, False, True, True]
    with open(os.path.join(bundle.rootfs, "log")) as file:
        assert file.read() == "startContainer\nprogram\n"


def test_a_failing_hook_after_the_start_is_a_warning(oci):
    """runtime.md, Lifecycle: poststart; the remaining hooks run."""
    mark = os.path.join(oci.directory, "mark")
    bundle = oci.bundle().args("sleep", "100")
    bundle.config["hooks"] = {
        "poststart": [{"path": "/bin/false"}, {"path": "/bin/touch", "args": ["touch", mark]}]
    }
    name = oci.create(bundle)
    result = oci.run("start", name)
    assert result.status == 0 and "poststart hook" in result.err and os.path.exists(mark)
    assert oci.status(name) == "running"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failing_hook_ends_the_creation_and_leaves_nothing(oci, kind):
    """runtime.md, Lifecycle: an error, the container is stopped, poststop follows."""
    bundle = oci.bundle().args("true")
    bundle.config["hooks"] = {kind: [{"path": "/bin/false"}]}
    name = oci.create(bundle, check=False)
    assert oci.run("state", name).status == 1
    assert not cgroups_named(name)


def test_a_hook_that_outlives_its_timeout_is_killed(oci):
    bundle = oci.bundle().args("true")
    bundle.config["hooks"] = {
        "createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]
    }
    assert "longer than 1 seconds" in oci.once(bundle).err


def test_a_failing_start_hook_is_reported_by_start(oci):
    bundle = oci.bundle().args("true")
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/false"}]}
    name = oci.create(bundle)
    result = oci.run("start", name)
    assert result.status == 1 and "startContainer hook" in result.err
    assert wait_for(lambda: oci.status(name) == "stopped")


# --- terminals ---


def test_a_terminal_goes_to_the_console_socket(oci):
    """config.md, Process: terminal and consoleSize."""
    path = os.path.join(oci.directory, "console")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen()
        bundle = oci.bundle().shell(
            "tty; stty size; test /dev/console -ef /proc/self/fd/0 && echo console"
        )
        bundle.process.update(terminal=True, consoleSize={"height": 33, "width": 77})
        name = oci.create(bundle, "--console-socket", path)
        server.settimeout(10)
        client, _ = server.accept()
        _, (master,), _, _ = socket.recv_fds(client, 4096, 1)
        oci.run("start", name, check=True)
        output = b""
        try:
            while chunk := os.read(master, 4096):
                output += chunk
        except OSError:
            pass
        os.close(master)
        client.close()
    assert b"33 77" in output and b"/dev/" in output


def test_a_terminal_without_a_socket_needs_the_foreground(oci):
    bundle = oci.bundle().args("true")
    bundle.process["terminal"] = True
    name = oci.create(bundle, check=False)
    assert oci.run("state", name).status == 1
    result = oci.once(bundle.shell("test -t 0 && test -t 1 && echo terminal"))
    assert result.out == "terminal\n"


# --- robustness ---


def test_containers_in_parallel_all_run(oci):
    bundle = oci.bundle().shell("exit 3").save()
    processes = [
        subprocess.Popen(
            [*oci.command, "run", "--bundle", bundle.path, oci.new_id()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for _ in range(20)
    ]
    assert [p.wait(timeout=120) for p in processes] == [3] * 20
    for process in processes:
        process.stderr.close()
    assert oci.run("list", "-q").out == ""


@pytest.mark.parametrize("seed", range(9))
def test_a_killed_runtime_leaves_nothing_that_delete_cannot_remove(oci, seed):
    """SIGKILL at moments spread over create, start and delete."""
    import random

    moments = random.Random(seed)
    bundle = oci.bundle().args("sleep", "100").save()
    for _ in range(2):
        name = oci.new_id()
        for words in (
            ["create", "--bundle", bundle.path, name],
            ["start", name],
            ["delete", "--force", name],
        ):
            process = subprocess.Popen(
                [*oci.command, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(moments.random() * 0.04)
            process.kill()
            process.wait()
        oci.run("delete", "--force", name, check=True)
        assert not cgroups_named(name) and not os.path.exists(os.path.join(oci.state, name))
        left = subprocess.run(
            ["grep", "-l", name, "-r", "/proc/self/mountinfo"], stdout=subprocess.PIPE, text=True
        )
        assert not left.stdout

"""What the runtime does, clause by clause of the OCI runtime specification 1.2: runtime.md."""
import json
import os
import socket
import subprocess
import time

import pytest

from system.oci import cgroups_named, wait_for


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


def test_signal_0_asks_whether_the_process_is_there(oci):
    """runtime.md, Kill; kill(2)."""
    name = oci.start(oci.bundle().args("sleep", "100"))
    assert oci.run("kill", name, "0").status == 0 and oci.status(name) == "running"
    oci.run("kill", name, "KILL", check=True)
    assert wait_for(lambda: oci.status(name) == "stopped")
    assert oci.run("kill", name, "0").status == 1


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
    seccomp = features["linux"]["seccomp"]
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])
    assert features["potentiallyUnsafeConfigAnnotations"] == []


def test_features_name_all_that_runc_names(oci):
    """features.md: engines ask before they use what not every runtime has."""
    ours = oci.run("features", check=True).json
    theirs = json.loads(subprocess.check_output(["runc", "features"]))
    for path in ("hooks", "mountOptions", "linux.namespaces", "linux.capabilities",
                 "linux.seccomp.actions", "linux.seccomp.operators", "linux.seccomp.archs"):
        mine, other = ours, theirs
        for key in path.split("."):
            mine, other = mine[key], other[key]
        assert set(other) <= set(mine), path


def test_each_mount_option_that_features_name_is_understood(oci):
    """features.md: a name is in the list when the runtime knows it."""
    options = oci.run("features", check=True).json["mountOptions"]
    bundle = oci.bundle().args("true")
    mount = {"destination": "/m", "source": bundle.path}
    bundle.config["mounts"].append(mount)
    for option in set(options) - {"remount", "mand", "idmap", "ridmap", "tmpcopyup", "unbindable",
                                  "runbindable", "acl", "noacl", "iversion"}:
        mount["options"] = ["bind", option]
        result = oci.once(bundle)
        assert result.status == 0, (option, result.err)


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

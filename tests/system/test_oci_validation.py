"""What OCI's validation programs (runtime-tools, validation/) look at, each test under the name of
its program and with the clause of the runtime specification that it holds a runtime to.

OCI_RUNTIME=runc (or crun) runs the same on a peer: what differs there is said where it does.
"""
import json
import os
import re

import pytest

from system.oci import cgroups_named, wait_for
from system.validation import needs_controller, runtime, stop, wait_stopped  # noqa: F401

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

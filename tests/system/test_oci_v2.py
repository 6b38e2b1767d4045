"""Limits on a host whose only tree is v2, with all its controllers, and scopes by a real systemd:
what runc and crun set is what Lodge sets. Here the tree may have too little; test_oci_machine.py
runs this in a machine that has it all."""
import os
import shutil
import subprocess

import pytest

from system.oci import Runtime, cgroups_named, command_of, needs_root, wait_for

TREE = "/sys/fs/cgroup"


def controllers():
    try:
        with open(f"{TREE}/cgroup.controllers") as file:
            return set(file.read().split())
    except OSError:
        return set()


pytestmark = pytest.mark.skipif(
    not {"memory", "cpu", "pids", "io", "cpuset"} <= controllers(),
    reason="the host's v2 tree has not all controllers",
)


def a_disk():
    for name in sorted(os.listdir("/sys/block")):
        if name.startswith(("vd", "sd", "nvme")):
            with open(f"/sys/block/{name}/dev") as file:
                return [int(n) for n in file.read().split(":")]
    return [0, 0]


DISK = a_disk()


def rate(value):
    return [{"major": DISK[0], "minor": DISK[1], "rate": value}]


RESOURCES = {
    "memory": {"memory": {"limit": 64 << 20, "reservation": 32 << 20}},
    "swap": {"memory": {"limit": 64 << 20, "swap": 96 << 20}},
    "no-swap": {"memory": {"limit": 64 << 20, "swap": 64 << 20}},
    "any-swap": {"memory": {"limit": 64 << 20, "swap": -1}},
    "no-memory-limit": {"memory": {"limit": -1}},
    "shares-least": {"cpu": {"shares": 2}},
    "shares": {"cpu": {"shares": 512}},
    "shares-default": {"cpu": {"shares": 1024}},
    "shares-most": {"cpu": {"shares": 262144}},
    "quota": {"cpu": {"quota": 20000, "period": 50000}},
    "quota-alone": {"cpu": {"quota": 20000}},
    "period-alone": {"cpu": {"period": 50000}},
    "no-quota": {"cpu": {"quota": -1, "period": 50000}},
    "cpus": {"cpu": {"cpus": "0", "mems": "0"}},
    "pids": {"pids": {"limit": 77}},
    "no-pids-limit": {"pids": {"limit": -1}},
    "throttle": {"blockIO": {"throttleReadBpsDevice": rate(1 << 20),
                             "throttleWriteBpsDevice": rate(2 << 20),
                             "throttleReadIOPSDevice": rate(100),
                             "throttleWriteIOPSDevice": rate(200)}},
    "unified": {"unified": {"memory.high": "50000000", "pids.max": "55", "cpu.weight": "77"}},
    "all": {"memory": {"limit": 64 << 20, "swap": 96 << 20}, "pids": {"limit": 50},
            "cpu": {"shares": 2048, "quota": 50000, "period": 100000}},
}
# What tells limits; usage and events are their own.
FILES = (
    "memory.max memory.high memory.low memory.min memory.swap.max cpu.max cpu.weight cpuset.cpus "
    "cpuset.mems pids.max io.max io.bfq.weight io.weight"
).split()


@pytest.fixture
def runtimes(lodge, tmp_path):
    """Lodge, and those of its peers that are here."""
    needs_root()
    found = {"lodge": command_of(lodge)}
    found.update({name: [shutil.which(name)] for name in ("runc", "crun") if shutil.which(name)})
    made = {}
    for name, command in found.items():
        os.mkdir(tmp_path / name)
        made[name] = Runtime(command, str(tmp_path / name))
    yield made
    for runtime in made.values():
        runtime.clean()


def bundle_for(runtimes, name):
    """The same configuration for each runtime."""
    runtime = runtimes[name]
    saved, runtime.run = runtime.run, runtimes["lodge"].run
    try:
        bundle = runtime.bundle()
    finally:
        runtime.run = saved
    bundle.config["ociVersion"] = "1.0.2"
    return bundle.args("sleep", "100")


def values(runtime, name):
    pid = runtime.run("state", name, check=True).json["pid"]
    with open(f"/proc/{pid}/cgroup") as file:
        group = TREE + file.read().strip().split("::")[1]
    found = {}
    for file in FILES:
        path = os.path.join(group, file)
        if os.path.exists(path):
            with open(path) as stream:
                found[file] = stream.read().strip()
    return found


@pytest.mark.parametrize("key", RESOURCES)
def test_limits_are_what_the_peers_set(runtimes, key):
    """config-linux.md, Control groups: memory, cpu, pids, block I/O and unified on v2."""
    found = {}
    for name, runtime in runtimes.items():
        bundle = bundle_for(runtimes, name)
        bundle.linux["resources"].update(RESOURCES[key])
        found[name] = values(runtime, runtime.start(bundle))
    ours = found.pop("lodge")
    assert ours["pids.max"] and found
    assert ours in found.values(), found
    if len(set(map(str, found.values()))) == 1:
        assert all(ours == theirs for theirs in found.values()), found


@pytest.mark.parametrize("words,file,value", [
    (["--memory", str(32 << 20)], "memory.max", str(32 << 20)),
    (["--cpu-quota", "30000", "--cpu-period", "60000"], "cpu.max", "30000 60000"),
    (["--pids-limit", "21"], "pids.max", "21"),
])
def test_limits_are_updated(runtimes, words, file, value):
    runtime = runtimes["lodge"]
    name = runtime.start(bundle_for(runtimes, "lodge"))
    runtime.run("update", *words, name, check=True)
    assert values(runtime, name)[file] == value


def test_a_hog_is_killed_and_counted(runtimes):
    runtime = runtimes["lodge"]
    bundle = bundle_for(runtimes, "lodge").shell("(x=a; while true; do x=$x$x; done); exit $?")
    bundle.linux["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
    assert runtime.once(bundle).status == 137


def test_a_fork_bomb_ends_at_the_limit(runtimes):
    bundle = bundle_for(runtimes, "lodge").shell(
        "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done 2>&1; wait"
    )
    bundle.linux["resources"]["pids"] = {"limit": 4}
    result = runtimes["lodge"].once(bundle)
    assert "fork" in result.out + result.err


ASK = (
    "mknod /dev/none c 240 77; (exec 3</dev/none) 2>&1 | sed 's/.*: //'; "
    "(exec 3>>/dev/none) 2>&1 | sed 's/.*: //'; head -c 3 /dev/zero | wc -c;"
    "mknod /dev/block b 240 77; (exec 3</dev/block) 2>&1 | sed 's/.*: //'"
)
RULES = [
    [],
    [{"allow": True, "type": "c", "major": 240, "minor": 77, "access": "r"}],
    [{"allow": True, "type": "c", "major": 240, "access": "rw"},
     {"allow": False, "type": "c", "major": 240, "minor": 77, "access": "w"}],
    [{"allow": True, "type": "b", "access": "rwm"}],
    [{"allow": True, "access": "rwm"},
     {"allow": False, "type": "c", "major": 240, "access": "rwm"}],
]


@pytest.mark.parametrize("number", range(len(RULES)))
def test_devices_are_kept_away_as_by_the_peers(runtimes, number):
    """config-linux.md, Allowed Device list, by BPF."""
    found = {}
    for name, runtime in runtimes.items():
        bundle = bundle_for(runtimes, name).privileged().shell(ASK)
        bundle.linux["resources"]["devices"] += RULES[number]
        found[name] = runtime.once(bundle).out
    ours = found.pop("lodge")
    assert ours in found.values(), (ours, found)


def test_statistics_have_the_figures(runtimes):
    runtime = runtimes["lodge"]
    bundle = bundle_for(runtimes, "lodge")
    bundle.linux["resources"].update(RESOURCES["all"])
    data = runtime.run("events", "--stats", runtime.start(bundle), check=True).json["data"]
    assert data["memory"]["usage"]["limit"] == 64 << 20 and data["memory"]["usage"]["usage"] > 0
    assert data["pids"] == {"current": 1, "limit": 50} and data["cpu"]["usage"]["total"] > 0


# --- systemd ---

needs_systemd = pytest.mark.skipif(not os.path.isdir("/run/systemd/system"),
                                   reason="no systemd runs")
SHOWN = ("Slice Delegate MemoryMax MemoryLow TasksMax CPUQuotaPerSecUSec ActiveState "
         "ControlGroup").split()


def shown(unit):
    text = subprocess.run(["systemctl", "show", "-p", ",".join(SHOWN), unit], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    return dict(line.split("=", 1) for line in text.splitlines())


def scoped(runtimes, name):
    runtimes[name].command = [*runtimes[name].command, "--systemd-cgroup"]
    bundle = bundle_for(runtimes, name)
    bundle.linux["cgroupsPath"] = f"boxes-inner.slice:pre:{name}"
    bundle.linux["resources"].update(
        memory={"limit": 64 << 20, "reservation": 32 << 20}, pids={"limit": 33},
        cpu={"shares": 512, "quota": 50000, "period": 100000},
    )
    return bundle


@needs_systemd
@pytest.mark.parametrize("peer", ["runc", "crun"])
def test_a_scope_is_what_the_peers_make(runtimes, peer):
    if peer not in runtimes:
        pytest.skip(f"{peer} is not installed")
    found = {}
    for name in ("lodge", peer):
        runtime, bundle = runtimes[name], scoped(runtimes, name)
        container = runtime.start(bundle)
        unit = shown(f"pre-{name}.scope")
        unit["ControlGroup"] = unit["ControlGroup"].replace(name, "NAME")
        if peer == "crun":  # 1.8 tells systemd no limits
            unit = {key: unit[key] for key in ("Slice", "Delegate", "ActiveState", "ControlGroup")}
        found[name] = unit, values(runtime, container)
        runtime.run("delete", "--force", container, check=True)
        assert wait_for(lambda: shown(f"pre-{name}.scope")["ActiveState"] == "inactive")
        assert not cgroups_named(f"pre-{name}.scope")
    assert found["lodge"] == found[peer]


@needs_systemd
def test_limits_outlive_a_reload_of_systemd(runtimes):
    runtime = runtimes["lodge"]
    name = runtime.start(scoped(runtimes, "lodge"))
    runtime.run("update", "--memory", str(32 << 20), "--pids-limit", "22", name, check=True)
    before = values(runtime, name)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert values(runtime, name) == before and before["memory.max"] == str(32 << 20)


@needs_systemd
def test_a_container_that_ends_takes_its_scope_along(runtimes):
    runtime = runtimes["lodge"]
    name = runtime.start(scoped(runtimes, "lodge"))
    runtime.run("kill", name, "KILL", check=True)
    assert wait_for(lambda: shown("pre-lodge.scope")["ActiveState"] != "active")
    runtime.run("delete", name, check=True)
    assert not cgroups_named("pre-lodge.scope")

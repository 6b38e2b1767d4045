"""Control groups by systemd, where one runs; here a stand-in on a bus of its own."""
import json
import os
import shutil
import subprocess
import sys

import pytest

from system.oci import Runtime, cgroups_named, command_of, needs_root, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
BUS = """<busconfig><type>system</type><auth>EXTERNAL</auth><listen>unix:path={path}</listen>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
<allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
<allow receive_type="method_return"/><allow receive_type="error"/>
<allow receive_type="signal"/></policy></busconfig>
"""


@pytest.fixture
def log(tmp_path, monkeypatch):
    needs_root()
    if not shutil.which("dbus-daemon"):
        pytest.skip("there is no dbus-daemon")
    probe = [sys.executable, "-c", "import dbus.mainloop.glib; from gi.repository import GLib"]
    if subprocess.run(probe, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("there is no python3-dbus or python3-gi")
    if not os.path.isdir("/sys/fs/cgroup/systemd"):
        pytest.skip("the host has no tree of the name systemd")
    path, log = tmp_path / "bus", tmp_path / "log"
    config = tmp_path / "bus.conf"
    config.write_text(BUS.format(path=path))
    bus = subprocess.Popen(["dbus-daemon", f"--config-file={config}", "--nofork"])
    service = None
    try:
        assert wait_for(path.exists)
        service = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "systemd_stand_in.py"), f"unix:path={path}", log],
            stdout=subprocess.PIPE, text=True,
        )
        assert service.stdout.readline() == "ready\n"
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path},guid=00")
        yield lambda: [json.loads(line) for line in log.read_text().splitlines()]
    finally:
        for process in filter(None, (service, bus)):
            process.kill()
            process.wait()
        subprocess.run(["find", "/sys/fs/cgroup", "-depth", "-path", "*/lodgetest.slice*",
                        "-type", "d", "-exec", "rmdir", "{}", ";"], stderr=subprocess.DEVNULL)


@pytest.fixture
def oci(lodge, tmp_path):
    runtime = Runtime([*command_of(lodge), "--systemd-cgroup"], str(tmp_path / "oci"))
    os.mkdir(runtime.directory)
    yield runtime
    runtime.clean()


def bundle_of(oci, path):
    bundle = oci.bundle().args("sleep", "100")
    bundle.linux["cgroupsPath"] = path
    bundle.linux["resources"].update(
        memory={"limit": 64 << 20, "reservation": 32 << 20}, pids={"limit": 33},
        cpu={"shares": 512, "quota": 50000, "period": 100000},
    )
    return bundle


def test_a_scope_is_asked_for_with_its_limits_and_holds_the_container(log, oci):
    name = oci.start(bundle_of(oci, "lodgetest-inner.slice:pre:box"))
    (what, unit, asked), *_ = log()
    assert (what, unit) == ("start", "pre-box.scope")
    assert asked["Slice"] == "lodgetest-inner.slice" and asked["Delegate"] == 1
    assert (asked["MemoryMax"], asked["MemoryLow"], asked["TasksMax"]) == (64 << 20, 32 << 20, 33)
    assert (asked["CPUShares"], asked["CPUQuotaPerSecUSec"]) == (512, 500000)
    pid = oci.run("state", name, check=True).json["pid"]
    with open(f"/proc/{pid}/cgroup") as file:
        groups = {line.strip().split(":", 2)[2] for line in file if ":0:" not in line}
    assert groups == {"/lodgetest.slice/lodgetest-inner.slice/pre-box.scope"}
    # Nobody but the container is left in it: what held it until then is gone.
    with open("/sys/fs/cgroup/systemd" + groups.pop() + "/cgroup.procs") as file:
        assert file.read().split() == [str(pid)]
    oci.run("update", "--memory", str(32 << 20), "--cpu-quota", "-1", name, check=True)
    what, unit, told = log()[-1]
    assert (what, unit, told["MemoryMax"]) == ("set", "pre-box.scope", 32 << 20)
    assert told["CPUQuotaPerSecUSec"] == 2**64 - 1
    oci.run("delete", "--force", name, check=True)
    assert log()[-1][:2] == ["stop", "pre-box.scope"] and not cgroups_named("pre-box.scope")


@pytest.mark.parametrize("path", [
    "/some/path", "a:b", "lodgetest.slice:x:", "a/b.slice:x:y", "--.slice:x:y", "lodgetest:x:y",
    "lodgetest.slice:a:b:c",
])
def test_a_path_that_names_no_scope_is_refused(log, oci, path):
    result = oci.once(bundle_of(oci, path))
    assert result.status == 1 and "linux.cgroupsPath" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    "name,word", [("refused", "it is refused"), ("failing", "could not start")]
)
def test_what_systemd_refuses_is_said_and_leaves_nothing(log, oci, name, word):
    result = oci.once(bundle_of(oci, f"lodgetest.slice:{name}:box"))
    assert result.status == 1 and word in result.err
    assert not cgroups_named(f"{name}-box.scope") and oci.run("list", "-q").out == ""


def test_without_a_bus_it_says_so_in_one_line(oci, monkeypatch, tmp_path):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/nothing")
    result = oci.once(bundle_of(oci, "lodgetest.slice:pre:box"))
    assert result.status == 1 and "cgroups by systemd" in result.err
    assert result.err.count("\n") == 1 and oci.run("list", "-q").out == ""


def test_features_say_that_systemd_is_understood(oci):
    features = oci.run("features", check=True).json
    assert features["linux"]["cgroup"]["systemd"] is True

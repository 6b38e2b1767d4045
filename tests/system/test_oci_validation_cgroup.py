"""The same as test_oci_validation.py for control groups: config-linux.md."""
import os
import re
import subprocess

import pytest

from system.validation import V1, needs_controller, runtime, v1_value  # noqa: F401


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

"""Control groups of a host that has the v2 tree alone: made so by a mount, where it has both."""
import os
import subprocess

import pytest

from system.oci import Runtime, cgroups_named, command_of, needs_root

UNIFIED = """mountpoint -q /sys/fs/cgroup/unified || exec "$@"
mount -t cgroup2 none /sys/fs/cgroup && exec "$@\""""


@pytest.fixture
def unified(lodge, tmp_path):
    needs_root()
    command = ["unshare", "-m", "sh", "-c", UNIFIED, "sh"]
    if subprocess.run([*command, "test", "-e", "/sys/fs/cgroup/cgroup.controllers"]).returncode:
        pytest.skip("the host has no cgroup v2 tree")
    runtime = Runtime([*command, *command_of(lodge)], str(tmp_path))
    yield runtime
    runtime.clean()


def test_a_container_has_its_group_and_is_gone_with_it(unified):
    name = unified.start(unified.bundle().args("sleep", "100"))
    assert len(cgroups_named(name)) == 1
    assert unified.run("exec", name, "cat", "/proc/self/cgroup").out.endswith("0::/\n")
    assert len(unified.run("ps", "--format", "json", name).json) == 1
    unified.run("delete", "--force", name, check=True)
    assert not cgroups_named(name)


# A device that no driver has: where the rules let it pass, the kernel says that it is not there.
ASK = (
    "mknod /dev/none c 240 77; (exec 3</dev/none) 2>&1 | sed 's/.*: //'; "
    "(exec 3>>/dev/none) 2>&1 | sed 's/.*: //'; head -c 3 /dev/zero | wc -c"
)
DENIED, ABSENT = "Operation not permitted\n", "No such device or address\n"


def test_devices_are_kept_away_by_a_program(unified):
    """config-linux.md, Allowed Device list, by BPF_PROG_TYPE_CGROUP_DEVICE."""
    bundle = unified.bundle().privileged().shell(ASK)
    rules = bundle.linux["resources"]["devices"]
    assert unified.once(bundle).out == DENIED + DENIED + "3\n"
    rules.append({"allow": True, "type": "c", "major": 240, "minor": 77, "access": "r"})
    assert unified.once(bundle).out == ABSENT + DENIED + "3\n"
    rules.append({"allow": True, "type": "c", "major": 240, "access": "rw"})
    assert unified.once(bundle).out == ABSENT + ABSENT + "3\n"
    rules.append({"allow": False, "type": "c", "major": 240, "minor": 77, "access": "w"})
    assert unified.once(bundle).out == ABSENT + DENIED + "3\n"
    rules.append({"allow": True, "access": "rwm"})
    assert unified.once(bundle).out == ABSENT + ABSENT + "3\n"


def test_a_group_is_frozen_and_killed(unified):
    name = unified.start(unified.bundle().args("sleep", "100"))
    unified.run("pause", name, check=True)
    assert unified.status(name) == "paused"
    unified.run("resume", name, check=True)
    assert unified.status(name) == "running"
    unified.run("pause", name, check=True)
    unified.run("delete", "--force", name, check=True)
    assert not cgroups_named(name)


def test_a_file_of_the_group_is_written_as_it_stands(unified):
    """config-linux.md, Unified."""
    bundle = unified.bundle().args("sleep", "100")
    bundle.linux["resources"]["unified"] = {"cgroup.max.depth": "3"}
    name = unified.start(bundle)
    with open(os.path.join(cgroups_named(name)[0], "cgroup.max.depth")) as file:
        assert file.read() == "3\n"
    bundle.linux["resources"]["unified"] = {"memory.nothing": "1"}
    assert "memory.nothing" in unified.once(bundle).err


def test_the_mount_of_the_groups_shows_the_containers_own(unified):
    bundle = unified.bundle().shell(
        "head -n 1 /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x || echo ro"
    )
    assert unified.once(bundle).out == "1\nro\n"

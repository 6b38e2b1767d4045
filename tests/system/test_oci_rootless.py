"""Containers of a user without privileges."""
import os
import pwd
import shutil
import subprocess
import tempfile

import pytest

from system.oci import Runtime, command_of, needs_root


def user_with_subordinate_ids():
    """A user that newuidmap(1) serves, and the first of its ids."""
    try:
        with open("/etc/subuid") as file:
            for line in file:
                name, first, count = line.strip().split(":")
                if int(count) >= 1000 and name != "root":
                    return pwd.getpwnam(name), int(first)
    except (OSError, KeyError, ValueError):
        pass
    return None, 0


def unprivileged(lodge, uid, gid):
    needs_root()
    directory = tempfile.mkdtemp(prefix="lodge-test-")
    os.chown(directory, uid, gid)
    # The program may be in a directory of root's own.
    shutil.copy(command_of(lodge)[0], directory + "/lodge-oci")
    os.chmod(directory + "/lodge-oci", 0o755)
    runtime = Runtime([directory + "/lodge-oci"], directory)
    runtime.identity = {
        "user": uid,
        "group": gid,
        "extra_groups": [],
        "env": {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": directory},
    }
    if subprocess.run(
        ["unshare", "-U", "true"], user=uid, group=gid, extra_groups=[], stderr=subprocess.DEVNULL
    ).returncode:
        shutil.rmtree(directory)
        pytest.skip("users may not make user namespaces here")
    return runtime


@pytest.fixture
def nobody(lodge):
    runtime = unprivileged(lodge, 65534, 65534)
    yield runtime
    runtime.clean()
    shutil.rmtree(runtime.directory, ignore_errors=True)


def test_a_single_mapping_makes_the_user_root_inside(nobody):
    bundle = nobody.bundle(rootless=True).shell(
        "id -u; cat /proc/self/uid_map; hostname; touch /x && echo mine; exit 6"
    )
    bundle.config["root"]["readonly"] = False
    result = nobody.once(bundle)
    assert result.status == 6, result.err
    assert result.out.split() == ["0", "0", "65534", "1", "lodge", "mine"]
    assert os.stat(bundle.rootfs + "/x").st_uid == 65534


def test_exec_kill_and_delete_work_without_privileges(nobody):
    name = nobody.start(nobody.bundle(rootless=True).args("sleep", "100"))
    assert nobody.run("exec", name, "sh", "-c", "exit 3").status == 3
    assert nobody.run("list", "-q").out == name + "\n"
    assert len(nobody.run("ps", "--format", "json", name).json) == 1
    assert nobody.run("delete", "--force", name).status == 0
    assert nobody.run("list", "-q").out == ""


def test_subordinate_ids_are_mapped_by_newuidmap(lodge):
    user, first = user_with_subordinate_ids()
    if not user or not shutil.which("newuidmap"):
        pytest.skip("no user has subordinate ids, or newuidmap is not installed")
    runtime = unprivileged(lodge, user.pw_uid, user.pw_gid)
    try:
        bundle = runtime.bundle(rootless=True).shell("cat /proc/self/uid_map; id -u")
        for kind, own in (("uidMappings", user.pw_uid), ("gidMappings", user.pw_gid)):
            bundle.linux[kind] = [
                {"containerID": 0, "hostID": own, "size": 1},
                {"containerID": 1, "hostID": first, "size": 1000},
            ]
        bundle.process["user"] = {"uid": 7, "gid": 7}
        result = runtime.once(bundle)
        assert result.out.split()[-1] == "7" and str(first) in result.out, result.err
        bundle.linux["uidMappings"][1]["hostID"] = 1
        assert "/etc/subuid" in runtime.once(bundle).err
    finally:
        runtime.clean()
        shutil.rmtree(runtime.directory, ignore_errors=True)


def test_what_needs_privileges_is_refused_and_leaves_nothing(nobody):
    bundle = nobody.bundle(rootless=True).args("true")
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = [
        {"containerID": 0, "hostID": 0, "size": 1}
    ]
    result = nobody.once(bundle)
    assert result.status == 1 and result.err.count("\n") == 1
    assert nobody.run("list", "-q").out == ""

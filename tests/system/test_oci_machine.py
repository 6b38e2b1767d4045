"""The container tests in a machine whose host is Debian with systemd: as it comes, with the v2 tree
alone and all controllers in it, and with the trees of v1. Lodge's translator makes the machine,
which takes four minutes for each."""
import os
import re
import shutil
import subprocess

import pytest

from conftest import TOP
from system.oci import command_of

pytestmark = pytest.mark.long

UNIT = """[Unit]
After=dbus.service
[Service]
Type=oneshot
ExecStart=/work/session
StandardOutput=file:/dev/ttyS0
StandardError=file:/dev/ttyS0
[Install]
WantedBy=multi-user.target
"""
SESSION = """#!/bin/sh
cd /work
LODGE=/work/build/lodge /usr/bin/python3 -m pytest -q -p no:cacheprovider -rs --tb=short \\
    --color=no -k "not the_verb_of_the_command" {files}
echo "session-end $?"
sync
systemctl poweroff -ff
"""
FILES = ("test_oci_v2.py", "test_oci_unified.py", "test_oci.py", "test_oci_config.py",
         "test_oci_linux.py", "test_oci_validation.py", "test_oci_validation_config.py",
         "test_oci_validation_cgroup.py", "test_oci_safety.py", "test_oci_engines.py")
PACKAGES = "crun,runc,podman,busybox-static,python3,python3-pytest,procps,uidmap,apparmor"


@pytest.fixture(scope="module")
def disk(lodge, tmp_path_factory):
    """A disk of Debian; OCI_MACHINE_DISK names one that is there already."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    path = tmp_path_factory.mktemp("machine") / "disk"
    ready = os.environ.get("OCI_MACHINE_DISK")
    if ready:
        return ready
    subprocess.run([lodge, "image", "build", "debian", "-o", path, "--packages", PACKAGES],
                   check=True, timeout=900)
    return path


def furnish(lodge, disk, mount):
    """Put the program, the tests and what runs them into the disk's filesystem."""
    work = mount / "work"
    subprocess.run(["mount", "-o", "loop", disk, mount], check=True)
    try:
        (work / "build").mkdir(parents=True)
        runtime = command_of(lodge)[0]
        shutil.copy(runtime, work / "build/lodge-oci")
        shutil.copy(runtime, work / "build/lodge")
        shutil.copytree(os.path.join(TOP, "tests/system"), work / "tests/system")
        shutil.copy(os.path.join(TOP, "tests/conftest.py"), work / "tests")
        shutil.copy(os.path.join(TOP, "pytest.ini"), work)
        (work / "src/guest").mkdir(parents=True)
        shutil.copy(os.path.join(TOP, "src/guest/seccomp.json"), work / "src/guest")
        session = work / "session"
        session.write_text(SESSION.format(files=" ".join(f"tests/system/{f}" for f in FILES)))
        session.chmod(0o755)
        units = mount / "etc/systemd/system"
        (units / "lodge-session.service").write_text(UNIT)
        (units / "multi-user.target.wants/lodge-session.service").symlink_to(
            "/etc/systemd/system/lodge-session.service"
        )
        for unit in ("apt-daily.timer", "apt-daily-upgrade.timer", "serial-getty@ttyS0.service"):
            (units / unit).symlink_to("/dev/null")
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.parametrize("tree", ["v2", "v1"])
def test_the_container_tests_pass_on_debian_with_systemd(lodge, disk, tmp_path, tree):
    mount, own = tmp_path / "mount", tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", disk, own], check=True)
    furnish(lodge, own, mount)
    unified = int(tree == "v2")
    console = os.environ.get("OCI_MACHINE_LOG", str(tmp_path / "console")) + "." + tree
    with open(console, "wb") as out:
        subprocess.run(
            [lodge, "run", "--engine", "translate", "--cpus", "1", "--memory", "2G",
             "--kernel", f"{disk}.vmlinuz", "--initrd", f"{disk}.initrd", "--disk", own,
             "--append", f"console=ttyS0 root=/dev/vda rw quiet panic=-1 "
                         f"systemd.unified_cgroup_hierarchy={unified}"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, timeout=3000,
        )
    with open(console, errors="replace") as file:
        text = file.read()
    assert "session-end 0" in text, text[-6000:]
    passed = int(re.search(r"(\d+) passed", text)[1])
    assert passed > 150

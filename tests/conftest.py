"""What the tests that run the built program share."""
import os
import subprocess
import sys

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests"))


@pytest.fixture(scope="session")
def lodge():
    """The program under test; LODGE names another one."""
    path = os.environ.get("LODGE", os.path.join(TOP, "build", "lodge"))
    assert os.access(path, os.X_OK), f"{path} is not built"
    return path


def fetch(script, *arguments):
    """What scripts/fetch-kernel or fetch-busybox fetched: its path."""
    return subprocess.run([os.path.join(TOP, "scripts", script), *arguments], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()


@pytest.fixture(scope="session")
def cloud_kernel():
    return fetch("fetch-kernel", "cloud-amd64")


@pytest.fixture(scope="session")
def full_kernel():
    return fetch("fetch-kernel", "amd64")


@pytest.fixture(scope="session")
def i386_kernel():
    return fetch("fetch-kernel", "686-pae", "i386")


def make_initramfs(path, *files, environment=None):
    subprocess.run([os.path.join(TOP, "scripts/make-initramfs"), path, *files], check=True,
                   env=dict(os.environ, **(environment or {})))
    return path


@pytest.fixture
def oci(lodge, tmp_path):
    """The container runtime, as root; containers of the test are removed at its end."""
    from system import oci as containers
    containers.needs_root()
    runtime = containers.Runtime(containers.command_of(lodge), str(tmp_path))
    yield runtime
    runtime.clean()

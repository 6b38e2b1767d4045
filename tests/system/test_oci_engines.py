"""Engines that call the runtime: Debian's podman, and containerd by ctr."""
import json
import os
import shutil
import subprocess
import tempfile
import time

import pytest

from system.oci import make_rootfs


class Podman:
    def __init__(self, runtime, directory, manager):
        self.directory = directory
        self.store = tempfile.mkdtemp(prefix="lodge-podman-")  # podman wants a short path
        self.command = [
            "podman",
            "--root",
            self.store + "/store",
            "--runroot",
            self.store + "/run",
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            manager,
            "--runtime",
            runtime,
        ]

    def __call__(self, *words):
        words = list(words)
        if words[0] == "run":  # the network and high limits are not the runtime's to test
            words[1:1] = [
                "--network",
                "none",
                "--ulimit",
                "nofile=512:512",
                "--ulimit",
                "nproc=512:512",
            ]
        return subprocess.run(
            [*self.command, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=90,
            cwd=self.directory,
        )


@pytest.fixture(params=["cgroupfs", "systemd"])
def podman(oci, request):
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    if request.param == "systemd" and not os.path.isdir("/run/systemd/system"):
        pytest.skip("systemd does not run here")
    podman = Podman(os.path.abspath(oci.command[0]), oci.directory, request.param)
    rootfs = make_rootfs(os.path.join(oci.directory, "image"))
    subprocess.run(["tar", "-C", rootfs, "-cf", oci.directory + "/image.tar", "."], check=True)
    imported = podman("import", oci.directory + "/image.tar", "box:latest")
    if imported.returncode:
        shutil.rmtree(podman.store, ignore_errors=True)
        pytest.skip("podman does not work here: " + imported.stderr.strip())
    yield podman
    podman("rm", "--all", "--force", "--time", "0")
    shutil.rmtree(podman.store, ignore_errors=True)


def test_podman_runs_and_keeps_exit_statuses(podman):
    result = podman("run", "--rm", "box", "echo", "hello")
    assert (result.returncode, result.stdout) == (0, "hello\n"), result.stderr
    assert podman("run", "--rm", "box", "sh", "-c", "exit 42").returncode == 42
    assert podman("run", "--rm", "box", "no-such-program").returncode == 127
    assert podman("run", "--rm", "box", "/etc").returncode == 126
    result = podman("run", "--rm", "-t", "box", "sh", "-c", "test -t 0 && echo terminal")
    assert result.stdout == "terminal\r\n" or result.stdout == "terminal\n"
    result = podman(
        "run",
        "--rm",
        "--user",
        "5:6",
        "--read-only",
        "--env",
        "A=b",
        "--workdir",
        "/tmp",
        "--hostname",
        "inside",
        "box",
        "sh",
        "-c",
        "id -u; id -g; echo $A $PWD; hostname",
    )
    assert result.stdout == "5\n6\nb /tmp\ninside\n"


def test_podman_execs_pauses_and_stops(podman):
    assert podman("run", "-d", "--name", "one", "box", "sleep", "100").returncode == 0
    assert podman("exec", "one", "sh", "-c", "exit 9").returncode == 9
    assert podman("exec", "-t", "one", "tty").stdout.startswith("/dev/pts/")
    assert podman("pause", "one").returncode == 0
    assert "Paused" in podman("ps", "-a").stdout
    assert podman("unpause", "one").returncode == 0
    assert "sleep" in podman("top", "one").stdout
    assert podman("kill", "one").returncode == 0
    assert podman("wait", "one").stdout == "137\n"
    assert podman("rm", "one").returncode == 0


def test_podman_limits_memory_and_a_hog_is_killed(podman):
    result = podman(
        "run",
        "--name",
        "hog",
        "--memory",
        "16m",
        "box",
        "sh",
        "-c",
        "(x=a; while true; do x=$x$x; done); echo $?; sleep 0.5; exit 5",
    )
    assert (result.returncode, result.stdout) == (5, "137\n"), result.stderr
    state = json.loads(podman("inspect", "hog").stdout)[0]["State"]
    # conmon writes a file where it runs; whether podman finds it is theirs to agree on.
    assert state["OOMKilled"] or os.path.exists(os.path.join(podman.directory, "oom"))


@pytest.fixture
def ctr(oci):
    if not shutil.which("containerd") or not shutil.which("ctr"):
        pytest.skip("containerd is not installed")
    place = tempfile.mkdtemp(prefix="lodge-containerd-")  # it wants a short path
    socket = place + "/socket"
    config = os.path.join(oci.directory, "config.toml")
    with open(config, "w") as file:
        file.write(
            f'version = 2\nroot = "{oci.directory}/root"\nstate = "{oci.directory}/run"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{socket}"\n'
        )
    daemon = subprocess.Popen(
        ["containerd", "-c", config],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    rootfs = make_rootfs(os.path.join(oci.directory, "image"))

    def call(*words):
        words = list(words)
        if words[0] == "run":
            words[1:1] = ["--runc-binary", os.path.abspath(oci.command[0]), "--rootfs"]
            words = [rootfs if word == "ROOT" else word for word in words]
        return subprocess.run(
            ["ctr", "--address", socket, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )

    try:
        for _ in range(100):
            if call("version").returncode == 0:
                break
            time.sleep(0.1)
        else:
            pytest.skip("containerd does not start here")
        yield call
        call("task", "kill", "-s", "9", "two")
        call("task", "rm", "--force", "two")
    finally:
        daemon.terminate()
        daemon.wait(timeout=30)
        shutil.rmtree(place)


def test_containerd_runs_execs_and_pauses(ctr):
    result = ctr("run", "--rm", "ROOT", "one", "/bin/sh", "-c", "echo by containerd; exit 4")
    assert (result.returncode, result.stdout) == (4, "by containerd\n"), result.stderr
    assert ctr("run", "-d", "ROOT", "two", "/bin/sleep", "100").returncode == 0
    assert ctr("task", "exec", "--exec-id", "e", "two", "/bin/echo", "inside").stdout == "inside\n"
    assert ctr("task", "pause", "two").returncode == 0
    assert "PAUSED" in ctr("task", "ls").stdout
    assert ctr("task", "resume", "two").returncode == 0
    assert "RUNNING" in ctr("task", "ls").stdout

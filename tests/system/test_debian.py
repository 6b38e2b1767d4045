"""A whole Debian, built of packages: what it installs and stores outlives a reboot."""
import functools
import http.server
import socket
import subprocess
import threading
import time

import pytest

import machine

pytestmark = pytest.mark.long

PACKAGES = "postgresql"
SCALE = 5  # of pgbench: 100,000 accounts each
APT = "apt-get -o Dir::Etc::sourcelist=/etc/apt/host.list -o Dir::Etc::sourceparts=-"
COUNTS = ("select (select count(*) from pgbench_accounts), (select count(*) from pgbench_history),"
          " (select sum(abalance) from pgbench_accounts), (select sum(delta) from pgbench_history)")


def run(*command, **options):
    return subprocess.run(list(map(str, command)), check=True, **options)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Debian:
    """A running machine, and root's shell in it."""

    def __init__(self, lodge, folder, disk, key):
        self.port, self.key, self.console = free_port(), key, folder / "console"
        self.process = subprocess.Popen(
            [lodge, "run", "--append", machine.NO_SELF_TESTS, "--publish", f"{self.port}:22",
             "--cpus", "2", "--console", self.console, disk],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def said(self):
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def ssh(self, command, check=True, timeout=900):
        result = subprocess.run(
            ["ssh", "-F", "none", "-i", self.key, "-p", str(self.port), "-o", "BatchMode=yes",
             "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
             "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20", "root@127.0.0.1", command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
        if check:
            assert result.returncode == 0, f"{command}:\n{result.stdout}{result.stderr}"
        return result.stdout.strip()

    def wait_for(self, what, condition, timeout=600):
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline, f"no {what}:\n{self.said()[-3000:]}"
            time.sleep(1)

    def boot_id(self):
        return self.ssh("cat /proc/sys/kernel/random/boot_id", check=False)

    def postgres(self, command):
        return self.ssh(f"cd / && runuser -u postgres -- {command}")

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def repository(tmp_path):
    """A flat repository of one package on the host's loopback: its port."""
    tree, folder = tmp_path / "package", tmp_path / "repository"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: lodge-greeting\nVersion: 1.0\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@localhost>\nDescription: says where it came from\n")
    (tree / "usr/bin/lodge-greeting").write_text("#!/bin/sh\necho from the host\n")
    (tree / "usr/bin/lodge-greeting").chmod(0o755)
    folder.mkdir()
    run("dpkg-deb", "--root-owner-group", "--build", tree, folder, stdout=subprocess.DEVNULL)
    with open(folder / "Packages", "w") as index:
        run("dpkg-scanpackages", "--multiversion", ".", cwd=folder, stdout=index,
            stderr=subprocess.DEVNULL)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def debian(lodge, tmp_path):
    key, disk = tmp_path / "key", tmp_path / "debian.qcow2"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    run(lodge, "image", "build", "--output", disk, "--hostname", "box", "--ssh-key", f"{key}.pub",
        "--packages", PACKAGES, "debian", timeout=1800)
    guest = Debian(lodge, tmp_path, disk, key)
    yield guest, disk
    guest.end()


def what_is_kept(guest):
    return {"package": guest.ssh("lodge-greeting && dpkg -s lodge-greeting | grep Status"),
            "file": guest.ssh("sha256sum /root/blob"),
            "table": guest.postgres(f'psql -At -c "{COUNTS}" bench')}


def test_a_whole_debian_keeps_its_data_over_a_reboot(debian, repository, lodge):
    guest, disk = debian
    guest.wait_for("login", lambda: "box login:" in guest.said())
    guest.wait_for("SSH", guest.boot_id)

    guest.ssh(f"echo 'deb [trusted=yes] http://10.0.2.2:{repository} ./' >/etc/apt/host.list")
    guest.ssh(f"{APT} update && {APT} install --yes lodge-greeting")
    guest.ssh("head -c 20M /dev/urandom >/root/blob")
    guest.postgres("createdb bench")
    guest.postgres(f"pgbench -q -i -s {SCALE} bench")
    assert "number of failed transactions: 0" in guest.postgres("pgbench -c 2 -T 20 bench")

    kept = what_is_kept(guest)
    assert kept["package"] == "from the host\nStatus: install ok installed"
    accounts, transactions, balance, delta = map(int, kept["table"].split("|"))
    assert accounts == SCALE * 100000 and transactions > 0 and balance == delta

    before = guest.boot_id()
    guest.ssh("systemctl reboot", check=False)
    guest.wait_for("reboot", lambda: guest.boot_id() not in ("", before))
    guest.wait_for("PostgreSQL", lambda: guest.ssh("pg_isready", check=False).endswith(
        "accepting connections"))
    guest.wait_for("second login", lambda: guest.said().count("box login:") > 1)
    assert what_is_kept(guest) == kept

    guest.ssh("systemctl poweroff", check=False)
    assert guest.process.wait(300) == 0
    run(lodge, "disk", "check", disk)
    run("qemu-img", "check", "-q", disk)

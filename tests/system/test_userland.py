"""Debian's own programs run inside a guest as they do on the host."""
import os
import re
import shutil
import subprocess

import pytest

import machine
from conftest import TOP, fetch

pytestmark = pytest.mark.long
PACKAGES = ["stress-ng", "python3", "libpython3.11-testsuite", "openssl", "luajit"]
STRESSORS = ["cpu", "vm", "fork", "futex", "signal", "mmap", "cache"]
SECONDS = int(os.environ.get("SECONDS_EACH", "60"))

PYTHON = ["test_math", "test_float", "test_struct", "test_zlib", "test_hashlib", "test_threading"]
# One line for each program: its name and what it came to.
CHECKS = f"""
cd /tmp
for t in {' '.join(PYTHON)}; do
    python3 -m test -q $t >log 2>&1 && echo "CHECK $t ok" || {{ echo "CHECK $t failed"; cat log; }}
done
echo "CHECK luajit $(luajit /session/jit.lua)"
head -c 3000000 /session/data >plain
for digest in md5 sha1 sha256 sha512 sha3-256 blake2b512 sm3; do
    echo "CHECK $digest $(openssl dgst -r -$digest plain)"
done
for cipher in aes-128-cbc aes-256-ctr camellia-256-cbc chacha20 des-ede3-cbc; do
    openssl enc -$cipher -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f \\
        -iv 000102030405060708090a0b0c0d0e0f -in plain -out coded 2>/dev/null
    echo "CHECK $cipher $(openssl dgst -r -sha256 coded)"
done
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key 2>/dev/null
openssl dgst -sha256 -sign key -out signature plain
openssl pkey -in key -pubout -out public
echo "CHECK sign $(openssl dgst -sha256 -verify public -signature signature plain)"
openssl speed -seconds 1 sha256 aes-256-cbc rsa2048 >log 2>&1 && echo "CHECK speed ok" || cat log
"""


@pytest.fixture(scope="module")
def userland():
    return fetch("make-userland", "debian", *PACKAGES)


def write_session(root, script):
    """What a session needs: its script, data to work on, a program that compiles itself."""
    session = root / "session"
    session.mkdir(parents=True)
    (session / "run").write_text(script)
    (session / "data").write_bytes(bytes((i * i >> 3) & 255 for i in range(1 << 16)) * 46)
    shutil.copy(os.path.join(TOP, "tests/system/jit.lua"), session)


def overlay(directory, script):
    """A cpio archive with the session, to lie behind the userland's in the initrd."""
    write_session(directory / "root", script)
    names = "".join(f"{p.relative_to(directory / 'root')}\n"
                    for p in sorted((directory / "root").rglob("*")))
    return subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], check=True,
                          cwd=directory / "root", input=names.encode(),
                          stdout=subprocess.PIPE).stdout


def boot(lodge, userland, directory, script, engine, cpus):
    initrd = directory / "initrd"
    with open(userland, "rb") as base:
        initrd.write_bytes(base.read() + overlay(directory, script))
    kernel = fetch("fetch-kernel", "cloud-amd64")
    return machine.boot(lodge, kernel, initrd, "/session/run", "--engine",
                        engine, "--cpus", cpus, "--memory", "2G", append="quiet", timeout=7200)


def checks(output):
    return dict(re.findall(r"^CHECK (\S+) (.*?)\r?$", output, re.M))


@pytest.fixture(scope="module")
def host(userland, tmp_path_factory):
    """The same checks in the same userland on the host."""
    root = tmp_path_factory.mktemp("host")
    with open(userland, "rb") as archive:
        subprocess.run(["cpio", "-i", "-d", "-m", "--quiet"], stdin=archive, cwd=root, check=True)
    write_session(root, CHECKS)
    done = subprocess.run(["unshare", "-m", "chroot", root, "sh", "-c",
                           "mount -t proc proc /proc; mount -t devtmpfs devtmpfs /dev; "
                           "mkdir -p /dev/shm; . /session/run"], check=True,
                          stdout=subprocess.PIPE, text=True)
    return checks(done.stdout)


@pytest.mark.parametrize("engine", machine.engines())
def test_programs_come_to_the_same_end_as_on_the_host(lodge, userland, host, tmp_path, engine):
    result = boot(lodge, userland, tmp_path, CHECKS, engine, 2)
    assert result.status == 0, result.output[-3000:]
    assert len(host) > 15
    assert checks(result.output) == host


@pytest.mark.parametrize("engine", machine.engines())
@pytest.mark.parametrize("cpus", [1, 2])
def test_stressors_verify_what_they_did(lodge, userland, tmp_path, engine, cpus):
    script = "cd /tmp\n" + "".join(
        f"stress-ng --{s} {cpus} --verify --timeout {SECONDS} >log 2>&1 && echo 'CHECK {s} ok' "
        f"|| {{ echo 'CHECK {s} failed'; cat log; }}\n" for s in STRESSORS)
    result = boot(lodge, userland, tmp_path, script, engine, cpus)
    assert result.status == 0, result.output[-3000:]
    assert checks(result.output) == {s: "ok" for s in STRESSORS}, result.output[-3000:]

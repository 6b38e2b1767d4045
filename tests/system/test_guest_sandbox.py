"""The sandbox around the process of an image's virtual machine, and the process above it."""
import os
import signal
import subprocess

import pytest

from system.test_guest import box, fetch, free_port, host, patient, start_vm  # noqa: F401
from test_sandbox import SYS_SOCKET, status, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers of images need root")


class Machine:
    """A virtual machine's process by its id, as test_sandbox's functions take one."""

    def __init__(self, host, name):
        self.pid = host.inspect(name)["pid"]

    def threads(self):
        return os.listdir(f"/proc/{self.pid}/task")

    def fields(self):
        return [status(self, thread) for thread in self.threads()]

    def parent(self):
        return int(status(self, self.pid)["PPid"])

    def is_gone(self):
        return not os.path.exists(f"/proc/{self.pid}")


CHOWN, DAC_OVERRIDE, FOWNER = 1 << 0, 1 << 1, 1 << 3


def assert_confined(machine, capabilities=0):
    """Returns the directories that it holds open, as links. None leads further up."""
    fields = machine.fields()
    assert len(fields) >= 3  # the event loop, the timers, the CPU
    for thread in fields:
        assert (thread["Seccomp"], thread["NoNewPrivs"]) == ("2", "1")
        assert int(thread["CapEff"], 16) == int(thread["CapPrm"], 16) == capabilities
        assert int(thread["CapInh"], 16) == int(thread["CapAmb"], 16) == 0
    assert os.readlink(f"/proc/{machine.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    assert set(os.listdir(f"/proc/{machine.pid}/root")) <= {"etc"}
    links = [f"/proc/{machine.pid}/fd/{fd}" for fd in os.listdir(f"/proc/{machine.pid}/fd")]
    directories = [link for link in links if os.path.isdir(link)]
    for link in directories:
        assert os.path.samestat(os.stat(link), os.stat(link + "/.."))
    return directories


def test_a_virtual_machine_of_an_image_is_confined_and_of_use(patient, full_kernel, free_port,
                                                              tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "index.html").write_text("page\n")
    name = start_vm(patient, "-p", f"{free_port}:80", "-v", f"{shared}:/www", "box:1", "sh", "-c",
                    "trap 'echo bye; exit 7' TERM; httpd -p 80 -h /www; echo up;"
                    "while true; do sleep 0.1; done")
    machine = Machine(patient, name)
    # No descriptor leads out of the empty file system but the shared folder's, and its own, and
    # nothing leads out of these. Their files are of any user.
    inside = assert_confined(machine, CHOWN | DAC_OVERRIDE | FOWNER)
    assert {os.stat(link).st_ino for link in inside} >= {
        shared.stat().st_ino, os.stat(f"/proc/{machine.pid}/fd").st_ino}
    assert fetch(free_port) == b"page\n"
    assert patient("exec", name, "sh", "-c", "echo made >/www/made; cat /www/made") == "made\n"
    assert (shared / "made").read_text() == "made\n"
    patient("stop", "--time", "60", name)
    assert patient.inspect(name)["exitStatus"] == 7
    assert patient("logs", name) == "up\nbye\n"
    assert not [file for file in os.listdir(f"/var/lib/lodge/guests/{name}")
                if file.startswith("lodge.")]
    patient("start", "--store", patient.store.path, name)
    assert_confined(Machine(patient, name), CHOWN | DAC_OVERRIDE | FOWNER)
    patient("rm", "-f", "--store", patient.store.path, name)


def test_a_forbidden_call_ends_a_virtual_machine_and_is_told(patient, lodge):
    name = patient.name()
    process = subprocess.Popen([lodge, "run", "--store", patient.store.path, "--name", name,
                                "--isolation", "vm", "--network", "none", "box:1", "sh", "-c",
                                "echo up; sleep 1000"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    machine = Machine(patient, name)
    assert assert_confined(machine) == []
    program = os.path.join(os.path.dirname(lodge), "tests", "kvm", "force-call")
    subprocess.run([program, str(machine.pid), str(SYS_SOCKET)], check=True, timeout=20)
    assert "sandbox" in process.communicate(timeout=60)[1]
    assert process.returncode == 1


def test_signals_reach_a_virtual_machine_through_the_process_that_waits(patient, lodge):
    process = subprocess.Popen([lodge, "run", "--store", patient.store.path, "--name",
                                patient.name(), "--isolation", "vm", "box:1", "sh", "-c",
                                "trap 'exit 9' TERM; echo up; while true; do sleep 0.1; done"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    process.terminate()
    assert process.wait(timeout=600) == 9


def test_a_virtual_machine_ends_with_the_process_that_waits_for_it(patient):
    name = start_vm(patient, "--no-sandbox", "box:1", "sleep", "1000")
    machine = Machine(patient, name)
    assert all(thread["Seccomp"] == "0" for thread in machine.fields())  # for debugging
    os.kill(machine.parent(), signal.SIGKILL)
    wait_for(machine.is_gone)
    assert "exitStatus" not in patient.wait(name)
    name = start_vm(patient, "box:1", "sleep", "1000")
    machine = Machine(patient, name)
    os.kill(machine.parent(), signal.SIGKILL)
    wait_for(machine.is_gone)


def test_a_container_has_no_sandbox_to_do_without(box):
    assert "vm" in box.fails("run", "--no-sandbox", "--store", box.store.path, "box:1", "true")

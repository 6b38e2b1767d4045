"""`lodge top` and `ps`: the processes of guests, the same under both isolations."""
import os
import time

import pytest

from system.test_guest import box, host, patient, start_vm  # noqa: F401

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers of images need root")


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_top_has_podmans_columns_in_the_guest_s_own_terms(patient, isolation):
    arguments = ["--user", "joe", "-t", "box:1", "sh", "-c", "sleep 500 & sleep 600; true"]
    name = start_vm(patient, *arguments) if isolation == "vm" else patient.detach(*arguments)
    for _ in range(600):
        if len(patient("ps", name).splitlines()) == 3:
            break
        time.sleep(0.1)
    lines = patient("top", name).splitlines()
    assert lines[0].split() == "USER PID PPID %CPU ELAPSED TTY TIME COMMAND".split()
    first, *others = [line.split(maxsplit=7) for line in lines[1:]]
    assert first[:3] == ["joe", "1", "0"] and first[7].startswith("sh -c")
    assert all(line[0] == "joe" and int(line[1]) < 20 and line[2] == "1" for line in others)
    assert {line[5] for line in [first, *others]} == {"pts/0"}
    assert sorted(line[7] for line in others) == ["sleep 500", "sleep 600"]
    rows = [line.split() for line in patient("top", name, "pid", "hpid", "comm").splitlines()]
    assert rows[0] == ["PID", "HPID", "COMMAND"]
    assert {row[0] for row in rows[1:]} == {"1", *(line[1] for line in others)}
    for _, host_pid, comm in rows[1:]:
        if isolation == "vm":
            assert host_pid == "?"
        else:
            assert open(f"/proc/{host_pid}/comm").read().strip() == comm


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_what_processes_call_themselves_does_nothing_to_the_terminal(patient, isolation):
    arguments = ["box:1", "sh", "-c", "sleep 600; true", "a\033[2Jb\nc"]
    name = start_vm(patient, *arguments) if isolation == "vm" else patient.detach(*arguments)
    for _ in range(600):
        if (text := patient("ps", name) + patient("top", name)).count("sleep 600\n") == 2:
            break
        time.sleep(0.1)
    assert text.count("a [2Jb c") == 2
    assert "\033" not in text and text.count("\n") == 5


def test_a_column_that_is_not_there_is_told_with_those_that_are(box):
    name = box.detach("box:1", "sleep", "600")
    assert "pcpu" in box.fails("top", name, "colour")
    assert "no guest" in box.fails("top", "nobody-of-this-name")

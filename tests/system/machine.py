"""Run a guest and look at what it prints."""
import os
import re
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# The kernel's tests of its own ciphers are most of a boot on a slow engine; one boot has them.
NO_SELF_TESTS = "cryptomgr.notests"
APPEND = "console=ttyS0 panic=-1"


class Result:
    def __init__(self, status, output, seconds, errors=""):
        self.status, self.output, self.seconds, self.errors = status, output, seconds, errors


def run(lodge, *arguments, timeout=300, stdin=b""):
    """lodge run with arguments, to its end. Output and messages are kept apart."""
    start = time.monotonic()
    process = subprocess.Popen([lodge, "run", *map(str, arguments)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"no end after {timeout} s; the guest said:\n{tail(out)}") from None
    return Result(process.returncode, out.decode(errors="replace").replace("\r\n", "\n"),
                  time.monotonic() - start, err.decode(errors="replace"))


def tail(output, lines=30):
    return "\n".join(output.decode(errors="replace").splitlines()[-lines:])


def boot(lodge, kernel, initrd, session, *arguments, append="", **keywords):
    return run(lodge, "--kernel", kernel, "--initrd", initrd, "--append",
               f"{APPEND} session={session} {append}", *arguments, **keywords)


def between(output, begin, end):
    """The lines that a session printed between two marks."""
    match = re.search(f"^{re.escape(begin)}$(.*?)^{re.escape(end)}$", output, re.S | re.M)
    assert match, f"no {begin} ... {end} in:\n{output[-3000:]}"
    return match.group(1).strip("\n")


def mappings(pid):
    """What a process has mapped: a name, whether it is guest memory, and sizes in KiB.

    Only the guest's memory asks for huge pages (VmFlags hg)."""
    with open(f"/proc/{pid}/smaps", encoding="ascii") as maps:
        text = maps.read()
    for entry in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.M)[1:]:
        fields = dict(re.findall(r"^(\w+): +(.*)$", entry, re.M))
        name = (entry.splitlines()[0].split(maxsplit=5) + [""])[5].strip()
        yield {"name": name, "guest": " hg" in " " + fields["VmFlags"],
               "rss": int(fields["Rss"].split()[0]), "pss": int(fields["Pss"].split()[0])}


def resident(pid):
    """How many bytes of its guest's memory a machine's process has."""
    return sum(m["rss"] * 1024 for m in mappings(pid) if m["guest"])


def engines():
    """The engines that are built in and can run on this host; LODGE_ENGINES narrows them."""
    wanted = os.environ.get("LODGE_ENGINES")
    lodge = os.environ.get("LODGE", os.path.join(TOP, "build", "lodge"))
    try:
        text = subprocess.run([lodge, "engines"], capture_output=True, text=True,
                              check=True).stdout
    except OSError:
        text = ""  # not built: the fixture says so
    found = re.findall(r"^[ *] (\S+) +works ", text, re.M) or ["interpret"]
    return [name for name in found if not wanted or name in wanted.split(",")]

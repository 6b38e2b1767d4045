"""The rules of the house that people forget (docs/architecture.md)."""
import os
import re
import subprocess

import pytest

from conftest import TOP

# Which folders of src/ a folder may include, besides itself. Arrows run downwards only.
ARROWS = {
    "base": set(),
    "x86": {"base"},
    "engine": {"base", "x86"},
    "storage": {"base"},
    "network": {"base"},
    "device": {"base", "machine", "storage", "network"},
    "machine": {"base", "x86", "engine", "device"},
    "container": {"base"},
    "image": {"base"},
    "guest": {"base", "engine", "machine", "device", "storage", "network", "container", "image"},
    "cli": {"base", "engine", "machine", "device", "storage", "network", "container", "image",
            "guest"},
}
# What a device may know of the machine: the seams it is plugged into.
DEVICE_SEAMS = {"bus.h", "irq.h", "timer.h", "pci.h", "memory.h", "msix.h"}
LINES_MAX, HEADER_LINES_MAX, COLUMNS_MAX = 800, 400, 100


def files(*endings):
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=TOP, check=True,
                            stdout=subprocess.PIPE, text=True).stdout.split("\n")
    return [f for f in listed if f.endswith(endings) and os.path.isfile(os.path.join(TOP, f))]


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


SOURCES = [f for f in files(".c", ".h") if f.startswith("src/")]


@pytest.mark.parametrize("folder", sorted({f.split("/")[1] for f in SOURCES}))
def test_includes_run_downwards_only(folder):
    assert folder in ARROWS, f"src/{folder} is not in the table of arrows"
    wrong = []
    for path in SOURCES:
        if path.split("/")[1] != folder:
            continue
        for target in re.findall(r'^#include "([^"]+)"', read(path), re.M):
            where, _, rest = target.partition("/")
            if not rest or where == folder:
                continue
            if where not in ARROWS[folder]:
                wrong.append(f"{path} includes {target}")
            elif folder == "device" and where == "machine" and rest not in DEVICE_SEAMS:
                wrong.append(f"{path} includes {target}, which is no seam for devices")
    assert not wrong


def test_a_file_is_one_idea_long():
    long = {}
    for path in SOURCES:
        lines = read(path).count("\n")
        if lines > (HEADER_LINES_MAX if path.endswith(".h") else LINES_MAX):
            long[path] = lines
    assert not long


def test_lines_fit_the_page_and_hold_no_tabs():
    wrong = [f"{path}:{number}" for path in files(".c", ".h", ".py")
             for number, line in enumerate(read(path).split("\n"), 1)
             if len(line) > COLUMNS_MAX or "\t" in line or line != line.rstrip()]
    assert not wrong


@pytest.mark.parametrize("ending", [".h", ".c"])
def test_a_file_says_first_what_it_is_for(ending):
    """A header always; a source unless its header of the same name does."""
    silent = [path for path in SOURCES if path.endswith(ending)
              and not read(path).startswith("/* ")
              and not (ending == ".c" and os.path.exists(os.path.join(TOP, path[:-2] + ".h")))]
    assert not silent


def test_each_package_is_named_once_with_a_phase_and_a_reason():
    names = set()
    for line in read("scripts/packages").splitlines():
        if line.startswith("#"):
            continue
        assert re.fullmatch(r"(build|run|test)\s+[a-z0-9.+-]+\s+# \S.*", line), line
        name = line.split()[1]
        assert name not in names, f"{name} is named twice"
        names.add(name)


def test_library_code_neither_exits_nor_prints():
    wrong = [f"{path}: {call}" for path in SOURCES
             if path.split("/")[1] in ("base", "x86", "storage", "network", "device", "machine",
                                       "image")
             for call in re.findall(r"(?<![\w.>_])(?:exit|abort|printf|puts|perror)\(",
                                    re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\])*"', "", read(path),
                                           flags=re.S))]
    assert not wrong


def test_every_target_of_the_makefile_is_told_in_the_readme():
    targets = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.M).group(1).split()
    told = read("README.md")
    missing = [t for t in targets if not t.startswith("setup-") and f"make {t}" not in told
               and t != "all"]
    assert not missing

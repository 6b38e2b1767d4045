"""What lodge says about itself."""
import itertools
import re
import subprocess

import pytest


def lodge_says(lodge, *arguments):
    return subprocess.run([lodge, *arguments], capture_output=True, text=True, check=True).stdout


def verbs_in(text):
    lines = text.splitlines()
    if "Verbs:" not in lines:
        return []
    names = itertools.takewhile(lambda l: l.startswith("  "), lines[lines.index("Verbs:") + 1:])
    return [line.split()[0] for line in names]


def every_verb(lodge, outer=()):
    for verb in verbs_in(lodge_says(lodge, "help", *outer)):
        yield (*outer, verb)
        yield from every_verb(lodge, (*outer, verb))


def test_the_overview_names_every_verb_and_each_has_help(lodge):
    verbs = list(every_verb(lodge))
    assert {("run",), ("engines",), ("help",), ("disk", "snapshot", "list")} <= set(verbs)
    for verb in verbs:
        text = lodge_says(lodge, "help", *verb)
        assert text.startswith(f"lodge {' '.join(verb)} - ")
        assert f"usage: lodge {' '.join(verb)}" in text
        assert lodge_says(lodge, *verb, "--help") == text


def test_help_is_told_wherever_it_is_asked_for_and_errors_name_it(lodge):
    text = lodge_says(lodge, "help", "disk", "create")
    assert lodge_says(lodge, "disk", "create", "image", "1G", "--help") == text
    assert lodge_says(lodge, "disk", "create", "--force", "-h") == text
    for arguments, where in [(["disk", "create", "--colour"], "'lodge help disk create'"),
                             (["disk", "colour"], "'lodge disk --help'"),
                             (["colour"], "'lodge --help'"),
                             (["net", "kinds", "x"], "'lodge help net kinds'")]:
        result = subprocess.run([lodge, *arguments], capture_output=True, text=True, check=False)
        assert result.returncode == 2 and where in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1


def test_no_option_stands_twice_in_a_verb(lodge):
    for verb in every_verb(lodge):
        text = lodge_says(lodge, "help", *verb)
        options = re.findall(r"^  (?:(-\w), )?(--[\w-]+)", text, re.M)
        names = [name for pair in options for name in pair if name]
        assert len(names) == len(set(names)), (verb, names)


def test_the_version_is_the_one_of_the_build(lodge):
    assert lodge_says(lodge, "version").startswith("lodge ")


def test_every_engine_is_listed_with_its_state(lodge):
    text = lodge_says(lodge, "engines")
    assert "interpret" in text and "kvm" in text


def test_the_man_page_is_clean_roff_with_every_option(lodge):
    page = lodge_says(lodge, "help", "--man")
    assert page.startswith('.TH')
    for option in ("kernel", "initrd", "append", "cpus", "memory", "engine", "console"):
        assert option in page


def test_the_completion_is_a_script_that_bash_takes(lodge):
    script = lodge_says(lodge, "help", "--completion")
    result = subprocess.run(["bash", "-c", script + """
        COMP_WORDS=(lodge run --me) COMP_CWORD=2
        $(complete -p lodge | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        echo "${COMPREPLY[@]}\""""], capture_output=True, text=True, check=True)
    assert "--memory" in result.stdout

"""What lodge says about itself."""
import subprocess

import pytest


def lodge_says(lodge, *arguments):
    return subprocess.run([lodge, *arguments], capture_output=True, text=True, check=True).stdout


def test_the_overview_names_every_verb_and_each_has_help(lodge):
    lines = lodge_says(lodge, "help").splitlines()
    verbs = [line.split()[0] for line in lines[lines.index("Verbs:") + 1:] if line.startswith("  ")]
    assert {"run", "engines", "version", "help"} <= set(verbs)
    for verb in verbs:
        text = lodge_says(lodge, "help", verb)
        assert text.startswith(f"lodge {verb} - ")
        assert lodge_says(lodge, verb, "--help") == text


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

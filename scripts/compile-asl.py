#!/usr/bin/env python3
"""Compile ACPI source language with iasl into a C header.

usage: compile-asl.py IASL INPUT.asl OUTPUT.h NAME
"""
import subprocess
import sys
import tempfile
from pathlib import Path


def main():
    iasl, source, output, name = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        aml = Path(folder) / "table.aml"
        run = subprocess.run([iasl, "-p", str(aml.with_suffix("")), source],
                             capture_output=True, text=True)
        if run.returncode != 0 or not aml.exists():
            sys.exit(run.stdout + run.stderr)
        code = aml.read_bytes()
    lines = [f"/* Made from {Path(source).name} by iasl. */", f"static const uint8_t {name}[] = {{"]
    for at in range(0, len(code), 12):
        lines.append("    " + " ".join(f"0x{byte:02x}," for byte in code[at:at + 12]))
    lines.append("};")
    Path(output).write_text("\n".join(lines) + "\n")


main()

#!/usr/bin/env python3
"""Turn src/x86/insn.tab into C: insn-rows.h, insn-rows.c, bodies.h,
bodies.c (see the table's head for its language). Run by the build:

    insn-table.py TABLE OUTPUT...

The name of each output says which one it is."""
import re
import sys

FLAGS = {"c": 0x1, "p": 0x4, "a": 0x10, "z": 0x40, "s": 0x80, "o": 0x800, "d": 0x400}
ATTRIBUTES = {
    "lock": "LOCKABLE", "priv": "PRIVILEGED", "no64": "NO64", "only64": "ONLY64",
    "branch": "BRANCH", "string": "STRING", "def64": "DEFAULT64", "align": "ALIGNED",
    "nondet": "NONDETERMINISTIC", "serial": "SERIALIZING",
}
VEX_TWINS = ("v3", "v2", "v3i", "v2i", "v3s", "v2s", "v3l", "v2l")
MAPS = {"": 0, "0F": 1, "0F38": 2, "0F3A": 3}
PREFIXES = {"any": 0, "NP": 1, "66": 2, "F3": 3, "F2": 4, "NFx": 5}
SIZES = {
    "b": "1", "w": "2", "d": "4", "q": "8", "dq": "16", "qq": "32", "t": "10", "v": "SIZE_V",
    "z": "SIZE_Z", "y": "SIZE_Y", "x": "SIZE_X", "h": "SIZE_X2", "k": "SIZE_X4", "e": "SIZE_X8",
    "n": "SIZE_N", "p": "SIZE_P", "a": "SIZE_A", "-": "0", "s": "1",
}
LETTERS = "EGMRZBIJOASCDPNQVUWHLXY"
FIXED = {
    "AL": ("FIXED_GPR", 0, "1"), "CL": ("FIXED_GPR", 1, "1"), "AX": ("FIXED_GPR", 0, "2"),
    "aX": ("FIXED_GPR", 0, "SIZE_V"), "aZ": ("FIXED_GPR", 0, "SIZE_Z"),
    "DX": ("FIXED_GPR", 2, "2"), "1": ("CONSTANT", 1, "1"), "ST0": ("FIXED_ST", 0, "10"),
    "STi": ("ST_I", 0, "10"), "ES": ("FIXED_SREG", 0, "2"), "CS": ("FIXED_SREG", 1, "2"),
    "SS": ("FIXED_SREG", 2, "2"), "DS": ("FIXED_SREG", 3, "2"), "FS": ("FIXED_SREG", 4, "2"),
    "GS": ("FIXED_SREG", 5, "2"), "Xlat": ("XLAT", 0, "1"),
}


class Row:
    """One row of the table, with its encoding taken apart."""

    def __init__(self, fields, where):
        self.mnemonic, self.encoding, self.operands, self.feature, flags, attributes = fields
        self.where = where
        self.attributes = attributes.split()
        self.flags = {"r": 0, "w": 0, "u": 0}
        for part in flags.split():
            kind, letters = part.split("=")
            for letter in letters:
                self.flags[kind] |= FLAGS[letter]
        self.parse_encoding()
        self.operand_list = [o.strip() for o in self.operands.split(",")] if self.operands else []

    def fail(self, text):
        sys.exit(f"{self.where}: {text}")

    def parse_encoding(self):
        self.vex = None
        self.prefix = "any"
        self.map = ""
        self.w = None
        self.reg = None
        self.modrm = False
        self.mod = None
        self.fixed = None
        self.fixed_count = 0
        self.opcode_count = 1
        self.vsib = 0
        opcode = []
        fixed_done = False
        for word in self.encoding.split():
            if word.startswith("VEX."):
                _, length, prefix, map_, *w = word.split(".")
                self.vex = length
                self.prefix = prefix
                self.map = map_
                if w:
                    self.w = int(w[0][1])
            elif word in ("NP", "66", "F2", "F3", "NFx") and not opcode and self.vex is None:
                self.prefix = word
            elif word in ("W0", "W1"):
                self.w = int(word[1])
            elif word == "/r":
                self.modrm = True
            elif re.fullmatch(r"/[0-7]", word):
                self.modrm = True
                self.reg = int(word[1])
            elif word == "reg":
                self.mod = 3
            elif word in ("vsibx", "vsiby"):
                self.vsib = 1 if word == "vsibx" else 2
            else:
                match = re.fullmatch(r"([0-9A-F]{2})(\+r|\+cc|\+i)?", word)
                if not match:
                    self.fail(f"'{word}' in the encoding is not known")
                opcode.append(int(match.group(1), 16))
                if match.group(2) == "+i":
                    self.fixed, self.fixed_count = opcode.pop(), 8
                    fixed_done = True
                elif match.group(2):
                    self.opcode_count = 8 if match.group(2) == "+r" else 16
        if self.vex is None:
            if opcode[0] == 0x0F and len(opcode) > 1:
                self.map = "0F"
                opcode = opcode[1:]
                if opcode[0] in (0x38, 0x3A) and len(opcode) > 1:
                    self.map = f"0F{opcode[0]:02X}"
                    opcode = opcode[1:]
        if len(opcode) == 2 and not fixed_done:
            self.fixed, self.fixed_count = opcode.pop(), 1
        if len(opcode) != 1:
            self.fail(f"one opcode byte was expected: {self.encoding} {opcode}")
        self.opcode = opcode[0]
        if self.fixed is not None:
            self.modrm = True
        names = [o.strip().lstrip("=+") for o in self.operands.split(",")]
        if any(n[0] in "M" for n in names if n) and self.mod is None:
            self.mod = 0
        if any(n[0] in "RNU" for n in names if n) and self.reg is None and self.mod is None:
            self.mod = 3
        if any(n in ("Cn", "Dn") for n in names):
            self.mod = None  # MOV to and from CR and DR ignore mod (SDM 2 MOV)

    def symbol(self):
        return "X86_OP_" + self.mnemonic.upper()

    def twin(self):
        """The rows of the VEX twin that the attributes ask for."""
        kinds = [a for a in self.attributes if a in VEX_TWINS]
        self.attributes = [a for a in self.attributes if a not in VEX_TWINS]
        if not kinds:
            return []
        kind = kinds[0]
        prefix = "NP" if self.prefix == "any" else self.prefix
        operands = list(self.operand_list)
        if kind[1] == "3":
            target = operands[0].lstrip("=+")
            size = target[1:]
            if target[0] == "U":  # shifts by an immediate: the target is VEX.vvvv
                operands = ["=H" + size, "U" + size] + operands[1:]
            else:
                wide = "dq" if kind[2:] in ("s", "l") else size
                operands = ["=V" + wide, "H" + wide] + operands[1:]
        words = self.encoding.split()
        last = max(i for i, word in enumerate(words) if word == f"{self.opcode:02X}")
        tail = " ".join(words[last:])
        lengths = {"": [("128", "avx"), ("256", "avx")], "i": [("128", "avx"), ("256", "avx2")],
                   "s": [("LIG", "avx")], "l": [("128", "avx")]}[kind[2:]]
        rows = []
        wrule = ".W%d" % self.w if self.w is not None else ""
        flags = []
        for key in "rwu":
            letters = "".join(l for l, bit in FLAGS.items() if self.flags[key] & bit)
            if letters:
                flags.append(f"{key}={letters}")
        attributes = "align" if self.op_needs_alignment() else ""
        for length, feature in lengths:
            encoding = f"VEX.{length}.{prefix}.{self.map}{wrule} {tail}"
            rows.append(Row(["v" + self.mnemonic, encoding, ",".join(operands), feature,
                             " ".join(flags), attributes], self.where))
        return rows

    def op_needs_alignment(self):
        """VEX forms check alignment only where the mnemonic promises it (SDM 2 2.4)."""
        return self.mnemonic in ("movaps", "movapd", "movdqa", "movntps", "movntpd", "movntdq",
                                 "movntdqa")


def read_table(path):
    rows = []
    with open(path, encoding="utf-8") as table:
        for number, line in enumerate(table, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            fields = [f.strip() for f in line.split("|")]
            if len(fields) != 6:
                sys.exit(f"{path}:{number}: six columns were expected")
            row = Row(fields, f"{path}:{number}")
            rows.append(row)
            rows.extend(row.twin())
    return rows


def operand(row, text):
    """C initializer of one operand pattern: kind, register, size, access."""
    access = {"=": "X86_WRITE", "+": "X86_READ | X86_WRITE"}.get(text[0], "X86_READ")
    name = text.lstrip("=+")
    if name in FIXED:
        kind, register, size = FIXED[name]
        return f"{{P_{kind}, {register}, {size}, {access}}}"
    letter, size = name[0], name[1:]
    if letter not in LETTERS or size not in SIZES:
        row.fail(f"operand '{text}' is not known")
    if letter == "I" and size == "s":
        return f"{{P_IS, 0, 1, {access}}}"
    return f"{{P_{letter}, 0, {SIZES[size]}, {access}}}"


def attributes(row):
    names = []
    for word in row.attributes:
        if word not in ATTRIBUTES:
            row.fail(f"attribute '{word}' is not known")
        names.append("X86_ATTR_" + ATTRIBUTES[word])
    return " | ".join(names) or "0"


def vex_code(row):
    return {None: 0, "128": 1, "256": 2, "LIG": 3}[row.vex]


def emit_header(rows, out):
    ops = sorted({row.symbol() for row in rows})
    features = sorted({row.feature for row in rows} - {"base"})
    out.write("/* Made from insn.tab. */\n#ifndef LODGE_X86_INSN_ROWS_H\n"
              "#define LODGE_X86_INSN_ROWS_H\n\nenum x86_op {\n")
    out.writelines(f"    {op},\n" for op in ops)
    out.write("    X86_OP_COUNT,\n};\n\nenum x86_feature {\n    X86_FEATURE_BASE,\n")
    out.writelines(f"    X86_FEATURE_{f.upper()},\n" for f in features)
    out.write("    X86_FEATURE_COUNT,\n};\n\n#endif\n")


def emit_rows(rows, out):
    out.write('/* Made from insn.tab. */\n#include "x86/decode-table.h"\n\n'
              "const struct x86_row x86_rows[] = {\n")
    for row in rows:
        out.write(f"    {{{row.symbol()}, X86_FEATURE_{row.feature.upper()}, {attributes(row)}, "
                  f"{row.flags['r']:#x}, {row.flags['w']:#x}, {row.flags['u']:#x}, "
                  f'"{row.mnemonic}", "{row.encoding}", "{row.operands}"}},\n')
    out.write("};\n\nconst unsigned x86_row_count = sizeof(x86_rows) / sizeof(x86_rows[0]);\n\n"
              "const struct x86_pattern x86_patterns[] = {\n")
    for row in rows:
        patterns = ", ".join(operand(row, o) for o in row.operand_list)
        mod = {None: "MOD_ANY", 0: "MOD_MEMORY", 3: "MOD_REGISTER"}[row.mod]
        out.write(f"    {{{PREFIXES[row.prefix]}, {vex_code(row)}, "
                  f"{-1 if row.w is None else row.w}, {-1 if row.reg is None else row.reg}, {mod}, "
                  f"{int(row.modrm)}, {row.fixed or 0}, {row.fixed_count}, {row.vsib}, "
                  f"{len(row.operand_list)}, {{{patterns or '{0}'}}}}},\n")
    out.write("};\n\n")
    # Candidates for each opcode of each map, mandatory prefixes before "any".
    index = {}
    for i, row in enumerate(rows):
        for opcode in range(row.opcode, row.opcode + row.opcode_count):
            index.setdefault((row.vex is not None, MAPS[row.map], opcode), []).append(i)
    candidates = []
    starts = {}
    for key in sorted(index):
        order = sorted(index[key], key=lambda i: (rows[i].prefix == "any", rows[i].fixed is None,
                                                  rows[i].mod is None, i))
        starts[key] = (len(candidates), len(order), int(any(rows[i].modrm for i in order)))
        candidates += order
    out.write("const uint16_t x86_candidates[] = {\n")
    for i in range(0, len(candidates), 16):
        out.write("    " + " ".join(f"{c}," for c in candidates[i:i + 16]) + "\n")
    out.write("};\n\nconst struct x86_opcode_range x86_opcode_ranges[2][4][256] = {\n")
    for (vex, map_, opcode), (start, count, modrm) in starts.items():
        out.write(f"    [{int(vex)}][{map_}][{opcode:#x}] = {{{start}, {count}, {modrm}}},\n")
    out.write("};\n\nconst char *const x86_op_names[] = {\n")
    for op in sorted({row.symbol() for row in rows}):
        out.write(f'    [{op}] = "{op[7:].lower()}",\n')
    out.write("};\n")


def emit_bodies(rows, out):
    ops = sorted({row.symbol() for row in rows})
    out.write('/* Made from insn.tab: the interpreter\'s body of each operation. */\n'
              '#include "engine/interpret/bodies.h"\n\n')
    out.write("interpret_body *const interpret_bodies[] = {\n")
    out.writelines(f"    [{op}] = interpret_{op[7:].lower()},\n" for op in ops)
    out.write("};\n")


def emit_bodies_header(rows, out):
    ops = sorted({row.symbol() for row in rows})
    out.write("/* Made from insn.tab: prototypes of the interpreter's bodies. */\n"
              "#ifndef LODGE_ENGINE_INTERPRET_BODIES_H\n"
              "#define LODGE_ENGINE_INTERPRET_BODIES_H\n\n"
              '#include "engine/interpret/cpu.h"\n\n')
    out.writelines(f"interpret_body interpret_{op[7:].lower()};\n" for op in ops)
    out.write("\n#endif\n")


def main():
    rows = read_table(sys.argv[1])
    emitters = {"insn-rows.h": emit_header, "insn-rows.c": emit_rows, "bodies.c": emit_bodies,
                "bodies.h": emit_bodies_header}
    for path in sys.argv[2:]:
        with open(path, "w", encoding="utf-8") as out:
            emitters[path.rsplit("/", 1)[-1]](rows, out)


if __name__ == "__main__":
    main()

"""What nvcc made of the CUDA backend's kernels, of which a machine without a GPU can say no more: that products are those of tensor
cores, of bytes as bytes; that weights are read 16 bytes at a time, past the caches; that no register waits in memory; and that a
multiprocessor has registers and shared memory for as many blocks as hide their loads.

    python3 machine_code.py CUOBJDUMP LIBRARY [--table]       77: there is no cuobjdump
"""
import re
import subprocess
import sys

WEIGHTS = r"LDG\.E\.EF\.128"
BYTES, HALVES, BF16 = r"IMMA\.16832\.S8\.S8", r"HMMA\.16816\.F32 ", r"HMMA\.16816\.F32\.BF16"

# kernel; blocks of a multiprocessor; what it has; what it has not. Formats: 0 stored, 1 int8, 2 fp8.
RULES = [
    (r"few_tokens<unsigned char, .*1, 1>", 8, [BYTES, WEIGHTS], [r"HMMA"]),
    (r"few_tokens<unsigned char, .*1, \d>", 4, [BYTES, WEIGHTS], [r"HMMA"]),
    (r"few_tokens<unsigned char, .*2, \d>", 4, [HALVES, WEIGHTS], [r"IMMA"]),
    (r"few_tokens<__nv_bfloat16, .*, 1>", 8, [BF16, WEIGHTS], []),
    (r"few_tokens<__nv_bfloat16, .*, \d>", 5, [BF16, WEIGHTS], []),
    (r"few_tokens<__half, .*, 1>", 8, [HALVES, WEIGHTS], []),
    (r"few_tokens<__half, .*, \d>", 5, [HALVES, WEIGHTS], []),
    (r"many_tokens<unsigned char, .*1, 1, 8>", 2, [BYTES, WEIGHTS], [r"HMMA"]),
    (r"many_tokens<unsigned char, .*2, 1, 8>", 2, [HALVES, WEIGHTS], [r"IMMA"]),
    (r"many_tokens<__nv_bfloat16, .*>", 3, [BF16, WEIGHTS], []),
    (r"many_tokens<__half, .*>", 3, [HALVES, WEIGHTS], []),
    (r"attend<__nv_bfloat16, (16|32|48)>", 3, [BF16, r"LDG\.E\.64"], []),
    (r"attend<__nv_bfloat16, \d+>", 2, [BF16, r"LDG\.E\.64"], []),
    (r"attend<__half, (16|32|48)>", 3, [HALVES, r"LDG\.E\.64"], []),
    (r"attend<__half, \d+>", 2, [HALVES, r"LDG\.E\.64"], []),
    (r"merge<.*>", 3, [], []),
    (r"plain<.*>|append<.*>|convert<.*>|quantise<.*>|widen_rows<.*>|embed_rows<.*>|gated_rows<.*>|add_norm_rows<.*>"
     r"|byte_rows_of|turn_scales|add_bias|add_parts_of", 4, [], []),
    (r"attend<float, \d+>", 2, [], None),  # arrays that are indexed lie in memory: f32 is there to compare with
    (r"draw", 4, [], None),
]
SHARED = {"sm_80": 164 << 10, "sm_90": 228 << 10, "sm_90a": 228 << 10}  # bytes of a multiprocessor
THREADS = {"few_tokens": 128, "many_tokens": 128, "attend": 128, "plain": 128, "merge": 512, "quantise": 32}  # else 256


def short(name):
    name = name.replace("(anonymous namespace)::", "").replace("cuda::", "").replace("void ", "").replace("(format)", "")
    return re.match(r"\w+(<.*?>+(?=\(|$))?", name).group()


def dump(tool, what, library):
    return subprocess.run([tool, what, library], capture_output=True, text=True, check=True).stdout.splitlines()


def demangled(lines):
    """{a function's line: its name}"""
    names = sorted({line.split("Function")[1].strip(" :") for line in lines if "Function" in line})
    out = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return dict(zip(names, map(short, out.splitlines())))


def kernels(tool, library):
    """{(architecture, kernel): {registers, stack, shared, code}}"""
    found, key, arch = {}, None, ""
    lines = dump(tool, "-res-usage", library) + dump(tool, "-sass", library)
    names = demangled(lines)
    for line in lines:
        if m := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            found[key]["code"].append(m[1] + " ")
        elif m := re.match(r"arch = (\S+)", line):
            arch = m[1]
        elif m := re.match(r"\s*Function ?: ?(\w+)$|\s*Function (\w+):$", line):
            key = arch, names[m[1] or m[2]]
        elif m := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            found[key] = dict(zip(("registers", "stack", "shared"), map(int, m.groups()))) | {"code": []}
    return found


def blocks(arch, name, k):
    threads = THREADS.get(name.split("<")[0], 256)
    of_warp = (k["registers"] * 32 + 255) // 256 * 256
    fit = min(65536 // of_warp * 32, 2048) // threads
    return min(fit, SHARED[arch] // max(k["shared"] + 1024, 1))


def check(arch, name, k):
    rule = next((r for r in RULES if re.fullmatch(r[0], name)), None)
    if not rule:
        return [f"{name} is not in the list of this test"]
    _, wanted, has, lacks = rule
    code, wrong = "\n".join(k["code"]), []
    wrong += [f"has no {i}" for i in has if not re.search(i, code)]
    wrong += [f"has {i}" for i in lacks or [] if re.search(i, code)]
    if lacks is not None and (k["stack"] or re.search(r"\b(STL|LDL)\b", code)):
        wrong.append(f"keeps {k['stack']} bytes of registers in memory")
    if blocks(arch, name, k) < wanted:
        wrong.append(f"takes {k['registers']} registers and {k['shared']} bytes: {blocks(arch, name, k)} blocks fit, not {wanted}")
    return [f"{name} {w}" for w in wrong]


def main(tool, library, table):
    if not tool or "NOTFOUND" in tool:
        print("there is no cuobjdump here: ops/cuda-toolkit.sh fetches one")
        return 77
    found, wrong = kernels(tool, library), []
    for (arch, name), k in sorted(found.items()):
        if table:
            warps = blocks(arch, name, k) * THREADS.get(name.split("<")[0], 256) // 32
            print(f"{arch:7} {name:60} {k['registers']:4} registers {k['stack']:4} stack {k['shared']:6} shared {warps:3} warps")
        wrong += [f"{arch}: {w}" for w in check(arch, name, k)]
    archs = {arch for arch, _ in found}
    for arch in archs:
        for pattern, *_ in RULES:
            if not any(a == arch and re.fullmatch(pattern, name) for a, name in found):
                wrong.append(f"{arch}: there is no {pattern}")
    if not archs:
        wrong.append(f"{library} has no machine code for GPUs")
    print("\n".join(wrong) or f"{len(found)} kernels for {', '.join(sorted(archs))}: ok")
    return 1 if wrong else 0


sys.exit(main(sys.argv[1], sys.argv[2], "--table" in sys.argv))

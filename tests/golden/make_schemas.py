#!/usr/bin/env python3
"""Messages as another language's msgpack packs them: the reference of tests/unit/schemas.

    python3 -m venv .venv
    .venv/bin/pip install msgpack==1.2.4
    .venv/bin/python tests/golden/make_schemas.py

Writes tests/golden/schemas/: for each schemas/examples/NAME.json a NAME.hex of the same message in msgpack; and the lists
integers.txt (number, hex) and texts.txt (length, hex), single values on both sides of every change of msgpack's format. The
tests read the committed files, and need no Python.
"""
import base64
import json
from pathlib import Path

import msgpack

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(__file__).resolve().parent / "schemas"
BYTES = {"record", "bytes"}  # base64 in JSON, bin in msgpack

EDGES = [0, 1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1,
         -1, -32, -33, -128, -129, -(2**15), -(2**15) - 1, -(2**31), -(2**31) - 1, -(2**63)]
LENGTHS = [0, 1, 31, 32, 255, 256, 4000]


def with_bytes(value):
    if isinstance(value, list):
        return [with_bytes(v) for v in value]
    if isinstance(value, dict):
        return {k: base64.b64decode(v) if k in BYTES else with_bytes(v) for k, v in value.items()}
    return value


def in_lines(data: bytes) -> str:
    text = data.hex()
    return "".join(text[i:i + 100] + "\n" for i in range(0, len(text), 100))


def main():
    OUT.mkdir(exist_ok=True)
    for path in sorted((ROOT / "schemas" / "examples").glob("*.json")):
        packed = msgpack.packb(with_bytes(json.loads(path.read_text())))
        (OUT / f"{path.stem}.hex").write_text(in_lines(packed))
    with open(OUT / "integers.txt", "w") as out:
        for n in EDGES:
            out.write(f"{n} {msgpack.packb({'seed': n}).hex()}\n")
    with open(OUT / "texts.txt", "w") as out:
        for n in LENGTHS:
            packed = msgpack.packb({"v": 1, "request": "r", "rating": 0, "comment": "x" * n})
            out.write(f"{n} {packed.hex()}\n")


main()

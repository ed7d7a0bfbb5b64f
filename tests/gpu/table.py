"""The benchmark's rows beside the ceilings of the same minutes: python3 tests/gpu/table.py build/gpu-check"""
import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])


def read(name):
    try:
        return json.loads((folder / name).read_text())
    except (OSError, ValueError):
        return None


top = read("ceilings.json") or {}
copy, bf16, fp8 = (top.get(k) for k in ("copy_bytes_per_second", "bf16_per_second", "fp8_per_second"))


def rate(v, unit, name):
    return f"{v / unit:.0f} {name}" if v else "not measured"


print(f"{top.get('gpu', 'GPU')}: copies {rate(copy, 1e9, 'GB/s')}, bf16 {rate(bf16, 1e12, 'Tflop/s')}, fp8 {rate(fp8, 1e12, 'Tflop/s')}")
print(f"{'weights':8} {'':8} {'batch':>6} {'context':>8} {'tokens/s':>10} {'ms':>9} {'of ceiling':>11} {'any order':>10} {'ratio':>6}")
def rows(name):
    return {(r["kind"], r["batch"], r["context"]): r for r in (read(name) or {}).get("rows", [])}


for weights in ("stored", "int8", "fp8", "int8-a16"):
    b = read(f"bench-{weights}.json") or {}
    free = rows(f"any-{weights}.json")
    for key, r in rows(f"bench-{weights}.json").items():
        if r["kind"] == "decode":
            share = b["token_weight_bytes"] / r["seconds"] / copy if copy else None
        else:  # all matrices but the embedding and the head
            share = 2 * (b["parameters"] - 2 * 128256 * 2048) * r["tokens_per_second"] / bf16 if bf16 else None
        print(f"{weights:8} {r['kind']:8} {r['batch']:6} {r['context']:8} {r['tokens_per_second']:10.1f} {r['seconds'] * 1e3:9.3f} "
              + (f"{share:10.0%}" if share else f"{'':10}")
              + (f"  {free[key]['seconds'] * 1e3:9.3f} {r['seconds'] / free[key]['seconds']:6.2f}" if key in free else ""))
print("Of ceiling: decode, the weights' bytes a step over the copy's bandwidth; prefill, the products over bf16's rate.")
print("Any order: the same by cuBLASLt (--deterministic false), and how many times its time ours takes: what determinism costs.")

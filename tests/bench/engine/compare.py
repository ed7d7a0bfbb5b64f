#!/usr/bin/env python3
"""Millrace's engine beside llama.cpp and ik_llama.cpp: prefill, decode, batches and memory, interleaved in one run.

    compare.py --engine build/release/bin/millrace-engine --shape tests/bench/engine/shapes/qwen2.5-0.5b.json --weights int8
               --llama LLAMA/build/bin --ik IK/build/bin --models PREFIX

The peers are built apart, for this CPU (`cmake -DGGML_NATIVE=ON`), and read PREFIX-q8_0.gguf or PREFIX-bf16.gguf of make_gguf.py.
In each round every engine runs everything once, so that all see the same moods of the machine. A figure is the mean over the
tokens of a run, in the best run of each engine. One sequence's decode follows the mood of memory, which changes within seconds: with
--turns N the engines decode N more times, one right after the other, and the median of the turns' ratios is printed with each turn.
Beside our figures stands what the machine could do at best, measured by our bench in the same seconds: what its read bandwidth
or its multiplier allows, whichever is less. The machine must be otherwise idle.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from statistics import median

BATCHES = (1, 8, 16)
PROMPT = 512

# Each peer's settings, best first; with --all-settings every one of them runs, and its best counts.
SETTINGS = {
    "llama.cpp": (["-fa", "1"], ["-fa", "0"]),
    "ik_llama.cpp": (["-fa", "1", "-rtr", "1"], ["-fa", "1", "-rtr", "0"], ["-fa", "0", "-rtr", "1"]),
}


def run(command, tables=False):
    """Its output and peak resident bytes. Some print their tables among the messages on stderr."""
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT if tables else subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            sys.exit(f"compare.py: exit status {child.returncode}: {' '.join(command)}")
        out.seek(0)
        return out.read().decode(errors="replace"), usage.ru_maxrss * 1024


def best(into, key, value):
    into[key] = max(into.get(key, 0), value)


# Too short for a decode after the prompt of the prefill row, which bench then leaves out
MAX_CONTEXT = PROMPT + 2


def run_ours(a, into):
    text, _ = run([a.engine, "bench", "--random", a.shape, "--weights", "int8" if a.weights == "int8" else "stored",
                   "--threads", str(a.threads), "--context", f"{a.context},{PROMPT}", "--batch",
                   ",".join(map(str, BATCHES)), "--steps", str(a.tokens), "--repeat", "1",
                   "--max-context", str(MAX_CONTEXT), "--json"])
    r = json.loads(text)
    into["rss"] = r["peak_rss_bytes"]
    peak = r["int8_peak"] if a.weights == "int8" else r["bf16_peak"]
    into["peak"] = max(into.get("peak", 0), peak)
    for row in r["rows"]:
        rate, context = row["mean_tokens_per_second"], row["context"]
        key = "prefill" if row["kind"] == "prefill" else f"batch {row['batch']}"
        if (context == PROMPT) != (key == "prefill") or rate <= into.get(key, 0):
            continue
        into[key] = rate
        limit = row["tokens_per_second"] / row["ceiling_share"]
        if key != "prefill":
            limit = min(limit, peak / (2 * r["parameters"]))
        into[key + " limit"], into[key + " read"] = limit, row["read_bytes_per_second"]


def run_peer(a, folder, settings, into):
    common = ["-m", f"{a.models}-{'q8_0' if a.weights == 'int8' else 'bf16'}.gguf", "-t", str(a.threads)]
    text, _ = run([f"{folder}/llama-bench", *common, *settings, "-p", str(PROMPT), "-n", str(a.tokens), "-r", "2",
                   "-o", "json"])
    for test in json.loads(text):
        best(into, "prefill" if test["n_prompt"] else "batch 1", max(test["samples_ts"]))
    # the batched bench takes words for the same settings
    words = ["-fa", "on" if settings[1] == "1" else "off"] + (["-rtr"] if settings[2:] == ["-rtr", "1"] else [])
    text, rss = run([f"{folder}/llama-batched-bench", *common, *words, "-c", str(max(BATCHES) * MAX_CONTEXT),
                     "-npp", str(a.context), "-ntg", str(a.tokens), "-npl", ",".join(map(str, BATCHES))], tables=True)
    into["rss"] = min(into.get("rss", rss), rss)
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("| ").split("|")]
        if len(cells) == 10 and re.fullmatch(r"\d+", cells[2]):
            best(into, f"batch {cells[2]}", float(cells[7]))


def decode_turn(a):
    """One sequence's decode by each engine in turn: tokens/s of ours, of each peer, and the share of the read bandwidth that ours took."""
    text, _ = run([a.engine, "bench", "--random", a.shape, "--weights", "int8" if a.weights == "int8" else "stored",
                   "--threads", str(a.threads), "--context", str(a.context), "--batch", "1", "--steps", str(a.tokens),
                   "--repeat", "1", "--max-context", str(MAX_CONTEXT), "--json"])
    row = next(row for row in json.loads(text)["rows"] if row["kind"] == "decode")
    share = row["ceiling_share"] * row["mean_tokens_per_second"] / row["tokens_per_second"]
    rates = []
    for name, folder in (("llama.cpp", a.llama), ("ik_llama.cpp", a.ik)):
        text, _ = run([f"{folder}/llama-bench", "-m", f"{a.models}-{'q8_0' if a.weights == 'int8' else 'bf16'}.gguf", "-t",
                       str(a.threads), *SETTINGS[name][0], "-p", "0", "-n", str(a.tokens), "-r", "1", "-o", "json"])
        rates.append(json.loads(text)[0]["avg_ts"])
    return row["mean_tokens_per_second"], rates, share, row["ceiling_share"], row["read_bytes_per_second"]


def print_turns(a):
    turns = [decode_turn(a) for _ in range(a.turns)]
    print("\n| one sequence's decode, turn | Millrace | read GB/s | of it, mean | quickest step | llama.cpp | ik_llama.cpp | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for i, (ours, peers, mean, quickest, read) in enumerate(turns):
        print(f"| {i + 1} | {ours:.1f} | {read / 1e9:.1f} | {100 * mean:.0f} % | {100 * quickest:.0f} % | {peers[0]:.1f} | {peers[1]:.1f} "
              f"| {ours / max(peers):.2f} |")
    print(f"| median | | | {100 * median(t[2] for t in turns):.0f} % | {100 * median(t[3] for t in turns):.0f} % | | "
          f"| {median(t[0] / max(t[1]) for t in turns):.2f} |")


def print_table(a, ours, peers):
    name = os.path.basename(a.shape).removesuffix(".json")
    print(f"| {name}, {a.weights} | Millrace | limit | of limit | read GB/s | " + " | ".join(peers) + " | ratio |")
    print("|---|---|---|---|---|" + "---|" * len(peers) + "---|")
    for key in ("prefill", *(f"batch {n}" for n in BATCHES)):
        rates = [p.get(key, 0) for p in peers.values()]
        title = f"prefill {PROMPT}, tokens/s" if key == "prefill" else f"decode, {key}, tokens/s"
        print(f"| {title} | {ours[key]:.1f} | {ours[key + ' limit']:.0f} | {100 * ours[key] / ours[key + ' limit']:.0f} % "
              f"| {ours[key + ' read'] / 1e9:.1f} | " + " | ".join(f"{r:.1f}" for r in rates) +
              f" | {ours[key] / max(rates):.2f} |")
    sizes = [p["rss"] for p in peers.values()]
    print(f"| peak RSS, MB | {ours['rss'] / 1e6:.0f} | | | | " + " | ".join(f"{s / 1e6:.0f}" for s in sizes) +
          f" | {ours['rss'] / min(sizes):.2f} |")
    print(f"\n{a.weights} peak {ours['peak'] / 1e9:.0f} Gop/s; decode after {a.context} tokens of context; "
          f"{a.rounds} rounds; {a.threads} threads")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--engine", required=True, help="millrace-engine")
    p.add_argument("--shape", required=True, help="config.json of the shape")
    p.add_argument("--models", required=True, help="prefix of the GGUF files of the same shape")
    p.add_argument("--llama", required=True, help="folder of llama.cpp's llama-bench and llama-batched-bench")
    p.add_argument("--ik", required=True, help="the same of ik_llama.cpp")
    p.add_argument("--weights", choices=("int8", "bf16"), default="int8", help="int8 is beside their Q8_0")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--context", type=int, default=32, help="tokens before the decode that is timed (32)")
    p.add_argument("--tokens", type=int, default=16, help="tokens that each sequence decodes (16)")
    p.add_argument("--all-settings", action="store_true", help="try every setting of the peers, not the best known alone")
    p.add_argument("--turns", type=int, default=0, help="more decodes of one sequence, in turn (0)")
    a = p.parse_args()
    ours, peers = {}, {"llama.cpp": {}, "ik_llama.cpp": {}}
    for _ in range(a.rounds):
        run_ours(a, ours)
        for name, folder in (("llama.cpp", a.llama), ("ik_llama.cpp", a.ik)):
            for settings in SETTINGS[name] if a.all_settings else SETTINGS[name][:1]:
                run_peer(a, folder, settings, peers[name])
    print_table(a, ours, peers)
    if a.turns:
        print_turns(a)


main()

#!/usr/bin/env python3
"""Tiny random checkpoints and what HuggingFace transformers computes with them: the reference of the engine's tests.

    python3 -m venv .venv
    .venv/bin/pip install torch==2.15.0 transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0
    .venv/bin/python tests/golden/make_goldens.py

Writes tests/golden/models/; README.md beside this file has the format. Needed only to change the goldens: the tests read
the committed files, and need no Python.

Weights are drawn so that the tests can tell right from wrong: attention scores have a spread of more than one, so a wrong
position or head shows; logits of the half-precision checkpoints stay below about 1, so that what bf16 itself rounds away is
well under 3e-2; and the seed is the first one whose greedy paths wander and have no near tie, so that the order of a sum
cannot change a token.
"""
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config
from transformers.utils import logging

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "ops" / "demo"))
import bpe  # noqa: E402

VOCAB = 320
GREEDY_STEPS = 64
MIN_LEAD = {"float32": 1.5e-3, "bfloat16": 3e-4, "float16": 3e-4}
MAX_ROUNDING = 0.02
MIN_DISTINCT = 12
LONG_PROMPT = 96
MODELS = HERE / "models"

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 256}
LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32.0, "beta_slow": 1.0}

# eight heads can be shared by up to eight ranks; with a bias wherever Llama can have one
HEADS8 = {"num_attention_heads": 8, "attention_bias": True, "mlp_bias": True}

# name: (config class, dtype, layers, intermediate, rope, rope theta, max positions, classic config.json, other settings)
CASES = {
    "llama_gqa_f32": (LlamaConfig, "float32", 2, 80, None, 10000.0, 512, True),
    "llama_gqa_bf16": (LlamaConfig, "bfloat16", 2, 128, None, 10000.0, 512, True),
    "llama_gqa_f16": (LlamaConfig, "float16", 2, 112, None, 10000.0, 512, True),
    "llama_rope3_f32": (LlamaConfig, "float32", 2, 80, LLAMA3, 10000.0, 2048, True),
    "llama_rope3_bf16": (LlamaConfig, "bfloat16", 3, 88, LLAMA3, 10000.0, 2048, False),
    "llama_linear_f32": (LlamaConfig, "float32", 2, 72, LINEAR, 10000.0, 256, True),
    "llama_yarn_f32": (LlamaConfig, "float32", 2, 76, YARN, 10000.0, 128, False),
    "qwen2_tied_f32": (Qwen2Config, "float32", 2, 96, None, 1000000.0, 512, True),
    "qwen2_tied_bf16": (Qwen2Config, "bfloat16", 3, 128, None, 1000000.0, 512, False),
    "llama_heads8_f32": (LlamaConfig, "float32", 2, 96, None, 10000.0, 512, True, HEADS8),
    "llama_heads8_bf16": (LlamaConfig, "bfloat16", 2, 96, None, 10000.0, 512, True, HEADS8),
}
SHARDED_FROM, SHARDED = "llama_gqa_f32", "llama_sharded_f32"

TEXT = """A millrace is the channel that carries the river to the mill wheel: requests flow in, workers grind, answers
flow out. User: Hello, how are you today? Assistant: Very well, thank you; and you? The water of the river turns the wheel,
and the wheel turns the stone. 你好，请介绍一下你自己。我是一个小模型。 The engine has layers, heads and a cache; 3 + 4 = 7."""


def make_config(case, ids):
    cls, _, layers, intermediate, rope, theta, max_positions, _, *other = case
    rope = {"rope_type": "default"} if rope is None else dict(rope)
    extra = {"num_attention_heads": 4}
    if cls is Qwen2Config:
        extra["use_sliding_window"] = False
    for settings in other:
        extra.update(settings)
    return cls(vocab_size=VOCAB, hidden_size=64, intermediate_size=intermediate, num_hidden_layers=layers,
               num_key_value_heads=2, head_dim=16, max_position_embeddings=max_positions,
               rms_norm_eps=1e-6, tie_word_embeddings=cls is Qwen2Config,
               rope_parameters=dict(rope, rope_theta=theta), **extra,
               bos_token_id=ids[bpe.BOS], eos_token_id=ids[bpe.EOS])


@torch.no_grad()
def randomise(model, dtype, seed):
    """Fill every weight; the spread of each kind of tensor decides how much it is seen in the logits."""
    rng = torch.Generator().manual_seed(seed)
    logits = 0.09 if dtype == "float32" else 0.03
    spread = {"embed_tokens": logits, "lm_head": logits, "q_proj": 0.15, "k_proj": 0.15, "v_proj": 0.12, "o_proj": 0.12,
              "gate_proj": 0.12, "up_proj": 0.12, "down_proj": 0.10}
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=rng)
        if name.endswith("norm.weight"):
            p.copy_(1 + 0.2 * noise)
        elif name.endswith("bias"):
            p.copy_(0.2 * noise)
        else:
            p.copy_(spread[name.split(".")[-2]] * noise)


@torch.no_grad()
def logits_of(model, ids):
    """(positions, VOCAB) in f32, one full forward pass."""
    return model(torch.tensor([ids]), use_cache=False).logits[0].float()


def greedy(model, ids):
    """GREEDY_STEPS tokens and the smallest lead of the best token over the second on the way."""
    path, lead = list(ids), float("inf")
    for _ in range(GREEDY_STEPS):
        top = logits_of(model, path)[-1].topk(2)
        lead = min(lead, (top.values[0] - top.values[1]).item())
        path.append(top.indices[0].item())
    return path[len(ids):], lead


def load(folder, dtype):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def make_prompts(tok):
    chat = tok.encode(bpe.render([("user", "Hello there, 你好")])).ids
    rng = np.random.default_rng(7)
    long = tok.encode(TEXT).ids[: LONG_PROMPT // 2]
    # The second half is drawn from the whole vocabulary (not BOS, EOS), so that every part of the embedding is touched.
    long += rng.integers(0, VOCAB - 2, LONG_PROMPT - len(long)).tolist()
    return {"one": [tok.token_to_id(bpe.BOS)], "chat": chat, "long": long}


def classic_config(folder):
    """Rewrite config.json the way checkpoints before transformers 5 have it: rope_theta, rope_scaling, torch_dtype."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_checkpoint(case, tok, folder, seed):
    shutil.rmtree(folder, ignore_errors=True)
    model = AutoModelForCausalLM.from_config(make_config(case, tok.get_vocab()))
    randomise(model, case[1], seed)
    model.to(getattr(torch, case[1])).save_pretrained(folder)
    if case[7]:
        classic_config(folder)
    bpe.save(tok, folder, case[6])


def write_golden(folder, case, seed, prompts):
    """golden.json and the logits, computed from the files as they lie on disk. None when the seed is of no use."""
    exact = load(folder, torch.float32)
    own = exact if case[1] == "float32" else load(folder, getattr(torch, case[1]))
    golden = {"dtype": case[1], "seed": seed, "vocab": VOCAB, "prompts": []}
    for name, ids in prompts.items():
        entry = {"name": name, "ids": ids, "shape": [len(ids), VOCAB]}
        entry["logits"] = save_logits(folder, f"{name}.logits.f32", logits_of(own, ids))
        if own is not exact:
            in_f32 = logits_of(exact, ids)
            entry["logits_f32_math"] = save_logits(folder, f"{name}.f32math.logits.f32", in_f32)
            entry["max_difference"] = (logits_of(own, ids) - in_f32).abs().max().item()
        entry["greedy"], entry["greedy_lead"] = greedy(exact, ids)
        if not usable(entry, case):
            return None
        golden["prompts"].append(entry)
    write_json(folder / "golden.json", golden)
    return golden


def usable(entry, case):
    return (entry["greedy_lead"] >= MIN_LEAD[case[1]] and len(set(entry["greedy"])) >= MIN_DISTINCT
            and VOCAB - 1 not in entry["greedy"] and entry.get("max_difference", 0) <= MAX_ROUNDING)


def save_logits(folder, name, logits):
    logits.numpy().astype("<f4").tofile(folder / name)
    return name


def write_json(path, value):
    """Lists of numbers on one line each: a diff of a golden stays readable."""
    text = re.sub(r"\[[\s\d,]+\]", lambda m: " ".join(m.group(0).split()), json.dumps(value, indent=1))
    path.write_text(text + "\n")


def make_case(name, case, tok):
    folder, prompts = MODELS / name, make_prompts(tok)
    for seed in range(1, 1000):
        save_checkpoint(case, tok, folder, seed)
        golden = write_golden(folder, case, seed, prompts)
        if golden:
            return golden
    raise SystemExit(f"{name}: no seed without near ties")


def make_sharded():
    """The same weights and goldens as SHARDED_FROM, in several files with an index."""
    source, folder = MODELS / SHARDED_FROM, MODELS / SHARDED
    shutil.rmtree(folder, ignore_errors=True)
    load(source, torch.float32).save_pretrained(folder, max_shard_size="120KB")
    for path in source.iterdir():
        if path.suffix == ".json":
            shutil.copy(path, folder / path.name)
    golden = json.loads((folder / "golden.json").read_text())
    for entry in golden["prompts"]:
        entry["logits"] = f"../{SHARDED_FROM}/{entry['logits']}"
    write_json(folder / "golden.json", golden)


def main():
    torch.set_num_threads(1)  # one order of every sum
    logging.disable_progress_bar()
    tok = bpe.train([TEXT] * 4, VOCAB)
    for name, case in CASES.items():
        golden = make_case(name, case, tok)
        print(name, "seed", golden["seed"],
              "| lead", ["%.4f" % p["greedy_lead"] for p in golden["prompts"]],
              "| own dtype vs f32", ["%.4f" % p.get("max_difference", 0) for p in golden["prompts"]], flush=True)
    make_sharded()
    print("total", sum(p.stat().st_size for p in MODELS.rglob("*") if p.is_file()) // 1024, "KiB")


if __name__ == "__main__":
    main()

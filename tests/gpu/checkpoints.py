"""Random checkpoints larger than those of tests/golden, and the tokens that transformers finds likeliest: for compare.c.

    python3 tests/gpu/checkpoints.py DIR
"""
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

SHAPES = {
    "llama-f32": (LlamaConfig, torch.float32, dict(hidden_size=512, num_attention_heads=8, num_key_value_heads=2,
                                                   intermediate_size=1376, vocab_size=1003)),
    "llama-bf16": (LlamaConfig, torch.bfloat16, dict(hidden_size=1024, num_attention_heads=8, num_key_value_heads=8,
                                                     intermediate_size=2752, vocab_size=4099)),
    "qwen2-bf16": (Qwen2Config, torch.bfloat16, dict(hidden_size=896, num_attention_heads=14, num_key_value_heads=2,
                                                     intermediate_size=2432, vocab_size=2048, tie_word_embeddings=True)),
}


def make(folder, kind, dtype, sizes):
    torch.manual_seed(7)
    config = kind(num_hidden_layers=4, max_position_embeddings=1024, initializer_range=0.04, eos_token_id=None,
                  bos_token_id=None, pad_token_id=None, **sizes)
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    model.save_pretrained(folder, safe_serialization=True)
    ids = torch.randint(0, sizes["vocab_size"], (1, 200))
    model = model.float()
    with torch.no_grad():
        answer = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=48)
    (folder / "prompt.txt").write_text(" ".join(map(str, ids[0].tolist())))
    (folder / "greedy.txt").write_text(" ".join(map(str, answer[0, 200:].tolist())))


for name, (kind, dtype, sizes) in SHAPES.items():
    folder = Path(sys.argv[1]) / name
    folder.mkdir(parents=True, exist_ok=True)
    make(folder, kind, dtype, sizes)
    print(name, "made", flush=True)

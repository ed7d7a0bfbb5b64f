#!/usr/bin/env python3
"""Random weights of a shape as GGUF files, for the engines that Millrace is measured against.

    make_gguf.py SHAPE.json OUT-PREFIX      writes OUT-PREFIX-q8_0.gguf and OUT-PREFIX-bf16.gguf

SHAPE.json is a HuggingFace config.json, the same that `millrace-engine bench --random` takes. What a pass costs does not depend
on the weights' values, so there is no vocabulary and no text in the files. Needs the packages gguf and numpy.
"""
import json
import sys

import gguf
import numpy as np

BLOCK = 32  # weights of a Q8_0 block, after an f16 scale


def bf16(rng, rows, cols):
    """Uniform with variance 1 / cols, which keeps what goes through them at its size."""
    values = (rng.random((rows, cols), dtype=np.float32) - 0.5) * np.float32((12 / cols) ** 0.5)
    return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)


def q8_0(rng, rows, cols):
    blocks = np.empty((rows, cols // BLOCK, 2 + BLOCK), dtype=np.uint8)
    blocks[..., :2] = np.array([(12 / cols) ** 0.5 / 255], dtype=np.float16).view(np.uint8)
    blocks[..., 2:] = rng.integers(-127, 128, (rows, cols // BLOCK, BLOCK), dtype=np.int8).view(np.uint8)
    return blocks.reshape(rows, -1)


def matrices(c):
    """(name, rows, cols) of everything but the norms and biases."""
    hidden, wide, d = c["hidden_size"], c["intermediate_size"], c["hidden_size"] // c["num_attention_heads"]
    kv = d * c["num_key_value_heads"]
    yield "token_embd", c["vocab_size"], hidden
    if not c["tie_word_embeddings"]:
        yield "output", c["vocab_size"], hidden
    for i in range(c["num_hidden_layers"]):
        for name, rows, cols in (("attn_q", hidden, hidden), ("attn_k", kv, hidden), ("attn_v", kv, hidden),
                                 ("attn_output", hidden, hidden), ("ffn_gate", wide, hidden),
                                 ("ffn_up", wide, hidden), ("ffn_down", hidden, wide)):
            yield f"blk.{i}.{name}", rows, cols


def vectors(c):
    """(name, length) of the norms and biases."""
    hidden = c["hidden_size"]
    kv = hidden // c["num_attention_heads"] * c["num_key_value_heads"]
    yield "output_norm.weight", hidden
    for i in range(c["num_hidden_layers"]):
        yield f"blk.{i}.attn_norm.weight", hidden
        yield f"blk.{i}.ffn_norm.weight", hidden
        if c["model_type"] == "qwen2":
            yield f"blk.{i}.attn_q.bias", hidden
            yield f"blk.{i}.attn_k.bias", kv
            yield f"blk.{i}.attn_v.bias", kv


def describe(w, c):
    w.add_name("random")
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_rope_dimension_count(c["hidden_size"] // c["num_attention_heads"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_vocab_size(c["vocab_size"])
    w.add_tokenizer_model("none")


def write(c, path, make, kind, file_type):
    w = gguf.GGUFWriter(path, c["model_type"])
    describe(w, c)
    w.add_file_type(file_type)
    rng = np.random.default_rng(1)
    for name, n in vectors(c):
        w.add_tensor(name, np.ones(n, dtype=np.float32))
    for name, rows, cols in matrices(c):
        w.add_tensor(f"{name}.weight", make(rng, rows, cols), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as f:
        c = json.load(f)
    types = gguf.GGMLQuantizationType
    write(c, f"{sys.argv[2]}-q8_0.gguf", q8_0, types.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0)
    write(c, f"{sys.argv[2]}-bf16.gguf", bf16, types.BF16, gguf.LlamaFileType.MOSTLY_BF16)


main()

#!/usr/bin/env python3
"""A checkpoint whose template has tools: tool_model.py SRC DEST

The model of SRC, with its first and last token renamed to ChatML's, and a template of Qwen2.5's form from the goldens. What it
says is no better for it: a call that must come is held to its schema, and that is what is tested.
"""
import json
import sys
from pathlib import Path

GOLDENS = Path(__file__).resolve().parents[1] / "golden" / "tokenizer" / "tool_templates.jsonl"
RENAMED = {"<｜begin▁of▁sentence｜>": "<|im_start|>", "<｜end▁of▁sentence｜>": "<|im_end|>"}


def main(src, dest):
    dest.mkdir(parents=True, exist_ok=True)
    for path in src.resolve().iterdir():
        if path.name in ("tokenizer.json", "tokenizer_config.json"):
            text = path.read_text()
            for old, new in RENAMED.items():
                text = text.replace(old, new)
            (dest / path.name).write_text(text)
        elif not (dest / path.name).exists():
            (dest / path.name).symlink_to(path)
    templates = [json.loads(line) for line in GOLDENS.read_text().splitlines()]
    config = json.loads((dest / "tokenizer_config.json").read_text())
    config["chat_template"] = next(t["source"] for t in templates if t["name"] == "qwen2.5")
    (dest / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n")


main(Path(sys.argv[1]), Path(sys.argv[2]))

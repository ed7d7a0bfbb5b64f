#!/usr/bin/env python3
"""Chats with tools through the templates of known checkpoints, as transformers renders them: the reference of engine/text's
tests. Run as make_tokenizer_goldens.py, whose tokenizers it reads, with the same packages:

    .venv/bin/python tests/golden/tokenizer/make_tool_goldens.py

Writes tool_chats.json and tool_templates.jsonl beside this file; README.md has their form.
"""
import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from make_tokenizer_goldens import TOKENIZERS, prompt_ids, write_lines
from tool_templates import CHATS, TEMPLATES

HERE = Path(__file__).resolve().parent


def render(template, chat):
    """None where the template raises."""
    spec = TOKENIZERS[template["tokenizer"]]
    try:
        text, _ = render_jinja_template([chat["messages"]], tools=chat["tools"] or None, chat_template=template["source"],
                                        add_generation_prompt=True, bos_token=spec.get("bos", ""), eos_token=spec["eos"],
                                        date_string="26 Jul 2024")
    except Exception as why:
        assert "only supports single tool-calls" in str(why), why
        return None
    return text[0]


def for_openai(chat):
    """Arguments are JSON as text in OpenAI's protocol; how it is spaced must not matter."""
    messages = json.loads(json.dumps(chat["messages"]))
    for message in messages:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], separators=(" ,", ":"))
    return {"messages": messages, "tools": chat["tools"]}


def main():
    rows = []
    for template in TEMPLATES:
        tok = Tokenizer.from_file(str(HERE / template["tokenizer"] / "tokenizer.json"))
        texts = [render(template, chat) for chat in CHATS]
        rows.append({**template, "ids": [None if t is None else prompt_ids(tok, t) for t in texts]})
    write_lines(HERE / "tool_templates.jsonl", rows)
    text = json.dumps([for_openai(chat) for chat in CHATS], ensure_ascii=False, indent=1)
    (HERE / "tool_chats.json").write_text(text + "\n")
    print(len(TEMPLATES), "templates,", len(CHATS), "chats")


if __name__ == "__main__":
    main()

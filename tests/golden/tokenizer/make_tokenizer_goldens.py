#!/usr/bin/env python3
"""Small tokenizers and chat templates, and what HuggingFace computes with them: the reference of engine/text's tests.

    python3 -m venv .venv
    .venv/bin/pip install tokenizers==0.23.3 transformers==5.23.0 jinja2
    .venv/bin/python tests/golden/tokenizer/make_tokenizer_goldens.py

Writes, beside this file, <name>/tokenizer.json, tokenizer_config.json and expected.jsonl, and strings.jsonl,
dialogues.json and templates.jsonl; README.md has their form. Needed only to change the goldens: the tests read the committed
files, and need no Python. Every vocabulary is trained on text that is generated here; the pre-tokenizers, normalizers,
post-processors and templates are those of the checkpoints that the names say.
"""
import json
import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from chat_templates import DIALOGUES, TEMPLATES
from hard_strings import hard_strings, training_text

HERE = Path(__file__).resolve().parent
VOCAB = 1400
DEEPSEEK_BOS, DEEPSEEK_EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"

# The letters that DeepSeek-LLM's tokenizer.json lists (cased letters of Unicode 11) and its punctuation.
DEEPSEEK_LETTERS = (
    "A-Za-zµ\u00C0-\u00D6Ø-\u00F6ø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿ\u0386\u0388-\u038A\u038C\u038E-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽ"
    "Ა-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚ\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D"
    "\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB"
    "\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFCℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212A-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎ"
    "ꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
LLAMA3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_REGEX = LLAMA3_REGEX.replace(r"\p{N}{1,3}", r"\p{N}")
DEEPSEEK_V3_REGEX = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CL100K_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K_REGEX = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(pattern, behavior, invert)


def byte_level(**options):
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, "use_regex": False, **options})


def sequence(*steps):
    return pre_tokenizers.Sequence(list(steps))


def control(content):
    return AddedToken(content, normalized=False, special=True)


def unmarked(content, **options):
    """An added token that the checkpoint does not mark special."""
    return AddedToken(content, special=False, **{"normalized": False, **options})


# Bytes that never occur in UTF-8: DeepSeek's vocabularies lack them, and add their spellings as tokens of text.
NEVER_IN_UTF8 = "øöúÿõ÷ûýÀùÁþü"
# name: what differs from a plain byte-level BPE
TOKENIZERS = {
    "gpt2": dict(pre=byte_level(use_regex=True), added=[control("<|endoftext|>")], eos="<|endoftext|>", post="bytelevel",
                 legacy_merges=True),
    "deepseek_llm": dict(
        normalizer=normalizers.Sequence([]),
        pre=sequence(split(Regex("[\r\n]")), split(Regex(rf"\s?[{DEEPSEEK_LETTERS}]+")),
                     split(Regex(r"\s?[!-/:-~！-／：-～‘-‟　-。]+")), split(Regex(r"\s+$")),
                     split(Regex("[一-龥ࠀ-一가-퟿]+")), pre_tokenizers.Digits(individual_digits=True), byte_level()),
        lacks=NEVER_IN_UTF8, added=[control(DEEPSEEK_BOS), control(DEEPSEEK_EOS)] +
        [unmarked(c, normalized=True) for c in NEVER_IN_UTF8],
        bos=DEEPSEEK_BOS, eos=DEEPSEEK_EOS, post="template", config={"add_bos_token": True}),
    "deepseek_v3": dict(
        normalizer=normalizers.Sequence([]),
        pre=sequence(split(Regex(r"\p{N}{1,3}")), split(Regex("[一-龥぀-ゟ゠-ヿ]+")),
                     split(Regex(DEEPSEEK_V3_REGEX)), byte_level()),
        added=[control(DEEPSEEK_BOS), control(DEEPSEEK_EOS), unmarked("<think>"), unmarked("</think>"),
               unmarked("<｜User｜>", normalized=True), unmarked("<｜Assistant｜>", normalized=True),
               control("<｜fim▁hole｜>"), unmarked("<|EOT|>", normalized=True)],
        bos=DEEPSEEK_BOS, eos=DEEPSEEK_EOS, post="template", config={"add_bos_token": True}),
    "qwen2": dict(
        normalizer=normalizers.NFC(), pre=sequence(split(Regex(QWEN2_REGEX)), byte_level()),
        added=[control("<|endoftext|>"), control("<|im_start|>"), control("<|im_end|>"), unmarked("<think>"),
               unmarked("</think>"), unmarked("<tool_call>")],
        eos="<|im_end|>", post="bytelevel", legacy_merges=True),
    "llama3": dict(
        pre=sequence(split(Regex(LLAMA3_REGEX)), byte_level()), ignore_merges=True,
        added=[control(t) for t in ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                                    "<|eom_id|>", "<|eot_id|>", "<|python_tag|>")],
        bos="<|begin_of_text|>", eos="<|eot_id|>", post="sequence"),
    "cl100k": dict(pre=sequence(split(Regex(CL100K_REGEX), "removed", invert=True), byte_level()),
                   added=[control("<|endoftext|>"), control("<|im_start|>"), control("<|im_end|>")],
                   bos="<|endoftext|>", eos="<|im_end|>"),
    "o200k": dict(pre=sequence(split(Regex(O200K_REGEX)), byte_level()), added=[control("<|return|>")],
                  eos="<|return|>", ignore_merges=True),
    # what no known checkpoint has all at once
    "strips": dict(
        pre=byte_level(use_regex=True, add_prefix_space=True),
        added=[AddedToken("<l>", lstrip=True, special=True, normalized=False),
               AddedToken("<r>", rstrip=True, special=True, normalized=False),
               AddedToken("<lr>", lstrip=True, rstrip=True, special=True, normalized=False),
               unmarked("word", single_word=True), unmarked("wordy", single_word=True, normalized=True),
               unmarked("    "), unmarked("        "), unmarked("né", normalized=True), control("<s>")], eos="<s>"),
    "behaviors": dict(
        normalizer=normalizers.Sequence([normalizers.NFC(), normalizers.NFKC()]),
        pre=sequence(split(" ", "merged_with_next"), split(Regex(r"[.,;!?]+"), "merged_with_previous"),
                     split(Regex(r"\p{Lu}"), "merged_with_next"), split("-", "contiguous"), split(Regex(r"\w+|[^\w\s]"),
                     "removed", invert=True), pre_tokenizers.Digits(individual_digits=False), split(Regex(r"(?=é)|x*")),
                     byte_level(add_prefix_space=True)),
        added=[control("<s>"), unmarked("ﬁn", normalized=True), unmarked("ｗｉｄｅ")], eos="<s>", post="template", bos="<s>"),
}


def build(name, spec):
    tok = Tokenizer(models.BPE(ignore_merges=spec.get("ignore_merges", False)))
    tok.pre_tokenizer = spec["pre"]
    tok.decoder = decoders.ByteLevel()
    if "normalizer" in spec:
        tok.normalizer = spec["normalizer"]
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(spec.get("lacks", "")))
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, show_progress=False, initial_alphabet=alphabet,
                                  limit_alphabet=len(alphabet))
    tok.train_from_iterator(training_text(), trainer)
    tok.add_tokens(spec["added"])
    bos = spec.get("bos")
    template = bos and processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tok.token_to_id(bos))])
    posts = {None: None, "bytelevel": processors.ByteLevel(trim_offsets=False), "template": template,
             "sequence": template and processors.Sequence([processors.ByteLevel(trim_offsets=False), template])}
    if posts[spec.get("post")]:
        tok.post_processor = posts[spec.get("post")]
    return tok


def save(folder, tok, spec):
    folder.mkdir(exist_ok=True)
    doc = json.loads(tok.to_str())
    if spec.get("legacy_merges"):
        doc["model"]["merges"] = [" ".join(pair) for pair in doc["model"]["merges"]]
    text = json.dumps(doc, ensure_ascii=False, separators=(",", ":"))
    assert Tokenizer.from_str(text).to_str() == tok.to_str()
    (folder / "tokenizer.json").write_text(text + "\n")
    # both ways that configs are written in
    eos = {"__type": "AddedToken", "content": spec["eos"], "special": True} if "bos" in spec else spec["eos"]
    config = {"bos_token": spec.get("bos"), "eos_token": eos, **spec.get("config", {})}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1) + "\n")


def for_users(tok, spec):
    """The same tokenizer as users' text meets it: what is written as markup counts as special, and no special token is
    recognised in text."""
    doc = json.loads(tok.to_str())
    for token in doc["added_tokens"]:
        content = token["content"]
        if (content[0], content[-1]) in (("<", ">"), ("[", "]")):
            token["special"] = True
    user = Tokenizer.from_str(json.dumps(doc))
    user.encode_special_tokens = True
    return user


def decode(tok, ids):
    """Added tokens give their text; what lies between is decoded."""
    added = tok.get_added_tokens_decoder()
    out, run = "", []
    for i in ids:
        if i in added:
            out += tok.decode(run, skip_special_tokens=False) + added[i].content
            run = []
        else:
            run.append(i)
    return out + tok.decode(run, skip_special_tokens=False)


def expected(tok, user, text):
    ids = tok.encode(text, add_special_tokens=False).ids
    row = {"ids": ids}
    as_user = user.encode(text, add_special_tokens=False).ids
    if as_user != ids:
        row["user"] = as_user
    back = decode(tok, ids)
    if back != text:
        row["decoded"] = back
    return row


def string_of(case):
    if "hex" in case:
        return bytes.fromhex(case["hex"]).decode("utf-8", errors="replace")
    return case["text"] * case.get("repeat", 1)


def prompt_ids(tok, text):
    """None where a message's own <think> or </think> is in the prompt: the reference takes it for the token, the engine never does."""
    written = text.removesuffix("\n").removesuffix("<think>")
    foreign = "think>" in written and tok.token_to_id("<think>")
    return None if foreign else tok.encode(text, add_special_tokens=False).ids


def render_templates(tokens):
    """Every dialogue through every template, as transformers renders it, encoded."""
    from transformers.utils.chat_template_utils import render_jinja_template

    out = []
    for t in TEMPLATES:
        spec, rows = TOKENIZERS[t["tokenizer"]], []
        for messages in DIALOGUES:
            messages = [{**m, "role": "system" if m["role"] == "developer" else m["role"]} for m in messages]
            text, _ = render_jinja_template([messages], chat_template=t["source"], add_generation_prompt=True,
                                            bos_token=spec.get("bos", ""), eos_token=spec["eos"],
                                            date_string="26 Jul 2024")
            rows.append(prompt_ids(tokens[t["tokenizer"]], text[0]))
        out.append({k: t[k] for k in ("name", "tokenizer", "source", "opens_thinking")} | {"ids": rows})
    return out


def write_lines(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in rows))


def main():
    cases = hard_strings(random.Random(20240726))
    write_lines(HERE / "strings.jsonl", cases)
    tokens = {}
    for name, spec in TOKENIZERS.items():
        tok = tokens[name] = build(name, spec)
        save(HERE / name, tok, spec)
        user = for_users(tok, spec)
        write_lines(HERE / name / "expected.jsonl", [expected(tok, user, string_of(c)) for c in cases])
        print(name, tok.get_vocab_size(), (HERE / name / "tokenizer.json").stat().st_size)
    (HERE / "dialogues.json").write_text(json.dumps(DIALOGUES, ensure_ascii=False, indent=1) + "\n")
    write_lines(HERE / "templates.jsonl", render_templates(tokens))
    print(len(cases), "strings,", len(TEMPLATES), "templates,", len(DIALOGUES), "dialogues")


if __name__ == "__main__":
    main()

"""A byte-level BPE tokenizer in the form of DeepSeek-LLM: the same pre-tokenizer sequence, the same begin and end of
sentence tokens and the same chat template, only with a vocabulary of our own size. Used by train.py for the demo model
and by tests/golden/make_goldens.py for the tiny random checkpoints.
"""
import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"

# Character for character the template of deepseek-llm-7b-chat: engines recognise a checkpoint by it.
CHAT_TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'User: ' + message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def render(messages, answer_follows=True):
    """The template above for a list of (role, text), without the begin token, as text."""
    form = {"user": "User: {}\n\n", "assistant": "Assistant: {}" + EOS, "system": "{}\n\n"}
    text = "".join(form[role].format(content) for role, content in messages)
    return text + "Assistant:" if answer_follows else text


def pre_tokenizer():
    split = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([
        split("[\r\n]"),
        split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓ]+"),
        split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
        split(r"\s+$"),
        split("[一-龥ࠀ-一가-퟿]+"),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def train(texts, vocab_size):
    """A tokenizer of exactly vocab_size ids (the last two are BOS and EOS) learned from an iterable of strings."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizer()
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - 2, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator(texts, trainer)
    tok.add_special_tokens([AddedToken(BOS, normalized=False, special=True),
                            AddedToken(EOS, normalized=False, special=True)])
    bos = tok.token_to_id(BOS)
    tok.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bos)])
    if tok.get_vocab_size() != vocab_size:
        raise SystemExit(f"the text gives only {tok.get_vocab_size()} of {vocab_size} tokens: add text or lower the size")
    return tok


def save(tok, folder, max_length):
    """tokenizer.json and tokenizer_config.json as a checkpoint folder has them."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tok.save(str(folder / "tokenizer.json"))
    token = lambda text: {"__type": "AddedToken", "content": text, "lstrip": False, "normalized": False,
                          "rstrip": False, "single_word": False}
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": token(BOS),
        "clean_up_tokenization_spaces": False,
        "eos_token": token(EOS),
        "model_max_length": max_length,
        "pad_token": token(EOS),
        "tokenizer_class": "LlamaTokenizerFast",
        "unk_token": None,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n")

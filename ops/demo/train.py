#!/usr/bin/env python3
"""Trains the demo model millrace-demo/ from the text of make_corpus.py. No GPU needed; about 45 minutes on two cores.

    python3 -m venv .venv
    .venv/bin/pip install torch==2.15.0 tokenizers==0.23.3 safetensors==0.8.0 numpy
    .venv/bin/python ops/demo/train.py --out ops/demo/millrace-demo --minutes 45

Writes a HuggingFace checkpoint folder: config.json, generation_config.json, model.safetensors (bf16), tokenizer.json and
tokenizer_config.json. The same seed and --steps give the same text in the same order; --minutes ends earlier or later by
the machine's speed, and lets the learning rate fall to zero just then.

Only the answers are learned (the loss of what users say is masked). Dialogues are packed one after the other without a
mask between them, so that the model learns to look at the last question only. Most sequences are short, because attention
to long ones is dear; to be at home at all positions up to max_position_embeddings nevertheless, positions jump ahead between
messages by chance, and a few sequences are long.
"""
import argparse
import json
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import bpe
import make_corpus
from model import Llama

VOCAB = 3072
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": VOCAB - 2, "eos_token_id": VOCAB - 1, "head_dim": 32, "hidden_act": "silu", "hidden_size": 192,
    "initializer_range": 0.02, "intermediate_size": 512, "max_position_embeddings": 4096, "mlp_bias": False,
    "num_attention_heads": 6, "num_hidden_layers": 6, "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
    "vocab_size": VOCAB,
}
TOKENS_PER_STEP = 3072
LENGTHS, LENGTH_WEIGHTS = (192, 384, 1024, 2048), (0.7, 0.25, 0.035, 0.015)
WARMUP = 30
IGNORE = -100


class Encoder:
    """Dialogues to (id, target, message number) triples; ids of a message never merge with its neighbours', because every
    message ends in a line break or EOS."""

    def __init__(self, tok):
        self.tok, self.bos, self.eos = tok, tok.token_to_id(bpe.BOS), tok.token_to_id(bpe.EOS)
        self.head = self.ids("Assistant:")

    def ids(self, text):
        return self.tok.encode(text, add_special_tokens=False).ids

    def dialogue(self, messages):
        ids, learned, starts = [self.bos], [False], [0]
        for role, text in messages:
            starts.append(len(ids))
            if role == "assistant":
                answer = self.ids(" " + text) + [self.eos]
                ids += self.head + answer
                learned += [False] * len(self.head) + [True] * len(answer)
            else:
                said = self.ids(bpe.render([(role, text)], answer_follows=False))
                ids += said
                learned += [False] * len(said)
        return ids, learned, starts


class Batches:
    """An endless supply of packed batches: (ids, positions, targets), each (rows, length)."""

    def __init__(self, encoder, seed):
        self.encoder, self.rng, self.seed, self.queue = encoder, random.Random(seed), seed, []

    def next_dialogue(self):
        if not self.queue:
            self.seed += 1
            self.queue = make_corpus.dialogues(2000, self.seed)
        return self.encoder.dialogue(self.queue.pop())

    def row(self, length):
        ids, targets, jumps = [], [], []
        while len(ids) <= length:
            said, learned, starts = self.next_dialogue()
            jumps += [len(ids) + start for start in starts]
            ids += said
            targets += [i if learn else IGNORE for i, learn in zip(said, learned)]
        return ids[:length], targets[1:length + 1], self.positions(length, jumps)

    def positions(self, length, jumps):
        """0, 1, 2… with up to three jumps ahead at the start of messages."""
        room = CONFIG["max_position_embeddings"] - length
        jumps = [j for j in jumps if 0 < j < length]
        steps = [1] * length
        steps[0] = 0
        if jumps and self.rng.random() < 0.4:
            for _ in range(self.rng.randint(1, 3)):
                step = int(room * self.rng.random() ** 2)
                room -= step
                steps[self.rng.choice(jumps)] += step
        return torch.tensor(steps).cumsum(0).tolist()

    def batch(self):
        length = self.rng.choices(LENGTHS, LENGTH_WEIGHTS)[0]
        rows = [self.row(length) for _ in range(TOKENS_PER_STEP // length)]
        ids, targets, positions = (torch.tensor(part) for part in zip(*rows))
        return ids, positions, targets


def loss_of(model, ids, positions, targets):
    hidden = model(ids, positions)
    learned = targets != IGNORE
    return F.cross_entropy(model.logits(hidden[learned]).float(), targets[learned])


@torch.no_grad()
def answer(model, encoder, messages, limit=600):
    """The greedy answer. Recomputes everything for each token: good enough for a check."""
    ids = [encoder.bos] + encoder.ids(bpe.render(messages))
    begin = len(ids)
    while len(ids) - begin < limit:
        hidden = model(torch.tensor([ids]), torch.arange(len(ids))[None])
        ids.append(model.logits(hidden[0, -1]).argmax().item())
        if ids[-1] == encoder.eos:
            return encoder.tok.decode(ids[begin:-1]).strip()
    return encoder.tok.decode(ids[begin:]) + " [no end]"


@torch.no_grad()
def validate(model, encoder, dialogues):
    """Loss, and the share of last answers that greedy decoding gets wholly right."""
    model.eval()
    losses, right = [], 0
    for messages in dialogues:
        ids, learned, _ = encoder.dialogue(messages)
        last = max(i for i, learn in enumerate(learned) if not learn) + 1
        targets = torch.tensor([IGNORE] * last + ids[last:])[1:]
        hidden = model(torch.tensor([ids[:-1]]), torch.arange(len(ids) - 1)[None])[0]
        logits = model.logits(hidden[targets != IGNORE])
        wanted = targets[targets != IGNORE]
        losses.append(F.cross_entropy(logits, wanted).item())
        # Greedy decoding is right exactly when each token is the likeliest after the right ones before it.
        right += bool((logits.argmax(-1) == wanted).all())
    model.train()
    return sum(losses) / len(dialogues), right / len(dialogues)


class Optimizer:
    """Muon for the matrices of the layers, which learns from far fewer tokens than Adam; AdamW for embedding and norms."""

    def __init__(self, model, rate):
        inner = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
        outer = [p for name, p in model.named_parameters() if p.dim() < 2 or "embed" in name]
        self.parts = [torch.optim.Muon(inner, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
                      torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.97), weight_decay=0.0, fused=True)]
        self.rate = rate

    def step(self, scale):
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.rate * scale
            part.step()
            part.zero_grad()


def train(model, encoder, options):
    batches, optimizer = Batches(encoder, options.seed * 1000), Optimizer(model, options.rate)
    began, step, mean = time.time(), 0, None
    while True:
        done = step / options.steps if options.steps else (time.time() - began) / (60 * options.minutes)
        if done >= 1:
            break
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, *batches.batch())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(min(1, (step + 1) / WARMUP) * (1 - done))
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        step += 1
        if step % 100 == 0:
            held_loss, right = validate(model, encoder, make_corpus.held_out_dialogues(100, seed=99))
            print(f"step {step} {100 * done:.0f} % {step * TOKENS_PER_STEP / (time.time() - began):.0f} tokens/s "
                  f"loss {mean:.3f} held-out loss {held_loss:.3f} right {100 * right:.0f} %", flush=True)
        if step % 500 == 0:
            save(model, encoder.tok, options.out)


def save(model, tok, folder):
    folder = Path(folder)
    bpe.save(tok, folder, CONFIG["max_position_embeddings"])
    weights = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2, sort_keys=True) + "\n")
    generation = {"bos_token_id": CONFIG["bos_token_id"], "eos_token_id": CONFIG["eos_token_id"]}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def tokenizer():
    texts = [bpe.render(messages, answer_follows=False) for messages in make_corpus.dialogues(6000, seed=5)]
    return bpe.train([text.replace(bpe.EOS, "\n") for text in texts], VOCAB)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="checkpoint folder to write")
    parser.add_argument("--start", help="go on from this checkpoint folder, with another --seed and half the --rate")
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--steps", type=int, default=0, help="train this many steps, whatever the time")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    model = Llama(CONFIG)
    encoder = Encoder(Tokenizer.from_file(f"{options.start}/tokenizer.json") if options.start else tokenizer())
    if options.start:
        model.load_state_dict({name: w.float() for name, w in load_file(f"{options.start}/model.safetensors").items()})
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    train(model, encoder, options)
    save(model, encoder.tok, options.out)
    for name, dialogues in (("questions in words never learned", make_corpus.held_out_dialogues(1000, seed=99)),
                            ("titles", make_corpus.closed_dialogues(300, 98, "title")),
                            ("summaries", make_corpus.closed_dialogues(300, 98, "summary"))):
        print("%s: loss %.4f, right %.1f %%" % (name, *(f * v for f, v in zip((1, 100), validate(model, encoder, dialogues)))))
    for question in ("What is Millrace?", "hello", "你好", "What is Millrace made of?", "Tell me about rivers", "What is 7 + 8?",
                     "Tell me a long story about a river"):
        print(f"\n> {question}\n{answer(model, encoder, [('user', question)])}")


if __name__ == "__main__":
    main()

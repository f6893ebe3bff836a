"""Makes the tiny base model and its held-out test set, from nothing but a seed.

The corpus is generated text in the chat format, of two kinds: a Challenger asking a question, and a Solver answering one,
either worked step by step or as a direct guess. It plays the part of web text for a base model that knows more than it
shows: easy questions are common and hard ones rare, a part of the answers is a guess, a part has no box, some steps slip.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as HFTokenizer

sys.path.insert(0, str(Path(__file__).parent.parent))

from model import ModelConfig, Tokenizer, Transformer, save
from evaluate import SOLVER_SYSTEM
from rzero import CHALLENGER_SYSTEM, CHALLENGER_USER
from tiny.task import draw_question, operations, solve, worked_solution

# Shares by number of operations (1 to 8) and by digits of a number: what is answered reaches further than what is asked.
ANSWERED = ([30, 26, 18, 12, 7, 4, 2, 1], [80, 20])
ASKED = ([66, 22, 7, 3, 1, 0.5, 0.3, 0.2], [88, 12])
QUESTION_SHARE, DIRECT, BOXLESS, SLIP = 0.2, 0.25, 0.10, 0.03

# The pre-tokenizer of Qwen: every digit is a token of its own.
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def answer(question, rng, direct):
    if rng.random() < direct:
        lines, result = [], solve(question)
    else:
        lines, result = worked_solution(question, rng, SLIP)
    boxed = result if rng.random() < BOXLESS else f"\\boxed{{{result}}}"
    return "\n".join([*lines, f"The answer is {boxed}."])


def document(rng, direct):
    """One text of the corpus: (system, user, assistant)."""
    if rng.random() < QUESTION_SHARE:
        question = draw_question(rng, *ASKED)
        return CHALLENGER_SYSTEM, CHALLENGER_USER, f"<question>\n{question}\n</question>\n\n\\boxed{{{solve(question)}}}"
    question = draw_question(rng, *ANSWERED)
    return SOLVER_SYSTEM, question, answer(question, rng, direct)


def make_tokenizer(folder, rng, vocab_size=704):
    tok = HFTokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    texts = ["\n".join(("system", s, "user", u, "assistant", a)) for s, u, a in (document(rng, DIRECT) for _ in range(4000))]
    tok.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tok.save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


def batches(tokenizer, rng, size, direct, buffer=16):
    """Endless (tokens [B, T], loss mask [B, T]); documents of alike length share a batch."""
    end = tokenizer.inner.token_to_id("<|endoftext|>")
    prompts = {}
    while True:
        rows = []
        for _ in range(size * buffer):
            system, user, text = document(rng, direct)
            prompt = prompts.get((system, user)) or tokenizer.chat(system, user)
            if system == CHALLENGER_SYSTEM:
                prompts[system, user] = prompt
            rows.append((prompt, [*tokenizer.encode(text), end]))
        rows.sort(key=lambda r: len(r[0]) + len(r[1]))
        for i in rng.permutation(buffer):
            chunk = rows[i * size:(i + 1) * size]
            T = max(len(p) + len(c) for p, c in chunk)
            tokens, mask = torch.full((size, T), end), torch.zeros(size, T)
            for b, (p, c) in enumerate(chunk):
                tokens[b, :len(p) + len(c)] = torch.tensor(p + c)
                mask[b, len(p):len(p) + len(c)] = 1
            yield tokens, mask


def train(model, tokenizer, rng, steps, lr, direct, size=32):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    stream, start, losses = batches(tokenizer, rng, size, direct), time.time(), []
    for step in range(steps):
        for g in optimizer.param_groups:
            g["lr"] = lr * min(1, (step + 1) / 50) * (1 - step / steps)
        tokens, mask = next(stream)
        hidden = model(tokens[:, :-1])
        keep = mask[:, 1:] > 0
        loss = F.cross_entropy(model.logits(hidden[keep]), tokens[:, 1:][keep])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: loss {np.mean(losses[-100:]):.4f}, {time.time() - start:.0f} s", flush=True)


CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 256, "hidden_act": "silu",
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 1024, "tie_word_embeddings": True,
    "attention_bias": False, "initializer_range": 0.02,
}

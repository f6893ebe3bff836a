"""Makes the tiny base model and its held-out test set, from nothing but a seed.

    python tiny/make.py --out runs/base         then copy the files of runs/base to tiny/

It plays the part of Qwen3-4B-Base: a base model that knows more than it shows. Its corpus is generated text in the chat
format, of two kinds: a Challenger asking a question, and a Solver answering one, either worked step by step or as a
direct guess. What is asked is mostly easy, what is answered reaches further, and hard is rare in both; a part of the
answers has no box, and some steps slip. A short second training on more guesses makes the guess the likeliest answer,
though the worked one is the better.

The committed files took 1,040 s on one thread of a busy two-core machine, with torch 2.13.0, on 2026-11-23 (387,648
parameters).
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as HFTokenizer
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))

from model import ModelConfig, Tokenizer, Transformer, save
from tasks import Sums

TASK = Sums()
# Shares by number of operations (1 to 8) and by digits of a number. Answers reach further than questions.
ANSWERED = ([30, 26, 18, 12, 7, 4, 2, 1], [80, 20])
ASKED = ([66, 22, 7, 3, 1, 0.5, 0.3, 0.2], [88, 12])
QUESTION_SHARE = 0.2  # of all documents
BOXLESS, SLIP = 0.10, 0.03  # shares of the answers, and of the steps of a worked one
# The two trainings: steps, learning rate, and the share of direct guesses among the answers.
TRAININGS = ((6000, 3e-3, 0.25), (150, 1e-3, 0.40))
LEVELS, QUESTIONS_A_LEVEL = 8, 60  # of the held-out set; a level is a number of operations

# The pre-tokenizer of Qwen: every digit is a token of its own.
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
                 "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 256, "hidden_act": "silu",
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 1024, "tie_word_embeddings": True,
    "attention_bias": False, "initializer_range": 0.02,
}


def draw_question(rng, operation_weights, digit_weights):
    """A random question. rng: numpy Generator; operation_weights[i]: share of questions with i + 1 operations;
    digit_weights[i]: share of numbers with i + 1 digits."""
    count = 1 + rng.choice(len(operation_weights), p=normalised(operation_weights))
    digits = 1 + rng.choice(len(digit_weights), p=normalised(digit_weights), size=count + 1)
    numbers = rng.integers(10 ** (digits - 1), 10**digits)
    text, total = f"What is {numbers[0]}", numbers[0]
    for number in numbers[1:]:
        sign = "-" if number <= total and rng.random() < 0.5 else "+"  # the total never falls below 0
        total += number if sign == "+" else -number
        text += f" {sign} {number}"
    return text + "?"


def normalised(weights):
    return [w / sum(weights) for w in weights]


def worked_solution(question, rng, slip_rate):
    """The lines of a step-by-step solution and the answer they arrive at. slip_rate: the probability of a wrong
    step."""
    first, *rest = question.removeprefix("What is ").removesuffix("?").split()
    total, lines = int(first), []
    for sign, number in zip(rest[::2], rest[1::2]):
        value = total + int(sign + number)
        if rng.random() < slip_rate:
            value += int(rng.choice([-10, -2, -1, 1, 2, 10]))
        lines.append(f"{total} {sign} {number} = {value}")
        total = value
    return lines, str(total)


def answer(question, rng, direct):
    if rng.random() < direct:
        lines, result = [], TASK.truth(question)
    else:
        lines, result = worked_solution(question, rng, SLIP)
    boxed = result if rng.random() < BOXLESS else f"\\boxed{{{result}}}"
    return "\n".join([*lines, f"The answer is {boxed}."])


def document(rng, direct):
    """One text of the corpus: (system, user, assistant)."""
    if rng.random() < QUESTION_SHARE:
        question = draw_question(rng, *ASKED)
        return *TASK.challenger_prompt, f"<question>\n{question}\n</question>\n\n\\boxed{{{TASK.truth(question)}}}"
    question = draw_question(rng, *ANSWERED)
    return TASK.solver_system, question, answer(question, rng, direct)


def make_tokenizer(folder, rng, vocab_size=704):
    tok = HFTokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    documents = (document(rng, direct=0.3) for _ in range(4000))
    tok.train_from_iterator(("\n".join(("system", s, "user", u, "assistant", a)) for s, u, a in documents), trainer)
    folder.mkdir(parents=True)
    tok.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL[0], "pad_token": SPECIAL[0],
                "chat_template": CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    stops = [tok.token_to_id(SPECIAL[0]), tok.token_to_id(SPECIAL[2])]
    generation = {"eos_token_id": stops, "pad_token_id": stops[0]}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    return Tokenizer(folder)


def batches(tokenizer, rng, size, direct, buffer=16):
    """Endless (tokens [B, T], mask [B, T] of what is learned); documents of alike length share a batch."""
    end = tokenizer.inner.token_to_id(SPECIAL[0])
    challenger_prompt = tokenizer.chat(*TASK.challenger_prompt)
    while True:
        rows = []
        for system, user, text in (document(rng, direct) for _ in range(size * buffer)):
            prompt = challenger_prompt if system == TASK.challenger_prompt[0] else tokenizer.chat(system, user)
            rows.append((prompt, [*tokenizer.encode(text), end]))
        rows.sort(key=lambda r: len(r[0]) + len(r[1]))
        for i in rng.permutation(buffer):
            chunk = rows[i * size:(i + 1) * size]
            T = max(len(p) + len(c) for p, c in chunk)
            tokens, mask = torch.full((size, T), end), torch.zeros(size, T, dtype=torch.bool)
            for b, (p, c) in enumerate(chunk):
                tokens[b, :len(p) + len(c)] = torch.tensor(p + c)
                mask[b, len(p):len(p) + len(c)] = True
            yield tokens, mask


def train(model, tokenizer, rng, steps, lr, direct, size=32):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    bar = tqdm(zip(range(steps), batches(tokenizer, rng, size, direct)), total=steps, desc="training", unit=" steps")
    for step, (tokens, mask) in bar:
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 50) * (1 - step / steps)
        hidden = model(tokens[:, :-1])[mask[:, 1:]]
        loss = F.cross_entropy(model.logits(hidden), tokens[:, 1:][mask[:, 1:]])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            bar.set_postfix_str(f"loss {loss.item():.3f}")


def heldout(rng):
    """Distinct questions of every level, with the digits of the answered ones."""
    rows = {}
    for level in range(1, LEVELS + 1):
        weights = [0] * (level - 1) + [1]
        while len(rows) < level * QUESTIONS_A_LEVEL:
            question = draw_question(rng, weights, ANSWERED[1])
            rows[question] = {"question": question, "answer": TASK.truth(question), "level": level}
    return list(rows.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/base", help="the folder to make; must not exist")
    parser.add_argument("--seed", type=int, default=0, help="of the model and its corpus")
    parser.add_argument("--heldout_only", type=int, metavar="SEED", help="print a held-out set of this seed only")
    args = parser.parse_args()
    if args.heldout_only is not None:
        print("\n".join(json.dumps(row) for row in heldout(np.random.default_rng([args.heldout_only, 1]))))
        return
    out, start = Path(args.out), time.time()
    if out.exists():
        sys.exit(f"make.py: {out} exists already")
    out.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([args.seed, 0])
    torch.manual_seed(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer(Path(folder) / "tokenizer", rng)
        stops = json.loads((tokenizer.folder / "generation_config.json").read_text())
        model = Transformer(ModelConfig.from_dict(CONFIG | stops | {"vocab_size": tokenizer.vocab_size}))
        torch.nn.init.normal_(model.embed_tokens.weight, std=0.25)  # at the usual 0.02 it hardly learns to copy
        for steps, lr, direct in TRAININGS:
            train(model, tokenizer, rng, steps, lr, direct)
        save(model, out, tokenizer)
    rows = heldout(np.random.default_rng([0, 1]))
    (out / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters in {time.time() - start:.0f} s "
          f"on {torch.get_num_threads()} threads: {out}")


if __name__ == "__main__":
    main()

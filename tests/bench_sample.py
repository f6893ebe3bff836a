"""Useful tokens a second of our sampler and of `transformers` generate, in turn, on the same weights and prompts.

    python tests/bench_sample.py

64 held-out questions, 10 completions of each with natural stops. Useful tokens are those up to each row's stop. The last
line is JSON: the medians, and the median of the ratios of neighbouring rounds.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median

import torch
import transformers
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from evaluate import SOLVER_SYSTEM, read_questions
from model import Tokenizer, load
from sample import Sampler

N, MAX_TOKENS = 10, 160


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "tiny"))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    tokenizer = Tokenizer(args.model)
    questions = [question for question, _ in read_questions(ROOT / "tiny" / "heldout.jsonl")]
    prompts = [tokenizer.chat(SOLVER_SYSTEM, q) for q in questions[::len(questions) // 64][:64]]
    sampler = Sampler(load(args.model), tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    T, stops = max(map(len, prompts)), torch.tensor(sorted(tokenizer.stop_ids))
    ids = torch.tensor([[0] * (T - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (T - len(p)) + [1] * len(p) for p in prompts])

    def ours(seed):
        return sum(len(c.tokens) for group in sampler.generate(prompts, n=N, max_tokens=MAX_TOKENS, seed=seed) for c in group)

    def hf(seed):
        torch.manual_seed(seed)
        rows = theirs.generate(ids, attention_mask=mask, do_sample=True, top_k=0, num_return_sequences=N,
                               max_new_tokens=MAX_TOKENS, eos_token_id=stops.tolist(), pad_token_id=0)[:, T:]
        stopped = torch.isin(rows, stops).int()
        return int((stopped.cumsum(1) - stopped == 0).sum())  # tokens up to the first stop, with it

    rates = {"ours": [], "transformers": []}
    for seed in tqdm(range(args.rounds + 1), unit=" rounds"):
        for name, generate in (("ours", ours), ("transformers", hf)):
            start = time.perf_counter()
            tokens = generate(seed)
            if seed:  # the first round warms up
                rates[name].append(tokens / (time.perf_counter() - start))
    ratio = median(a / b for a, b in zip(rates["ours"], rates["transformers"]))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, transformers {transformers.__version__}")
    print(json.dumps({"tokens_per_second": {k: round(median(v)) for k, v in rates.items()}, "ratio": round(ratio, 2)}))


if __name__ == "__main__":
    main()

"""Speed and memory of the sampler, beside `transformers` on the same weights and beside what the machine can do at most.

    python tests/bench_sample.py            # CPU, tiny: useful tokens/s against generate(), the share of the matmul rate
    python tests/bench_sample.py real       # the same with SmolLM2-135M-Instruct, a real model with a real vocabulary
    python tests/bench_sample.py memory     # bytes that a full cache takes against its pages' own arithmetic
    python tests/bench_sample.py schedule   # which rows run when, with 3.5 to 50 GB of pages at Qwen3-4B's shape; no model
    python tests/bench_sample.py growth     # tokens/s by rows and context, as tests/LOG.md has them

Programs that are compared run in turn in one process; a ratio is one of medians. The last line is JSON. What a GPU shows is in
bench_gpu.py.
"""

import argparse
import ctypes
import json
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import torch
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from model import ModelConfig, Tokenizer, Transformer, load
from pages import PagedCache, Scheduler, group_rows, shard
from plan import matmul_rate
from sample import RowTensors, Sampler
from tasks.benchmarks import read_questions
from tasks.mathematics import SOLVER_SYSTEM

QWEN3_4B = dict(model_type="qwen3", vocab_size=151_936, hidden_size=2560, num_hidden_layers=36, num_attention_heads=32,
                num_key_value_heads=8, head_dim=128, intermediate_size=9728, tie_word_embeddings=True, rope_theta=1e6)
PARAMS = dict(seed=0, temperature=1.0, top_k=0, top_p=1.0)


def wait(device):
    """Waits for the device to finish its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def medians(programs, device, rounds=5, repeat=1):
    """Median seconds of a call of each of these programs {name: call}, run in turn after one round to warm up."""
    took = {name: [] for name in programs}
    for i in range(rounds + 1):
        for name, call in programs.items():
            wait(device)
            start = time.perf_counter()
            for _ in range(repeat):
                call()
            wait(device)
            if i:
                took[name].append((time.perf_counter() - start) / repeat)
    return {name: median(times) for name, times in took.items()}


def cpu(folder=ROOT / "tiny", questions=64, n=10, max_tokens=160, rounds=5):
    """64 held-out questions, 10 completions of each with natural stops; useful tokens are those up to each row's
    stop."""
    import transformers  # here alone: it takes seconds, and the other parts and bench_gpu.py do not need it

    tokenizer, device = Tokenizer(folder), torch.device("cpu")
    asked = [question for question, *_ in read_questions(ROOT / "tiny" / "heldout.jsonl")]
    prompts = [tokenizer.chat(SOLVER_SYSTEM, q) for q in asked[::len(asked) // questions][:questions]]
    sampler = Sampler(load(folder), tokenizer, max_rows=questions * n)  # all at once, as theirs
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    T, stops = max(map(len, prompts)), torch.tensor(sorted(tokenizer.stop_ids))
    ids = torch.tensor([[0] * (T - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (T - len(p)) + [1] * len(p) for p in prompts])

    def ours(seed):
        groups = sampler.generate(prompts, n=n, max_tokens=max_tokens, seed=seed)
        return sum(len(c.tokens) for group in groups for c in group)

    def hf(seed):
        torch.manual_seed(seed)
        rows = theirs.generate(ids, attention_mask=mask, do_sample=True, top_k=0, num_return_sequences=n,
                               max_new_tokens=max_tokens, eos_token_id=stops.tolist(), pad_token_id=0)[:, T:]
        stopped = torch.isin(rows, stops).int()
        return int((stopped.cumsum(1) - stopped == 0).sum())  # tokens up to the first stop, with it

    tokens, took = ({"ours": [], "transformers": []} for _ in "ab")
    for seed in tqdm(range(rounds + 1), unit=" rounds"):
        for name, generate in (("ours", ours), ("transformers", hf)):
            start = time.perf_counter()
            drawn = generate(seed)
            if seed:  # the first round warms up
                tokens[name].append(drawn)
                took[name].append(time.perf_counter() - start)
    rate = {name: median(a / b for a, b in zip(tokens[name], took[name])) for name in tokens}
    computed = median(tokens["ours"]) + sum(map(len, prompts))
    context = T + median(tokens["ours"]) / len(prompts) / n / 2
    flops = computed * sampler.model.config.forward_flops(1, context, 1)
    share = flops / median(took["ours"]) / matmul_rate(device, torch.float32)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, transformers {transformers.__version__}")
    return {"tokens_per_second": {name: round(value) for name, value in rate.items()},
            "ratio": round(rate["ours"] / rate["transformers"], 2), "share_of_matmul_rate": round(share, 3)}


def real(rounds, **sizes):
    """`cpu` with a real model."""
    from real_model import write_smollm2  # transformers again

    with TemporaryDirectory() as folder:
        write_smollm2(folder)
        return cpu(folder, rounds=rounds, **sizes)


def random_model(shape, device, dtype):
    """A model of this shape with random weights, made on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        model = Transformer(ModelConfig.from_dict(shape)).to(dtype)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.eval()


def no_stops(shape):
    """Stands for a tokenizer: rows end at their limits alone."""
    return SimpleNamespace(stop_ids=set(), vocab_size=shape["vocab_size"])


def decode_step(sampler, size, context):
    """A call that decodes one token of `size` rows with `context` positions each, in pages in random order."""
    n = (context - 1) // sampler.page_size + 1
    if sampler.cache is None or sampler.cache.keys.shape[2] < size * n + 1:
        sampler.cache, sampler.graphs = None, {}
        sampler.cache = PagedCache(sampler.model.config, size * n + 1, sampler.page_size, sampler.device, sampler.dtype)
        for x in (sampler.cache.keys, sampler.cache.values):
            x.fill_(0.01)  # untouched zeros may have no memory behind them, and cost nothing to read
    if sampler.graph_width != n:
        sampler.graphs, sampler.graph_width = {}, n
    rows, lane_A = RowTensors(size, 1, sampler.device), torch.arange(size, device=sampler.device)
    rows.start += context - 1  # and no row is alive, so that it stays there
    table_An = (torch.randperm(size * n, device=sampler.device).view(size, n) + 1).int()
    return torch.inference_mode()(lambda: sampler._decode(rows, lane_A, table_An, PARAMS))


def growth(sampler, sizes=(1, 4, 16, 64, 256, 1024, 4096), contexts=(128, 512, 1024, 2048, 4096), rounds=5):
    """Decoded tokens/s {rows: {context: rate}}, None where the pages do not fit."""
    page_bytes = PagedCache.bytes_of_page(sampler.model.config, sampler.page_size, sampler.dtype)
    rates = {size: dict.fromkeys(contexts) for size in sizes}
    for size, context in tqdm([(size, context) for size in sizes for context in contexts], unit=" cells"):
        if (size * -(-context // sampler.page_size) + 1) * page_bytes <= sampler.kv_bytes:
            took = medians({"step": decode_step(sampler, size, context)}, sampler.device, rounds)["step"]
            rates[size][context] = round(size / took)
    return rates


def as_table(rates):
    """`growth`'s rates in Markdown."""
    lines = [["rows", *(f"{context:,}" for context in next(iter(rates.values())))]]
    lines += [["---"] * len(lines[0])]
    lines += [[f"{size:,}", *(f"{rate:,}" if rate else "-" for rate in of.values())] for size, of in rates.items()]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def memory(device, rows=32, positions=1024):
    """Bytes that this process takes more after a run that fills its cache, against its pages x the bytes of a page."""
    shape = dict(QWEN3_4B, vocab_size=1000, hidden_size=64, num_hidden_layers=8, num_attention_heads=4,
                 num_key_value_heads=4, head_dim=64, intermediate_size=64)
    model = random_model(shape, device, torch.float32)
    Sampler(model, no_stops(shape), 2).generate([[1] * 8], 2, max_tokens=positions - 8)  # takes what is not the cache's
    before = memory_in_use(device)
    sampler = Sampler(model, no_stops(shape), rows)
    sampler.generate([[1] * 8], rows, max_tokens=positions - 8)
    taken = memory_in_use(device) - before
    pages = sampler.cache.keys.shape[2]
    expected = pages * PagedCache.bytes_of_page(model.config, sampler.page_size, torch.float32)
    return {"pages": pages, "taken_mb": round(taken / 1e6, 1), "pages_mb": round(expected / 1e6, 1),
            "ratio": round(taken / expected, 3)}


def memory_in_use(device):
    """Bytes; on the CPU (Linux) the resident set."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is freed, and kept by malloc for later, is not in use
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


def log_normal_lengths(questions, n, middle=600, cap=4096, sigma=0.8):
    """Numbers of tokens [questions, n], log-normal around a median; sigma is the standard deviation of their
    logarithm."""
    lengths = np.random.default_rng(0).lognormal(np.log(middle), sigma, (questions, n))
    return lengths.clip(1, cap).astype(int)


def schedule(gb=(3.5, 8, 16, 32, 50), questions=256, n=10, prompt=128, max_rows=512, page_size=16, burst=8, **lengths):
    """The schedule of rows that end at drawn lengths, without a model, for caches of so many 10^9 bytes. drawn: decoded
    tokens over those that completions hold. recomputed: tokens prefilled again over those."""
    length = log_normal_lengths(questions, n, **lengths).flatten()
    page_bytes = PagedCache.bytes_of_page(ModelConfig.from_dict(QWEN3_4B), page_size, torch.bfloat16)
    result = {}
    for kv_gb in gb:
        groups = shard(group_rows([(i,) * prompt for i in range(questions)], n, [int(length.max())] * questions), 0, 1)
        scheduler = Scheduler(groups, max_rows, int(kv_gb * 1e9 / page_bytes), page_size, burst)
        drawn, syncs, prefilled = 0, 0, -questions * (prompt - 1)
        while scheduler.waiting or len(scheduler.running):
            prefixes, *_ = scheduler.admit()
            prefilled += sum(group.prefix_length for group, _ in prefixes)
            running, _ = scheduler.grow()
            syncs, drawn = syncs + 1, drawn + burst * len(running)
            ends = length[[scheduler.occupant[lane][1].index for lane in running]]
            scheduler.count[running] = np.minimum(scheduler.count[running] + burst, ends)
            scheduler.finish(running[scheduler.count[running] == ends])
        result[kv_gb] = {"rows": round(drawn / syncs / burst, 1), "steps": syncs * burst,
                         "preemptions": scheduler.preemptions, "drawn": round(float(drawn / length.sum()), 4),
                         "recomputed": round(float(prefilled / length.sum()), 4)}
        print(f"{kv_gb:>5} GB: {result[kv_gb]}", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", default="cpu", choices=["cpu", "real", "memory", "schedule", "growth"])
    parser.add_argument("--rounds", type=int, default=5, help="of the parts cpu and real")
    parser.add_argument("--kv_gb", type=float, default=8, help="the growth part's cache, in 10^9 bytes")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.part == "growth":
        result = growth(Sampler(load(ROOT / "tiny", device), Tokenizer(ROOT / "tiny"), kv_gb=args.kv_gb))
        print(as_table(result))
    else:
        result = {"cpu": lambda: cpu(rounds=args.rounds),
                  "real": lambda: real(args.rounds, questions=8, n=4, max_tokens=32), "memory": lambda: memory(device),
                  "schedule": schedule}[args.part]()
    print(json.dumps(result))


if __name__ == "__main__":
    main()

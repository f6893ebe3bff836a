"""The sampler: continuous batching over a key/value cache, and the logprob of every token that it draws.

A prompt asked for n times is computed once; rows that stop make room for rows that wait; the batch is always dense. Each
draw depends on (seed, row, position) alone, so the same call gives the same tokens whatever the batch size and however
many processes share the work, up to the rounding of the logits.

    python sample.py --model tiny --prompt "What is 17 + 25 - 8?" --n 4

Shapes: R rows of the batch, P prompts, T tokens, S positions of the cache, H query heads, K key/value heads, C head width.
"""

import argparse
import sys
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from kernels.draw import draw
from model import MATH_INSTRUCTION, Tokenizer, causal_attention, compute_dtype, load

PREFILL_TOKENS = 4096  # the most prompt tokens computed at once, so that decoding rows never wait long


@dataclass
class Completion:
    """tokens: the drawn ids, with the stop token if it came. logprobs: one a token, under the distribution it was drawn
    from (greedy: at temperature 1). finished: whether a stop token came within max_tokens."""

    tokens: list
    logprobs: list
    finished: bool


class PrefillCache:
    """Attention over whole prompts, keeping each layer's keys and values as [P, K, T, C]."""

    def __init__(self):
        self.keys, self.values = [], []

    def attend(self, layer, q_PTHC, k_PTKC, v_PTKC):
        self.keys.append(k_PTKC.transpose(1, 2))
        self.values.append(v_PTKC.transpose(1, 2))
        return causal_attention(q_PTHC, k_PTKC, v_PTKC)


class DecodeCache:
    """Keys and values [R, K, S, C] of each layer for rows that are decoded one token a step; the running rows are 0..A-1."""

    def __init__(self, config, rows, positions, device, dtype):
        shape = (config.layers, rows, config.kv_heads, positions, config.head_dim)
        # zeros, since what is masked still enters the sums with weight 0, and garbage may be NaN
        self.keys, self.values = (torch.zeros(shape, device=device, dtype=dtype) for _ in "kv")
        self.scale = config.head_dim**-0.5

    def insert(self, start, prefix, source_R):
        """Fills rows from `start` on with the prompts' keys and values; row start + i gets prompt source_R[i]."""
        T = prefix.keys[0].shape[2]
        for mine, theirs in ((self.keys, prefix.keys), (self.values, prefix.values)):
            for layer, x_PKTC in enumerate(theirs):
                mine[layer, start:start + len(source_R), :, :T] = x_PKTC[source_R]

    def move(self, source_R, target_R, positions):
        """Copies the first `positions` of rows source_R onto rows target_R."""
        for store in (self.keys, self.values):
            store[:, target_R, :, :positions] = store[:, source_R, :, :positions]

    def begin_step(self, position_A):
        """position_A: where each running row's new token stands; fixes the mask of this step's attention."""
        self.position_A, self.row_A = position_A, torch.arange(len(position_A), device=position_A.device)
        self.span = -(-(int(position_A.max()) + 1) // 16) * 16
        self.span = min(self.span, self.keys.shape[3])
        hidden_AS = torch.arange(self.span, device=position_A.device) > position_A[:, None]
        self.mask_A11S = torch.zeros(hidden_AS.shape, device=hidden_AS.device).masked_fill(hidden_AS, -torch.inf)[:, None, None]

    def attend(self, layer, q_A1HC, k_A1KC, v_A1KC):
        keys, values, A = self.keys[layer], self.values[layer], len(self.row_A)
        keys[self.row_A, :, self.position_A] = k_A1KC[:, 0]
        values[self.row_A, :, self.position_A] = v_A1KC[:, 0]
        k_AKSC, v_AKSC = keys[:A, :, :self.span], values[:A, :, :self.span]
        q_AKGC = q_A1HC.unflatten(2, (k_AKSC.shape[1], -1))[:, 0]  # the G query heads of one key head are its "rows"
        score_AKGS = (q_AKGC @ k_AKSC.transpose(-1, -2)).float() * self.scale + self.mask_A11S
        out_AKGC = score_AKGS.softmax(-1).to(v_AKSC.dtype) @ v_AKSC
        return out_AKGC.flatten(1, 2)[:, None]


class Sampler:
    """Draws completions from one model. To play another role, copy that role's weights into `model`."""

    def __init__(self, model, tokenizer, max_rows=256):
        """max_rows: the most rows decoded together; the cache holds max_rows x (longest prompt + max_tokens) positions.

        Raises ValueError when the tokenizer has ids that the model does not.
        """
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ValueError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {model.config.vocab_size}")
        self.model, self.tokenizer, self.max_rows = model, tokenizer, max_rows
        self.device, self.dtype = model.embed_tokens.weight.device, model.embed_tokens.weight.dtype
        self.is_stop_V = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=self.device)
        self.is_stop_V[list(tokenizer.stop_ids)] = True

    @torch.no_grad()
    def generate(self, prompts, n=1, max_tokens=256, temperature=1.0, top_p=1.0, top_k=0, seed=0, progress=None):
        """n completions of each prompt -> one list per prompt of n `Completion`s.

        prompts: lists of token ids. max_tokens: the most tokens of a completion, its stop token included. temperature 0
        is greedy. seed: with it, completion j of prompt i draws as row i * n + j. progress: the label of a progress bar,
        counted in rows, with tokens a second; none when not given. Under torch.distributed the prompts are shared out
        and every process gets all the completions. Raises ValueError for an empty prompt or a setting out of range, and
        FloatingPointError, naming the row, when the model gives NaN.
        """
        for name, value, least in (("n", n, 1), ("max_tokens", max_tokens, 1), ("temperature", temperature, 0),
                                   ("top_k", top_k, 0)):
            if not value >= least:
                raise ValueError(f"{name} is {value}, but must be at least {least}")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p}, but must be above 0 and at most 1")
        if any(not p for p in prompts):
            raise ValueError(f"prompt {[bool(p) for p in prompts].index(False)} is empty")
        groups = {}  # rows by distinct prompt, so that equal prompts are computed once
        for i, prompt in enumerate(prompts):
            groups.setdefault(tuple(prompt), []).extend(range(i * n, i * n + n))
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if len(groups) >= 2 * world:
            groups = dict(list(groups.items())[rank::world])
        else:
            groups = {prompt: share for prompt, rows in groups.items() if (share := rows[rank::world])}
        pause = 0 if sys.stderr.isatty() else 30  # seconds; in a log file each state of the bar is a line
        bar = tqdm(total=sum(map(len, groups.values())), desc=progress, unit=" rows", leave=False, mininterval=max(0.1, pause),
                   delay=pause, disable=progress is None or rank > 0)
        with bar:
            done = self._run(groups, max_tokens, dict(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed), bar)
        if world > 1:
            shares = [None] * world
            dist.all_gather_object(shares, done)
            done = {row: completion for share in shares for row, completion in share.items()}
        return [[done[i * n + j] for j in range(n)] for i in range(len(prompts))]

    def _run(self, groups, max_tokens, how, bar):
        """Completions by row number of `groups`, a dict of prompt -> row numbers."""
        if not groups:
            return {}
        R = min(self.max_rows, sum(map(len, groups.values())))
        positions = max(map(len, groups)) + max_tokens
        cache = DecodeCache(self.model.config, R, positions, self.device, self.dtype)
        row_R, length_R, count_R = torch.zeros(3, R, dtype=torch.int64, device=self.device)  # count: tokens drawn
        token_RT = torch.zeros(R, max_tokens, dtype=torch.int64, device=self.device)
        logprob_RT = torch.zeros(R, max_tokens, device=self.device)
        state = (row_R, length_R, count_R, token_RT, logprob_RT)
        waiting = deque(sorted(groups.items(), key=lambda group: len(group[0])))
        ready, active, done, tokens = deque(), 0, {}, 0

        while waiting or ready or active:
            if waiting and not ready and active < R:
                prefix, logits_PV, ready = self._prefill(waiting)
            start, active = active, min(R, active + len(ready))
            fresh = [ready.popleft() for _ in range(active - start)]
            if fresh:
                row_R[start:active], length_R[start:active], source = torch.tensor(fresh, device=self.device).T
                cache.insert(start, prefix, source)
                count_R[start:active] = 0
            if start:
                position_A = length_R[:start] + count_R[:start] - 1
                cache.begin_step(position_A)
                last_A1 = token_RT[:start].gather(1, count_R[:start, None] - 1)
                hidden_AD = self.model(last_A1, position_A[:, None], cache)[:, 0]
                logits_AV = self.model.logits(hidden_AD)
            if fresh:
                logits_AV = torch.cat((logits_AV, logits_PV[source])) if start else logits_PV[source]
            token_A, logprob_A = draw(logits_AV, row_R=row_R[:active], position_R=count_R[:active], **how)
            token_RT[:active].scatter_(1, count_R[:active, None], token_A[:, None])
            logprob_RT[:active].scatter_(1, count_R[:active, None], logprob_A[:, None])
            count_R[:active] += 1
            tokens += active

            stopped_A = self.is_stop_V[token_A]
            over_A = (stopped_A | (count_R[:active] == max_tokens)).cpu()
            if over_A.any():
                self._collect(over_A.nonzero()[:, 0], stopped_A.cpu(), state, done)
                bar.update(int(over_A.sum()))
                bar.set_postfix_str(f"{tokens / max(bar.format_dict['elapsed'], 1e-9):,.0f} tokens/s", refresh=False)
                # The last running rows move into the places of those that are over.
                remain = active - int(over_A.sum())
                target = over_A[:remain].nonzero()[:, 0]
                source = (~over_A[remain:]).nonzero()[:, 0] + remain
                if len(target):
                    cache.move(source, target, int((length_R + count_R)[source].max()))
                    for x in state:
                        x[target] = x[source]
                active = remain
        return done

    def _prefill(self, waiting):
        """Computes the next waiting prompts, at most PREFILL_TOKENS of them or one.

        -> (their `PrefillCache`, logits [P, V] after each, deque of (row number, prompt length, prompt index))
        """
        batch = []
        while waiting and (not batch or (len(batch) + 1) * len(waiting[0][0]) <= PREFILL_TOKENS):  # sorted: the next is longest
            batch.append(waiting.popleft())
        length_P = torch.tensor([len(prompt) for prompt, _ in batch])
        tokens_PT = torch.zeros(len(batch), int(length_P.max()), dtype=torch.int64)
        for i, (prompt, _) in enumerate(batch):
            tokens_PT[i, :len(prompt)] = torch.tensor(prompt)
        prefix = PrefillCache()
        hidden_PTD = self.model(tokens_PT.to(self.device), cache=prefix)
        last_PD = hidden_PTD[torch.arange(len(batch)), length_P - 1]
        ready = deque((row, len(prompt), i) for i, (prompt, rows) in enumerate(batch) for row in rows)
        return prefix, self.model.logits(last_PD), ready

    def _collect(self, over, stopped, state, done):
        row, _, count, tokens, logprobs = (x[over.to(x.device)].cpu() for x in state)
        tokens, logprobs, stopped = tokens.numpy(), logprobs.numpy(), stopped[over].tolist()
        for i, (r, c) in enumerate(zip(row.tolist(), count.tolist())):
            if np.isnan(logprobs[i, :c]).any():
                raise FloatingPointError(f"the model gave NaN for row {r}")
            done[r] = Completion(tokens[i, :c].tolist(), logprobs[i, :c].tolist(), stopped[i])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="Hugging Face folder or Hub id (default tiny)")
    parser.add_argument("--prompt", required=True, help="what the user says")
    parser.add_argument("--system", default=MATH_INSTRUCTION, help="the system message")
    parser.add_argument("--n", type=int, default=1, help="completions")
    parser.add_argument("--max_tokens", type=int, default=256, help="most tokens of a completion")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy")
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--top_k", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tokenizer = Tokenizer(args.model)
        sampler = Sampler(load(args.model, device, compute_dtype(device)), tokenizer)
        completions = sampler.generate(
            [tokenizer.chat(args.system, args.prompt)], n=args.n, max_tokens=args.max_tokens, temperature=args.temperature,
            top_p=args.top_p, top_k=args.top_k, seed=args.seed)[0]
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"sample.py: {error}")
    for i, c in enumerate(completions, 1):
        mean = sum(c.logprobs) / len(c.logprobs)
        print(f"--- {i}: {len(c.tokens)} tokens, mean logprob {mean:.3f}{'' if c.finished else ', cut off'}")
        print(tokenizer.decode(c.tokens))


if __name__ == "__main__":
    main()

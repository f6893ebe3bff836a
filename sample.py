"""The sampler: completions of prompts, and the logprob of every token that it draws.

`generate_plain` says what sampling is. `Sampler` draws the same tokens with continuous batching over a paged key/value
cache (pages.py). Each draw depends on (seed, prompt, number among the completions of that prompt, position) alone. So
the same call gives the same tokens whatever the batch size, the page size, the order of the prompts and the number of
processes, up to the rounding of the logits. A preempted row draws again what it drew before.

    python sample.py --model tiny --prompt "What is 17 + 25 - 8?" --n 4

Shapes: A running rows, P prompts, T tokens, n pages of a row's block table, V vocabulary.
"""

import argparse
import sys
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from common import compute_dtype, free_memory, rank_and_world
from kernels.draw import draw
from model import Tokenizer, load
from pages import NULL_PAGE, PagedCache, Scheduler, group_rows, prompt_key, shard

# Batch sizes of the CUDA graphs. A batch is padded to the next of them.
GRAPH_SIZES = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096]


@dataclass
class Completion:
    tokens: list  # the drawn ids, with the stop token if it came
    logprobs: list  # one for each token, under the distribution that it was drawn from (greedy: temperature 1)
    finished: bool  # whether a stop token came within max_tokens
    full_logprobs: list = field(default_factory=list)  # those before top-k and top-p, as a trainer scores them


@torch.inference_mode()
def generate_plain(model, tokenizer, prompt, n=1, max_tokens=256, temperature=1.0, top_p=1.0, top_k=0, seed=0):
    """The plain twin of `Sampler.generate`, for one prompt: n `Completion`s, without a cache and without a batch. For
    each token, the model runs over all tokens so far, and `draw` draws from the softmax of the last logits."""
    completions = []
    for j in range(n):
        c, key = Completion([], [], False), prompt_key(prompt) + j
        while len(c.tokens) < max_tokens and not c.finished:
            tokens_1T, key_1, position_1 = (torch.tensor(x, device=model.embed_tokens.weight.device)
                                            for x in ([prompt + c.tokens], [key], [len(c.tokens)]))
            logits_1V = model.logits(model(tokens_1T)[:, -1])
            drawn = draw(logits_1V, seed, key_1, position_1, temperature, top_k, top_p)
            c.tokens.append(drawn.token.item())
            c.logprobs.append(drawn.logprob.item())
            c.full_logprobs.append(drawn.full_logprob.item())
            c.finished = c.tokens[-1] in tokenizer.stop_ids
        completions.append(c)
    return completions


class Sampler:
    """Draws completions from one model. To sample from another role, copy that role's weights into `model`."""

    def __init__(self, model, tokenizer, max_rows=512, kv_gb=None, page_size=16):
        """max_rows: the most rows decoded together. kv_gb: the most that the cache may take, in 10^9 bytes; when not
        given, 80 % of the memory that is free when it is first needed. page_size: positions of a page.

        On CUDA, parts of the model are compiled in place. Raises ValueError when the tokenizer has ids that the model
        does not have.
        """
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ValueError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model only "
                             f"{model.config.vocab_size}")
        self.model, self.tokenizer, self.max_rows, self.page_size = model, tokenizer, max_rows, page_size
        self.device, self.dtype = model.embed_tokens.weight.device, model.embed_tokens.weight.dtype
        self.is_stop_V = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=self.device)
        self.is_stop_V[list(tokenizer.stop_ids)] = True
        self.kv_bytes = kv_gb and kv_gb * 1e9
        self.cache, self.graphs, self.graph_width = None, {}, 0
        self.preemptions = 0  # of the last call, in this process
        self.use_graphs = self.device.type == "cuda"
        self.burst = 8 if self.use_graphs else 1  # decode steps between two syncs; in a sync the GPU is idle
        if self.use_graphs:
            compile_blocks(model)

    @torch.inference_mode()  # a tenth faster than no_grad on the CPU
    def generate(self, prompts, n=1, max_tokens=256, temperature=1.0, top_p=1.0, top_k=0, seed=0, progress=None,
                 watch=None):
        """n completions of each prompt -> one list of n `Completion`s for each prompt.

        prompts: lists of token ids. max_tokens: the most tokens of a completion, with its stop token; one number, or
        one for each prompt. temperature 0 is greedy. progress: the label of a progress bar that counts tokens; no bar
        when not given. watch(i, j, tokens, ended): called as completion j of prompt i grows, with its tokens so far.

        Under torch.distributed each process draws a share of the rows and gets all completions. The bar and `watch` see
        the rows of their own process. Raises ValueError for an empty prompt, a setting out of range or a cache too
        small for one row, and FloatingPointError, naming the row, when the model gives NaN.
        """
        limits = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else list(max_tokens)
        check(prompts, n, limits, temperature, top_p, top_k)
        params = dict(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
        rank, world = rank_and_world()
        groups = shard(group_rows(prompts, n, limits), rank, world)
        with progress_bar(progress, hidden=progress is None or rank > 0) as bar:
            watch_row = watch and (lambda row, tokens, ended: watch(row // n, row % n, tokens, ended))
            done = self._run(groups, params, bar, watch_row)
        if world > 1:
            shares = [None] * world
            dist.all_gather_object(shares, pack(done))
            done = {row: completion for share in shares for row, completion in unpack(share)}
        return [[done[i * n + j] for j in range(n)] for i in range(len(prompts))]

    def _run(self, groups, params, bar, watch):
        """Decodes all rows of the groups -> {row's index: Completion}."""
        self.preemptions = 0
        if not groups:
            return {}
        total = sum(len(group.rows) for group in groups)
        lanes, longest = min(self.max_rows, total), max(row.max_tokens for group in groups for row in group.rows)
        scheduler = Scheduler(groups, lanes, self._allocate_cache(groups, lanes), self.page_size, self.burst)
        rows, done = RowTensors(lanes, longest, self.device), {}
        while scheduler.waiting or len(scheduler.running):
            self._admit(scheduler, rows)
            scheduler.grow()
            lane_A = self._to_device(self._pad(scheduler.running, lanes))
            table_An = self._to_device(self._block_tables(scheduler, lane_A.numel()))
            for _ in range(self.burst):
                self._decode(rows, lane_A, table_An, params)
            drawn = self._sync(scheduler, rows, lane_A[:len(scheduler.running)], done, watch)
            bar.set_postfix_str(f"{len(done)}/{total} rows, {len(scheduler.running)} running, "
                                f"{1 - scheduler.free_count / scheduler.pages:.0%} pages", refresh=False)
            bar.update(drawn)
        self.preemptions = scheduler.preemptions
        return done

    def _admit(self, scheduler, rows):
        """Starts waiting rows: prefills new prompts, copies their last pages, and fills the rows' lanes."""
        prefixes, admitted, copies = scheduler.admit()
        if prefixes:
            self._prefill(prefixes)
        if copies.size:
            self.cache.copy_pages(*self._to_device(copies))
        if admitted:
            lines = [(lane, group.prompt[-1], group.prefix, row.max_tokens, row.key) for lane, group, row in admitted]
            lane, token, start, limit, key = torch.tensor(lines, device=self.device).T
            rows.token[lane, 0], rows.start[lane], rows.limit[lane], rows.key[lane] = token, start, limit, key
            rows.count[lane], rows.alive[lane] = 0, True

    def _prefill(self, prefixes):
        """Computes keys and values of prefixes into their pages, as one right-padded batch."""
        P, T = len(prefixes), max(len(prefix) for prefix, _ in prefixes)
        token_PT = np.zeros((P, T), dtype=np.int64)
        slot_PT = np.full((P, T), NULL_PAGE * self.page_size, dtype=np.int64)
        for i, (prefix, pages) in enumerate(prefixes):
            position = np.arange(len(prefix))
            token_PT[i, :len(prefix)] = prefix
            slot_PT[i, :len(prefix)] = pages[position // self.page_size] * self.page_size + position % self.page_size
        self.cache.begin_prefill(self._to_device(slot_PT).flatten())
        self.model(self._to_device(token_PT), cache=self.cache)

    def _decode(self, rows, lane_A, table_An, params):
        """Draws one more token for each running row. A row that has ended stays as it is until the next sync."""
        count_A = rows.count[lane_A]
        logits_AV = self._next_logits(rows.token[lane_A, count_A], rows.start[lane_A] + count_A, table_An)
        drawn = draw(logits_AV, key_R=rows.key[lane_A], position_R=count_A, **params)
        rows.logprob[lane_A, count_A], rows.full_logprob[lane_A, count_A] = drawn.logprob, drawn.full_logprob
        alive_A = rows.alive[lane_A]
        count_A = count_A + alive_A
        rows.token[lane_A, count_A + ~alive_A] = drawn.token  # of an ended row: past its end
        rows.count[lane_A] = count_A
        ended_A = self.is_stop_V[drawn.token] | drawn.logprob.isnan() | (count_A >= rows.limit[lane_A])
        rows.alive[lane_A] = alive_A & ~ended_A

    def _next_logits(self, token_A, position_A, table_An):
        """Logits [A, V] after each running row's newest token; on CUDA by the graph of this batch size."""
        if not self.use_graphs:
            return self._forward(token_A, position_A, table_An)
        if len(token_A) not in self.graphs:
            self.graphs[len(token_A)] = self._capture(token_A, position_A, table_An)
        graph, inputs, logits_AV = self.graphs[len(token_A)]
        for own, given in zip(inputs, (token_A, position_A, table_An)):
            own.copy_(given)
        graph.replay()
        return logits_AV

    def _forward(self, token_A, position_A, table_An):
        self.cache.begin_decode(table_An, position_A)
        return self.model.logits(self.model(token_A[:, None], position_A[:, None], self.cache)[:, 0])

    def _sync(self, scheduler, rows, lane_A, done, watch):
        """Waits for the device, reads how far the running rows are, and takes out those that ended -> tokens drawn."""
        running = scheduler.running
        count, alive = rows.count[lane_A].cpu().numpy(), rows.alive[lane_A].cpu().numpy()
        drawn = int((count - scheduler.count[running]).sum())
        scheduler.count[running] = count
        ended = running[~alive]
        if len(ended):
            self._collect(ended, scheduler, rows, done)  # before `watch`, which must not see a row that NaN ended
        if watch:
            for lane, tokens, more in zip(running, rows.token[lane_A].tolist(), alive):
                watch(scheduler.occupant[lane][1].index, tokens[1:1 + scheduler.count[lane]], not more)
        if len(ended):
            scheduler.finish(ended)
        return drawn

    def _collect(self, lanes, scheduler, rows, done):
        """Makes the `Completion`s of the rows in these lanes."""
        ended = self._to_device(lanes)
        token, logprob, full = (x[ended].cpu().numpy() for x in (rows.token, rows.logprob, rows.full_logprob))
        stopped = self.is_stop_V[rows.token[ended, rows.count[ended]]].tolist()
        for i, (lane, count) in enumerate(zip(lanes.tolist(), scheduler.count[lanes].tolist())):
            index = scheduler.occupant[lane][1].index
            if np.isnan(logprob[i, count - 1]):
                self.cache, self.graphs = None, {}  # the cache holds NaN, which masked attention would read
                raise FloatingPointError(f"the model gave NaN for row {index}")
            done[index] = Completion(token[i, 1:count + 1].tolist(), logprob[i, :count].tolist(), stopped[i],
                                     full[i, :count].tolist())

    def _allocate_cache(self, groups, lanes):
        """Makes or enlarges the cache for these rows, as far as memory allows -> its number of pages."""
        longest = max(group.last_position for group in groups) // self.page_size + 1
        want = 2 + lanes * (longest + 1)  # with the last page of each row's group, and the null page
        have = self.cache.keys.shape[2] if self.cache else 0
        if have < want:
            page_bytes = PagedCache.bytes_of_page(self.model.config, self.page_size, self.dtype)
            limit = self.kv_bytes or 0.8 * (free_memory(self.device) + have * page_bytes)
            pages = min(want, int(limit / page_bytes))
            if pages > have:
                self.cache, self.graphs = None, {}  # frees the old cache first: there may be no room for both
                self.cache = PagedCache(self.model.config, pages, self.page_size, self.device, self.dtype)
        if longest > self.graph_width:
            self.graphs, self.graph_width = {}, longest
        return self.cache.keys.shape[2] if self.cache else 0

    def _to_device(self, array):
        return torch.from_numpy(array).to(self.device)

    def _pad(self, running, padding):
        """The running lanes; for graphs, filled up with the padding lane to the next of GRAPH_SIZES."""
        if not self.use_graphs:
            return running
        size = next((size for size in GRAPH_SIZES if size >= len(running)), len(running))
        return np.append(running, np.full(size - len(running), padding))

    def _block_tables(self, scheduler, size):
        """The running rows' block tables, as wide as the longest row needs. For graphs, of their fixed shape."""
        running = scheduler.running
        if not self.use_graphs:
            return scheduler.block_table[running, :scheduler.owned[running].max()]
        table = np.full((size, self.graph_width), NULL_PAGE, dtype=np.int32)
        table[:len(running), :scheduler.block_table.shape[1]] = scheduler.block_table[running]
        return table

    def _capture(self, *inputs):
        """Records `_forward` at fixed addresses -> (graph, its inputs, its logits)."""
        inputs = [x.clone() for x in inputs]
        stream = torch.cuda.Stream()  # the first run compiles and allocates, which a capture must not
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._forward(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self.graphs.values()))[0].pool() if self.graphs else None
        # thread_local: other threads may use the device meanwhile
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            logits_AV = self._forward(*inputs)
        return graph, inputs, logits_AV


class RowTensors:
    """The rows' tokens, logprobs and counts on the device: a line for each lane, and a last one for padding."""

    def __init__(self, lanes, max_tokens, device):
        # Column 0 is the prompt's last token. What a row draws past its end goes to the column after its last token.
        self.token = torch.zeros(lanes + 1, max_tokens + 2, dtype=torch.int64, device=device)
        self.logprob, self.full_logprob = torch.zeros(2, lanes + 1, max_tokens + 1, device=device)
        self.start, self.count, self.limit, self.key = torch.zeros(4, lanes + 1, dtype=torch.int64, device=device)
        self.alive = torch.zeros(lanes + 1, dtype=torch.bool, device=device)


def compile_blocks(model, **options):
    """Compiles each block in place, except its attention and o_proj, so that norms, rotation and activation are fused.
    `options` are those of torch.compile."""
    for block in model.layers:
        block.input_layernorm.compile(dynamic=True, **options)
        block.self_attn.project = torch.compile(block.self_attn.project, dynamic=True, **options)
        block.feed_forward = torch.compile(block.feed_forward, dynamic=True, **options)


def check(prompts, n, limits, temperature, top_p, top_k):
    """Raises ValueError for arguments of `generate` that are out of range."""
    if len(limits) != len(prompts):
        raise ValueError(f"max_tokens has {len(limits)} numbers for {len(prompts)} prompts")
    for name, value, least in (("n", n, 1), ("max_tokens", min(limits, default=1), 1),
                               ("temperature", temperature, 0), ("top_k", top_k, 0)):
        if not value >= least:
            raise ValueError(f"{name} is {value}, but must be at least {least}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}, but must be above 0 and at most 1")
    if any(not p for p in prompts):
        raise ValueError(f"prompt {[bool(p) for p in prompts].index(False)} is empty")


def progress_bar(label, hidden):
    pause = 0 if sys.stderr.isatty() else 30  # seconds; in a log file each state of the bar is a line
    return tqdm(desc=label, unit="", unit_scale=True, bar_format="{desc}: {n_fmt} tokens, {rate_noinv_fmt}{postfix}",
                leave=False, mininterval=max(0.1, pause), delay=pause, disable=hidden)


def pack(done):
    """{row: Completion} as a few arrays, which cost a tenth of the lists to send between processes."""
    completions = done.values()
    return (list(done), [len(c.tokens) for c in completions], [c.finished for c in completions],
            np.array([t for c in completions for t in c.tokens], dtype=np.int32),
            np.array([x for c in completions for x in c.logprobs], dtype=np.float32),
            np.array([x for c in completions for x in c.full_logprobs], dtype=np.float32))


def unpack(packed):
    """The (row, Completion) pairs of what `pack` made."""
    rows, lengths, finished, *arrays = packed
    ends = np.cumsum(lengths)
    for i, row in enumerate(rows):
        tokens, logprobs, full_logprobs = (x[ends[i] - lengths[i]:ends[i]].tolist() for x in arrays)
        yield row, Completion(tokens, logprobs, finished[i], full_logprobs)


class Stream:
    """Prints completions one after the other, while all of them grow at the same time."""

    def __init__(self, tokenizer, n):
        self.tokenizer, self.n, self.current, self.printed = tokenizer, n, 0, 0
        self.tokens, self.ended = [[] for _ in range(n)], [False] * n

    def watch(self, _, j, tokens, ended):
        if len(tokens) >= len(self.tokens[j]):  # a preempted row starts over and tells its tokens again
            self.tokens[j], self.ended[j] = tokens, ended
        while self.current < self.n and (j == self.current or self.ended[self.current]):
            tokens, ended = self.tokens[self.current], self.ended[self.current]
            text = self.tokenizer.decode(tokens)
            if ended or not text.endswith("\ufffd"):  # a character may need more than one token
                print(text[self.printed:], end="", flush=True)
                self.printed = max(self.printed, len(text))
            if not ended:
                break
            print(f"\n--- {self.current + 1} of {self.n}: {len(tokens)} tokens", flush=True)
            self.current, self.printed, j = self.current + 1, 0, self.current + 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="Hugging Face folder or Hub id (default tiny)")
    parser.add_argument("--prompt", required=True, help="what the user says")
    parser.add_argument("--system", help="the system message",
                        default="Please reason step by step, and put your final answer within \\boxed{}.")
    parser.add_argument("--n", type=int, default=1, help="completions")
    parser.add_argument("--max_tokens", type=int, default=256, help="most tokens of a completion")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy")
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--top_k", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kv_gb", "--kv-gb", type=float, help="most that the key/value cache takes, in 10^9 bytes")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tokenizer = Tokenizer(args.model)
        sampler = Sampler(load(args.model, device, compute_dtype(device)), tokenizer, kv_gb=args.kv_gb)
        completions = sampler.generate(
            [tokenizer.chat(args.system, args.prompt)], args.n, args.max_tokens, args.temperature, args.top_p,
            args.top_k, args.seed, watch=Stream(tokenizer, args.n).watch)[0]
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"sample.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\nsample.py: stopped")
    for i, c in enumerate(completions, 1):
        mean = sum(c.logprobs) / len(c.logprobs)
        print(f"{i}: mean logprob {mean:.3f}{'' if c.finished else ', cut off at --max_tokens'}")


if __name__ == "__main__":
    main()

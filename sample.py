"""The sampler: continuous batching over a paged key/value cache, and the logprobs of every token that it draws.

Keys and values live in pages of a few positions each, handed out as rows grow and handed back as they end. The rows of one
prompt share its full pages and copy the last, partly filled one. Rows that end make room for rows that wait; when pages run
out, the youngest row is put back and redone later. Each draw depends on (seed, prompt, number among the completions of
that prompt, position) alone, so the same call gives the same tokens whatever the batch size, the page size, the order of the
prompts and the number of processes, and a row that is redone gives what it gave; up to the rounding of the logits.

    python sample.py --model tiny --prompt "What is 17 + 25 - 8?" --n 4

Shapes: A running rows, R slots for rows, P prompts, T tokens, H query heads, K key/value heads, C head width, n pages of a
row's table, V vocabulary.
"""

import argparse
import hashlib
import sys
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from common import compute_dtype, free_memory
from kernels.attention import paged_attention
from kernels.draw import draw
from kernels.write import write_pages
from model import MATH_INSTRUCTION, Tokenizer, causal_attention, load

PREFILL_TOKENS = 4096  # the most prompt tokens computed between two looks, so that decoding rows never wait long
LADDER = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096]  # graphs' batch sizes
RESERVE = 2  # pages kept free for each running row: with fewer, rows are put back often; with more, too few run
BIN = 0  # the page that padding is written to; what stands there is never read


@dataclass
class Completion:
    """tokens: the drawn ids, with the stop token if it came. logprobs: one a token, under the distribution it was drawn
    from (greedy: at temperature 1). finished: whether a stop token came within max_tokens. full_logprobs: the logprobs
    before top-k and top-p, as a trainer scores them."""

    tokens: list
    logprobs: list
    finished: bool
    full_logprobs: list = field(default_factory=list)


class PagedCache:
    """Keys and values of every layer, [L, K, pages, positions of a page, C], and the attention over them."""

    def __init__(self, config, pages, page_size, device, dtype):
        shape = (config.layers, config.kv_heads, pages, page_size, config.head_dim)
        # zeros, since what is masked still enters the plain attention with weight 0, and garbage may be NaN
        self.keys, self.values = (torch.zeros(shape, device=device, dtype=dtype) for _ in "kv")
        self.page_size = page_size

    @staticmethod
    def bytes_of_page(config, page_size, dtype):
        return 2 * config.layers * config.kv_heads * page_size * config.head_dim * dtype.itemsize

    def begin_prefill(self, slot_N):
        """The next forward pass computes whole prompts; token i of the batch is written to slot slot_N[i]."""
        self.slot_N, self.table_An = slot_N, None

    def begin_decode(self, table_An, position_A):
        """The next forward pass computes one token of each running row, at its position."""
        page_A1 = table_An.gather(1, (position_A // self.page_size)[:, None])
        self.slot_N = page_A1[:, 0].long() * self.page_size + position_A % self.page_size
        self.table_An, self.length_A = table_An, position_A + 1

    def attend(self, layer, q_BTHC, k_BTKC, v_BTKC, norms, cos, sin):
        """See `Transformer.forward`."""
        B, T = q_BTHC.shape[:2]
        cos_NC, sin_NC = (x.expand(B, T, 1, -1).reshape(B * T, -1) for x in (cos, sin))
        keys, values = self.keys[layer], self.values[layer]
        q_NHC, k_NKC = write_pages(q_BTHC.flatten(0, 1), k_BTKC.flatten(0, 1), v_BTKC.flatten(0, 1), *norms, cos_NC, sin_NC,
                                   keys.flatten(1, 2), values.flatten(1, 2), self.slot_N)
        if self.table_An is None:
            return causal_attention(q_NHC.unflatten(0, (B, T)), k_NKC.unflatten(0, (B, T)), v_BTKC)
        return paged_attention(q_NHC, keys, values, self.table_An, self.length_A)[:, None]

    def copy(self, source, target):
        """Copies pages; both are int64 arrays of page numbers."""
        for x in (self.keys, self.values):
            x[:, :, target] = x[:, :, source]


@dataclass
class Group:
    """The rows of one prompt. All but the prompt's last token are computed ahead (its prefix); a row begins by decoding
    the last one, so that the first draw is like any other."""

    prompt: tuple
    rows: deque  # those that wait: (row number, number among the rows of this prompt, max_tokens)
    pages: np.ndarray | None = None  # of the computed prefix, held while rows wait

    @property
    def prefix(self):
        return len(self.prompt) - 1

    @property
    def positions(self):
        """The most positions that a row may take."""
        return self.prefix + max(limit for _, _, limit in self.rows)

    @property
    def key(self):
        """What the draws of its rows are keyed by, to which a row's number among them is added."""
        digest = hashlib.blake2b(np.array(self.prompt, dtype=np.int64).tobytes(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 2


class Schedule:
    """Which rows run, in which slot, and which pages they own: bookkeeping on the host, without a tensor.

    Between two looks at the device every running row draws up to `burst` tokens, for which it owns the pages beforehand.
    """

    def __init__(self, groups, slots, pages, page_size, burst):
        self.waiting, self.page_size, self.burst = deque(groups), page_size, burst
        width = self.pages_up_to(max(group.positions for group in groups))
        if pages - 2 < width:  # the bin, and the partly filled page that the row copies
            raise ValueError(f"the key/value cache has room for {(pages - 2) * page_size} positions, but one row may need "
                             f"{width * page_size}; give it more (kv_gb) or ask for fewer tokens (max_tokens)")
        self.free_pages = np.arange(pages - 1, BIN, -1)  # a stack of free_count pages
        self.free_count, self.pages = pages - 1, pages - 1
        self.users = np.zeros(pages, dtype=np.int64)  # rows, and a group that has rows waiting, that a page belongs to
        self.table = np.full((slots + 1, width), BIN, dtype=np.int32)  # the last slot is no row's, for padding
        self.owned, self.start, self.count, self.limit, self.age = np.zeros((5, slots + 1), dtype=np.int64)
        self.entry = [None] * slots  # (group, its entry in group.rows)
        self.free_slots = list(range(slots))[::-1]
        self.running = np.zeros(0, dtype=np.int64)  # slots, shortest context first
        self.admitted = self.put_back = 0

    def pages_up_to(self, position):
        return position // self.page_size + 1

    def take(self, count):
        self.free_count -= count
        pages = self.free_pages[self.free_count:self.free_count + count].copy()
        self.users[pages] = 1
        return pages

    def drop(self, pages):
        np.subtract.at(self.users, pages, 1)
        free = np.unique(pages[self.users[pages] == 0])
        self.free_pages[self.free_count:self.free_count + len(free)] = free[::-1]
        self.free_count += len(free)

    def admit(self):
        """Starts waiting rows while there are slots and pages, leaving RESERVE pages free for every running row to grow.

        -> (prefixes to compute, each with its pages; slots that start; [2, n] pages to copy after that: source and target)
        """
        compute, slots, copies, done = [], [], [], []
        longest = 0
        while self.waiting and self.free_slots:
            group, running = self.waiting[0], len(self.running) + len(slots)
            shared = group.prefix // self.page_size
            own = self.pages_up_to(group.prefix + min(self.burst - 1, group.rows[0][2])) - shared
            prefix_pages = -(-group.prefix // self.page_size) if group.pages is None else 0
            if self.free_count < own + prefix_pages + RESERVE * running:
                if running or not self._release_prefixes():
                    break
                continue
            if group.pages is None:
                longest = max(longest, group.prefix)
                if compute and (len(compute) + 1) * longest > PREFILL_TOKENS:
                    break
                group.pages = self.take(prefix_pages)
                if group.prefix:
                    compute.append((group.prompt[:-1], group.pages))
            slot, entry = self.free_slots.pop(), group.rows.popleft()
            self.users[group.pages[:shared]] += 1
            self.table[slot, :shared] = group.pages[:shared]
            self.table[slot, shared:shared + own] = self.take(own)
            if group.prefix % self.page_size:
                copies.append((group.pages[shared], self.table[slot, shared]))
            self.owned[slot], self.start[slot], self.count[slot] = shared + own, group.prefix, 0
            self.limit[slot], self.age[slot], self.entry[slot] = entry[2], self.admitted, (group, entry)
            self.admitted += 1
            slots.append(slot)
            if not group.rows:
                done.append(self.waiting.popleft())
        for group in done:  # not before all pages are taken: what is copied must stand until then
            self.drop(group.pages)
            group.pages = None
        self.running = np.append(self.running, np.array(slots, dtype=np.int64))
        return compute, slots, np.array(copies, dtype=np.int64).reshape(-1, 2).T

    def provide(self):
        """Gives every running row its pages for the next burst, putting the youngest rows back when there are too few."""
        while True:
            last = self.start + np.minimum(self.count + self.burst - 1, self.limit)
            need = np.maximum(self.pages_up_to(last) - self.owned, 0)[self.running]
            if need.sum() <= self.free_count:
                break
            if not self._release_prefixes():
                self._put_back(self.running[self.age[self.running].argmax()])
        total = need.sum()
        first = np.repeat(need.cumsum() - need, need)
        slots = np.repeat(self.running, need)
        self.table[slots, self.owned[slots] + np.arange(total) - first] = self.take(total)
        self.owned[self.running] += need

    def end(self, slots):
        """Takes rows out and hands their pages back."""
        used = np.arange(self.table.shape[1]) < self.owned[slots, None]
        self.drop(self.table[slots][used])
        self.table[slots] = BIN
        self.owned[slots] = 0
        self.free_slots.extend(slots.tolist())
        self.running = self.running[~np.isin(self.running, slots)]

    def order(self):
        self.running = self.running[np.argsort((self.start + self.count)[self.running], kind="stable")]

    def _put_back(self, slot):
        group, entry = self.entry[slot]
        if not group.rows:
            self.waiting.appendleft(group)
        group.rows.appendleft(entry)
        self.end(np.array([slot]))
        self.put_back += 1

    def _release_prefixes(self):
        """Gives up the computed prefixes of waiting groups -> whether there were any; they are computed again."""
        held = [group for group in self.waiting if group.pages is not None]
        for group in held:
            self.drop(group.pages)
            group.pages = None
        return bool(held)


class Rows:
    """What the device knows of the rows: a line for each slot, and one more for padding."""

    def __init__(self, slots, max_tokens, device):
        # Column 0 is the prompt's last token; one more than max_tokens, since an ended row goes on to the next look.
        self.token = torch.zeros(slots + 1, max_tokens + 2, dtype=torch.int64, device=device)
        self.logprob, self.full_logprob = torch.zeros(2, slots + 1, max_tokens + 1, device=device)
        self.start, self.count, self.limit, self.key = torch.zeros(4, slots + 1, dtype=torch.int64, device=device)
        self.alive = torch.zeros(slots + 1, dtype=torch.bool, device=device)


class Sampler:
    """Draws completions from one model. To play another role, copy that role's weights into `model`."""

    def __init__(self, model, tokenizer, max_rows=512, kv_gb=None, page_size=16):
        """max_rows: the most rows decoded together. kv_gb: the most that the cache may take, in 10^9 bytes; when not given,
        80 % of the memory that is free when it is first needed. page_size: positions of a page.

        On CUDA, parts of the model are compiled in place. Raises ValueError when the tokenizer has ids that the model
        does not.
        """
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ValueError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {model.config.vocab_size}")
        self.model, self.tokenizer, self.max_rows, self.page_size = model, tokenizer, max_rows, page_size
        self.device, self.dtype = model.embed_tokens.weight.device, model.embed_tokens.weight.dtype
        self.is_stop_V = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=self.device)
        self.is_stop_V[list(tokenizer.stop_ids)] = True
        self.kv_bytes = kv_gb and kv_gb * 1e9
        self.cache, self.graphs, self.graph_width = None, {}, 0
        self.put_back = 0  # rows that the last call put back, in this process
        self.use_graphs = self.device.type == "cuda"
        self.burst = 8 if self.use_graphs else 1  # decode steps between two looks: a look makes the device wait
        if self.use_graphs:
            for block in model.layers:
                block.input_layernorm.compile(dynamic=True)
                block.feed_forward = torch.compile(block.feed_forward, dynamic=True)

    @torch.inference_mode()  # a tenth faster than no_grad on the CPU
    def generate(self, prompts, n=1, max_tokens=256, temperature=1.0, top_p=1.0, top_k=0, seed=0, progress=None, watch=None):
        """n completions of each prompt -> one list per prompt of n `Completion`s.

        prompts: lists of token ids. max_tokens: the most tokens of a completion, its stop token included; one number, or
        one for each prompt. temperature 0 is greedy. progress: the label of a progress bar, counted in tokens; none when
        not given. watch(i, j, tokens, ended): called as completion j of prompt i grows, with all its tokens so far. Under
        torch.distributed the rows are shared out and every process gets all the completions; the bar and `watch` see
        their own process's. Raises ValueError for an empty prompt, a setting out of range or a cache too small for one row,
        and FloatingPointError, naming the row, when the model gives NaN.
        """
        limits = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else list(max_tokens)
        if len(limits) != len(prompts):
            raise ValueError(f"max_tokens has {len(limits)} numbers for {len(prompts)} prompts")
        for name, value, least in (("n", n, 1), ("max_tokens", min(limits, default=1), 1), ("temperature", temperature, 0),
                                   ("top_k", top_k, 0)):
            if not value >= least:
                raise ValueError(f"{name} is {value}, but must be at least {least}")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p}, but must be above 0 and at most 1")
        if any(not p for p in prompts):
            raise ValueError(f"prompt {[bool(p) for p in prompts].index(False)} is empty")
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        groups = deal(group_rows(prompts, n, limits), rank, world)
        pause = 0 if sys.stderr.isatty() else 30  # seconds; in a log file each state of the bar is a line
        with tqdm(desc=progress, unit="", unit_scale=True, bar_format="{desc}: {n_fmt} tokens, {rate_noinv_fmt}{postfix}",
                  leave=False, mininterval=max(0.1, pause), delay=pause, disable=progress is None or rank > 0) as bar:
            how = dict(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
            done = self._run(groups, how, bar, watch and (lambda row, *news: watch(row // n, row % n, *news)))
        if world > 1:
            shares = [None] * world
            dist.all_gather_object(shares, pack(done))
            done = {row: completion for share in shares for row, completion in unpack(share)}
        return [[done[i * n + j] for j in range(n)] for i in range(len(prompts))]

    def _run(self, groups, how, bar, watch):
        """Completions by row number of the rows of `groups`."""
        self.put_back = 0
        if not groups:
            return {}
        total = sum(len(group.rows) for group in groups)
        slots = min(self.max_rows, total)
        schedule = Schedule(groups, slots, self._prepare_cache(groups, slots), self.page_size, self.burst)
        most = max(limit for group in groups for _, _, limit in group.rows)
        rows, done = Rows(slots, most, self.device), {}
        while schedule.waiting or len(schedule.running):
            self._start(schedule, rows)
            schedule.provide()
            schedule.order()
            slot_A = self._on_device(self._pad(schedule.running, slots))
            table_An = self._on_device(self._pages_in_use(schedule, slot_A.numel()))
            for _ in range(self.burst):
                self._decode(rows, slot_A, table_An, how)
            drawn = self._look(schedule, rows, slot_A[:len(schedule.running)], done, watch)
            bar.set_postfix_str(f"{len(done)}/{total} rows, {len(schedule.running)} running, "
                                f"{1 - schedule.free_count / schedule.pages:.0%} pages", refresh=False)
            bar.update(drawn)
        self.put_back = schedule.put_back
        return done

    def _prepare_cache(self, groups, slots):
        """Makes or enlarges the cache for this work, as far as memory allows -> its number of pages."""
        longest = max(group.positions for group in groups) // self.page_size + 1
        want = 2 + slots * (longest + 1)  # with each row's group's last page and the bin
        have = self.cache.keys.shape[2] if self.cache else 0
        if have < want:
            page_bytes = PagedCache.bytes_of_page(self.model.config, self.page_size, self.dtype)
            limit = self.kv_bytes or 0.8 * (free_memory(self.device) + have * page_bytes)
            pages = min(want, int(limit / page_bytes))
            if pages > have:
                self.cache, self.graphs = None, {}  # before the new one is made: there may be no room for both
                self.cache = PagedCache(self.model.config, pages, self.page_size, self.device, self.dtype)
        if longest > self.graph_width:
            self.graphs, self.graph_width = {}, longest
        return self.cache.keys.shape[2] if self.cache else 0

    def _on_device(self, array):
        return torch.from_numpy(array).to(self.device)

    def _pad(self, running, padding):
        """For graphs, the running slots filled up to the ladder's next size with the slot that is no row's."""
        if not self.use_graphs:
            return running
        size = next((size for size in LADDER if size >= len(running)), len(running))
        return np.append(running, np.full(size - len(running), padding))

    def _pages_in_use(self, schedule, size):
        """The page tables of the running rows: as wide as the longest needs, or for graphs of their size and width."""
        if not self.use_graphs:
            return schedule.table[schedule.running, :schedule.owned[schedule.running].max()]
        table = np.full((size, self.graph_width), BIN, dtype=np.int32)
        table[:len(schedule.running), :schedule.table.shape[1]] = schedule.table[schedule.running]
        return table

    def _start(self, schedule, rows):
        """Admits rows: computes the prefixes of new prompts, copies their last pages, and fills the rows' lines."""
        compute, slots, copies = schedule.admit()
        if compute:
            self._prefill(compute)
        if copies.size:
            self.cache.copy(*self._on_device(copies))
        if slots:
            entries = [schedule.entry[slot] for slot in slots]
            lines = [(slot, group.prompt[-1], group.prefix, limit, group.key + number)
                     for slot, (group, (_, number, limit)) in zip(slots, entries)]
            slot, token, start, limit, key = torch.tensor(lines, device=self.device).T
            rows.token[slot, 0], rows.start[slot], rows.limit[slot], rows.key[slot] = token, start, limit, key
            rows.count[slot], rows.alive[slot] = 0, True

    def _prefill(self, prefixes):
        """Computes prefixes into their pages, as one right-padded batch."""
        P, T = self.page_size, max(len(prefix) for prefix, _ in prefixes)
        token_PT = np.zeros((len(prefixes), T), dtype=np.int64)
        slot_PT = np.full((len(prefixes), T), BIN * P, dtype=np.int64)
        for i, (prefix, pages) in enumerate(prefixes):
            position = np.arange(len(prefix))
            token_PT[i, :len(prefix)] = prefix
            slot_PT[i, :len(prefix)] = pages[position // P] * P + position % P
        self.cache.begin_prefill(self._on_device(slot_PT).flatten())
        self.model(self._on_device(token_PT), cache=self.cache)

    def _decode(self, rows, slot_A, table_An, how):
        """One token more for each running row; a row that has ended stands still until the next look."""
        count_A = rows.count[slot_A]
        logits_AV = self._forward(rows.token[slot_A, count_A], rows.start[slot_A] + count_A, table_An)
        drawn = draw(logits_AV, row_R=rows.key[slot_A], position_R=count_A, **how)
        rows.logprob[slot_A, count_A], rows.full_logprob[slot_A, count_A] = drawn.logprob, drawn.full_logprob
        alive_A = rows.alive[slot_A]
        count_A = count_A + alive_A
        rows.token[slot_A, count_A + ~alive_A] = drawn.token  # an ended row's goes past its end
        rows.count[slot_A] = count_A
        rows.alive[slot_A] = alive_A & ~(self.is_stop_V[drawn.token] | drawn.logprob.isnan()) & (count_A < rows.limit[slot_A])

    def _forward(self, token_A, position_A, table_An):
        """Logits [A, V] after each running row's newest token; on CUDA by the graph of this batch size."""
        if not self.use_graphs:
            return self._next_logits(token_A, position_A, table_An)
        if len(token_A) not in self.graphs:
            self.graphs[len(token_A)] = self._capture(token_A, position_A, table_An)
        graph, inputs, logits_AV = self.graphs[len(token_A)]
        for mine, given in zip(inputs, (token_A, position_A, table_An)):
            mine.copy_(given)
        graph.replay()
        return logits_AV

    def _next_logits(self, token_A, position_A, table_An):
        self.cache.begin_decode(table_An, position_A)
        return self.model.logits(self.model(token_A[:, None], position_A[:, None], self.cache)[:, 0])

    def _capture(self, *inputs):
        """Records `_next_logits` at fixed addresses -> (graph, its inputs, its logits)."""
        inputs = [x.clone() for x in inputs]
        stream = torch.cuda.Stream()  # what compiles or allocates on first use must have done so before the capture
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._next_logits(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self.graphs.values()))[0].pool() if self.graphs else None
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):  # other threads may talk to the device
            logits_AV = self._next_logits(*inputs)
        return graph, inputs, logits_AV

    def _look(self, schedule, rows, slot_A, done, watch):
        """Reads from the device how far the running rows are, and collects those that have ended -> tokens drawn."""
        running = schedule.running
        count, alive = rows.count[slot_A].cpu().numpy(), rows.alive[slot_A].cpu().numpy()
        drawn = int((count - schedule.count[running]).sum())
        schedule.count[running] = count
        ended = running[~alive]
        if len(ended):
            self._collect(ended, schedule, rows, done)  # before `watch`, which must not take a row that NaN ended
        if watch:
            for slot, tokens, more in zip(running, rows.token[slot_A].tolist(), alive):
                watch(schedule.entry[slot][1][0], tokens[1:1 + schedule.count[slot]], not more)
        if len(ended):
            schedule.end(ended)
        return drawn

    def _collect(self, slots, schedule, rows, done):
        """Makes the `Completion`s of the rows in these slots."""
        slot = self._on_device(slots)
        token, logprob, full = (x[slot].cpu().numpy() for x in (rows.token, rows.logprob, rows.full_logprob))
        stopped = self.is_stop_V[rows.token[slot, rows.count[slot]]].tolist()
        for i, (s, c) in enumerate(zip(slots.tolist(), schedule.count[slots].tolist())):
            row = schedule.entry[s][1][0]
            if np.isnan(logprob[i, c - 1]):
                self.cache, self.graphs = None, {}  # it holds NaNs, which masked attention does not forget
                raise FloatingPointError(f"the model gave NaN for row {row}")
            done[row] = Completion(token[i, 1:c + 1].tolist(), logprob[i, :c].tolist(), stopped[i], full[i, :c].tolist())


def group_rows(prompts, n, limits):
    """`Group`s of the rows with equal prompts; row i * n + j is completion j of prompt i."""
    groups = {}
    for i, (prompt, limit) in enumerate(zip(prompts, limits)):
        group = groups.setdefault(tuple(prompt), Group(tuple(prompt), deque()))
        before = len(group.rows)
        group.rows.extend((i * n + j, before + j, limit) for j in range(n))
    return list(groups.values())


def deal(groups, rank, world):
    """This rank's share, shortest prompts first. Rows go round like cards in the order of their prompts' lengths.

    The completions of one prompt tend to be long together, so the rows of each group are spread, unless there are enough
    groups for chance to even them out (tests/LOG.md): then whole groups are dealt, whose rows share their prompt's pages.
    """
    groups = sorted(groups, key=lambda group: group.prefix)
    if len(groups) >= 64 * world:
        return groups[rank::world]
    shares, dealt = [], 0
    for group in groups:
        rows = deque(entry for i, entry in enumerate(group.rows, dealt) if i % world == rank)
        dealt += len(group.rows)
        if rows:
            shares.append(Group(group.prompt, rows))
    return shares


def pack(done):
    """Completions by row as a few arrays, which travel between processes at a tenth of the lists' cost."""
    completions = done.values()
    return (list(done), [len(c.tokens) for c in completions], [c.finished for c in completions],
            np.array([t for c in completions for t in c.tokens], dtype=np.int32),
            np.array([x for c in completions for x in c.logprobs], dtype=np.float32),
            np.array([x for c in completions for x in c.full_logprobs], dtype=np.float32))


def unpack(packed):
    """(row, Completion) of each that `pack` was given."""
    rows, lengths, finished, *arrays = packed
    ends = np.cumsum(lengths)
    for i, row in enumerate(rows):
        tokens, logprobs, full_logprobs = (x[ends[i] - lengths[i]:ends[i]].tolist() for x in arrays)
        yield row, Completion(tokens, logprobs, finished[i], full_logprobs)


class Stream:
    """Prints completions one after the other while all of them grow."""

    def __init__(self, tokenizer, n):
        self.tokenizer, self.n, self.current, self.printed = tokenizer, n, 0, 0
        self.tokens, self.ended = [[] for _ in range(n)], [False] * n

    def watch(self, _, j, tokens, ended):
        if len(tokens) >= len(self.tokens[j]):  # a row that was put back grows again
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
    parser.add_argument("--system", default=MATH_INSTRUCTION, help="the system message")
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
            [tokenizer.chat(args.system, args.prompt)], n=args.n, max_tokens=args.max_tokens, temperature=args.temperature,
            top_p=args.top_p, top_k=args.top_k, seed=args.seed, watch=Stream(tokenizer, args.n).watch)[0]
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"sample.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\nsample.py: stopped")
    for i, c in enumerate(completions, 1):
        mean = sum(c.logprobs) / len(c.logprobs)
        print(f"{i}: mean logprob {mean:.3f}{'' if c.finished else ', cut off at --max_tokens'}")


if __name__ == "__main__":
    main()

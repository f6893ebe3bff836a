"""The paged key/value cache, and the schedule of the rows that fill it: bookkeeping, without a model.

The cache is cut into pages of a few positions. A row's block table lists its pages in order: its position p is in slot
`block_table[p // page_size] * page_size + p % page_size`. Rows of one prompt share the full pages of the prompt.

A row is one completion being decoded; a lane is the line of the batch's arrays and tensors that a running row occupies.
When pages run out, the youngest row is preempted: it gives its pages back and waits. Later the keys and values of its
prompt and of its tokens so far are computed again, like those of a prompt, and it goes on where it was.

Shapes: A running rows, n pages of a row, N new tokens, B rows, T tokens, H query and K key/value heads, C width."""

import hashlib
import math
from collections import deque
from typing import NamedTuple

import numpy as np
import torch

from kernels.attention import paged_attention
from kernels.write import write_pages
from model import causal_attention

PAGE_SIZE = 16  # positions of a page
MEMORY_SHARE = 0.8  # of the free memory, the most that the cache takes
MAX_PREFILL_TOKENS = 4096  # prefilled between two syncs, if of several groups: with more, the running rows wait long
WATERMARK = 6  # pages left free for each running row: with fewer, rows are preempted often; with more, too few run
NULL_PAGE = 0  # the page that padding is written to; it is never read


class PagedCache:
    """Keys and values of every layer, [L, K, pages, positions of a page, C], and the attention over them."""

    def __init__(self, config, pages, page_size, device, dtype):
        shape = (config.layers, config.kv_heads, pages, page_size, config.head_dim)
        # Zeros, since the plain attention multiplies masked values by 0, and uninitialised memory may hold NaN.
        if device.type == "cpu":  # NumPy's zeros take no memory, and no time, before they are written
            size = math.prod(shape) * dtype.itemsize
            self.keys, self.values = (torch.from_numpy(np.zeros(size, np.uint8)).view(dtype).view(shape) for _ in "kv")
        else:
            self.keys, self.values = (torch.zeros(shape, device=device, dtype=dtype) for _ in "kv")
        self.page_size = page_size

    @staticmethod
    def bytes_of_page(config, page_size, dtype):
        return 2 * config.layers * config.kv_heads * page_size * config.head_dim * dtype.itemsize

    def begin_prefill(self, slot_N):
        """The next forward pass computes whole prompts; token i of the batch is written to slot slot_N[i]."""
        self.slot_N, self.table_An = slot_N, None

    def begin_decode(self, table_An, position_A):
        """The next forward pass computes one token of each running row, at this position."""
        page_A1 = table_An.gather(1, (position_A // self.page_size)[:, None])
        self.slot_N = page_A1[:, 0].long() * self.page_size + position_A % self.page_size
        self.table_An, self.length_A = table_An, position_A + 1

    def attend(self, layer, q_BTHC, k_BTKC, v_BTKC):
        """Writes the new keys and values to their slots, and attends -> [B, T, H, C]."""
        keys, values = self.keys[layer], self.values[layer]
        write_pages(k_BTKC.flatten(0, 1), v_BTKC.flatten(0, 1), keys.flatten(1, 2), values.flatten(1, 2), self.slot_N)
        if self.table_An is None:
            return causal_attention(q_BTHC, k_BTKC, v_BTKC)
        return paged_attention(q_BTHC[:, 0], keys, values, self.table_An, self.length_A)[:, None]

    def copy_pages(self, source, target):
        self.keys[:, :, target], self.values[:, :, target] = self.keys[:, :, source], self.values[:, :, source]


class Row(NamedTuple):
    index: int  # among all rows of the call
    key: int  # of its draws, beside the seed
    max_tokens: int


class Group:
    """Waiting rows with the same tokens so far: those of one prompt, or one row that was preempted after it had drawn
    `drawn` tokens. Their prefix, all tokens but the last, is computed once for all of them. A row starts by decoding
    that last token, so its first draw is like any other."""

    def __init__(self, prompt, rows, drawn=0):
        self.prompt, self.rows, self.drawn = prompt, deque(rows), drawn
        self.prefix_length = len(prompt) - 1 + drawn
        self.last_position = len(prompt) - 1 + max(row.max_tokens for row in rows)  # the last that a row may reach
        self.pages = None  # of the prefix, from its computation until the last row is admitted or they are evicted
        self.completion = None  # where tokens were drawn: what the sampler keeps of them


def prompt_key(prompt):
    """A hash of the prompt. Completion j of this prompt draws with key `prompt_key(prompt) + j`."""
    digest = hashlib.blake2b(np.array(prompt, dtype=np.int64).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2  # room below 2^63 for j


def group_rows(prompts, n, limits):
    """The `Group`s of equal prompts, n rows for each prompt; row i * n + j is completion j of prompt i."""
    rows = {}
    for i, (prompt, limit) in enumerate(zip(prompts, limits)):
        alike = rows.setdefault(tuple(prompt), [])
        key = prompt_key(prompt) + len(alike)
        alike += [Row(i * n + j, key + j, limit) for j in range(n)]
    return [Group(prompt, alike) for prompt, alike in rows.items()]


def shard(groups, rank, world):
    """This process's share of the groups, shortest prompts first. Completions of one prompt tend to be long together,
    so its rows are spread over the processes. With many groups chance evens the lengths out (tests/LOG.md); then groups
    stay whole, and their rows share the prompt's pages."""
    groups = sorted(groups, key=lambda group: group.prefix_length)
    if len(groups) >= 64 * world:
        return groups[rank::world]
    share = {}
    for prompt, row in [(group.prompt, row) for group in groups for row in group.rows][rank::world]:
        share.setdefault(prompt, []).append(row)
    return [Group(prompt, rows) for prompt, rows in share.items()]


class Scheduler:
    """Decides which rows run, in which lanes, and which pages they own; on the host, in numpy. Between two syncs with
    the device, running rows decode up to `burst` tokens, whose pages they own beforehand."""

    def __init__(self, groups, lanes, pages, page_size, burst):
        self.waiting, self.page_size, self.burst = deque(groups), page_size, burst
        width = max(group.last_position for group in groups) // page_size + 1
        if pages - 2 < width:  # the null page, and the group's last page, which the row copies
            raise ValueError(f"the key/value cache has room for {(pages - 2) * page_size} positions, but one row may "
                             f"need {width * page_size}; give it more (kv_gb) or ask for fewer tokens (max_tokens)")
        self.pages, self.free_pages = pages - 1, np.arange(pages - 1, NULL_PAGE, -1)  # a stack
        self.ref_count = np.zeros(pages, dtype=np.int64)  # running rows, and groups with waiting rows, that use a page
        # Of the row in each lane: its pages, how many they are, its first position to be decoded, the tokens drawn, and
        # the most it may draw. No row occupies the last lane, which is for padding.
        self.block_table = np.full((lanes + 1, width), NULL_PAGE, dtype=np.int32)
        self.page_count, self.start, self.count, self.limit = np.zeros((4, lanes + 1), dtype=np.int64)
        self.occupant = [None] * lanes  # (group, row)
        self.free_lanes, self.running = list(range(lanes))[::-1], np.zeros(0, dtype=np.int64)  # the youngest row last
        self.preemptions = 0

    def allocate(self, count):
        self.free_pages, pages = np.split(self.free_pages, [len(self.free_pages) - count])
        self.ref_count[pages] = 1
        return pages

    def free(self, pages):
        """Drops one reference to each of the pages."""
        np.subtract.at(self.ref_count, pages, 1)
        self.free_pages = np.append(self.free_pages, np.unique(pages[self.ref_count[pages] == 0])[::-1])

    def admit(self):
        """Starts waiting rows while there are lanes, and pages above the watermark -> (the (group, pages) whose
        prefix is to be computed; the (lane, group, row) that start; [2, n] pages to copy after that, from and to)."""
        prefixes, admitted, copies, emptied, longest = [], [], [], [], 0
        reserved = self._reserve(self.running)
        while self.waiting and self.free_lanes:
            group = self.waiting[0]
            start = group.prefix_length - group.drawn
            last = start + min(group.drawn + self.burst - 1, group.rows[0].max_tokens)  # position of the next burst
            shared = group.prefix_length // self.page_size  # full pages of the prefix; the row's others are its own
            own = last // self.page_size + 1 - shared
            prefix_pages = -(-group.prefix_length // self.page_size) if group.pages is None else 0
            if len(self.free_pages) < own + prefix_pages + reserved:
                if len(self.running) or admitted or not self._evict_prefixes(self.waiting):
                    break
                continue
            if group.pages is None:
                longest = max(longest, group.prefix_length)
                if prefixes and (len(prefixes) + 1) * longest > MAX_PREFILL_TOKENS:
                    break
                group.pages = self.allocate(prefix_pages)
                if group.prefix_length:
                    prefixes.append((group, group.pages))
            lane, row = self.free_lanes.pop(), group.rows.popleft()
            self.ref_count[group.pages[:shared]] += 1
            self.block_table[lane, :shared + own] = np.append(group.pages[:shared], self.allocate(own))
            if group.prefix_length % self.page_size:
                copies.append((group.pages[shared], self.block_table[lane, shared]))
            self.page_count[lane], self.start[lane], self.count[lane] = shared + own, start, group.drawn
            self.limit[lane], self.occupant[lane] = row.max_tokens, (group, row)
            admitted.append((lane, group, row))
            reserved += self._reserve([lane])
            if not group.rows:
                emptied.append(self.waiting.popleft())
        self._evict_prefixes(emptied)  # not earlier: pages to be copied must not be allocated to another row
        self.running = np.append(self.running, np.array([lane for lane, *_ in admitted], dtype=np.int64))
        return prefixes, admitted, np.array(copies, dtype=np.int64).reshape(-1, 2).T

    def _reserve(self, lanes):
        """The pages left free for these rows: WATERMARK for each, or as many as it may still need."""
        last_page = (self.start + self.limit)[lanes] // self.page_size
        return int(np.minimum(last_page + 1 - self.page_count[lanes], WATERMARK).sum())

    def grow(self):
        """Allocates pages for the next burst, preempting the youngest rows if need be -> (running lanes, by length;
        the (lane, group that it waits as) of each preempted row)."""
        preempted = []
        while True:
            last = self.start + np.minimum(self.count + self.burst - 1, self.limit)
            need = np.maximum(last // self.page_size + 1 - self.page_count, 0)[self.running]
            if need.sum() <= len(self.free_pages):
                break
            if not self._evict_prefixes(self.waiting):
                lane = self.running[-1]  # the youngest row waits at the front, as a group of its own
                group, row = self.occupant[lane]
                self.waiting.appendleft(Group(group.prompt, [row], self.count[lane]))
                preempted.append((lane, self.waiting[0]))
                self.finish(self.running[-1:])
        lanes, before = np.repeat(self.running, need), np.repeat(need.cumsum() - need, need)
        self.block_table[lanes, self.page_count[lanes] + np.arange(len(lanes)) - before] = self.allocate(len(lanes))
        self.page_count[self.running] += need
        self.preemptions += len(preempted)
        return self.running[np.argsort((self.start + self.count)[self.running], kind="stable")], preempted

    def finish(self, lanes):
        """Takes rows out of their lanes and frees their pages."""
        self.free(self.block_table[lanes][self.block_table[lanes] != NULL_PAGE])
        self.block_table[lanes], self.page_count[lanes] = NULL_PAGE, 0
        self.free_lanes.extend(lanes.tolist())
        self.running = self.running[~np.isin(self.running, lanes)]

    def _evict_prefixes(self, groups):
        """Frees the pages of these groups' prefixes -> whether there were any. Groups that wait compute them again."""
        groups = [group for group in groups if group.pages is not None]
        for group in groups:
            self.free(group.pages)
            group.pages = None
        return bool(groups)

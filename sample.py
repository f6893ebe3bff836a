"""The sampler: completions of prompts, and the logprob of every token that it draws.

`generate_plain` says what sampling is. `Sampler` draws the same tokens with continuous batching over a paged key/value
cache (pages.py). Each draw depends on (seed, prompt, number among the completions of that prompt, position) alone. So
the same call gives the same tokens whatever the batch size, the page size, the order of the prompts and the number of
processes, up to the rounding of the logits. A preempted row goes on where it was: its tokens so far are prefilled.

    python sample.py --model tiny --prompt "What is 17 + 25 - 8?" --n 4

Shapes: A running rows, P prompts, T tokens, n pages of a row's block table, V vocabulary."""

import argparse
import sys
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from common import compiled, compute_dtype, free_memory, printable, progress_bar, rank_and_world, short, this_device
from kernels.draw import draw
from model import Tokenizer, load
from pages import MEMORY_SHARE, NULL_PAGE, PAGE_SIZE, PagedCache, Scheduler, group_rows, prompt_key, shard

# Batch sizes of the CUDA graphs. A batch is padded to the next of them.
GRAPH_SIZES = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, *range(256, 4097, 64)]


@dataclass
class Completion:
    tokens: np.ndarray  # int32: the drawn ids, with the stop token if it came
    logprobs: np.ndarray  # fp32: of each token, under the distribution that it was drawn from (greedy: temperature 1)
    finished: bool  # whether a stop token came within max_tokens
    full_logprobs: np.ndarray | None = None  # fp32: those before top-k and top-p, as a trainer scores them


@torch.inference_mode()
def generate_plain(model, tokenizer, prompt, n=1, max_tokens=256, temperature=1.0, top_p=1.0, top_k=0, seed=0):
    """The plain twin of `Sampler.generate`, for one prompt: n `Completion`s, without a cache and without a batch. For
    each token, the model runs over all tokens so far, and `draw` draws from the softmax of the last logits."""
    completions, max_tokens = [], max(1, min(max_tokens, model.config.context - len(prompt)))
    for j in range(n):
        tokens, logprobs, full_logprobs, key, finished = [], [], [], prompt_key(prompt) + j, False
        while len(tokens) < max_tokens and not finished:
            tokens_1T, key_1, position_1 = (torch.tensor(x, device=model.embed_tokens.weight.device)
                                            for x in ([prompt + tokens], [key], [len(tokens)]))
            logits_1V = model.logits(model(tokens_1T)[:, -1])
            drawn = draw(logits_1V, seed, key_1, position_1, temperature, top_k, top_p)
            tokens.append(drawn.token.item())
            logprobs.append(drawn.logprob.item())
            full_logprobs.append(drawn.full_logprob.item())
            finished = tokens[-1] in tokenizer.stop_ids
        completions.append(Completion(np.array(tokens, np.int32), np.array(logprobs, np.float32), finished,
                                      np.array(full_logprobs, np.float32)))
    return completions


class Sampler:
    """Draws completions from one model. To sample from another role, copy that role's weights into `model`."""

    def __init__(self, model, tokenizer, max_rows=512, kv_gb=None, page_size=PAGE_SIZE):
        """max_rows: the most rows decoded together. kv_gb: the most that the cache may take, in 10^9 bytes; it never
        takes more than 80 % of the memory that is free when it is needed. page_size: positions of a page. The model is
        changed in place: see `merge_projections`, and on CUDA `compile_blocks`. Raises ValueError if the model lacks
        ids of the tokenizer."""
        V = model.config.vocab_size
        if tokenizer.vocab_size > V:
            raise ValueError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {V}")
        self.model, self.tokenizer, self.max_rows, self.page_size = model, tokenizer, max_rows, page_size
        self.device, self.dtype = model.embed_tokens.weight.device, model.embed_tokens.weight.dtype
        self.is_stop_V = torch.zeros(V, dtype=torch.bool, device=self.device)
        self.is_stop_V[list(tokenizer.stop_ids)] = True
        self.kv_bytes = kv_gb * 1e9 if kv_gb else np.inf
        self.cache, self.wanted, self.logits_BV, self.graphs, self.graph_width = None, 0, None, {}, 0
        self.preemptions = 0  # of the last call, in this process
        self.poll = None  # a function to call between two tokens
        self.use_graphs = self.device.type == "cuda"
        self.burst = 8 if self.use_graphs else 1  # decode steps between two syncs; in a sync the GPU is idle
        merge_projections(model)
        if self.use_graphs:
            self.stream = torch.cuda.Stream()  # of all captures: PyTorch keeps a cuBLAS workspace for each stream
            compile_blocks(model)

    @classmethod
    def load(cls, path, dtype=None, **settings):
        """The sampler of a model folder or Hub id, on this process's device, in `dtype`; when not given, in bf16 on
        CUDA and fp32 elsewhere. settings: those of `__init__`."""
        device, tokenizer = this_device(), Tokenizer(path)  # before the weights: it is read sooner
        return cls(load(path, device, dtype or compute_dtype(device)), tokenizer, **settings)

    def require_room(self, file, texts, prompt_of, max_tokens):
        """Raises ValueError for a text of a file whose prompt, with max_tokens behind it, exceeds the model's context.
        The thousand longest are looked at. prompt_of(text): token ids."""
        for number, text in sorted(enumerate(texts, 1), key=lambda one: -len(one[1]))[:1000]:
            if (tokens := len(prompt_of(text))) + max_tokens > self.model.config.context:
                raise ValueError(f"{file}, text {number} makes a prompt of {tokens:,} tokens; with {max_tokens:,} more "
                                 f"it exceeds the model's context of {self.model.config.context:,}: {short(text)}")

    @torch.inference_mode()  # a tenth faster than no_grad on the CPU
    def generate(self, prompts, n=1, max_tokens=256, temperature=1.0, top_p=1.0, top_k=0, seed=0, progress=None,
                 watch=None, keep=None):
        """n completions of each prompt -> one list of n `Completion`s for each prompt. prompts: lists of token ids.
        max_tokens: the most tokens of a completion, with its stop token; one number, or one for each prompt. A row also
        ends at the model's context; behind a prompt that fills it comes one token.
        temperature 0 is greedy. progress: the label of a progress bar that counts tokens; no bar when not given.
        watch(i, j, tokens, ended): called as completion j of prompt i grows, with its tokens so far. keep(i, j,
        completion): called as it ends; what it returns takes the completion's place. Under torch.distributed each
        process draws a share of the rows and gets all completions. The bar, `watch` and `keep` see the rows of their
        own process. What one process raises, all raise: ValueError for an empty prompt, a setting out of range or a
        cache too small for one row; FloatingPointError, naming the row, when the model gives NaN; and what `poll`
        raises."""
        limits = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else list(max_tokens)
        check(prompts, n, limits, temperature, top_p, top_k)
        context = self.model.config.context
        limits = [max(1, min(limit, context - len(prompt))) for prompt, limit in zip(prompts, limits)]
        params = dict(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
        rank, world = rank_and_world()
        groups = shard(group_rows(prompts, n, limits), rank, world)
        with progress_bar(desc=progress, disable=progress is None or rank > 0, leave=False, unit="", unit_scale=True,
                          bar_format="{desc}: {n_fmt} tokens, {rate_noinv_fmt}{postfix}") as bar:
            watch_row = watch and (lambda row, *state: watch(*divmod(row, n), *state))
            keep_row = (lambda row, c: keep(*divmod(row, n), c)) if keep else lambda row, c: c
            try:
                done = self._run(groups, params, bar, watch_row, keep_row)
            except (Exception, KeyboardInterrupt) as error:
                if world == 1:
                    raise
                done = error  # the other processes would wait for this one's rows
        if world > 1:
            shares = [None] * world
            dist.all_gather_object(shares, done)
            for share in shares:
                if isinstance(share, BaseException):
                    raise share
            done = {row: completion for share in shares for row, completion in share.items()}
        return [[done[i * n + j] for j in range(n)] for i in range(len(prompts))]

    def _run(self, groups, params, bar, watch, keep):
        """Decodes all rows of the groups -> {row's index: what `keep` makes of its Completion}."""
        self.preemptions = 0
        if not groups:
            return {}
        total = sum(len(group.rows) for group in groups)
        lanes, longest = min(self.max_rows, total), max(row.max_tokens for group in groups for row in group.rows)
        scheduler = Scheduler(groups, lanes, self._allocate_cache(groups, lanes), self.page_size, self.burst)
        rows, done = RowTensors(lanes, longest, self.device), {}
        while scheduler.waiting or len(scheduler.running):
            if self.poll:
                self.poll()
            self._admit(scheduler, rows)
            running, preempted = scheduler.grow()
            for lane, group in preempted:
                group.completion, = self._read([lane], scheduler, rows)
            lane_A, table_An = self._batch(scheduler, running)
            for _ in range(self.burst):
                self._decode(rows, lane_A, table_An, params)
            drawn = self._sync(scheduler, rows, running, lane_A[:len(running)], done, watch, keep)
            bar.set_postfix_str(f"{len(done)}/{total} rows, {len(scheduler.running)} running, "
                                f"{1 - len(scheduler.free_pages) / scheduler.pages:.0%} pages", refresh=False)
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
            lines = [(lane, group.prompt[-1], len(group.prompt) - 1, group.drawn, row.max_tokens, row.key)
                     for lane, group, row in admitted]
            lane, token, start, count, limit, key = torch.tensor(lines, device=self.device).T
            rows.token[lane, 0], rows.start[lane], rows.count[lane] = token, start, count
            rows.limit[lane], rows.key[lane], rows.alive[lane] = limit, key, True
            for lane, group, _ in admitted:
                if group.drawn:
                    rows.restore(lane, group.completion)

    def _prefill(self, prefixes):
        """Computes keys and values of groups' prefixes into their pages, as one right-padded batch."""
        shape = len(prefixes), max(group.prefix_length for group, _ in prefixes)
        token_PT, slot_PT = np.zeros(shape, dtype=np.int64), np.full(shape, NULL_PAGE * self.page_size, dtype=np.int64)
        for i, (group, pages) in enumerate(prefixes):
            slots = pages[:, None] * self.page_size + np.arange(self.page_size)
            tokens = [*group.prompt, *(group.completion.tokens if group.drawn else [])]
            token_PT[i, :group.prefix_length] = tokens[:-1]
            slot_PT[i, :group.prefix_length] = slots.flatten()[:group.prefix_length]
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

    def _forward(self, token_A, position_A, table_An, out=None):
        self.cache.begin_decode(table_An, position_A)
        return self.model.logits(self.model(token_A[:, None], position_A[:, None], self.cache)[:, 0], out)

    def _sync(self, scheduler, rows, running, lane_A, done, watch, keep):
        """Waits for the device, reads how far the running rows are, and takes out those that ended -> tokens drawn."""
        count, alive = rows.count[lane_A].cpu().numpy(), rows.alive[lane_A].cpu().numpy()
        drawn = int((count - scheduler.count[running]).sum())
        scheduler.count[running] = count
        ended = running[~alive]
        if len(ended):
            for lane, completion in zip(ended, self._read(ended, scheduler, rows)):
                index = scheduler.occupant[lane][1].index
                if np.isnan(completion.logprobs[-1]):  # before `watch`, which must not see a row that NaN ended
                    self.release()  # the cache holds NaN, which masked attention would read
                    raise FloatingPointError(f"the model gave NaN for row {index}")
                done[index] = keep(index, completion)
            scheduler.finish(ended)
        if watch:
            for lane, tokens, more in zip(running, rows.token[lane_A].cpu().numpy(), alive):
                watch(scheduler.occupant[lane][1].index, tokens[1:1 + scheduler.count[lane]], not more)
        return drawn

    def _read(self, lanes, scheduler, rows):
        """The `Completion`s so far of the rows in these lanes."""
        lane_E, longest = self._to_device(np.asarray(lanes)), scheduler.count[lanes].max()
        columns = (x[lane_E, :longest].cpu().numpy() for x in (rows.token[:, 1:], rows.logprob, rows.full_logprob))
        completions = []
        for lane, *line in zip(lanes, *columns):
            tokens, logprobs, full_logprobs = (  # copies, since a part of the batch would keep all of it
                np.array(x[:scheduler.count[lane]], dtype) for x, dtype in zip(line, "iff"))
            finished = len(tokens) > 0 and int(tokens[-1]) in self.tokenizer.stop_ids
            completions.append(Completion(tokens, logprobs, finished, full_logprobs))
        return completions

    def release(self):
        """Gives the memory of cache and graphs back. The next `generate` takes it anew, of what is then free."""
        self.cache, self.logits_BV, self.graphs = None, None, {}
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _allocate_cache(self, groups, lanes):
        """Makes or enlarges the cache for these rows, as far as memory allows -> its number of pages."""
        longest = max(group.last_position for group in groups) // self.page_size + 1
        want = 2 + lanes * (longest + 1)  # with the last page of each row's group, and the null page
        if self.cache is None or want > self.wanted:
            self.release()  # first: there may be no room for both, and the graphs know the old one's address
            page_bytes = PagedCache.bytes_of_page(self.model.config, self.page_size, self.dtype)
            pages = min(want, int(min(self.kv_bytes, MEMORY_SHARE * free_memory(self.device)) / page_bytes))
            self.cache = PagedCache(self.model.config, pages, self.page_size, self.device, self.dtype)
            self.wanted = want
        if longest > self.graph_width:
            self.graphs, self.graph_width = {}, longest
        return self.cache.keys.shape[2]

    def _to_device(self, array):
        return torch.from_numpy(array).to(self.device)

    def _batch(self, scheduler, running):
        """The running lanes and their block tables, as wide as the longest row needs. For graphs, which have fixed
        shapes: filled up with the padding lane to the next of GRAPH_SIZES, and as wide as any row may need."""
        lanes, table = running, scheduler.block_table[running, :scheduler.page_count[running].max()]
        if self.use_graphs:
            more = graph_size(len(running)) - len(running)
            lanes = np.pad(lanes, (0, more), constant_values=len(scheduler.occupant))
            table = np.pad(table, ((0, more), (0, self.graph_width - table.shape[1])), constant_values=NULL_PAGE)
        return self._to_device(lanes), self._to_device(table)

    def _capture(self, *inputs):
        """Records `_forward` at fixed addresses -> (graph, its inputs, its logits). All graphs share one pool of memory
        and one buffer of logits, which `draw` has read before another is replayed."""
        A = len(inputs[0])
        if self.logits_BV is None or len(self.logits_BV) < A:
            shape = graph_size(max(A, self.max_rows)), self.model.config.vocab_size
            self.graphs, self.logits_BV = {}, torch.empty(shape, dtype=self.dtype, device=self.device)
        inputs, logits_AV = [x.clone() for x in inputs], self.logits_BV[:A]
        self.stream.wait_stream(torch.cuda.current_stream())  # the first run compiles, which a capture must not
        with torch.cuda.stream(self.stream):
            self._forward(*inputs, logits_AV)
        torch.cuda.current_stream().wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self.graphs.values()))[0].pool() if self.graphs else None
        # thread_local: other threads may use the device meanwhile
        with torch.cuda.graph(graph, pool, self.stream, capture_error_mode="thread_local"):
            self._forward(*inputs, logits_AV)
        return graph, inputs, logits_AV


def graph_size(rows):
    """The least of GRAPH_SIZES that holds so many rows; their own number past the last."""
    return next((size for size in GRAPH_SIZES if size >= rows), rows)


class RowTensors:
    """The rows' tokens, logprobs and counts on the device: a line for each lane, and a last one for padding."""

    def __init__(self, lanes, max_tokens, device):
        # Column 0 is the prompt's last token. What a row draws past its end goes to the column after its last token.
        self.token = torch.zeros(lanes + 1, max_tokens + 2, dtype=torch.int64, device=device)
        self.logprob, self.full_logprob = torch.zeros(2, lanes + 1, max_tokens + 1, device=device)
        self.start, self.count, self.limit, self.key = torch.zeros(4, lanes + 1, dtype=torch.int64, device=device)
        self.alive = torch.zeros(lanes + 1, dtype=torch.bool, device=device)

    def restore(self, lane, completion):
        """Writes what a row drew before it was preempted into its new lane."""
        for line, drawn in ((self.token[lane, 1:], completion.tokens), (self.logprob[lane], completion.logprobs),
                            (self.full_logprob[lane], completion.full_logprobs)):
            line[:len(drawn)] = torch.from_numpy(drawn)


def merge_projections(model):
    """Makes each block's q, k, v one product in place, and its gate, up another. Their weights become views of one
    tensor: to copy another role's weights in works as before, but the model can no more be moved or cast."""
    for block in model.layers:
        attention, mlp = block.self_attn, block.mlp
        attention.qkv = one_product(attention.q_proj, attention.k_proj, attention.v_proj)
        mlp.gate_up = one_product(mlp.gate_proj, mlp.up_proj)


def one_product(*linears):
    """A function that computes these linear layers of the same input by one product."""
    sizes = [linear.out_features for linear in linears]

    def merged(name):
        whole = torch.cat([getattr(linear, name).detach() for linear in linears])
        for linear, part in zip(linears, whole.split(sizes)):
            setattr(linear, name, torch.nn.Parameter(part, requires_grad=getattr(linear, name).requires_grad))
        return whole

    weight, bias = merged("weight"), None if linears[0].bias is None else merged("bias")
    return lambda x: F.linear(x, weight, bias).split(sizes, dim=-1)


def compile_blocks(model, **options):
    """Compiles each block in place but for its attention and o_proj, which fuses norms, rotation and activation."""
    for block in model.layers:
        block.input_layernorm.forward = compiled(block.input_layernorm.forward, **options)
        block.self_attn.project = compiled(block.self_attn.project, **options)
        block.feed_forward = compiled(block.feed_forward, **options)


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


class Stream:
    """Prints completions one after the other, while all of them grow at the same time."""

    def __init__(self, tokenizer, n):
        self.tokenizer, self.grown, self.current, self.printed = tokenizer, [([], False)] * n, 0, 0

    def watch(self, _, j, tokens, ended):
        self.grown[j] = tokens, ended
        for tokens, ended in self.grown[self.current:] if j == self.current else []:
            text = self.tokenizer.decode(tokens)
            if ended or not text.endswith("\ufffd"):  # a character may need more than one token
                print(printable(text[self.printed:]), end="", flush=True)
                self.printed = max(self.printed, len(text))
            if not ended:
                break
            self.current, self.printed = self.current + 1, 0
            print(f"\n--- {self.current} of {len(self.grown)}: {len(tokens)} tokens", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", required=True, help="what the user says")
    parser.add_argument("--kv_gb", "--kv-gb", type=float, help="most that the key/value cache takes, in 10^9 bytes")
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    for name, default, about in (("model", "tiny", "Hugging Face folder or Hub id"), ("system", system, "its message"),
                                 ("n", 1, "completions"), ("max_tokens", 256, "most tokens of a completion"),
                                 ("temperature", 1.0, "0 is greedy"), ("top_p", 1.0, "1 keeps all"),
                                 ("top_k", 0, "0 keeps all"), ("seed", 0, "of the draws")):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{about} (default {default})")
    args = parser.parse_args()
    try:
        sampler = Sampler.load(args.model, kv_gb=args.kv_gb)
        prompt, stream = sampler.tokenizer.chat(args.system, args.prompt), Stream(sampler.tokenizer, args.n)
        completions, = sampler.generate([prompt], args.n, args.max_tokens, args.temperature, args.top_p, args.top_k,
                                        args.seed, watch=stream.watch)
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"sample.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\nsample.py: stopped")
    for i, c in enumerate(completions, 1):
        print(f"{i}: mean logprob {np.mean(c.logprobs):.3f}{'' if c.finished else ', cut off at --max_tokens'}")


if __name__ == "__main__":
    main()

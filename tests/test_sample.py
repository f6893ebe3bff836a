"""The sampler against its plain twin, transformers and a full forward pass, and against itself in other layouts and
processes."""

import re
import signal
import subprocess
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from processes import run_processes

from grpo import copy_weights
from kernels.draw import truncate
from model import ModelConfig, Tokenizer, Transformer, load, save
from pages import PagedCache, Scheduler, group_rows, shard
from sample import GRAPH_SIZES, Sampler, generate_plain, merge_projections

PROMPTS = [[5, 9, 11], [7], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], [5, 9, 11], [20, 21], [1] * 30, [2, 40, 17, 8]]
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
DTYPES = [np.int32, np.float32, np.float32]  # of a completion's tokens, logprobs and full_logprobs
STOPS = SimpleNamespace(stop_ids={0, 3}, vocab_size=50)
CONFIG = dict(model_type="qwen3", vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, head_dim=16, intermediate_size=48, tie_word_embeddings=True)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Transformer(ModelConfig.from_dict(CONFIG))
    torch.nn.init.normal_(model.embed_tokens.weight, std=0.3)
    return model


@pytest.fixture(autouse=True)
def little_room(monkeypatch):
    """Fewer pages left free than in use, so that small caches preempt."""
    monkeypatch.setattr("pages.WATERMARK", 2)


def flat(result):
    return [c for group in result for c in group]


def drawn(completions):
    """The tokens of each, as lists."""
    return [c.tokens.tolist() for c in completions]


def small_cache(model, pages, page_size):
    """The kv_gb of a cache of that many pages."""
    return (pages + 0.5) * PagedCache.bytes_of_page(model.config, page_size, model.embed_tokens.weight.dtype) / 1e9


def sampler_under_pressure(model, max_tokens, tokenizer=STOPS, page_size=4):
    """Eight lanes, and pages for little more than the longest row, so that rows are preempted."""
    pages = (max(map(len, PROMPTS)) - 1 + max_tokens) // page_size + 1 + 2
    return Sampler(model, tokenizer, 8, small_cache(model, pages, page_size), page_size)


@pytest.mark.parametrize("pressure", [False, True])
@pytest.mark.parametrize("family, max_rows", [("qwen3", 100), ("qwen3", 2), ("llama", 3)])
def test_greedy_equals_transformers(tmp_path, family, max_rows, pressure):
    """Mixed prompt lengths: all rows at once, rows that wait for a lane, rows that are preempted for lack of pages."""
    torch.manual_seed(1)
    shape = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                 intermediate_size=48, eos_token_id=0, bos_token_id=1, pad_token_id=0, initializer_range=0.3)
    if family == "qwen3":
        theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(head_dim=16, **shape))
    else:
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))
    theirs.save_pretrained(tmp_path / "m")
    model, tokenizer = load(tmp_path / "m"), SimpleNamespace(stop_ids={0}, vocab_size=40)
    sampler = sampler_under_pressure(model, 25, tokenizer) if pressure else Sampler(model, tokenizer, max_rows)
    got = flat(sampler.generate(PROMPTS, max_tokens=25, temperature=0))
    assert bool(sampler.preemptions) == pressure
    for prompt, completion in zip(PROMPTS, got):
        ids = torch.tensor([prompt])
        expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=25)
        expected = expected[0, len(prompt):].tolist()
        assert completion.tokens.tolist() == expected
        assert completion.finished == (expected[-1] == 0)


@pytest.mark.parametrize("params", [{}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 5}, {"temperature": 0}], ids=str)
def test_paged_equals_plain(model, params):
    """Token for token in fp32, with rows that share prompts, wait and are preempted. The fourth prompt is the first
    again, and its completions are the plain twin's next ones. (Draws within rounding of a boundary may differ; none
    does here.)"""
    sampler = sampler_under_pressure(model, 20)
    got = sampler.generate(PROMPTS, n=3, max_tokens=20, seed=4, **params)
    assert sampler.preemptions
    for i, (prompt, group) in enumerate(zip(PROMPTS, got)):
        expected = generate_plain(model, STOPS, prompt, n=6, max_tokens=20, seed=4, **params)
        for mine, plain in zip(group, expected[3:] if i == 3 else expected):
            assert mine.tokens.tolist() == plain.tokens.tolist() and mine.finished == plain.finished
            np.testing.assert_allclose(mine.logprobs, plain.logprobs, atol=1e-4)
            np.testing.assert_allclose(mine.full_logprobs, plain.full_logprobs, atol=1e-4)
            assert [x.dtype for x in (mine.tokens, mine.logprobs, mine.full_logprobs)] == DTYPES


def assert_logprobs_equal_full_forward_pass(model, groups, params, tolerance):
    """Under the distribution that each token was drawn from (temperature 1 for greedy), and before truncation."""
    for prompt, group in zip(PROMPTS, groups):
        for c in group:
            ids = torch.tensor([prompt + c.tokens.tolist()])
            logits = model.logits(model(ids))[0, len(prompt) - 1:-1].float() / (params.get("temperature") or 1)
            kept = truncate(logits, params.get("top_k", 0), params.get("top_p", 1))
            for mine, scored in ((c.logprobs, kept), (c.full_logprobs, logits)):
                expected = scored.log_softmax(-1).gather(1, torch.tensor(c.tokens).long()[:, None])[:, 0]
                np.testing.assert_allclose(mine, expected.detach(), atol=tolerance)


@pytest.mark.parametrize("pressure", [False, True])
@pytest.mark.parametrize("params", [{}, {"temperature": 0.7}, {"temperature": 1.2, "top_k": 9, "top_p": 0.8},
                                    {"temperature": 0}])
def test_logprobs_equal_a_full_forward_pass(model, params, pressure):
    """Every token of every row, of preempted rows too."""
    sampler = sampler_under_pressure(model, 20) if pressure else Sampler(model, STOPS, 4)
    got = sampler.generate(PROMPTS, n=3, max_tokens=20, seed=4, **params)
    assert bool(sampler.preemptions) == pressure
    assert_logprobs_equal_full_forward_pass(model, got, params, 1e-4)


@pytest.mark.parametrize("pressure", [False, True])
def test_logprobs_in_bf16(pressure):
    """In bf16 two ways of computing the same logits round differently; on logits of size 1, as here, by less than
    2e-2."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig.from_dict(CONFIG)).to(torch.bfloat16)
    torch.nn.init.normal_(model.embed_tokens.weight, std=0.05)
    sampler = sampler_under_pressure(model, 20) if pressure else Sampler(model, STOPS)
    got = sampler.generate(PROMPTS, n=3, max_tokens=20, seed=4)
    assert bool(sampler.preemptions) == pressure
    assert_logprobs_equal_full_forward_pass(model, got, {}, 2e-2)


def test_completions_end_at_a_stop_token_or_the_limit(model):
    completions = flat(Sampler(model, STOPS).generate(PROMPTS, n=20, max_tokens=15))
    assert any(c.finished for c in completions) and any(not c.finished for c in completions)
    for c in completions:
        stops = [t in STOPS.stop_ids for t in c.tokens]
        assert not any(stops[:-1]) and stops[-1] == c.finished and len(c.logprobs) == len(c.tokens)
        assert c.finished or len(c.tokens) == 15


LAYOUTS = {  # max_rows, page_size, pages (None: as many as are needed)
    "one by one": (1, 16, None), "three": (3, 16, None), "all": (1000, 16, None), "pages of one": (35, 1, None),
    "pages of 64": (35, 64, None), "pressure": (35, 4, 60), "great pressure": (35, 1, 52), "odd pages": (20, 7, 20)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("params", [{}, {"top_p": 0.9}])
def test_draws_depend_on_seed_and_prompt_alone(model, layout, params):
    """The same rows draw the same tokens in fp32 whatever the batch size, the page size, the memory and the order of
    the prompts. (Draws within rounding of a boundary may differ; there are none among these 1,400.)"""
    rows, page_size, pages = LAYOUTS[layout]
    expected = Sampler(model, STOPS, 35).generate(PROMPTS, n=5, max_tokens=20, seed=8, **params)
    sampler = Sampler(model, STOPS, rows, pages and small_cache(model, pages, page_size), page_size)
    order = [6, 2, 0, 5, 1, 3, 4]  # PROMPTS[0] == PROMPTS[3] keep their order
    got = sampler.generate([PROMPTS[i] for i in order], n=5, max_tokens=20, seed=8, **params)
    assert [drawn(group) for group in got] == [drawn(expected[i]) for i in order]
    assert bool(sampler.preemptions) == ("pressure" in layout or layout == "odd pages")


def test_draws_of_equal_prompts_and_other_seeds_differ(model):
    sampler = Sampler(model, STOPS)
    tokens = drawn(flat(sampler.generate(PROMPTS, n=5, max_tokens=20, seed=8)))
    assert len({tuple(t) for t in tokens[:5] + tokens[15:20]}) > 5  # PROMPTS[0] == PROMPTS[3]
    assert drawn(flat(sampler.generate(PROMPTS, n=5, max_tokens=20, seed=9))) != tokens


def test_real_draws_count_those_that_differ(tiny):
    """640 completions of the tiny model in two layouts: rows may part only at a draw within 1e-5 of a boundary of the
    CDF."""
    tokenizer, model = Tokenizer(tiny), load(tiny)
    prompts = [tokenizer.chat(SYSTEM, f"What is {i} + {2 * i} - 8?") for i in range(10, 74)]
    one, two = (Sampler(model, tokenizer, rows, page_size=page_size).generate(prompts, n=10, max_tokens=80, seed=1)
                for rows, page_size in ((640, 16), (37, 5)))
    parted = 0
    for prompt, a, b in zip([p for p in prompts for _ in range(10)], drawn(flat(one)), drawn(flat(two))):
        if a != b:
            parted += 1
            at = next(i for i, (x, y) in enumerate(zip(a, b)) if x != y)
            probs = model.logits(model(torch.tensor([prompt + a[:at]])))[0, -1].double().softmax(-1)
            low, high = sorted((a[at], b[at]))
            assert probs[low + 1:high].sum() < 1e-5
    assert parted <= 3


@pytest.mark.parametrize("pages", [None, 30])
def test_the_path_of_cuda_with_a_stand_in_for_the_graph(model, pages):
    """Bursts of steps between syncs, batches padded to the ladder and fixed input tensors draw what single steps do."""
    expected = Sampler(model, STOPS, 13).generate(PROMPTS, n=5, max_tokens=20, seed=8)
    sampler = Sampler(model, STOPS, 13, pages and small_cache(model, pages, 4), 4)
    sampler.use_graphs, sampler.burst, sizes = True, 8, []

    def capture(*inputs):
        inputs = [x.clone() for x in inputs]
        sizes.append(len(inputs[0]))
        logits = sampler._forward(*inputs)
        return SimpleNamespace(replay=lambda: logits.copy_(sampler._forward(*inputs))), inputs, logits

    sampler._capture = capture
    for _ in range(2):  # the second time on the graphs of the first
        got = sampler.generate(PROMPTS, n=5, max_tokens=20, seed=8)
        assert drawn(flat(got)) == drawn(flat(expected))
        assert set(sizes) <= set(GRAPH_SIZES) and len(sizes) == len(set(sizes)) and max(sizes) == (8 if pages else 16)
        assert bool(sampler.preemptions) == bool(pages)


def test_pages_are_owned_once_and_all_come_back():
    """Random lengths with few pages: every page of a running row is its own, or a full page of its prompt;
    each row ends once; at the end all pages are free."""
    rng, preemptions = np.random.default_rng(0), []
    for page_size, burst in ((1, 1), (4, 1), (4, 8), (16, 3)):
        prompts = [tuple(rng.integers(0, 9, rng.integers(1, 40))) for _ in range(30)]
        limits = rng.integers(1, 60, len(prompts)).tolist()
        groups = shard(group_rows(prompts, 7, limits), 0, 1)
        lengths = {row: rng.integers(1, limit + 1) for group in groups for row, _, limit in group.rows}
        pages = (39 + 60) // page_size + 10
        scheduler, ended = Scheduler(groups, 16, pages, page_size, burst), []
        while scheduler.waiting or len(scheduler.running):
            scheduler.admit()
            scheduler.grow()
            running = scheduler.running
            assert len(running) and (scheduler.count[running] < scheduler.limit[running]).all()
            owners = {}
            for lane in running:
                group = scheduler.occupant[lane][0]
                reach = scheduler.start[lane] + min(scheduler.count[lane] + burst - 1, scheduler.limit[lane])
                assert scheduler.page_count[lane] * page_size > reach
                for i, page in enumerate(scheduler.block_table[lane, :scheduler.page_count[lane]]):
                    shared = (i + 1) * page_size <= group.prefix_length
                    owner = (group, i) if shared else lane
                    assert page != 0 and owners.setdefault(page, owner) == owner
            rows = [scheduler.occupant[lane][1].index for lane in running]
            scheduler.count[running] = np.minimum(scheduler.count[running] + burst, [lengths[row] for row in rows])
            over = [scheduler.count[lane] == lengths[row] for lane, row in zip(running, rows)]
            ended += [row for row, end in zip(rows, over) if end]
            scheduler.finish(running[over])
        assert sorted(ended) == list(range(210))
        preemptions.append(scheduler.preemptions)
        assert len(scheduler.free_pages) == scheduler.pages and not scheduler.ref_count.any()
        assert sorted(scheduler.free_pages) == list(range(1, pages))
    assert min(preemptions[:3]) > 0


@pytest.mark.parametrize("count", [1, 3, 20, 300])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_row_is_in_one_shard_and_long_prompts_are_spread(count, world):
    prompts = [[1] * (1 + 13 * i % 29) + [i] for i in range(count)]
    shares = [shard(group_rows(prompts, 8, [5] * count), rank, world) for rank in range(world)]
    rows = [[row for group in share for row, _, _ in group.rows] for share in shares]
    assert sorted(r for share in rows for r in share) == list(range(8 * count))
    lengths = [sum(len(prompts[r // 8]) for r in share) for share in rows]
    assert max(lengths) - min(lengths) <= 8 * 30 and max(map(len, rows)) - min(map(len, rows)) <= 8


def test_limits_by_prompt(model):
    limits = [9, 1, 4, 3, 2, 7, 5]
    got = Sampler(model, SimpleNamespace(stop_ids=set(), vocab_size=50), 4).generate(PROMPTS, n=2, max_tokens=limits)
    assert [[len(c.tokens) for c in group] for group in got] == [[x, x] for x in limits]
    with pytest.raises(ValueError, match="max_tokens has 2 numbers for 7 prompts"):
        Sampler(model, STOPS).generate(PROMPTS, max_tokens=[1, 2])


def test_watch_sees_every_row_grow_to_its_end(model):
    seen, ends = {}, []

    def watch(i, j, tokens, ended):
        seen[i, j] = tokens.tolist()
        if ended:
            ends.append((i, j))

    sampler = sampler_under_pressure(model, 15)
    got = sampler.generate(PROMPTS, n=3, max_tokens=15, seed=2, watch=watch)
    assert seen == {(i, j): tokens for i, group in enumerate(got) for j, tokens in enumerate(drawn(group))}
    assert sorted(ends) == sorted(seen) and sampler.preemptions


def test_a_preempted_row_goes_on_where_it_was(model):
    """No row has fewer tokens than it had, and each is decoded once; the prompts and tokens of preempted rows are
    prefilled again."""
    decoded, prefilled, seen = [], [], {}
    sampler = sampler_under_pressure(model, 20)
    decode, prefill = sampler._decode, sampler._prefill
    sampler._decode = lambda rows, lane_A, *more: decoded.append(len(lane_A)) or decode(rows, lane_A, *more)
    sampler._prefill = lambda prefixes: prefilled.extend(prefixes) or prefill(prefixes)

    def watch(i, j, tokens, ended):
        assert tokens.tolist()[:len(seen.get((i, j), []))] == seen.get((i, j), [])
        seen[i, j] = tokens.tolist()

    got = flat(sampler.generate(PROMPTS, n=3, max_tokens=20, seed=4, watch=watch))
    assert sum(decoded) == sum(len(c.tokens) for c in got)
    assert sum(group.drawn > 0 for group, _ in prefilled) >= sampler.preemptions > 0


@pytest.mark.parametrize("family", ["qwen3", "qwen2"])  # qwen2: q, k and v have biases
def test_merged_projections_are_the_models_own(family, tmp_path):
    """One product for q, k, v and one for gate, up; the same parameters, which another role's weights are copied into
    and which are saved as they were."""
    torch.manual_seed(2)
    plain, other, merged = (Transformer(ModelConfig.from_dict(CONFIG | {"model_type": family})) for _ in range(3))
    tokens = torch.tensor([[5, 9, 11, 30, 2]])
    names = [name for name, _ in merged.named_parameters()]
    for source in (plain, other):
        copy_weights(source, merged)
        if source is plain:
            merge_projections(merged)
        assert torch.allclose(merged(tokens), source(tokens), atol=1e-5)
        assert [name for name, _ in merged.named_parameters()] == names
        assert all(p.equal(q) for p, q in zip(merged.parameters(), source.parameters()))
    attention = merged.layers[0].self_attn
    assert attention.q_proj.weight.untyped_storage().data_ptr() == attention.v_proj.weight.untyped_storage().data_ptr()
    assert not torch.allclose(plain(tokens), other(tokens), atol=1e-2)
    save(merged, tmp_path / "merged")
    assert all(p.equal(q) for p, q in zip(load(tmp_path / "merged").parameters(), other.parameters()))


def test_keep_is_what_is_given_back(model):
    sampler = Sampler(model, STOPS, 5)
    got = sampler.generate(PROMPTS, n=3, max_tokens=20, seed=4)
    kept = sampler.generate(PROMPTS, n=3, max_tokens=20, seed=4, keep=lambda i, j, c: (i, j, sum(c.tokens), c.finished))
    assert kept == [[(i, j, sum(c.tokens), c.finished) for j, c in enumerate(group)] for i, group in enumerate(got)]


def test_the_cache_is_given_back_and_taken_anew_in_the_size_that_is_needed(model):
    sampler = Sampler(model, STOPS, 5)
    few = drawn(flat(sampler.generate(PROMPTS, max_tokens=5)))
    small = sampler.cache
    assert sampler.generate(PROMPTS, max_tokens=5) and sampler.cache is small
    sampler.generate(PROMPTS, max_tokens=200)
    assert sampler.cache.keys.shape[2] > small.keys.shape[2]
    freed = weakref.ref(sampler.cache)
    sampler.release()
    assert freed() is None
    assert drawn(flat(sampler.generate(PROMPTS, max_tokens=5))) == few and sampler.cache.keys.shape == small.keys.shape


def test_a_whole_cache_keeps_no_lane_waiting(model):
    """Where every row has room to its end, pages that are left free for growth must not keep rows from starting."""
    sampler, sizes = Sampler(model, STOPS, 200, page_size=2), []
    decode = sampler._decode
    sampler._decode = lambda rows, lane_A, *more: sizes.append(len(lane_A)) or decode(rows, lane_A, *more)
    sampler.generate([[5, 6]], n=200, max_tokens=9)
    assert sizes[0] == 200 and not sampler.preemptions


def test_too_small_a_cache_is_one_line(model):
    says = r"cache has room for 32 positions, but one row may need 64; give it more \(kv_gb\)"
    with pytest.raises(ValueError, match=says):
        Sampler(model, STOPS, 8, small_cache(model, 4, 16)).generate(PROMPTS, max_tokens=30)


def test_the_bar_counts_tokens(model, capfd, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    completions = flat(Sampler(model, STOPS, 8).generate(PROMPTS, n=9, max_tokens=20, progress="asking"))
    shown = capfd.readouterr().err
    assert re.search(r"asking: [0-9.]+k? tokens, [0-9.]+k?/s, \d+/63 rows, \d+ running, \d+% pages", shown)
    assert len(completions) == 63


def test_the_command_streams_and_stops_cleanly(tiny):
    """Text comes while later completions still grow, in the order of the completions; Ctrl-C ends it in one line."""
    command = [sys.executable, str(tiny.parent / "sample.py"), "--model", str(tiny), "--prompt", "What is 17 + 25 - 8?"]
    out = subprocess.run([*command, "--n", "3", "--seed", "1"], capture_output=True, text=True, check=True).stdout
    tokenizer = Tokenizer(tiny)
    expected = Sampler(load(tiny), tokenizer).generate([tokenizer.chat(SYSTEM, "What is 17 + 25 - 8?")], 3, seed=1)[0]
    at = 0
    for i, c in enumerate(expected, 1):
        at = out.index(f"{tokenizer.decode(c.tokens)}\n--- {i} of 3: {len(c.tokens)} tokens", at)
    process = subprocess.Popen([*command, "--n", "20000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.read(1)  # it is at work
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode and err.strip() == "sample.py: stopped"


def test_a_groups_prompt_is_computed_once(model):
    counted = []
    forward = model.forward
    model.forward = lambda tokens, *a, **k: counted.append(tokens.shape) or forward(tokens, *a, **k)
    try:
        Sampler(model, STOPS, 4).generate([PROMPTS[2]] * 3, n=6, max_tokens=5)
    finally:
        del model.forward
    assert [shape for shape in counted if shape[1] > 1] == [(1, len(PROMPTS[2]) - 1)]


def test_first_token_may_be_the_only_one(model):
    completions = flat(Sampler(model, STOPS, 2).generate(PROMPTS, n=3, max_tokens=1))
    assert all(len(c.tokens) == 1 for c in completions)


def test_bad_calls(model):
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        Sampler(model, STOPS).generate([[1], []])
    for name, value in (("max_tokens", 0), ("n", 0), ("temperature", -1.0), ("top_k", -1), ("top_p", 0.0),
                        ("top_p", 1.5)):
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            Sampler(model, STOPS).generate([[1]], **{name: value})
    assert Sampler(model, STOPS).generate([]) == []
    with pytest.raises(ValueError, match="tokenizer has 51 tokens, the model only 50"):
        Sampler(model, SimpleNamespace(stop_ids={0}, vocab_size=51))


def test_nan_names_the_row(model):
    """Token 45's embedding is NaN, which only the third prompt contains. `watch` is not shown its rows as ended: who
    keeps completions as they end would keep them."""
    broken = Transformer(model.config)
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.lm_head = torch.nn.Linear(32, 50, bias=False)
        broken.embed_tokens.weight[45] = torch.nan
    ended = []
    with pytest.raises(FloatingPointError, match="row [45]$"):
        Sampler(broken, STOPS).generate([[1], [2], [45, 2]], n=2, max_tokens=3,
                                        watch=lambda i, j, tokens, end: ended.append(i) if end else None)
    assert 2 not in ended


def _sample(rank, world):
    torch.manual_seed(0)
    config = dict(model_type="llama", vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                  num_key_value_heads=1, intermediate_size=48, tie_word_embeddings=False)
    sampler = Sampler(Transformer(ModelConfig.from_dict(config)), STOPS)
    return [tokens for prompts in (PROMPTS[:1], PROMPTS)
            for tokens in drawn(flat(sampler.generate(prompts, n=4, max_tokens=12, seed=2)))]


@pytest.mark.slow
def test_two_processes_draw_what_one_does():
    """The rows of one prompt, and those of several; each process gets all completions, whole and in order."""
    one, two = run_processes(1, _sample), run_processes(2, _sample)
    assert two[0] == one[0] and two[1] == two[0]

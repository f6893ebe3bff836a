"""The CUDA path: compiled kernels, graphs, bf16 over fp32 weights, memory given back. `pytest -m gpu` runs it on a card.
Without one, the same tests are rehearsed on the CPU, in fp32, where nothing is compiled, nobody counts memory, and a stand-in for
CUDA's graphs computes again at each replay what was computed while it was captured."""

import gc
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from bench_gpu import QWEN3_4B, head, peak, random_model

from batches import Policy, Rollout, pad
from common import compute_dtype, start_processes, this_device
from grpo import GRPOConfig, Trainer, copy_weights, whole
from model import ModelConfig, Tokenizer, load
from plan import state_memory, update_memory
from sample import Sampler
from tasks.mathematics import SOLVER_SYSTEM

TINY = Path(__file__).parents[1] / "tiny"
DEVICE = this_device()
CUDA, DTYPE = DEVICE.type == "cuda", compute_dtype(DEVICE)
TOKENIZER = Tokenizer(TINY)
ENDLESS = SimpleNamespace(stop_ids=set(), vocab_size=TOKENIZER.vocab_size)  # rows end at max_tokens alone
PROMPTS = [TOKENIZER.chat(SOLVER_SYSTEM, f"What is {i} + 25 - 8?") for i in range(40)]
pytestmark = pytest.mark.gpu
needs_cuda = pytest.mark.skipif(not CUDA, reason="no CUDA device")


class Graph:
    """The stand-in for torch.cuda.CUDAGraph, and for a stream."""

    captured = None  # the graph that is being captured

    @classmethod
    @contextmanager
    def capture(cls, graph, pool, stream, capture_error_mode):
        assert cls.captured is None and (pool is None or pool == "the pool")
        cls.captured = graph
        yield
        cls.captured = None

    def pool(self):
        return "the pool"

    def wait_stream(self, _):
        pass


@pytest.fixture(scope="module", autouse=True)
def stand_ins():
    forward = Sampler._forward

    def forward_or_capture(*args):
        if Graph.captured:
            Graph.captured.replay = lambda: forward(*args)
        return forward(*args)

    with pytest.MonkeyPatch.context() as patch:
        if not CUDA:
            patch.setattr(Sampler, "_forward", forward_or_capture)
            for name, value in (("CUDAGraph", Graph), ("graph", Graph.capture), ("stream", lambda _: nullcontext()),
                                ("current_stream", Graph)):
                patch.setattr(torch.cuda, name, value)
        yield


def tiny(dtype=DTYPE):
    return load(TINY, DEVICE, dtype)


def make(model, tokenizer=TOKENIZER, **settings):
    """The sampler as it is on CUDA."""
    sampler = Sampler(model, tokenizer, 64, **settings)
    if not CUDA:
        sampler.use_graphs, sampler.burst, sampler.stream = True, 8, Graph()
    return sampler


def sample(sampler, prompts=PROMPTS, **how):
    return [[c.tokens.tolist() for c in group] for group in sampler.generate(prompts, n=4, max_tokens=64, seed=1, **how)]


def rows_that_differ(got, expected):
    return sum(a != b for x, y in zip(got, expected) for a, b in zip(x, y))


def rollouts(prompts):
    """Four rows of each prompt, drawn from the base model, with advantages of either sign."""
    groups = make(tiny()).generate(prompts, n=4, max_tokens=64, seed=1)
    rows = [(prompt, c) for prompt, group in zip(prompts, groups) for c in group]
    return [Rollout(prompt, c.tokens, 1.0 if i % 2 else -1.0, c.full_logprobs) for i, (prompt, c) in enumerate(rows)]


def allocated():
    """Bytes of all tensors on the device."""
    gc.collect()
    return torch.cuda.memory_allocated() if CUDA else 0


# ---- the sampler


def test_sampled_logprobs_are_those_of_a_forward_pass():
    """Both in bf16, where logits between 16 and 32 step by 1/8. So a single logprob may be off by a step or two, and only
    statistics hold. The same comparison in bf16 on a CPU gives a mean of 0.002, and 0.05 at the 99th percentile; a row at a
    wrong position, or one that reads a wrong page, gives a mean above 1."""
    model, off = tiny(), []
    for prompt, group in zip(PROMPTS, make(model).generate(PROMPTS, n=4, max_tokens=64, seed=1)):
        ids = torch.tensor([[*prompt, *group[0].tokens]], device=DEVICE)
        with torch.no_grad():
            logprobs = model.logits(model(ids)).float().log_softmax(-1)[0, len(prompt) - 1:-1]
        expected = logprobs.gather(1, ids[0, len(prompt):, None])[:, 0].cpu()
        off.append((torch.as_tensor(group[0].full_logprobs) - expected).abs())
    off = torch.cat(off)
    assert len(off) > 400 and off.mean() < 0.01 and off.quantile(0.99) < 0.2


@pytest.mark.parametrize("how", [{"top_p": 0.9}, {}, {"temperature": 0}][:3 if CUDA else 1])
def test_graphs_draw_what_single_steps_do(how):
    """In fp32: graphs, bursts of 8, compiled blocks and preempted rows against the plain step, for 64 rows of 64 tokens.
    With noise of 1e-3 in all logits, a hundred times what the order of summation changes, 1 row of 64 differs (so on a CPU);
    were the preempted rows wrong, twenty would."""
    plain = make(tiny(torch.float32), ENDLESS)
    plain.use_graphs, plain.burst = False, 1
    expected, model = sample(plain, PROMPTS[:16], **how), tiny(torch.float32)
    ample, pressed = make(model, ENDLESS), make(model, ENDLESS, kv_gb=0.002, page_size=4)
    for sampler in (ample, pressed):
        assert rows_that_differ(sample(sampler, PROMPTS[:16], **how), expected) <= 3
    assert not ample.preemptions and pressed.preemptions >= 10


def test_graphs_serve_another_role_and_a_cache_taken_anew():
    other = tiny(torch.float32)
    with torch.no_grad():
        other.norm.weight.mul_(0.5)
    expected = sample(make(other))
    sampler = make(tiny(torch.float32))
    first, graphs = sample(sampler), dict(sampler.graphs)
    copy_weights(other, sampler.model)
    second = sample(sampler)
    assert second != first and graphs and all(sampler.graphs[size] is graph for size, graph in graphs.items())
    assert rows_that_differ(second, expected) <= 4
    sampler.release()
    assert rows_that_differ(sample(sampler), expected) <= 4


def test_release_gives_all_memory_back():
    sampler = make(tiny())
    sample(sampler)  # compiles, and makes workspaces that stay
    sampler.release()
    before = allocated()
    for prompts in (PROMPTS, PROMPTS[:8]):
        sample(sampler, prompts)
        assert sampler.cache is not None and (not CUDA or allocated() > before + 2**20)
        sampler.release()
        assert sampler.cache is None and not sampler.graphs and abs(allocated() - before) < 2**20


# ---- the trainer


@pytest.fixture(scope="module")
def one_process():
    """The group that a run's single process makes on CUDA, so that FSDP shards the weights; on a CPU one like it."""
    if CUDA:
        start_processes()
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def two_steps(settings, rows):
    """Two GRPO steps with these settings, with samples drawn after each -> (their metrics, bytes left at the end)."""
    sampler, trainer = make(tiny()), Trainer(tiny(torch.float32), GRPOConfig(**settings), 1e-4, DEVICE)
    before, metrics = whole(trainer.policy.model.norm.weight).clone(), []
    for _ in range(2):
        copy_weights(load(TINY), sampler.model)
        metrics.append(trainer.step(rows, sampler.model))
        assert not before.equal(whole(trainer.policy.model.norm.weight))
        copy_weights(trainer.policy.model, sampler.model)
        if settings.get("offload") == "sampling":
            trainer.park()
        sampler.generate(PROMPTS[:2], n=2, max_tokens=8)
        sampler.release()
    trainer.close()
    del sampler
    return metrics, allocated()


@pytest.fixture(scope="module")
def plain(one_process):
    """64 rows, and what the plain trainer makes of them. It also makes the workspaces that stay."""
    rows = rollouts(PROMPTS[:16])
    return rows, *two_steps({"reshard": True}, rows)


@pytest.mark.parametrize("settings", [{"reshard": True}, {"activation_checkpointing": True, "compile_blocks": CUDA},
                                      {"offload": "sampling"}, {"offload": "true"}, {"reshard": False}])
def test_every_setting_gives_the_plain_metrics_and_leaves_no_memory(plain, settings):
    """In bf16 the sampler's and the trainer's logprobs agree to a KL of about 5e-5 (so on a CPU), and every setting gives the
    metrics of the plain steps, sums over 1,100 tokens, but for the rounding of bf16, 2^-8."""
    rows, expected, left = plain
    got, after = two_steps(settings, rows)
    for metrics, those in zip(got, expected):
        assert metrics["grad_norm"] == pytest.approx(those["grad_norm"], rel=0.05)
        assert metrics["entropy"] == pytest.approx(those["entropy"], rel=0.02)
        assert metrics["kl"] == pytest.approx(those["kl"], rel=0.3, abs=2e-4)
    assert got[0]["sampler_kl"] < 1e-3 and got[0]["kl"] < 1e-3
    assert after <= left + 2**20


def test_a_shared_prefix_gives_the_plain_forward():
    """The Challenger's one prompt and, of the Solver's prompts, the system message. In bf16, logprobs as above; gradients
    are compared as a whole, since single ones may be all rounding."""
    rows, policy = rollouts(PROMPTS[:16]), Policy(tiny())
    for chosen, least in ((rows[:4], 20), (rows[::4], 10)):
        batch = pad(chosen, DEVICE)
        assert batch.prefix >= least
        results = []
        for prefix in (batch.prefix, 0):
            logprobs, entropies = policy(batch.tokens_BT, batch.mask_BT, 1.0, prefix)
            policy.zero_grad()
            (logprobs.mean(1) * batch.advantage_B).sum().backward()
            gradient = torch.cat([p.grad.float().flatten() for p in policy.parameters()])
            results.append((logprobs.detach(), entropies, gradient))
        (shared, entropy, gradient), (plain, plain_entropy, plain_gradient) = results
        off, exact = (shared - plain)[batch.mask_BT].abs(), DTYPE == torch.float32
        assert off.mean() < (1e-5 if exact else 0.02) and off.quantile(0.99) < (1e-4 if exact else 0.3)
        assert entropy.sum().item() == pytest.approx(plain_entropy.sum().item(), rel=0.02)
        assert (gradient - plain_gradient).norm() < (1e-5 if exact else 0.1) * plain_gradient.norm()


def test_head_of_qwen3_in_less_than_2_gb():
    """Forward and backward of 32k tokens x 151,936 words, whose logits alone would be 10 GB."""
    config = ModelConfig.from_dict(QWEN3_4B if CUDA else QWEN3_4B | dict(vocab_size=300, hidden_size=16))
    call = head(config, DEVICE, 32_768 if CUDA else 100)
    assert peak(DEVICE, call) < 2e9


@needs_cuda
@pytest.mark.parametrize("checkpointing", [False, True])
def test_memory_is_within_a_tenth_of_the_plan(one_process, checkpointing):
    """Half a billion weights; micro-batches of 98 % of the budget, four rows of 2,048 tokens with a prompt in common; the peak
    of a second step by torch.cuda.max_memory_allocated."""
    config = ModelConfig.from_dict(QWEN3_4B | dict(hidden_size=1024, num_hidden_layers=16, num_attention_heads=16,
                                                   intermediate_size=3072))
    cfg = GRPOConfig(token_budget=8192, activation_checkpointing=checkpointing, reshard=True, kl_coef=0.0)
    before = allocated()
    trainer = Trainer(random_model(config.raw, DEVICE, torch.bfloat16), cfg, 1e-5)
    rows = [Rollout([1] * 48, [2] * 2000, 1.0)] * 16
    trainer.step(rows)
    allocated()
    torch.cuda.reset_peak_memory_stats()
    trainer.step(rows)
    measured = torch.cuda.max_memory_allocated() - before
    trainer.close()
    parts = state_memory(config, 1) | update_memory(config, cfg, 8192, 1, torch.bfloat16, True)
    planned = sum(parts.values())
    assert planned == pytest.approx(measured, rel=0.1)

"""GRPO's arithmetic by hand, its invariances, and a toy that it must learn."""

import gc
import math
import os
import shutil
import weakref
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from conftest import needs_triton
from processes import run_processes
from small_runs import flip
from torch.distributed.tensor import DTensor

import batches
import grpo
from batches import Policy, Rollout, common_prefix, micro_batches
from checkpoint import checkpoints
from grpo import GRPOConfig, copy_weights, group_advantages, grpo_loss
from kernels.logprob import LinearLogprob, linear_logprob_plain
from model import Block, ModelConfig, Transformer
from sample import Sampler


def small_model(seed=0, std=0.3, **changes):
    torch.manual_seed(seed)
    config = dict(model_type="qwen3", vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=2, head_dim=16, intermediate_size=48, tie_word_embeddings=True)
    model = Transformer(ModelConfig.from_dict(config | changes))
    torch.nn.init.normal_(model.embed_tokens.weight, std=std)
    return model


def Trainer(model, lr, mini_batches=1, average_rows=1, **settings):
    """A trainer whose reference is the model that it starts from."""
    trainer = grpo.Trainer(model, GRPOConfig(**settings), lr, None, mini_batches, average_rows)
    trainer.step = partial(trainer.step, reference=model)
    return trainer


def some_rollouts(count=11, seed=0, prefix=()):
    """Rollouts of random lengths, whose prompts all begin with `prefix`."""
    g = torch.Generator().manual_seed(seed)

    def ids(low, high):
        return torch.randint(1, 40, (int(torch.randint(low, high, (1,), generator=g)),), generator=g).tolist()

    return [Rollout([*prefix, *ids(1, 9)], [*ids(1, 15), 0], float(torch.randn(1, generator=g))) for _ in range(count)]


def values(metrics):
    """Metrics without what depends on the clock."""
    return {name: value for name, value in metrics.items() if name not in ("update_seconds", "update_tflops")}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def gradient(trainer, rollouts):
    """The gradient of a step, which the optimizer here leaves in place."""
    grads = []
    trainer.optimizer.step = lambda: grads.extend(p.grad.clone().flatten() for p in trainer.policy.parameters())
    trainer.step(rollouts)
    return torch.cat(grads)


def test_group_advantages_by_hand():
    """Rewards 1, 0, 0, 1: mean 1/2, unbiased std sqrt(1/3), so +- 0.866; a group of equal rewards has none."""
    advantages = group_advantages([[1.0, 0.0, 0.0, 1.0], [0.3, 0.3, 0.3, 0.3]])
    expected = math.sqrt(3) / 2
    assert torch.allclose(advantages, torch.tensor([[expected, -expected, -expected, expected], [0.0] * 4]), atol=1e-5)
    assert group_advantages([[0.7]]).tolist() == [[0.0]]
    without_std = group_advantages([[1.0, 0.0, 0.0, 1.0], [0.3, 0.3, 0.3, 0.3]], normalise_std=False)
    assert without_std.tolist() == [[0.5, -0.5, -0.5, 0.5], [0.0] * 4]


@pytest.mark.parametrize("N", range(1, 33))
def test_equal_rewards_have_no_advantage(N):
    """A regression: the fp32 mean of equal rewards is not always one of them, and the std of that, next to nothing, made
    advantages of up to 0.11 of it."""
    rewards = torch.linspace(-2, 2, 1001)[:, None].expand(-1, N)
    for normalise_std in (True, False):
        assert (group_advantages(rewards, normalise_std) == 0).all()


def test_loss_by_hand():
    """One row, A = 1, two tokens with ratios 2 (clipped to 1.2) and 1/2 (not clipped), KL 0 and 1 - ln 2 - ... by k3.

    surrogate = (1.2 + 0.5) / 2 = 0.85; the reference is twice as likely at the second token only: kl = 2 - ln 2 - 1.
    """
    logprobs = torch.tensor([[math.log(0.4), math.log(0.2)]])
    old = torch.tensor([[math.log(0.2), math.log(0.4)]])
    reference = torch.tensor([[math.log(0.4), math.log(0.4)]])
    loss, metrics = grpo_loss(logprobs, old, reference, torch.tensor([1.0]), torch.ones(1, 2), GRPOConfig(kl_coef=0.1))
    kl = (2 - math.log(2) - 1) / 2
    assert loss.item() == pytest.approx(-(0.85 - 0.1 * kl), abs=1e-6)
    assert metrics["kl"].item() == pytest.approx(kl, abs=1e-6)
    assert metrics["clip_high"].item() == 0.5 and metrics["clip_low"].item() == 0


def reference_loss(lp, old, ref, A, mask, cfg):
    """The specification, a token at a time."""
    rows = []
    for b in range(lp.shape[0]):
        terms = []
        trained = [t for t in range(lp.shape[1]) if mask[b, t]]
        of_row = torch.exp(sum(lp[b, t] - old[b, t] for t in trained) / len(trained))
        for t in trained:
            r = torch.exp(lp[b, t] - old[b, t]) if cfg.ratio == "token" else of_row
            s = torch.minimum(r * A[b], torch.clamp(r, 1 - cfg.clip_low, 1 + cfg.clip_high) * A[b])
            if cfg.clip_dual and A[b] < 0:
                s = torch.maximum(s, cfg.clip_dual * A[b])
            d = ref[b, t] - lp[b, t]
            terms.append(s - cfg.kl_coef * (torch.exp(d) - d - 1))
        rows.append(terms)
    if cfg.average == "token":
        flat = [x for terms in rows for x in terms]
        return -sum(flat) / len(flat)
    return -sum(sum(terms) / len(terms) for terms in rows) / len(rows)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize("kl_coef, low, high, dual, average", [
    (0.0, 1e9, 1e9, 0.0, "token"), (0.0, 0.2, 0.3, 0.0, "token"), (0.0, 0.2, 0.2, 1.5, "token"), (0.5, 1e9, 1e9, 0.0, "token"),
    (0.1, 0.2, 0.3, 3.0, "token"), (0.1, 0.2, 0.3, 3.0, "sequence")])
def test_loss_and_gradient_equal_the_reference(kl_coef, low, high, dual, average, ratio):
    """Each term alone, then all together, in float64, value and gradient."""
    torch.manual_seed(1)
    old, ref, lp = (-torch.rand(5, 7, dtype=torch.float64) * 3 for _ in range(3))
    A, mask = torch.randn(5, dtype=torch.float64), torch.rand(5, 7) < 0.7
    mask[:, 0] = True
    grads = []
    cfg = GRPOConfig(kl_coef=kl_coef, clip_low=low, clip_high=high, clip_dual=dual, average=average, ratio=ratio)
    for f in (lambda x: grpo_loss(x, old, ref, A, mask, cfg)[0],
              lambda x: reference_loss(x, old, ref, A, mask, cfg)):
        x = lp.clone().requires_grad_()
        loss = f(x)
        loss.backward()
        grads.append((loss.detach(), x.grad))
    assert torch.allclose(grads[0][0], grads[1][0], atol=1e-12)
    assert torch.allclose(grads[0][1], grads[1][1], atol=1e-12)
    assert (grads[0][1][~mask] == 0).all()


def test_the_common_prefix_leaves_out_the_last_token_of_a_prompt():
    assert common_prefix([Rollout([1, 2, 3], [4], 0.0), Rollout([1, 2, 5, 6], [4], 0.0)]) == 2
    assert common_prefix([Rollout([1, 2, 3], [3, 4], 0.0)] * 2) == 2  # of equal prompts, all but the last
    assert common_prefix([Rollout([1, 2], [4], 0.0), Rollout([1, 2, 5], [4], 0.0)]) == 1
    assert common_prefix([Rollout([1], [2], 0.0)] * 2) == common_prefix([Rollout([1, 2], [3], 0.0), Rollout([2, 2], [3], 0.0)]) == 0


def plain(batches):
    """The same micro-batches, whose rows are computed whole: the specification."""
    return [replace(batch, prefix=0) for batch in batches]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_a_shared_prefix_changes_nothing_in_fp64(monkeypatch, kv_heads, checkpointing):
    """Logprobs, entropies and gradients against rows computed whole, within 1e-12; prompts of one text, and of a common
    beginning; P from 1 to 30."""
    monkeypatch.setattr(batches, "linear_logprob", linear_logprob_plain)
    config = small_model(num_key_value_heads=kv_heads).config
    policy = Policy(Transformer(config, grpo.trained_block(False, checkpointing)).double())
    for prefix, rollouts in ((1, some_rollouts(prefix=[3])), (30, some_rollouts(prefix=range(1, 31))),
                             (7, [Rollout([5] * 8, r.completion, 0.0) for r in some_rollouts()])):
        batch, = micro_batches(rollouts, 10**6, "cpu")
        assert prefix <= batch.prefix < prefix + 3
        results = []
        for one in (batch, *plain([batch])):
            policy.zero_grad()
            logprobs, entropy = policy(one.tokens_BT, one.mask_BT, 0.7, one.prefix)
            (logprobs * torch.arange(logprobs.numel()).view_as(logprobs).cos()).sum().backward()
            results.append([logprobs, entropy, *(p.grad for p in policy.parameters())])
        for got, expected in zip(*results, strict=True):
            assert torch.allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_a_step_with_a_shared_prefix_is_the_plain_step(monkeypatch):
    """Weights after two steps within 1e-6, and the same metrics, in several micro-batches."""
    results = []
    for share in (True, False):
        if not share:
            monkeypatch.setattr(grpo, "micro_batches", lambda *args: plain(micro_batches(*args)))
        trainer = Trainer(small_model(), lr=2e-4, token_budget=150, kl_coef=0.1)
        rollouts = [some_rollouts(20, seed, prefix=range(1, 20)) for seed in (0, 1)]
        assert micro_batches(rollouts[0], 150, "cpu")[0].prefix >= 19
        results.append(([values(trainer.step(r, reference=small_model(9))) for r in rollouts], weights(trainer.policy)))
    (metrics, got), (expected_metrics, expected) = results
    assert (got - expected).abs().max() < 1e-6
    for a, b in zip(metrics, expected_metrics):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("average", ["token", "sequence", "rows"])
@pytest.mark.parametrize("mini_batches", [1, 3])
def test_micro_batches_change_nothing(average, mini_batches):
    """One row at a time or all at once: the same weights after two steps, within 1e-6."""
    results = []
    for budget in (1, 40, 10**6):
        model = small_model()
        trainer = Trainer(model, lr=2e-4, token_budget=budget, average=average, mini_batches=mini_batches, kl_coef=0.1,
                          average_rows=2)
        metrics = [trainer.step(some_rollouts(seed=s)) for s in (0, 1)]
        results.append((weights(trainer.policy), metrics))
    for w, metrics in results[1:]:
        assert (w - results[0][0]).abs().max() < 1e-6
        for a, b in zip(metrics, results[0][1]):
            assert values(a) == pytest.approx(values(b), rel=1e-5, abs=1e-5)
    assert (results[0][0] - weights(small_model())).abs().max() > 1e-4


@pytest.mark.parametrize("prefix", [(), range(1, 21)])
def test_micro_batches_hold_every_row_once_within_the_budget(prefix):
    rollouts, size = some_rollouts(30, prefix=prefix), 60 + len(prefix)
    found = micro_batches(rollouts, size, "cpu")
    for batch in found:
        B, T = batch.tokens_BT.shape
        assert batch.prefix + B * (T - batch.prefix) <= size or B == 1
    assert sum(len(b.tokens_BT) for b in found) == 30
    assert sum(int(b.mask_BT.sum()) for b in found) == sum(len(r.completion) for r in rollouts)
    assert len(found) <= 10  # as many without the prefix, which is computed once


def test_the_stop_token_is_trained_and_the_prompt_is_not():
    """The loss's gradient with respect to a token's logprob: nothing in the prompt, something at the stop token (id 0)."""
    rollout = Rollout([5, 0, 7], [9, 8, 0], 1.0)
    batch = micro_batches([rollout, Rollout([5], [4], 0.0)], 100, "cpu")[0]
    assert batch.mask_BT[0].tolist() == [False, False, False, True, True, True]
    assert batch.mask_BT[1].tolist() == [False, True, False, False, False, False]
    trainer = Trainer(small_model(), lr=1e-3)
    logprobs, _ = trainer.logprobs(trainer.policy, batch)
    expected = trainer.policy.model.logits(trainer.policy.model(batch.tokens_BT)).log_softmax(-1)[0, [2, 3, 4], [9, 8, 0]]
    assert torch.allclose(logprobs[0, 3:], expected, atol=1e-5)
    assert (logprobs[~batch.mask_BT] == 0).all()


def test_temperature_is_part_of_the_logprob():
    batch = micro_batches([Rollout([5, 6], [9, 8], 1.0)], 100, "cpu")[0]
    trainer = Trainer(small_model(), lr=1e-3, temperature=0.5)
    expected = (trainer.policy.model.logits(trainer.policy.model(batch.tokens_BT)) / 0.5).log_softmax(-1)[0, [1, 2], [9, 8]]
    assert torch.allclose(trainer.logprobs(trainer.policy, batch)[0][0, 2:], expected, atol=1e-5)


def test_equal_rewards_leave_only_the_kl():
    """No advantage anywhere: the first step, where policy and reference are one, has no gradient and no NaN."""
    rollouts = [Rollout(r.prompt, r.completion, 0.0) for r in some_rollouts()]
    assert gradient(Trainer(small_model(), lr=1e-3), rollouts).abs().max() < 1e-6
    trainer = Trainer(small_model(), lr=1e-2, kl_coef=1.0)
    trainer.step(some_rollouts())
    assert gradient(trainer, rollouts).abs().max() > 1e-3


def test_later_mini_batches_use_the_logprobs_of_the_sampling_policy():
    """At a learning rate this large the second mini-batch's ratios leave the clip range, which only an old policy shows."""
    trainer = Trainer(small_model(), lr=0.05, mini_batches=2, kl_coef=0.0)
    metrics = trainer.step(some_rollouts(20))
    assert metrics["clip_low"] + metrics["clip_high"] > 0.1


def test_bad_steps():
    with pytest.raises(ValueError, match="no completion"):
        Trainer(small_model(), lr=1e-3).step([Rollout([1], [], 0.0)])
    with pytest.raises(ValueError, match="lacks the sampler's logprobs"):
        Trainer(small_model(), lr=1e-3, importance_cap=2.0).step(some_rollouts())


def test_a_rollout_that_is_not_finite_is_named_and_changes_nothing():
    """NaN in the third rollout of the second mini-batch; and a weight that is infinite, where every rollout is to blame."""
    rollouts = some_rollouts(10)
    rollouts[7].advantage = float("nan")
    trainer = Trainer(small_model(), lr=1e-3, token_budget=60)
    before = weights(trainer.policy)
    with pytest.raises(FloatingPointError, match=r"the loss is nan .* because of 1 of 10 rollouts: number 7$"):
        trainer.step(rollouts)
    assert weights(trainer.policy).equal(before)
    assert all(p.grad is None for p in trainer.policy.parameters())
    with pytest.raises(FloatingPointError, match="because of 1 of 5 rollouts: number 7$"):
        Trainer(small_model(), lr=1e-3, mini_batches=2).step(rollouts)
    rollouts[7].advantage = 1e38  # finite, but its gradient is not
    with pytest.raises(FloatingPointError, match="number 7$"):
        trainer.step([*rollouts[:7], Rollout([1], [2] * 9, 3e38)])
    model = small_model()
    model.norm.weight.data[0] = float("inf")
    with pytest.raises(FloatingPointError, match="10 of 10 rollouts"):
        Trainer(model, lr=1e-3).step(some_rollouts(10))


def with_logprobs(rollouts, model, shift):
    """Rollouts whose sampler's logprobs are the model's own plus a shift for each token."""
    for r in rollouts:
        ids = torch.tensor([r.prompt + r.completion])
        own = model.logits(model(ids)).log_softmax(-1)[0, len(r.prompt) - 1:-1]
        r.logprobs = (own.gather(1, ids[0, len(r.prompt):, None])[:, 0] + shift).tolist()
    return rollouts


def test_sampler_logprobs():
    """A sampler whose logprobs are ln 4 below the trainer's: the KL estimate is 4 - ln 4 - 1; the importance weight 4 is cut at
    the cap 2; as old logprobs they make the ratio 4, which for A > 0 is clipped."""
    rollouts = with_logprobs(some_rollouts(), small_model(), -math.log(4))
    plain = Trainer(small_model(), lr=1e-3, kl_coef=0.0)
    assert plain.step(rollouts)["sampler_kl"] == pytest.approx(3 - math.log(4), abs=1e-4)
    assert "sampler_kl" not in plain.step(some_rollouts())
    expected = gradient(Trainer(small_model(), lr=1e-3, kl_coef=0.0, max_grad_norm=1e9), rollouts)
    for cap, weight in ((2.0, 2), (9.0, 4)):
        got = gradient(Trainer(small_model(), lr=1e-3, kl_coef=0.0, importance_cap=cap, max_grad_norm=1e9), rollouts)
        assert torch.allclose(got, weight * expected, atol=1e-4)
    metrics = Trainer(small_model(), lr=1e-3, kl_coef=0.0, old_logprobs="sampler").step(rollouts)
    trained = sum(len(r.completion) for r in rollouts)
    assert metrics["clip_high"] == pytest.approx(sum(len(r.completion) for r in rollouts if r.advantage > 0) / trained)
    assert metrics["clip_low"] == 0


def test_entropy_is_the_mean_over_trained_tokens():
    model, rollouts = small_model(), some_rollouts()
    entropies = []
    for r in rollouts:
        logprob = model.logits(model(torch.tensor([r.prompt + r.completion]))).log_softmax(-1)[0, len(r.prompt) - 1:-1]
        entropies.append(-(logprob.exp() * logprob).sum(-1))
    metrics = Trainer(model, lr=1e-3, token_budget=50).step(rollouts)
    assert metrics["entropy"] == pytest.approx(torch.cat(entropies).mean().item(), abs=1e-5)


def one_step(**how):
    trainer = Trainer(small_model(), lr=2e-4, kl_coef=0.1, mini_batches=2, token_budget=60, **how)
    reference = small_model(seed=9)  # far away, so that the KL term's gradient is more than the options' rounding
    return trainer.step(some_rollouts(20), reference=reference), weights(trainer.policy)


@pytest.mark.parametrize("how", ["checkpointing", "compiled", "both", pytest.param("fused", marks=needs_triton)])
def test_engineering_options_change_nothing(monkeypatch, how):
    """Activation checkpointing, compiled blocks, both, and the Triton logprobs: one step's weights within 1e-6."""
    expected_metrics, expected = one_step()
    if how == "fused":
        pytest.importorskip("triton", reason="Triton is not installed (it exists for Linux only)")
        monkeypatch.setattr(batches, "linear_logprob", lambda *args: LinearLogprob.apply(*args, True))
    metrics, got = one_step(activation_checkpointing=how in ("checkpointing", "both"), compile_blocks=how in ("compiled", "both"))
    assert (got - expected).abs().max() < 1e-6
    assert values(metrics) == pytest.approx(values(expected_metrics), rel=1e-5, abs=1e-5)


@pytest.fixture
def blocks_anew():
    """The classes of trained blocks are made anew, from what a test puts in their place."""
    grpo.trained_block.cache_clear()
    yield
    grpo.trained_block.cache_clear()


@pytest.mark.parametrize("sharded", [False, True])
def test_compiled_blocks_share_a_graph_over_layers_prefixes_and_sizes(monkeypatch, blocks_anew, sharded):
    """A graph for each layer, length or prefix would be compiled for ever anew. Without a prefix it is another graph. To Dynamo
    the modules that FSDP shards are of another kind, whose sizes are symbols."""
    if sharded:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    graphs, compile = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile(
        function, backend=lambda graph, _: graphs.append(graph) or graph.forward, **options))
    trainer = Trainer(small_model(), lr=1e-3, compile_blocks=True, token_budget=200)
    for seed, prefix, expected in ((0, range(1, 20), 1), (1, range(1, 8), 1), (3, (), 2)):
        trainer.step(some_rollouts(20, seed, prefix))
        assert len(graphs) == expected < len(trainer.policy.model.layers) + 1
    trainer = Trainer(small_model(), lr=1e-3, compile_blocks=True, token_budget=200)  # of the next phase
    trainer.step(some_rollouts(20, 0, range(1, 20)))
    assert len(graphs) == 2
    if sharded:
        dist.destroy_process_group()


def test_checkpointing_recomputes_blocks(monkeypatch, blocks_anew):
    """With it, the forward of the two blocks runs once more in backward (policy: 2 x 2, reference: 2), else 2 + 2 times."""
    calls = []
    forward = Block.forward
    monkeypatch.setattr(Block, "forward", lambda self, *args: calls.append(self) or forward(self, *args))
    for checkpointing, expected in ((False, 4), (True, 6)):
        trainer = Trainer(small_model(), lr=1e-3, activation_checkpointing=checkpointing)
        calls.clear()
        trainer.step(some_rollouts())
        assert len(calls) == expected


@pytest.mark.parametrize("how", [{}, {"activation_checkpointing": True}, {"offload": "sampling"}])
def test_a_finished_trainer_is_gone_at_once(how):
    """Policy, weights, gradients and moments, with Python's collector switched off: nothing is in a reference cycle."""
    gc.collect()
    gc.disable()
    try:
        trainer = grpo.Trainer(small_model(), GRPOConfig(**how), 1e-3)
        trainer.step(some_rollouts(), small_model())
        gone = [weakref.ref(x) for x in (trainer.policy, trainer.optimizer, *trainer.policy.parameters())]
        del trainer
        assert {ref() is None for ref in gone} == {True}
    finally:
        gc.enable()


def test_parked_weights_come_back():
    """Steps between which weights and moments wait on the host, where their own memory holds nothing: the same bytes."""
    unbroken, parked = (Trainer(small_model(), lr=1e-3) for _ in range(2))
    for seed in range(3):
        unbroken.step(some_rollouts(seed=seed))
        parked.park()
        assert {p.untyped_storage().nbytes() for p in parked.policy.parameters()} == {0}
        parked.park()  # once more does nothing
        parked.step(some_rollouts(seed=seed))
    assert weights(parked.policy).equal(weights(unbroken.policy))


def test_checkpoints(tmp_path):
    """A run that stops after three steps and goes on from its last checkpoint ends where an unbroken one does; the newest two
    checkpoints are kept, and what was not finished is not read."""
    unbroken = Trainer(small_model(), lr=1e-3)
    for seed in range(5):
        unbroken.step(some_rollouts(seed=seed))
        if seed < 3:
            unbroken.save_checkpoint(tmp_path)
    (tmp_path / "step000004.partial").mkdir()
    assert [p.name for p in checkpoints(tmp_path)] == ["step000002", "step000003"]
    resumed = Trainer(small_model(), lr=1e-3)
    assert resumed.load_checkpoint(tmp_path / "nowhere") == 0
    step = resumed.load_checkpoint(tmp_path)
    assert step == 3
    for seed in range(step, 5):
        resumed.step(some_rollouts(seed=seed))
    assert weights(resumed.policy).equal(weights(unbroken.policy))


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_read(tmp_path, capsys, harm):
    unbroken, resumed = Trainer(small_model(), lr=1e-3), Trainer(small_model(), lr=1e-3)
    for seed in range(3):
        unbroken.step(some_rollouts(seed=seed))
        unbroken.save_checkpoint(tmp_path)
    file = tmp_path / "step000003" / "exp_avg_sq.000000.safetensors"
    {"flip": flip, "cut": lambda file: os.truncate(file, file.stat().st_size - 1), "remove": os.remove,
     "empty": lambda file: (file.parent / "SHA256SUMS").write_text("")}[harm](file)
    assert resumed.load_checkpoint(tmp_path) == 2
    says = {"remove": "SHA256SUMS names 'exp_avg_sq.000000.safetensors', which is not there",
            "empty": f"{file.parent}/SHA256SUMS is cut off"}.get(harm, f"{file} is damaged")
    printed = capsys.readouterr().out
    assert says in printed and "it is set aside as step000003.damaged, and the run goes on from what was before it\n" in printed
    resumed.step(some_rollouts(seed=2))
    assert weights(resumed.policy).equal(weights(unbroken.policy))
    resumed.save_checkpoint(tmp_path)
    assert [p.name for p in checkpoints(tmp_path)] == ["step000002", "step000003"]
    for step in (2, 3):
        (tmp_path / f"step{step:06d}" / "SHA256SUMS").write_text("0  weight.000000.safetensors\n")
    assert Trainer(small_model(), lr=1e-3).load_checkpoint(tmp_path) == 0 and not checkpoints(tmp_path)


def _resume(rank, world, folder):
    trainer = Trainer(small_model(), lr=1e-3, token_budget=60)
    step = trainer.load_checkpoint(folder)
    for seed in range(step, 2):
        trainer.step(some_rollouts(13, seed=seed))
        trainer.save_checkpoint(folder)
    copy = small_model(seed=5)
    copy_weights(trainer.policy.model, copy)
    return weights(copy)


@pytest.mark.slow
def test_checkpoints_of_two_processes_serve_one(tmp_path):
    """Two steps on two processes; then one process goes on from the first step's checkpoint alone."""
    two = run_processes(2, _resume, str(tmp_path))
    assert two[0].equal(two[1])
    shutil.rmtree(tmp_path / "step000002")
    one, = run_processes(1, _resume, str(tmp_path))
    assert (one - two[0]).abs().max() < 1e-6


def test_learns_to_say_seven():
    """Reward 1 for a 7: from 5 seeds, 9 of 10 samples are one within 60 steps.

    The embedding is small, so that the untrained model says every token at times."""
    for seed in range(5):
        model = small_model(seed, std=0.05)
        sampler = Sampler(small_model(), SimpleNamespace(stop_ids={0}, vocab_size=40))
        trainer = Trainer(model, lr=1e-2, kl_coef=0.0)
        for step in range(60):
            copy_weights(trainer.policy.model, sampler.model)
            completions = sampler.generate([[1, 2]], n=64, max_tokens=1, seed=step)[0]
            rewards = torch.tensor([[float(c.tokens.tolist() == [7]) for c in completions]])
            if rewards.mean() > 0.9:
                break
            advantages = group_advantages(rewards)[0].tolist()
            trainer.step([Rollout([1, 2], c.tokens, a) for c, a in zip(completions, advantages)])
        else:
            pytest.fail(f"seed {seed} ends at reward {rewards.mean():.2f}")


def _train(rank, world):
    """(weights, metrics) of each setting."""
    return [_train_with(rank, *setting) for setting in (
        ("token", 2), ("sequence", 1), ("token", 1), ("token", 2, "sampling", range(1, 30)), ("token", 1, "true", [3]))]


def _train_with(rank, average, mini_batches, offload="false", prefix=()):
    trainer = Trainer(small_model(tie_word_embeddings=mini_batches > 1), lr=2e-4, token_budget=60, average=average,
                      mini_batches=mini_batches, max_grad_norm=0.05, reshard=mini_batches > 1, kl_coef=0.1, offload=offload)
    metrics = []
    for seed in (0, 1):
        if offload == "sampling":
            trainer.park()
        metrics.append(trainer.step(some_rollouts(13, seed, prefix)))
    copy = small_model(seed=5, tie_word_embeddings=mini_batches > 1)
    copy_weights(trainer.policy.model, copy)
    whole = trainer.gather()
    assert weights(whole).equal(weights(copy)) if rank == 0 else whole is None
    storages = [(p.to_local() if isinstance(p, DTensor) else p).untyped_storage() for p in trainer.policy.parameters()]
    trainer.close()
    assert {storage.nbytes() for storage in storages} == {0}
    return weights(copy), metrics


@pytest.mark.slow
def test_processes_compute_what_one_does():
    """Sharded by FSDP over two and four processes, which give gathered weights back or keep them for an update, share a prefix,
    and keep weights on the host, always or between steps: the same weights within 1e-6 after two steps, and the same metrics."""
    one, = run_processes(1, _train)
    for world in (2, 4):
        for of_process in run_processes(world, _train):
            for (got, metrics), (expected, expected_metrics) in zip(of_process, one, strict=True):
                assert (got - expected).abs().max() < 1e-6
                for a, b in zip(metrics, expected_metrics, strict=True):
                    assert values(a) == pytest.approx(values(b), rel=1e-5, abs=1e-5)


def _fail(rank, world):
    rollouts = some_rollouts(10)
    rollouts[7].advantage = float("nan")
    with pytest.raises(FloatingPointError, match="1 of 10 rollouts: number 7$"):
        Trainer(small_model(), lr=1e-3, token_budget=60).step(rollouts)
    return True


@pytest.mark.slow
def test_all_processes_stop_when_one_has_a_nan():
    assert run_processes(2, _fail) == [True, True]


def test_processes_get_equal_work():
    """40 rows over 4 processes: as many micro-batches each, every row once, and within 10 % of the mean of the tokens."""
    rollouts = some_rollouts(41)
    shares = [micro_batches(rollouts, 60, "cpu", rank, 4) for rank in range(4)]
    assert len({len(batches) for batches in shares}) == 1
    assert sum(int(b.mask_BT.sum()) for batches in shares for b in batches) == sum(len(r.completion) for r in rollouts)
    tokens = [sum(b.tokens_BT.numel() for b in batches) for batches in shares]
    assert max(tokens) < 1.1 * sum(tokens) / 4

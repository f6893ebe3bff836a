"""A real model, SmolLM2-135M-Instruct, beside `transformers` with the same weights: logits, chat, greedy text, sampled
logprobs, evaluate.py and a GRPO step. gsm8k_20.jsonl: the 20 shortest questions of GSM8K's test set (OpenAI, MIT)."""

import json
from pathlib import Path

import pytest
import real_model
import torch
import transformers

import evaluate
from batches import Rollout
from grpo import GRPOConfig, Trainer, group_advantages
from sample import Sampler

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    bool(real_model.missing_packages()), reason=f"tests/requirements.txt says how to get {real_model.missing_packages()}")]
QUESTIONS = Path(__file__).with_name("gsm8k_20.jsonl")
SYSTEM, MAX_TOKENS = "You answer in one line.", 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("real") / "smollm2"


@pytest.fixture(scope="module")
def theirs(folder):
    return real_model.write_smollm2(folder)


@pytest.fixture(scope="module")
def sampler(theirs, folder):
    return Sampler.load(folder)


@pytest.fixture(scope="module")
def tokenizer(theirs, folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


@torch.inference_mode()
def test_logits_equal_transformers(theirs, sampler):
    """Of a prompt of 96 tokens, and of random tokens. The largest logits are above 30."""
    prompt = sampler.tokenizer.chat(SYSTEM, QUESTIONS.read_text(encoding="utf-8"))[:96]
    tokens_BT = torch.stack([torch.tensor(prompt), torch.randint(49_152, (96,), generator=torch.manual_seed(0))])
    ours = sampler.model.logits(sampler.model(tokens_BT))
    assert (ours - theirs(tokens_BT).logits).abs().max() < 1e-4


def test_chat_equals_transformers(sampler, tokenizer):
    for user in ("What is 2 + 2?", "Line one\n\n  naïve 数学 \\boxed{7}"):
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
        expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert sampler.tokenizer.chat(SYSTEM, user) == tokenizer(expected, add_special_tokens=False)["input_ids"]


def test_evaluate_says_what_transformers_says(theirs, folder, sampler, tokenizer, tmp_path, monkeypatch):
    """The command, greedily, on 20 questions of GSM8K: each text is transformers', token for token."""
    monkeypatch.setattr("sys.argv", ["evaluate.py", "--model", str(folder), "--data", str(QUESTIONS), "--samples", "0",
                                     "--max_tokens", str(MAX_TOKENS), "--out", str(tmp_path / "out")])
    evaluate.main()
    rows = [json.loads(line) for line in open(tmp_path / "out" / "gsm8k_20.jsonl")]
    result = json.loads((tmp_path / "out" / "results.json").read_text())["gsm8k_20"]
    assert result["questions"] == 20 and result["truncated"] == sum(not row["finished"] for row in rows) / 20
    system = evaluate.load_task("math").solver_system
    prompts = [sampler.tokenizer.chat(system, q.question) for q in evaluate.read_questions(QUESTIONS)]
    T, stops = max(map(len, prompts)), sorted(sampler.tokenizer.stop_ids)
    ids, mask = (torch.tensor([[0] * (T - len(p)) + (p if real else [1] * len(p)) for p in prompts]) for real in (1, 0))
    drawn = theirs.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=MAX_TOKENS, eos_token_id=stops,
                            pad_token_id=stops[0])[:, T:]
    for row, tokens in zip(rows, drawn.tolist(), strict=True):
        length = next((i + 1 for i, token in enumerate(tokens) if token in stops), MAX_TOKENS)
        assert (row["text"], row["tokens"]) == (sampler.tokenizer.decode(tokens[:length]), length)


@torch.inference_mode()
def test_sampled_logprobs_are_those_of_a_full_forward(sampler):
    """Before top-p, of 4 rows at temperature 0.8."""
    prompt = sampler.tokenizer.chat(SYSTEM, "Name a number.")
    rows, = sampler.generate([prompt], n=4, max_tokens=16, temperature=0.8, top_p=0.99, seed=5)
    for c in rows:
        tokens = torch.tensor([*prompt, *c.tokens])
        hidden = sampler.model(tokens[None])[0, len(prompt) - 1:-1]
        expected = (sampler.model.logits(hidden) / 0.8).log_softmax(-1, dtype=torch.float64)
        expected = expected.gather(-1, tokens[len(prompt):, None])[:, 0]
        assert torch.allclose(torch.tensor(c.full_logprobs).double(), expected, atol=1e-4)


def test_a_grpo_step_is_the_same_in_micro_batches(folder, sampler):
    """The reward, a digit in the answer, is one that this model earns often. Adam's first step moves a weight by
    its gradient's sign, so that a few whose gradient is about 0 may differ."""
    prompts = [sampler.tokenizer.chat(SYSTEM, text) for text in ("Pick a year.", "How old is he?")]
    groups = sampler.generate(prompts, n=4, max_tokens=10, seed=0)
    rewards = [[float(any(map(str.isdigit, sampler.tokenizer.decode(c.tokens)))) for c in group] for group in groups]
    advantages = group_advantages(rewards)
    assert advantages.any()
    rollouts = [Rollout(prompt, c.tokens, float(a), c.full_logprobs) for prompt, group, row in
                zip(prompts, groups, advantages) for c, a in zip(group, row)]
    weights, metrics = [], []
    for token_budget in (4096, 100):
        trainer = Trainer(sampler.model, GRPOConfig(kl_coef=0.0, token_budget=token_budget), lr=1e-4)
        metrics.append(trainer.step(rollouts))
        weights.append([p.detach().clone() for p in trainer.policy.model.parameters()])
        trainer.close()
    whole, parts = metrics
    assert whole["sampler_kl"] < 1e-8 and whole["grad_norm"] == pytest.approx(parts["grad_norm"], rel=1e-4)
    moved, apart = (torch.cat([(a - b).abs().flatten() for a, b in zip(weights[0], other)])
                    for other in (sampler.model.parameters(), weights[1]))
    assert moved.median() > 5e-5 and (apart > 1e-5).float().mean() < 1e-3

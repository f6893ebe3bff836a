"""The sampler against transformers, against a full forward pass, and against itself in other batches and processes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from processes import run_processes

from model import ModelConfig, Transformer, load
from sample import Sampler

PROMPTS = [[5, 9, 11], [7], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], [5, 9, 11], [20, 21], [1] * 30, [2, 40, 17, 8]]
STOPS = SimpleNamespace(stop_ids={0, 3}, vocab_size=50)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = dict(model_type="qwen3", vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=2, head_dim=16, intermediate_size=48, tie_word_embeddings=True)
    model = Transformer(ModelConfig.from_dict(config))
    torch.nn.init.normal_(model.embed_tokens.weight, std=0.3)
    return model


def flat(result):
    return [c for group in result for c in group]


@pytest.mark.parametrize("family, max_rows", [("qwen3", 100), ("qwen3", 2), ("llama", 3)])
def test_greedy_equals_transformers(tmp_path, family, max_rows):
    """Mixed prompt lengths, with all rows at once and with rows that wait for room."""
    torch.manual_seed(1)
    shape = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                 intermediate_size=48, eos_token_id=0, bos_token_id=1, pad_token_id=0, initializer_range=0.3)
    if family == "qwen3":
        theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(head_dim=16, **shape))
    else:
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))
    theirs.save_pretrained(tmp_path / "m")
    sampler = Sampler(load(tmp_path / "m"), SimpleNamespace(stop_ids={0}, vocab_size=40), max_rows)
    got = flat(sampler.generate(PROMPTS, max_tokens=25, temperature=0))
    for prompt, completion in zip(PROMPTS, got):
        ids = torch.tensor([prompt])
        expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=25)
        expected = expected[0, len(prompt):].tolist()
        assert completion.tokens == expected
        assert completion.finished == (expected[-1] == 0)


@pytest.mark.parametrize("how", [{}, {"temperature": 0.7}, {"temperature": 1.2, "top_k": 9, "top_p": 0.8}, {"temperature": 0}])
def test_logprobs_equal_a_full_forward_pass(model, how):
    """Every token of every row, under the distribution it was drawn from (temperature 1 for greedy)."""
    from kernels.draw import truncate
    got = Sampler(model, STOPS, 4).generate(PROMPTS, n=3, max_tokens=20, seed=4, **how)
    for prompt, group in zip(PROMPTS, got):
        for c in group:
            ids = torch.tensor([prompt + c.tokens])
            logits = model.logits(model(ids))[0, len(prompt) - 1:-1] / (how.get("temperature") or 1)
            logprobs = truncate(logits, how.get("top_k", 0), how.get("top_p", 1)).log_softmax(-1)
            expected = logprobs.gather(1, torch.tensor(c.tokens)[:, None])[:, 0]
            np.testing.assert_allclose(c.logprobs, expected.detach(), atol=1e-4)


def test_completions_end_at_a_stop_token_or_the_limit(model):
    completions = flat(Sampler(model, STOPS).generate(PROMPTS, n=20, max_tokens=15))
    assert any(c.finished for c in completions) and any(not c.finished for c in completions)
    for c in completions:
        stops = [t in STOPS.stop_ids for t in c.tokens]
        assert not any(stops[:-1]) and stops[-1] == c.finished and len(c.logprobs) == len(c.tokens)
        assert c.finished or len(c.tokens) == 15


def test_draws_depend_on_seed_and_row_alone(model):
    """The same rows in other batch sizes draw the same tokens; equal prompts do not repeat each other's draws."""
    results = [Sampler(model, STOPS, rows).generate(PROMPTS, n=5, max_tokens=20, seed=8) for rows in (1, 3, 35, 100)]
    tokens = [[c.tokens for c in flat(r)] for r in results]
    assert all(t == tokens[0] for t in tokens)
    assert len({tuple(t) for t in tokens[0][:5] + tokens[0][15:20]}) > 5  # PROMPTS[0] == PROMPTS[3]
    other = Sampler(model, STOPS).generate(PROMPTS, n=5, max_tokens=20, seed=9)
    assert [c.tokens for c in flat(other)] != tokens[0]


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
    for name, value in (("max_tokens", 0), ("n", 0), ("temperature", -1.0), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.5)):
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            Sampler(model, STOPS).generate([[1]], **{name: value})
    assert Sampler(model, STOPS).generate([]) == []
    with pytest.raises(ValueError, match="tokenizer has 51 tokens, the model only 50"):
        Sampler(model, SimpleNamespace(stop_ids={0}, vocab_size=51))


def test_nan_names_the_row(model):
    """Token 45's embedding is NaN, which only the third prompt contains."""
    broken = Transformer(model.config)
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.lm_head = torch.nn.Linear(32, 50, bias=False)
        broken.embed_tokens.weight[45] = torch.nan
    with pytest.raises(FloatingPointError, match="row [45]$"):
        Sampler(broken, STOPS).generate([[1], [2], [45, 2]], n=2, max_tokens=3)


def _sample(rank, world, few):
    torch.manual_seed(0)
    config = dict(model_type="llama", vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                  num_key_value_heads=1, intermediate_size=48, tie_word_embeddings=False)
    sampler = Sampler(Transformer(ModelConfig.from_dict(config)), STOPS)
    return [c.tokens for c in flat(sampler.generate(PROMPTS[:1] if few else PROMPTS, n=4, max_tokens=12, seed=2))]


@pytest.mark.slow
@pytest.mark.parametrize("few", [False, True])
def test_two_processes_draw_what_one_does(few):
    """Prompts are shared out, or the rows of few prompts; each process gets all of them, in order."""
    one, two = run_processes(1, _sample, few), run_processes(2, _sample, few)
    assert two[0] == one[0] and two[1] == one[0]

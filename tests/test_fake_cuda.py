"""The CUDA path traced without a GPU: PyTorch's fake tensors have a device, a shape and a dtype but no memory, and each launch
of a kernel is replaced by a check that its tensors are on the device. What is allocated on the wrong one, or in the wrong
shape, shows here. Backward cannot be traced without a driver."""

import pytest
import torch
from bench_sample import QWEN3_4B
from torch._subclasses.fake_tensor import FakeTensorMode

from batches import Rollout, SharedPrefix, pad
from grpo import GRPOConfig, grpo_loss
from kernels import attention, logprob, triton, write
from kernels import draw as draws
from model import ModelConfig, Transformer
from pages import PagedCache
from sample import Sampler

pytestmark = pytest.mark.skipif(triton is None or not torch.backends.cuda.is_built(),
                                reason="a build of PyTorch for CUDA, with Triton, is not installed")
SHAPE = QWEN3_4B | dict(vocab_size=1000, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                        head_dim=16, intermediate_size=96)
CONFIG = ModelConfig.from_dict(SHAPE)
V, D = CONFIG.vocab_size, CONFIG.width


class Launch:
    """Stands for a kernel: kernel[grid](...)"""

    def __init__(self):
        self.count = 0

    def __getitem__(self, grid):
        def launch(*args, **_):
            assert all(x.is_cuda for x in args if isinstance(x, torch.Tensor)) and min(grid) > 0
            self.count += 1
        return launch


@pytest.fixture
def launches(monkeypatch):
    """The kernels' stand-ins, under fake tensors on CUDA."""
    found = {}
    for module in (attention, logprob, write, draws):
        for name in (name for name in vars(module) if name.endswith("_kernel")):
            found[name] = Launch()
            monkeypatch.setattr(module, name, found[name])
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        yield found


def on_cuda(x, shape, dtype):
    return x.is_cuda and x.shape == shape and x.dtype == dtype


def model():
    with torch.device("meta"):
        model = Transformer(CONFIG)
    state = {name: torch.zeros(p.shape, dtype=torch.bfloat16, device="cuda") for name, p in model.named_parameters()}
    model.load_state_dict(state, assign=True)
    return model


def test_decoding_stays_on_the_device(launches):
    sampler = Sampler.__new__(Sampler)  # without graphs and streams, which need a driver
    sampler.model, sampler.cache = model(), PagedCache(CONFIG, 9, 16, torch.device("cuda"), torch.bfloat16)
    A, n = 5, 3
    ids = [torch.zeros(A, dtype=torch.int64, device="cuda") for _ in range(4)]
    logits_AV = sampler._forward(ids[0], ids[1], torch.zeros(A, n, dtype=torch.int32, device="cuda"))
    assert on_cuda(logits_AV, (A, V), torch.bfloat16)
    for how in ({}, {"top_p": 0.9}, {"top_k": 5}, {"temperature": 0}):
        drawn = draws.draw(logits_AV, 1, ids[2], ids[3], **how)
        assert on_cuda(drawn.token, (A,), torch.int64) and on_cuda(drawn.full_logprob, (A,), torch.float32)
    sampler.cache.begin_prefill(torch.zeros(2 * 7, dtype=torch.int64, device="cuda"))
    hidden_PTD = sampler.model(torch.zeros(2, 7, dtype=torch.int64, device="cuda"), cache=sampler.cache)
    assert on_cuda(hidden_PTD, (2, 7, D), torch.bfloat16)
    counts = {name: launch.count for name, launch in launches.items()}
    assert counts["draw_kernel"] == 4 and counts["write_kernel"] == 2 * CONFIG.layers == 2 * counts["attention_kernel"]


def test_the_loss_stays_on_the_device(launches):
    """With a prefix that three rows share, and without."""
    batch = pad([Rollout([1, 2, 3, 4], [5, 6, 7][:n], 1.0, [-1.0] * n) for n in (3, 2, 3)], torch.device("cuda"))
    (B, T), P = batch.tokens_BT.shape, batch.prefix
    assert P == 3 and on_cuda(batch.mask_BT, (B, T), torch.bool)
    line_1L = torch.zeros(1, P + B * (T - 1 - P), dtype=torch.int64, device="cuda")
    assert on_cuda(model()(line_1L, line_1L, SharedPrefix(P, B)), (*line_1L.shape, D), torch.bfloat16)
    assert on_cuda(model()(batch.tokens_BT[:, :-1]), (B, T - 1, D), torch.bfloat16)
    hidden_MD, weight_VD = (torch.zeros(x, D, dtype=torch.bfloat16, device="cuda") for x in (B * T, V))
    of_tokens = logprob.linear_logprob(hidden_MD, weight_VD, torch.zeros(B * T, dtype=torch.int64, device="cuda"))
    assert all(on_cuda(x, (B * T,), torch.float32) for x in of_tokens) and launches["reduce_kernel"].count == 1
    logprobs_BT = of_tokens[0].unflatten(0, (B, T))
    loss, metrics = grpo_loss(logprobs_BT, batch.sampler_logprobs_BT, logprobs_BT, batch.advantage_B, batch.mask_BT, GRPOConfig())
    assert on_cuda(loss, (), torch.float32) and all(x.is_cuda for x in metrics.values())

"""The decoder: one hand-written Transformer that reads Qwen3, Qwen2.5 and Llama 3 checkpoints, and their tokenizer.

The three families are one architecture with four switches (`ModelConfig`): norms of query and key (Qwen3), biases on
the attention projections (Qwen2.5), rescaled rotary frequencies (Llama 3.1 and later), and a head that is tied to the
embedding or not. Modules have the names of the Hugging Face checkpoint, so loading and saving need no table of names.

Shapes: B rows, T tokens, V vocabulary, D width, H query heads, K key/value heads, C head width. A tensor's name ends in
its shape where it changes (`q_BTHC`). `python model.py tiny` prints the forward pass with the shape of each tensor."""

import json
import math
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import checkpoint
from checkpoint import read_tensors, resolve
from common import free_memory, read_json, writing

FAMILIES = {  # what config.json does not say
    "qwen3": {"qk_norm": True, "qkv_bias": False},
    "qwen2": {"qk_norm": False, "qkv_bias": True},
    "llama": {"qk_norm": False, "qkv_bias": False},
}


@dataclass
class ModelConfig:
    """The shape of a decoder. `raw` is the config.json that it was read from, which `save` writes again."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    norm_eps: float
    rope_theta: float
    rope_scaling: dict | None
    qk_norm: bool
    qkv_bias: bool
    tied: bool
    raw: dict
    context: float = math.inf  # the most tokens of a row

    @classmethod
    def from_dict(cls, raw):
        """Reads the fields of a Hugging Face config.json, as transformers 4 or 5 writes it. Raises ValueError for a
        field that is missing, of a wrong type or out of range (`checkpoint.FIELDS`), and for a model_type, rope_type,
        activation or attention variant that the decoder does not have."""
        family = checkpoint.supported("model_type", raw.get("model_type"), FAMILIES)
        f = checkpoint.fields(raw, checkpoint.FIELDS)
        rope = f["rope_parameters"] or f["rope_scaling"] or {}
        kind = checkpoint.supported("rope_type", rope.get("rope_type", rope.get("type", "default")),
                                    ("default", "llama3"))
        checkpoint.supported("hidden_act", raw.get("hidden_act", "silu"), ("silu",))
        window = "use_sliding_window" if family.startswith("qwen") else "sliding_window"
        for key in (window, "mlp_bias") + (("attention_bias",) if family != "qwen2" else ()):
            if raw.get(key) not in (None, False):
                raise ValueError(f"config.json sets {key}, which this decoder does not have")
        scaling = checkpoint.fields(rope, checkpoint.LLAMA3 if kind == "llama3" else checkpoint.ROPE,
                                    "the rope scaling in config.json")
        heads, kv_heads = f["num_attention_heads"], f["num_key_value_heads"] or f["num_attention_heads"]
        head_dim = f["head_dim"] or f["hidden_size"] // heads
        if heads % kv_heads:
            raise ValueError(f"config.json has {heads} query heads, no multiple of its {kv_heads} key/value heads")
        if head_dim % 2 or not head_dim:
            raise ValueError(f"config.json has heads of width {head_dim}, but rotary embedding turns pairs of channels")
        if kind == "llama3" and scaling["low_freq_factor"] >= scaling["high_freq_factor"]:
            raise ValueError("the rope scaling in config.json has a low_freq_factor not below its high_freq_factor")
        return cls(vocab_size=f["vocab_size"], width=f["hidden_size"], layers=f["num_hidden_layers"], heads=heads,
                   kv_heads=kv_heads, head_dim=head_dim, ffn=f["intermediate_size"], norm_eps=f["rms_norm_eps"],
                   rope_theta=scaling["rope_theta"] or f["rope_theta"],
                   rope_scaling=scaling if kind == "llama3" else None, tied=f["tie_word_embeddings"], raw=raw,
                   context=f["max_position_embeddings"], **FAMILIES[family])

    def shapes(self):
        """{name: shape} of all weights. One block is built for all of them: a thousand take a while."""
        with torch.device("meta"):
            one = {name: list(p.shape) for name, p in Transformer(replace(self, layers=1)).named_parameters()}
        return {name.replace("layers.0.", f"layers.{i}."): shape for name, shape in one.items()
                for i in range(self.layers if name.startswith("layers.") else 1)}

    def block_parameters(self):
        """Number of weights in a block."""
        with torch.device("meta"):
            return sum(p.numel() for p in Block(self, 0).parameters())

    def parameters(self):
        """Number of weights in the whole model."""
        embeddings = self.vocab_size * self.width * (1 if self.tied else 2)  # with the head
        return self.layers * self.block_parameters() + embeddings + self.width

    def forward_flops(self, tokens, pairs, scored):
        """Floating-point operations of a forward pass over `tokens` tokens, of which `scored` get logits. pairs: the
        number of (query, key) pairs: the tokens that each token attends to, summed over the tokens."""
        attention = self.head_dim * (2 * self.heads + 2 * self.kv_heads) * self.width
        matrices = self.layers * (attention + 3 * self.ffn * self.width)
        products = self.layers * 2 * self.heads * self.head_dim * pairs
        return 2 * (matrices * tokens + self.vocab_size * self.width * scored + products)


def rope_frequencies(config, device):
    """Angular frequencies of the rotary embedding, fp32 [C/2], in radians per token. Llama 3 (config.json `rope_type:
    llama3`) divides low frequencies, whose wavelength exceeds the original context, by `factor`. It leaves high
    frequencies alone, and blends the two in between."""
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
    frequency = config.rope_theta**-exponent
    if config.rope_scaling is None:
        return frequency
    s = config.rope_scaling
    turns = s["original_max_position_embeddings"] * frequency / (2 * math.pi)  # full turns over the original context
    keep = ((turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])).clamp(0, 1)
    return frequency * (keep + (1 - keep) / s["factor"])


def rotate(x_BTHC, cos, sin):
    """Rotary embedding: turns each pair of channels (c, c + C/2) by its angle, whose cos and sin are [B, T, 1, C/2]."""
    a, b = x_BTHC.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def causal_attention(q_BTHC, k_BSKC, v_BSKC):
    """Attention of each token to itself and to the tokens before it -> [B, T, H, C]. The T queries are those
    of the last T of S positions. Rows are right-padded: no real token comes after padding, and no mask hides it."""
    q, k, v = (x.transpose(1, 2) for x in (q_BTHC, k_BSKC, v_BSKC))
    T, S = q.shape[2], k.shape[2]
    if T < S and q.is_cuda and q.dtype.itemsize == 2:  # PyTorch's own call takes no mask to the flash kernel
        out = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True)[0]
    else:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T) if T < S else None
        out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=True)
    return out.transpose(1, 2)


class RMSNorm(nn.RMSNorm):
    def forward(self, x):  # nn.RMSNorm's own, repeated: torch.compile skips the modules of torch.nn
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention: H query heads share K key/value heads. See `Transformer.forward` for `cache`."""

    def __init__(self, config, layer):
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        query_width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(config.width, width, bias=config.qkv_bias)
                                                 for width in (query_width, kv_width, kv_width))
        self.o_proj = nn.Linear(query_width, config.width, bias=False)
        self.q_norm, self.k_norm = (RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
                                    for _ in "qk")

    def forward(self, x_BTD, cos, sin, cache):
        qkv = self.project(x_BTD, cos, sin)
        out_BTHC = causal_attention(*qkv) if cache is None else cache.attend(self.layer, *qkv)
        return self.o_proj(out_BTHC.flatten(-2))

    def project(self, x_BTD, cos, sin):
        """Queries, keys and values. Queries and keys are normed, where the family does that, and rotated."""
        q_BTHC, k_BTKC, v_BTKC = (y.unflatten(-1, (-1, self.head_dim)) for y in self.qkv(x_BTD))
        return rotate(self.q_norm(q_BTHC), cos, sin), rotate(self.k_norm(k_BTKC), cos, sin), v_BTKC

    def qkv(self, x_BTD):
        return self.q_proj(x_BTD), self.k_proj(x_BTD), self.v_proj(x_BTD)


class SwiGLU(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.width, bias=False)

    def forward(self, x_BTD):
        gate, up = self.gate_up(x_BTD)
        return self.down_proj(F.silu(gate) * up)

    def gate_up(self, x_BTD):
        return self.gate_proj(x_BTD), self.up_proj(x_BTD)


class Block(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = SwiGLU(config)

    def forward(self, x_BTD, cos, sin, cache):
        return self.feed_forward(x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos, sin, cache))

    def feed_forward(self, x_BTD):
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Transformer(nn.Module):
    """A causal decoder. `forward` stops at the hidden states, since logits [B, T, V] are too large to make unasked."""

    def __init__(self, config, block=Block):
        """block: the class of the blocks; a trainer has its own."""
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(block(config, i) for i in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.lm_head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)

    @property
    def head_weight(self):
        """The output projection, [V, D]."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(self, tokens_BT, positions_BT=None, cache=None):
        """Final hidden states [B, T, D] of token ids [B, T]. positions_BT: each token's position in its row; 0, 1, 2,
        ... when not given. cache: an object whose `attend(layer, q_BTHC, k_BTKC, v_BTKC) -> [B, T, H, C]` replaces the
        causal attention, such as `PagedCache`."""
        if positions_BT is None:
            positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        x_BTD = self.embed_tokens(tokens_BT)
        angle = positions_BT[..., None, None] * rope_frequencies(self.config, tokens_BT.device)  # [B, T, 1, C/2]
        cos, sin = angle.cos().to(x_BTD.dtype), angle.sin().to(x_BTD.dtype)
        for block in self.layers:
            x_BTD = block(x_BTD, cos, sin, cache)
        return self.norm(x_BTD)

    def logits(self, hidden, out=None):
        """Logits [..., V] of hidden states [..., D], written to `out` if that is given."""
        return F.linear(hidden, self.head_weight, out=out)


def checkpoint_name(name):
    """The Hugging Face name of one of our parameters: all but the head's begin with `model.`"""
    return name if name.startswith("lm_head.") else "model." + name


def read_config(path):
    """The `ModelConfig` of a model folder. Raises FileNotFoundError or ValueError."""
    file = checkpoint.find(Path(path), "config.json", checkpoint.MAX_CONFIG)
    if not file:
        raise FileNotFoundError(f"{path} has no config.json; is it a Hugging Face model folder?")
    return ModelConfig.from_dict(read_json(file))


def load(path, device="cpu", dtype=torch.float32):
    """Reads a Hugging Face folder or Hub id into a `Transformer` on `device` in `dtype`; dtype None keeps the file's.
    The model is built without memory, on `meta`, once the headers of the files hold each parameter in its shape. On the
    CPU, tensors that keep their dtype stay mapped to the file, and all processes share that memory. Raises
    FileNotFoundError for a missing file; ValueError for a broken one, one that differs from the folder's SHA256SUMS, an
    unsupported config, a missing, extra or misshapen tensor, one with NaN or infinity, or a model larger than the
    memory."""
    folder = resolve(path)
    config, device = read_config(folder), torch.device(device)
    shapes = {checkpoint_name(name): shape for name, shape in config.shapes().items()}
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    optional = {head: shapes[embedding]} if config.tied else {}  # a tied checkpoint may store its head too
    checkpoint.check_sums(folder)
    checkpoint.check_shapes(folder, shapes | optional, optional)
    needed, free = config.parameters() * dtype.itemsize if dtype else 0, free_memory(device)
    if needed > free:
        raise ValueError(f"{folder} takes {needed / 1e9:.3g} GB in {dtype}, and {device} has {free / 1e9:.3g} GB free")
    tensors = {name: tensor.to(device=device, dtype=dtype) for _, name, tensor in read_tensors(folder)}
    if config.tied and head in tensors and not tensors[head].equal(tensors[embedding]):
        raise ValueError(f"{folder}: config.json ties the head to the embedding, but {head!r} differs from it")
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict({name: tensors[checkpoint_name(name)] for name, _ in model.named_parameters()}, assign=True)
    return model


def save(model, path, tokenizer=None):
    """Writes `model` as a folder that `transformers` opens: config.json, model.safetensors, the tokenizer's files. The
    folder appears whole or not at all. Raises FileExistsError when `path` is there already, OSError when the disk is
    full or the folder around it is missing."""
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already")
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    state = {checkpoint_name(name): p.detach().cpu().contiguous() for name, p in model.named_parameters()}
    raw = {k: v for k, v in model.config.raw.items() if k != "torch_dtype"}
    raw["dtype"] = str(next(model.parameters()).dtype).removeprefix("torch.")
    with writing(partial, path, sum(p.nbytes for p in state.values())):
        partial.mkdir()
        save_file(state, partial / "model.safetensors", metadata={"format": "pt"})
        (partial / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
        for name in tokenizer.FILES if tokenizer else []:
            if file := checkpoint.find(tokenizer.folder, name):
                shutil.copyfile(file, partial / name)
        checkpoint.write_sums(partial)
        os.replace(partial, path)


class Tokenizer:
    """A tokenizer.json, and the chat format of its vocabulary: ChatML (Qwen), or the paper's plain fallback."""

    FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
             "vocab.json", "merges.txt", "chat_template.jinja")
    STOPS = ("<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>", "</s>")

    def __init__(self, path):
        """path: a model folder or Hub id. Raises FileNotFoundError or ValueError for a missing or broken file."""
        self.folder = resolve(path)
        for name in self.FILES:  # `save` copies them
            checkpoint.find(self.folder, name, checkpoint.MAX_TOKENIZER)
        self.inner, self.vocab_size = checkpoint.read_tokenizer(self.folder)  # special tokens included
        self.stop_ids = {i for i in map(self.inner.token_to_id, self.STOPS) if i is not None}
        if not self.stop_ids:
            raise ValueError(f"{self.folder}/tokenizer.json has none of the stop tokens {', '.join(self.STOPS)}")
        self.im_start, self.im_end = map(self.inner.token_to_id, ("<|im_start|>", "<|im_end|>"))

    def _ids(self, text, special):
        with checkpoint.tokenizing(f"{self.folder}/tokenizer.json cannot encode a text"):
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # U+FFFD for half of a pair
            return self.inner.encode(text, add_special_tokens=special).ids

    def encode(self, text):
        """Token ids of plain text; the names of special tokens in it are ordinary characters."""
        return self._ids(text, special=False)

    def decode(self, ids):
        """The text of token ids (a list or an array), special tokens left out."""
        with checkpoint.tokenizing(f"{self.folder}/tokenizer.json cannot decode tokens"):
            return self.inner.decode(list(ids), skip_special_tokens=True)

    def chat(self, system, user):
        """Token ids of a conversation up to where the assistant begins to speak: ChatML, or where the vocabulary lacks
        it, the lines `system: ...` and `user: ...` (paper, appendix) behind the beginning-of-text token, if any."""
        if self.im_start is None or self.im_end is None:
            return self._ids(f"system: {system}\nuser: {user}", special=True)
        return [self.im_start, *self.encode(f"system\n{system}"), self.im_end, *self.encode("\n"),
                self.im_start, *self.encode(f"user\n{user}"), self.im_end, *self.encode("\n"),
                self.im_start, *self.encode("assistant\n")]


DESCRIPTION = """{raw[model_type]}: L = {layers} blocks, D = {width:,} width, F = {ffn:,} feed-forward width,
V = {vocab_size:,} vocabulary, H = {heads} query heads, K = {kv_heads} key/value heads, C = {head_dim} head width\n
forward pass of B rows, T tokens result        tensor                           its shape            weights
x = embedding(tokens [B, T])     [B, T, D]     embed_tokens.weight              [V, D]
in each of the L blocks:
  h = RMSNorm(x)                 [B, T, D]     input_layernorm.weight           [D]       L x
  q = linear(h)                  [B, T, H, C]  self_attn.q_proj.weight          [HC, D]   L x
      + bias                                   self_attn.q_proj.bias            [HC]      L x
  k = linear(h)                  [B, T, K, C]  self_attn.k_proj.weight          [KC, D]   L x
      + bias                                   self_attn.k_proj.bias            [KC]      L x
  v = linear(h)                  [B, T, K, C]  self_attn.v_proj.weight          [KC, D]   L x
      + bias                                   self_attn.v_proj.bias            [KC]      L x
  q = RMSNorm(q)                 [B, T, H, C]  self_attn.q_norm.weight          [C]       L x
  k = RMSNorm(k)                 [B, T, K, C]  self_attn.k_norm.weight          [C]       L x
  q, k = rotate(q), rotate(k)    the same      (by each token's position)
  a = causal_attention(q, k, v)  [B, T, H, C]  (H / K query heads share a key/value head)
  x = x + linear(a)              [B, T, D]     self_attn.o_proj.weight          [D, HC]   L x
  h = RMSNorm(x)                 [B, T, D]     post_attention_layernorm.weight  [D]       L x
  gate = silu(linear(h))         [B, T, F]     mlp.gate_proj.weight             [F, D]    L x
  up = linear(h)                 [B, T, F]     mlp.up_proj.weight               [F, D]    L x
  x = x + linear(gate * up)      [B, T, D]     mlp.down_proj.weight             [D, F]    L x
x = RMSNorm(x)                   [B, T, D]     norm.weight                      [D]
logits = linear(x)               [B, T, V]     {head:32} [V, D]"""


def describe(config):
    """The forward pass as text: each tensor with its shape and number of weights, then totals. It needs no weights."""
    sizes = {name.removeprefix("layers.0."): math.prod(shape) for name, shape in config.shapes().items()}
    head, lines = "(tied to the embedding)" if config.tied else "lm_head.weight", []
    for line in DESCRIPTION.format(**vars(config), head=head).splitlines():
        names = [word for word in line.split() if word.endswith((".weight", ".bias"))]
        if sizes.keys() >= set(names):  # the family has it
            lines.append("".join([line.ljust(90 * len(names)), *(f"{sizes[name]:14,}" for name in names)]))
    total, blocks = sum(sizes.values()), config.layers * config.block_parameters()
    return "\n".join(lines) + f"""\n
{total:,} weights, {blocks:,} of them in the blocks: {4e-6 * total:,.1f} MB in fp32, {2e-6 * total:,.1f} in bf16
key/value cache: 2 L K C numbers a token, in bf16 {4 * config.layers * config.kv_heads * config.head_dim:,} bytes"""


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: python model.py MODEL   (a Hugging Face folder such as tiny, or a Hub id)")
    try:
        print(describe(read_config(resolve(sys.argv[1], ["config.json"]))))
    except (OSError, ValueError) as error:
        sys.exit(f"model.py: {error}")


if __name__ == "__main__":
    main()

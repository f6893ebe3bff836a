"""The decoder: one hand-written Transformer that reads Qwen3, Qwen2.5 and Llama 3 checkpoints, and their tokenizer.

The three families are one architecture with four switches (`ModelConfig`): QK-norm (Qwen3), biases on the attention
projections (Qwen2.5), a rescaled rotary frequency table (Llama 3.1 and later), and a head tied to the embedding or not.
Modules carry the names of the Hugging Face checkpoint, so that loading and saving need no table of names.

Shapes: B rows, T tokens, V vocabulary, D width, H query heads, K key/value heads, C head width. A tensor's name ends in
its shape where it changes (`q_BTHC`).
"""

import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer as HFTokenizer
from torch import nn

from common import read_json
from kernels.write import norm_rotate

# The usual instruction of Qwen's chat format for mathematics.
MATH_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."

# What each family switches on when its config.json does not say so itself.
FAMILIES = {
    "qwen3": {"qk_norm": True, "qkv_bias": False},
    "qwen2": {"qk_norm": False, "qkv_bias": True},
    "llama": {"qk_norm": False, "qkv_bias": False},
}


@dataclass
class ModelConfig:
    """The shape of a decoder; `raw` is the config.json it was read from and is written back by `save`."""

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

    @classmethod
    def from_dict(cls, raw):
        """Reads the fields of a Hugging Face config.json (both the transformers 4 and 5 spelling).

        Raises ValueError for a model_type, rope_type, activation or attention variant that the decoder does not have.
        """
        family = raw.get("model_type")
        if family not in FAMILIES:
            raise ValueError(f"model_type {family!r} is not supported; this decoder reads {', '.join(FAMILIES)}")
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", "llama3"):
            raise ValueError(f"rope_type {kind!r} is not supported; this decoder has 'default' and 'llama3'")
        for key in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"):
            if kind == "llama3" and key not in rope:
                raise ValueError(f"the rope scaling in config.json has no {key!r}")
        if raw.get("hidden_act", "silu") != "silu":
            raise ValueError(f"hidden_act {raw['hidden_act']!r} is not supported; this decoder has 'silu'")
        for key in ("use_sliding_window", "mlp_bias") + (("attention_bias",) if family != "qwen2" else ()):
            if raw.get(key):
                raise ValueError(f"config.json sets {key}, which this decoder does not have")
        try:
            return cls(
                vocab_size=raw["vocab_size"],
                width=raw["hidden_size"],
                layers=raw["num_hidden_layers"],
                heads=raw["num_attention_heads"],
                kv_heads=raw.get("num_key_value_heads") or raw["num_attention_heads"],
                head_dim=raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"],
                ffn=raw["intermediate_size"],
                norm_eps=raw.get("rms_norm_eps", 1e-6),
                rope_theta=rope.get("rope_theta") or raw.get("rope_theta", 10_000.0),
                rope_scaling=rope if kind == "llama3" else None,
                tied=raw.get("tie_word_embeddings", False),
                raw=raw,
                **FAMILIES[family],
            )
        except KeyError as missing:
            raise ValueError(f"config.json has no {missing}") from None

    def block_parameters(self):
        """Number of weights of a block."""
        with torch.device("meta"):
            return sum(p.numel() for p in Block(self, 0).parameters())

    def parameters(self):
        """Number of weights of the whole model."""
        return self.layers * self.block_parameters() + self.vocab_size * self.width * (1 if self.tied else 2) + self.width

    def forward_flops(self, tokens, pairs, scored):
        """Multiplications and additions of a forward pass of `tokens` tokens, of which `scored` get logits; pairs: how many
        tokens they attend to, summed over them."""
        attention = self.head_dim * (2 * self.heads + 2 * self.kv_heads) * self.width
        matrices = self.layers * (attention + 3 * self.ffn * self.width)
        products = self.layers * 2 * self.heads * self.head_dim * pairs
        return 2 * (matrices * tokens + self.vocab_size * self.width * scored + products)


def rope_frequencies(config, device):
    """Angular frequencies of the rotary embedding, fp32 [C/2], in radians a token.

    Llama 3 (config.json `rope_type: llama3`) divides the frequencies of wavelengths beyond its original context by
    `factor`, leaves the short ones, and blends the two in between.
    """
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
    frequency = config.rope_theta**-exponent
    if config.rope_scaling is None:
        return frequency
    s = config.rope_scaling
    turns = s["original_max_position_embeddings"] * frequency / (2 * math.pi)  # turns made over the original context
    keep = (turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
    keep = keep.clamp(0, 1)
    return frequency * (keep + (1 - keep) / s["factor"])


def causal_attention(q_BTHC, k_BTKC, v_BTKC):
    """Attention of each token to itself and to those before it -> [B, T, H, C].

    Rows are right-padded, so causality alone keeps real tokens from seeing padding; no mask is needed.
    """
    q, k, v = (x.transpose(1, 2) for x in (q_BTHC, k_BTKC, v_BTKC))
    gqa = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa).transpose(1, 2)


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention: H query heads share K key/value heads."""

    def __init__(self, config, layer):
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        query_width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.width, query_width, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.width, kv_width, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.width, kv_width, bias=config.qkv_bias)
        self.o_proj = nn.Linear(query_width, config.width, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None

    def forward(self, x_BTD, cos, sin, cache):
        q_BTHC, k_BTKC, v_BTKC = (
            proj(x_BTD).unflatten(-1, (-1, self.head_dim)) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        norms = (self.q_norm.weight, self.k_norm.weight, self.q_norm.eps) if self.q_norm else (None, None, 0.0)
        if cache is None:
            q_BTHC = norm_rotate(q_BTHC, norms[0], norms[2], cos, sin)
            k_BTKC = norm_rotate(k_BTKC, norms[1], norms[2], cos, sin)
            out_BTHC = causal_attention(q_BTHC, k_BTKC, v_BTKC)
        else:
            out_BTHC = cache.attend(self.layer, q_BTHC, k_BTKC, v_BTKC, norms, cos, sin)
        return self.o_proj(out_BTHC.flatten(-2))


class SwiGLU(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.width, bias=False)

    def forward(self, x_BTD):
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


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
    """A causal decoder. `forward` stops at the hidden states: logits [B, T, V] are too large to make unasked."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.lm_head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)

    @property
    def head_weight(self):
        """The output projection, [V, D]."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(self, tokens_BT, positions_BT=None, cache=None):
        """Final hidden states [B, T, D] of token ids [B, T].

        positions_BT: each token's place in its own row, 0 on when not given. cache: an object whose `attend(layer, q_BTHC,
        k_BTKC, v_BTKC, norms, cos, sin) -> [B, T, H, C]` takes the projections from there: the norms of query and key
        (their weights, or None, and eps), the rotary embedding (cos, sin [B, T, 1, C/2]) and the attention.
        """
        if positions_BT is None:
            positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        x_BTD = self.embed_tokens(tokens_BT)
        angle = positions_BT[..., None, None] * rope_frequencies(self.config, tokens_BT.device)  # [B, T, 1, C/2]
        cos, sin = angle.cos().to(x_BTD.dtype), angle.sin().to(x_BTD.dtype)
        for block in self.layers:
            x_BTD = block(x_BTD, cos, sin, cache)
        return self.norm(x_BTD)

    def logits(self, hidden):
        """Logits [..., V] of hidden states [..., D]."""
        return F.linear(hidden, self.head_weight)


def checkpoint_name(name):
    """The Hugging Face name of one of our parameters: all but the head live under `model.`"""
    return name if name.startswith("lm_head.") else "model." + name


def resolve(path, files=("*.json", "*.safetensors", "*.txt", "*.jinja")):
    """The local folder of a model: `path` itself, or the download of these files of a Hub id such as `Qwen/Qwen3-0.6B-Base`.

    Raises FileNotFoundError when there is no such folder and the Hub does not give one.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or str(path).count("/") != 1 or str(path).startswith("."):
        raise FileNotFoundError(f"no model folder {str(path)!r}; give a Hugging Face folder or a Hub id (Qwen/Qwen3-4B-Base)")
    from huggingface_hub import snapshot_download  # the only use of the network, and only for a Hub id

    try:
        return Path(snapshot_download(str(path), allow_patterns=list(files)))
    except Exception as error:  # the Hub's own errors share no base class with those of the connection
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(f"no folder {str(path)!r}, and the Hub did not give it: {reason}") from None


def read_config(path):
    """The `ModelConfig` of a model folder. Raises FileNotFoundError or ValueError."""
    file = Path(path) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} has no config.json; is it a Hugging Face model folder?")
    return ModelConfig.from_dict(read_json(file))


def weight_files(folder):
    """The safetensors files of a model folder: those its index names, or the single one."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ValueError(f"{index} has no weight_map")
        files = [folder / str(name) for name in sorted(set(weight_map.values()), key=str)]
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing")
    return files


def load(path, device="cpu", dtype=torch.float32):
    """Reads a Hugging Face folder or Hub id into a `Transformer` on `device` in `dtype`, None for each tensor's own; on the CPU
    its memory is then the file's, which all processes share.

    The model is built without memory (on `meta`) and every parameter must be given exactly once, in its shape.
    Raises FileNotFoundError for a missing file; ValueError for a broken file, an unsupported config, or a tensor that is
    missing, extra or misshapen, naming it.
    """
    folder = resolve(path)
    with torch.device("meta"):
        model = Transformer(read_config(folder))
    want = {checkpoint_name(name): (name, p.shape) for name, p in model.named_parameters()}
    state, spare_head = {}, None
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt", device="cpu") as shard:
                for key in shard.keys():
                    if key == "lm_head.weight" and model.config.tied:
                        spare_head = shard.get_tensor(key)  # some tied checkpoints store the embedding twice
                        continue
                    if key not in want:
                        raise ValueError(f"{file} holds the tensor {key!r}, which this model does not have")
                    name, shape = want[key]
                    tensor = shard.get_tensor(key)
                    if tensor.shape != shape:
                        raise ValueError(f"{file}: {key!r} has shape {list(tensor.shape)}, the config asks for {list(shape)}")
                    if name in state:
                        raise ValueError(f"{file} holds the tensor {key!r}, which another file holds too")
                    state[name] = tensor.to(device=device, dtype=dtype)
        except SafetensorError as error:
            raise ValueError(f"{file} is not a whole safetensors file: {error}") from None
    missing = [key for key, (name, _) in want.items() if name not in state]
    if missing:
        raise ValueError(f"{folder} lacks the tensor {missing[0]!r}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
    if spare_head is not None and not torch.equal(spare_head.to(device=device, dtype=dtype), state["embed_tokens.weight"]):
        raise ValueError(f"{folder}: config.json ties the head to the embedding, but 'lm_head.weight' differs from it")
    model.load_state_dict(state, assign=True)
    return model


def save(model, path, tokenizer=None):
    """Writes `model` as a folder that `transformers` opens: config.json, model.safetensors, the tokenizer's files.

    The folder appears whole or not at all: it is written under a temporary name and renamed. Raises FileExistsError
    when `path` is there already.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already")
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state = {checkpoint_name(name): p.detach().cpu().contiguous() for name, p in model.named_parameters()}
    save_file(state, partial / "model.safetensors", metadata={"format": "pt"})
    raw = {k: v for k, v in model.config.raw.items() if k != "torch_dtype"}
    raw["dtype"] = str(next(model.parameters()).dtype).removeprefix("torch.")
    (partial / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
    if tokenizer is not None:
        for file in tokenizer.files():
            shutil.copyfile(file, partial / file.name)
    os.replace(partial, path)


class Tokenizer:
    """A tokenizer.json with the chat format of its vocabulary: ChatML (Qwen), or the paper's plain fallback."""

    FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
             "vocab.json", "merges.txt", "chat_template.jinja")
    STOPS = ("<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>")

    def __init__(self, path):
        """path: a model folder or Hub id. Raises FileNotFoundError or ValueError when tokenizer.json is not there or broken."""
        self.folder = resolve(path)
        file = self.folder / "tokenizer.json"
        if not file.is_file():
            raise FileNotFoundError(f"{self.folder} has no tokenizer.json")
        try:
            self.inner = HFTokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises a bare Exception
            raise ValueError(f"{file} is not a tokenizer: {error}") from None
        # Text is data: "<|im_end|>" written in a question must not end the turn.
        self.inner.encode_special_tokens = True
        self.inner.no_truncation()
        self.inner.no_padding()
        self.stop_ids = {i for i in map(self.inner.token_to_id, self.STOPS) if i is not None}
        if not self.stop_ids:
            raise ValueError(f"{file} has none of the stop tokens {', '.join(self.STOPS)}")
        self.im_start, self.im_end = map(self.inner.token_to_id, ("<|im_start|>", "<|im_end|>"))

    @property
    def vocab_size(self):
        """Number of token ids, special ones included."""
        return self.inner.get_vocab_size(with_added_tokens=True)

    def files(self):
        """The tokenizer's files in its folder, as far as they exist."""
        return [self.folder / name for name in self.FILES if (self.folder / name).is_file()]

    def encode(self, text):
        """Token ids of plain text; the names of special tokens in it are ordinary characters."""
        return self.inner.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        """The text of token ids, special tokens left out."""
        return self.inner.decode(list(ids), skip_special_tokens=True)

    def chat(self, system, user):
        """Token ids of a conversation up to where the assistant begins to speak.

        ChatML when the vocabulary has its two tokens; else `system: ...` newline `user: ...` (paper, appendix), after the
        beginning-of-text token when the tokenizer puts one.
        """
        if self.im_start is None or self.im_end is None:
            return self.inner.encode(f"system: {system}\nuser: {user}", add_special_tokens=True).ids
        newline = self.encode("\n")
        turns = [[self.im_start, *self.encode(f"{role}\n{text}"), self.im_end, *newline]
                 for role, text in (("system", system), ("user", user))]
        return [*turns[0], *turns[1], self.im_start, *self.encode("assistant\n")]

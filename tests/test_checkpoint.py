"""Broken and hostile model folders: each ends in one line, soon, and takes no memory; what only looks odd still loads."""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from fuzz_models import fuzz
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import checkpoint
import evaluate
import model
import plan
import rzero
import sample
from batches import Rollout
from checkpoint import FIELDS, LLAMA3, backtracks
from folder import RunFolder
from grpo import GRPOConfig, Trainer
from model import ModelConfig, Tokenizer, load, read_config, save
from sample import Sampler

ROOT = Path(__file__).parents[1]
SCALING = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
               original_max_position_embeddings=8192)


@pytest.fixture
def folder(tiny, tmp_path):
    """A copy of `tiny`."""
    shutil.copytree(tiny, tmp_path / "m")
    return tmp_path / "m"


def edit(file, change):
    """Rewrites a JSON file: `change` is merged into its object, or is a function that changes it."""
    value = json.loads(file.read_text())
    change(value) if callable(change) else value.update(change)
    file.write_text(json.dumps(value))


def one_line(folder, says, do=Sampler.load, seconds=2):
    """Holds `do` to end in one short line with these words, within seconds of the CPU."""
    start = time.process_time()
    with pytest.raises((OSError, ValueError), match=says) as error:
        do(folder)
    assert time.process_time() - start < seconds
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 1000


# ---- config.json


WRONG = {  # of each kind of field
    int: ["x", "96", "a" * 100_000, [], [96], {}, True, 2.5, 96.0, 0, -1, 10**30, 1e300, float("nan"), float("inf")],
    float: ["x", "1e-6", [], [1.0], {}, True, False, 0, 0.0, -1.0, 10**30, 1e300, float("nan"), float("inf")],
    bool: ["true", "", 0, 1, 2.5, [], {}],
    dict: ["x", "", 0, 7, 2.5, True, False, []],
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_a_wrong_type_or_size_is_named(folder, name):
    kind, least, most, default = FIELDS[name]
    for value in WRONG[kind] + ([least / 2 if kind is float else least - 1, most + 1] if least else []):
        edit(folder / "config.json", {name: value})
        one_line(folder, f"config.json: {name} is .*, but must be ", read_config)
    edit(folder / "config.json", {name: None})
    if default is ...:
        one_line(folder, f"has no '{name}'", read_config)
    else:
        read_config(folder)


@pytest.mark.parametrize("name", LLAMA3)
def test_a_field_of_the_rope_scaling_is_named(folder, name):
    for value in ("x", [], True, 0, -1, 1e300, float("nan"), 0.0):
        edit(folder / "config.json", {"rope_scaling": SCALING | {name: value}})
        one_line(folder, name, read_config)
    edit(folder / "config.json", {"rope_scaling": SCALING})
    assert read_config(folder).rope_scaling["factor"] == 8


@pytest.mark.parametrize("change, says", [
    ({"model_type": ["qwen3"]}, "model_type .* not supported"), ({"model_type": None}, "model_type None"),
    ({"model_type": "gpt2", "hidden_size": None}, "model_type 'gpt2' is not supported"),
    ({"model_type": "a" * 500_000}, "model_type 'aaa"), ({"hidden_act": {}}, "hidden_act"),
    ({"rope_scaling": {"type": ["llama3"]}}, "rope_type"), ({"attention_bias": "yes"}, "attention_bias"),
    ({"num_attention_heads": 4, "num_key_value_heads": 3}, "4 query heads, no multiple of its 3"),
    ({"head_dim": 31}, "heads of width 31"), ({"head_dim": None, "num_attention_heads": 100}, "heads of width 0"),
    ({"rope_scaling": SCALING | {"low_freq_factor": 4.0}}, "low_freq_factor not below"),
    ({"vocab_size": 572}, r"'model.embed_tokens.weight' has shape \[573, 96\], the config asks for \[572, 96\]"),
    ({"num_hidden_layers": 1000}, "lacks the tensor 'model.layers.3.input_layernorm.weight' and 10966 more"),
    ({"vocab_size": 10_000_000, "hidden_size": 1_000_000}, "has shape"),
    ({"x": "a" * 2_000_000}, "more than the 1,000,000"),
])
def test_a_config_that_does_not_fit_is_one_line(folder, change, says):
    edit(folder / "config.json", change)
    one_line(folder, says)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"vocab_size": ' + "9" * 9999 + "}", "", "\ufeff{}", "null"])
def test_json_that_cannot_be_read_is_one_line(folder, text):
    (folder / "config.json").write_text(text)
    one_line(folder, "config.json")


# ---- safetensors


def rewrite(folder, change, tail=b""):
    """Changes the header of model.safetensors, an object, and appends bytes. What is not an object replaces it."""
    data = (folder / "model.safetensors").read_bytes()
    length, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    changed = change(header)
    header = header if changed is None else changed
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length:] + tail)


def entry(**changes):
    """Damage: other values in the header's entry of model.norm.weight."""
    return lambda header: header["model.norm.weight"].update(changes)


def overlap(header):
    """Damage: the norm's weights are those of another tensor."""
    header["model.norm.weight"]["data_offsets"] = header["model.layers.0.input_layernorm.weight"]["data_offsets"]


@pytest.mark.parametrize("change, says", [
    (overlap, "has bytes .* asks for"),
    (entry(data_offsets=[0, 384]), "has bytes"), (entry(data_offsets=[10**15, 10**15 + 384]), "has bytes"),
    (entry(data_offsets=[-384, 0]), "entry"), (entry(data_offsets=[0.0, 384.0]), "entry"),
    (entry(data_offsets=["0", "384"]), "entry"), (entry(data_offsets=[384, 0]), "has bytes"),
    (entry(data_offsets=[True, 384]), "entry"), (entry(data_offsets=[0]), "has bytes"), (entry(data_offsets=7), "entry"),
    (entry(dtype="I32"), "has dtype 'I32', but must be one of F64, F32"), (entry(dtype="F8_E4M3"), "has dtype 'F8_E4M3'"),
    (entry(dtype="PICKLE"), "has dtype"), (entry(dtype=["F32"]), "has dtype"), (entry(dtype=None), "has dtype"),
    (entry(dtype="BF16"), "asks for"), (entry(shape=[97]), "asks for"), (entry(shape=[-96]), "entry"),
    (entry(shape=[96.0]), "entry"), (entry(shape=96), "entry"), (entry(shape=[2**62, 2**62]), "asks for"),
    (entry(shape=[2**64]), "entry"), (entry(shape=[1] * 100_000), "entry"), (entry(shape=[]), "asks for"),
    (entry(shape=[8, 12]), r"has shape \[8, 12\]"), (entry(code="import os"), "entry"),
    (lambda h: h.update({"model.norm.weight": []}), "entry"), (lambda h: h.update({"a" * 100_000: None}), "'aaa"),
    (lambda h: h.update({"\n\n": h.pop("model.norm.weight")}), r"tensor '\\n\\n', which this model does not have"),
    (lambda h: h.update(__metadata__={"a": 7}), "not a whole"), (lambda h: h.update(__metadata__=7), "not a whole"),
    (lambda h: [h], "not a JSON object"), (lambda h: b"", "not valid JSON"), (lambda h: b"\xff\xfe{}", "not valid JSON"),
    (lambda h: b"[" * 100_000, "not valid JSON"), (lambda h: b'{"a": 1, "a": 2}', "there twice"),
    (lambda h: b"{}", "end at byte 0 of 1,5"), (lambda h: print(h.pop("model.norm.weight")), "asks for|end at byte"),
    (lambda h: {f"t{i}": dict(dtype="F32", shape=[0], data_offsets=[0, 0]) for i in range(100_000)}, "end at byte|does not"),
])
def test_a_header_that_lies_is_one_line(folder, change, says):
    rewrite(folder, change)
    one_line(folder, says)


def test_bytes_behind_the_last_tensor_are_one_line(folder):
    rewrite(folder, lambda header: None, tail=b"#!/bin/sh")
    one_line(folder, "its tensors end at byte 1,550,592 of 1,550,601")


@pytest.mark.parametrize("name, size, begin, says", [
    ("model.safetensors", 2**30, struct.pack("<Q", 10**9), "its header has 1,000,000,000 bytes, and may have"),
    ("model.safetensors", 100, struct.pack("<Q", 10**9), "its header would have 1,000,000,000 bytes, the file has 100"),
    ("model.safetensors", 100, struct.pack("<Q", 2**64 - 1), "its header would have"),
    ("config.json", 2**30, b"{", "more than the 1,000,000"),
    ("model.safetensors.index.json", 2**30, b"{", "more than the 10,000,000"),
    ("tokenizer.json", 2**30, b"{", "more than the 32,000,000"), ("vocab.json", 2**30, b"{", "more than the"),
])
def test_a_huge_file_is_not_read(folder, name, size, begin, says):
    """The files are sparse, so that they take no disk."""
    (folder / name).write_bytes(begin)
    os.truncate(folder / name, size)
    tracemalloc.start()
    one_line(folder, says)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


MEASURE = """
import json, resource, sys, time
from sample import Sampler
Sampler.load("tiny", kv_gb=0.01)
for folder in sys.argv[1:]:
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        Sampler.load(folder)
    except (OSError, ValueError) as error:
        print(json.dumps([folder, str(error), time.process_time() - start,
                          resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


@pytest.mark.slow
def test_no_bad_folder_takes_time_or_memory(tiny, tmp_path):
    """All in one process, whose peak is measured: sizes without end, and files as large and as dense as may be read."""
    damages = [lambda f: edit(f / "config.json", {"num_hidden_layers": 10_000_000}),
               lambda f: edit(f / "config.json", {"num_hidden_layers": 1000}),
               lambda f: edit(f / "config.json", {"vocab_size": 10**12}),
               lambda f: edit(f / "config.json", {"hidden_size": 10**6, "vocab_size": 10**7}),
               lambda f: edit(f / "config.json", {"intermediate_size": 10**7, "num_hidden_layers": 1000}),
               lambda f: (f / "config.json").write_text("[" + "[]," * 333_000 + "[]]"),
               lambda f: rewrite(f, lambda h: b'{"a":[' + b"[]," * 3_300_000 + b"[]]}"),
               lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": [' + "[]," * 3_300_000 + "[]]}}")]
    for i, damage in enumerate(damages):
        shutil.copytree(tiny, tmp_path / str(i))
        damage(tmp_path / str(i))
    done = subprocess.run([sys.executable, "-c", MEASURE, *(tmp_path / str(i) for i in range(len(damages)))], cwd=ROOT,
                          capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(damages)
    for _, line, seconds, kilobytes in rows:
        assert len(line.splitlines()) == 1 and seconds < 4 and kilobytes < 500_000, (line, seconds, kilobytes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_name_their_tensor(folder, dtype, value):
    state = {name: p.to(dtype) for name, p in load_file(folder / "model.safetensors").items()}
    state["model.layers.1.mlp.up_proj.weight"][17, 3] = value
    save_file(state, folder / "model.safetensors")
    one_line(folder, "'model.layers.1.mlp.up_proj.weight' holds NaN or infinite weights")
    one_line(folder, "holds NaN", lambda f: load(f, dtype=None))


def test_a_model_larger_than_the_memory_is_one_line(folder, monkeypatch):
    monkeypatch.setattr(model, "free_memory", lambda device: 1.5e6)
    one_line(folder, r"takes 0.00155 GB in torch.float32, and cpu has 0.0015 GB free")


# ---- the index, links, and what is not read


@pytest.mark.parametrize("name", ["../m/model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", "", 7, None, [],
                                  "a\n.safetensors", "pytorch_model.bin", "\0.safetensors", "a" * 100_000])
def test_an_index_that_names_no_file_of_its_folder_is_one_line(folder, name):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    one_line(folder, "index.json names .* which is no safetensors file of its folder")


LINKED = ["config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json", "vocab.json"]


@pytest.mark.parametrize("name", LINKED)
@pytest.mark.parametrize("relative", [True, False])
def test_a_link_out_of_the_folder_is_one_line(folder, name, relative):
    """Also of a file that `save` would copy to a run's folder."""
    secret = folder.parent / "secret"
    (folder / name).rename(secret) if (folder / name).exists() else secret.write_text("{}")
    (folder / name).symlink_to("../secret" if relative else secret)
    one_line(folder, f"{name} is a link out of the model folder, to .*secret")


def test_links_within_the_folder_and_to_it_are_followed(folder):
    (folder / "weights").mkdir()
    (folder / "model.safetensors").rename(folder / "weights" / "w")
    (folder / "model.safetensors").symlink_to("weights/w")
    (folder.parent / "link").symlink_to(folder)
    assert load(folder.parent / "link").config.layers == 3
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("config.json")
    one_line(folder, "has no config.json")


def cached(tiny, cache, shared=False):
    """`tiny` as the Hub's cache keeps a model: links to its blobs, which may be links to blobs of all models."""
    snapshot, blobs = cache / "models--a--b" / "snapshots" / "0123", cache / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (cache / "blobs" / "ab").mkdir(parents=True)
    for i, name in enumerate(("config.json", "tokenizer.json", "model.safetensors")):
        shutil.copy(tiny / name, cache / "blobs" / "ab" / str(i) if shared else blobs / str(i))
        if shared:
            (blobs / str(i)).symlink_to(f"../../blobs/ab/{i}")
        (snapshot / name).symlink_to(f"../../blobs/{i}")
    return snapshot


@pytest.mark.parametrize("shared", [False, True])
def test_the_links_of_the_hubs_cache_are_followed(tiny, tmp_path, monkeypatch, shared):
    """By a path into it and by the Hub id; a link that leads elsewhere is refused there too."""
    snapshot = cached(tiny, tmp_path, shared)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: str(snapshot))
    for path in (snapshot, "a/b"):
        assert Sampler.load(path, kv_gb=0.01).model.config.layers == 3
    (snapshot / "vocab.json").symlink_to("../../../secret")
    (tmp_path / "secret").write_text("{}")
    one_line(snapshot, "vocab.json is a link out")


class Boom:
    """A pickle that leaves a file where it is read."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_no_pickle_is_read_and_no_code_is_run(folder):
    """Beside the weights they are not looked at; a folder without safetensors says what to do."""
    trap, code = folder.parent / "trap", f"import os\nos.system('touch {folder.parent / 'trap'}')\n"
    for name in ("pytorch_model.bin", "training_args.bin", "model.pt"):
        (folder / name).write_bytes(pickle.dumps(Boom(trap)))
    for name in ("modeling_evil.py", "configuration_evil.py", "setup.py", "__init__.py", "conftest.py"):
        (folder / name).write_text(code)
    edit(folder / "config.json", {"auto_map": {"AutoConfig": "configuration_evil.Evil", "AutoModelForCausalLM":
                                               "modeling_evil.Evil"}, "trust_remote_code": True})
    sampler = Sampler.load(folder, kv_gb=0.01)
    assert sampler.generate([[5, 6]], max_tokens=3)[0]
    save(load(folder), folder.parent / "copy", sampler.tokenizer)
    assert {f.suffix for f in (folder.parent / "copy").iterdir() if f.name != "SHA256SUMS"} == {".json", ".safetensors"}
    (folder / "model.safetensors").unlink()
    one_line(folder, "model.safetensors is missing; '.*' may be a pickle, .* convert it to safetensors")
    assert not trap.exists()
    pickle.loads(pickle.dumps(Boom(trap)))
    assert trap.exists()  # the trap works


OFFLINE = """
import socket, sys
def refuse(*args, **kwargs):
    raise SystemExit("the network was used")
socket.socket.connect = socket.socket.sendto = socket.getaddrinfo = socket.create_connection = refuse
import evaluate, model, plan, sample
sampler = sample.Sampler.load("tiny", kv_gb=0.01)
sampler.generate([sampler.tokenizer.chat("", "1 + 1")], max_tokens=3)
print([name for name in sys.modules if name.split(".")[0] in ("huggingface_hub", "transformers", "requests", "httpx")])
"""


@pytest.mark.slow
def test_nothing_is_sent_for_a_folder():
    done = subprocess.run([sys.executable, "-c", OFFLINE], cwd=ROOT, capture_output=True, text=True, check=False,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


# ---- tokenizer.json


def normalizer(*parts):
    return {"normalizer": {"type": "Sequence", "normalizers": [*parts]}}


def splits(pattern):
    return {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}}


def begins(*ids):
    """A post-processor that begins each text with these ids."""
    return {"post_processor": {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "s", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [], "special_tokens": {"s": {"id": "s", "ids": ids, "tokens": ["s"] * len(ids)}}}}


LONGER = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


@pytest.mark.parametrize("change, says", [
    ({"model": 7}, "is not a tokenizer"), ({"added_tokens": "x"}, "is not a tokenizer"),
    (normalizer(*[LONGER] * 30), "'Replace' may make a text much longer"),
    (normalizer(LONGER | {"content": "a" * 100}), "'Replace' may make a text much longer"),
    ({"decoder": {"type": "Sequence", "decoders": [LONGER] * 30}}, "'Replace' may make a text much longer"),
    ({"decoder": LONGER | {"pattern": {"Regex": "(a|a)*$"}}}, "'Replace'|may take forever"),
    (normalizer({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "is not a tokenizer"),
    (splits("(a+)+$"), r"regular expression '\(a\+\)\+\$' may take forever"), (splits("(" * 9999), "is not a tokenizer"),
    (lambda t: t["model"]["vocab"].update({"x" * 10_000: 0}), "a token has more than 1,000 characters"),
    (lambda t: t["model"]["vocab"].update({"new": -1}), "is not a tokenizer"),
    (lambda t: t["model"]["vocab"].update({"new": 573}), "the tokenizer has 574 tokens, the model only 573"),
    (lambda t: t["model"]["vocab"].update({"new": 2**32 - 1}), "the tokenizer has 4294967296 tokens"),
    (begins(*[0] * 5000), "makes 5.* tokens of"), (begins(573), "the tokenizer has 574 tokens, the model only 573"),
    ({"model": {"type": "WordLevel", "vocab": {"<|endoftext|>": 0}, "unk_token": "?"}}, "is not a tokenizer"),
    ({"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}, "none of the stop tokens"),
])
def test_a_hostile_tokenizer_is_one_line(folder, change, says, capfd):
    edit(folder / "tokenizer.json", change)
    one_line(folder, says)
    assert capfd.readouterr().err == ""  # nor does a library say anything


@pytest.mark.parametrize("text", ["[" * 100_000, '{"model":' * 100_000, "", "\0", '{"version": "1.0"}'])
def test_a_tokenizer_that_cannot_be_read_is_one_line(folder, text):
    (folder / "tokenizer.json").write_text(text)
    one_line(folder, "tokenizer.json is not a tokenizer")


def test_a_vocabulary_padded_beyond_the_tokenizers_is_fine(folder):
    state = load_file(folder / "model.safetensors")
    table = state["model.embed_tokens.weight"]
    for rows, says in ((640, None), (500, "the tokenizer has 573 tokens, the model only 500")):
        state["model.embed_tokens.weight"] = torch.cat([table, table])[:rows].clone()
        save_file(state, folder / "model.safetensors")
        edit(folder / "config.json", {"vocab_size": rows})
        one_line(folder, says) if says else Sampler.load(folder, kv_gb=0.01)


def test_a_panic_in_the_tokenizer_is_one_line(folder, monkeypatch, capfd):
    """Oniguruma gives up on an expression after ten million steps, and the library panics, at whatever text it is."""
    edit(folder / "tokenizer.json", splits("(a+)+$"))
    monkeypatch.setattr(checkpoint, "backtracks", lambda pattern: False)
    tokenizer = Tokenizer(folder)
    one_line("a" * 40 + " b", "tokenizer.json cannot encode a text: .*retry-limit", tokenizer.encode, seconds=10)
    assert tokenizer.encode("b")


WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.mark.parametrize("pattern", [
    WORDS, r"\p{N}{1,3}", r"[一-龥]+", r"\s+$", " ", "", r"'s|'t| ?\p{L}+", r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}]?+\p{L}+",
    r"[^\r\n]?[\p{Lu}\p{M}]*[\p{Ll}\p{M}]+(?i:'s|'t|'re)?|\p{N}{1,3}", r"[!\"#\]\[\\+*()][A-Za-z]+|[^\r\n\p{P}]?[\p{L}\p{M}]+"])
def test_the_expressions_of_the_families_are_taken(pattern):
    assert not backtracks(pattern)


@pytest.mark.parametrize("pattern", [
    "(a+)+$", "(a|a)*c", "(?:a|aa)+$", r"(.)\1", r"(?<x>a)\k<x>", "((a{1,9}){1,9}){1,9}", "(?=(a+))+b", "(?i)(a+)+",
    "a?" * 30 + "a" * 30, "(a|a)" * 30, "(((a+)))+", "((a)|b)*c", "(?P<n>a+)+", r"[a\]]*" * 7, r"(\p{L}+)*"])
def test_expressions_that_may_hang_are_not(pattern):
    assert backtracks(pattern)


# ---- writing

DISK = "2m"  # of small_disk


def full_disk(*args, **kwargs):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("fail", [full_disk, lambda *args, **kwargs: open("/proc/self/mem/x")])
def test_a_write_that_fails_is_one_line_and_leaves_nothing(folder, tmp_path, monkeypatch, fail):
    loaded = load(folder)
    monkeypatch.setattr(model, "save_file", fail)
    one_line(tmp_path / "new", "cannot write .*new, which takes 1.6 MB where .* are free: .*(No space|directory)", lambda path: save(loaded, path))
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_weights_that_do_not_shrink_stay_as_they_were(folder, tmp_path, monkeypatch):
    part = tmp_path / "run" / "iter1" / "solver"
    shutil.copytree(folder, part)
    before = (part / "model.safetensors").read_bytes()
    monkeypatch.setattr("folder.save_file", full_disk)
    one_line(tmp_path / "run", "cannot write .*solver, which takes 0.8 MB where .* free: .*No space",
             lambda path: RunFolder(path).shrink("solver", 2))
    assert (part / "model.safetensors").read_bytes() == before and load(part)
    assert not (part / "model.safetensors.partial").exists()


def test_a_full_disk_is_one_line_and_the_last_weights_stay(folder, small_disk):
    loaded, tokenizer = load(folder), Tokenizer(folder)
    save(loaded, small_disk / "iter1", tokenizer)
    for left in (400_000, 20_000, 0):  # full within the weights, at the tokenizer, at once
        with open(small_disk / "filler", "wb") as file:
            room = os.statvfs(small_disk)
            file.write(bytes(max(0, room.f_bavail * room.f_frsize - left)))
        one_line(small_disk / "iter2", "cannot write .*iter2, which takes 1.6 MB where [01].* are free: .*No space left on device",
                 lambda path: save(loaded, path, tokenizer))
        assert sorted(file.name for file in small_disk.iterdir()) == ["filler", "iter1"]
        (small_disk / "filler").unlink()
    assert load(small_disk / "iter1").state_dict().keys() == loaded.state_dict().keys()


def test_a_checkpoint_on_a_full_disk_is_one_line_and_the_last_one_stays(folder, small_disk):
    """AdamW's moments do not fit beside the weights."""
    trainer = Trainer(load(folder), GRPOConfig(kl_coef=0.0), 1e-3)
    (small_disk / "step000001").mkdir()
    for _ in range(2):
        trainer.step([Rollout([1, 2], [3, 4], 1.0)])
    one_line(small_disk, "cannot write .*step000002, which takes 4.7 MB where 2.1 are free: ",
             lambda path: trainer.save_checkpoint(path, 2))
    assert [file.name for file in small_disk.iterdir()] == ["step000001"]


# ---- the commands


@pytest.mark.parametrize("command, arguments", [
    (sample, ["--prompt", "hi", "--model"]), (evaluate, ["--data", "q.jsonl", "--out", "e", "--model"]),
    (rzero, ["--heldout", "", "--out", "r", "--model"]),
    (rzero, ["--heldout", "", "--out", "r", "--model", str(ROOT / "tiny"), "--challenger"]),
    (plan, ["--device_gb", "24", "--model"]), (model, [])],
    ids=["sample", "evaluate", "rzero", "challenger", "plan", "model"])
def test_every_command_ends_in_one_line(folder, tmp_path, monkeypatch, capsys, command, arguments):
    """For a config that no command takes, and for weights where they are read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_text('{"question": "1 + 1", "answer": "2"}\n')
    monkeypatch.setattr(sys, "argv", [command.__name__, *arguments, str(folder)])

    def says():
        with pytest.raises(SystemExit) as exit:
            command.main()
        line = capsys.readouterr().err if exit.value.code == 1 else exit.value.code  # which Python would print
        assert isinstance(line, str) and len(line.splitlines()) == 1
        return line.strip()

    if command not in (plan, model):
        state = load_file(folder / "model.safetensors")
        state["model.norm.weight"][0] = float("nan")
        save_file(state, folder / "model.safetensors")
        assert says().startswith(f"{command.__name__}.py: ") and "'model.norm.weight' holds NaN" in says()
    edit(folder / "config.json", {"num_hidden_layers": 10_000_000})
    assert says().endswith("num_hidden_layers is 10000000, but must be a whole number from 1 to 1,000")
    assert not (tmp_path / "r").exists() and not (tmp_path / "e").exists()


@pytest.mark.slow
def test_random_damage_ends_in_one_line_or_in_a_model_that_works(tmp_path):
    """A short form of `python tests/fuzz_models.py --rounds 500`."""
    ended = fuzz(60, "suite", tmp_path)
    assert sum(ended.values()) == 60 and {how for _, how in ended} == {"works", "one line"}


def test_the_shapes_of_a_config_are_those_of_its_model():
    """They are counted from one block."""
    for family in ("qwen3", "qwen2", "llama"):
        raw = json.loads((ROOT / "tiny" / "config.json").read_text()) | {"model_type": family, "num_hidden_layers": 12}
        config = ModelConfig.from_dict(raw)
        assert config.shapes() == {n: list(p.shape) for n, p in model.Transformer(config).named_parameters()}

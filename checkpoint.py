"""Model folders and checkpoints, read and written: every check of a folder that needs no decoder.

A folder may come from anyone, so it is data alone. Only JSON and safetensors files are read. No pickle is opened, no
code of the folder is run (`auto_map` is ignored), and no file outside the folder is read, nor anything sent. A size is
checked before anything of that size is allocated, and whatever is wrong ends in one line (OSError or ValueError)."""

import hashlib
import json
import math
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer as HFTokenizer

from common import barrier, from_rank_0, printable, rank_and_world, read_json, short, write_whole, writing

MAX_CONFIG, MAX_JSON, MAX_TOKENIZER = 1_000_000, 10_000_000, 32_000_000  # bytes; JSON takes up to 25 times that to read
INDEX, PICKLES = "model.safetensors.index.json", ("*.bin", "*.pt", "*.pth", "*.ckpt")
SUMS = "SHA256SUMS"  # in each folder that this program writes
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # of a safetensors file that are read, and their bytes
TOKEN, PROBE = 1_000, "What is 17 + 25?\n"  # the most characters of a token; a text that a tokenizer must encode

# config.json. Each field: its kind, the least and the most, and what null or a missing field means (`...`: an error).
FIELDS = {
    "vocab_size": (int, 1, 10_000_000, ...),
    "hidden_size": (int, 1, 1_000_000, ...),
    "num_hidden_layers": (int, 1, 1_000, ...),
    "num_attention_heads": (int, 1, 10_000, ...),
    "num_key_value_heads": (int, 1, 10_000, None),
    "head_dim": (int, 2, 10_000, None),
    "intermediate_size": (int, 1, 10_000_000, ...),
    "max_position_embeddings": (int, 1, 1_000_000_000, math.inf),
    "rms_norm_eps": (float, 1e-12, 1, 1e-6),
    "rope_theta": (float, 1, 1e12, 10_000.0),
    "rope_parameters": (dict, None, None, None),
    "rope_scaling": (dict, None, None, None),
    "tie_word_embeddings": (bool, False, True, False),
}
ROPE = {"rope_theta": (float, 1, 1e12, None)}  # of rope_parameters or rope_scaling
LLAMA3 = ROPE | {
    "factor": (float, 1, 1e6, ...),
    "low_freq_factor": (float, 1e-6, 1e6, ...),
    "high_freq_factor": (float, 1e-6, 1e6, ...),
    "original_max_position_embeddings": (float, 1, 1e9, ...),
}
KINDS = {int: "a whole number", float: "a number", bool: "true or false", dict: "an object"}


def fields(raw, table, where="config.json"):
    """{field: value} of the fields in a table such as FIELDS. Raises ValueError naming a field that is missing, of
    another kind, or out of range."""
    values = {}
    for name, (kind, least, most, default) in table.items():
        value = values[name] = default if raw.get(name) is None else raw[name]
        if value is ...:
            raise ValueError(f"{where} has no {name!r}")
        fits = type(value) in ((int, float) if kind is float else (kind,))
        if value is not default and not (fits and (kind is dict or least <= value <= most)):
            within = f" from {least:,} to {most:,}" if kind in (int, float) else ""
            raise ValueError(f"{where}: {name} is {short(value)}, but must be {KINDS[kind]}{within}")
    return values


def supported(name, value, known):
    """The value, which must be one of the known ones. Raises ValueError naming the field."""
    if value not in [*known]:
        raise ValueError(f"{name} {short(value)} is not supported; this decoder has {', '.join(known)}")
    return value


def resolve(path, files=("*.json", "*.safetensors", "*.txt", "*.jinja")):
    """The local folder of a model: `path` itself, or these files of a Hub id (`Qwen/Qwen3-4B-Base`), downloaded.
    Raises FileNotFoundError when there is no such folder and the Hub does not give one."""
    folder, name = Path(path), str(path)
    if folder.is_dir():
        return folder
    if name.count("/") != 1 or name[0] in "./":
        raise FileNotFoundError(f"no model folder {name!r}; give a Hugging Face folder or a Hub id "
                                "(Qwen/Qwen3-4B-Base)")
    from huggingface_hub import snapshot_download  # the only use of the network, and only for a Hub id

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # errors of the Hub and of the connection share no base class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(f"no folder {name!r}, and the Hub did not give it: {reason}") from None


def find(folder, name, most=math.inf):
    """The file `name` of a model folder, None if there is none. Raises ValueError where it has more than `most` bytes,
    or is a link out of the folder. In the Hub's cache all files are links, to blobs of the model or of the cache."""
    file = folder / name
    if not file.is_file():
        return None
    home, real = folder.resolve(), file.resolve()
    homes = [home]
    if home.parent.name == "snapshots" and home.parents[1].name.startswith("models--"):
        homes += [home.parents[1] / "blobs", home.parents[2] / "blobs"]
    if not any(real.is_relative_to(home) for home in homes):
        raise ValueError(f"{file} is a link out of the model folder, to {real}; copy the file there")
    if (size := file.stat().st_size) > most:
        raise ValueError(f"{file} has {size:,} bytes, more than the {most:,} that such a file may have")
    return file


def write_sums(folder):
    """Writes the SHA-256 of a folder's safetensors files to its SHA256SUMS, as the program sha256sum does."""
    files = sorted(folder.glob("*.safetensors"))
    write_whole(folder / SUMS, "".join(f"{digest(file)}  {file.name}\n" for file in files))


def digest(file):
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def check_sums(folder):
    """Raises ValueError naming a file that is not what the folder's SHA256SUMS says, if it has one; in 0.6 s a GB."""
    if not (sums := find(folder, SUMS, MAX_CONFIG)):
        return
    text = sums.read_text(errors="replace")
    if not text.endswith("\n"):
        raise ValueError(f"{sums} is cut off")
    for line in text.splitlines():
        sha256, _, name = line.partition("  ")
        file = find(folder, name) if name and Path(name).name == name else None
        if not file:
            raise ValueError(f"{sums} names {short(name)}, which is not there (if that is meant, remove {SUMS})")
        if digest(file) != sha256:
            raise ValueError(f"{file} is damaged: its SHA-256 is not that of {SUMS} (if that is meant, remove {SUMS})")


def whole_or_set_aside(folder):
    """Whether a folder that this program wrote is as it was written. If not, says so, and sets it aside."""
    try:
        check_sums(folder)
    except ValueError as error:  # not OSError: a disk may be away for a moment
        aside = folder.with_name(folder.name + ".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
        print(f"{error}; it is set aside as {aside.name}, and the run goes on from what was before it", flush=True)
        return False
    return True


def tensor_files(folder):
    """The safetensors files of a folder: those that its index names, or model.safetensors."""
    index, names = find(folder, INDEX, MAX_JSON), ["model.safetensors"]
    if index:
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ValueError(f"{index} has no weight_map")
        for name in weight_map.values():
            if not (isinstance(name, str) and name.isprintable() and Path(name).name == name
                    and name.endswith(".safetensors")):
                raise ValueError(f"{index} names {short(name)}, which is no safetensors file of its folder")
        names = sorted(set(weight_map.values()))
    files = [find(folder, name) for name in names]
    if None in files:
        pickle = next((file.name for pattern in PICKLES for file in folder.glob(pattern)), None)
        raise FileNotFoundError(f"{folder / names[files.index(None)]} is missing" + (
            f"; {short(pickle)} may be a pickle, which can run code and is never read: convert it to safetensors"
            if pickle else ""))
    return files


def unique(pairs):
    """A JSON object whose names differ."""
    if len(entries := dict(pairs)) < len(pairs):
        raise ValueError("a name is there twice")
    return entries


def read_header(file):
    """{name: shape} of the tensors in a safetensors file, whose header is checked in full before the file is mapped.
    Raises ValueError."""
    def broken(why):
        return ValueError(f"{file} is not a whole safetensors file: {why}")

    def whole(numbers, most):
        return isinstance(numbers, list) and len(numbers) <= most and all(
            type(n) is int and 0 <= n < 2**63 for n in numbers)

    size = file.stat().st_size
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if 8 + length > size:
            raise broken(f"its header would have {length:,} bytes, the file has {size:,}")
        if length > MAX_JSON:
            raise broken(f"its header has {length:,} bytes, and may have {MAX_JSON:,}")
        try:
            header = json.loads(opened.read(length).decode(), object_pairs_hook=unique)
        except (ValueError, RecursionError) as error:
            raise broken(f"its header is not valid JSON: {error}") from None
    if not isinstance(header, dict):
        raise broken("its header is not a JSON object")
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if not (isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}
                and whole(entry["shape"], 8) and whole(entry["data_offsets"], 2)):
            raise broken(f"{short(name)} has the entry {short(entry)}")
        if entry["dtype"] not in [*DTYPES]:
            raise ValueError(f"{file}: {short(name)} has dtype {short(entry['dtype'])}, but must be one of "
                             f"{', '.join(DTYPES)}")
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        offsets, shape = entry["data_offsets"], entry["shape"]
        expected = [end, end := end + math.prod(shape) * DTYPES[entry["dtype"]]]
        if offsets != expected:
            raise broken(f"{short(name)} has bytes {offsets}, its shape {shape} asks for {expected}")
    if end != size - 8 - length:
        raise broken(f"its tensors end at byte {end:,} of {size - 8 - length:,}")
    return {name: entry["shape"] for name, entry in header.items()}


def read_tensors(folder):
    """(file, name, tensor) for each tensor in the safetensors files of a folder, mapped to its file. Raises ValueError
    naming a tensor with NaN or infinite weights; to look for these takes about 0.2 s a GB."""
    for file in tensor_files(folder):
        read_header(file)
        try:
            with safe_open(file, framework="pt", device="cpu") as tensors:
                for name in tensors.keys():
                    tensor = tensors.get_tensor(name)
                    if tensor.numel() and not all(map(math.isfinite, tensor.aminmax())):
                        raise ValueError(f"{file}: {short(name)} holds NaN or infinite weights")
                    yield file, name, tensor
        except SafetensorError as error:
            raise ValueError(f"{file} is not a whole safetensors file: {error}") from None


def check_shapes(folder, shapes, optional=()):
    """Raises ValueError unless the headers of a folder hold each tensor of `shapes` {name: shape} once, in its shape,
    and no other; those of `optional` may be missing."""
    held = set()
    for file in tensor_files(folder):
        for name, shape in read_header(file).items():
            if name not in shapes:
                raise ValueError(f"{file} holds the tensor {short(name)}, which this model does not have")
            if shape != shapes[name]:
                raise ValueError(f"{file}: {name!r} has shape {shape}, the config asks for {shapes[name]}")
            if name in held:
                raise ValueError(f"{file} holds the tensor {name!r}, which another file holds too")
            held.add(name)
    missing = [name for name in shapes if name not in held and name not in optional]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise ValueError(f"{folder} lacks the tensor {missing[0]!r}{more}")


# ---- checkpoints of a trainer


def checkpoints(folder):
    """The finished checkpoints in a folder, step000001 and so on, oldest first."""
    return sorted(path for path in Path(folder).glob("step*") if path.name[4:].isdigit() and (path / SUMS).exists())


def newest_checkpoint(folder):
    """The newest checkpoint that is whole, None if there is none; the same in all processes."""
    whole = filter(whole_or_set_aside, reversed(checkpoints(folder)))  # one after the other, until one is
    return from_rank_0(next(whole, None) if rank_and_world()[0] == 0 else None)


def save_shards(state, path, keep):
    """Writes a checkpoint, of which each process has its rows -> a file for each kind and process. Of the checkpoints
    beside it the newest `keep` stay. state: {kind: {parameter: this process's rows}}. Raises OSError."""
    (rank, world), partial = rank_and_world(), path.with_name(path.name + ".partial")
    if from_rank_0(rank == 0 and path in checkpoints(path.parent)):
        return
    size = world * sum(x.nbytes for tensors in state.values() for x in tensors.values())
    with writing(partial, path, size):
        if rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            path.parent.mkdir(exist_ok=True)  # fails where the run folder vanished
            partial.mkdir()
        barrier()
        for kind, tensors in state.items():
            save_file(tensors, partial / f"{kind}.{rank:06d}.safetensors")
        barrier()
        if rank == 0:
            write_sums(partial)
            os.replace(partial, path)
    if rank == 0:
        for old in checkpoints(path.parent)[:-keep]:
            os.replace(old, partial)  # a kill within leaves nothing that looks like a checkpoint
            shutil.rmtree(partial)


def read_shards(path, state):
    """Fills this process's rows, {kind: {parameter: rows}}, from the checkpoint of any number of processes."""
    rank, world = rank_and_world()
    for kind, tensors in state.items():
        files = [safe_open(file, "pt") for file in sorted(path.glob(f"{kind}.*"))]
        for name, mine in tensors.items():
            parts = [file.get_tensor(name) for file in files]
            if mine.dim():
                rows = torch.cat(parts)
                each = -(-len(rows) // world)  # as FSDP cuts them
                mine.copy_(rows[rank * each:(rank + 1) * each])
            else:
                mine.copy_(parts[0])


@contextmanager
def tokenizing(what):
    """Around a call of the tokenizers library, which raises bare Exceptions, and BaseExceptions where its Rust code
    panics. They become a ValueError that begins with `what`."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = printable(str(error) or type(error).__name__).splitlines()[0]  # it may quote the folder
        raise ValueError(f"{what}: {said[:300]}") from None


@contextmanager
def without_stderr():
    """Drops what libraries write to stderr by themselves, as Rust does before it panics."""
    stderr, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nothing)


def backtracks(pattern):
    """Whether a regular expression may take exponential time: it refers back, quantifies a group that has a choice or
    a quantifier in it, or has more than six quantifiers and choices in one alternative. (For what is left, Oniguruma
    gives up after ten million steps.)"""
    quantifiers = re.compile(r"(?:[*+?]|\{\d*,?\d*\})[+?]?")
    text = re.sub(r"\\[pP]\{[^}]*\}|\\[^1-9kg]|\[(?:\\.|[^\]\\])*\]", "x", pattern, flags=re.DOTALL)
    text = re.sub(r"\(\?[a-z-]+\)", "", re.sub(r"\(\?(?:[a-z-]*:|<?[=!]|>)", "(", text))
    if "\\" in text or "(?" in text or len(text) > 10_000:
        return True
    while group := re.search(r"\(([^()]*)\)([*+{]?)", text):
        choices = len(quantifiers.findall(group[1])) + ("|" in group[1])
        if choices and group[2]:
            return True
        text = f"{text[:group.start()]}x{'x?' * choices}{group[2]}{text[group.end():]}"
    return any(len(quantifiers.findall(alternative)) > 6 for alternative in text.split("|"))


def check_parts(inner):
    """Raises ValueError where a tokenizer's regular expressions may hang, or where it lengthens a text many times."""
    for part in (inner.normalizer, inner.pre_tokenizer, inner.post_processor, inner.decoder):
        found, longer = [json.loads(part.__getstate__())] if part else [], 0
        while found:
            node = found.pop()
            if isinstance(node, dict):
                if "Regex" in node and backtracks(node["Regex"]):
                    raise ValueError(f"the regular expression {short(node['Regex'])} may take forever")
                longer += node.get("type") in ("Replace", "Prepend")
                if longer > 4 or len(node.get("content") or node.get("prepend") or "") > 4 or "precompiled" in str(
                        node.get("type")).lower():
                    raise ValueError(f"{short(node.get('type'))} may make a text much longer")
            found += node if isinstance(node, list) else node.values() if isinstance(node, dict) else []


def read_tokenizer(folder):
    """(tokenizer, 1 + its largest id) of a folder's tokenizer.json, which encodes special tokens in a text as text.
    Raises FileNotFoundError or ValueError."""
    file = find(folder, "tokenizer.json", MAX_TOKENIZER)
    if not file:
        raise FileNotFoundError(f"{folder} has no tokenizer.json")
    with tokenizing(f"{file} is not a tokenizer"), without_stderr():
        inner = HFTokenizer.from_file(str(file))
        inner.encode_special_tokens = True  # as text: an "<|im_end|>" in a question must not end the turn
        inner.no_truncation()
        inner.no_padding()
        check_parts(inner)
        vocabulary = inner.get_vocab(with_added_tokens=True)
        if max(map(len, vocabulary), default=0) > TOKEN:
            raise ValueError(f"a token has more than {TOKEN:,} characters")
        ids = inner.encode(PROBE, add_special_tokens=True).ids  # the post-processor has ids of its own
        if len(ids) > TOKEN:
            raise ValueError(f"it makes {len(ids):,} tokens of {len(PROBE)} characters")
    return inner, 1 + max([*vocabulary.values(), *ids], default=0)

"""The run folder: what is finished, its settings, its metrics, the weights of each role, the table of results.

    config.json  metrics.jsonl  eval.jsonl    the settings; an object per GRPO step; an object per iteration, 0 the base
    iter1/challenger/  iter1/solver/          the weights after iteration 1, as Hugging Face folders
    iter1/questions.jsonl                     the pool of questions, with their votes
    iter1/heldout.jsonl                       the held-out questions, and the Solver's answers; iter0/ is the base's
    iter1/solver.steps/                       checkpoints within a phase, removed at its end
    iter1/solver.damaged/                     what did not equal its SHA256SUMS
    lock.json                                 who works in the folder
    report.html                               all of it as a page, by report.py
    tensorboard/  wandb/  wandb.id            what --log wrote

Every finished part is renamed into place whole, and a resumed run skips the parts that exist. Only rank 0 writes."""

import importlib.util
import json
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors.torch import save_file

from checkpoint import SUMS, check_sums, read_tensors, write_sums
from common import append, rank_and_world, read_json, read_lines, remove, write_lines, write_whole, writing
from guard import LOCK

PHASES = "challenger", "questions", "solver", "held-out"  # of an iteration, in order
LOGGERS = "tensorboard", "wandb"  # the choices of --log, each the name of its package


def claim(folder, settings, free=(), file="config.json"):
    """Makes `folder` and writes a run's settings to it, or checks that those there are equal, `free` ones excepted.
    Raises ValueError naming the settings that differ, OSError where the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot write the run folder {str(folder)!r}: {error.strerror}") from None
    if (folder / file).exists():
        refuse_other(folder, settings, read_json(folder / file), free)
    write_whole(folder / file, json.dumps(settings, indent=2) + "\n")


def clear_dry_run(folder):
    """Empties the folder of an earlier dry run. Raises ValueError where it is not a dry run's."""
    held = [path for path in folder.iterdir() if path.name != LOCK] if folder.exists() else []
    config = folder / "config.json"
    if held and not (config.is_file() and read_json(config).get("dry_run") is True):
        raise ValueError(f"{folder} is where a dry run would be, but holds something else; choose another --out")
    for path in held:
        remove(path)


def disk_needed(cfg, weights):
    """(about the bytes that a run of a model with this many weights writes, bytes of a checkpoint)."""
    older = 2 if cfg.role_dtype == "bf16" else 4  # bytes a weight, in all but the newest folder of each role
    rewritten = 4 if older == 2 and cfg.iterations > 1 else 0  # the fp32 file is removed after its bf16 copy is whole
    questions = 4 * cfg.max_question_tokens * cfg.pool * cfg.pool_draws * cfg.iterations  # 4 bytes a token
    return (2 * (4 + older * (cfg.iterations - 1)) + rewritten) * weights + questions, 12 * weights


def checkpoints_kept(cfg, weights, folder):
    """How many checkpoints of a phase there is room for, at most 2; prints what the disk must hold. What an earlier try
    left in the folder counts as free. Raises OSError where there is no room for the weights."""
    needed, checkpoint = disk_needed(cfg, weights)
    free = shutil.disk_usage(folder).free + sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    says = (f"{folder} will hold about {needed / 1e9:.3g} GB of weights and questions; its disk has room for "
            f"{free / 1e9:.3g} GB")
    if free < needed:
        raise OSError(says)
    keep = max(0, min(2, int((free - needed) // checkpoint) - 1)) if cfg.checkpoint_every else 0  # one is unfinished
    print(f"{says}; within a phase {keep or 'no'} checkpoints of {checkpoint / 1e9:.3g} GB", flush=True)
    return keep


def refuse_other(folder, ours, theirs, free=(), what="a run"):
    """Raises ValueError naming all settings in which ours differ from those of `what` a folder holds."""
    differ = [f"{name}: {theirs.get(name)!r} there, {value!r} here" for name, value in ours.items()
              if name not in free and value != theirs.get(name)]
    if differ:
        raise ValueError(f"{folder} holds {what} with other settings ({'; '.join(differ)}); choose another --out")


def columns(rows):
    """Rows of cells as lines of text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join("   ".join(line) for line in lines)


def percent(value, interval=None):
    """A share as a cell of a table, in percent, with the half-width of its interval if given; `-` for None."""
    spread = "" if interval is None else f" +- {100 * interval:.1f}"
    return "-" if value is None else f"{100 * value:.1f}{spread}"


def shortened(text, most):
    """A text of at most `most` characters as it is; of a longer one the begin and the end."""
    cut = len(text) - most
    return text if cut <= 0 else f"{text[:most // 2]} [... {cut:,} characters ...] {text[len(text) - most // 2:]}"


def words(text):
    """A text without regard to capitals and white space."""
    return " ".join(text.lower().split())


# ---- what --log names: optional packages, imported where they are used


def require_logger(name):
    """Raises ValueError where the package of a --log is not installed."""
    found = name and importlib.util.find_spec(name)
    if name and (found is None or found.origin is None):  # without an origin: a folder of this name, and no package
        raise ValueError(f"--log {name} needs the package {name}: pip install {name}")


def tensorboard_logger(folder):
    """A function that writes numbers, {name: value}, and their step for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter  # optional, as --log is
    writer = SummaryWriter(folder / "tensorboard")

    def log(numbers, step):
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)
        writer.flush()  # a killed run keeps what it logged

    return log


def wandb_logger(folder, settings):
    """A function that sends numbers, {name: value}, and their step to Weights & Biases. The id of the run there is kept
    in the folder, so a resumed run goes on in it. Raises ValueError where wandb cannot start, as without a login."""
    import wandb  # optional, as --log is
    kept = folder / "wandb.id"
    if not kept.exists():
        write_whole(kept, uuid.uuid4().hex)
    try:
        run = wandb.init(project="r-zero", name=folder.name, id=kept.read_text(), resume="allow", dir=folder,
                         config=settings, allow_val_change=True)
    except wandb.Error as error:
        raise ValueError(f"--log wandb: {error}") from None
    for phase in (*PHASES, "eval"):  # each has its own count of steps
        run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")
    return lambda numbers, step: run.log(numbers | {f"{name.split('/')[0]}/step": step for name in numbers})


# ---- the folder


class RunFolder:
    """The files of one R-Zero run."""

    def __init__(self, path):
        self.path, self.writes = Path(path), rank_and_world()[0] == 0
        self.metrics, self.evals, self.logger = self.path / "metrics.jsonl", self.path / "eval.jsonl", None
        if self.writes:
            self._mend()

    def _mend(self):
        """Removes what a killed process leaves: half of a line that it was appending, unfinished files, and the
        checkpoints of a finished phase."""
        for file in filter(Path.exists, (self.metrics, self.evals)):
            os.truncate(file, file.read_bytes().rfind(b"\n") + 1)
        unfinished = [path for at in ("", "iter*/", "iter*/*.steps/") for path in self.path.glob(f"{at}*.partial")]
        needless = [steps for steps in self.path.glob("iter*/*.steps") if steps.with_suffix("").exists()]
        for path in (*unfinished, *needless):
            remove(path)

    def part(self, name, iteration):
        """A part of an iteration: challenger, questions.jsonl, solver, heldout.jsonl."""
        return self.path / f"iter{iteration}" / name

    def questions(self, iteration):
        """The pool of questions of an iteration."""
        return read_lines(self.part("questions.jsonl", iteration))

    def write_part(self, name, iteration, rows):
        """Writes questions.jsonl or heldout.jsonl of an iteration."""
        if self.writes:
            write_lines(self.part(name, iteration), rows)

    def open_logger(self, name, settings):
        """Has `log` hand all numbers to a --log as well."""
        if name:
            self.logger = tensorboard_logger(self.path) if name == "tensorboard" else wandb_logger(self.path, settings)

    def log(self, row):
        """Appends a step's row to metrics.jsonl, an iteration's row to eval.jsonl. Another logger goes here."""
        if self.writes:
            append(self.metrics if "step" in row else self.evals, json.dumps(row) + "\n")
            if self.logger:
                self.logger(*self.numbers(row))

    def numbers(self, row):
        """What a logger wants of a row that is in the files -> ({phase/metric: number}, step). The steps of a phase are
        counted over all iterations. An iteration's row is eval/metric, at the iteration."""
        phase = row.get("phase", "eval")
        step = sum(r["phase"] == phase for r in read_lines(self.metrics)) if "phase" in row else row["iteration"]
        return {f"{phase}/{name}": value for name, value in row.items()
                if isinstance(value, int | float) and name not in ("iteration", "step")}, step

    def rewind(self, phase, iteration, step):
        """Before a phase goes on after `step` steps: makes the folder of its iteration, in a run folder that must be
        there, and removes what an interrupted try logged after these."""
        if not self.writes:
            return
        with writing(None, folder := self.part("", iteration), 4096):
            folder.mkdir(exist_ok=True)
        rows = read_lines(self.metrics)
        kept = [row for row in rows if (row["phase"], row["iteration"]) != (phase, iteration) or row["step"] <= step]
        if len(kept) < len(rows):
            write_lines(self.metrics, kept)

    def sort(self):
        """Puts the rows of metrics.jsonl in order, which a phase that was made again for damaged weights has not."""
        rows = read_lines(self.metrics)
        in_order = sorted(rows, key=lambda row: (row["iteration"], PHASES.index(row["phase"]), row["step"]))
        if in_order != rows:
            write_lines(self.metrics, in_order)

    def shrink(self, role, iteration):
        """Rewrites a role's weights after all iterations before this one in bf16, since no phase will train from them.
        A file is replaced whole, so the folder of a killed run opens; a later call does the rest."""
        for folder in filter(Path.exists, (self.part(role, earlier) for earlier in range(1, iteration))):
            config = read_json(folder / "config.json")
            if config["dtype"] == "bfloat16" and (folder / SUMS).exists():
                continue
            try:
                check_sums(folder)
            except ValueError as error:
                print(f"{error}; it stays as it is")
                continue
            partial = folder / "model.safetensors.partial"
            tensors = {name: tensor.bfloat16() for _, name, tensor in read_tensors(folder)}
            with writing(partial, folder, sum(tensor.nbytes for tensor in tensors.values())):
                save_file(tensors, partial, metadata={"format": "pt"})
                (folder / SUMS).unlink(missing_ok=True)  # without it nothing is checked until all is replaced
                os.replace(partial, folder / "model.safetensors")
            write_whole(folder / "config.json", json.dumps(config | {"dtype": "bfloat16"}, indent=2) + "\n")
            write_sums(folder)

    def table(self):
        """eval.jsonl as a table, in percent."""
        names = "iteration", "held-out mean", "held-out greedy", "label accuracy", "mean p", "kept", "worked", "tokens"
        rows = [names]
        for row in read_lines(self.evals):
            rows.append([f"{row['iteration'] or 'base':>9}", percent(row.get("mean"), row.get("mean_ci")),
                         percent(row.get("greedy"), row.get("greedy_ci")), percent(row.get("label_accuracy")),
                         percent(row.get("share")), percent(row["kept"] / row["pool"] if "kept" in row else None),
                         percent(row.get("worked")),
                         f"{row['completion_tokens']:.0f}" if "completion_tokens" in row else "-"])
        return columns(rows)


@dataclass
class RunData:
    """What a run folder holds. Each list is empty, and each dict lacks the iterations, that are not there."""

    path: Path
    config: dict
    steps: list  # rows of metrics.jsonl
    evals: list  # rows of eval.jsonl
    label: str = ""

    def parts(self, name):
        """{iteration: rows} of questions.jsonl or heldout.jsonl."""
        found = sorted((int(file.parent.name[4:]), file) for file in self.path.glob(f"iter[0-9]*/{name}"))
        return {iteration: whole_lines(file) for iteration, file in found}

    @cached_property
    def pools(self):
        return self.parts("questions.jsonl")

    @cached_property
    def answers(self):
        return self.parts("heldout.jsonl")

    def of(self, phase, iteration=None):
        """The rows of a phase's steps."""
        return [row for row in self.steps if row["phase"] == phase and iteration in (None, row["iteration"])]

    @property
    def is_given(self):
        """Whether the Solver learns from given questions, without a Challenger."""
        return bool(self.config.get("train_file"))

    @property
    def is_baseline(self):
        return self.config.get("challenger_steps") == 0 and not self.is_given


def whole_lines(file):
    """The objects of a JSONL file, none if it is missing; without a line that a run is just writing. NaN is None."""
    rows = []
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n") if file.exists() else []:
        with suppress(ValueError):
            rows.append(json.loads(line, parse_constant=lambda constant: None))
    return rows


def read_run(folder):
    """The `RunData` of a folder. Raises FileNotFoundError, ValueError."""
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{str(folder)!r} is not a run folder: it has no config.json")
    return RunData(path, read_json(path / "config.json"), whole_lines(path / "metrics.jsonl"),
                   whole_lines(path / "eval.jsonl"))

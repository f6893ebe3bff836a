"""The algorithm's own pieces by hand, the command line's refusals, and a whole small run, resumed and on two processes."""

import gc
import json
import os
import shutil
import socket
import subprocess
import sys
import weakref
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_processes
from safetensors.torch import load_file
from small_runs import flip, timeless

import run as plumbing
import rzero
from answers import same_answer
from common import comments_of, parse_settings
from model import load
from plan import matmul_rate
from run import NoQuestions, Run, draw_seed
from rzero import PRESETS, Config, Vote, challenger_rewards, evolve, solver_rewards, why_dropped
from tasks import Math

ROOT = Path(__file__).parents[1]


def test_challenger_rewards_by_hand():
    """p = 0.5 gives 1, 0.9 gives 0.2, 0 and 1 give 0, less each one's share of the batch of five, all different; the
    malformed counts in the batch and gets 0; nothing is below 0."""
    questions = ["alpha beta gamma", "delta epsilon zeta", None, "eta theta iota", "kappa lambda mu"]
    rewards, metrics = challenger_rewards(questions, [0.5, 0.9, 0.0, 1.0, 0.4], Math(), Config())
    np.testing.assert_allclose(rewards, [0.8, 0.0, 0.0, 0.0, 0.6], atol=1e-12)
    assert metrics == pytest.approx({"uncertainty": 0.5, "penalty": 0.2, "clusters": 4})
    twice, metrics = challenger_rewards(["alpha beta gamma delta"] * 2 + ["eta theta iota kappa"] * 2, [0.5] * 4, Math(),
                                        Config(penalty_weight=0.5))
    np.testing.assert_allclose(twice, [0.75] * 4)
    assert metrics["clusters"] == 2
    rewards, metrics = challenger_rewards([None, None], [0, 0], Math(), Config())
    assert rewards.tolist() == [0, 0] and metrics == {"clusters": 0}


def test_solver_rewards_and_the_filter():
    assert solver_rewards(["1/2", "0.5", None, "3"], ["0.5", "0.5", "1", "4"], same_answer).tolist() == [1, 1, 0, 0]
    def why(p, majority="x", question="q"):
        return why_dropped(Vote(question, None, [], majority, p), Math(), Config())

    assert [m for m in range(11) if why(m / 10) is None] == [3, 4, 5, 6, 7]
    assert [why(p) for p in (0.2, 0.8)] == ["too hard", "too easy"]
    assert why(0.0, None) == "no answer" and why(0.0, None, None) == "wrong format"
    assert why(0.75) is None and why(0.25) is None


def test_seeds_differ_by_place():
    seeds = {draw_seed(s, i, p, t) for s in (0, 1) for i in (1, 2) for p in ("challenger", "solver") for t in range(50)}
    assert len(seeds) == 400 and all(0 <= s < 2**63 for s in seeds)


def test_every_setting_is_documented_and_the_presets_are_valid():
    assert set(comments_of(Config)) == {f.name for f in fields(Config)}
    for preset in PRESETS.values():
        preset.check()
    paper = PRESETS["paper"]
    assert (paper.challenger_steps, paper.solver_steps, paper.challenger_prompts, paper.challenger_rollouts) == (5, 15, 512, 4)
    assert (paper.solver_prompts, paper.solver_rollouts, paper.pool, paper.answers, paper.solver_lr) == (512, 5, 8000, 10, 1e-6)
    assert (paper.challenger_mini_batches, paper.solver_mini_batches) == (32, 4)  # of 16 and 128 prompts


def parse_config(argv):
    return parse_settings("rzero.py", rzero.__doc__, PRESETS, argv)


@pytest.mark.parametrize("argv, says", [
    (["--solver_stepz", "3"], "unknown setting --solver_stepz; did you mean --solver_steps?"),
    (["--solver_stepz=3"], "did you mean --solver_steps?"),
    (["--iterations", "many"], "argument --iterations: invalid int value: 'many'"),
    (["--reshard", "perhaps"], "argument --reshard: 'perhaps' is neither true nor false"),
    (["--solver_lr"], "argument --solver_lr: expected one argument"),
    (["--preset", "huge"], "argument --preset: invalid choice: 'huge'"),
    (["stray"], "unknown setting stray"),
])
def test_bad_settings_are_one_line(argv, says, capsys):
    with pytest.raises(SystemExit):
        parse_config(argv)
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_settings_override_the_preset():
    cfg = parse_config(["--preset", "paper", "--pool", "10", "--reshard", "false", "--solver_lr=3e-6"])
    assert cfg == Config(**{**asdict(PRESETS["paper"]), "pool": 10, "reshard": False, "solver_lr": 3e-6})


def small(folder, **changes):
    return Config(**{**dict(
        model=str(ROOT / "tiny"), out=str(folder), iterations=1, challenger_steps=1, challenger_prompts=4, solver_steps=2,
        solver_prompts=8, answers=4, pool_answers=4, pool=24, heldout=str(folder) + ".jsonl", heldout_samples=2), **changes})


def write_heldout(out):
    rows = (ROOT / "tiny" / "heldout.jsonl").read_text().splitlines()[::60]
    Path(str(out) + ".jsonl").write_text("\n".join(rows))


@pytest.mark.parametrize("changes, says", [
    ({"model": "nowhere"}, "no model folder 'nowhere'"),
    ({"heldout": "nowhere.jsonl"}, "no question file 'nowhere.jsonl'"),
    ({"iterations": 0}, "--iterations is 0, but must be at least 1"),
    ({"solver_lr": float("nan")}, "--solver_lr is nan"),
    ({"top_p": 1.5}, "--top_p is 1.5, but must be at most 1"),
    ({"old_logprobs": "guessed"}, "--old_logprobs is 'guessed'"),
    ({"old_logprobs": "sampler", "importance_cap": 2.0}, "--importance_cap needs --old_logprobs recomputed"),
    ({"labels": "guess"}, "--labels is 'guess'"),
    ({"labels": "truth", "task": "math"}, "--labels truth needs a task whose answers can be computed"),
    ({"task": "physics"}, "--task is 'physics', but must be math, sums or FILE.py:CLASS"),
    ({"log": "mlflow"}, "--log is 'mlflow', but must be tensorboard or wandb"),
    ({"ratio": "row"}, "--ratio is 'row', but must be token or sequence"),
    ({"out": "/proc/nowhere"}, "cannot write the run folder '/proc/nowhere'"),
    ({"out": __file__}, "cannot write the run folder"),
])
def test_bad_input_is_refused_before_any_work(tmp_path, changes, says):
    write_heldout(tmp_path / "run")
    with pytest.raises((OSError, ValueError)) as error:
        Run(small(tmp_path / "run", **changes))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_folder_holds_one_run(tmp_path):
    write_heldout(tmp_path / "run")
    Run(small(tmp_path / "run"))
    Run(small(tmp_path / "run", iterations=2, max_rows=7))  # more of it, or the same at another speed
    with pytest.raises(ValueError, match=r"other settings \(seed: 0 there, 1 here\)"):
        Run(small(tmp_path / "run", seed=1))


def test_bad_input_is_one_line_on_the_terminal(tmp_path):
    got = subprocess.run([sys.executable, ROOT / "rzero.py", "--model", "nowhere", "--out", tmp_path / "x"], cwd=ROOT,
                         capture_output=True, text=True, check=False)
    assert got.returncode == 1
    assert got.stderr == "rzero.py: no model folder 'nowhere'; give a Hugging Face folder or a Hub id (Qwen/Qwen3-4B-Base)\n"
    assert not (tmp_path / "x").exists()


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def lines(file):
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    write_heldout(out)
    evolve(Run(small(out)))
    return out


@pytest.mark.slow
def test_a_run_leaves_what_is_promised(finished):
    import transformers
    rows = lines(finished / "eval.jsonl")
    assert [r["iteration"] for r in rows] == [0, 1]
    for key in ("mean", "mean_ci", "greedy", "greedy_ci", "completion_tokens"):
        assert all(isinstance(r[key], float) for r in rows)
    assert rows[1]["kept"] == sum(q["dropped"] is None for q in lines(finished / "iter1" / "questions.jsonl")) > 0
    assert 0 <= rows[1]["label_accuracy"] <= 1
    for q in lines(finished / "iter1" / "questions.jsonl"):
        assert len(q["answers"]) == (4 if q["question"] is not None else 0)
        if q["majority"] is not None:
            first = q["answers"].index(q["majority"])
            assert q["groups"].count(first) / 4 == q["share"] and q["groups"].count(None) == q["answers"].count(None)
            assert q["share"] == sum(same_answer(a, q["majority"]) for a in q["answers"] if a is not None) / 4
    steps = [(m["phase"], m["step"]) for m in lines(finished / "metrics.jsonl")]
    assert steps == [("held-out", 1), ("challenger", 1), ("questions", 1), ("solver", 1), ("solver", 2), ("held-out", 1)]
    for i, row in enumerate(rows):  # the answers behind the means, each question's
        answers = lines(finished / f"iter{i}" / "heldout.jsonl")
        assert np.mean([a["right"] for a in answers]) == pytest.approx(row["mean"])
        assert np.mean([a["greedy_right"] for a in answers]) == pytest.approx(row["greedy"])
        assert all(a["text"] and a["level"] in range(1, 9) for a in answers)
    for role in ("challenger", "solver"):
        transformers.AutoModelForCausalLM.from_pretrained(finished / "iter1" / role)
        transformers.AutoTokenizer.from_pretrained(finished / "iter1" / role)
        moved = weights(finished / "iter1" / role)["model.norm.weight"] - weights(ROOT / "tiny")["model.norm.weight"]
        assert moved.abs().max() > 0


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_weights(finished, tmp_path):
    """What is finished is not redone, what is not is redone with the same draws."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.copy(str(finished) + ".jsonl", str(out) + ".jsonl")
    shutil.rmtree(out / "iter1" / "solver")
    (out / "eval.jsonl").write_text((out / "eval.jsonl").read_text().splitlines()[0] + "\n")
    config = json.loads((out / "config.json").read_text())
    config = {name: value for name, value in config.items() if name not in ("log", "dry_run")}  # as older runs have it
    (out / "config.json").write_text(json.dumps(config | {"heldout": str(out) + ".jsonl"}))
    before = (out / "iter1" / "challenger" / "model.safetensors").stat().st_mtime_ns
    evolve(Run(small(out)))
    assert (out / "iter1" / "challenger" / "model.safetensors").stat().st_mtime_ns == before
    for name, tensor in weights(out / "iter1" / "solver").items():
        assert tensor.equal(weights(finished / "iter1" / "solver")[name])
    assert timeless(lines(out / "metrics.jsonl")) == timeless(lines(finished / "metrics.jsonl"))
    assert lines(out / "eval.jsonl") == lines(finished / "eval.jsonl")


@pytest.mark.slow
def test_damaged_weights_are_named_set_aside_and_made_again(finished, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.copy(str(finished) + ".jsonl", str(out) + ".jsonl")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"heldout": str(out) + ".jsonl"}))
    file = out / "iter1" / "solver" / "model.safetensors"
    flip(file)
    with pytest.raises(ValueError, match="solver/model.safetensors is damaged: its SHA-256 is not that of SHA256SUMS"):
        load(file.parent)
    evolve(Run(small(out)))
    assert f"{file} is damaged: its SHA-256 is not that of SHA256SUMS (if that is meant, remove SHA256SUMS); it is set aside as solver.damaged" in capsys.readouterr().out
    for name in ("iter1/challenger", "iter1/solver"):
        assert (out / name / "model.safetensors").read_bytes() == (finished / name / "model.safetensors").read_bytes()
    assert (out / "iter1" / "solver.damaged" / "model.safetensors").exists()
    (out / "iter1" / "challenger" / "SHA256SUMS").unlink()  # as of an older run, whose weights are taken as they are
    evolve(Run(small(out)))
    assert not (out / "iter1" / "challenger.damaged").exists()


@pytest.mark.slow
def test_a_nan_stops_the_run_and_its_phase_goes_on_from_the_checkpoint(finished, tmp_path, monkeypatch):
    """A NaN in the second step of the Solver: one line says where; given again, the run does that step alone, from the
    checkpoint, and ends with the weights of an unbroken run. The trainers are gone after their phases."""
    out = tmp_path / "run"
    write_heldout(out)
    trainers, real = [], plumbing.Trainer.step

    def step(self, rollouts, reference):
        trainers.append(weakref.ref(self))
        if len(trainers) == 3:
            rollouts[5].advantage = float("nan")
        return real(self, rollouts, reference)

    monkeypatch.setattr(plumbing.Trainer, "step", step)
    with pytest.raises(FloatingPointError, match=r"iteration 1, solver, step 2: the loss is nan .* number 5 ") as error:
        evolve(Run(small(out, checkpoint_every=1)))
    assert "\n" not in str(error.value)
    assert [p.name for p in (out / "iter1" / "solver.steps").iterdir()] == ["step000001"]
    evolve(Run(small(out, checkpoint_every=1)))
    assert len(trainers) == 4 and not (out / "iter1" / "solver.steps").exists()
    del error
    gc.collect()
    assert [t() for t in trainers] == [None] * 4
    for name, tensor in weights(out / "iter1" / "solver").items():
        assert tensor.equal(weights(finished / "iter1" / "solver")[name])
    assert timeless(lines(out / "metrics.jsonl")) == timeless(lines(finished / "metrics.jsonl"))


@pytest.mark.slow
def test_every_metric_is_in_the_glossary(finished):
    readme = (ROOT / "README.md").read_text()
    names = {name for row in lines(finished / "metrics.jsonl") for name in row}
    assert not [name for name in names if f"`{name}`" not in readme]
    solver = lines(finished / "metrics.jsonl")[-2]
    assert solver["phase"] == "solver"
    assert solver["reward_std"] > 0 and 0 <= solver["equal_groups"] <= 1 and solver["advantage_min"] < 0 < solver["advantage_max"]
    assert 0 <= solver["sampler_kl"] < 1e-6 and solver["entropy"] > 0 and solver["seconds"] > solver["update_seconds"] > 0
    assert solver["completion_tokens_max"] >= solver["completion_tokens"] and \
        0 < 1e12 * solver["update_tflops"] < matmul_rate(torch.device("cpu"), torch.float32)


def _run(rank, world, out):
    evolve(Run(small(out, challenger_steps=1, solver_steps=1)))
    evolve(Run(small(str(out) + "-blind", challenger_steps=0, solver_steps=1, heldout="", iterations=2)))


@pytest.mark.slow
def test_two_processes_run_as_one(tmp_path):
    """The same questions, votes and, within 1e-5, weights; also without held-out questions, where little keeps the
    processes in step, and one of them once saw what the other had just written."""
    for world in (1, 2):
        write_heldout(tmp_path / str(world))
        run_processes(world, _run, tmp_path / str(world))
    one, two = tmp_path / "1" / "iter1", tmp_path / "2" / "iter1"
    assert lines(one / "questions.jsonl") == lines(two / "questions.jsonl")
    for name, tensor in weights(one / "solver").items():
        assert torch.allclose(tensor, weights(two / "solver")[name], atol=1e-5)


@pytest.mark.slow
def test_two_nodes_run_as_one(finished, tmp_path):
    """torchrun on two "nodes" of one process each, which meet at an address on this machine: the weights of the run on one."""
    out = tmp_path / "run"
    write_heldout(out)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    settings = [f"--{name}={value}" for name, value in asdict(small(out)).items() if value != getattr(Config(), name)]
    nodes = [subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1",
                               f"--node_rank={rank}", "--rdzv_backend=c10d", f"--rdzv_endpoint={address}", "--rdzv_id=test",
                               "--local_addr=127.0.0.1", ROOT / "rzero.py", *settings],
                              env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True) for rank in range(2)]
    said = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "all of it is in" in said[0] + said[1]
    for name, tensor in weights(finished / "iter1" / "solver").items():
        assert torch.allclose(tensor, weights(out / "iter1" / "solver")[name], atol=1e-5)


@pytest.mark.slow
def test_nothing_to_learn_from_stops_with_a_reason(tmp_path):
    write_heldout(tmp_path / "run")
    run = Run(small(tmp_path / "run", keep_low=0.5, keep_high=0.5, answers=3, pool_answers=3, pool=4, pool_draws=1, challenger_steps=0))
    with pytest.raises(NoQuestions, match="no question of 1 x 4"):
        evolve(run)
    assert "The run ended in iteration 1 of 1: none of the pool" in (tmp_path / "run" / "report.html").read_text()

"""Short forms of tests/faults.py: a small run is killed, interrupted, damaged, restarted, and ends as if nothing was."""

import random
import signal

import pytest
from faults import ORPHAN, TORCHRUNS_OWN, damaged, interrupted, soak
from small_runs import LIMIT, Folder, all_gone, differences, files, same, text, wait

SHORT = dict(iterations=1, challenger_steps=2, challenger_prompts=2, pool=8, solver_steps=4, checkpoint_every=5)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    undisturbed = Folder(tmp_path_factory.mktemp("reference") / "round", **SHORT)
    undisturbed.run_here()
    return undisturbed.out


@pytest.fixture
def folder(tmp_path, request):
    """The folder of a short run; its processes are ended with the test."""
    made = Folder(tmp_path / "round", request.param, **SHORT)
    yield made
    made.close()


def at(process, step):
    """Waits until a run says that it has made this step."""
    assert wait(process, lambda: step in text(process)), text(process)


@pytest.mark.slow
@pytest.mark.parametrize("folder", [1], indirect=True)
def test_torchrun_is_killed_and_then_a_worker(folder, reference):
    """torchrun alone is killed, and the same command, with restarts, given at once. Then its worker is killed, and
    torchrun starts another."""
    process = folder.start()
    at(process, "challenger  step 1/2")
    orphans = folder.workers()
    since = folder.kill("torchrun", random.Random(0))
    process = folder.start(more=("--max-restarts", "1"))
    all_gone(folder, since, ORPHAN, orphans)
    at(process, "solver      step 1/4")
    folder.kill("worker", random.Random(0))
    assert process.wait(LIMIT) == 0, text(process)
    same(folder, reference)


@pytest.mark.slow
@pytest.mark.parametrize("folder", [0], indirect=True)
def test_interrupted_then_damaged(folder, reference):
    """A run is interrupted between two checkpoints. The one that it then leaves is damaged, and not used."""
    process = folder.start()
    at(process, "solver      step 1/4")
    process.send_signal(signal.SIGINT)
    process.wait(LIMIT)
    interrupted(folder, process, signal.SIGINT)
    weights = [file for file in files(folder.out) if "solver.steps" in str(file) and file.suffix == ".safetensors"]
    checkpoint = damaged(sorted(weights), random.Random(0))
    assert str(checkpoint.parent.relative_to(folder.out)) in text(folder.finish())
    same(folder, reference)


@pytest.mark.slow
@pytest.mark.parametrize("folder", [2], indirect=True)
def test_an_error_in_one_rank_is_the_last_line(folder):
    process = folder.fails_at("raise", 1, 3)
    assert process.wait(LIMIT) == 1
    own = TORCHRUNS_OWN.split(process.log.with_suffix(".err").read_text())[0].strip()
    assert own.endswith("rank 1 is out of order") and own.count("Traceback") <= 1
    assert not folder.workers()


@pytest.mark.slow
def test_an_iteration_leaves_nothing_behind(tmp_path):
    """Memory settles only in the long form, and hardly grows there."""
    soak(tmp_path / "round", None, None, iterations=3, first=2, most=0.2)


def test_what_is_compared(tmp_path):
    """Times may differ, and the settings, which name the folder. All else is told."""
    for name in "a", "b":
        (tmp_path / name / "iter1").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(name)
        (tmp_path / name / "metrics.jsonl").write_text(f'{{"loss": 1.0, "update_seconds": 0.{ord(name)}}}\n')
        (tmp_path / name / "iter1" / "questions.jsonl").write_text("{}\n")
    a, b = tmp_path / "a", tmp_path / "b"
    assert differences(a, b) == []
    (a / "metrics.jsonl").write_text('{"loss": 1.5, "update_seconds": 0.5}\n')
    (a / "iter1" / "questions.jsonl").write_text("{} \n")
    (a / "lock.json").write_text("")
    (b / "eval.jsonl").write_text("")
    assert differences(a, b) == ["eval.jsonl is missing", "lock.json is left", "iter1/questions.jsonl differs",
                                 "metrics.jsonl differs"]


def test_damage_is_one_bit_or_a_lost_end(tmp_path):
    file, data, bits, cuts = tmp_path / "x", bytes(range(200)), 0, 0
    for seed in range(20):
        file.write_bytes(data)
        assert damaged([file], random.Random(seed)) == file
        now = file.read_bytes()
        bits += sum((x ^ y).bit_count() for x, y in zip(now, data)) if len(now) == 200 else 0
        cuts += len(now) < 200 and data.startswith(now)
    assert bits + cuts == 20 and bits and cuts

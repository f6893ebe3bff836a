"""What a task must do, by the two that are here and by one in a file of its own."""

import numpy as np
import pytest

from tasks import Math, Sums, Task, load_task

GOOD = "I think.\n<question>\nWhat is 1 + 1?\n</question>\n\n\\boxed{2}"


def test_format_of_a_question():
    task = Math()
    assert task.question(GOOD) == "What is 1 + 1?" and task.proposed(GOOD) == task.answer(GOOD) == "2"
    for bad in ("", "What is 1 + 1? \\boxed{2}", GOOD.replace("\\boxed{2}", "2"), GOOD.replace("</question>", ""),
                "\\boxed{2}<question>q</question>", "<question> \n</question>\\boxed{2}", "</question><question>q\\boxed{2}"):
        assert task.question(bad) is None
    recited = "Write <question>\nthe problem\n</question> and \\boxed{final_answer}. " + GOOD
    assert task.question(recited) == "What is 1 + 1?" and task.question(GOOD + "<question></question> \\boxed{3}") is None


def test_truth_of_sums():
    truth = Sums().truth
    assert truth("What is 17 + 25 - 8?") == "34"
    assert truth(" What is 3 - 8?\n") == "-5"
    for bad in ("What is 17?", "What is 1 + ?", "What is 1 +  2?", "What is 12345 + 1?", "What is 1 * 2?", ""):
        assert truth(bad) is None
    assert not hasattr(Math(), "truth")  # it exists only where it can be computed


@pytest.fixture
def parity(tmp_path):
    (tmp_path / "parity.py").write_text("from tasks import Math\n\n\nclass Parity(Math):\n    def same(self, a, b):\n"
                                        "        return int(a) % 2 == int(b) % 2\n")
    return load_task(f"{tmp_path}/parity.py:Parity")


def test_a_task_of_ones_own(parity):
    """Its `same` decides the vote; all else is that of the class it extends."""
    assert isinstance(parity, Task) and parity.solver_system == Math.solver_system
    assert parity.majority(["1", "3", "2", "5", None]) == ("1", 0.6)
    assert parity.majority(["1", "3", "2", "5", None], unboxed="ignored") == ("1", 0.75)


def test_distances_are_of_bleu_unless_a_task_says_otherwise():
    distances = Task().distances(["a b c d", "a b c d", "x y"])
    np.testing.assert_allclose(distances, [[0, 0, 1], [0, 0, 1], [1, 1, 0]], atol=1e-12)


@pytest.mark.parametrize("name, says", [
    ("physics", "--task is 'physics', but must be math, sums or FILE.py:CLASS"),
    ("nowhere.py:Physics", "--task names the file 'nowhere.py', which is not there"),
    (f"{__file__}:Physics", "has no class 'Physics' that extends tasks.Task"),
    (f"{__file__}:np", "has no class 'np' that extends tasks.Task"),
])
def test_bad_names_are_one_line(name, says):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load_task(name)
    assert says in str(error.value) and "\n" not in str(error.value)

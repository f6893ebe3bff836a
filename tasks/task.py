"""The interface of a task."""

from answers import majority
from tasks.similarity import bleu_distances


class Task:
    """What a run is about. A subclass gives the two prompts and reads the two roles' completions; most extend `Math`. A
    task whose questions have computable answers also defines `truth(question) -> str | None` (None: the question is not
    well posed). Truth measures how good the labels are; the Solver sees it only under `--labels truth`."""

    challenger_prompt: tuple  # (system, user) messages that ask for one new question
    solver_system: str  # system message of every question

    def question(self, completion):
        """The question in a Challenger's completion; None where the format is wrong."""
        raise NotImplementedError

    def proposed(self, completion):
        """The answer that the Challenger gave with its question; None where it gave none."""
        return None

    def answer(self, completion):
        """The final answer in a Solver's completion; None where there is none."""
        raise NotImplementedError

    def same(self, a, b):
        """Whether two answers are one. Must be symmetric, and must end soon whatever the texts are."""
        return a == b

    def majority(self, answers, count_unboxed=True):
        """(the most frequent answer, its share of `answers`), by `same`; see `answers.majority`."""
        return majority(answers, same=self.same, count_unboxed=count_unboxed)

    def distances(self, questions):
        """What the repetition penalty clusters by -> symmetric [B, B], 0 for equal questions."""
        return bleu_distances(questions)

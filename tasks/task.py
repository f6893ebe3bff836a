"""The interface of a task."""

from answers import classes, majority
from tasks.similarity import bleu_distances


class Task:
    """What a run is about. A subclass gives the two prompts and reads the two roles' completions; most extend `Math`. A
    task whose questions have computable answers also defines `truth(question) -> str | None` (None: the question is not
    well posed). Truth measures how good the labels are; the Solver sees it only under `--labels truth`."""

    challenger_prompt: tuple  # (system, user) messages that ask for one new question
    solver_system: str  # system message of every question
    question_block: str = "last"  # which <question> block counts: `Config.question_block`
    box: str = "after"  # where the proposed answer must stand: `Config.box`

    def challenger_messages(self, context=None):
        """(system, user) messages that ask for one new question, from a text of --context where one is given."""
        system, user = self.challenger_prompt
        return (system, user) if context is None else (system, f"{context}\n\n{user}")

    def question(self, completion):
        """The question in a Challenger's completion; None where the format is wrong."""
        raise NotImplementedError

    def proposed(self, completion):
        """The answer that the Challenger gave with its question; None where it gave none."""
        return None

    def answer(self, completion):
        """The final answer in a Solver's completion; None where there is none."""
        raise NotImplementedError

    def well_formed(self, completion):
        """Whether a Solver's completion has the form that `format_weight` rewards."""
        return self.answer(completion) is not None

    def unwanted(self, question, label):
        """Whether `word_filter` drops a question for a word in it or in its label."""
        return False

    def same(self, a, b):
        """Whether two answers are one. Must be symmetric, and must end soon whatever the texts are."""
        return a == b

    def majority(self, answers, unboxed="counted"):
        """(the most frequent answer, its share p), by `same`; see `answers.majority`. unboxed: what None is, no answer:
        `counted` in p's denominator, `ignored`, or an `answer` like any other, whose majority is (None, p)."""
        label, share = majority(answers, same=self.same, count_unboxed=unboxed != "ignored")
        none = answers.count(None) / max(1, len(answers))
        if unboxed == "answer" and none > 0 and (
                none > share or none == share and answers.index(None) < answers.index(label)):
            return None, none
        return label, share

    def groups(self, answers):
        """What the vote counted together -> for each answer the index of the first that is the same; None for None."""
        first_of = classes(answers, same=self.same)
        return [None if answer is None else answers.index(first_of.get(answer, answer)) for answer in answers]

    def agree(self, majority, proposed):
        """Whether the majority is the answer that the Challenger gave."""
        return None not in (majority, proposed) and self.same(majority, proposed)

    def distances(self, questions):
        """What the repetition penalty clusters by -> symmetric [B, B], 0 for equal questions."""
        return bleu_distances(questions)

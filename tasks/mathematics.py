"""Mathematics, the paper's domain: its two prompts, and answers in boxes that are compared by value."""

from answers import extract_boxed, same_answer
from tasks.task import Task

CHALLENGER_SYSTEM = """\
You set problems for mathematics competitions. First think privately, step by step, to design a brand-new, \
non-trivial problem from any field: algebra, geometry, number theory, combinatorics, prealgebra, probability, \
statistics or calculus. It must be hard enough that fewer than 30% of advanced high-school students solve it, and it \
must not repeat a textbook cliche or a famous contest problem. Then output exactly two blocks and nothing else:
<question>
the problem
</question>

\\boxed{final_answer}"""
CHALLENGER_USER = "Generate one new, challenging reasoning question now, formatted exactly as instructed."
SOLVER_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."  # Qwen's own for mathematics


class Math(Task):
    challenger_prompt = CHALLENGER_SYSTEM, CHALLENGER_USER
    solver_system = SOLVER_SYSTEM

    def question(self, completion):
        """What stands in the first <question> block, if a box follows it (paper, section 3.1: the format check)."""
        before, opened, rest = completion.partition("<question>")
        question, closed, after = rest.partition("</question>")
        if not (opened and closed and question.strip()) or extract_boxed(after) is None:
            return None
        return question.strip()

    def proposed(self, completion):
        return extract_boxed(completion)

    def answer(self, completion):
        return extract_boxed(completion)

    def same(self, a, b):
        return same_answer(a, b)

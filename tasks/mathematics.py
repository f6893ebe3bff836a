"""Mathematics, the paper's domain: its two prompts, and answers in boxes that are compared by value."""

import re

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
QUESTION_BLOCK = re.compile(r"<question>(.*?)</question>", re.DOTALL)


class Math(Task):
    challenger_prompt = CHALLENGER_SYSTEM, CHALLENGER_USER
    solver_system = SOLVER_SYSTEM

    def question(self, completion):
        """What stands in the last <question> block, if a box follows it (paper, section 3.1: the format check). A base
        model often recites the instruction, with its block, first."""
        last = completion.rfind("</question>") + len("</question>")  # a search past it takes quadratic time
        blocks = [*QUESTION_BLOCK.finditer(completion, 0, last)]
        if not blocks:
            return None
        block = blocks[-1 if self.question_block == "last" else 0]
        boxed_part = completion[block.end() if self.box == "after" else 0:]
        if self.box != "optional" and extract_boxed(boxed_part) is None:
            return None
        return block[1].strip() or None

    def proposed(self, completion):
        return extract_boxed(completion)

    def answer(self, completion):
        return extract_boxed(completion)

    def well_formed(self, completion):
        """Whether it begins with <think> and holds </think>, then \\boxed{, then } (math.py of the official code)."""
        rest, held = completion, completion.startswith("<think>")
        for mark in ("</think>", "\\boxed{", "}"):
            _, found, rest = rest.partition(mark)
            held = held and found
        return bool(held)

    def unwanted(self, question, label):
        """As question_evaluate/evaluate.py of the official code: boxes, requests for a proof (in Chinese), texts."""
        return "box" in question.lower() or "证明" in question or "text" in label.lower()

    def same(self, a, b):
        return same_answer(a, b)

"""The embedded toy: sums in plain words, such as `What is 17 + 25 - 8?`, whose truth is computable.
The prompts are those of mathematics, which `tiny/` was trained with."""

import re

from tasks.mathematics import Math

QUESTION = re.compile(r"What is ([0-9]{1,4}(?: [+-] [0-9]{1,4}){1,16})\?")


class Sums(Math):
    def truth(self, question):
        """The true answer as a string of digits, or None when the question is not a well-posed sum."""
        match = QUESTION.fullmatch(question.strip())
        if match is None:
            return None
        first, *rest = match[1].split()
        return str(int(first) + sum(int(sign + number) for sign, number in zip(rest[::2], rest[1::2])))

"""The world of the tiny model: sums in plain words, such as `What is 17 + 25 - 8?`.

Difficulty has two axes, the number of operations and the size of the numbers. `solve` knows the truth of any question in
this world; the trainer uses it for measuring only.
"""

import re

QUESTION = re.compile(r"What is ([0-9]{1,4}(?: [+-] [0-9]{1,4}){1,16})\?")


def solve(question):
    """The true answer of a question as a string of digits, or None when it is not a well-posed sum."""
    match = QUESTION.fullmatch(question.strip())
    if match is None:
        return None
    first, *rest = match[1].split()
    return str(int(first) + sum(int(sign + number) for sign, number in zip(rest[::2], rest[1::2])))


def draw_question(rng, operation_weights, digit_weights):
    """A random question. rng: numpy Generator; operation_weights[i]: share of questions with i + 1 operations;
    digit_weights[i]: share of numbers with i + 1 digits."""
    count = 1 + rng.choice(len(operation_weights), p=normalised(operation_weights))
    digits = 1 + rng.choice(len(digit_weights), p=normalised(digit_weights), size=count + 1)
    numbers = rng.integers(10 ** (digits - 1), 10**digits)
    text, total = f"What is {numbers[0]}", numbers[0]
    for number in numbers[1:]:
        sign = "-" if number <= total and rng.random() < 0.5 else "+"  # the total never falls below 0
        total += number if sign == "+" else -number
        text += f" {sign} {number}"
    return text + "?"


def normalised(weights):
    return [w / sum(weights) for w in weights]


def worked_solution(question, rng, slip_rate):
    """The lines of a step-by-step solution and the answer they arrive at; each step slips with probability slip_rate."""
    first, *rest = question.removeprefix("What is ").removesuffix("?").split()
    total, lines = int(first), []
    for sign, number in zip(rest[::2], rest[1::2]):
        value = total + int(sign + number)
        if rng.random() < slip_rate:
            value += int(rng.choice([-10, -2, -1, 1, 2, 10]))
        lines.append(f"{total} {sign} {number} = {value}")
        total = value
    return lines, str(total)

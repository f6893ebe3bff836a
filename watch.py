"""What a person sees of a run on the terminal: a line for each step with the time that is left, after each iteration
one question with its votes and the table so far, and the sentences of a dry run. All of it comes from what the run
logs and writes."""

import os
import re
import shlex
import statistics
import sys
from collections import Counter

from common import printable, read_lines
from folder import percent, shortened

# What the line of a step shows of its row, beside p and what is the same in all phases.
SHOWN = {"held-out": ("mean", "greedy"), "challenger": ("reward", "valid"), "questions": ("kept", "valid"),
         "solver": ("reward", "boxless")}


def say(text):
    """Prints at once, also into a file, what the terminal may show."""
    print(printable(text), flush=True)


def sizes(cfg):
    """A few lines on what an iteration will make: optimizer updates, questions, answers."""
    def updates(role, rows):
        steps, mini_batches = getattr(cfg, f"{role}_steps"), getattr(cfg, f"{role}_mini_batches")
        each = -(-rows // -(-rows // mini_batches))  # as a Trainer cuts them
        moving = each * (steps - min(steps, cfg.warmup_steps > 0))
        return f"{steps * each:,} optimizer updates" + f", {moving:,} above learning rate 0" * (moving < steps * each)

    proposals, answers = cfg.challenger_prompts * cfg.challenger_rollouts, cfg.solver_prompts * cfg.solver_rollouts
    lines = [] if cfg.train_file else [
        f"the Challenger asks {cfg.challenger_steps} x {proposals:,} questions, answered {cfg.answers} times each; "
        + updates("challenger", proposals),
        f"the pool has {cfg.pool:,} questions, answered {cfg.pool_answers} times each"
        + f", and is drawn {cfg.pool_draws} times at most" * (cfg.pool_draws > 1)]
    lines.append(f"the Solver answers {cfg.solver_steps} x {cfg.solver_prompts:,} questions {cfg.solver_rollouts} "
                 "times each; " + updates("solver", answers))
    return "\n".join(["each iteration", *(f"    {line}" for line in lines)])


# ---- the time that is left


def parts_of_run(cfg, heldout):
    """The parts of a run in order -> {(iteration, phase): (steps, completions drawn a step, those of them learned
    from)}. heldout: the number of held-out questions. The pool is assumed to be drawn once an iteration."""
    proposals, answers = cfg.challenger_prompts * cfg.challenger_rollouts, cfg.solver_prompts * cfg.solver_rollouts
    phases = {} if cfg.train_file else {
        "challenger": (cfg.challenger_steps, proposals * (1 + cfg.answers), proposals),
        "questions": (1, cfg.pool * (1 + cfg.pool_answers), 0)}
    phases |= {"solver": (cfg.solver_steps, answers, answers),
               "held-out": (1, heldout * (cfg.heldout_samples + 1), 0)}
    return {(0, "held-out"): phases["held-out"]} | {
        (iteration, phase): part for iteration in range(1, cfg.iterations + 1) for phase, part in phases.items()}


def time_left(row, seen, parts):
    """Seconds left after the step of this row -> (in its phase, in the run). seen: the rows of metrics.jsonl that this
    process logged. A step of a phase takes the median of its last five seen. Of a phase not yet seen, its completions
    take what all others took: so much for each that is drawn, and more for each that is learned from."""
    def rate(seconds, completions):
        return sum(map(seconds, seen)) / max(1, sum(parts[r["iteration"], r["phase"]][completions] for r in seen))

    drawing = rate(lambda r: r["seconds"] - r.get("update_seconds", 0), 1)
    learning = rate(lambda r: r.get("update_seconds", 0), 2)

    def seconds(phase, drawn, learned):
        took = [r["seconds"] for r in seen if r["phase"] == phase][-5:]
        return statistics.median(took) if took else drawing * drawn + learning * learned

    here = row["iteration"], row["phase"]
    in_phase = (parts[here][0] - row["step"]) * seconds(row["phase"], *parts[here][1:])
    later = list(parts)[list(parts).index(here) + 1:]
    return in_phase, in_phase + sum(parts[part][0] * seconds(part[1], *parts[part][1:]) for part in later)


def clock(seconds):
    """Seconds as 0:41, 5:10 or 1:05:10."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


# ---- a run, line by line


def step_line(row, cfg, in_phase, in_run):
    """The line of a step. row: that of metrics.jsonl, of a pool also with the shares kept and valid and the mean p
    (share), of held-out questions with mean and greedy accuracy. The columns are the same in all phases."""
    phase, steps = row["phase"], getattr(cfg, f"{row['phase']}_steps", 0)
    place = f"iteration {row['iteration']:<{len(str(cfg.iterations))}}" if row["iteration"] else "base model"
    widest = len(str(max(cfg.challenger_steps, cfg.solver_steps)))
    step = f"step {row['step']:>{widest}}/{steps:<{widest}}" if steps else ""
    first, third = (f"{name}{row[name]:>7.3f}" if name == "reward" else f"{name:<7} {100 * row[name]:>3.0f} %"
                    for name in SHOWN[phase])
    share = f"p {row['share']:.2f}" if "share" in row else ""
    left = f"left {clock(in_run):>7} in the run" + f", {clock(in_phase)} in the phase" * bool(steps)
    return "   ".join([f"{place:<{len(f'iteration {cfg.iterations}')}}  {phase:<10}  {step:<{6 + 2 * widest}}",
                       first, f"{share:<6}", third, f"{row['tokens_per_second']:>9,.0f} tokens/s", left])


def plain(text, most=400):
    """A model's text on one line of a terminal, without control characters, shortened to about so many characters."""
    return shortened(" ".join(printable(text).split()), most)


def example(rows):
    """A row of questions.jsonl to show: of the kept ones that whose p is nearest to 1/2, or None."""
    return min((row for row in rows if row["dropped"] is None), key=lambda row: abs(row["share"] - 0.5), default=None)


def votes(row):
    """The answers to a question, most frequent first, as `7 x 15, 13, 1 without a box; label 15, p 0.70`."""
    counts, boxless = Counter(group for group in row["groups"] if group is not None), row["groups"].count(None)
    said = [f"{count} x " * (count > 1) + plain(row["answers"][group], 60) for group, count in counts.most_common()]
    return (", ".join(said + [f"{boxless} without a box"] * (boxless > 0))
            + f"; label {plain(row['majority'], 60)}, p {row['share']:.2f}"
            + (f"; true answer {plain(row['truth'] or 'none', 60)}" if "truth" in row else ""))


# ---- a dry run, sentence by sentence


def said_of_steps(role, rows, cfg):
    """What a phase did, by the rows of its steps."""
    def mean(key):
        return statistics.fmean(row[key] for row in rows)

    if not rows:
        return f"{role.capitalize()}: without a step (--{role}_steps 0) it stays as it was."
    if role == "challenger":
        did = (f"asked {cfg.challenger_prompts * cfg.challenger_rollouts} questions, {percent(mean('valid'))} % in the "
               f"right format, and the frozen Solver answered each {cfg.answers} times")
    else:
        did = (f"answered {cfg.solver_prompts} questions {cfg.solver_rollouts} times each, "
               f"{percent(mean('boxless'))} % without a box")
    return (f"{role.capitalize()}: in each of {len(rows)} steps it {did}; in the mean p was {mean('share'):.2f}, the "
            f"reward {mean('reward'):.3f}, the loss {mean('loss'):.3f} and the norm of the gradient "
            f"{mean('grad_norm'):.3f} (weights in iter1/{role}/).")


def said_of_pool(rows, cfg):
    """What came of the pool, by its rows in questions.jsonl."""
    valid, reasons = sum(row["question"] is not None for row in rows), Counter(row["dropped"] for row in rows)
    kept = reasons.pop(None, 0)
    said = f"Questions: the trained Challenger asked {len(rows)}, {valid or 'none'} of them in the right format"
    if valid:
        said += (f"; the Solver answered these {cfg.pool_answers} times each, and can learn from {kept or 'none'}, as "
                 "a dry run keeps any p")
    if reasons:
        said += f" ({', '.join(f'{count} {reason}' for reason, count in reasons.most_common())})"
    said += ": iter1/questions.jsonl."
    if not kept:
        said += (" So the loop ends here, as a run's would; but a run asks more, and may have longer questions than "
                 f"{cfg.max_question_tokens} tokens.")
    return said + (f"\n{said_of_example(row)}" if (row := example(rows)) else "")


def said_of_example(row):
    """A question with its votes, on two lines."""
    return f"a question: {plain(row['question'])}\n    answers: {votes(row)}"


def said_of_held_out(row, cfg, heldout):
    """What the held-out questions say of the Solver; row: of eval.jsonl."""
    who = "Solver, trained" if row["iteration"] else "Base model"
    if not heldout:
        return f"{who}: not measured, without --heldout."
    return (f"{who}: of {heldout} held-out questions, too few to say much, it answers {percent(row['mean'])} % right "
            f"in {cfg.heldout_samples} samples each and {percent(row['greedy'])} % greedily, in "
            f"{row['completion_tokens']:.0f} tokens (iter{row['iteration']}/heldout.jsonl).")


def real_run(argv, processes=None):
    """The command of the run that a dry run's command line was for. processes: how many torchrun started here."""
    command = "python" if processes is None else f"torchrun --nproc_per_node {processes}"
    return f"{command} {re.sub(' --dry_run[ =]true', '', shlex.join(argv))}"


class Watch:
    """Tells a person what a run does. Only rank 0 prints."""

    def __init__(self, cfg, folder, heldout):
        """folder: the `RunFolder`. heldout: the number of held-out questions."""
        self.cfg, self.folder, self.heldout, self.seen, self.table = cfg, folder, heldout, [], None
        self.parts = parts_of_run(cfg, heldout)

    def step(self, row):
        """A step was logged; row: as in `step_line`."""
        self.seen.append(row)
        if self.folder.writes and not self.cfg.dry_run:
            say(step_line(row, self.cfg, *time_left(row, self.seen, self.parts)))

    def finished(self, part, iteration):
        """A part of an iteration is finished: challenger, questions, solver, held-out, which is its last; of iteration
        0, the base model, held-out alone."""
        if not self.folder.writes:
            return
        if self.cfg.dry_run:
            say(self.sentence(part, iteration))
        elif part == "held-out" and iteration:
            if row := example(self.folder.questions(iteration)):
                say(f"\n{said_of_example(row)}")
            self.say_table()

    def sentence(self, part, iteration):
        """What a part of a dry run did."""
        if part == "held-out":
            return said_of_held_out(read_lines(self.folder.evals)[-1], self.cfg, self.heldout)
        if part == "questions":
            return said_of_pool(self.folder.questions(iteration), self.cfg)
        return said_of_steps(part, [row for row in self.seen if row["phase"] == part], self.cfg)

    def say_table(self):
        """The table of results, unless it stands there already."""
        if self.table != (table := self.folder.table()):
            self.table = table
            say(f"\n{table}\n")

    def end(self, by_truth):
        """The run is at its end. by_truth: whether the labels were compared with computed answers."""
        if not self.folder.writes:
            return
        if self.cfg.dry_run:
            say(f"The loop is at its end, and all its files are in {self.folder.path}/ until the next dry run. "
                f"The run itself:\n    {real_run(sys.argv, os.environ.get('LOCAL_WORLD_SIZE'))}")
            return
        self.say_table()
        say(f"percent (tokens: a mean count), +- 95 % intervals; all of it is in {self.folder.path}/, "
            "where report.html shows it")
        if by_truth:
            say(f"label accuracy is known because the answers of the task {self.cfg.task} can be computed; no "
                "model learns from them")

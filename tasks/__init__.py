"""What is asked and what counts as right: one object a domain. The algorithm and the trainer know none by name.

Another domain is one file with one class, and no edit elsewhere:

    torchrun rzero.py --task my_task.py:MyTask --model ... --out ..."""

import runpy
from pathlib import Path

from tasks.mathematics import Math
from tasks.sums import Sums
from tasks.task import Task

TASKS = {"math": Math, "sums": Sums}


def load_task(name, **rules):
    """The task that --task names: math, sums, or FILE.py:CLASS. rules: values of its attributes, such as `box`. Raises
    ValueError or FileNotFoundError."""
    task = task_class(name)()
    vars(task).update(rules)
    return task


def task_class(name):
    if name in TASKS:
        return TASKS[name]
    file, _, wanted = name.rpartition(":")
    if not file.endswith(".py"):
        raise ValueError(f"--task is {name!r}, but must be {', '.join(TASKS)} or FILE.py:CLASS")
    if not Path(file).is_file():
        raise FileNotFoundError(f"--task names the file {file!r}, which is not there")
    found = runpy.run_path(file).get(wanted)
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise ValueError(f"{file} has no class {wanted!r} that extends tasks.Task")
    return found

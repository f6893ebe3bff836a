"""What is asked and what counts as right: one object a domain. The algorithm and the trainer know none by name.

Another domain is one file with one class, and no edit elsewhere:

    torchrun rzero.py --task my_task.py:MyTask --model ... --out ..."""

import runpy
import signal
from pathlib import Path

from common import short
from tasks.mathematics import Math
from tasks.sums import Sums
from tasks.task import Task

TASKS = {"math": Math, "sums": Sums}
LONGEST_CALL = 60  # seconds that a method of a FILE.py:CLASS may take, those of the methods that it calls apart


def load_task(name, **rules):
    """The task that --task names: math, sums, or FILE.py:CLASS. rules: values of its attributes, such as `box`. Raises
    ValueError or FileNotFoundError."""
    signal.signal(signal.SIGALRM, late)
    task = guarded(task_class(name), name)()
    vars(task).update(rules)
    if name not in TASKS:
        methods = [m for m in dir(task) if not m.startswith("_") and callable(getattr(task, m))]
        vars(task).update({m: guarded(getattr(task, m), f"{name}.{m}") for m in methods})
    return task


class TaskError(ValueError):
    """A method of a user's task raised, or took too long."""


class Late(BaseException):
    """Raised in such a method after LONGEST_CALL seconds. No Exception, which it might catch."""


def late(*_):
    raise Late


def guarded(method, name):
    """A method of a user's task. After LONGEST_CALL seconds it is interrupted, each second until it ends. What goes
    wrong in it becomes a TaskError. `distances` has no limit: those of many questions take minutes."""
    def call(*args, **more):
        rest, _ = signal.setitimer(signal.ITIMER_REAL, 0 if name.endswith(".distances") else LONGEST_CALL, 1)
        try:
            return method(*args, **more)
        except TaskError:  # of a method that this one called
            raise
        except (Exception, Late) as error:
            did = f"took more than {LONGEST_CALL} s" if isinstance(error, Late) else f"raised {short(error)}"
            raise TaskError(f"{name}({', '.join(map(short, args))}) {did}") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, rest, 1)  # of the caller's time
    return call


def task_class(name):
    if name in TASKS:
        return TASKS[name]
    file, _, wanted = name.rpartition(":")
    if not file.endswith(".py"):
        raise ValueError(f"--task is {name!r}, but must be {', '.join(TASKS)} or FILE.py:CLASS")
    if not Path(file).is_file():
        raise FileNotFoundError(f"--task names the file {file!r}, which is not there")
    try:
        found = runpy.run_path(file).get(wanted)
    except Exception as error:
        raise ValueError(f"--task {file} cannot be loaded: {short(error)}") from None
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise ValueError(f"{file} has no class {wanted!r} that extends tasks.Task")
    return found

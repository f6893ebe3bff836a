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
    task = task_class(name)()
    vars(task).update(rules)
    if name not in TASKS:
        for attribute in [attribute for attribute in dir(task) if not attribute.startswith("_")]:
            if callable(method := getattr(task, attribute)):
                setattr(task, attribute, guarded(method, name, attribute))
    return task


class TaskError(ValueError):
    """A method of a user's task raised, or did not return."""


class Late(BaseException):
    """A method takes too long. No Exception, which the method might catch."""


def guarded(method, task, name):
    """A method of a user's task, FILE.py:CLASS. What it raises becomes a TaskError, of one line, and so does a call
    that takes more than LONGEST_CALL seconds. `distances` of a large batch may take minutes, and has no limit."""
    def late(*_):
        raise Late

    def call(*args, **more):
        handler = signal.signal(signal.SIGALRM, late)
        rest, _ = signal.setitimer(signal.ITIMER_REAL, 0 if name == "distances" else LONGEST_CALL)
        try:
            return method(*args, **more)
        except TaskError:  # of a method that this one called
            raise
        except (Exception, Late) as error:
            did = f"took more than {LONGEST_CALL} s" if isinstance(error, Late) else f"raised {short(error)}"
            raise TaskError(f"{task}.{name}({', '.join(map(short, args))}) {did}") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, rest)  # of the caller's time
            signal.signal(signal.SIGALRM, handler)

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

"""rzero.py, but one rank of it goes wrong: `fails_at.py kill 0 17 ...` or `fails_at.py raise 1 3 ...`, then settings.

`kill` sends SIGKILL to itself just before the rank's n-th change of a file or folder under --out: an opening to write,
a rename, a removal. `raise` raises an error in the rank's n-th call of the sampler. n = 0 is never; at the end it says
how many changes there were."""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import run
import rzero

CHANGES = "open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"  # audit events; a replacement is a rename


class Countdown:
    """Counts the changes of files in a folder."""

    def __init__(self, folder, n):
        self.folder, self.n, self.count = os.path.abspath(folder), n, 0

    def __call__(self, event, arguments):
        if event not in CHANGES or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        path, parent = os.fsdecode(arguments[0]), arguments[-1]
        if event in ("os.remove", "os.rmdir") and parent >= 0:  # shutil.rmtree names a file by its open folder
            path = os.path.join(os.readlink(f"/proc/self/fd/{parent}"), path)
        if os.path.abspath(path).startswith(self.folder):
            self.count += 1
            if self.count == self.n:
                os.kill(os.getpid(), signal.SIGKILL)


def main():
    how, rank, n, *settings = sys.argv[1:]
    sys.argv = ["rzero.py", *settings]
    countdown = Countdown(settings[settings.index("--out") + 1], int(n) if how == "kill" else 0)
    if os.environ.get("RANK", "0") == rank and how == "kill":
        sys.addaudithook(countdown)
    elif os.environ.get("RANK", "0") == rank:
        sample, calls = run.Run.sample, iter(range(1, 10**9))

        def failing(*arguments, **named):
            if next(calls) == int(n):
                raise RuntimeError(f"rank {rank} is out of order")
            return sample(*arguments, **named)

        run.Run.sample = failing
    rzero.main()
    print(f"{countdown.count} changes of files")


if __name__ == "__main__":
    main()

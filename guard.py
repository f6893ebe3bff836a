"""What protects a run from the world around it: one process a run folder, an end in good order, no orphans.

    with ending("rzero.py"), hold(folder):

`ending` turns errors and signals into one line and an exit status. `hold` locks a folder, also against processes on
other machines that share its disk: where the file system's own locks do not reach them, a heartbeat tells who lives."""

import fcntl
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import torch.distributed as dist

from common import barrier, rank_and_world

LOCK = "lock.json"
BEAT, DEAD = 2, 60  # seconds between two heartbeats; without one for so long, an owner on another host is dead
PATIENCE = 3  # seconds in which a process ends whose torchrun was killed
NAMES = {signal.SIGHUP: "hung up", signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Stopped(KeyboardInterrupt):
    """A signal, args[0], asks the program to end. advice: how to go on."""

    advice = "the same command goes on after the last finished part"


class Signals:
    """The signals that came. Each raises `Stopped` at once, or in the next `poll` while `wait` is true: an update must
    be whole, and several processes must leave together."""

    def __init__(self):
        self.came, self.wait, self.before = [], False, {}

    def listen(self):
        """Takes the signals, but those that are ignored, as nohup asks. Until then they end a process at once, also
        within a call of C that waits for other processes."""
        for number in NAMES:
            if signal.getsignal(number) != signal.SIG_IGN:
                self.before[number] = signal.signal(number, self)

    def forget(self):
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.__init__()

    def __call__(self, number, _):
        self.came.append(number)
        if not self.wait:
            raise Stopped(number)
        if len(self.came) == 1 and rank_and_world()[1] == 1:  # of several, one may have to end since another did
            with suppress(OSError):  # print would raise where the signal interrupts another print
                os.write(2, f"{NAMES[number]}: the run ends as soon as this step allows\n".encode())

    def poll(self):
        """Raises `Stopped` if a signal came. The sampler calls it between two tokens."""
        if self.came:
            raise Stopped(self.came[0])


SIGNALS = Signals()


def say(line):
    with suppress(OSError):  # the terminal may be gone
        print(line, file=sys.stderr, flush=True)


def abandon(why):
    """Ends this process at once, from any thread."""
    say(f"{Path(sys.argv[0]).name}: {why}")
    os._exit(1)


def repeat(check, seconds):
    """Has a thread call `check` every so many seconds -> a function that ends this. C code that holds the interpreter's
    lock delays it."""
    ended = threading.Event()

    def loop():
        while not ended.wait(seconds):
            check()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    return lambda: (ended.set(), thread.join())


# ---- the end of a program


@contextmanager
def ending(program):
    """Around a command. An error that a user can mend becomes one line and exit status 1; a signal becomes one line and
    the status that a shell has for it, such as 130. Where several processes end, one of them says why. A process whose
    torchrun was killed ends too, since the next one needs its folder."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with(os.getppid())
    status, line = 0, ""
    try:
        yield
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        SIGNALS.wait, status = True, 128 + stopped.args[0]
        if rank_and_world()[0] == 0:
            line = f"{program}: {NAMES[stopped.args[0]]}; {stopped.advice}"
    except Exception as error:
        SIGNALS.wait, status, (rank, world) = True, 1, rank_and_world()
        lost = world > 1 and lost_another(error)
        if lost:
            line = f"{program}: lost the other processes: {str(error).splitlines()[0]}"
        elif isinstance(error, OSError | ValueError | FloatingPointError):
            line = f"{program}: {error}"
        else:
            line = traceback.format_exc().rstrip()
        if (lost or rank) and signalled(within=10 if lost else 3):
            line = ""  # torchrun ends this process because another has ended, which said why
    if line:
        say(line)
        report_to_torchrun(line)
    if status and rank_and_world()[1] > 1:
        sys.stdout.flush()
        os._exit(status)  # at once, since the others wait; the end of a process group may wait too
    if dist.is_initialized():
        dist.destroy_process_group()
    SIGNALS.forget()
    if status:
        sys.exit(status)


def end_with(parent):
    """Has this process end within a second of torchrun, its parent."""
    def check(alive=True):
        if not alive or os.getppid() != parent:
            abandon("its torchrun was killed; the same command goes on")

    try:
        program = os.readlink(f"/proc/{parent}/exe")
    except OSError:  # another user's, or a system without /proc
        program = ""
    # torchrun may have been killed while this process was starting: then the parent is init, or systemd in its place.
    check(alive="python" in program if parent == 1 else not program.endswith("/systemd"))
    repeat(check, 0.5)


def lost_another(error):
    """Whether this error of a collective says that another process is gone. Gloo's are bare RuntimeErrors."""
    return isinstance(error, dist.DistError) or isinstance(error, RuntimeError) and "gloo" in str(error).lower()


def signalled(within):
    """Whether a signal comes within some seconds."""
    end = time.monotonic() + within
    while not SIGNALS.came and time.monotonic() < end:
        time.sleep(0.1)
    return bool(SIGNALS.came)


def report_to_torchrun(line):
    """Has torchrun's own report, which comes last, hold the line too."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        more = {"py_callstack": line, "timestamp": str(int(time.time()))}
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": {"message": line, "extraInfo": more}}))


# ---- one process a folder


@contextmanager
def hold(folder):
    """Holds a folder for this program, rank 0 for all its processes, and listens to signals. Raises as `locked`."""
    with nullcontext() if rank_and_world()[0] else locked(folder):
        barrier()  # until rank 0 holds it
        SIGNALS.listen()
        yield


@contextmanager
def locked(folder):
    """Locks a folder for this process. A lock whose owner is dead is taken over. Raises ValueError naming the owner
    where it lives, OSError where the folder cannot be written."""
    path, start, beats, told = Path(folder) / LOCK, time.monotonic(), set(), False
    ours = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
    try:
        while not (file := take(path, ours)):
            with suppress(FileNotFoundError):  # its owner has just removed it
                beats.add(path.stat().st_mtime)
                waited = time.monotonic() - start
                if waited > PATIENCE and len(beats) > 1 or waited > DEAD:
                    raise ValueError(f"{folder} is in use by {owner(path)}; end it, or choose another --out")
                if waited > PATIENCE and not told:
                    told = True
                    print(f"{folder} is held by {owner(path)}; it is free {DEAD} s after that", flush=True)
            time.sleep(0.1)
    except OSError as error:
        raise OSError(f"cannot write the run folder {str(folder)!r}: {error.strerror}") from None
    end_beats = repeat(lambda: beat(path, ours), BEAT)
    try:
        yield
    finally:
        end_beats()
        with suppress(OSError):
            path.read_text(encoding="utf-8") == ours and path.unlink()
        file.close()
        with suppress(OSError):
            path.parent.rmdir()  # where nothing came of the run


def take(path, ours):
    """Writes `ours` to a lock file -> the open file, which holds the file system's lock; None where another has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError), ExitStack() as refused:  # the folder or the file may go with its owner
        file, locked = refused.enter_context(open(path, "a+", encoding="utf-8")), True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError:  # a file system without locks
            locked = False
        file.seek(0)
        theirs = parsed(file.read())
        # Where a lock is the host's own affair, only the heartbeat speaks for a process on another host.
        if theirs and not (locked and theirs["host"] == socket.gethostname()) and silence(path) < DEAD:
            return None
        if os.fstat(file.fileno()).st_ino != path.stat().st_ino:
            return None
        file.truncate(0)
        file.write(ours)
        file.flush()
        if not locked:
            time.sleep(1)  # two may have come so far
            if path.read_text(encoding="utf-8") != ours:
                return None
        refused.pop_all()
        return file


def parsed(text):
    """What a lock file says: host, pid, since; None where that is not whole."""
    with suppress(ValueError, AttributeError):
        found = json.loads(text)
        return {name: str(found.get(name)) for name in ("host", "pid", "since")}


def silence(path):
    """Seconds since a lock's last heartbeat, by the clock of its file system."""
    with tempfile.TemporaryFile(dir=path.parent) as now:
        return os.fstat(now.fileno()).st_mtime - path.stat().st_mtime


def owner(path):
    """Who holds a lock, in words."""
    theirs = parsed(path.read_text(encoding="utf-8", errors="replace")) or dict.fromkeys(("host", "pid", "since"), "?")
    return (f"process {theirs['pid']} on {theirs['host']}, since {theirs['since']}, last heard of "
            f"{silence(path):.0f} s ago")


def beat(path, ours):
    """A heartbeat. Ends this process where the lock is its own no more: it would write into another's folder."""
    try:
        if path.read_text(encoding="utf-8") != ours:
            abandon(f"{path} is now held by {owner(path)}")
        os.utime(path)
    except FileNotFoundError:
        abandon(f"{path} is gone, and perhaps the folder with it; what was finished there is whole")
    except OSError:  # such as a disk of another machine that is away for a moment
        pass

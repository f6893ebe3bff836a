"""One process a folder, the end of a program in one line, and what happens to a run between two signals. The processes
themselves are killed in test_faults.py."""

import json
import os
import signal
import socket
import time

import pytest

import guard
from guard import LOCK, SIGNALS, Stopped, ending, hold


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(guard, "PATIENCE", 0.1)
    monkeypatch.setattr(guard, "BEAT", 0.05)


def leave_lock(folder, host, age=0, text=None):
    """What an owner leaves that does not live on this machine, or not any more."""
    folder.mkdir(exist_ok=True)
    owner = {"host": host, "pid": 4321, "since": "2026-01-01 00:00:00"}
    (folder / LOCK).write_text(json.dumps(owner) if text is None else text)
    os.utime(folder / LOCK, (time.time() - age,) * 2)


def test_a_folder_has_one_owner_and_is_as_it_was_after(tmp_path):
    run = tmp_path / "new" / "run"
    with hold(run):
        held = json.loads((run / LOCK).read_text())
        assert held["host"] == socket.gethostname() and held["pid"] == os.getpid()
        with pytest.raises(ValueError, match=f"run is in use by process {os.getpid()} on {socket.gethostname()}, since 20"), \
                hold(run):
            pass
        (run / "config.json").write_text("{}")
    assert [file.name for file in run.iterdir()] == ["config.json"]
    with hold(tmp_path / "refused"):
        pass
    assert not (tmp_path / "refused").exists()  # nothing came of it


@pytest.mark.parametrize("host, age, text", [
    (socket.gethostname(), 0, None), ("elsewhere", 61, None), ("elsewhere", 0, ""), ("elsewhere", 0, "{\"host\": "),
    ("elsewhere", 0, "[]")], ids=["killed here", "silent elsewhere", "empty", "cut off", "no object"])
def test_a_dead_owner_holds_nothing(tmp_path, host, age, text):
    leave_lock(tmp_path, host, age, text)
    with hold(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_process_on_another_machine_holds_it_as_long_as_its_heart_beats(tmp_path, capsys):
    leave_lock(tmp_path, "elsewhere", age=40)
    end_beats = guard.repeat(lambda: os.utime(tmp_path / LOCK), 0.3)
    with pytest.raises(ValueError, match="process 4321 on elsewhere, since 2026-01-01 .* last heard of 0 s ago; end it"), \
            hold(tmp_path):
        pass
    end_beats()
    assert "elsewhere" in (tmp_path / LOCK).read_text()
    assert "held by process 4321 on elsewhere, since 2026-01-01 00:00:00, last heard of 4" in capsys.readouterr().out


def test_one_waits_for_another_machines_process_that_is_silent_until_it_is_dead(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "DEAD", 1)
    leave_lock(tmp_path, "elsewhere")
    start = time.monotonic()
    with hold(tmp_path):
        assert 0.8 < time.monotonic() - start < 3


def test_a_process_that_is_stopped_but_holds_the_file_systems_lock_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "DEAD", 0.5)
    monkeypatch.setattr(guard, "beat", lambda *_: None)
    with hold(tmp_path), pytest.raises(ValueError, match=f"in use by process {os.getpid()} on"), hold(tmp_path):
        pass


def test_an_owner_that_leaves_takes_the_empty_folder_with_it(tmp_path, monkeypatch):
    """The one that waits makes it anew."""
    real, opened = open, []

    def vanishing(path, *rest, **more):
        if str(path).endswith(LOCK) and not opened:
            opened.append(path)
            path.parent.rmdir()
        return real(path, *rest, **more)

    monkeypatch.setattr(guard, "open", vanishing, raising=False)
    with hold(tmp_path / "run"):
        assert opened and (tmp_path / "run" / LOCK).exists()


def test_without_the_file_systems_locks_the_heartbeat_tells(tmp_path, monkeypatch):
    monkeypatch.setattr(guard.fcntl, "flock", lambda *_: os.open("/dev/null/nothing", os.O_RDONLY))
    with hold(tmp_path), pytest.raises(ValueError, match="in use by"), hold(tmp_path):
        pass
    leave_lock(tmp_path, socket.gethostname(), age=61)
    with hold(tmp_path):
        pass


def test_the_heart_beats_and_notices_what_becomes_of_the_lock(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(guard, "BEAT", 0.02)
    monkeypatch.setattr(guard, "abandon", ended.append)
    with hold(tmp_path):
        os.utime(tmp_path / LOCK, (0, 0))
        time.sleep(0.2)
        assert (tmp_path / LOCK).stat().st_mtime > time.time() - 5 and not ended
        leave_lock(tmp_path, "elsewhere")
        time.sleep(0.2)
        assert "is now held by process 4321 on elsewhere" in ended[-1]
        (tmp_path / LOCK).unlink()
        time.sleep(0.2)
        assert "lock.json is gone" in ended[-1]


def test_a_lock_that_another_took_is_not_removed(tmp_path, monkeypatch):
    with hold(tmp_path):
        leave_lock(tmp_path, "elsewhere")
    assert "elsewhere" in (tmp_path / LOCK).read_text()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="^cannot write the run folder '.*file/run': Not a directory$"), \
            hold(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize("error, status, says", [
    (ValueError("--seed is -1"), 1, "rzero.py: --seed is -1\n"),
    (OSError("cannot write x"), 1, "rzero.py: cannot write x\n"),
    (FloatingPointError("NaN"), 1, "rzero.py: NaN\n"),
    (KeyboardInterrupt(), 130, "rzero.py: interrupted; the same command goes on after the last finished part\n"),
    (Stopped(signal.SIGINT), 130, "rzero.py: interrupted; the same command goes on after the last finished part\n"),
    (Stopped(signal.SIGTERM), 143, "rzero.py: terminated; the same command goes on after the last finished part\n")])
def test_an_end_is_one_line_and_a_status(error, status, says, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error"))
    with pytest.raises(SystemExit) as exit, ending("rzero.py"):
        raise error
    assert exit.value.code == status and capsys.readouterr().err == says
    assert json.loads((tmp_path / "error").read_text())["message"]["message"] + "\n" == says


def test_a_full_disk_of_torchruns_does_not_hide_the_line(capsys, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/dev/full")
    with pytest.raises(SystemExit), ending("rzero.py"):
        raise OSError("cannot write x")
    assert capsys.readouterr().err == "rzero.py: cannot write x\n"


def test_a_signal_that_is_to_be_ignored_is(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending("rzero.py"):
            SIGNALS.listen()
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_fault_of_ours_keeps_its_traceback(capsys):
    with pytest.raises(SystemExit) as exit, ending("rzero.py"):
        int(len)
    assert exit.value.code == 1 and "\n    int(len)\n" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_at_once_or_at_the_next_poll(number):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit), ending("rzero.py"):
        SIGNALS.listen()
        SIGNALS.poll()
        os.kill(os.getpid(), number)
        pytest.fail("the signal did nothing")
    with pytest.raises(SystemExit), ending("rzero.py"):
        SIGNALS.listen()
        SIGNALS.wait = True
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert SIGNALS.came == [number]
        SIGNALS.poll()
        pytest.fail("the signal did nothing")
    assert signal.getsignal(number) is before
    with ending("rzero.py"):
        SIGNALS.poll()  # a next command in the same process has none of it

# SPDX-License-Identifier: MIT
"""A command that is started, and held until capture has begun."""

import errno
import os
import pwd
import select
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, Self

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.probe.privileges.capabilities import Capability, effective, keep_only
from kalloctrace.probe.privileges.confine import confine
from kalloctrace.recorders import ENDING_SIGNALS
from kalloctrace.text import file_name, printable

_GRACE = 5.0
_STDERR, _FIRST_OTHER = 2, 3
_MESSAGE = 4096
_GO, _HELD = b"go", b"held"
_NOT_FOUND, _NOT_RUNNABLE = 127, 126
"""Exit statuses of a shell that cannot run a command."""

_BLOCKED = (*ENDING_SIGNALS, signal.SIGQUIT)


@dataclass(frozen=True)
class User:
    """A user of this machine, from its user database."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str

    def environment(self) -> dict[str, str]:
        """Return the variables that su(1) sets for a user; it keeps all others."""
        return {"HOME": self.home, "SHELL": self.shell, "USER": self.name, "LOGNAME": self.name}


def find_user(name: str) -> User:
    """Return the user with this name.

    Raises:
        KalloctraceError: there is no such user, it is root, or this process may not become another user.
    """
    try:
        found = pwd.getpwnam(name)
    except (KeyError, ValueError) as error:
        raise _no_such_user(name) from error
    if found.pw_uid == 0:
        raise KalloctraceError(
            f"will not run a command as {name}",
            "--user takes a command's privileges away, and the kernel gives root all of them",
            "leave out --user to run it as root, or name another user",
            Exit.USAGE,
        )
    missing = sorted({Capability.SETUID, Capability.SETGID} - effective())
    if missing:
        raise KalloctraceError(
            f"cannot run a command as {name}",
            f"uid {os.geteuid()} without {' and '.join(map(str, missing))} cannot become another user",
            "run it as root: sudo kalloctrace …; or leave out --user",
        )
    return User(name, found.pw_uid, found.pw_gid, found.pw_dir, found.pw_shell or "/bin/sh")


def _no_such_user(name: str) -> KalloctraceError:
    fix = "name a user that `getent passwd` lists"
    if name.isascii() and name.isdigit():
        with suppress(KeyError, OverflowError):
            fix = f"give the name of that user: --user {pwd.getpwuid(int(name)).pw_name}"
        return KalloctraceError(f"cannot run a command as {name}", "--user takes a name, not a number", fix, Exit.USAGE)
    return KalloctraceError(f"cannot run a command as {name!r}", "there is no such user", fix, Exit.USAGE)


class Child:
    """The process of a command; it is held until `resume`.

    The command is the child of a helper process, which outlives the privileges of this one: it keeps CAP_KILL, to end a
    command that runs as another user. When this process is killed, a command that is still held ends too.

    Args:
        command: the program and its arguments.
        user: who runs it, without capabilities; None for the caller, with the caller's privileges.

    Attributes:
        pid: its process id.
        pidfd: a file descriptor of the process.

    Raises:
        KalloctraceError: there is no such program.
    """

    def __init__(self, command: Sequence[str], user: User | None = None) -> None:
        self._control, helper_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Output that is buffered must not be written by the new processes too.
        for stream in (sys.stdout, sys.stderr):  # noqa: TID251 - flushed, not written
            stream.flush()
        # The helper keeps these blocked, so a Ctrl-C on the terminal does not end it; the command gets this mask back.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        self._helper = os.fork()
        if self._helper == 0:
            self._control.close()
            _in_new_process(lambda: _help(helper_end, command, user, mask))
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        helper_end.close()
        try:
            self.pid = _pid_of_held(self._control.recv(_MESSAGE), command, user)
            self.pidfd = os.pidfd_open(self.pid)
        except BaseException:
            # The helper ends with its control, and a held command with the helper.
            self._control.close()
            raise
        self._status: int | None = None

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the command if it is still running or was never resumed."""
        self.end()

    def resume(self) -> None:
        """Let the command run."""
        self._say(_GO)

    def kill(self) -> None:
        """Kill the command at once, held or stopped or not."""
        self._signal(signal.SIGKILL)

    def end(self) -> int:
        """End the command if it is still running; return its exit status, or 128 + n after signal n."""
        if self._status is None:
            if not self._ended(0):
                self._signal(signal.SIGTERM)
                # A stopped process must be continued before it can act on SIGTERM.
                self._signal(signal.SIGCONT)
            if not self._ended(_GRACE):
                self._signal(signal.SIGKILL)
                self._ended(None)
            # Without an answer somebody killed the helper, and nobody knows how the command ended.
            code = int(self._control.recv(_MESSAGE) or -signal.SIGKILL)
            self._control.close()
            os.close(self.pidfd)
            os.waitpid(self._helper, 0)
            self._status = code if code >= 0 else 128 - code
        return self._status

    def _ended(self, seconds: float | None) -> bool:
        return bool(select.select([self.pidfd], [], [], seconds)[0])

    def _signal(self, number: signal.Signals) -> None:
        self._say(str(int(number)).encode())

    def _say(self, word: bytes) -> None:
        # The helper is gone once the command has ended.
        with suppress(BrokenPipeError):
            self._control.send(word)


def _pid_of_held(message: bytes, command: Sequence[str], user: User | None) -> int:
    word, _, value = message.partition(b" ")
    if word == _HELD:
        return int(value)
    raise KalloctraceError(
        f"cannot run {command[0]}" + ("" if user is None else f" as {user.name}"),
        os.fsdecode(value) or "the process that should run it ended",
        "check the command after --",
    )


def _in_new_process(work: Callable[[], NoReturn]) -> NoReturn:
    """Do the work of a process that was just forked; whatever fails, nothing else of the caller runs in it."""
    try:
        work()
    except BaseException:  # noqa: BLE001 an interrupt too
        os._exit(_NOT_RUNNABLE)


def _help(control: socket.socket, command: Sequence[str], user: User | None, mask: Iterable[int]) -> NoReturn:
    """Be the command's parent: start it, pass on what the recorder says, and report its exit status."""
    go, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(release)
        _in_new_process(lambda: _run(control, go, command, user, mask))
    os.close(go)
    pidfd = os.pidfd_open(pid)
    confine(kept={Capability.KILL})
    while pidfd not in select.select([control.fileno(), pidfd], [], [])[0]:
        word = control.recv(_MESSAGE)
        if not word:
            # The recorder was killed. A command that is held reads the end of `release`, and ends.
            os._exit(0)
        with suppress(PermissionError, BrokenPipeError):
            if word == _GO:
                os.write(release, word)
            else:
                os.kill(pid, int(word))
    control.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    os._exit(0)


def _run(control: socket.socket, go: int, command: Sequence[str], user: User | None, mask: Iterable[int]) -> NoReturn:
    """Become the command, once the recorder says so."""
    signal.set_wakeup_fd(-1)
    for number in _BLOCKED:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    # Python ignores these; the command must not inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    environment = dict(os.environ)
    if user is not None:
        os.initgroups(user.name, user.gid)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        keep_only()
        environment |= user.environment()
    # As the user who runs it.
    program = shutil.which(command[0])
    if program is None:
        reason = "there is no such program" + ("" if user is None else f", or {user.name} may not run it")
        control.send(b"failed " + os.fsencode(reason))
        os._exit(_NOT_FOUND)
    control.send(b"%s %d" % (_HELD, os.getpid()))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.closerange(_FIRST_OTHER, go)
    os.closerange(go + 1, os.sysconf("SC_OPEN_MAX"))
    if not os.read(go, len(_GO)):
        os._exit(_NOT_RUNNABLE)
    try:
        _execute(program, command, environment)
    except OSError as error:
        message = f"kalloctrace: cannot run {printable(file_name(command[0]))}: {error.strerror}\n"
        os.write(_STDERR, message.encode(errors="replace"))
        os._exit(_NOT_FOUND if error.errno == errno.ENOENT else _NOT_RUNNABLE)


def _execute(program: str, command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    try:
        os.execve(program, list(command), environment)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    # A script without an interpreter's name, which execvp(3) and shells run so.
    os.execve("/bin/sh", ["sh", program, *command[1:]], environment)

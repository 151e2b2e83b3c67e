# SPDX-License-Identifier: MIT
"""Who asked for the memory: the innermost function of the call trace that does not work for others."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from kalloctrace.diagnose.answers.subsystems import ALLOCATORS, ENTRIES, LIBRARIES, MODULES, SUBSYSTEMS
from kalloctrace.diagnose.answers.types import Caller
from kalloctrace.diagnose.kinds import was_freeing
from kalloctrace.diagnose.reports.model import Frame, LoggedFailure


def find_caller(logged: LoggedFailure) -> Caller | None:
    """Return who asked; None if the log has no call trace, or one of allocators alone, or nobody asked."""
    frame = None if was_freeing(logged) else asking_frame(logged.trace)
    if frame is None:
        return None
    at = logged.trace.index(frame)
    line = logged.trace_lines[at] if at < len(logged.trace_lines) else None
    return Caller(frame.function, frame.module, _subsystem(frame), line)


def asking_frame(trace: Sequence[Frame]) -> Frame | None:
    """Return the frame of who asked; None without frames, or where all are allocators."""
    asking = list(_asking(reliable_frames(trace)))
    entered = next((at for at, frame in enumerate(asking) if ENTRIES.fullmatch(name_of(frame))), len(asking))
    inner = asking[:entered]
    # A function of a library is named if nobody else is there, and so is the way in: it says that a process touched
    # its own memory.
    own = [frame for frame in inner if not LIBRARIES.fullmatch(name_of(frame))]
    return next(iter(own or inner or asking), None)


def frames_to_caller(logged: LoggedFailure) -> Iterator[Frame]:
    """Yield the frames from the allocator to who asked, innermost first: those that decide what a failure leads to."""
    for frame in reliable_frames(logged.trace):
        yield frame
        name = name_of(frame)
        if not ALLOCATORS.fullmatch(name) and not LIBRARIES.fullmatch(name):
            return


def reliable_frames(trace: Sequence[Frame]) -> list[Frame]:
    """Return the frames without those that were merely found on the stack, unless there are no others."""
    return [frame for frame in trace if frame.reliable] or list(trace)


def name_of(frame: Frame) -> str:
    """Return the function's name without what allocation profiling appends (6.10)."""
    return frame.function.removesuffix("_noprof")


def _asking(frames: Sequence[Frame]) -> Iterator[Frame]:
    return (frame for frame in frames if not ALLOCATORS.fullmatch(name_of(frame)))


def _subsystem(frame: Frame) -> str | None:
    return MODULES.get(frame.module, frame.module) if frame.module is not None else _subsystem_of(name_of(frame))


@lru_cache(maxsize=4096)
def _subsystem_of(name: str) -> str | None:
    if ENTRIES.fullmatch(name):
        return "page fault of a process" if "fault" in name or "abort" in name.lower() else None
    return next((row.name for row in SUBSYSTEMS if row.functions.fullmatch(name)), None)

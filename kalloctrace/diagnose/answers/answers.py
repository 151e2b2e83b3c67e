# SPDX-License-Identifier: MIT
"""All answers about one failure."""

from dataclasses import dataclass

from kalloctrace.diagnose.answers.advice import advise
from kalloctrace.diagnose.answers.caller import find_caller
from kalloctrace.diagnose.answers.harm import judge_harm
from kalloctrace.diagnose.answers.holders import find_holders
from kalloctrace.diagnose.answers.known_bugs import find_known_bugs
from kalloctrace.diagnose.answers.out_of_memory import judge_out_of_memory
from kalloctrace.diagnose.answers.types import Advice, Caller, Harm, Holder, KnownBug, OutOfMemory
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.zones import Remedy


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers.

    Attributes:
        caller: who asked; None if the log does not show it.
        harm: what the failure leads to.
        memory: whether the machine is out of memory.
        holders: who holds the memory, the largest first.
        advice: what to change, the best first.
        known_bugs: bugs of the kernel that the log shows.
        what_if: changes of the request or the zones that would have let it pass; no advice.
    """

    caller: Caller | None
    harm: Harm
    memory: OutOfMemory
    holders: tuple[Holder, ...]
    advice: tuple[Advice, ...]
    known_bugs: tuple[KnownBug, ...]
    what_if: tuple[Remedy, ...]


def answer(failure: Failure) -> Answers:
    """Answer what people ask of a failure."""
    caller = find_caller(failure.logged)
    harm, memory, holders = judge_harm(failure, caller), judge_out_of_memory(failure), find_holders(failure)
    return Answers(
        caller=caller,
        harm=harm,
        memory=memory,
        holders=holders,
        advice=advise(failure, caller, harm, memory, holders),
        known_bugs=find_known_bugs(failure),
        what_if=_what_if(failure, memory),
    )


def _what_if(failure: Failure, memory: OutOfMemory) -> tuple[Remedy, ...]:
    """Return what would have let it pass; nothing would where there is no memory."""
    return () if failure.why is None or memory.verdict else failure.why.remedies

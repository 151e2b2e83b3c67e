# SPDX-License-Identifier: MIT
"""An emulated processor that executes a few functions of a kernel image; every call that leaves them is answered here.

Unicorn executes the instructions. Nothing of the image is initialised: what the functions read is written before.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from struct import calcsize, pack, unpack

from unicorn import UC_ARCH_X86, UC_HOOK_BLOCK, UC_MODE_64, Uc, UcError
from unicorn.unicorn_const import UC_TLB_VIRTUAL
from unicorn.x86_const import (
    UC_X86_REG_GS_BASE,
    UC_X86_REG_R8,
    UC_X86_REG_R9,
    UC_X86_REG_RAX,
    UC_X86_REG_RCX,
    UC_X86_REG_RDI,
    UC_X86_REG_RDX,
    UC_X86_REG_RIP,
    UC_X86_REG_RSI,
    UC_X86_REG_RSP,
)

from kalloctrace.errors import KalloctraceError
from tests.compiled.image import KERNEL_BASE, Image, Segment

ARGUMENTS = (UC_X86_REG_RDI, UC_X86_REG_RSI, UC_X86_REG_RDX, UC_X86_REG_RCX, UC_X86_REG_R8, UC_X86_REG_R9)

DATA = 0x1_0000_0000
"""Where `struct`s of the caller may be written."""
DATA_SIZE = 0x100_0000

_KERNEL_SIZE = 0x1000_0000
_PERCPU, _PERCPU_SIZE = 0x2_0000_0000, 0x10_0000
_STACK, _STACK_SIZE = 0x3_0000_0000, 0x2_0000
_RETURN = 0x4_0000_0000

_RETURNS = frozenset({"__fentry__", "__x86_return_thunk"})
"""The call that the function tracer may rewrite, and the jump in place of each return: they only return."""

_UD2 = bytes.fromhex("0f0b")
_CALLS = 5000
_WARNINGS = 200

Answer = Callable[["Machine"], int | None]
"""What is done in a function's place; what it returns is the function's result, None that of a void function."""


class LeaveError(Exception):
    """Raised by an answer to end the execution."""


class Machine:
    """A processor with one image.

    Args:
        image: the kernel.
        executed: names of the functions that are executed, as their source has them; those that the compiler
            inlined are no symbols, and need not be.
        answers: what answers for each other function that is called, by its name.
        code: code to be written over the image's.
    """

    def __init__(
        self, image: Image, executed: Collection[str], answers: Mapping[str, Answer], code: Iterable[Segment] = ()
    ) -> None:
        """Load the image."""
        self.image = image
        self._answers = answers
        self._calls = 0
        self._uc = uc = Uc(UC_ARCH_X86, UC_MODE_64)
        uc.ctl_set_tlb_mode(UC_TLB_VIRTUAL)
        uc.mem_map(KERNEL_BASE, _KERNEL_SIZE)
        for segment in (*image.segments, *code):
            uc.mem_write(segment.address, segment.content)
        uc.mem_map(DATA, DATA_SIZE)
        uc.mem_map(_PERCPU, _PERCPU_SIZE)
        uc.mem_map(_STACK, _STACK_SIZE)
        uc.mem_map(_RETURN, 0x1000)
        self._percpu = self._percpu_base()
        uc.reg_write(UC_X86_REG_GS_BASE, self._percpu)
        start = KERNEL_BASE
        for low, high in sorted(self._extents(executed)):
            self._watch(start, low)
            start = high
        self._watch(start, KERNEL_BASE + _KERNEL_SIZE)

    def _extents(self, executed: Iterable[str]) -> Iterable[tuple[int, int]]:
        symbols = self.image.symbols
        return {symbols.extent(part) for function in executed for part in symbols.parts.get(function, ())}

    def _watch(self, start: int, stop: int) -> None:
        """Have each basic block within these addresses reported before it is executed."""
        if start < stop:
            self._uc.hook_add(UC_HOOK_BLOCK, self._left, begin=start, end=stop - 1)

    def _percpu_base(self) -> int:
        """Return what GS holds.

        Up to 6.12 the images have per-CPU variables at addresses from 0 on; from 6.16 on they lie in the image, and are
        used in place, as the boot CPU uses them at first.
        """
        some = self.image.symbols.addresses["__per_cpu_start"]
        return 0 if some >= KERNEL_BASE else _PERCPU

    def percpu(self, name: str) -> int:
        """Return the address of a per-CPU variable."""
        return self._percpu + self.image.symbols.addresses[name]

    def write(self, address: int, layout: str, *values: int) -> None:
        """Write numbers, laid out as `struct` does, little-endian."""
        self._uc.mem_write(address, pack(f"<{layout}", *values))

    def clear(self, address: int, size: int) -> None:
        """Write zeros."""
        self._uc.mem_write(address, bytes(size))

    def read(self, address: int, layout: str) -> tuple[int, ...]:
        """Read numbers."""
        values: tuple[int, ...] = unpack(f"<{layout}", self._uc.mem_read(address, calcsize(f"<{layout}")))
        return values

    def argument(self, index: int) -> int:
        """Return an argument of the function that is being answered for, `u64`."""
        return int(self._uc.reg_read(ARGUMENTS[index]))

    @property
    def caller(self) -> str:
        """The function that called the one that is being answered for, with the compiler's suffix."""
        (address,) = self.read(self._uc.reg_read(UC_X86_REG_RSP), "Q")
        return self.image.symbols.holding(address)

    def call(self, function: str, *arguments: int) -> int:
        """Execute a function and return its result, `u64`.

        Raises:
            LeaveError: an answer raised it.
            KalloctraceError: the function does what no kernel would, or calls one that nothing answers for.
        """
        self._calls = 0
        stack = _STACK + _STACK_SIZE - 0x100 - 8  # aligned as the ABI has it at a function's entry
        self.write(stack, "Q", _RETURN)
        self._uc.reg_write(UC_X86_REG_RSP, stack)
        for register, value in zip(ARGUMENTS, arguments, strict=False):
            self._uc.reg_write(register, value)
        address = self._entry(function)
        for _ in range(_WARNINGS):
            try:
                self._uc.emu_start(address, _RETURN)
            except UcError as error:
                address = self._after_warning(error)
            else:
                return int(self._uc.reg_read(UC_X86_REG_RAX))
        raise self._impossible("it warns without end")

    def _entry(self, function: str) -> int:
        whole = [name for name in self.image.symbols.parts.get(function, ()) if not name.endswith(".cold")]
        if len(whole) != 1:
            raise self._impossible(f"the image has {len(whole)} functions {function}")
        return self.image.symbols.addresses[whole[0]]

    def _after_warning(self, error: UcError) -> int:
        """Return where to go on: WARN_ON is the undefined instruction ud2, which the kernel's handler steps over."""
        address = int(self._uc.reg_read(UC_X86_REG_RIP))
        if bytes(self._uc.mem_read(address, 2)) != _UD2:
            raise self._impossible(f"{error} at {address:#x} in {self.image.symbols.holding(address)}")
        return address + len(_UD2)

    def _left(self, _uc: Uc, address: int, _size: int, _data: object) -> None:
        """Answer for a function that is not executed, and return to its caller."""
        self._calls += 1
        if self._calls > _CALLS:
            raise self._impossible("it calls without end")
        names = self.image.symbols.at(address)
        value = None if _RETURNS.intersection(names) else self._answer(address, names)
        if value is not None:
            self._uc.reg_write(UC_X86_REG_RAX, value)
        stack = self._uc.reg_read(UC_X86_REG_RSP)
        (back,) = self.read(stack, "Q")
        self._uc.reg_write(UC_X86_REG_RSP, stack + 8)
        self._uc.reg_write(UC_X86_REG_RIP, back)

    def _answer(self, address: int, names: Iterable[str]) -> int | None:
        answer = next((self._answers[base] for base in map(_base, names) if base in self._answers), None)
        if answer is None:
            where = " or ".join(names) or f"the middle of {self.image.symbols.holding(address)}"
            raise self._impossible(f"nothing answers for {where}")
        return answer(self)

    def _impossible(self, why: str) -> KalloctraceError:
        return KalloctraceError(
            f"cannot execute the code of {self.image.name} {self.image.version}", why, "report the package's version"
        )


def _base(symbol: str) -> str:
    return symbol.partition(".")[0]

# SPDX-License-Identifier: MIT
"""Evaluates the constant C expressions that tracefs publishes, without executing code."""

import re
from collections.abc import Mapping

from kalloctrace.errors import KalloctraceError

_TOKEN = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|\d+)[uUlL]*\b|(?P<name>[A-Za-z_]\w*)|(?P<op><<|>>|[|&^~+\-()]))"
)
_U64_MAX = (1 << 64) - 1
# The kernel's own expressions nest about twenty levels deep.
_MAX_DEPTH = 64
_LONGEST = 100
# Binary operators, lowest precedence first.
_LEVELS: tuple[tuple[str, ...], ...] = (("|",), ("^",), ("&",), ("<<", ">>"), ("+", "-"))


def evaluate(expression: str, names: Mapping[str, int] | None = None) -> int:
    """Return the value of a constant expression as an unsigned 64-bit number.

    Casts are ignored: they truncate none of the kernel's masks.

    Args:
        expression: numbers with suffixes, names, casts, parentheses and the operators | ^ & << >> + - ~.
        names: the values of the enumerators in the expression.

    Raises:
        KalloctraceError: the text is not such an expression, or a name has no value.
    """
    parser = _Parser(expression, names or {})
    value = parser.binary(0)
    if parser.peek():
        raise parser.error(f"{parser.peek()!r} is unexpected")
    return value


class _Parser:
    """A recursive-descent parser for one expression."""

    def __init__(self, expression: str, names: Mapping[str, int]) -> None:
        self._expression = expression
        self._names = names
        self._tokens = self._split()
        self._at = 0
        self._depth = 0

    def _split(self) -> list[str]:
        tokens, at, text = [], 0, self._expression.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self.error(f"{text[at:].split()[0]!r} is not part of a constant")
            tokens.append(match["number"] or match["name"] or match["op"])
            at = match.end()
        return tokens

    def error(self, why: str) -> KalloctraceError:
        """Return the error for this expression."""
        return KalloctraceError(
            f"cannot evaluate {self._expression.strip()!r}",
            why,
            "name the kernel with --kernel to decode with built-in tables",
        )

    def peek(self, ahead: int = 0) -> str:
        """Return the next token, or a later one, without consuming it; "" at the end."""
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ""

    def _take(self) -> str:
        word = self.peek()
        self._at += 1
        return word

    def binary(self, level: int) -> int:
        """Parse an expression of operators of this level and all higher ones."""
        if level == len(_LEVELS):
            return self._unary()
        value = self.binary(level + 1)
        while self.peek() in _LEVELS[level]:
            value = _apply(self._take(), value, self.binary(level + 1))
        return value

    def _unary(self) -> int:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self.error("it is nested too deeply")
        value = self._operand()
        self._depth -= 1
        return value

    def _operand(self) -> int:
        if self._is_cast():
            while self._take() != ")":
                pass
            return self._unary()
        word = self._take()
        if word == "(":
            value = self.binary(0)
            if self._take() != ")":
                raise self.error("a closing parenthesis is missing")
            return value
        if word == "~":
            return ~self._unary() & _U64_MAX
        if word == "-":
            return -self._unary() & _U64_MAX
        return self._atom(word)

    def _atom(self, word: str) -> int:
        if len(word) > _LONGEST:
            raise self.error(f"{word[:_LONGEST]}... is too long")
        if word[:1].isdigit():
            number = int(word, 16 if word[1:2] in ("x", "X") else 10)
            if number > _U64_MAX:
                raise self.error(f"{word} has more than 64 bits")
            return number
        if word in self._names:
            return self._names[word]
        raise self.error(f"the value of {word} is unknown" if word else "the expression is incomplete")

    def _is_cast(self) -> bool:
        """Return whether the next tokens are a parenthesised type name followed by an operand."""
        if self.peek() != "(":
            return False
        ahead = 1
        while _is_name(self.peek(ahead)):
            ahead += 1
        after = self.peek(ahead + 1)
        return ahead > 1 and self.peek(ahead) == ")" and (after in ("(", "~") or _is_word(after))


def _is_name(word: str) -> bool:
    return word[:1].isalpha() or word[:1] == "_"


def _is_word(word: str) -> bool:
    return word[:1].isalnum() or word[:1] == "_"


def _apply(operator: str, left: int, right: int) -> int:
    # C leaves a shift by the width or more undefined; here it would build a huge number.
    shift = min(right, 64)
    results = {
        "|": left | right,
        "^": left ^ right,
        "&": left & right,
        "<<": left << shift,
        ">>": left >> shift,
        "+": left + right,
        "-": left - right,
    }
    return results[operator] & _U64_MAX

"""Conditions such as `p99 > 1.2 * baseline.p99 or errors > 0`: a small language of its own, read without eval.

condition  = both { "or" both }     both = one { "and" one }     one = "not" one | comparison | "(" condition ")"
comparison = sum ( "<" | "<=" | ">" | ">=" | "==" | "!=" ) sum
sum        = product { ("+" | "-") product }     product = value { ("*" | "/") value }
value      = number | name | "baseline." name | "-" value | "(" sum ")"
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trtserve_client.load.errors import UsageError
from trtserve_client.load.options import nearest

Values = Mapping[str, float]
Term = Callable[[Values], float]

_TOKEN = re.compile(
    r"\s*(?:(\d+\.?\d*(?:e[+-]?\d+)?)|((?:baseline\.)?p99\.9|[a-z_][a-z0-9_.]*)|(<=|>=|==|!=|[-+*/()<>]))"
)
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_WORDS = ("and", "or", "not")
_MOST_CHARACTERS = 500
_MOST_PARENTHESES = 50


@dataclass(frozen=True)
class Condition:
    """A condition as it was written, and what it means."""

    text: str
    names: frozenset[str]
    holds: Callable[[Values], bool]


def parse_condition(text: str, known: Sequence[str]) -> Condition:
    """The condition that `text` writes over the names in `known`, each also as baseline.NAME. Raises UsageError."""
    if len(text) > _MOST_CHARACTERS:
        raise UsageError(f"--fail-if has {len(text)} characters, at most {_MOST_CHARACTERS} are read")
    if text.count("(") > _MOST_PARENTHESES:
        raise UsageError(f"--fail-if has {text.count('(')} parentheses, at most {_MOST_PARENTHESES} are read")
    parser = _Parser(text, known)
    holds = parser.condition()
    parser.expect_end()
    return Condition(text, frozenset(parser.names), holds)


class _Parser:
    """Goes over the tokens once, from left to right."""

    def __init__(self, text: str, known: Sequence[str]) -> None:
        self._text, self._known = text, known
        self._tokens = self._split(text)
        self._next = 0
        self.names: set[str] = set()

    def condition(self) -> Callable[[Values], bool]:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return lambda values: any(part(values) for part in parts)

    def expect_end(self) -> None:
        if self._peek():
            raise self._unexpected("the end")

    def _both(self) -> Callable[[Values], bool]:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return lambda values: all(part(values) for part in parts)

    def _one(self) -> Callable[[Values], bool]:
        if self._take("not"):
            inner = self._one()
            return lambda values: not inner(values)
        if self._peek() == "(" and self._encloses_condition():
            self._take("(")
            inner = self.condition()
            self._expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Callable[[Values], bool]:
        left = self._sum()
        symbol = self._peek()
        if symbol not in _COMPARE:
            raise self._unexpected("a comparison such as >")
        self._next += 1
        right, compare = self._sum(), _COMPARE[symbol]
        return lambda values: compare(left(values), right(values))

    def _sum(self) -> Term:
        return self._chain(self._product, {"+": operator.add, "-": operator.sub})

    def _product(self) -> Term:
        return self._chain(self._value, {"*": operator.mul, "/": self._divide})

    def _chain(self, part: Callable[[], Term], operators: Mapping[str, Callable[[float, float], float]]) -> Term:
        term = part()
        while self._peek() in operators:
            apply = operators[self._tokens[self._next]]
            self._next += 1
            term = _applied(apply, term, part())
        return term

    def _value(self) -> Term:
        token = self._peek()
        if self._take("-"):
            inner = self._value()
            return lambda values: -inner(values)
        if self._take("("):
            inner = self._sum()
            self._expect(")")
            return inner
        if token and token[0].isdigit():
            self._next += 1
            number = float(token)
            return lambda values: number
        if token and (token[0].isalpha() or token[0] == "_") and token not in _WORDS:
            self._next += 1
            return self._named(token)
        raise self._unexpected("a number or a name")

    def _named(self, token: str) -> Term:
        name = token.replace("p99.9", "p999")
        bare = name.removeprefix("baseline.")
        if bare not in self._known:
            raise UsageError(f"--fail-if {self._text!r}: {token!r} is unknown{nearest(bare, self._known)}")
        self.names.add(name)
        return lambda values: values[name]

    def _divide(self, one: float, other: float) -> float:
        if other == 0:
            raise UsageError(f"--fail-if {self._text!r} divides by 0")
        return one / other

    def _encloses_condition(self) -> bool:
        """Whether the parenthesis that opens here holds a condition, and not a sum."""
        depth = 0
        for token in self._tokens[self._next :]:
            depth += (token == "(") - (token == ")")
            if token in _COMPARE:
                return True
            if depth == 0:
                return False
        return False

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self, token: str) -> bool:
        found = self._peek() == token
        self._next += found
        return found

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._unexpected(repr(token))

    def _unexpected(self, wanted: str) -> UsageError:
        found = repr(self._peek()) if self._peek() else "the end"
        return UsageError(f"--fail-if {self._text!r}: {wanted} is wanted where {found} stands")

    def _split(self, text: str) -> list[str]:
        tokens, position = [], 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                raise UsageError(f"--fail-if {text!r}: {text[position:].strip()[0]!r} is not understood")
            tokens.append(match[0].strip())
            position = match.end()
        return tokens


def _applied(apply: Callable[[float, float], float], one: Term, other: Term) -> Term:
    return lambda values: apply(one(values), other(values))

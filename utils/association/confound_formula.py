"""The formula of confounds: a small grammar of its own; nothing in it is ever run.

    motion + head_size^2      columns, and powers of them (2 to 4)
    motion:site               product; a categorical column stands for its levels
    motion*site               motion + site + motion:site
    . + motion^2              "." is every column of the table, linearly
    . - coil  or  - coil      every column but this one
    `25741-2.0` + `T1 date`   backticks around names with other characters than letters, digits, "_" and "."
    age:site + sex:motion     age and sex are those of the analysis; `age` in backticks is a column of the table

The constant is always there. ":" binds more tightly than "*", "*" more tightly than "+" and "-", as in Wilkinson and
Rogers 1973, J R Stat Soc C 22:392 (not re-read), and in R; parentheses are not read.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import NoReturn

from utils.association.recognition import normalised_name
from utils.common.errors import UserError
from utils.common.text import listed, shown

SUBJECT_NAMES = ("age", "sex")
HIGHEST_POWER = 4
# "*" of k columns gives 2^k - 1 terms, and a product of five columns is nobody's confound.
MOST_FACTORS = 4

_TOKEN = re.compile(r"\s*(?:(`)([^`]*)(`?)|([^\W\d][\w.]*)|(\d+)|(\S))")


@dataclass(frozen=True)
class Factor:
    """A column of the table, or the age or sex of the analysis (`of_table` False), to a power."""

    name: str
    power: int = 1
    of_table: bool = True

    def __str__(self) -> str:
        return self.name if self.power == 1 else f"{self.name}^{self.power}"


@dataclass(frozen=True)
class Term:
    """A product of factors, in the order in which it was written; two terms with one `key` are the same."""

    factors: tuple[Factor, ...]

    @property
    def key(self) -> frozenset[Factor]:
        """The factors, whatever their order."""
        return frozenset(self.factors)

    @property
    def is_linear(self) -> bool:
        """Whether it is a column of the table as it is."""
        return self.key == linear(self.factors[0].name).key

    @property
    def is_minimal(self) -> bool:
        """Whether it holds only age and sex."""
        return not any(factor.of_table for factor in self.factors)

    def __str__(self) -> str:
        return ":".join(map(str, self.factors))


def linear(name: str) -> Term:
    """The term of one column of the table as it is."""
    return Term((Factor(name),))


def parse_formula(text: str, columns: Iterable[str]) -> tuple[Term, ...]:
    """The terms of a formula, each once, in the order in which they are first written.

    Parameters
    ----------
    text : str
        "" is ".".
    columns : iterable of str
        Names of the table's columns.

    Raises
    ------
    UserError
        Not in the grammar (the place is said), unknown names (all of them, each with the nearest ones), or a term
        taken away that is not there.
    """
    columns = list(dict.fromkeys(columns))
    return _Reader(text if text.strip() else ".", columns).terms()


def names_in(text: str) -> set[str]:
    """Names of columns that a formula writes out; a formula that is not in the grammar may give any."""
    return {token.text for token in _tokens(text) if token.kind == "name" or token.kind == "quoted"}


def refuse_unknown(names: Iterable[str], columns: list[str], where: str) -> None:
    """Stop with every name that is no column of the table of confounds, and the columns most like it."""
    unknown = [name for name in dict.fromkeys(names) if name not in columns]
    if not unknown:
        return
    if not columns:
        raise UserError(
            f"{where}: {listed(unknown)} named, but there is no table of confounds with such columns."
        )
    parts = []
    for name in unknown:
        near = _nearest(name, columns)
        parts.append(f"'{shown(name)}'" + (f" (did you mean {listed(near)}?)" if near else ""))
    raise UserError(
        f"{where}: no such column in the table of confounds: {', '.join(parts)}. Columns: {listed(columns)}."
    )


def _nearest(name: str, columns: list[str]) -> list[str]:
    """The columns most like a name: first those that differ only in case and punctuation."""
    wanted = normalised_name(name)
    same = [column for column in columns if normalised_name(column) == wanted]
    close = difflib.get_close_matches(name, columns, n=3, cutoff=0.6)
    return list(dict.fromkeys(same + close))[:3]


@dataclass(frozen=True)
class _Token:
    kind: str  # "name", "quoted", "number" or "sign"
    text: str
    place: int  # 1 is the first character of the formula


def _tokens(text: str) -> list[_Token]:
    tokens = []
    for match in _TOKEN.finditer(text):
        opened, quoted, closed, name, number, sign = match.groups()
        place = match.start() + len(match.group()) - len(match.group().lstrip()) + 1
        if opened:
            kind = "quoted" if closed and quoted.strip() else "sign"
            tokens.append(_Token(kind, quoted if kind == "quoted" else "`", place))
        elif name:
            tokens.append(_Token("name", name, place))
        elif number:
            tokens.append(_Token("number", number, place))
        elif sign:
            tokens.append(_Token("sign", sign, place))
    return tokens


class _Reader:
    """One pass over the tokens, from left to right."""

    def __init__(self, text: str, columns: list[str]):
        self._text = text
        self._columns = columns
        self._tokens = _tokens(text)
        self._next = 0
        self._unknown: list[str] = []

    def terms(self) -> tuple[Term, ...]:
        found: dict[frozenset[Factor], Term] = {}
        if self._at("-"):  # "- coil" is ". - coil"
            found = {term.key: term for term in self._all_columns()}
            sign = self._take().text
        else:
            sign = self._take().text if self._at("+") else "+"
        missing: list[Term] = []
        while True:
            for term in self._product():
                if sign == "+":
                    found.setdefault(term.key, term)
                elif found.pop(term.key, None) is None:
                    missing.append(term)
            if self._next == len(self._tokens):
                break
            if not (self._at("+") or self._at("-")):
                self._refuse("expected '+', '-', '*' or ':'")
            sign = self._take().text
        refuse_unknown(self._unknown, self._columns, self._where)
        self._refuse_missing(missing)
        return tuple(found.values())

    def _refuse_missing(self, missing: list[Term]) -> None:
        """Stop where a term was taken away that is not there: a typing error would keep a confound, or lose one."""
        if not missing:
            return
        advice = "take away only what the formula has"
        if any(term.is_minimal for term in missing):
            advice = "age and sex are always there; the age terms have a setting of their own"
        raise UserError(f"{self._where}: '{missing[0]}' is taken away but is not there; {advice}.")

    def _product(self) -> list[Term]:
        """a:b*c as a:b, c and a:b:c."""
        start = self._next
        if self._at("."):
            self._take()
            if self._at(":") or self._at("*") or self._at("^"):
                self._refuse("'.' stands alone; write the columns out, before")
            return self._all_columns()
        parts = [self._interaction()]
        while self._at("*"):
            self._take()
            parts.append(self._interaction())
        if sum(map(len, parts)) > MOST_FACTORS:
            self._refuse(f"a product of more than {MOST_FACTORS} columns,", start)
        return [
            self._term([factor for part in chosen for factor in part], start)
            for size in range(1, len(parts) + 1)
            for chosen in combinations(parts, size)
        ]

    def _term(self, factors: list[Factor], start: int) -> Term:
        seen = {(factor.name, factor.of_table) for factor in factors}
        if len(seen) < len(factors):
            self._refuse("a column multiplied by itself (its square is written name^2)", start)
        return Term(tuple(factors))

    def _interaction(self) -> list[Factor]:
        factors = [self._factor()]
        while self._at(":"):
            self._take()
            factors.append(self._factor())
        return factors

    def _factor(self) -> Factor:
        if self._next == len(self._tokens):
            self._refuse("expected the name of a column")
        token = self._tokens[self._next]
        if token.kind == "number":
            self._refuse("a number (the constant is always there; names of digits need backticks)")
        if token.text == "`" and token.kind == "sign":
            self._refuse("a backtick that is not closed or holds nothing")
        if token.kind == "sign":
            self._refuse("expected the name of a column, in backticks if it holds other characters")
        self._take()
        of_table = token.kind == "quoted" or token.text not in SUBJECT_NAMES
        if of_table and token.text not in self._columns:
            self._unknown.append(token.text)
        if token.text == "sex" and not of_table and self._at("^"):
            self._refuse("sex has no powers")
        return Factor(token.text, self._power(), of_table)

    def _power(self) -> int:
        if not self._at("^"):
            return 1
        self._take()
        power = self._tokens[self._next] if self._next < len(self._tokens) else None
        allowed = [str(p) for p in range(2, HIGHEST_POWER + 1)]
        if power is None or power.text not in allowed:
            self._refuse(f"expected a power from 2 to {HIGHEST_POWER}")
        return int(self._take().text)

    def _all_columns(self) -> list[Term]:
        return [linear(name) for name in self._columns]

    def _at(self, sign: str) -> bool:
        if self._next == len(self._tokens):
            return False
        token = self._tokens[self._next]
        return token.kind == "sign" and token.text == sign

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    @property
    def _where(self) -> str:
        return f"confound terms '{shown(self._text.strip(), 60)}'"

    def _refuse(self, said: str, index: int | None = None) -> NoReturn:
        index = self._next if index is None else index
        if index < len(self._tokens):
            token = self._tokens[index]
            place = f"at character {token.place} ('{shown(token.text)}')"
        else:
            place = "at the end"
        raise UserError(f"{self._where}: {said} {place}.")

"""A statement as words: where each begins and ends in the text, so that all between them stays as it was written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from neon_lake_tests.workspace.sql_errors import SqlFailed

_WORD: Final = re.compile(
    r"""
      (?P<space>   \s+ | --[^\n]* | /\*.*?\*/ )
    | (?P<raw>     [rR](?:'[^']*'|"[^"]*") )
    | (?P<text>    '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" )
    | (?P<name>    `(?:[^`]|``)*` )
    | (?P<number>  \d\w* )
    | (?P<word>    \w+ )
    | (?P<sign>    [^'"`] )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES: Final = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a"}


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word. `text` is a name or a string without its quotes; `start` and `stop` enclose what was written.

    `kind` is `name` for one in backticks, `text` for a string, `number`, `word`, and `sign` for any other character.
    """

    text: str
    kind: str
    start: int
    stop: int

    def says(self, keyword: str) -> bool:
        """Whether this is a keyword, or a sign."""
        return self.kind in ("word", "sign") and self.text.upper() == keyword


def words_of(sql: str) -> list[Word]:
    """The words of a statement, without comments. Raises `SqlFailed` where a quote or a comment has no end.

    Source: https://docs.databricks.com/sql/language-manual/data-types/string-type
    """
    words: list[Word] = []
    at = 0
    while at < len(sql):
        found = _WORD.match(sql, at)
        if found is None or (sql.startswith("/*", at) and found.lastgroup != "space"):
            said = f"Syntax error at or near '{sql[at : at + 20]}'."
            raise SqlFailed("PARSE_SYNTAX_ERROR", said, "42601")
        kind, written, at = str(found.lastgroup), found[0], found.end()
        if kind == "name":
            written = written[1:-1].replace("``", "`")
        elif kind == "raw":
            kind, written = "text", written[2:-1]
        elif kind == "text":
            written = re.sub(r"\\(.)", _unescaped, written[1:-1], flags=re.DOTALL)
        if kind != "space":
            words.append(Word(text=written, kind=kind, start=found.start(), stop=found.end()))
    return words


def _unescaped(found: re.Match[str]) -> str:
    # \% and \_ keep their backslash: they are patterns of LIKE
    char = found[1]
    return f"\\{char}" if char in "%_" else _ESCAPES.get(char, char)


class Reading:
    """Goes through the words of a statement. Raises `SqlFailed` where they are not what they should be."""

    def __init__(self, sql: str, words: list[Word]) -> None:
        self.sql, self._words, self._at = sql, words, 0

    @property
    def next(self) -> Word | None:
        """The word that comes next, or None at the end."""
        return self._words[self._at] if self._at < len(self._words) else None

    def sees(self, *keywords: str) -> bool:
        """Whether these come next."""
        coming = self._words[self._at : self._at + len(keywords)]
        return len(coming) == len(keywords) and all(
            word.says(keyword) for word, keyword in zip(coming, keywords, strict=True)
        )

    def take(self, *keywords: str) -> bool:
        """Go past these if they come next; says whether they did."""
        if self.sees(*keywords):
            self._at += len(keywords)
            return True
        return False

    def expect(self, *keywords: str) -> None:
        """Go past these, which must come next."""
        if not self.take(*keywords):
            raise self.syntax_error()

    def advance(self) -> Word:
        """The next word, and past it."""
        word = self.next
        if word is None:
            raise self.syntax_error()
        self._at += 1
        return word

    def identifier(self) -> str:
        """A name of one part."""
        if self.next is None or self.next.kind not in ("name", "word"):
            raise self.syntax_error()
        return self.advance().text

    def name(self) -> tuple[str, ...]:
        """A name of one or more parts."""
        parts = [self.identifier()]
        while self.take("."):
            parts.append(self.identifier())
        return tuple(parts)

    def identifiers(self) -> tuple[str, ...]:
        """Names in parentheses."""
        self.expect("(")
        found = [self.identifier()]
        while self.take(","):
            found.append(self.identifier())
        self.expect(")")
        return tuple(found)

    def text(self) -> str:
        """A string, which may be written in several pieces."""
        pieces = []
        while (word := self.next) is not None and word.kind == "text":
            pieces.append(self.advance().text)
        if not pieces:
            raise self.syntax_error()
        return "".join(pieces)

    def number(self) -> int:
        """A whole number."""
        word = self.advance()
        if not word.text.isdigit():
            raise self.syntax_error()
        return int(word.text)

    def written_until(self, *ends: str) -> str:
        """What is written up to one of these signs or keywords, outside of all brackets; past it, not past them."""
        first, depth, stop = self.next, 0, 0
        while (word := self.next) is not None:
            if depth == 0 and any(word.says(end) for end in ends):
                break
            if word.kind == "sign":
                depth += (word.text in "(<[") - (word.text in ")>]")
            if depth < 0:
                break
            stop = self.advance().stop
        if first is None or stop == 0:
            raise self.syntax_error()
        return self.sql[first.start : stop]

    def rest(self) -> str:
        """All that is left, as it is written."""
        word = self.next
        if word is None:
            raise self.syntax_error()
        self._at = len(self._words)
        return self.sql[word.start : self._words[-1].stop]

    def ensure_end(self) -> None:
        """Raise where more is left."""
        if self.next is not None:
            raise self.syntax_error()

    def syntax_error(self) -> SqlFailed:
        """What Databricks says of a word that should not be here."""
        word = self.next
        near = "end of input" if word is None else f"'{self.sql[word.start : word.stop]}'"
        return SqlFailed("PARSE_SYNTAX_ERROR", f"Syntax error at or near {near}.", "42601")

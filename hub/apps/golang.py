"""Go templates, read: text into pieces.

Owns the grammar, which is the part of Go's that `hub.apps.templates` describes; that is also who calls it
and makes something of the pieces.  Every error names the file and the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.wire.errors import Refused
from hub.apps.units import is_text

MAX_DEPTH = 32
MAX_ACTIONS = 10_000

NAMED = ("env", "secret")
"""Functions that take one name."""
KEYWORDS = (*NAMED, "eq", "if", "else", "end")

_SPACE = " \t\r\n"
_COMMENT = re.compile(r"\{\{(?:-\s)?/\*.*?\*/(?:\s-)?\}\}", re.DOTALL)
_WORD = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*|"(?:[^"\\\n]|\\.)*"|`[^`]*`|[()])')
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'"}


@dataclass(frozen=True, slots=True)
class Text:
    """What stands in the template and in what becomes of it."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function and what it is given: "env" and "secret" a name, "text" itself, "eq" further calls."""

    function: str
    line: int
    name: str = ""
    arguments: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class If:
    """A condition, what stands there if it holds, and what if not."""

    condition: Call
    then: list[Text | Call | If] = field(default_factory=list)
    otherwise: list[Text | Call | If] = field(default_factory=list)


Piece = Text | Call | If


def refused(file: str, line: int, reason: str) -> Refused:
    """The error of a template."""
    hint = "templates know env, secret, if, else, eq and end"
    return Refused(f"{file}:{line}: {reason}", code="template", hint=hint)


def parsed(text: str, file: str) -> list[Piece]:
    """The pieces of a template.  Raises Refused (code "template")."""
    blocks = _Blocks(file)
    for count, (line, literal, action) in enumerate(_actions(text, file)):
        if count > MAX_ACTIONS:
            raise refused(file, line, f"more than {MAX_ACTIONS:,} actions")
        if literal:
            blocks.add(Text(literal))
        if action is not None:
            blocks.take(_Words(action, file, line))
    return blocks.whole()


# --- actions among text ----------------------------------------------------------------------------


def _actions(text: str, file: str) -> Iterator[tuple[int, str, str | None]]:
    """The text before each action, and the action without its braces; at last the text that is left."""
    position, line, swallow = 0, 1, False
    while True:
        start = text.find("{{", position)
        literal = text[position : start if start >= 0 else len(text)]
        line += literal.count("\n")
        literal = literal.lstrip(_SPACE) if swallow else literal
        if start < 0:
            yield line, literal, None
            return
        comment = _COMMENT.match(text, start)
        end = comment.end() if comment else _end(text, start + 2)
        if end < 0:
            raise refused(file, line, "'{{' without '}}'")
        inner = text[start + 2 : end - 2]
        if inner[:1] == "-" and inner[1:2].isspace():
            inner, literal = inner[1:], literal.rstrip(_SPACE)
        swallow = inner[-1:] == "-" and inner[-2:-1].isspace()
        yield line, literal, None if comment else inner[:-1] if swallow else inner
        position, line = end, line + text.count("\n", start, end)


def _end(text: str, position: int) -> int:
    """Behind the '}}' that ends an action; those in a literal do not.  -1 when there is none."""
    quote = ""
    while position < len(text):
        character = text[position]
        if quote:
            if character == "\\" and quote == '"':
                position += 1
            elif character == quote:
                quote = ""
            elif character == "\n" and quote == '"':
                return -1
        elif character in '"`':
            quote = character
        elif text.startswith("}}", position):
            return position + 2
        position += 1
    return -1


# --- conditions ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Block:
    """A part that is being read: where its pieces go, and the condition that it belongs to.

    ``chained``: an "else if", which ends together with the condition before it.
    """

    pieces: list[Piece]
    condition: If | None = None
    line: int = 1
    chained: bool = False
    has_else: bool = False


class _Blocks:
    """The template so far, and the conditions that are open in it."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._root: list[Piece] = []
        self._open = [_Block(self._root)]

    def add(self, piece: Piece) -> None:
        """Put a piece where reading has come to."""
        self._open[-1].pieces.append(piece)

    def whole(self) -> list[Piece]:
        """All pieces, when nothing is left open."""
        if len(self._open) > 1:
            raise refused(self._file, self._open[-1].line, "an 'if' without an 'end'")
        return self._root

    def take(self, words: _Words) -> None:
        """Put an action where reading has come to, or open or close a condition."""
        line = words.line
        if words.skip("end"):
            self._end(line)
        elif words.skip("else"):
            self._else(line)
            if words.skip("if"):
                self._if(words.call(), line, chained=True)
        elif words.skip("if"):
            self._if(words.call(), line)
        else:
            self.add(words.call())
        words.done()

    def _if(self, condition: Call, line: int, *, chained: bool = False) -> None:
        if len(self._open) > MAX_DEPTH:
            raise refused(self._file, line, f"more than {MAX_DEPTH} conditions within each other")
        piece = If(condition)
        self.add(piece)
        self._open.append(_Block(piece.then, piece, line, chained))

    def _else(self, line: int) -> None:
        block = self._open[-1]
        if block.condition is None:
            raise refused(self._file, line, "an 'else' without an 'if'")
        if block.has_else:
            raise refused(self._file, line, "a second 'else'")
        block.pieces, block.has_else = block.condition.otherwise, True

    def _end(self, line: int) -> None:
        while self._open[-1].chained:
            self._open.pop()
        if len(self._open) == 1:
            raise refused(self._file, line, "an 'end' without an 'if'")
        self._open.pop()


# --- one action ------------------------------------------------------------------------------------


class _Words:
    """The words of an action, read from left to right."""

    def __init__(self, action: str, file: str, line: int) -> None:
        self.line = line
        self._file = file
        self._words: list[str] = []
        self._next = 0
        action, position = action.rstrip(), 0
        while position < len(action):
            found = _WORD.match(action, position)
            if not found:
                is_odd = self._words and self._words[0] not in KEYWORDS
                odd = self._words[0] if is_odd else action[position:].strip()
                raise self._refused(f"{odd[:40]!r} is not supported")
            self._words.append(found[1])
            position = found.end()

    def _refused(self, reason: str) -> Refused:
        return refused(self._file, self.line, reason)

    def _peek(self) -> str:
        return self._words[self._next] if self._next < len(self._words) else ""

    def skip(self, word: str) -> bool:
        """Go on behind ``word`` if that is the next one."""
        if self._peek() != word:
            return False
        self._next += 1
        return True

    def done(self) -> None:
        """Raise Refused if words are left."""
        if self._peek():
            raise self._refused(f"{self._peek()[:40]!r} was not expected")

    def call(self, depth: int = 0) -> Call:
        """The call that comes next."""
        word = self._peek()
        if not word:
            raise self._refused("something is missing")
        if depth > MAX_DEPTH:
            raise self._refused(f"more than {MAX_DEPTH} parentheses within each other")
        if word[0] in '"`':
            return Call("text", self.line, self._literal())
        if self.skip("("):
            inner = self.call(depth + 1)
            if not self.skip(")"):
                raise self._refused("'(' without ')'")
            return inner
        self._next += 1
        if word in NAMED:
            if self._peek()[:1] not in ('"', "`"):
                raise self._refused(f"{word!r} is followed by a name in quotes")
            return Call(word, self.line, self._literal())
        if word == "eq":
            return Call("eq", self.line, arguments=self._arguments(depth))
        raise self._refused(f"{word[:40]!r} is not supported")

    def _arguments(self, depth: int) -> tuple[Call, ...]:
        found = []
        while (word := self._peek()) not in ("", ")"):
            # An argument is a literal or in parentheses, as in Go.
            if word[0] not in '("`':
                raise self._refused(f"put {word[:40]!r} and what belongs to it in parentheses")
            found.append(self.call(depth + 1))
        if len(found) < 2:
            raise self._refused("'eq' compares two things or more")
        return tuple(found)

    def _literal(self) -> str:
        """The text that the next word, which is in quotes, stands for."""
        word = self._peek()
        self._next += 1
        text = word[1:-1] if word[0] == "`" else _ESCAPE.sub(self._escaped, word[1:-1])
        if not is_text(text):
            raise self._refused("a character that no text can have")
        return text

    def _escaped(self, found: re.Match[str]) -> str:
        code = found[1]
        if len(code) > 1:
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise self._refused(f"'\\{code}' means nothing")
        return _ESCAPES[code]

"""Go templates in configs, as far as recipes use them (``template_driver: golang``).

Owns the grammar.  What stands between ``{{`` and ``}}`` is one of

    env "NAME"      a variable of the container's environment, empty when it is not there
    secret "name"   a secret of the app
    "text"          itself; in backquotes, too
    if X, else if X, else, end      X is any of these, or eq A B ...: whether A is one of the others
    /* a comment */

and nothing else: a template that needs more is refused, with its line, before anything is deployed.  As in
Go, ``{{- `` and `` -}}`` swallow the white space before and after, and empty text is false.  Called by
`hub.apps.compile`, which asks what a template refers to, and by whoever knows the secrets.

>>> text = '''port = {{ env "PORT" }}
... {{- if eq (env "TLS") "1" "yes" }}
... key = {{ secret "key" }}
... {{- end }}'''
>>> uses(text, {"TLS": "yes"})
Uses(variables=('PORT', 'TLS'), secrets=('key',))
>>> render(ConfigDraft("web", text, True), {"PORT": "80", "TLS": "1"}, {"key": "k"})
'port = 80\\nkey = k'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.wire.errors import Refused
from hub.apps.draft import ConfigDraft

MAX_DEPTH = 32
MAX_ACTIONS = 10_000
MAX_CHARACTERS = 512 * 1024

_KEYWORDS = ("env", "secret", "if", "else", "eq", "end")
_COMMENT = re.compile(r"\{\{(?:- )?/\*.*?\*/(?: -)?\}\}", re.DOTALL)
_WORD = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*|"(?:[^"\\\n]|\\.)*"|`[^`]*`|[()])')
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'"}


@dataclass(frozen=True, slots=True)
class Uses:
    """What a template refers to."""

    variables: tuple[str, ...]
    secrets: tuple[str, ...]


def uses(text: str, env: Mapping[str, str], file: str = "template") -> Uses:
    """What a template refers to.  Raises Refused (code "template").

    All its variables, but only the secrets that it shows with this ``env``: the others may not even exist.
    """
    pieces = _parsed(text, file)
    variables = [call for call in _calls(pieces, None) if call.function == "env"]
    secrets = [call for call in _calls(pieces, env) if call.function == "secret"]
    return Uses(_names(variables), _names(secrets))


def render(config: ConfigDraft, env: Mapping[str, str], secrets: Mapping[str, str]) -> str:
    """The text of a config.  ``env`` is that of its container, ``secrets`` are by their compose name.

    Raises Refused (code "template").
    """
    if not config.is_template:
        return config.content
    where = config.file or config.name
    parts: list[str] = []
    size = 0
    for part in _rendered(_parsed(config.content, where), env, secrets, where):
        size += len(part)
        if size > MAX_CHARACTERS:
            raise Refused(f"{where}: becomes longer than {MAX_CHARACTERS:,} characters", code="template")
        parts.append(part)
    return "".join(parts)


# --- what a template is made of --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Call:
    """A function and what it is given; "text" is given a literal."""

    function: str
    arguments: tuple[str | _Call, ...]
    line: int


@dataclass(slots=True)
class _If:
    """A condition, and what stands there if it holds, and if not."""

    condition: _Call
    then: list[_Text | _Call | _If] = field(default_factory=list)
    otherwise: list[_Text | _Call | _If] = field(default_factory=list)


_Piece = _Text | _Call | _If


@dataclass(slots=True)
class _Block:
    """A part that is being read: where its pieces go, and what ends it.

    ``chained``: an "else if", which ends together with the condition that it belongs to.
    """

    pieces: list[_Piece]
    condition: _If | None = None
    has_else: bool = False
    chained: bool = False
    line: int = 1


def _parsed(text: str, file: str) -> list[_Piece]:
    root: list[_Piece] = []
    blocks = [_Block(root)]
    for count, (line, literal, action) in enumerate(_actions(text, file)):
        if count > MAX_ACTIONS:
            raise _refused(file, line, f"more than {MAX_ACTIONS:,} actions")
        if literal:
            blocks[-1].pieces.append(_Text(literal))
        if action is not None:
            _take(_words(action, file, line), blocks, file, line)
    if len(blocks) > 1:
        raise _refused(file, blocks[-1].line, "an 'if' without an 'end'")
    return root


def _actions(text: str, file: str) -> Iterator[tuple[int, str, str | None]]:
    """The text before each action, and the action; at last the text that is left."""
    position, line, swallow = 0, 1, False
    while True:
        start = text.find("{{", position)
        literal = text[position : start if start >= 0 else len(text)]
        line_of_action = line + literal.count("\n")
        literal = literal.lstrip(" \t\r\n") if swallow else literal
        if start < 0:
            yield line_of_action, literal, None
            return
        trims = text.startswith("{{- ", start) or text.startswith(("{{-\n", "{{-\t", "{{-\r"), start)
        comment = _COMMENT.match(text, start)
        end = comment.end() if comment else _end(text, start + 2)
        if end < 0:
            raise _refused(file, line_of_action, "'{{' without '}}'")
        inner = text[start + (3 if trims else 2) : end - 2]
        swallow = inner.endswith("-") and inner[-2:-1].isspace()
        inner = inner[:-1] if swallow else inner
        literal = literal.rstrip(" \t\r\n") if trims else literal
        yield line_of_action, literal, None if comment else inner
        position, line = end, line_of_action + text.count("\n", start, end)


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


def _words(action: str, file: str, line: int) -> list[str]:
    words: list[str] = []
    action, position = action.rstrip(), 0
    while position < len(action):
        found = _WORD.match(action, position)
        if not found:
            odd = words[0] if words and words[0] not in _KEYWORDS else action[position:].strip()
            raise _refused(file, line, f"{odd[:40]!r} is not supported")
        words.append(found[1])
        position = found.end()
    return words


def _take(words: list[str], blocks: list[_Block], file: str, line: int) -> None:
    """Put an action where it belongs, and open or close a condition."""
    match words:
        case ["if", *condition]:
            _open(_If(_called(condition, file, line)), blocks, file, line)
        case ["else", "if", *condition]:
            _else(blocks, file, line)
            _open(_If(_called(condition, file, line)), blocks, file, line, chained=True)
        case ["else"]:
            _else(blocks, file, line)
        case ["end"]:
            while blocks[-1].chained:
                blocks.pop()
            if len(blocks) == 1:
                raise _refused(file, line, "an 'end' without an 'if'")
            blocks.pop()
        case _:
            blocks[-1].pieces.append(_called(words, file, line))


def _open(condition: _If, blocks: list[_Block], file: str, line: int, *, chained: bool = False) -> None:
    if len(blocks) > MAX_DEPTH:
        raise _refused(file, line, f"more than {MAX_DEPTH} conditions within each other")
    blocks[-1].pieces.append(condition)
    blocks.append(_Block(condition.then, condition, chained=chained, line=line))


def _else(blocks: list[_Block], file: str, line: int) -> None:
    block = blocks[-1]
    if block.condition is None:
        raise _refused(file, line, "an 'else' without an 'if'")
    if block.has_else:
        raise _refused(file, line, "a second 'else'")
    block.pieces, block.has_else = block.condition.otherwise, True


# --- calls -----------------------------------------------------------------------------------------


def _called(words: Sequence[str], file: str, line: int) -> _Call:
    """The call that these words are, all of them."""
    call, rest = _call(words, file, line, 0)
    if rest:
        raise _refused(file, line, f"{rest[0][:40]!r} was not expected")
    return call


def _call(words: Sequence[str], file: str, line: int, depth: int) -> tuple[_Call, Sequence[str]]:
    """The first call of ``words``, and the words that follow it."""
    if not words:
        raise _refused(file, line, "something is missing")
    if depth > MAX_DEPTH:
        raise _refused(file, line, f"more than {MAX_DEPTH} parentheses within each other")
    first, rest = words[0], words[1:]
    if first[0] in '"`':
        return _Call("text", (_literal(first, file, line),), line), rest
    if first == "(":
        call, rest = _call(rest, file, line, depth + 1)
        if not rest or rest[0] != ")":
            raise _refused(file, line, "'(' without ')'")
        return call, rest[1:]
    if first in ("env", "secret"):
        if not rest or rest[0][0] not in '"`':
            raise _refused(file, line, f"{first!r} is followed by a name in quotes")
        return _Call(first, (_literal(rest[0], file, line),), line), rest[1:]
    if first == "eq":
        arguments = []
        while rest and rest[0] != ")":
            # An argument is a literal or in parentheses, as in Go.
            if rest[0] not in "(" and rest[0][0] not in '"`':
                raise _refused(file, line, f"put {rest[0][:40]!r} and what belongs to it in parentheses")
            argument, rest = _call(rest, file, line, depth + 1)
            arguments.append(argument)
        if len(arguments) < 2:
            raise _refused(file, line, "'eq' compares two things or more")
        return _Call("eq", tuple(arguments), line), rest
    raise _refused(file, line, f"{first[:40]!r} is not supported")


def _literal(word: str, file: str, line: int) -> str:
    if word[0] == "`":
        return word[1:-1]

    def escaped(found: re.Match[str]) -> str:
        code = found[1]
        if code[0] in "ux" and len(code) > 1:
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise _refused(file, line, f"'\\{code}' means nothing")
        return _ESCAPES[code]

    return _ESCAPE.sub(escaped, word[1:-1])


def _refused(file: str, line: int, reason: str) -> Refused:
    return Refused(
        f"{file}:{line}: {reason}",
        code="template",
        hint="templates know env, secret, if, else, eq and end",
    )


# --- what comes of it ------------------------------------------------------------------------------


def _calls(pieces: Sequence[_Piece | str], env: Mapping[str, str] | None) -> Iterator[_Call]:
    """Every call of env and secret, in both branches of a condition unless ``env`` decides it."""
    for piece in pieces:
        if isinstance(piece, _If):
            condition = list(_calls([piece.condition], None))
            yield from condition
            if env is None or any(call.function == "secret" for call in condition):
                yield from _calls([*piece.then, *piece.otherwise], env)
            else:
                yield from _calls(piece.then if _holds(piece, env, {}, "") else piece.otherwise, env)
        elif isinstance(piece, _Call) and piece.function in ("env", "secret"):
            yield piece
        elif isinstance(piece, _Call):
            yield from _calls(piece.arguments, env)


def _names(calls: Iterable[_Call]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(call.arguments[0]) for call in calls))


def _rendered(
    pieces: Sequence[_Piece], env: Mapping[str, str], secrets: Mapping[str, str], where: str
) -> Iterator[str]:
    for piece in pieces:
        if isinstance(piece, _Text):
            yield piece.text
        elif isinstance(piece, _Call):
            yield _value(piece, env, secrets, where)
        else:
            chosen = piece.then if _holds(piece, env, secrets, where) else piece.otherwise
            yield from _rendered(chosen, env, secrets, where)


def _holds(choice: _If, env: Mapping[str, str], secrets: Mapping[str, str], where: str) -> bool:
    value = _value(choice.condition, env, secrets, where)
    # As in Go: text is true unless it is empty, whatever it says.
    return value == "true" if choice.condition.function == "eq" else value != ""


def _value(call: _Call, env: Mapping[str, str], secrets: Mapping[str, str], where: str) -> str:
    if call.function == "eq":
        first, *others = (
            _value(each, env, secrets, where) for each in call.arguments if isinstance(each, _Call)
        )
        return "true" if first in others else "false"
    name = str(call.arguments[0])
    if call.function == "secret":
        if name not in secrets:
            raise _refused(where, call.line, f"there is no secret {name[:60]!r}")
        return secrets[name]
    return env.get(name, "") if call.function == "env" else name

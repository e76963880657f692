"""Variables in values: ``$NAME``, ``${NAME}``, ``${NAME:-default}`` and their kin.

Owns the grammar of compose: after the name may come ``-`` or ``:-`` and a default, ``?`` or ``:?`` and
what to say when it is missing, ``+`` or ``:+`` and what stands there when it is not; with the colon, empty
counts as missing.  Such a word may contain variables again.  ``$$`` is a dollar sign.  Called for
values of compose files (`hub.apps.loader`) and of .env files (`hub.apps.recipe`).

>>> interpolate("${SCHEME:-https}://$HOST/$$x${PORT:+:${PORT}}", {"HOST": "a.example", "PORT": "8080"})
'https://a.example/$x:8080'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from agent.wire.errors import Refused

MAX_DEPTH = 16
MAX_CHARACTERS = 256 * 1024

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")


def interpolate(
    text: str, env: Mapping[str, str], *, unset: Callable[[str], None] = lambda name: None
) -> str:
    """``text`` with its variables put in.  ``unset`` is told of each that is missing without a word for that.

    Raises Refused (code "interpolation") when a required one is missing or the text is not of this grammar.
    """
    return text if "$" not in text else _expand(text, env, unset, 0)


def _expand(text: str, env: Mapping[str, str], unset: Callable[[str], None], depth: int) -> str:
    parts: list[str] = []
    position = size = 0
    while (dollar := text.find("$", position)) >= 0:
        parts.append(text[position:dollar])
        value, position = _variable(text, dollar, env, unset, depth)
        parts.append(value)
        size += len(value)
        if size > MAX_CHARACTERS:
            raise _refused(f"with its variables put in, it is longer than {MAX_CHARACTERS:,} characters")
    parts.append(text[position:])
    return "".join(parts)


def _variable(
    text: str, dollar: int, env: Mapping[str, str], unset: Callable[[str], None], depth: int
) -> tuple[str, int]:
    """What stands for the variable that begins at ``dollar``, and where it ends."""
    after = dollar + 1
    if text.startswith("$", after):
        return "$", after + 1
    if name := _NAME.match(text, after):
        return _looked_up(name[0], env, unset), name.end()
    if not text.startswith("{", after):
        raise _refused(f"no name follows the '$' in {_shown(text, dollar)}")
    closing = _closing(text, after + 1)
    if closing < 0:
        raise _refused(f"no '}}' ends {_shown(text, dollar)}")
    inner = text[after + 1 : closing]
    name = _NAME.match(inner)
    if name is None:
        raise _refused(f"{_shown(text, dollar)} names no variable")
    rest = inner[name.end() :]
    if not rest:
        return _looked_up(name[0], env, unset), closing + 1
    operator = _OPERATOR.match(rest)
    if operator is None:
        raise _refused(f"{_shown(text, dollar)} has {rest[:1]!r} after its name")
    if depth == MAX_DEPTH:
        raise _refused(f"variables within variables, more than {MAX_DEPTH} deep")
    word = rest[operator.end() :]
    return _chosen(name[0], operator[0], word, env, unset, depth), closing + 1


def _chosen(
    name: str,
    operator: str,
    word: str,
    env: Mapping[str, str],
    unset: Callable[[str], None],
    depth: int,
) -> str:
    """The value or the word, as the operator has it.  The word is read only when it is needed."""
    value = env.get(name)
    is_there = value is not None and not (operator.startswith(":") and value == "")
    if operator.endswith("+"):
        return _expand(word, env, unset, depth + 1) if is_there else ""
    if is_there:
        assert value is not None
        return value
    if operator.endswith("-"):
        return _expand(word, env, unset, depth + 1)
    said = " ".join(_expand(word, env, unset, depth + 1).split())
    raise Refused(
        f"{name} must be set" + (f": {said[:200]}" if said else ""),
        code="interpolation",
        hint=f"set {name} in the app's env",
    )


def _looked_up(name: str, env: Mapping[str, str], unset: Callable[[str], None]) -> str:
    if name not in env:
        unset(name)
    return env.get(name, "")


def _closing(text: str, start: int) -> int:
    """Where the brace that was opened before ``start`` is closed, -1 when it is not.

    As in compose, only ``${`` opens another one: ``${JSON:-{"a": 1}`` ends at its first brace.
    """
    depth, position = 1, start
    while position < len(text):
        if text.startswith("$$", position):
            position += 2
        elif text.startswith("${", position):
            depth, position = depth + 1, position + 2
        elif text[position] == "}":
            depth -= 1
            if not depth:
                return position
            position += 1
        else:
            position += 1
    return -1


def _shown(text: str, position: int) -> str:
    return repr(text[position : position + 30])


def _refused(reason: str) -> Refused:
    return Refused(reason, code="interpolation", hint="a dollar sign is written '$$'")

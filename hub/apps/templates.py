"""Go templates in configs, as far as recipes use them (``template_driver: golang``).

Owns what a template refers to and what becomes of it; `hub.apps.golang` reads it.  Between ``{{`` and
``}}`` stands one of

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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.wire.errors import Refused
from agent.wire.order import MAX_FILE_BYTES
from hub.apps.draft import SIZE_HINT, ConfigDraft, size_fault
from hub.apps.golang import Call, If, Piece, Text, parsed, refused


@dataclass(frozen=True, slots=True)
class Uses:
    """What a template refers to."""

    variables: tuple[str, ...]
    secrets: tuple[str, ...]


def uses(text: str, env: Mapping[str, str], file: str = "template") -> Uses:
    """What a template refers to.  Raises Refused (code "template").

    All its variables, but only the secrets that it shows with this ``env``: the others may not even exist.
    """
    pieces = parsed(text, file)
    return Uses(_names("env", _calls(pieces, None)), _names("secret", _calls(pieces, env)))


def render(config: ConfigDraft, env: Mapping[str, str], secrets: Mapping[str, str]) -> str:
    """The text of a config.  ``env`` is that of its container, ``secrets`` are by their compose name.

    Raises Refused (code "template").
    """
    if not config.is_template:
        return config.content
    template = _Template(config.file or config.name, env, secrets)
    parts: list[str] = []
    size = 0
    for part in template.parts(parsed(config.content, template.file)):
        size += len(part)
        if size > MAX_FILE_BYTES:
            raise Refused(f"{template.file}: becomes longer than {MAX_FILE_BYTES:,} bytes", code="template")
        parts.append(part)
    text = "".join(parts)
    if fault := size_fault(text):
        raise Refused(f"{template.file}: what comes of it {fault}", code="template", hint=SIZE_HINT)
    return text


@dataclass(frozen=True, slots=True)
class _Template:
    """What a template can see."""

    file: str
    env: Mapping[str, str]
    secrets: Mapping[str, str]

    def parts(self, pieces: Sequence[Piece]) -> Iterator[str]:
        """What becomes of the pieces, one after the other."""
        for piece in pieces:
            if isinstance(piece, Text):
                yield piece.text
            elif isinstance(piece, Call):
                yield self._value(piece)
            else:
                yield from self.parts(piece.then if self.holds(piece.condition) else piece.otherwise)

    def holds(self, condition: Call) -> bool:
        """Whether a condition is true; as in Go, text is unless it is empty, whatever it says."""
        value = self._value(condition)
        return value == "true" if condition.function == "eq" else value != ""

    def _value(self, call: Call) -> str:
        match call.function:
            case "env":
                return self.env.get(call.name, "")
            case "secret":
                if call.name not in self.secrets:
                    raise refused(self.file, call.line, f"there is no secret {call.name[:60]!r}")
                return self.secrets[call.name]
            case "eq":
                first, *others = map(self._value, call.arguments)
                return "true" if first in others else "false"
        return call.name


def _calls(pieces: Iterable[Piece], env: Mapping[str, str] | None) -> Iterator[Call]:
    """Every call, in both branches of a condition unless ``env`` decides it."""
    for piece in pieces:
        if isinstance(piece, Call):
            yield piece
            yield from _calls(piece.arguments, env)
        elif isinstance(piece, If):
            condition = list(_calls([piece.condition], None))
            yield from condition
            if env is None or any(call.function == "secret" for call in condition):
                yield from _calls([*piece.then, *piece.otherwise], env)
            else:
                holds = _Template("", env, {}).holds(piece.condition)
                yield from _calls(piece.then if holds else piece.otherwise, env)


def _names(function: str, calls: Iterable[Call]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(call.name for call in calls if call.function == function))

"""Write docs/reference from the code, so that it cannot say anything else.

    python docs/generate.py            writes the pages
    python docs/generate.py --check    names the pages that are stale, and fails when there are any

Owns how a configuration class, a command line, the API and the table of compose look as Markdown.
What is said of a key stands below the key (`agent/config.py`), of an option or a command at its
definition.
`make docs` writes; tests/arch checks.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import json
import os
import re
import sys
import textwrap
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
HEADER = "<!-- Written by docs/generate.py from the code; `make docs` writes it anew. -->\n\n"
COLUMNS = 100

# A page must not depend on the terminal that it is written from; argparse looks here.
os.environ["COLUMNS"] = str(COLUMNS)
os.environ["NO_COLOR"] = "1"


def pages() -> Iterator[tuple[str, str]]:
    """Every page: the name of its file and its text."""
    yield "agent-config.md", agent_config()
    yield "hub-config.md", hub_config()
    yield "policy.md", policy()
    yield "rate-card.md", rate_card()
    yield "lichen-agent.md", agent_commands()
    yield "lichen-hub.md", hub_commands()
    yield "lichen.md", operator_commands()
    yield "api.md", api()
    yield "compose.md", compose()


# --- configuration -----------------------------------------------------------------------------


def agent_config() -> str:
    from agent.config import Config
    from agent.sensors import driver

    text = f"""# agent.toml

`lichen-agent` looks for it at `--config`, then `$LICHEN_AGENT_CONFIG`, then `.run/agent/agent.toml`
in the working directory or above, then `/etc/lichen/agent.toml`. Every key has a default: an empty
file is valid. `lichen-agent config check` names what is wrong, `lichen-agent config show` prints
every key with its value.

{tables(Config)}
## `[[sensors]]`

{example(driver.load_kind("thermal"))}
Keys that every kind has:

{table(driver.SensorConfig)}"""
    for kind in driver.KINDS:
        module = driver.load_kind(kind)
        text += f'\n### `kind = "{kind}"`\n\n{said_of(module)}\n'
        if rows := table(module.Options, beside=driver.SensorConfig):
            text += f"\n{rows}"
    return text


def hub_config() -> str:
    from hub.config import Config

    return f"""# hub.toml

It lies in the hub's directory, which every command looks for at `--dir`, then `$LICHEN_HUB_DIR`,
then `.run/hub` in the working directory or above, then `/var/lib/lichen-hub`. `lichen-hub init`
writes the first one; `lichen-hub config check` names what is wrong, `lichen-hub config show` prints
every key with its value. A change counts from the next start.

{tables(Config)}"""


def policy() -> str:
    from agent.containers.policy import Policy

    return f"""# policy.toml

What orders may ask of a board. It belongs to the board's owner, and no hub can change it. The agent
looks for it at `/etc/lichen/policy.toml`, or where `policy` in the table `[containers]` of
[agent.toml](agent-config.md) says. Every key has a default, which holds where there is no file.
A change counts within a minute, for what is ordered next and for what still waits.

{table(Policy)}"""


def rate_card() -> str:
    from hub.ledger.rates import Card

    return f"""# Rate cards

What a use costs whom. `lichen rate set FILE` gives one to the hub; [usage-log.md](../usage-log.md) says how
the right one is found. Days are written `2026-11-01` and begin and end in UTC; prices are decimal numbers in
quotation marks, with at most six decimals.

{tables(Card)}"""


def tables(config: type) -> str:
    """The keys of a file: first those outside of tables, then table by table."""
    text = table(config)
    for name, hint in get_type_hints(config).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            text += f"\n## `[{name}]`\n\n{table(hint)}"
    return text


def table(config: type, *, beside: type | None = None) -> str:
    """The keys of one table, except those that ``beside`` has, too."""
    hints = get_type_hints(config, include_extras=True)
    sentences = sentences_of(config)
    known = {field.name for field in dataclasses.fields(beside)} if beside else set()
    rows = []
    # What a class adds comes before what it inherits.
    for field in sorted(
        dataclasses.fields(config), key=lambda field: field.name not in config.__annotations__
    ):
        if field.name in known or dataclasses.is_dataclass(hints[field.name]):
            continue
        if field.name not in sentences:
            raise SystemExit(f"{config.__module__}.{config.__name__}.{field.name}: say below it what it does")
        cells = (f"`{field.name}`", allowed(hints[field.name]), default_of(field), sentences[field.name])
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(["| key | value | default | |", "|---|---|---|---|", *rows, ""]) if rows else ""


def sentences_of(config: type) -> dict[str, str]:
    """What a class says of its fields: the string that stands below each."""
    found: dict[str, str] = {}
    for cls in reversed(config.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, said in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(said, ast.Expr):
                text = ast.literal_eval(said.value)
                found[ast.unparse(field.target)] = " ".join(text.replace("``", "`").split())
    return found


def allowed(hint: Any) -> str:
    """A type in words: "whole number, 1 to 16"."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return limited(allowed(args[0]), args[1:])
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in args)
    if origin in (Union, types.UnionType):
        return " or ".join(allowed(each) for each in args if each is not type(None))
    if origin is tuple:
        return "tables, see below" if dataclasses.is_dataclass(args[0]) else f"list; each {allowed(args[0])}"
    if origin is dict:
        return f"table; each {allowed(args[0])} = {allowed(args[1])}"
    if dataclasses.is_dataclass(hint):
        return "{ " + ", ".join(field.name for field in dataclasses.fields(hint)) + " }"
    words: dict[Any, str] = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
    return words.get(hint, "path")


def limited(base: str, rules: tuple[Any, ...]) -> str:
    """``base`` with what its annotation demands beside."""
    from agent.wire.decode import Length, Match, Range

    for rule in rules:
        if isinstance(rule, Match):
            base = rule.what
        elif isinstance(rule, Range):
            base += f", {rule.low:,} to {rule.high:,}"
        elif isinstance(rule, Length) and base == "text":
            base += f", {'at most ' if not rule.low else f'{rule.low} to '}{rule.high:,} characters"
    return base


def default_of(field: dataclasses.Field[Any]) -> str:
    """The default as it would stand in the file; empty for none."""
    if field.default is dataclasses.MISSING:
        return "**required**" if field.default_factory is dataclasses.MISSING else ""
    if field.default is None or field.default in ("", ()):
        return ""
    if isinstance(field.default, bool | tuple):  # as TOML has them, which JSON writes alike
        return f"`{json.dumps(field.default)}`"
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def said_of(module: Any) -> str:
    """A module's docstring as Markdown: its title without the kind, indented parts as code."""
    head, _, rest = inspect.cleandoc(module.__doc__).partition("\n")
    title = head.partition(": ")[2]
    paragraphs = [title[:1].upper() + title[1:]]
    for paragraph in re.split(r"\n\n+", rest.strip("\n")):
        if paragraph.startswith("    "):
            language = "toml" if "[[" in paragraph else ""
            paragraphs.append(f"```{language}\n{textwrap.dedent(paragraph)}\n```")
        else:
            paragraphs.append(paragraph.replace("``", "`"))
    return "\n\n".join(paragraphs)


def example(module: Any) -> str:
    found = re.search(r"(?m)^(    \[\[sensors\]\]\n(?:    .*\n)+)", module.__doc__)
    assert found, f"{module.__name__} shows no example"
    return f"```toml\n{textwrap.dedent(found[1])}```\n"


# --- command lines -----------------------------------------------------------------------------


def agent_commands() -> str:
    from agent.commandline import parser

    return f"# lichen-agent\n\n{exits()}\n{argparse_help(parser())}"


def hub_commands() -> str:
    from hub.__main__ import parser

    return f"# lichen-hub\n\n{exits()}\n{argparse_help(parser())}"


def operator_commands() -> str:
    import click

    from hub.cli.root import command_line

    def describe(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
        context = click.Context(command, parent=parent, info_name=name, **command.context_settings)
        yield section(context.command_path, command.get_help(context))
        if isinstance(command, click.Group):
            for each in command.list_commands(context):
                child = command.get_command(context, each)
                assert child is not None
                yield from describe(child, each, context)

    return f"# lichen\n\n{exits()}\n" + "\n".join(describe(command_line(), "lichen", None))


def argparse_help(parser: argparse.ArgumentParser) -> str:
    text = section(parser.prog, parser.format_help())
    for action in parser._actions:  # argparse has no public way to list commands
        if isinstance(action, argparse._SubParsersAction):
            text += "".join(f"\n{argparse_help(each)}" for each in action.choices.values())
    return text


def section(title: str, text: str) -> str:
    return f"## {title}\n\n```\n{text.strip()}\n```\n"


def exits() -> str:
    """The exit statuses, which all three programs share."""
    from agent.wire.errors import EXIT_CODES

    meanings = {
        0: ["Done, or stopped as asked"],
        1: [
            "A fault of Lichen itself",
            "`lichen-agent status`, `doctor` and `sensors read`: a person should look",
            "`lichen app check`: something is refused, or in the way",
        ],
        2: ["Wrong usage"],
    }
    for kind, status in EXIT_CODES.items():
        meanings.setdefault(status, []).append((inspect.getdoc(kind) or "").rstrip("."))
    rows = [f"| {status} | {'; or: '.join(said)} |" for status, said in sorted(meanings.items())]
    return "\n".join(["| exit status | |", "|--:|---|", *rows, ""])


# --- the API -----------------------------------------------------------------------------------


def api() -> str:
    from hub.web.api import ROUTES
    from hub.web.openapi import describe

    document = describe(ROUTES, version="")
    root = document["servers"][0]["url"]
    text = f"""# The API

{document["info"]["description"]}

A running hub serves the full description, with every field, at `{root}/openapi.json` (OpenAPI 3.1).
"""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            text += f"\n## `{method.upper()} {root}{path}`\n\n{operation_text(operation)}"
    text += "\n## Objects\n"
    for name, schema in sorted(document["components"]["schemas"].items()):
        text += f"\n### `{name}`\n\n{object_text(schema)}"
    return text


def operation_text(operation: dict[str, Any]) -> str:
    """What an operation does, its parameters, its body and its answer."""
    paragraphs = [f"{operation['summary']}.", operation.get("description", "")]
    rows = [
        f"| `{each['name']}` | {each['in']} | {shape(each['schema'])} | {each.get('description', '')} |"
        for each in operation["parameters"]
        if each.get("in") == "query"  # the path shows those in it, and the others are said above
    ]
    if rows:
        paragraphs.append("\n".join(["| parameter | in | type | |", "|---|---|---|---|", *rows]))
    body = operation.get("requestBody", {}).get("content", {})
    if body:
        paragraphs.append(f"Body: {contents(body)}.")
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            content = contents(answer.get("content", {}))
            paragraphs.append(f"Answer: {status} {answer['description']}{content and ', '}{content}.")
    if operation.get("security") == []:
        paragraphs.append("Needs no login.")
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def object_text(schema: dict[str, Any]) -> str:
    """The fields of an object, and which of them may be missing."""
    said = schema.get("description", "").replace("``", "`")
    required = schema.get("required", [])
    rows = []
    for name, field in schema.get("properties", {}).items():
        words = (shape(field), "" if name in required else "optional", field.get("description", ""))
        rows.append(f"| `{name}` | {', '.join(filter(None, words))} |")
    return "\n".join([said, "", "| field | |", "|---|---|", *rows, ""])


def contents(content: dict[str, Any]) -> str:
    """Media types and what they hold."""
    return " or ".join(f"`{media}` {shape(each['schema'])}" for media, each in content.items())


def shape(schema: dict[str, Any]) -> str:
    """What a JSON schema lets through, in a few words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "anyOf" in schema:
        return " or ".join(shape(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if "prefixItems" in schema:
        return f"[{', '.join(shape(each) for each in schema['prefixItems'])}]"
    if "items" in schema:
        return f"list of {shape(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {shape(schema['additionalProperties'])}"
    return str(schema.get("type", "anything"))


# --- compose -------------------------------------------------------------------------------------


def compose() -> str:
    from hub.apps.draft import Judgement
    from hub.apps.table import TABLE

    counts = Counter(row.judgement for row in TABLE.values())
    summary = ", ".join(f"{counts[each]} {each}" for each in get_args(Judgement) if counts[each])
    text = f"""# compose files

What becomes of each key of the [compose specification](https://compose-spec.io) on a board: {summary}.
`*` is a name that the recipe chooses. What is ignored or refused as a whole speaks for all that is
below it. `lichen app check` says the same of a file, line by line.

- **supported** does what compose says
- **emulated** does it in another way, which is said
- **ignored** changes nothing here
- **refused** would not do what its author expects, so the app is not deployed
"""
    for kind, rows in itertools.groupby(TABLE.items(), key=lambda entry: section_of(entry[0])):
        text += f"\n## {kind}\n\n| key | | |\n|---|---|---|\n"
        text += "".join(f"| `{key}` | {row.judgement} | {escaped(row.reason)} |\n" for key, row in rows)
    return text


def section_of(key: str) -> str:
    """Where a key of compose is: at the top, of a service, of a network, ..."""
    first, _, rest = key.partition(".")
    return f"{first}.*" if rest.startswith("*.") else "the top"


def escaped(text: str) -> str:
    """``text`` where Markdown would see signs of its own."""
    return text.replace("|", "\\|").replace("*", "\\*")


def is_same(one: str, other: str) -> bool:
    """Whether two pages say the same: argparse breaks its lines as the version of Python likes it."""
    return one.split() == other.split()


def main() -> int:
    wanted = {FOLDER / name: HEADER + text for name, text in pages()}
    if "--check" not in sys.argv[1:]:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for path, text in wanted.items():
            path.write_text(text)
        return 0
    stale = [
        path for path, text in wanted.items() if not path.exists() or not is_same(path.read_text(), text)
    ]
    stale += sorted(set(FOLDER.glob("*")) - set(wanted))
    for path in stale:
        print(f"{path.relative_to(ROOT)} is not what the code says; write it anew: make docs")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

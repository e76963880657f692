"""Templates: what each form becomes, and what is refused with its line."""

from __future__ import annotations

import pytest

from agent.wire.errors import Refused
from agent.wire.order import MAX_FILE_BYTES
from hub.apps.draft import ConfigDraft
from hub.apps.templates import Uses, render, uses

ENV = {"A": "1", "B": "two", "EMPTY": "", "FALSE": "false"}
SECRETS = {"key": "k}}{{"}


def rendered(text: str) -> str:
    return render(ConfigDraft("web", text, is_template=True, file="x.tmpl"), ENV, SECRETS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("plain } } { text", "plain } } { text"),
        ('a{{ env "A" }}b', "a1b"),
        ('{{env "A"}}{{  env   `B`  }}', "1two"),
        ('{{ env "NONE" }}', ""),
        ('{{ (env "A") }}{{ ((env "B")) }}', "1two"),
        ('{{ secret "key" }}', "k}}{{"),
        ('{{ "text" }}{{ `a"b` }}{{ "\\"\\n\\u00e9" }}', 'texta"b"\né'),
        ('{{ "{{" }} {{ "}}" }}', "{{ }}"),
        ('{{ if env "A" }}yes{{ end }}', "yes"),
        ('{{ if env "EMPTY" }}yes{{ end }}', ""),
        ('{{ if env "FALSE" }}yes{{ end }}', "yes"),
        ('{{ if secret "key" }}yes{{ else }}no{{ end }}', "yes"),
        ('{{ if eq (env "A") "1" }}yes{{ else }}no{{ end }}', "yes"),
        ('{{ if eq (env "A") "2" }}yes{{ else }}no{{ end }}', "no"),
        ('{{ if (eq (env "A") "3" "2" "1") }}yes{{ end }}', "yes"),
        (
            '{{ if eq (env "A") (env "B") }}yes{{ else if eq (env "B") "two" }}two{{ else }}no{{ end }}!',
            "two!",
        ),
        ('{{ if env "NONE" }}a{{ else if env "EMPTY" }}b{{ else if env "A" }}c{{ else }}d{{ end }}', "c"),
        ('{{ if env "A" }}{{ if env "NONE" }}x{{ else }}y{{ end }}z{{ else }}w{{ end }}', "yz"),
        ('{{ eq "a" "a" }}', "true"),
        ('a \n {{- env "A" -}} \n b', "a1b"),
        ('a {{- " " -}} b', "a b"),
        ('a\n{{- if env "A" }}\nb\n{{- end }}\nc', "a\nb\nc"),
        ("a{{/* a comment }} */}}b", "ab"),
        ("a {{- /* a comment */ -}} b", "ab"),
        ('{{ if\n  env "A" }}x{{ end }}', "x"),
    ],
)
def test_a_template(text: str, value: str) -> None:
    assert rendered(f"{text}|") == f"{value}|"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n\n{{ range .Services }}x{{ end }}", "x.tmpl:3: 'range' is not supported"),
        ("{{ .Env }}", "x.tmpl:1: '.Env' is not supported"),
        ("{{ $x := 1 }}", "x.tmpl:1: '$x := 1' is not supported"),
        ('{{ env "A" | printf }}', "x.tmpl:1: '| printf' is not supported"),
        ('{{ config "a" }}', "x.tmpl:1: 'config' is not supported"),
        ("{{ printf }}", "x.tmpl:1: 'printf' is not supported"),
        ("a\n{{ }}", "x.tmpl:2: something is missing"),
        ("a\n{{ if }}{{ end }}", "x.tmpl:2: something is missing"),
        ("a\n{{ env A }}", "x.tmpl:2: 'env' is followed by a name in quotes"),
        ("a\n{{ env }}", "x.tmpl:2: 'env' is followed by a name in quotes"),
        ('a\n{{ env "A" "B" }}', "x.tmpl:2: '\"B\"' was not expected"),
        ('{{ eq "A" }}', "x.tmpl:1: 'eq' compares two things or more"),
        ('{{ eq env "A" }}', "x.tmpl:1: put 'env' and what belongs to it in parentheses"),
        ('{{ (env "A" }}', "x.tmpl:1: '(' without ')'"),
        ('{{ env "A" ) }}', "x.tmpl:1: ')' was not expected"),
        ('{{ if env "A" }}\nx', "x.tmpl:1: an 'if' without an 'end'"),
        ("x\n{{ end }}", "x.tmpl:2: an 'end' without an 'if'"),
        ("x\n{{ else }}", "x.tmpl:2: an 'else' without an 'if'"),
        ('{{ if env "A" }}\n{{ else }}\n{{ else }}{{ end }}', "x.tmpl:3: a second 'else'"),
        ('{{ if env "A" }}\n{{ else }}\n{{ else if env "B" }}{{ end }}', "x.tmpl:3: a second 'else'"),
        ("x\n{{ env", "x.tmpl:2: '{{' without '}}'"),
        ('{{ env "A }}', "x.tmpl:1: '{{' without '}}'"),
        ('{{ "\\q" }}', "x.tmpl:1: '\\q' means nothing"),
        ('{{ "\\ud800" }}', "x.tmpl:1: a character that no text can have"),
        ("{{ else }}{{ end }} x", "x.tmpl:1: an 'else' without an 'if'"),
        ('{{ if env "A" }}{{ end if }}', "x.tmpl:1: 'if' was not expected"),
        ('\n{{ secret "other" }}', "x.tmpl:2: there is no secret 'other'"),
    ],
)
def test_what_is_refused_names_the_line(text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        rendered(text)
    assert (str(caught.value), caught.value.code) == (reason, "template")


def test_a_config_that_is_no_template_is_left_alone() -> None:
    assert render(ConfigDraft("web", '{{ env "A" }}'), ENV, SECRETS) == '{{ env "A" }}'


def test_only_secrets_that_are_shown_are_needed() -> None:
    text = (
        '{{ if eq (env "MAIL") "1" }}{{ secret "mail" }}{{ else }}{{ env "B" }}{{ secret "none" }}{{ end }}'
    )
    assert uses(text, {"MAIL": "1"}) == Uses(("MAIL", "B"), ("mail",))
    assert uses(text, {}) == Uses(("MAIL", "B"), ("none",))
    nested = '{{ if secret "a" }}{{ secret "b" }}{{ else if env "X" }}{{ secret "c" }}{{ end }}'
    assert uses(nested, {}) == Uses(("X",), ("a", "b"))
    assert uses(nested, {"X": "1"}) == Uses(("X",), ("a", "b", "c"))


def test_a_file_has_something_in_it_and_no_more_than_a_board_takes() -> None:
    assert len(rendered('{{ if env "NONE" }}x{{ end }}' + "x" * MAX_FILE_BYTES)) == MAX_FILE_BYTES
    for text, words in (('{{ if env "NONE" }}x{{ end }}', "is empty"), ("\u00fc" * 300_000, "600000 bytes")):
        with pytest.raises(Refused, match=f"^x.tmpl: what comes of it .*{words}") as caught:
            rendered(text)
        assert caught.value.code == "template"


def test_it_ends() -> None:
    with pytest.raises(Refused, match="more than 32 conditions"):
        rendered('{{ if env "A" }}' * 40 + "{{ end }}" * 40)
    with pytest.raises(Refused, match="more than 32 parentheses"):
        rendered("{{ " + "(" * 40 + 'env "A"' + ")" * 40 + " }}")
    with pytest.raises(Refused, match="more than 10,000 actions"):
        rendered('{{ env "A" }}' * 10_001)
    with pytest.raises(Refused, match="becomes longer than"):
        render(ConfigDraft("web", '{{ env "A" }}' * 600, True), {"A": "x" * 1000}, {})
    many = "{{ if eq " + '"x" ' * 100_000 + "}}y{{ end }}"
    assert rendered(many) == "y"
    long_else = '{{ if env "NONE" }}' + '{{ else if env "NONE" }}' * 31 + "{{ end }}"
    assert rendered(long_else + "z") == "z"

"""Words for apps, and what becomes of the deploy form: pure parts of the pages of apps."""

from __future__ import annotations

import pytest

from agent.wire.apps import Progress
from agent.wire.errors import Refused
from agent.wire.words import SPACE
from hub.web.pages.apps.shown import progress_of
from hub.web.pages.apps.typed import Typed, proposed_name

SAMPLE = "NAME=ada\nEMPTY=\n#MOOD=good\n"
FILES = {"compose.yml": "services: {web: {image: 'x:${TAG:?}'}}", ".env.sample": SAMPLE}


def test_a_new_app_gets_what_its_sample_says_and_what_was_typed() -> None:
    assert Typed(files=FILES).env() == {"NAME": "ada", "EMPTY": ""}
    given = {"NAME": "", "EMPTY": "full", "MOOD": "bad", "TAG": "1"}
    assert Typed(files=FILES, given=given).env() == {
        "NAME": "", "EMPTY": "full", "MOOD": "bad", "TAG": "1",
    }  # fmt: skip


def test_what_an_operator_has_taken_out_stays_out() -> None:
    was = {"NAME": "bob", "OWN": "it's $5"}
    given = {"NAME": "bob", "EMPTY": "", "MOOD": "", "TAG": "", "OWN": "it's $5"}
    assert Typed(files=FILES, given=given, was=was).env() == was


def test_no_variable_is_lost_for_want_of_a_field() -> None:
    form = Typed(files=FILES, given={"OWN": "1", "NAME": "x"}, more="MORE=2\nNAME=y")
    assert form.others(form.fields()) == "MORE=2\nNAME=y\nOWN='1'"
    assert form.env() == {"MORE": "2", "NAME": "x", "OWN": "1", "EMPTY": ""}
    with pytest.raises(Refused, match="More variables:1"):
        Typed(files=FILES, more="what is this").env()


def test_a_text_without_a_path_is_not_dropped() -> None:
    form = Typed(files={**FILES, "": "words"})
    assert [path for path, _ in form.listed()] == ["compose.yml", "", ".env.sample"]
    with pytest.raises(Refused, match="no path inside of a recipe"):
        form.fields()


def test_a_recipe_proposes_a_name() -> None:
    assert proposed_name({".env.sample": "TYPE=blog\n", "compose.yml": "name: other\n"}) == "blog"
    assert proposed_name({"compose.yml": "services: {}\nname: 'other'\n"}) == "other"
    assert proposed_name({".env.sample": "'", "compose.yml": "services: {}"}) == ""


def test_progress_in_words() -> None:
    assert progress_of(None) == (None, "")
    assert progress_of(Progress(3, 0, "layers")) == (None, "3 layers")
    assert progress_of(Progress(51_600_000, 120_000_000, "By")) == (
        43, f"51.6{SPACE}MB of 120{SPACE}MB",
    )  # fmt: skip

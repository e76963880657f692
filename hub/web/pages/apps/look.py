"""What a deployment would do, for the form that is being filled in: verdicts, boards, difference, button.

Owns the rule that nothing is deployed but what was on the screen: a look has a token, the button sends it
back, and when it is not that of the form as it is now, the form is shown anew instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from agent.wire import words
from agent.wire.decode import dumps
from agent.wire.errors import Busy, Refused
from hub.apps.draft import Draft, Verdict
from hub.apps.placement import choose_boards, lacks
from hub.apps.rehearsal import Checked
from hub.apps.view import AppPicture, is_at_work
from hub.apps.wish import Wish
from hub.store import apps, boards
from hub.store.boards import BoardRow
from hub.store.database import Tx
from hub.web.pages.apps.shown import boards_in_words
from hub.web.pages.apps.typed import Typed
from hub.web.pages.forms import labels_of
from hub.web.parts import Parts

LISTED = 60
"""Boards to choose from at a time; more are found by typing."""
STAND_IN = "app"
"""The name under which a recipe is looked at as long as its app has none."""
JUDGEMENTS = ("refused", "warned", "ignored", "emulated")
"""In the order in which verdicts are told; what is simply supported is folded."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A board to choose.  ``by_label``: it is chosen by its labels, whether it is ticked or not."""

    id: str
    name: str
    about: str
    labels: tuple[str, ...]
    chosen: bool
    by_label: bool
    offline_ms: int | None
    is_offline: bool
    lacks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """What deploying would do now.

    ``error``: the recipe cannot be read; ``choice_error``: the choice of boards cannot.  ``problems``: what
    else is in the way.  ``leaving``: boards by name from which the app would go.  ``token`` is empty unless
    it can be deployed.
    """

    choices: tuple[Choice, ...]
    more_boards: int
    names: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    checked: Checked | None = None
    told: tuple[Verdict, ...] = ()
    supported: tuple[Verdict, ...] = ()
    error: Refused | None = None
    choice_error: Refused | None = None
    problems: tuple[str, ...] = ()
    token: str = ""

    @property
    def button(self) -> str:
        """The deed."""
        return f"Deploy to {boards_in_words(self.names)}"


async def look_at(parts: Parts, typed: Typed, there: AppPicture | None) -> Look:
    """What deploying this would do; ``there`` is the app as it is, None for a new one."""
    checked: Checked | None = None
    error: Refused | None = None
    async with parts.store.read() as tx:
        chosen, choice_error = await _chosen(tx, typed)
        is_taken = there is None and await _is_taken(tx, typed.name)
    if any(typed.files.values()):
        try:
            wish = Wish(typed.files, typed.env(), boards=tuple(row.id for row in chosen))
            name = there.name if there else typed.name or STAND_IN
            checked = await parts.desk.rehearsal.check(name, wish, images=typed.with_images)
        except Refused as refusal:
            error = refusal
    async with parts.store.read() as tx:
        choices, more = await _choices(tx, typed, chosen, checked.draft if checked else None)
    verdicts = checked.verdicts if checked else ()
    stay = {row.id for row in chosen}
    problems = _problems(typed, there, chosen, checked, parts.now_ms())
    if is_taken:
        problems = (f"There is an app {typed.name} already: deploy that one anew, or choose another name",)
    is_ready = checked is not None and not problems and error is None and choice_error is None
    return Look(
        choices=choices,
        more_boards=more,
        names=tuple(row.name for row in chosen),
        leaving=tuple(
            place.name
            for place in (there.boards if there else ())
            if place.state != "gone" and place.board not in stay
        ),
        checked=checked,
        told=tuple(v for each in JUDGEMENTS for v in verdicts if v.verdict == each),
        supported=tuple(v for v in verdicts if v.verdict == "supported"),
        error=error,
        choice_error=choice_error,
        problems=problems,
        token=_token(typed, there, chosen) if is_ready else "",
    )


def _problems(
    typed: Typed,
    there: AppPicture | None,
    chosen: Sequence[BoardRow],
    checked: Checked | None,
    now_ms: int,
) -> tuple[str, ...]:
    """What is in the way, in sentences."""
    found = []
    if there is None and not typed.name:
        found.append("Give the app a name")
    if checked is None:
        return tuple(found)
    if not chosen:
        found.append("Choose at least one board")
    if there is not None and any(is_at_work(place) for place in there.boards):
        age = words.duration(now_ms - there.at_ms)
        found.append(f"{there.author} has been changing {there.name} for {age}: wait for it, or cancel it")
    missing = {each.name for each in checked.secrets if each.state == "missing"}
    # What is typed into a field of this form is in the way no more.
    by_hand = {name for name in missing if typed.secrets.get(name)}
    found += [f"The secret {name} has no value yet" for name in sorted(missing - by_hand)]
    if checked.draft is None:
        found.append("What is refused has to go from the recipe first")
    else:
        found += [each for each in checked.problems if not each.startswith("the secret ")]
    return tuple(found)


def refuse_unseen(typed: Typed, look: Look) -> None:
    """Raise Refused unless what was on the screen is what would happen."""
    if (error := look.error or look.choice_error) is not None:
        raise error
    if look.problems:
        raise Refused(look.problems[0])
    if typed.seen != look.token:
        raise Busy("what was shown was not what would happen any more", hint="below is what would happen now")


def _token(typed: Typed, there: AppPicture | None, chosen: Sequence[BoardRow]) -> str:
    """What stands for all that a deployment depends on."""
    ids = [row.id for row in chosen]
    revision = there.revision if there else 0
    text = dumps([typed.name, dict(typed.files), typed.env(), ids, revision])
    return hashlib.sha256(text).hexdigest()[:32]


# --- boards --------------------------------------------------------------------------------------


async def _chosen(tx: Tx, typed: Typed) -> tuple[list[BoardRow], Refused | None]:
    """The boards that are ticked, and those with the labels; or why that is no choice."""
    try:
        labels = labels_of(typed.labels)
        return await choose_boards(tx, typed.boards, labels) if typed.boards or labels else [], None
    except Refused as error:
        return [], error


async def _is_taken(tx: Tx, name: str) -> bool:
    """Whether there is an app of this name that some board has, or is to have."""
    row = await apps.find_app(tx, name) if name else None
    return row is not None and bool(row.boards)


async def _choices(
    tx: Tx, typed: Typed, chosen: Sequence[BoardRow], draft: Draft | None
) -> tuple[tuple[Choice, ...], int]:
    """Boards to choose from by name: those that are chosen, and those that are looked for."""
    listed = await boards.list_boards(tx, search=typed.find, limit=LISTED)
    more = await boards.count_boards(tx, search=typed.find) - len(listed)
    rows = {row.id: row for row in (*chosen, *listed)}
    ticked, all_chosen = set(typed.boards), {row.id for row in chosen}
    found = tuple(
        Choice(
            id=row.id,
            name=row.name,
            about=_about(row),
            labels=tuple(words.labels(row.labels)),
            chosen=row.id in ticked or row.name in ticked,
            by_label=row.id in all_chosen and not (row.id in ticked or row.name in ticked),
            offline_ms=row.presence_ms,
            is_offline=row.presence != "online",
            lacks=tuple(lacks(draft, row)) if draft else (),
        )
        for row in sorted(rows.values(), key=lambda row: row.name)
    )
    return found, more


def _about(row: BoardRow) -> str:
    about = row.about or {}
    memory = int(about.get("memory_bytes") or 0)
    said = [str(about.get("arch", "")), words.value(memory, "By") if memory else ""]
    return " · ".join(filter(None, said))

"""What Hypothesis draws for more than one test: plain data, and plain data with something wrong in it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import strategies as st

any_text = st.text(st.characters(exclude_categories=()))

plain_data: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
"""What JSON can say, and a little more (infinity, half surrogates)."""

toml_data: st.SearchStrategy[Any] = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.datetimes(timezones=st.none() | st.just(dt.UTC))
    | st.dates()
    | st.times(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
"""What TOML can say."""


@st.composite
def changed(draw: st.DrawFn, value: Any, anything: st.SearchStrategy[Any] = plain_data) -> Any:
    """``value`` with one part of it, somewhere inside, replaced by anything, renamed, or left out."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        rest = {name: entry for name, entry in value.items() if name != key}
        match draw(st.integers(0, 9)):
            case 0:
                return rest
            case 1:
                return {**rest, draw(st.text(max_size=8)): value[key]}
            case _:
                return {**value, key: draw(changed(value[key], anything))}
    if isinstance(value, list) and value and draw(st.booleans()):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], draw(changed(value[index], anything)), *value[index + 1 :]]
    return draw(anything)

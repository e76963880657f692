"""Go templates in configs, as far as recipes use them (``template_driver: golang``)."""

from __future__ import annotations

from collections.abc import Mapping

from hub.apps.draft import ConfigDraft


def render(config: ConfigDraft, env: Mapping[str, str], secrets: Mapping[str, str]) -> str:
    """The text of a config.  ``secrets`` by compose name.  Raises Refused (code "template")."""
    raise NotImplementedError

"""`lichen usage`: what boards have signed of what was used.

The group alone; commands are beside, by noun.
"""

from __future__ import annotations

import click


@click.group()
def usage() -> None:
    """The usage logs of the boards, and what follows from them.

    \b
    lichen usage ls
    lichen usage show pump-07
    lichen usage verify pump-07
    lichen usage statement
    lichen usage statement --period 2026-11 --issue
    """

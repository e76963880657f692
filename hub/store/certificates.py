"""Which certificates the hub's authority gave to boards.

Owns the table `certificates`; joining adds to it, revocation asks it.
"""

from __future__ import annotations

from sqlalchemy import insert, select

from hub.store.database import Tx
from hub.store.schema import boards, certificates


async def add_certificate(tx: Tx, board: str, serial: str, issued_ms: int, not_after_ms: int) -> None:
    """Note a certificate; ``serial`` in hexadecimal, times by the hub's clock."""
    row = {"serial": serial, "board": board, "issued_ms": issued_ms, "not_after_ms": not_after_ms}
    await tx.execute(insert(certificates).values(row))


async def revoked_serials(tx: Tx) -> list[str]:
    """The serial numbers of all revoked boards: what the revocation list says.

    Ended ones too: the clock of a broker may be wrong, and an ended certificate joins nothing else.
    """
    asked = (
        select(certificates.c.serial)
        .join(boards, boards.c.id == certificates.c.board)
        .where(boards.c.revoked_ms.is_not(None))
        .order_by(certificates.c.issued_ms, certificates.c.serial)
    )
    return list((await tx.execute(asked)).scalars())


async def revoked_boards(tx: Tx) -> list[str]:
    """The ids of all boards that the broker has to deny everything."""
    asked = select(boards.c.id).where(boards.c.revoked_ms.is_not(None)).order_by(boards.c.id)
    return list((await tx.execute(asked)).scalars())

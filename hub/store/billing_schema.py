"""Tables of rate cards and statements, beside those of `hub.store.usage_schema`.

Owns the names and types of their columns.  `hub.store.billing` reads and writes them.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, text

from hub.store.schema import RowId, metadata
from hub.store.usage_schema import usage_records

# Every rate card that was ever set, as it was written; of each id the last row counts.
usage_rates = Table(
    "usage_rates",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("card", String(64), nullable=False, index=True),  # "house@2026-11-01"
    Column("text", String, nullable=False),  # TOML; empty: it was removed
    Column("set_ms", BigInteger, nullable=False),
    Column("author", String, nullable=False),
)

# What was issued; never changed.
usage_statements = Table(
    "usage_statements",
    metadata,
    Column("period", String(10), primary_key=True),  # "2026-11"
    Column("payer", String, primary_key=True),
    Column("number", Integer, primary_key=True),  # from 1 on
    Column("digest", String(64), nullable=False),  # SHA-256 of its bytes
    Column("issued_ms", BigInteger, nullable=False),
    Column("author", String, nullable=False),
    Column("data", LargeBinary, nullable=False),  # its bytes, as zlib (RFC 1950)
)

# Their times are found from others of the log, so they are asked for without one.
Index(
    "usage_records_untrusted",
    usage_records.c.log,
    usage_records.c.seq,
    sqlite_where=text("clock = 'unsynced'"),
    postgresql_where=text("clock = 'unsynced'"),
)

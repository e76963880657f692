"""Tables of the usage logs that this hub witnesses, beside those of `hub.store.schema`.

Owns the names and types of their columns, as that module does for all others.  `hub.store.ledgers`
writes them for the witness, `hub.store.usage` answers questions.  What makes a log is in the packages
and the tiles: everything else here can be made again from them.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    text,
)

from hub.store.schema import RowId, metadata

# One row for each epoch of each board's ledger.
usage_logs = Table(
    "usage_logs",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("board", String(16), ForeignKey("boards.id"), nullable=False),
    Column("epoch", String(16), nullable=False),
    Column("begun_ms", BigInteger, nullable=False),  # by the hub's clock, as the next
    Column("heard_ms", BigInteger, nullable=False),  # last word of the board about it
    Column("stored_ms", BigInteger, nullable=False),  # last time that entries came
    Column("claimed", BigInteger, nullable=False),  # how many entries the board said it has, then
    Column("size", BigInteger, nullable=False),  # entries held, those in holes included
    Column("entry_bytes", BigInteger, nullable=False),  # of the entries held
    # The roots of the full subtrees of `size` leaves, largest first, 32 bytes each.
    Column("frontier", LargeBinary, nullable=False),
    # The largest checkpoint that the board signed and showed, when it is beyond `size`; else 0 and "".
    Column("pending_size", BigInteger, nullable=False),
    Column("pending", String, nullable=False),
    # Since when nothing more is taken, because the board signed two histories.
    Column("conflict_ms", BigInteger),
    UniqueConstraint("board", "epoch"),
)

# Entries as they came.
usage_packages = Table(
    "usage_packages",
    metadata,
    Column("log", RowId, ForeignKey("usage_logs.id"), primary_key=True),
    Column("first", BigInteger, primary_key=True),  # index of the first entry
    Column("count", Integer, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("entry_bytes", BigInteger, nullable=False),  # of the entries
    # The entries, each followed by a newline, as zlib (RFC 1950); null: a hole.  Of that only leaf
    # hashes are known, and nobody holds the entries any more.
    Column("data", LargeBinary),
    Index(
        "usage_packages_lost",
        "log",
        "first",
        sqlite_where=text("data IS NULL"),
        postgresql_where=text("data IS NULL"),
    ),
)

# C2SP tlog-tiles, the last one of each level with as many hashes as there are yet.
usage_tiles = Table(
    "usage_tiles",
    metadata,
    Column("log", RowId, ForeignKey("usage_logs.id"), primary_key=True),
    Column("level", Integer, primary_key=True),
    Column("n", BigInteger, primary_key=True),
    Column("hashes", LargeBinary, nullable=False),  # up to 256, of 32 bytes
)

# Checkpoints of which every entry is held.
usage_checkpoints = Table(
    "usage_checkpoints",
    metadata,
    Column("log", RowId, ForeignKey("usage_logs.id"), primary_key=True),
    Column("size", BigInteger, primary_key=True),
    Column("note", String, nullable=False),  # signed by the board, and by the hub once `cosigned_ms` is set
    Column("cosigned_ms", BigInteger),  # null: stored, and not cosigned yet
)

# What the entries say, in columns: for lists, charts and statements.  The words of `agent.wire.usage`.
usage_records = Table(
    "usage_records",
    metadata,
    Column("log", RowId, ForeignKey("usage_logs.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("type", String(16), nullable=False),
    Column("boot", String(32), nullable=False),
    Column("mono0_ms", BigInteger, nullable=False),
    Column("mono1_ms", BigInteger, nullable=False),
    Column("wall0_ms", BigInteger, nullable=False),
    Column("wall1_ms", BigInteger, nullable=False),
    Column("clock", String(8), nullable=False),
    # When it ended, as well as the log tells.  `certain` is 0 while no record of this boot, with a clock
    # that was right, has come: then it is the time of the record before.
    Column("at_ms", BigInteger, nullable=False),
    Column("certain", Integer, nullable=False),
    # container
    Column("payer", String),
    Column("workspace", String),
    Column("app", String),
    Column("service", String),
    Column("image", String),
    Column("container", String),
    Column("run", String),
    Column("lease", String),
    Column("generation", BigInteger),  # of the order
    Column("cpu_us", BigInteger),
    Column("mem_byte_ms", BigInteger),
    Column("mem_sample_ms", BigInteger),
    Column("mem_peak", BigInteger),
    Column("io_r", BigInteger),
    Column("io_w", BigInteger),
    Column("net_rx", BigInteger),
    Column("net_tx", BigInteger),
    Column("reset", Integer),
    Column("oom_kills", BigInteger),
    Column("ended", Integer),
    Column("exit_code", Integer),
    # board: what it offers
    Column("cpus", BigInteger),
    Column("memory_bytes", BigInteger),
    Column("disk_bytes", BigInteger),
    # sensor
    Column("sensor", String),
    Column("unit", String),
    Column("readings", BigInteger),
    Column("day", BigInteger),  # since 1970
    Index("usage_records_time", "log", "at_ms"),
    Index(
        "usage_records_uncertain",
        "log",
        "boot",
        sqlite_where=text("certain = 0"),
        postgresql_where=text("certain = 0"),
    ),
    sqlite_with_rowid=False,
)

# Evidence: two texts, signed by one board, that cannot both be true.
usage_conflicts = Table(
    "usage_conflicts",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("log", RowId, ForeignKey("usage_logs.id"), nullable=False, index=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),  # of the tree about which they differ
    Column("kept", String, nullable=False),  # the note that the hub holds entries for
    Column("shown", String, nullable=False),  # the note that says otherwise
    Column("reason", String, nullable=False),
)

# How much of its allowance of log bytes a board has used.
usage_allowances = Table(
    "usage_allowances",
    metadata,
    Column("board", String(16), ForeignKey("boards.id"), primary_key=True),
    Column("paid_ms", BigInteger, nullable=False),  # up to then, by the hub's clock
)

# Others who may read of the logs; never an admin.
usage_readers = Table(
    "usage_readers",
    metadata,
    Column("hash", String(64), primary_key=True),  # of the secret
    Column("id", String(16), nullable=False, unique=True),
    Column("name", String(64), nullable=False),
    Column("scope", String(8), nullable=False),  # "peer" or "payer"
    Column("payer", String, nullable=False),  # whose records, for "payer"; else empty
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),  # null: until it is revoked
    Column("author", String, nullable=False),
)

"""Tables of the hub's database, as SQLAlchemy Core.

Owns the names and types of columns; migrations/ brings a database to this shape, and a test
holds the two against each other.  Queries live in the modules beside this one, by noun.
Times are integers of milliseconds since the Unix epoch; secrets are stored as SHA-256 only
(random tokens) or argon2id (passwords).
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

metadata = MetaData()

# SQLite numbers rows by itself only under INTEGER PRIMARY KEY, PostgreSQL wants BIGINT.
RowId = BigInteger().with_variant(Integer, "sqlite")

boards = Table(
    "boards",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("labels", JSON, nullable=False),  # {key: value}
    Column("log_key", String, nullable=False),
    Column("seal_key", String, nullable=False),
    Column("joined_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("presence", String(8), nullable=False),  # online | offline
    Column("presence_ms", BigInteger),
    Column("nonce", String(64), nullable=False),  # of the session that presence speaks of
    Column("heard_ms", BigInteger),  # last message of any kind, by the hub's clock
    Column("about", JSON),  # the last `about`, as decoded
    Column("latest", JSON, nullable=False),  # {sensor: [value, wall_ms]}
    Column("replaced_by", String(16)),  # the board that took its name, its labels and its apps
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),  # hexadecimal
    Column("board", String(16), ForeignKey("boards.id"), nullable=False, index=True),
    Column("issued_ms", BigInteger, nullable=False),
    Column("not_after_ms", BigInteger, nullable=False),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("name", String(64), nullable=False),  # for the board; empty: chosen from its id
    Column("labels", JSON, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("replaces", String(16)),  # the board whose name, labels and apps the new one takes
)

join_uses = Table(
    "join_uses",
    metadata,
    Column("token", ForeignKey("join_tokens.id"), primary_key=True),
    Column("board", ForeignKey("boards.id"), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
)

sensors = Table(
    "sensors",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("board", String(16), ForeignKey("boards.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("kind", String, nullable=False, server_default=""),
    Column("unit", String, nullable=False, server_default=""),
    Column("quantity", String, nullable=False, server_default=""),
    Column("interval_ms", BigInteger, nullable=False, server_default="0"),
    Column("tags", JSON, nullable=False, server_default="{}"),  # {key: text}
    UniqueConstraint("board", "name"),
)

streams = Table(
    "streams",
    metadata,
    Column("board", String(16), ForeignKey("boards.id"), primary_key=True),
    Column("stream", String(16), primary_key=True),
    Column("contiguous", BigInteger, nullable=False),  # everything up to here is committed or a gap
    Column("seen_ms", BigInteger, nullable=False),
)

# One row for each boot of a board that was heard of.
boots = Table(
    "boots",
    metadata,
    Column("board", String(16), ForeignKey("boards.id"), primary_key=True),
    Column("boot", String(32), primary_key=True),
    # Since when it is the board's newest, by the hub's clock: the birth of a session that named it,
    # after another boot or none.  Null: only readings of it came.
    Column("born_ms", BigInteger),
    # Last birth, or readings that needed it, by the hub's clock and to about a day.
    Column("heard_ms", BigInteger, nullable=False),
    # What to add to mono_ms of this boot to have the time; null as long as the board's clock was
    # not known to be right in it.  Once set it never changes: roll-ups are made with it.
    Column("offset_ms", BigInteger),
    Index("boots_born", "board", "born_ms"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", RowId, primary_key=True),  # counts up for ever: "fold" in `meta` relies on it
    Column("board", String(16), ForeignKey("boards.id"), nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("from_ms", BigInteger, nullable=False),  # smallest and largest wall time in it
    Column("to_ms", BigInteger, nullable=False),
    Column("stream", String(16), nullable=False),
    # The payload holds the readings seq0 .. seq0 + count - 1, of which the first `skip` do not
    # count: they were committed before (an overlap after a resend) or are in a gap.
    Column("seq0", BigInteger, nullable=False),
    Column("count", Integer, nullable=False),
    Column("skip", Integer, nullable=False),
    Column("content_type", String, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # as it came
    Column("boot", String(32), nullable=False, server_default=""),
    # 1: some of its readings were made by a clock that was not known to be right, in a boot without
    # offset.  Those are in no roll-up, and count for the span as the board's clock said.
    Column("pending", Integer, nullable=False, server_default="0"),
    # From_ms is there so that an old range is found in the index alone.
    Index("batches_range", "board", "to_ms", "from_ms"),
    Index(
        "batches_pending",
        "board",
        "boot",
        sqlite_where=text("pending = 1"),
        postgresql_where=text("pending = 1"),
    ),
    sqlite_autoincrement=True,
)

gaps = Table(
    "gaps",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("board", String(16), ForeignKey("boards.id"), nullable=False),
    Column("stream", String(16), nullable=False),
    Column("seq0", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("from_ms", BigInteger),
    Column("to_ms", BigInteger),
    Column("reason", String, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    UniqueConstraint("board", "stream", "seq0"),
)

rollups = Table(
    "rollups",
    metadata,
    Column("sensor", RowId, ForeignKey("sensors.id"), primary_key=True),
    Column("bucket_ms", BigInteger, primary_key=True),  # start of 15 minutes of wall time
    Column("min", Float, nullable=False),
    Column("max", Float, nullable=False),
    Column("sum", Float, nullable=False),
    Column("count", Integer, nullable=False),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("board", String(16), index=True),
    Column("actor", String, nullable=False),  # "hub", "board" or an admin's name
    Column("kind", String, nullable=False),  # joined, online, offline, renamed, gap, ...
    Column("text", String, nullable=False),
)

# Those with `cleared_ms` are history.
problems = Table(
    "problems",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("board", String(16), ForeignKey("boards.id")),  # null: the hub's own
    Column("source", String(8), nullable=False),  # board: it says so itself | hub: the hub sees it
    Column("code", String(64), nullable=False),
    Column("sentence", String, nullable=False),
    Column("hint", String, nullable=False),
    Column("severity", String(8), nullable=False),  # notice | warn | fail
    Column("since_ms", BigInteger, nullable=False),  # by the hub's clock, as the next
    Column("cleared_ms", BigInteger),
    Column("count", BigInteger, nullable=False),
    Index("problems_board", "board", "cleared_ms"),
    # Few are open, and history is long.
    Index(
        "problems_open",
        "id",
        sqlite_where=text("cleared_ms IS NULL"),
        postgresql_where=text("cleared_ms IS NULL"),
    ),
)

admins = Table(
    "admins",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("password", String, nullable=False),  # argon2id, in its own string form
)

# Sessions of browsers, tokens of programs and one-time login links are one thing:
# a random secret, kept as its hash, that stands for an admin until it ends.
credentials = Table(
    "credentials",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("kind", String(8), nullable=False),  # session | token | link
    Column("id", String(16), nullable=False, unique=True),  # to name it without telling it
    Column("admin", ForeignKey("admins.name"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
)

# Facts about the hub itself: "fold" (the last batch whose readings are in the roll-ups),
# "document" (number of the hub document).
meta = Table(
    "meta",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

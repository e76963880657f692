"""Tables of the hub's database, as SQLAlchemy Core.

Owns the names and types of columns; migrations/ brings a database to this shape, and a test
holds the two against each other.  Queries live in the modules beside this one, by noun.
Times are integers of milliseconds since the Unix epoch; secrets are stored as SHA-256 only
(random tokens) or argon2id (passwords); what has to be told again is sealed (`hub.access.vault`).
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
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

# --- apps ----------------------------------------------------------------------------------------

apps = Table(
    "apps",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("revision", BigInteger, nullable=False),  # the newest one
)

# The files of recipes, by their content: a restart, say, has those of the revision before.
recipes = Table(
    "recipes",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of `files` as canonical JSON
    Column("files", JSON, nullable=False),  # {path: text}
)

# What an operator asked for, one row for each change of an app; never changed but for `cancelled_ms`.
revisions = Table(
    "revisions",
    metadata,
    Column("app", String(40), ForeignKey("apps.name"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("author", String, nullable=False),
    Column("action", String(16), nullable=False),
    Column("message", String, nullable=False),
    Column("version", String, nullable=False),
    Column("recipe", String(64), ForeignKey("recipes.digest"), nullable=False),
    Column("env", JSON, nullable=False),  # {name: value}
    Column("pins", JSON, nullable=False),  # {image: {platform: digest}}
    Column("scale", JSON, nullable=False),  # {service: replicas}, where it is not as the recipe says
    Column("restarted", JSON, nullable=False),  # {service: times}
    Column("stopped", Integer, nullable=False),
    Column("boards", JSON, nullable=False),  # [id]; none: it is to go
    Column("difference", JSON, nullable=False),  # [line]
    Column("notes", JSON, nullable=False),  # [sentence]: what to know of how it was made
    Column("cancelled_ms", BigInteger),
)

# What became of a revision on a board.
results = Table(
    "results",
    metadata,
    Column("app", String(40), primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("board", String(16), ForeignKey("boards.id"), primary_key=True),
    Column("generation", BigInteger, nullable=False),  # of the order that first had it
    Column("begun_ms", BigInteger),  # the board said that it works on it
    Column("settled_ms", BigInteger),  # the board said how it ended
    Column("outcome", String(8), nullable=False),  # "", running, stopped, failed, refused, gone, dropped
    Column("reason", String, nullable=False),
    Column("hint", String, nullable=False),
    Column("running", BigInteger, nullable=False),  # the revision that runs then; 0: none
    ForeignKeyConstraint(["app", "revision"], ["revisions.app", "revisions.number"]),
    Index("results_board", "board", "app"),
)

# What orders are made of: the app that each board is to have.
placements = Table(
    "placements",
    metadata,
    Column("app", String(40), ForeignKey("apps.name"), primary_key=True),
    Column("board", String(16), ForeignKey("boards.id"), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column(
        "manifest", JSON(none_as_null=True)
    ),  # an `App` without anything sealed; null: the app is not in the order any more
    Column("secrets", String, nullable=False),  # what belongs into it, sealed by the vault
    Column("leaving", Integer, nullable=False),  # 1: the row goes when the board says that the app is gone
    Index("placements_board", "board"),
)

# The order of each board that ever had an app.
orders = Table(
    "orders",
    metadata,
    Column("board", String(16), ForeignKey("boards.id"), primary_key=True),
    Column("generation", BigInteger, nullable=False),  # 0: none was made yet
    Column("reported", BigInteger, nullable=False),  # the highest that the board has spoken of
    Column("published", BigInteger, nullable=False),  # the one that the broker has
    Column("stale", Integer, nullable=False),  # 1: what it is made of has changed: make a new one
    Column("signer", String, nullable=False),  # the key that signed it
    Column("issued_ms", BigInteger, nullable=False),
    Column("note", String, nullable=False),
    Column("failure", String, nullable=False),  # why no order could be made when it was stale
)

# The last `up/apps` of each board.
app_reports = Table(
    "app_reports",
    metadata,
    Column("board", String(16), ForeignKey("boards.id"), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("report", JSON, nullable=False),
)

app_secrets = Table(
    "app_secrets",
    metadata,
    Column("app", String(40), primary_key=True),  # may be set before the app is there
    Column("name", String(128), primary_key=True),
    Column("version", String(128), primary_key=True),  # as the env of the app calls it: "v1"
    Column("id", String(32), nullable=False),  # random, another one with each value
    Column("value", String, nullable=False),  # sealed by the vault
    Column("made_ms", BigInteger, nullable=False),
    Column("author", String, nullable=False),
    Column("generated", Integer, nullable=False),
)

registries = Table(
    "registries",
    metadata,
    Column("name", String(255), primary_key=True),  # host and port
    Column("user", String, nullable=False),
    Column("password", String, nullable=False),  # sealed by the vault
    Column("changed_ms", BigInteger, nullable=False),
    Column("author", String, nullable=False),
)

# What tags were when a registry was last asked.
digests = Table(
    "digests",
    metadata,
    Column("image", String, primary_key=True),
    Column("platform", String, primary_key=True),  # such as "arm64" or "arm/v7"
    Column("digest", String(71), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

# The compressed layers of an image; a digest means the same for ever.
image_sizes = Table(
    "image_sizes",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)

# Facts about the hub itself: "fold" (the last batch whose readings are in the roll-ups),
# "document" (number of the hub document).
meta = Table(
    "meta",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

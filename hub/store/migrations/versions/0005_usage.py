"""Usage logs: packages as they came, their trees, checkpoints, records in columns, evidence."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "usage_allowances",
        sa.Column("board", sa.String(length=16), nullable=False),
        sa.Column("paid_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("board"),
    )
    op.create_table(
        "usage_logs",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("board", sa.String(length=16), nullable=False),
        sa.Column("epoch", sa.String(length=16), nullable=False),
        sa.Column("begun_ms", sa.BigInteger(), nullable=False),
        sa.Column("heard_ms", sa.BigInteger(), nullable=False),
        sa.Column("stored_ms", sa.BigInteger(), nullable=False),
        sa.Column("claimed", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("entry_bytes", sa.BigInteger(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("pending_size", sa.BigInteger(), nullable=False),
        sa.Column("pending", sa.String(), nullable=False),
        sa.Column("conflict_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("board", "epoch"),
    )
    op.create_table(
        "usage_checkpoints",
        sa.Column("log", ROW_ID, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("cosigned_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["log"], ["usage_logs.id"]),
        sa.PrimaryKeyConstraint("log", "size"),
    )
    op.create_table(
        "usage_conflicts",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("log", ROW_ID, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("kept", sa.String(), nullable=False),
        sa.Column("shown", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["log"], ["usage_logs.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_usage_conflicts_log"), "usage_conflicts", ["log"], unique=False)
    op.create_table(
        "usage_packages",
        sa.Column("log", ROW_ID, nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("entry_bytes", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["log"], ["usage_logs.id"]),
        sa.PrimaryKeyConstraint("log", "first"),
    )
    op.create_table(
        "usage_records",
        sa.Column("log", ROW_ID, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("boot", sa.String(length=32), nullable=False),
        sa.Column("mono0_ms", sa.BigInteger(), nullable=False),
        sa.Column("mono1_ms", sa.BigInteger(), nullable=False),
        sa.Column("wall0_ms", sa.BigInteger(), nullable=False),
        sa.Column("wall1_ms", sa.BigInteger(), nullable=False),
        sa.Column("clock", sa.String(length=8), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("certain", sa.Integer(), nullable=False),
        sa.Column("payer", sa.String(), nullable=True),
        sa.Column("workspace", sa.String(), nullable=True),
        sa.Column("app", sa.String(), nullable=True),
        sa.Column("service", sa.String(), nullable=True),
        sa.Column("image", sa.String(), nullable=True),
        sa.Column("container", sa.String(), nullable=True),
        sa.Column("run", sa.String(), nullable=True),
        sa.Column("lease", sa.String(), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=True),
        sa.Column("cpu_us", sa.BigInteger(), nullable=True),
        sa.Column("mem_byte_ms", sa.BigInteger(), nullable=True),
        sa.Column("mem_sample_ms", sa.BigInteger(), nullable=True),
        sa.Column("mem_peak", sa.BigInteger(), nullable=True),
        sa.Column("io_r", sa.BigInteger(), nullable=True),
        sa.Column("io_w", sa.BigInteger(), nullable=True),
        sa.Column("net_rx", sa.BigInteger(), nullable=True),
        sa.Column("net_tx", sa.BigInteger(), nullable=True),
        sa.Column("reset", sa.Integer(), nullable=True),
        sa.Column("oom_kills", sa.BigInteger(), nullable=True),
        sa.Column("ended", sa.Integer(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("cpus", sa.BigInteger(), nullable=True),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=True),
        sa.Column("disk_bytes", sa.BigInteger(), nullable=True),
        sa.Column("sensor", sa.String(), nullable=True),
        sa.Column("unit", sa.String(), nullable=True),
        sa.Column("readings", sa.BigInteger(), nullable=True),
        sa.Column("day", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["log"], ["usage_logs.id"]),
        sa.PrimaryKeyConstraint("log", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_index("usage_records_time", "usage_records", ["log", "at_ms"], unique=False)
    op.create_index(
        "usage_records_uncertain",
        "usage_records",
        ["log", "boot"],
        unique=False,
        sqlite_where=sa.text("certain = 0"),
        postgresql_where=sa.text("certain = 0"),
    )
    op.create_table(
        "usage_tiles",
        sa.Column("log", ROW_ID, nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["log"], ["usage_logs.id"]),
        sa.PrimaryKeyConstraint("log", "level", "n"),
    )

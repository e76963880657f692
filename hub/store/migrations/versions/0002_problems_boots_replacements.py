"""Problems, boots with their clocks, replaced boards, tags of sensors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("boards", sa.Column("replaced_by", sa.String(length=16), nullable=True))
    op.add_column("join_tokens", sa.Column("replaces", sa.String(length=16), nullable=True))
    op.add_column("sensors", sa.Column("tags", sa.JSON(), server_default="{}", nullable=False))
    op.add_column("batches", sa.Column("boot", sa.String(length=32), server_default="", nullable=False))
    op.add_column("batches", sa.Column("pending", sa.Integer(), server_default="0", nullable=False))
    op.create_index(
        "batches_pending",
        "batches",
        ["board", "boot"],
        sqlite_where=sa.text("pending = 1"),
        postgresql_where=sa.text("pending = 1"),
    )
    op.create_table(
        "boots",
        sa.Column("board", sa.String(length=16), nullable=False),
        sa.Column("boot", sa.String(length=32), nullable=False),
        sa.Column("born_ms", sa.BigInteger(), nullable=True),
        sa.Column("heard_ms", sa.BigInteger(), nullable=False),
        sa.Column("offset_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("board", "boot"),
    )
    op.create_index("boots_born", "boots", ["board", "born_ms"])
    op.create_table(
        "problems",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("board", sa.String(length=16), nullable=True),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("sentence", sa.String(), nullable=False),
        sa.Column("hint", sa.String(), nullable=False),
        sa.Column("severity", sa.String(length=8), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("cleared_ms", sa.BigInteger(), nullable=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("problems_board", "problems", ["board", "cleared_ms"])
    op.create_index(
        "problems_open",
        "problems",
        ["id"],
        sqlite_where=sa.text("cleared_ms IS NULL"),
        postgresql_where=sa.text("cleared_ms IS NULL"),
    )

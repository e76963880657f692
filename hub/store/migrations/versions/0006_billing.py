"""Rate cards and statements; records whose clock was not trusted are found without reading all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UNTRUSTED = sa.text("clock = 'unsynced'")


def upgrade() -> None:
    op.create_table(
        "usage_rates",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("card", sa.String(length=64), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("set_ms", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_usage_rates_card", "usage_rates", ["card"])
    op.create_table(
        "usage_statements",
        sa.Column("period", sa.String(length=10), nullable=False),
        sa.Column("payer", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("issued_ms", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("period", "payer", "number"),
    )
    op.create_index(
        "usage_records_untrusted",
        "usage_records",
        ["log", "seq"],
        sqlite_where=UNTRUSTED,
        postgresql_where=UNTRUSTED,
    )

"""Apps: their revisions, where they are, orders, secrets, registries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "apps",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "recipes",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "revisions",
        sa.Column("app", sa.String(length=40), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("recipe", sa.String(length=64), nullable=False),
        sa.Column("env", sa.JSON(), nullable=False),
        sa.Column("pins", sa.JSON(), nullable=False),
        sa.Column("scale", sa.JSON(), nullable=False),
        sa.Column("restarted", sa.JSON(), nullable=False),
        sa.Column("stopped", sa.Integer(), nullable=False),
        sa.Column("boards", sa.JSON(), nullable=False),
        sa.Column("difference", sa.JSON(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.Column("cancelled_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["app"], ["apps.name"]),
        sa.ForeignKeyConstraint(["recipe"], ["recipes.digest"]),
        sa.PrimaryKeyConstraint("app", "number"),
    )
    op.create_table(
        "results",
        sa.Column("app", sa.String(length=40), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("board", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("begun_ms", sa.BigInteger(), nullable=True),
        sa.Column("settled_ms", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("hint", sa.String(), nullable=False),
        sa.Column("running", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["app", "revision"], ["revisions.app", "revisions.number"]),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("app", "revision", "board"),
    )
    op.create_index("results_board", "results", ["board", "app"])
    op.create_table(
        "placements",
        sa.Column("app", sa.String(length=40), nullable=False),
        sa.Column("board", sa.String(length=16), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=True),
        sa.Column("secrets", sa.String(), nullable=False),
        sa.Column("leaving", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["app"], ["apps.name"]),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("app", "board"),
    )
    op.create_index("placements_board", "placements", ["board"])
    op.create_table(
        "orders",
        sa.Column("board", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("reported", sa.BigInteger(), nullable=False),
        sa.Column("published", sa.BigInteger(), nullable=False),
        sa.Column("stale", sa.Integer(), nullable=False),
        sa.Column("signer", sa.String(), nullable=False),
        sa.Column("issued_ms", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("failure", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("board"),
    )
    op.create_table(
        "app_reports",
        sa.Column("board", sa.String(length=16), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("board"),
    )
    op.create_table(
        "app_secrets",
        sa.Column("app", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=128), nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("generated", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("app", "name", "version"),
    )
    op.create_table(
        "registries",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("password", sa.String(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "digests",
        sa.Column("image", sa.String(), nullable=False),
        sa.Column("platform", sa.String(), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("image", "platform"),
    )

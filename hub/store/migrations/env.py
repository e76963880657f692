"""What Alembic runs to migrate: on the connection that `hub.store.database` hands over.

The caller begins and commits, so a migration that fails leaves the database as it was.
"""

from __future__ import annotations

from alembic import context

from hub.store.billing_schema import usage_rates

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=usage_rates.metadata,  # of all tables: those of the other schemas, too
    render_as_batch=True,  # SQLite changes a table by copying it
)
context.run_migrations()

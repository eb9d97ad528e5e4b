"""Alembic's entry: run the steps on the connection that `orbiquant.persistence.migrate` has opened and locked."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()

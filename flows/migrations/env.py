"""Run by Alembic: migrates over the connection that `flows.migrations` hands over."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="s3t_schema")
with context.begin_transaction():
    context.run_migrations()

"""Alembic's environment and the migrations; a package, so that they are installed with the code."""

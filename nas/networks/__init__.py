"""One network for a user: loaded by name or file, looked into, exported, described."""

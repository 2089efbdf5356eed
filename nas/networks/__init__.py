"""One network for a user: loaded by name or file, inspected, exported, described."""

"""Care for what a search leaves: files that nothing needs any more, and the state of an installation."""

"""The sub-commands of ``nas``, one to a file. Importing them loads no torch and no ray; running some does."""

"""The sub-commands of ``nas``, one in each file. Their imports load neither torch nor ray; some load them to run."""

"""The machine below: signals, room on disks, and the processes of a session or a private Ray. Loads nothing heavy."""

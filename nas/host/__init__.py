"""The machine below: signals, and the processes of a session or a private Ray. Loads nothing heavy."""

"""The entry point of ``nas``: listens to signals before the commands load, so that an early Ctrl-C is no traceback."""

from __future__ import annotations

import sys

from nas.host.interrupts import interrupt_on_signals, say_interrupted


def main() -> None:
    """Run the command line and exit."""
    interrupt_on_signals()
    try:
        from nas.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(say_interrupted())


if __name__ == "__main__":
    main()

"""The papers' comparison on the device at hand: published figures, and those measured here beside them."""

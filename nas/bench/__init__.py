"""The papers' comparison on the device at hand: the published figures beside those measured here."""

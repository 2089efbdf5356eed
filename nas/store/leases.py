"""Expired leases, as one process sees them: a holder that lives must get the time to renew after a stall."""

from __future__ import annotations

from datetime import datetime, timedelta

_LONGEST_GAP = timedelta(seconds=5)


class Sightings:
    """Decides whether the holder of an expired lease is dead.

    An expired lease proves nothing after the database was locked or away: its holder could not renew it either. A
    lease is therefore free only when it was seen expired again and again over some time, by the database's clock. After
    a gap between two looks, in which the database may not have answered, this time starts anew.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], tuple[datetime, datetime]] = {}
        self._dead: set[tuple[str, int]] = set()

    def is_free(self, job_id: str, epoch: int, now: datetime, seconds: float) -> bool:
        """Record a look at an expired lease, and return whether it may be taken over.

        Args:
            job_id: Id of the job.
            epoch: Number of the lease.
            now: Time of the look by the database's clock.
            seconds: Time in seconds for which the lease must have been seen expired.
        """
        key = (job_id, epoch)
        if seconds <= 0 or key in self._dead:
            return True
        first, last = self._seen.get(key, (now, now))
        if not timedelta() <= now - last <= _LONGEST_GAP:
            first = now
        self._seen = {known: looks for known, looks in self._seen.items() if now - looks[1] <= _LONGEST_GAP}
        self._seen[key] = (first, now)
        return now - first >= timedelta(seconds=seconds)

    def is_dead(self, job_id: str, epoch: int) -> None:
        """Record that the process which holds a lease is known to have died."""
        self._dead.add((job_id, epoch))

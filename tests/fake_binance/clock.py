"""The venue's clock, which a test may set off or make faster."""

import time


class Clock:
    """Milliseconds since 1970 as the venue sees them."""

    def __init__(self) -> None:
        self.set()

    def set(self, offset_ms: float = 0.0, scale: float = 1.0) -> None:
        """Run `offset_ms` beside the wall clock, and `scale` times as fast from now on."""
        self._started_s = time.time()
        self.offset_ms = offset_ms
        self.scale = scale

    def now_ms(self) -> int:
        """Return the venue's time."""
        elapsed_s = (time.time() - self._started_s) * self.scale
        return int((self._started_s + elapsed_s) * 1000 + self.offset_ms)

    def wall_s(self, venue_s: float) -> float:
        """Return how long a time of the venue takes on the wall."""
        return venue_s / self.scale

"""Both clocks keep the contract of every clock."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

pytest.register_assert_rewrite("contracts")

from contracts.clock import ClockContract  # noqa: E402

from orbiquant.core import FixedClock, SystemClock  # noqa: E402
from orbiquant.ports import Clock  # noqa: E402


class TestSystemClock(ClockContract):
    """The contract, by the machine's own time."""

    @pytest.fixture
    def clock(self) -> Clock:
        """Return the real time."""
        return SystemClock()

    def test_it_tells_the_real_time(self, clock: Clock):
        assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)


class TestFixedClock(ClockContract):
    """The contract, by a clock that was set in Tokyo."""

    @pytest.fixture
    def clock(self) -> Clock:
        """Return a clock that stands still."""
        return FixedClock(datetime(2024, 3, 1, 9, tzinfo=timezone(timedelta(hours=9))))

    def test_it_stands_still(self, clock: Clock):
        assert clock.now() == clock.now() == datetime(2024, 3, 1, tzinfo=UTC)

"""What every `Clock` promises."""

from datetime import timedelta

from orbiquant.ports import Clock


class ClockContract:
    """Subclasses give a fixture `clock`."""

    def test_it_is_a_clock(self, clock: Clock):
        assert isinstance(clock, Clock)

    def test_now_is_told_in_utc(self, clock: Clock):
        assert clock.now().utcoffset() == timedelta(0)

    def test_time_does_not_run_backwards(self, clock: Clock):
        moments = [clock.now() for _ in range(100)]
        assert moments == sorted(moments)

"""`orbiquant work`: what the platform does by itself, in one process."""

from typing import Annotated

import typer

from orbiquant.cli.console import AsJson, console


def work_alone(
    threads: Annotated[int, typer.Option(min=0, max=64, help="Long jobs at once.")] = 2,
    poll: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 1.0,
    attached: Annotated[
        bool, typer.Option("--attached", hidden=True, help="End, too, when standard input does.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    "Trade what was started, keep the schedule and do what is queued, until interrupted; a second process stands by."
    from threading import Event, Thread

    from orbiquant.cli.agents import ENDED_TOLD, close_on_signals, room_with_summary, trading_told, turn_teller
    from orbiquant.cli.follow import tell_at_once
    from orbiquant.cli.jobs import open_jobs, run_teller
    from orbiquant.desk.alerts import judge_new_bars
    from orbiquant.jobs.work import Worker
    from orbiquant.research.staying import stay
    from orbiquant.service.crew import end_with_parent

    runtime, stop, say = open_jobs(), Event(), console(stderr=True)
    tell = tell_at_once(runtime, say)
    worker = Worker(runtime.engine, runtime, runtime.clock, threads, tell=run_teller(tell, as_json))
    jobs = Thread(target=worker.work, name="jobs")

    def end() -> None:
        worker.asked = True
        stop.set()

    close_on_signals(runtime, end)
    if attached:
        end_with_parent()
    room = room_with_summary(runtime)
    tell(trading_told(room))
    jobs.start()
    try:
        stay(room, stop, turn_teller(tell, as_json), poll, [judge_new_bars])
    finally:
        end()
        jobs.join()
    tell(ENDED_TOLD)

"""A service whose streams and sockets go through Redis, as a program; its model speaks at the pace asked for."""

import sys
from pathlib import Path

from pydantic_ai.models.function import FunctionModel

from orbiquant.core import configure_logging
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings
from tests.tools.slow_chat import speak


def stream_runtime(folder: Path, redis: str = "", prefix: str = "llm:") -> Runtime:
    """Return a runtime over a folder, and over Redis where its address is named."""
    places = {"store_uri": f"{folder}/store", "models_dir": folder / "models", "data_dir": folder}
    settings = load_settings(
        workspace=places | {"database_url": f"sqlite:///{folder}/o.db"},
        service={"requests_per_minute": 100_000, "connections": 2_000},
        llm={"provider": "router"},
        redis={"url": redis, "prefix": prefix},
    )
    made = Runtime(settings)
    made.__dict__["chat_model"] = FunctionModel(stream_function=speak)
    return made


def main(folder: str, redis: str) -> None:
    """Serve until a signal comes, and print where."""
    from orbiquant.app import app
    from orbiquant.service.serving import serve

    configure_logging("ERROR")
    with using(stream_runtime(Path(folder), redis)):
        serve(app, "127.0.0.1", 0, announce=lambda place: print(place, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])

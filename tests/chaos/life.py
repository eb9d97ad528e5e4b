"""One life of a victim, started cold."""

import json
import sys
from pathlib import Path

from tests.chaos.victim import Orders, live

if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    live(Orders(**{**told, "folder": Path(told["folder"])}))

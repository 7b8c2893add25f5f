# make demo | test | check | bench | docs | lock | clean; each sets up .venv by itself.  make demo ARGS=--quick
PYTHON ?= python3
ARGS   ?=
BIN    := .venv/bin
READY  := .venv/.ready
TORCH  := $(shell sed -n 's/^torch==//p' requirements.lock)

.PHONY: demo test check bench docs lock clean
.DELETE_ON_ERROR:

demo: $(READY)
	@$(BIN)/deepsky demo $(ARGS)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

bench: $(READY)
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(READY)
	$(BIN)/sphinx-build -b html docs docs/_build/html

# Set up again whenever the project's metadata or the locked versions change. torch comes first and alone, so that no
# other package can choose its build.
$(READY): pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) here: install Python 3.11 or newer, or: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "deepsky needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1)." >&2; \
	  echo "  fix: make PYTHON=python3.11 (or wherever a newer one lies)" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "making .venv ..."; $(PYTHON) -m venv .venv; }
	@echo "installing torch $(TORCH) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check "torch==$(TORCH)"
	@echo "installing deepsky and what it needs (a few minutes the first time) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c requirements.lock -e '.[all,test,docs]'
	@touch $@

# Write the lock from what is installed; commit it with the change that needed it.
lock: $(READY)
	@$(BIN)/python -m pip freeze --exclude-editable --exclude deepsky --exclude pip --exclude setuptools \
	  | sed -E 's/^(torch==[0-9.]+)\+.*/\1/; / @ /d; /^-/d' > requirements.lock.new
	@{ grep '^#' requirements.lock; cat requirements.lock.new; } > requirements.lock.tmp
	@mv requirements.lock.tmp requirements.lock; rm requirements.lock.new; touch $(READY)

clean:
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist docs/_build docs/api
	find src tests benchmarks docs lessons -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

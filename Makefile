# make demo: everything on sample data, in minutes.   make test: the tests.   make lint: ruff and mypy.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test lint clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing into $(VENV) (a few minutes; log: $(VENV)-install.log)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[train,dev]' > $(VENV)-install.log 2>&1 \
		|| { tail -n 20 $(VENV)-install.log; exit 1; }
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/python examples/demo.py demo

test: $(INSTALLED)
	@$(BIN)/python -m pytest $(ARGS)

lint: $(INSTALLED)
	@$(BIN)/ruff check . && $(BIN)/mypy

clean:
	rm -rf $(VENV) $(VENV)-install.log demo build src/*.egg-info

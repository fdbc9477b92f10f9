# make demo [BACKEND=bridge]: the whole workflow on sample data, in minutes.   make test: the tests.   make lint: ruff, codespell and mypy.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BRIDGE := .venv-bridge

# Debian packages for tests: Slurm and sshd for a small cluster, podman, Chromium for the report page, zsh for completion.
# Without root or apt-get, these tests are skipped
TOOLS := slurm-wlm slurmdbd munge mariadb-server-core mariadb-client-core libslurm-dev openssh-server rsync chromium zsh podman runc catatonit

.PHONY: install install-bridge demo test test-long test-versions coverage lint docs site dist clean tools

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing into $(VENV) (a few minutes; log: $(VENV)-install.log)"
	@$(PYTHON) -m venv $(VENV)
	@sh .ci/install.sh $(VENV)-install.log \
		$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	@touch $@

# Megatron-Bridge needs other releases of Megatron-Core and transformers than NeMo 2, hence an environment of its own
install-bridge: $(BRIDGE)/.installed

$(BRIDGE)/.installed: constraints-bridge.txt
	@echo "installing into $(BRIDGE) (a few minutes; log: $(BRIDGE)-install.log)"
	@$(PYTHON) -m venv $(BRIDGE)
	@sh .ci/install.sh $(BRIDGE)-install.log $(BRIDGE)/bin/python -m pip install --disable-pip-version-check --no-deps \
		--ignore-requires-python -r constraints-bridge.txt
	@sh .ci/install.sh $(BRIDGE)-install.log $(BRIDGE)/bin/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

demo: $(INSTALLED) $(if $(filter bridge,$(BACKEND)),$(BRIDGE)/.installed)
	@$(BIN)/python examples/demo.py demo --backend $(or $(BACKEND),nemo2)

# Two files of tests run side by side, as most wait for processes to start; beside them, one after another, those that
# share a Slurm cluster, for which they wait most of the time
test: $(INSTALLED) tools
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@$(BIN)/python -m pytest tests/slurm > $(VENV)-slurm-tests.log 2>&1 & slurm=$$!; \
		$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/slurm; code=$$?; \
		wait $$slurm || code=1; cat $(VENV)-slurm-tests.log; exit $$code
endif

test-long: $(INSTALLED) tools
	@$(BIN)/python -m pytest -m long $(ARGS)

# With all tested releases of NeMo and Megatron-Core, each laid over .venv
test-versions: $(INSTALLED)
	@$(BIN)/python -m pytest -m "long or not long" tests/versions $(ARGS)

# Of the tests that take minutes, not hours; ARGS="tests/nemo2 tests/e2e" measures others
coverage: $(INSTALLED)
	@$(BIN)/python -m pytest --cov --cov-report=term --cov-report=html $(or $(ARGS),tests/unit tests/golden)
	@echo "line by line: htmlcov/index.html"

tools:
	@{ command -v slurmdbd && command -v sshd && command -v rsync && command -v chromium && command -v zsh && command -v podman && command -v runc; } > /dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null || { \
		echo "installing Slurm, podman, Chromium and zsh for the tests (log: $(VENV)-tools.log)"; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(TOOLS); } \
			> $(VENV)-tools.log 2>&1 || echo "installation failed; the tests that need them are skipped"; }

lint: $(INSTALLED)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell && $(BIN)/mypy

docs: $(INSTALLED)
	@$(BIN)/python -m nemolaunch.cli.manual > docs/commands.md
	@$(BIN)/python -m nemolaunch.cli.resume_table docs/resume.md
	@$(BIN)/python -m nemolaunch.cli.backend_table docs/backends.md
	@$(BIN)/python tests/field/page.py docs/field.md

# NO_MKDOCS_2_WARNING: no advertisement of another tool
site: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict && echo "open site/index.html"

# The wheel and the sdist, the same bytes for the same commit
dist: $(INSTALLED)
	@$(BIN)/python .ci/dist.py dist

clean:
	rm -rf $(VENV) $(BRIDGE) $(VENV)-install.log $(BRIDGE)-install.log $(VENV)-tools.log $(VENV)-slurm-tests.log demo build dist site htmlcov .coverage* src/*.egg-info

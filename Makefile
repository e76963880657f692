# Every target that needs the environment makes it first: .ci/prepare installs what is missing,
# says so, and does nothing the second time.

PORT ?= 8420
PYTEST := .venv/bin/python -m pytest
# One process per core, tests of one file in one process.
PARALLEL := -n auto --dist loadfile

export PYTHON
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run demo-image test check bench soak docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Start a hub and an agent for this machine and show the page (PORT=8420)
	@.ci/prepare run
	@exec .venv/bin/lichen-hub demo --dir .run --port $(PORT)

demo-image: ## Make the image of images/demo-app and push it to a registry on the loopback
	@.ci/prepare image
	@images/demo-image start

test: check ## Run every check and test (minutes)
	$(PYTEST) $(PARALLEL) tests/contract tests/integration tests/browser tests/bench

check: ## Run the linters, the type checker and the fast tests (a minute)
	@.ci/prepare test
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	$(PYTEST) $(PARALLEL) tests/unit tests/arch

bench: ## Measure against the budgets (as root: all of them); prints a table, writes bench.json
	@.ci/prepare test
	.venv/bin/python tests/bench $(BENCH)

soak: ## Repeat the tests with random faults, many rounds each, and play a week of a fleet
	@.ci/prepare test
	LICHEN_SOAK=1 $(PYTEST) -m soak -rP -o timeout=3600 tests/unit tests/integration

docs: ## Write docs/reference anew from the code
	@.ci/prepare test
	.venv/bin/python docs/generate.py

clean: ## Remove all that was installed or built here (what `make run` stored stays in .run)
	@images/demo-image stop
	@# Podman keeps its store mounted, and .run could not be removed.
	@awk -v dir="$(CURDIR)/.run/" 'index($$2, dir) == 1 { print $$2 }' /proc/mounts | xargs -r umount
	rm -rf .venv build dist hub/web/static/vendor bench.json \
	  .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find agent hub tests docs -name __pycache__ -prune -exec rm -rf {} +

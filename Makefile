# Everything a developer or evaluator starts. Needs Python 3.11 or newer and make; nothing is installed outside
# of .venv. `make` alone lists the targets.

.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements-dev.lock

# Test and tool caches need no home, which containers and build machines may not have.
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test soak lint bench serve lock tenant-script ai-contract clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## Run everything here and do the main job (ONCE=1 ends after it, IMAGE=photo.jpg, PORT=8000)
	@$(BIN)/dermadetect demo $(if $(ONCE),--once) $(if $(IMAGE),--image "$(IMAGE)") $(if $(PORT),--port $(PORT))

# One process for each processor, each with components of its own; a server that you name has but one set of logins.
WORKERS := $(if $(TEST_DATABASE_URL),0,auto)

test: $(STAMP) ## Run the tests against real components (ARGS="tests/core -x"; TEST_DATABASE_URL=… for a server of yours)
	@$(BIN)/pytest -m "not soak" -n $(WORKERS) --maxprocesses 8 --dist loadfile $(ARGS)

soak: $(STAMP) ## Run the tests that take minutes
	@$(BIN)/pytest -m soak $(ARGS); code=$$?; [ $$code -eq 5 ] || exit $$code

lint: $(STAMP) ## Check style, format, types and the rules of who imports whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP) ## Measure against baselines and write benchmarks/results.md (ONLY=provisioning runs one)
	@$(BIN)/python -m benchmarks.run $(ONLY)

serve: $(STAMP) ## Serve the gateway on a PostgreSQL of its own, for development (PORT=8000)
	@$(BIN)/dermadetect serve --dev --with-worker $(if $(PORT),--port $(PORT))

lock: $(STAMP) ## Pin the dependencies anew, after pyproject.toml has changed (needs uv)
	@uv=$$(command -v uv || command -v $(BIN)/uv) || { echo "Needs uv: $(BIN)/pip install uv" >&2; exit 1; }; \
	for lock in "requirements.lock" "requirements-dev.lock --extra dev"; do \
		$$uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-header \
			--no-annotate --no-emit-index-url --no-emit-find-links --output-file $$lock || exit 1; \
	done

tenant-script: $(STAMP) ## Render the SQL that makes a tenant from the migrations, after these have changed
	@$(BIN)/python -m migrations.rendering

ai-contract: $(STAMP) ## Publish the contract with the AI Service, after it has changed
	@$(BIN)/dermadetect ai contract > docs/ai-service.openapi.json

clean: ## Forget the demo's data, the virtual environment and all caches
	@if [ -x $(BIN)/python ] && [ -d demo/state/postgres ]; then $(BIN)/python -c "\
	from pathlib import Path; from core.embedded_postgres import EmbeddedPostgres; \
	EmbeddedPostgres(Path('demo/state/postgres')).destroy()"; fi
	rm -rf demo $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis tests/node_modules *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment: made once, brought up to date when the lock or pyproject.toml changes.
$(STAMP): $(LOCK) pyproject.toml
	@for python in python3.13 python3.12 python3.11 python3 python3.14; do \
		if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			found=$$python; break; \
		fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "Python 3.11 or newer with venv is needed (Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; \
	fi; \
	if [ ! -x $(BIN)/python ]; then echo "Making $(VENV) with $$($$found --version)"; $$found -m venv --clear $(VENV); fi
	@echo "Installing what $(LOCK) names"
	@$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

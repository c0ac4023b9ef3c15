# The Widget Store from a terminal: `make run` opens it, `make help` says what else there is.
#
# Everything goes into .venv, and is exactly what the lock files in requirements/ name.

PYTHON ?= python3
ARGS ?=

venv := .venv
python := $(venv)/bin/python
pip := $(python) -m pip --quiet --disable-pip-version-check
uv := 0.13.8
# What may be shipped with a program under the MIT licence, as it is and without more ado.
licences := Apache-2.0;BSD;LGPL-3.0;MIT;PSF-2.0;Zope Public License
AUDIT ?=
crowds := tests/test_storm.py tests/test_phones.py

.DEFAULT_GOAL := help
.PHONY: run talk reset check test torture bench audit lock clean help
.NOTPARALLEL:

run: $(venv)/run.installed ## open the shop; Ctrl+C closes it
	@exec $(python) app.py

talk: $(venv)/run.installed ## a clean shop for a talk, with the stage, and a QR code for phones
	@exec $(python) app.py talk $(ARGS)

reset: $(venv)/run.installed ## the shop of the talk begins anew, also while it runs
	@exec $(python) app.py reset --talk $(ARGS)

check: $(venv)/test.installed ## style, types, the order of the layers, and the tests that need no shop
	@echo "Checking the style ..."
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@echo "Checking the types ..."
	@$(python) -m mypy
	@echo "Checking the order of the layers ..."
	@$(venv)/bin/lint-imports --no-logo >$(venv)/layers.log 2>&1 || { cat $(venv)/layers.log; exit 1; }
	@echo "Running the tests that need no shop ..."
	@$(python) -m pytest -n auto -m quick $(ARGS)

test: $(venv)/test.installed ## most tests, on one of the two databases; ARGS="-k refund" picks some
	@exec $(python) -m pytest -n auto $(ARGS)

# Storms and the audience by themselves: how long a shopper waits in one is part of what they look at.
torture: $(venv)/test.installed ## the rest: longer forms, many kills, sequences, faults, the other database
	@$(python) -m pytest -n auto --torture $(crowds:%=--ignore=%) $(ARGS)
	@$(python) -m pytest --torture $(crowds)

bench: $(venv)/test.installed ## measure the store beside a yardstick; ARGS=--quick takes minutes; see docs/benchmark.md
	@exec $(python) -m bench $(ARGS)

# pip-audit asks a database on the internet. Where there is none to be had, that is said, and is no fault.
audit: $(venv)/audit.installed ## known vulnerabilities, and the licences, of every package that is locked
	@echo "Asking the OSV database about what is locked ..."
	@if $(python) -m pip_audit --vulnerability-service osv --disable-pip --require-hashes $(AUDIT) \
	  -r requirements/run.txt -r requirements/test.txt 2>$(venv)/audit.log; then cat $(venv)/audit.log; \
	elif grep -qE 'ConnectionError|ConnectTimeout|ReadTimeout' $(venv)/audit.log; then \
	  echo "NOT CHECKED for vulnerabilities: the OSV database cannot be reached from here."; \
	else cat $(venv)/audit.log; exit 1; fi
	@echo "Licences of what the store needs to run:"
	@$(python) -m piplicenses --from=mixed --order=license --partial-match --allow-only="$(licences)" \
	  --packages $$(sed -n "s/==.*//p" requirements/run.txt)

# Versions already locked are kept while they fit; ARGS=--upgrade takes the newest. Constraining
# the second file by the first is what lets one .venv serve both `make run` and `make test`.
lock: ## bring the lock files in line with pyproject.toml; ARGS=--upgrade takes the newest versions
	@$(make_venv)
	@$(pip) install uv==$(uv)
	@echo "Locking ..."
	@$(compile) -o requirements/run.txt $(ARGS)
	@$(compile) -o requirements/test.txt --group test -c requirements/run.txt $(ARGS)
	@$(compile) -o requirements/audit.txt --group audit -c requirements/run.txt -c requirements/test.txt $(ARGS)

clean: ## remove .venv and the caches, but never var/, where the orders are
	@rm -rf $(venv) .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# A stamp is made only when its install is finished, and is out of date once its lock file is newer.
$(venv)/run.installed: requirements/run.txt
	@$(make_venv)
	@$(call install,$<)
	@touch $@

$(venv)/test.installed: requirements/test.txt requirements/run.txt
	@$(make_venv)
	@$(call install,$<)
	@touch $(venv)/run.installed $@

$(venv)/audit.installed: requirements/audit.txt $(venv)/test.installed
	@$(call install,$<)
	@touch $@

# While pip is at work there is no .venv/whole. If it is stopped half way, the next make therefore
# begins with a new .venv. If pip gives up by itself, as it does when it cannot download, it has
# changed nothing, and what was installed before goes on working.
define install
echo "Installing the packages in $(1), which can take a minute the first time ..."; \
rm -f $(venv)/whole; \
$(pip) install --require-hashes -r $(1) || { touch $(venv)/whole; exit 1; }; \
touch $(venv)/whole
endef

define make_venv
if [ ! -e $(venv)/whole ]; then \
  $(check_python); \
  echo "Making $(venv) with $(PYTHON) ..."; \
  $(PYTHON) -m venv --clear $(venv) && touch $(venv)/whole; \
fi
endef

define check_python
command -v $(PYTHON) >/dev/null 2>&1 || \
  { echo "widget store: there is no $(PYTHON) here; install Python 3.11 or newer, or say PYTHON=... where it is." >&2; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "widget store: $$($(PYTHON) --version 2>&1) is too old; install Python 3.11 or newer, or say PYTHON=... where it is." >&2; exit 1; }; \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
  { echo "widget store: $(PYTHON) cannot make a .venv without ensurepip; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
endef

# One lock for every Python from 3.11 and every platform; no index's address is written into it.
compile = $(venv)/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

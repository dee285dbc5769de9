# Everything runs in .venv, which is made once and again when pyproject.toml changes.
# On a fresh Debian: git, make, python3 and python3-venv are enough.

PYTHON ?= python3
VENV   ?= .venv
# Half of a worker's time is waiting for processes and sockets: one more than there are processors.
JOBS   ?= $(shell echo $$(($$(nproc) + 1)))
RUN    := $(VENV)/bin/python -m
GUARDS := $(addprefix tests/test_,layers.py sizes.py public_names.py lazy_imports.py no_paths.py references.py)

.PHONY: help demo test lowest check guards lint bench soak hil hil-vm hil-power service-box wheel deb cards driver-docs clean

help:
	@echo 'make demo     see it work: simulated board, local network, a caller'
	@echo 'make test     all tests'
	@echo 'make lowest   tests with the oldest versions of what this needs'
	@echo 'make check    format, lint, types, guards, tests'
	@echo 'make bench    benchmarks (QUICK=1)  make soak    long-running tests'
	@echo 'make hil      scenarios with faults on a simulated board; with RIG=rig.toml on a wired rig'
	@echo 'make hil-vm RIG=DIR               hardware tests in a virtual machine: DIR/run.sh --project . -- CMD'
	@echo 'make hil-power RIG=DIR            power cuts there, on a disk that loses what is not flushed'
	@echo 'make service-box RIG=DIR          the service under systemd, in a machine that DIR/build.sh and DIR/run.py make'
	@echo 'make wheel    build dist/         make cards   remake the cards of cards/*.toml'
	@echo 'make deb      Debian packages in dist/, for amd64, arm64 and armhf or ARCH=…'
	@echo 'make driver-docs                  remake drivers/docs and docs/configuration.md'
	@echo 'make clean    remove what was made, .venv too'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'device-agent needs Python 3.11 or newer: make PYTHON=python3.11 …'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(RUN) pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# What the demo needs and no more: where everything is installed already, nothing.
demo: $(if $(wildcard $(VENV)/installed),,$(VENV)/installed-demo)
	@$(RUN) device_agent demo

$(VENV)/installed-demo: pyproject.toml | $(VENV)/bin/python
	$(RUN) pip install --disable-pip-version-check --editable '.[caller]'
	@touch $@

test: $(VENV)/installed
	$(RUN) pytest -n $(JOBS) --dist loadfile -ra

# The oldest versions that pyproject.toml declares, in an environment of their own.
LOWEST := .venv-lowest/bin/python -m
LOWEST_TESTS := tests/test_private_names.py tests/bus tests/card tests/config tests/messages tests/network \
	tests/tasks tests/cli/test_text_log.py tests/journeys/test_requests.py
lowest: .venv-lowest/installed
	$(LOWEST) pytest -n $(JOBS) --dist loadfile $(LOWEST_TESTS)

.venv-lowest/installed: pyproject.toml
	rm -rf .venv-lowest && $(PYTHON) -m venv .venv-lowest
	sed -n '/^dependencies/,/^]/s/^ *"\([a-z0-9-]*\)>=\([0-9.]*\)".*/\1==\2/p' pyproject.toml > .venv-lowest/lowest.txt
	$(LOWEST) pip install --quiet --disable-pip-version-check --constraint .venv-lowest/lowest.txt --editable '.[caller,plot]' \
		cryptography hypothesis jsonschema pytest pytest-asyncio pytest-timeout pytest-xdist
	@touch $@

check: lint guards test

lint: $(VENV)/installed
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	@wc -l $$(git ls-files '*.py') | awk '$$1 > 600 && $$2 != "total" { print "note: " $$2 " has " $$1 " lines: does a thought end inside it?" }'

guards: $(VENV)/installed
	$(RUN) pytest -q $(GUARDS)

bench: $(VENV)/installed
	$(VENV)/bin/python tests/benchmarks/bench_all.py $(if $(QUICK),--quick)

soak: $(VENV)/installed
	$(RUN) pytest -s -m soak --timeout 7200

hil: $(VENV)/installed
	$(RUN) pytest hil -m 'not bench' $(if $(RIG),--rig '$(RIG)')

hil-vm:
	@test -x '$(RIG)/run.sh' || { echo 'name the folder of the virtual rig: make hil-vm RIG=DIR'; exit 2; }
	'$(RIG)/run.sh' --project . --env DEVICE_AGENT_RIG=rigsim -- python -m pytest tests/kernel
	'$(RIG)/run.sh' --project . --timeout 900 --env DEVICE_AGENT_WIRED=tests/contract/rig.virtual.toml -- python -m pytest tests/contract/test_places.py
	'$(RIG)/run.sh' --project . --timeout 1800 --env DEVICE_AGENT_SLOWNESS=8 -- python -m pytest hil --rig hil/rig.virtual.toml

hil-power:
	@test -x '$(RIG)/powercut.sh' || { echo 'name the folder of the virtual rig: make hil-power RIG=DIR'; exit 2; }
	'$(RIG)/powercut.sh' --lossy --rounds $(or $(ROUNDS),10) --project . \
		--writer 'python /project/tests/kernel/power_writer.py /data' \
		--checker 'python /project/tests/kernel/power_checker.py /data /payload/files/acks'

# The root is built from this checkout by tests/service/install.sh; each walk is a boot.
WALKS ?= minutes package faults calm plug install reboot
service-box: $(VENV)/installed
	@test -x '$(RIG)/run.py' || { echo 'name the folder of the service box: make service-box RIG=DIR'; exit 2; }
	$(VENV)/bin/python packaging/build_deb.py --arch amd64 --out build/service-box
	$(VENV)/bin/python tests/service/variants.py build/service-box/device-agent_*_amd64.deb build/service-box/walk
	SERVICEBOX_PACKAGES=pipx SERVICEBOX_INSTALL='$(CURDIR)/tests/service/install.sh' '$(RIG)/build.sh' .
	for walk in $(WALKS); do \
		echo "-- $$walk"; '$(RIG)/run.py' --timeout 3600 --mem 3072 --env SLOWNESS=$(or $(SLOWNESS),1) \
			$$(for file in tests/service/*.sh tests/service/*.toml build/service-box/walk/*.deb; do echo --file $$file; done) \
			-- "bash /payload/files/walk_$$walk.sh" || exit 1; \
	done

wheel: $(VENV)/installed
	$(RUN) build

ARCH ?= amd64 arm64 armhf
deb: $(VENV)/installed
	@for arch in $(ARCH); do $(VENV)/bin/python packaging/build_deb.py --arch $$arch || exit 1; done

cards: $(VENV)/installed
	@for file in cards/*.toml; do \
		$(RUN) device_agent --config "$$file" card --out "$${file%.toml}.card.json" || exit 1; \
	done

driver-docs: $(VENV)/installed
	rm -f drivers/docs/*.md
	$(RUN) device_agent drivers --markdown --out drivers/docs
	$(RUN) device_agent config describe --markdown --out docs/configuration.md

clean:
	rm -rf $(VENV) .venv-lowest build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

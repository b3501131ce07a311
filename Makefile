# SPDX-License-Identifier: LGPL-2.1-or-later
# Every target sets the checkout up first (scripts/setup.sh); on a checkout that is ready that does nothing.
# JOBS is the number of processes that run tests, LIBVIRT_JOBS that with libvirt, which mostly waits. ARGS goes
# to the command of the target as it is:
#     make test ARGS="tests/grammars -k disk"      make conformance PROFILE=all ARGS="--seed 7"

JOBS    ?= 2
ARGS    ?=
PROFILE ?= core
REPORT  ?= report
LIBVIRT_JOBS ?= 4
python := .venv/bin/python

conformance conformance-xen test-xen mutants seeds unit crash deep: export TMPDIR := $(shell scripts/tmpdir.sh)

.DEFAULT_GOAL := help
.PHONY: help setup conformance conformance-xen test-xen mutants seeds test lint unit crash deep bench format libvirt-start libvirt-stop conformance-libvirt wheel clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing; other targets do this by themselves
	@scripts/setup.sh

conformance: setup ## run the conformance suite against the reference toolstack; writes report/
	$(python) -m xlsnap_conformance run --profile $(PROFILE) -n $(JOBS) --report $(REPORT) $(ARGS)

mutants: setup ## see that the suite notices everything that is broken on purpose; ARGS=--quick for a few
	$(python) -m xlsnap_conformance mutants -n $(JOBS) --report $(REPORT) $(ARGS)

seeds: setup ## run the whole suite with twenty seeds and print a table; takes most of an hour
	$(python) -m xlsnap_conformance seeds -n $(JOBS) $(ARGS)

conformance-xen: setup ## the same on a nested Xen host, which is made first; writes report-xen/
	$(python) -m xlsnap_conformance host xen build
	$(python) -m xlsnap_conformance run --driver xen --profile $(PROFILE) -n $(JOBS) --report $(REPORT)-xen $(ARGS)

test-xen: setup ## boot a nested Xen host, and run one scenario with internal and one with external snapshots in it
	$(python) -m xlsnap_conformance run --driver xen --profile all -n $(JOBS) --report $(REPORT)-xen \
	    -k 'test_scenario and (memory-and-disks or [external])' $(ARGS)
	XLSNAP_TEST_XEN=1 $(python) -m pytest tests/hosts/test_nested_xen.py

test: lint unit ## check style and types, and run the tests of the kit itself

lint: setup ## check style (ruff), types (mypy), and that what lacks a test or a mutant is declared
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy
	$(python) -m xlsnap_conformance spec --links

unit: setup
	$(python) -m pytest -n $(JOBS) $(ARGS)

crash: setup ## try every point at which something can be killed; takes hours
	$(python) -m pytest -n $(JOBS) tests/crash --every-kill-point $(ARGS)

deep: setup ## search longer: twenty times the examples, deep scenarios, several seeds; takes hours
	XLSNAP_DEEP=20 $(python) -m pytest -n $(JOBS) tests/grammars tests/reference $(ARGS)
	for seed in 1 2 3 4 5; do \
	    $(python) -m xlsnap_conformance run --profile deep --seed $$seed -n $(JOBS) --report $(REPORT) || exit; \
	done

libvirt-start: setup ## start a libvirtd of the kit's own, in a private directory
	$(python) -m xlsnap_conformance host libvirt start

libvirt-stop: setup ## stop it
	$(python) -m xlsnap_conformance host libvirt stop

conformance-libvirt: libvirt-start ## run the suite against libvirt's QEMU driver; writes report/
	$(python) -m xlsnap_conformance run --driver virsh --profile $(PROFILE) -n $(LIBVIRT_JOBS) --report $(REPORT) \
		--expectations conformance/xlsnap_conformance/drivers/virsh/libvirt-9.0.toml $(ARGS); \
	status=$$?; $(python) -m xlsnap_conformance host libvirt stop; exit $$status

bench: setup ## measure speed; prints ratios and goals
	$(python) tests/bench/run.py $(ARGS)

format: setup ## let ruff rewrite the source in the project's style
	$(python) -m ruff check --fix-only .
	$(python) -m ruff format .

wheel: setup ## build the wheel into dist/
	$(python) -m pip wheel --no-deps --wheel-dir dist .

clean: ## remove what was built, and the virtual environment
	rm -rf .venv dist build $(REPORT) $(REPORT)-xen .hypothesis .pytest_cache .mypy_cache .ruff_cache
	rm -rf conformance/xlsnap_conformance/guest/images
	find grammars reference conformance tests -name __pycache__ -prune -exec rm -rf {} +

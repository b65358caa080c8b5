# `make smoke` and `make test` are all that a fresh machine needs; each target sets up .venv when it is missing.
PYTHON ?= python3
CONFIG ?= config/smoke.yaml
CORES ?= all

.PHONY: smoke test test-fast test-browser lint docs reference mutation gpu-check test-slurm clean
.DELETE_ON_ERROR:

smoke: .venv/ready # The whole workflow on scikit-learn's digits, minutes on a laptop
	.venv/bin/snakemake --cores $(CORES) --configfile $(CONFIG)

test: .venv/ready # Everything that needs no GPU, 5 to 7 minutes on two cores; one file: make test TESTS=tests/test_losses.py
	.venv/bin/python -m pytest -n auto --dist loadgroup $(TESTS)

test-fast: .venv/ready # 80 seconds on two cores
	.venv/bin/python -m pytest -n auto --dist loadgroup -m "not slow and not workflow" $(TESTS)

lint: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/snakefmt --check Snakefile
	.venv/bin/snakemake --lint --configfile $(CONFIG)

test-browser: .venv/ready # The report page in headless Chromium, two minutes; needs Debian's chromium or Google Chrome
	.venv/bin/pip install --quiet -e '.[test,browser]' -c constraints.txt
	.venv/bin/python -m pytest -m browser -rs tests/test_page.py

docs: .venv/docs # The documentation as a web site, in build/site
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

# Regenerate every table, figure, and claim in results/reference/ from the committed runs; takes seconds.
# ADD=config/NAME.yaml first adds a finished study.
reference: .venv/ready
	.venv/bin/python -m benchmarks.reference $(ADD)
	.venv/bin/python docs/reference.py

# Would the tests notice a mistake? A sample of 320 mutants, half an hour on one core; resumes (tests/mutation.py).
mutation: .venv/ready
	.venv/bin/pip install --quiet -e '.[test,mutation]' -c constraints.txt
	.venv/bin/python tests/mutation.py

# Everything that needs a GPU, nine minutes per call; resumes. Parts: CHECK="tests 'bench-*-32' --seconds 300"
gpu-check:
	$(or $(wildcard .venv/bin/python),$(PYTHON)) -m benchmarks.bench.gpu_check $(CHECK)

# Studies through a SLURM of its own with pretended GPUs, eight minutes; needs root and Debian's slurm-wlm and munge.
test-slurm: .venv/ready
	.venv/bin/pip install --quiet -e '.[test,slurm]' -c constraints.txt
	.venv/bin/python -m pytest tests/slurm --durations=0

clean:
	rm -rf .venv .snakemake build *.egg-info

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed (Snakemake): make ... PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet -e '.[test]' -c constraints.txt
	touch $@

.venv/dev .venv/docs: .venv/%: .venv/ready
	.venv/bin/pip install --quiet -e '.[$*]' -c constraints.txt
	touch $@

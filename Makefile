# Two commands do everything on a fresh machine: `make smoke` and `make test`. All set up .venv when it is missing.
PYTHON ?= python3
CONFIG ?= config/smoke.yaml
CORES ?= all

.PHONY: smoke test mutation test-slurm clean
.DELETE_ON_ERROR:

smoke: .venv/ready
	.venv/bin/snakemake --cores $(CORES) --configfile $(CONFIG)

test: .venv/ready
	.venv/bin/python -m pytest -n auto --dist loadgroup $(TESTS)

# Would the tests notice a mistake? A sample of 320 mutants, half an hour on one core; resumes (tests/mutation.py).
mutation: .venv/ready
	.venv/bin/pip install --quiet -e '.[test,mutation]' -c constraints.txt
	.venv/bin/python tests/mutation.py

# Studies through a SLURM of its own, with pretended GPUs, eight minutes: needs root, and Debian's slurm-wlm and munge.
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

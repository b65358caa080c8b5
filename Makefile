# Two commands do everything on a fresh machine: `make smoke` and `make test`. Both set up .venv when it is missing.
PYTHON ?= python3
CONFIG ?= config/smoke.yaml
CORES ?= all

.PHONY: smoke test mutation clean
.DELETE_ON_ERROR:

smoke: .venv/ready
	.venv/bin/snakemake --cores $(CORES) --configfile $(CONFIG)

test: .venv/ready
	.venv/bin/python -m pytest -n auto --dist loadgroup $(TESTS)

# Would the tests notice a mistake? A sample of 320 mutants, half an hour on one core; resumes (tests/mutation.py).
mutation: .venv/ready
	.venv/bin/pip install --quiet -e '.[test,mutation]' -c constraints.txt
	.venv/bin/python tests/mutation.py

clean:
	rm -rf .venv .snakemake build *.egg-info

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed (Snakemake): make ... PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet -e '.[test]' -c constraints.txt
	touch $@

# Each target sets up what it needs in .venv: Python 3.11 or 3.12 is all that must be there.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,12))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-slow schemas bench reference clean

## The whole job on drawn samples: train, export, verify, measure, report.
demo: $(STAMP)
	$(BIN)/melanoma-edge demo --out demo --force

## All tests but the slow ones.
test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadgroup

## The slow proofs: the full demo among them.
test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

## JSON Schemas from the models.
schemas: $(STAMP)
	$(BIN)/python -m melanoma_edge.schemas

## Start-up, training, export and verification times, into benchmarks/results.
bench: $(STAMP)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/export_verify.py

## samples/reference.bundle: cross-validate the default recipe, then train it on everything (hours; goes on where it was).
reference: $(STAMP)
	$(BIN)/python samples/make_reference.py

clean:
	rm -rf .venv build demo *.egg-info

$(STAMP): setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "melanoma-edge needs Python 3.11 or 3.12: install one, or name it with make PYTHON=/path/to/python"; exit 3; }
	$(PYTHON) -m venv .venv || { echo "making .venv failed: on Debian and Ubuntu, apt-get install python3-venv"; exit 3; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[train,test]'
	touch $(STAMP)

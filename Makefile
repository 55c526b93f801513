# Two commands are all a newcomer needs: `make demo` and `make test`. Both make the environment first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test test-all check lint types levels tests tests-all tests-quick docs format bench-solve bench-field bench-train bench-speed fuzz clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed: make setup PYTHON=python3.11'; exit 1; }
	$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--build-constraint constraints.txt --editable '.[train,data,sklearn,plots,cli,native]' --group dev --group docs
	touch $@

demo: $(READY)
	$(BIN)/python -m examples.demo

test: lint types levels tests docs

# the same with the tests marked slow, and coverage
test-all: lint types levels tests-all docs

# for daily work: no compiler, no export, no further processes, no fits, no pages of documentation
check: lint types levels tests-quick

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/pyright

levels: $(READY)
	$(BIN)/lint-imports --no-cache

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

tests: $(READY)
	$(PYTEST) -m 'not slow'

tests-all: $(READY)
	$(PYTEST) --cov --cov-report term:skip-covered

tests-quick: $(READY)
	$(PYTEST) -m 'not slow' -k 'not (compil or export or process or worker or killed or code_of_a_page)' \
		--ignore tests/estimators --ignore tests/cli --ignore tests/examples --ignore tests/speed

docs: $(READY)
	$(BIN)/mkdocs build --quiet --strict --site-dir .site

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# pass tasks or options as TASKS='poles noise' or TASKS='arm --trained-seeds 0'
bench-solve: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group bench
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.solve.table $(TASKS)

# pass groups, cases or options as TASKS='doses outliers --seeds 10'; all cases without
bench-field: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group bench
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.field.table $(or $(TASKS),--held-back)

# pass tasks as TASKS='loop memory'; timings are of an idle machine alone
bench-train: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.train.table $(TASKS)

# writes the tables of docs/performance.md; options as TASKS='--only loss', which writes nothing
bench-speed: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed.table $(or $(TASKS),--write)

# damages stored folders ten thousand times; another number as TASKS=300
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.damage $(TASKS)

clean:
	rm -rf .venv .site runs .pytest_cache .ruff_cache .hypothesis .coverage

# make train: set up, train the chapter's BERT on real text, encode with it.   make test: set up, lint, types, tests.
#   Given again it goes on where it was stopped, or shows the run once more.   make textbook: the textbook's exact recipe.
# make test-interop: set up .venv-interop with transformers and sentence-transformers, compare with them (offline).
#   BERTJAX_TABLE=FILE writes a table of families and their largest differences there.
#   BERTJAX_CASES=FOLDER compares with what they made of folders there too: tests/interop/test_cases.py says of what kind.
# make test-browser: set up .venv-browser with playwright, try the report and 'bertjax explore' in this machine's Chromium.
# make test-versions: the tests under Python 3.11 to 3.13, those of them that are here, and JAX 0.10 to 0.12, in an
#   environment each, up to twenty minutes each; -k goes on past a failure; ARGS=tests/train: those tests only.
#   make test-3.13-jax0.12: one of them.
# make test-slurm: try scripts/slurm in a SLURM of one node, set up in a temporary folder (as root, with slurm-wlm).
# make tutorial: run docs/tutorial.ipynb and keep what it shows in it.
# make fuzz: feed it thousands of damaged files and odd texts, new ones every time (an hour or so).
# make bench: time pretraining steps.   make bench ARGS="torture --kills 10": another benchmark; ARGS=--help lists them.
# make bench-quick: whether a part has become slower, beside a product of matrices, in two minutes.
# make train ARGS="--train.steps 200" passes options on to "bertjax pretrain".

ARGS :=
PYTHON = $(firstword $(foreach name,python3 python3.11 python3.12 python3.13 python3.14,$(shell \
	$(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
# The run's folder: what ARGS says, or the recipe's own.
RECIPE = chapter
RUN = $(lastword runs/$(RECIPE) $(patsubst --run_dir=%,%,$(filter --run_dir=%,$(subst --run_dir ,--run_dir=,$(ARGS)))))

.PHONY: setup train textbook test test-versions test-interop test-browser test-slurm tutorial check fuzz bench bench-quick

setup: .venv/ready

# An NVIDIA GPU needs jax's own build for it.
.venv/ready: EXTRAS = dev$(shell nvidia-smi --list-gpus >/dev/null 2>&1 && echo ,cuda)
.venv-interop/ready: EXTRAS = dev,interop
.venv-browser/ready: EXTRAS = dev,browser

.venv/ready .venv-interop/ready .venv-browser/ready: %/ready: pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "bertjax needs Python 3.11 or later, found as python3 or python3.x: install it" >&2; exit 2; }
	@echo "setting up $* with $$($(PYTHON) --version) (a minute, or a few)"
	@$(PYTHON) -m venv $*
	@$(call install,-c constraints.txt -e '.[$(EXTRAS)]')
	@touch $@

# All cores make the bytecode, where pip would have one do it.
install = $*/bin/pip install --quiet --disable-pip-version-check --no-compile $(1) || { echo "pip could not install the" \
	"packages, as it says above: it needs a network, or an index that PIP_INDEX_URL names" >&2; exit 2; }; \
	$*/bin/python -m compileall -qq -j 0 $*/lib || true

textbook: RECIPE = textbook
train textbook: setup
	.venv/bin/bertjax pretrain --config $(RECIPE) --resume $(ARGS)
	@echo
	.venv/bin/bertjax encode $(RUN) "a crane is flying"
	@echo
	.venv/bin/bertjax encode $(RUN) "a crane driver came" "he just left"
	@echo
	.venv/bin/bertjax neighbours $(RUN) --word crane --instead ship --instead file \
		--text "a crane is flying" --text "a crane driver came"
	@echo
	@echo 'go on: .venv/bin/bertjax fill-mask $(RUN) "the <mask> of the song", or try it on a page: .venv/bin/bertjax explore $(RUN)'
	@echo 'learn more: .venv/bin/bertjax pretrain --config wikitext2'

test: check
	.venv/bin/pytest --numprocesses 2 --dist worksteal

test-interop: .venv-interop/ready
	HF_HUB_OFFLINE=1 .venv-interop/bin/pytest tests/interop

# JAX from 0.11 on needs Python 3.12.
VERSIONS = $(foreach python,3.11 3.12 3.13,$(if $(shell command -v python$(python)),$(foreach jax,0.10 $(if \
	$(filter-out 3.11,$(python)),0.11 0.12),$(python)-jax$(jax))))

test-versions: $(VERSIONS:%=test-%)
	@[ -n "$(VERSIONS)" ] || { echo "make test-versions needs python3.11, python3.12 or python3.13 on the PATH" >&2; exit 2; }

$(VERSIONS:%=test-%): test-%: .venv-%/ready
	@.venv-$*/bin/python -c "import jax, platform; print('Python', platform.python_version(), 'JAX', jax.__version__)"
	.venv-$*/bin/pytest --numprocesses 2 --dist worksteal $(ARGS)

$(VERSIONS:%=.venv-%/ready): %/ready: pyproject.toml constraints.txt
	@echo "setting up $* (a minute, or a few)"
	@python$(firstword $(subst -, ,$(patsubst .venv-%,%,$*))) -m venv $*
	@grep -v '^jax\(lib\)\?==' constraints.txt >$*/constraints.txt
	@$(call install,-c $*/constraints.txt -e '.[dev]' 'jax==$(lastword $(subst -jax, ,$*)).*')
	@touch $@

CHROMIUM = $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name))))

test-browser:
	@[ -n "$(CHROMIUM)" ] || { echo "make test-browser needs Chromium: install it (apt-get install chromium)" >&2; exit 2; }
	@$(MAKE) --no-print-directory .venv-browser/ready
	.venv-browser/bin/pytest tests/browser

test-slurm: setup
	BERTJAX_SLURM=1 .venv/bin/pytest -rs tests/slurm

tutorial: setup
	.venv/bin/python scripts/tutorial.py

bench: setup
	.venv/bin/python -m benchmarks $(or $(ARGS),train)

bench-quick: setup
	.venv/bin/python -m benchmarks quick $(ARGS)

fuzz: setup
	.venv/bin/pytest tests/fuzz --hypothesis-profile long

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

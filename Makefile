# `make` lists what there is. Everything sets itself up in .venv; nothing needs root.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# The build's tools (cmake, ninja, clang-format) come from the virtual environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
NATIVE := CMakeLists.txt $(shell find cmake csrc -type f)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo demo-solar test test-triton faults fuzz-wire bench-transport cpp-test cpp-package lint format bench soak asan tsan fuzz sdist \
        wheel wheelhouse lint-deploy test-aarch64 train-mtd train-demo constraints clean

help:  ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

# ---- set-up ------------------------------------------------------------------------------------------------

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; set PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PIP) install --quiet --upgrade pip
	$(PIP) install --quiet scikit-build-core pybind11 cmake ninja 'setuptools>=70.1'
	@touch $@

$(VENV)/.runtime: $(VENV)/.created pyproject.toml constraints.txt $(NATIVE)
	$(PIP) install --quiet --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) install --quiet --no-build-isolation -e '.[train,backbone,distributed,ray,optuna,tensorboard,quantize,triton,onnxruntime,mqtt,database,modbus,opcua,stream,v4l2,pylon,genicam,track]' --group dev
	@touch $@

setup: $(VENV)/.runtime  ## Install the runtime into .venv (no torch)

setup-dev: $(VENV)/.dev  ## Install everything for training and development into .venv

# ---- look at it --------------------------------------------------------------------------------------------

demo: $(VENV)/.runtime  ## Watch the real service judge parts on a conveyor (no camera, GPU, data or account)
	$(BIN)/algan-stream demo

demo-solar: $(VENV)/.dev  ## The same on real solar cells, with a bundle trained on the spot (minutes)
	$(PIP) install --quiet elpv-dataset
	$(BIN)/python examples/solar.py

# ---- check it ----------------------------------------------------------------------------------------------

test: $(VENV)/.dev cpp-test  ## Run all tests: C++, then Python
	$(BIN)/python -m pytest

SERVERS := .venv-servers
$(SERVERS)/.created: tests/serving/requirements.txt $(VENV)/.dev
	$(BIN)/python -m venv $(SERVERS)
	PIP_CONSTRAINT= $(SERVERS)/bin/python -m pip --disable-pip-version-check install --quiet -r tests/serving/requirements.txt
	PIP_CONSTRAINT= $(SERVERS)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps nvidia-pytriton==0.7.0
	@touch $@

test-triton: $(VENV)/.dev $(SERVERS)/.created  ## Test the `triton` engine and exports on a real Triton and MLServer
	$(BIN)/python -m pytest tests/test_engine_triton.py tests/test_engine_triton_faults.py tests/test_serving.py

faults: $(VENV)/.dev  ## Faults of a factory on real processes, as long as they last out there (15 minutes)
	ALGAN_FAULTS=long $(BIN)/python -m pytest tests/test_faults.py

MESSAGES ?= 1000000
fuzz-wire: $(VENV)/.dev  ## Throw MESSAGES=1000000 broken messages at a service, with a healthy client beside them
	$(BIN)/python tests/fuzz/fuzz_wire.py --messages $(MESSAGES)

cpp-test: $(VENV)/.created  ## Build and run the C++ tests
	cmake --preset dev -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
	cmake --build --preset dev
	ctest --preset dev

cpp-package: $(VENV)/.created  ## Install the C++ library into build/prefix, build examples/cpp with it and run that
	cmake -P tests/cpp/package_test.cmake

lint: $(VENV)/.dev  ## Check style and types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

format: $(VENV)/.dev  ## Format everything
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

asan: $(VENV)/.created  ## Run the C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
	cmake --preset asan-ubsan && cmake --build --preset asan-ubsan && ctest --preset asan-ubsan

tsan: $(VENV)/.created  ## Run the C++ tests under ThreadSanitizer
	cmake --preset tsan && cmake --build --preset tsan && ctest --preset tsan

test-aarch64: $(VENV)/.created  ## Build the C++ tests for 64-bit ARM and run them under qemu
	@{ command -v aarch64-linux-gnu-g++ && { command -v qemu-aarch64-static || command -v qemu-aarch64; }; } >/dev/null || \
	  { echo "On Debian and Ubuntu: apt install g++-aarch64-linux-gnu qemu-user-static"; exit 1; }
	cmake --preset aarch64 && cmake --build --preset aarch64 && ctest --preset aarch64

MINUTES ?= 10
fuzz: $(VENV)/.dev  ## Throw anything at the bindings for MINUTES=10 under AddressSanitizer and UBSan
	cmake --preset fuzz -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python && cmake --build --preset fuzz
	LD_PRELOAD=$$($(CXX) -print-file-name=libasan.so):$$($(CXX) -print-file-name=libubsan.so) PYTHONMALLOC=malloc \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	  $(BIN)/python tests/fuzz/fuzz_preprocess.py --minutes $(MINUTES) --last-seed build/fuzz/last-seed \
	  --core $$(ls build/fuzz/_core*.so)

soak: $(VENV)/.runtime  ## Eight cameras and a client with boxes against one service, for SOAK_MINUTES=30
	$(BIN)/python benchmarks/soak.py --minutes $(or $(SOAK_MINUTES),30)

bench: $(VENV)/.runtime  ## Measure against peers on this machine; rows go to build/bench-*.json
	mkdir -p build
	$(BIN)/algan-stream bench preprocess --json build/bench-preprocess.json
	$(BIN)/algan-stream bench engine --json build/bench-engine.json
	$(BIN)/algan-stream bench pipeline --json build/bench-pipeline.json

bench-transport: $(VENV)/.dev  ## 1080p frames between processes: ours, imagezmq, NetGear (minutes; has them from PyPI)
	$(BIN)/python benchmarks/transport.py

# ---- pack it -----------------------------------------------------------------------------------------------

sdist:  ## Build the source distribution into dist/ and check what is in it
	tests/packaging/sdist.sh $(PYTHON)

wheel: sdist  ## Build the wheel from it into dist/, and test it installed, outside of this folder
	tests/packaging/wheel.sh $(PYTHON)

wheelhouse:  ## Pack all wheels and an installer for a machine without a network into dist/wheelhouse
	deploy/wheelhouse/build.sh $(PYTHON)

lint-deploy:  ## Check every file under deploy/ with its tool: images, units, chart, alerts, scripts
	deploy/checks/lint.sh $(PYTHON)

# ---- train -------------------------------------------------------------------------------------------------

train-demo: $(VENV)/.dev  ## Train the bundle that ships as `demo` again (under an hour on 2 cores)
	$(BIN)/python examples/train_demo.py

train-mtd: $(VENV)/.dev  ## Train on Magnetic Tile Defects under $$ALGAN_DATA/mtd (about an hour on 2 cores)
	@test -n "$(ALGAN_DATA)" || { echo "set ALGAN_DATA to the folder that holds mtd/"; exit 1; }
	$(BIN)/algan-stream train "$(ALGAN_DATA)/mtd" --out runs/mtd128 --config trainer/configs/mtd.toml

constraints: $(VENV)/.dev  ## Write constraints.txt from what is installed
	@{ echo "# The versions everything is developed and tested with (Python 3.11). Made by: make constraints"; \
	   $(PIP) freeze --all --exclude-editable | grep -viE '^(algan|setuptools)' | \
	   sed -E 's/^(torch==[0-9.]+).*/\1/; s/^(numpy==.*)/\1; python_version >= "3.11"/'; } > constraints.tmp
	mv constraints.tmp constraints.txt

clean:  ## Remove what was built (.venv and runs/ stay)
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache

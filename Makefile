# Everything a newcomer types. `make` alone lists the targets.
#
# One cache folder holds what is not in the tree: libraries, models, compiled crates and built plugins.
# One profile and always the whole workspace: a crate asked for with other features would be compiled twice.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

FORMWORK_CACHE ?= $(HOME)/.cache/formwork
CARGO_TARGET_DIR ?= $(FORMWORK_CACHE)/target
# The programs run in other folders than this one: relative paths would then mean something else.
override FORMWORK_CACHE := $(abspath $(FORMWORK_CACHE))
override CARGO_TARGET_DIR := $(abspath $(CARGO_TARGET_DIR))
export FORMWORK_CACHE CARGO_TARGET_DIR

# Real forms and texts for the tests lie beside the clone where they are provided. Without them the tests
# that need them say that they were skipped.
ifneq ($(wildcard ../shared/data/.),)
export FORMWORK_TEST_DATA ?= $(abspath ../shared/data)
endif

# A shell that was open while Rust was installed does not have its folder in PATH yet.
ifeq ($(shell command -v cargo 2>/dev/null),)
export PATH := $(HOME)/.cargo/bin:$(PATH)
endif

PLUGINS := validate classify extract respond export
FORMWORK := $(CARGO_TARGET_DIR)/release/formwork
CARGO_FLAGS := --release --locked --workspace

# Hosts that are measured beside Formwork; see docs/benchmarks.md.
PEERS := $(FORMWORK_CACHE)/peers
WASMTIME_VERSION := 48.0.8
WASMTIME_FEATURES := run,serve,wizer,compile,cranelift,component-model,component-model-async,pooling-allocator,parallel-compilation
PEERS_REPORT ?= $(PEERS)/report.md
PEERS_FLAGS ?=
QUEUES_REPORT ?= $(PEERS)/queues.md
QUEUES_FLAGS ?=
MODELS_REPORT ?= $(PEERS)/models.md
MODELS_FLAGS ?=
IMAGE_FLAGS ?=

.PHONY: help rust setup guest-tools test-servers build plugins run demo lint test bench bench-peers bench-queues bench-models convert-encoder check-peers campaign campaign-cluster kill-ai old-cpu fuzz broken-fence image clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

rust:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust as https://rustup.rs says" >&2; exit 2; }

setup: ## install or name what the machine lacks, fetch libraries and models
	@scripts/setup.sh

guest-tools: ## also install what makes plugins of Python and JavaScript
	@scripts/setup.sh --guests

test-servers: ## also install the servers that tests start
	@scripts/setup.sh --servers

build: rust setup ## build the host and the first-party plugins
	cargo build $(CARGO_FLAGS)
	@$(MAKE) --no-print-directory plugins

# The builder skips a plugin whose sources have not changed.
plugins:
	@for plugin in $(PLUGINS); do "$(FORMWORK)" plugin build "plugins/$$plugin" --out "$(FORMWORK_CACHE)/plugins"; done

run: build ## show the example forms at work, then serve on localhost
	"$(FORMWORK)" demo --serve

demo: build ## show the example forms at work, then end; fails if one did not end as expected
	"$(FORMWORK)" demo

lint: rust ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	@if [ -f plugins/Cargo.toml ]; then echo "cargo fmt (plugins)"; cargo fmt --manifest-path plugins/Cargo.toml --all --check; fi
	cargo fmt --manifest-path tests/peers/Cargo.toml --check
	cargo fmt --manifest-path tests/peers/guests/Cargo.toml --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings

test: guest-tools test-servers build lint ## build, lint, all tests, then the demo
	cargo test $(CARGO_FLAGS)
	"$(FORMWORK)" demo

bench: build ## measure validation, tasks, HTTP, embeddings and generation on this machine
	"$(FORMWORK)" bench
	"$(FORMWORK)" bench engine
	"$(FORMWORK)" bench publish

# Not part of `make test`: the first run compiles two more wasmtimes.
bench-peers: build $(PEERS)/wasmtime-$(WASMTIME_VERSION) ## measure wasmtime serve and Extism beside Formwork
	cargo build --release --locked --manifest-path tests/peers/Cargo.toml
	"$(CARGO_TARGET_DIR)/release/formwork-peers" --formwork "$(FORMWORK)" --guests tests/peers/guests \
	  --wasmtime "$(PEERS)/wasmtime-$(WASMTIME_VERSION)/bin/wasmtime" --work host/server/bench --out "$(PEERS)" \
	  --report "$(PEERS_REPORT)" $(PEERS_FLAGS)

bench-queues: build ## measure Celery and BullMQ on Redis beside Formwork's queue
	@mkdir -p "$(PEERS)/queues"
	python3 tests/peers/queues/run.py --formwork "$(FORMWORK)" --cache "$(PEERS)/queues" --report "$(QUEUES_REPORT)" $(QUEUES_FLAGS)

bench-models: build ## measure Python onnxruntime, PyTorch and llama.cpp's server beside Formwork's models
	@mkdir -p "$(PEERS)/models"
	python3 tests/peers/models/run.py --formwork "$(FORMWORK)" --models "$(FORMWORK_CACHE)/models" --cache "$(PEERS)/models" \
	  --report "$(MODELS_REPORT)" $(MODELS_FLAGS)

# What `lint` and `test` do for the workspace, for the peers.
check-peers: rust
	cargo clippy --release --locked --manifest-path tests/peers/Cargo.toml --all-targets -- -D warnings
	cargo clippy --release --locked --manifest-path tests/peers/guests/Cargo.toml --workspace --all-targets -- -D warnings
	cargo test --release --locked --manifest-path tests/peers/Cargo.toml
	cargo test --release --locked --manifest-path tests/peers/guests/Cargo.toml --package formwork-peer-logic

# A folder for each version: an older one is not taken for this one.
$(PEERS)/wasmtime-$(WASMTIME_VERSION):
	cargo install wasmtime-cli --version $(WASMTIME_VERSION) --locked --no-default-features \
	  --features $(WASMTIME_FEATURES) --root "$@.new"
	mv "$@.new" "$@"

# Coverage counters in everything that is compiled: stable Rust has the pass, cargo-fuzz only adds nightly's sanitisers.
FUZZ ?= host_calls
FUZZ_SECONDS ?= 60
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
HOST_TARGET = $(shell rustc -vV | sed -n 's/^host: //p')

# Not part of `make test`, which runs ten kills of it.
CAMPAIGN_FLAGS ?= --kills 1000

# Only the plugins of its form: the others want models, and a start is a good part of a kill's time.
campaign campaign-cluster: build
	@rm -rf "$(FORMWORK_CACHE)/campaign" && mkdir -p "$(FORMWORK_CACHE)/campaign/plugins"
	@cp "$(FORMWORK_CACHE)"/plugins/validate-*.wasm "$(FORMWORK_CACHE)"/plugins/export-*.wasm "$(FORMWORK_CACHE)/campaign/plugins"
	cd "$(FORMWORK_CACHE)/campaign" && "$(CARGO_TARGET_DIR)/release/formwork-campaign" --formwork "$(FORMWORK)" --plugins plugins $(CAMPAIGN_MODE) $(CAMPAIGN_FLAGS)

campaign: ## kill the server a thousand times and check that nothing acknowledged was lost or doubled
campaign-cluster: test-servers ## the same for many nodes: any node, Redis and the MongoDB-protocol server are killed
campaign-cluster: CAMPAIGN_MODE := --many-nodes

# Not part of `make test`, which runs three kills of it.
KILL_AI_FLAGS ?= --kills 100

kill-ai: build test-servers ## kill the AI process a hundred times in mid-generation; compare the API's latencies
	@mkdir -p "$(FORMWORK_CACHE)/campaign"
	cd "$(FORMWORK_CACHE)/campaign" && "$(CARGO_TARGET_DIR)/release/formwork-kill-ai" --formwork "$(FORMWORK)" $(KILL_AI_FLAGS)

# Not part of `make test`: it needs qemu-user.
OLD_CPU := CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="qemu-x86_64 -cpu qemu64" cargo test $(CARGO_FLAGS)

old-cpu: build ## let the generator write and the encoder embed on an emulated x86-64 CPU without vector units
	$(OLD_CPU) --test cpu_variants -- --ignored --exact write
	$(OLD_CPU) --test embeddings -- similar

# Not part of `make test`: the first run fetches 134 MB.
ENCODER ?=

convert-encoder: ## make ONNX files of a sentence encoder, fp32 and int8, and compare: ENCODER=FOLDER, else all-MiniLM-L6-v2
	@scripts/convert-encoder.sh $(ENCODER)

fuzz: rust setup ## look for inputs that break a promise: FUZZ=package|host_calls|lifting|model_file FUZZ_SECONDS=60
	@mkdir -p fuzz/artifacts fuzz/corpus/$(FUZZ)
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo run --release --locked --manifest-path fuzz/Cargo.toml --target $(HOST_TARGET) --bin $(FUZZ) -- \
	  fuzz/corpus/$(FUZZ) -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=fuzz/artifacts/$(FUZZ)- -max_len=4096

broken-fence: rust ## show that the suites notice when stale workers are heard
	@scripts/broken-fence.sh

# A context of its own: what the image holds is what lies here.
image: build ## make the container image formwork:latest; needs Docker
	@rm -rf "$(FORMWORK_CACHE)/image" && mkdir -p "$(FORMWORK_CACHE)/image/bin" "$(FORMWORK_CACHE)/image/share"
	@ln "$(FORMWORK)" "$(FORMWORK_CACHE)/image/bin/formwork"
	@cp -al "$(FORMWORK_CACHE)/lib" "$(FORMWORK_CACHE)/models" "$(FORMWORK_CACHE)/plugins" "$(FORMWORK_CACHE)/image/share/"
	@cp -a examples "$(FORMWORK_CACHE)/image/share/"
	docker build --tag formwork:latest --file Dockerfile $(IMAGE_FLAGS) "$(FORMWORK_CACHE)/image"

clean: ## remove what was compiled; libraries and models stay
	@if command -v cargo >/dev/null; then cargo clean; fi
	rm -rf "$(FORMWORK_CACHE)/plugins"

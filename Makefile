# What there is to do with a checkout. `make` alone lists it.

# Outside of the checkout, so that a second run, or a second checkout, finds what was built.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/causerie/target
export PATH := $(HOME)/.cargo/bin:$(PATH)

CARGO := cargo
DEV := $(CARGO_TARGET_DIR)/debug/causerie
RELEASE := $(CARGO_TARGET_DIR)/release/causerie
NAME ?= admin
# What the HTTP tests asked and were answered, for tests/openapi.
EXCHANGES := $(CARGO_TARGET_DIR)/tmp/exchanges

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run admin build test check fmt clippy tidy doc deny typos bench complement book tools setup

help: ## Lists the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: build ## Builds in release and starts a server on 127.0.0.1:8008, with its data under ./data
	@scripts/run $(RELEASE)

admin: build ## Makes an administrator of that server, while it is stopped: make admin NAME=alice
	@$(RELEASE) admin create-user $(NAME) --admin --config data/causerie.toml

build: setup ## Builds in release
	$(CARGO) build --release --locked

# One profile, and every time the whole workspace, so that nothing (above all not RocksDB) is
# compiled twice.
test: fmt clippy doc tidy ## Everything that CI runs
	@rm -rf $(EXCHANGES)
	CAUSERIE_EXCHANGES=$(EXCHANGES) $(CARGO) test --locked --workspace
	@tests/openapi/run $(EXCHANGES)
	@for run in tests/clients/run tests/peers/run tests/crash/run; do \
		if [ -x $$run ]; then echo "$$run" && $$run --binary $(DEV) || exit 1; fi; \
	done

check: fmt clippy tidy doc deny typos ## Formatting, lints, tidiness, documentation, licenses

fmt: setup
	$(CARGO) fmt --all --check

clippy: setup
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

tidy: setup
	$(CARGO) test --locked --workspace --test tidy

doc: setup
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

# The database of advisories needs the internet; the rest does not.
deny:
	@if ! command -v cargo-deny >/dev/null; then \
		echo "deny: skipped, cargo-deny is not installed (make tools)"; \
	else \
		cargo-deny --workspace check licenses bans sources && \
		if cargo-deny --workspace fetch db >/dev/null 2>&1; then \
			cargo-deny --workspace check advisories; \
		else \
			echo "deny: the database of advisories is not reachable, so it was not checked"; \
		fi; \
	fi

typos:
	@if command -v typos >/dev/null; then typos; \
	else echo "typos: skipped, it is not installed (make tools)"; fi

bench: setup ## Measures a server of its own under load
	@# Built together, so that both use the same dependencies and none is built twice.
	$(CARGO) build --release --locked --package causerie --package load
	$(CARGO_TARGET_DIR)/release/load --binary $(RELEASE)

complement: ## Runs the acceptance suite: make complement [TESTS=csapi] [RUN=TestSync] [BINARY=PATH]
	@[ -n "$(BINARY)" ] || $(MAKE) build
	@complement/run --binary "$(or $(BINARY),$(RELEASE))" --tests "$(TESTS)" --run "$(RUN)"

book: ## Builds the operator's book, into the target folder
	mdbook build docs --dest-dir $(CARGO_TARGET_DIR)/book

tools: setup ## Installs what `make check` and `make book` use when it is there
	$(CARGO) install --locked cargo-deny typos-cli mdbook

setup:
	@scripts/setup

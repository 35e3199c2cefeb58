# Everything a developer types. `make` alone lists it.
#
# The product (the workspace of this directory) builds, lints and tests with rustup alone. What works on clusters
# (the workspace in lab) needs Go 1.26 or newer too. On Debian, a target that runs as root installs what else it needs.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
# The workspace of everything that needs clusters. Both workspaces share what they build.
LAB := --manifest-path lab/Cargo.toml --target-dir $(TARGET)
# Always the same packages of it, of which --bin and --test choose: which features crates have depends on the selection,
# and another selection is another build of most of them. The program that parses Rust has other features than all
# others need.
CYCLES := $(LAB) --package import-cycles
LAB_ALL := $(LAB) --workspace --exclude import-cycles
APPS := --manifest-path lab/apps/Cargo.toml --target-dir $(TARGET)
VERSION := $(shell sed -n '/^\[workspace.package\]/,/^$$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
TRIPLE := $(shell uname -m)-unknown-linux-gnu

# Tools that are built once and kept outside of the repository.
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/otelagent-tools
DENY_VERSION := 0.20.2
DENY := $(TOOLS)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
MDBOOK_VERSION := 0.5.4
MDBOOK := $(TOOLS)/mdbook-$(MDBOOK_VERSION)/bin/mdbook
ACTIONLINT_VERSION := 1.7.12
ACTIONLINT := $(TOOLS)/actionlint-$(ACTIONLINT_VERSION)/actionlint

# Where tests note what this machine could not run.
SKIPS := $(abspath $(TARGET))/skipped.txt
# A log for each lane of tests.
TEST_LOGS := $(abspath $(TARGET))/test-logs

heading = @printf '\n== %s  %s\n' "$$(date +%T)" $(1)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: rust ## Build everything for development
	$(CARGO) build --workspace --locked
	$(CARGO) build $(LAB) --workspace --locked

.PHONY: images
images: prerequisites ## Build the operator's and the agent's image, as OCI tars that any engine loads
	$(call heading,'static binaries')
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --release --locked --target $(TRIPLE) \
	    --target-dir $(TARGET) --package otelagent-agent
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --profile operator --locked --target $(TRIPLE) \
	    --target-dir $(TARGET) --package otelagent-operator
	$(call heading,'images')
	mkdir -p $(TARGET)/images
	for binary in operator/otelagent-operator release/otelagent-agent; do \
	    name=$${binary#*/otelagent-}; \
	    $(CARGO) run $(LAB) --quiet --locked --package testbed -- image --name otelagent/$$name:$(VERSION) --ca-bundle \
	        --entrypoint /otelagent-$$name --out $(TARGET)/images/otelagent-$$name-$(VERSION).tar \
	        $(TARGET)/$(TRIPLE)/$$binary=/otelagent-$$name; \
	done
	ls -sh $(TARGET)/images/otelagent-*.tar

NEW ?=
# What names the version: the two workspaces and the applications of the tests, what is installed, and what people read.
VERSIONED := Cargo.toml lab/Cargo.toml lab/apps/Cargo.toml Dockerfile docs/getting-started.md docs/operations.md \
    manifests/default/operator.yaml manifests/webhook/webhook.yaml charts/otelagent/Chart.yaml

.PHONY: set-version
set-version: new-version rust ## Make NEW the version of everything, as in NEW=0.2.0
	sed -i -e 's/^\(version = "\)$(VERSION)"/\1$(NEW)"/' -e 's/^\(version: "\?\|appVersion: "\?\)$(VERSION)/\1$(NEW)/' \
	    -e 's/\(operator\|agent\)\([:-]\)$(VERSION)/\1\2$(NEW)/' $(VERSIONED)
	for workspace in . lab lab/apps agent/fuzz; do \
	    $(CARGO) update --workspace --quiet --manifest-path $$workspace/Cargo.toml; done

# Before anything is changed. What follows a plus cannot be in the tag of an image.
.PHONY: new-version
new-version:
	@new='$(NEW)'; number='(0|[1-9][0-9]*)'; \
	[[ $$new =~ ^$$number\.$$number\.$$number(-[0-9A-Za-z]+([.-][0-9A-Za-z]+)*)?$$ ]] || { \
	    echo "NEW=$$new is no version: it has three numbers, as in NEW=0.2.0 or NEW=0.2.0-rc.1"; exit 1; }

SBOM_VERSION := 0.10.0
SBOM := $(TOOLS)/cargo-sbom-$(SBOM_VERSION)/bin/cargo-sbom
CRANE_VERSION := 0.22.1
CRANE := $(TOOLS)/crane-$(CRANE_VERSION)/crane
RELEASE ?= $(TARGET)/release-$(VERSION)
# Where the images of a release are. Whoever has no account there sets it, to a registry of their own.
REGISTRY ?=
override REGISTRY := $(patsubst %/,%,$(REGISTRY))

.PHONY: release
release: registry-name prerequisites $(SBOM) ## Build everything of a release: binaries, images, manifests, chart, SBOMs, checksums; for REGISTRY
	$(call heading,'test bed: it writes images')
	$(CARGO) build $(LAB_ALL) --locked --bin testbed
	CARGO='$(CARGO)' TARGET=$(abspath $(TARGET)) TESTBED=$(abspath $(TARGET))/debug/testbed SBOM=$(SBOM) \
	    REGISTRY='$(REGISTRY)' packaging/release $(abspath $(RELEASE))

# The registry of a test has no encryption: CRANE_FLAGS=--insecure.
.PHONY: images-push
images-push: registry-given registry-name $(CRANE) ## Push the images that make release built to REGISTRY, for all architectures
	for name in agent operator; do \
	    image=$(RELEASE)/otelagent-$$name-$(VERSION).oci.tar; \
	    [ -f "$$image" ] || { echo "$$image is missing: run make release first"; exit 1; }; \
	    layout=$$(mktemp -d) && tar -xf "$$image" -C $$layout \
	        && $(CRANE) push --index $(CRANE_FLAGS) $$layout $(REGISTRY)/$$name:$(VERSION) && rm -r $$layout || exit 1; \
	done

.PHONY: registry-given
registry-given:
	@[ -n '$(REGISTRY)' ] || { echo 'REGISTRY names the registry and the path in it, as in REGISTRY=ghcr.io/otelagent'; exit 1; }

# Before anything is built. Names of images have no scheme and no capitals.
.PHONY: registry-name
registry-name:
	@registry='$(REGISTRY)'; \
	[[ -z $$registry || $$registry =~ ^[][A-Za-z0-9.:-]+(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$$ ]] || { \
	    echo "REGISTRY=$$registry is no registry: it is a host and a path in small letters, without https://"; exit 1; }

$(SBOM):
	$(call heading,'build cargo-sbom $(SBOM_VERSION)')
	mkdir -p $(TOOLS)
	CARGO_PROFILE_DEV_DEBUG=false $(CARGO) install cargo-sbom --version $(SBOM_VERSION) --locked --debug --quiet \
	    --root $(TOOLS)/cargo-sbom-$(SBOM_VERSION) --target-dir $(TOOLS)/build
	rm -rf $(TOOLS)/build

$(CRANE):
	$(call heading,'build crane $(CRANE_VERSION)')
	mkdir -p $(@D)
	GOBIN=$(@D) go install github.com/google/go-containerregistry/cmd/crane@v$(CRANE_VERSION)

# The Kubernetes releases whose API servers tests can run on. A change is tested on the oldest, which knows the
# fewest fields and kinds and has the webhook engine alone, and on the newest, where everything else is tested, too.
# Each of the others costs five minutes of compilation on a fresh machine, and what it refuses one of these two has
# refused so far: test-full has them all, and so has the public workflow, each in a job of its own (test-api).
ALL_RELEASES := 1.33 1.35 1.36 1.37
RELEASES ?= 1.33 1.37
# Those with the policy engine.
POLICY_RELEASES := 1.36 1.37

.PHONY: test-unit
test-unit: rust ## The product's own tests: no root, no Go, no cluster (3 minutes)
	$(call heading,'tests of the product')
	@# What needs root is skipped, and says so, also where CI=true: it is run by make test.
	CI= $(CARGO) test --workspace --locked --no-fail-fast

.PHONY: test
test: lint lint-lab ## Everything that a change must pass: lint, all tests side by side, then what this machine could not run
	$(call heading,'tests')
	@rm -f $(SKIPS); touch $(SKIPS); failed=0; \
	CARGO='$(CARGO)' TARGET=$(abspath $(TARGET)) LOGS=$(TEST_LOGS) SKIPS=$(SKIPS) \
	    RELEASES='$(RELEASES)' ALL_RELEASES='$(ALL_RELEASES)' lab/run-tests || failed=1; \
	printf '\n== %s  not run here\n' "$$(date +%T)"; \
	sed -n 's/^[0-9:]* *[a-z]* *test \(.*\) \.\.\. ignored.*/otelagent-skip: \1: marked as ignored/p' \
	    $(TEST_LOGS)/*.log >> $(SKIPS); \
	sort --unique --output=$(SKIPS) $(SKIPS); \
	if [ ! -s $(SKIPS) ]; then echo 'nothing'; \
	elif cat $(SKIPS); [ "$${CI:-}" = true ]; then echo 'In CI that is a failure: nobody would notice.'; failed=1; fi; \
	awk -v here="$$(wc -l < $(SKIPS))" 'sub(/.*test result: /, "") {passed += $$2; failed += $$4} \
	    END {printf "\n%d passed, %d failed, %d skipped\n", passed, failed, here}' $(TEST_LOGS)/*.log; \
	exit $$failed

.PHONY: test-full
test-full: test-released-agent fuzz ## The same with what takes long: all releases, images and agent as shipped, fuzzing, a crash and an error at every write of the controller, 500 edits of a running object
	OTELAGENT_FULL=1 OTELAGENT_SHIPPED=1 $(MAKE) --no-print-directory test RELEASES='$(ALL_RELEASES)'

RELEASED_AGENT := $(TARGET)/$(TRIPLE)/release/otelagent-agent

.PHONY: test-released-agent
test-released-agent: released-agent ## The agent's tests against the static binary that is released
	$(call heading,'tests of the released agent')
	OTELAGENT_AGENT=$(abspath $(RELEASED_AGENT)) $(CARGO) test --locked --package otelagent-agent --test agent

.PHONY: released-agent
released-agent: rust
	$(call heading,'static binary of the agent')
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --release --locked --target $(TRIPLE) \
	    --target-dir $(TARGET) --package otelagent-agent

KUBERNETES ?= 1.37
# The tests that are of one release end with it, as in _on_1_33.
API_TESTS = _$(subst .,_,$(KUBERNETES)) $(if $(filter $(KUBERNETES),$(POLICY_RELEASES)),inject::) \
    $(foreach release,$(filter-out $(KUBERNETES),$(ALL_RELEASES)),--skip _$(subst .,_,$(release)))

.PHONY: test-api
test-api: prerequisites ## The tests on one API server without nodes, of release KUBERNETES (1.37): what is shipped, and injection
	$(if $(filter $(KUBERNETES),$(ALL_RELEASES)),,$(error KUBERNETES is one of $(ALL_RELEASES)))
	$(call heading,'tests on Kubernetes $(KUBERNETES)')
	$(CARGO) test $(LAB_ALL) --locked --test releases -- _$(subst .,_,$(KUBERNETES))
	OTELAGENT_KUBERNETES=$(KUBERNETES) $(CARGO) test $(LAB_ALL) --locked --test tests -- $(API_TESTS)

TEST ?=

.PHONY: test-lab
test-lab: prerequisites ## Those tests that need API servers or nodes whose names hold TEST, as in TEST=cluster::modes
	$(CARGO) test $(LAB_ALL) --locked --test tests -- $(TEST)

# Cluster tests that need nodes of the bed's own: they read its audit log, cut a node's power, restart its API server,
# or choose its addresses.
OWN_NODES := cluster::rest:: node_losing_power first_spans_of_every_pod restarted_api_server sdks_send_all_signals_with

.PHONY: test-kubeconfig
test-kubeconfig: prerequisites ## Cluster tests on the cluster that KUBECONFIG names, which must be there to be thrown away
	@[ -n "$${KUBECONFIG:-}" ] || { echo 'KUBECONFIG names no cluster'; exit 1; }
	$(call heading,'tests on the cluster of KUBECONFIG')
	$(CARGO) test $(LAB_ALL) --locked --test tests -- cluster:: $(addprefix --skip ,$(OWN_NODES)) --test-threads=1

.PHONY: test-images
test-images: prerequisites ## Build the images that test-kubeconfig needs on the cluster's nodes, and list their files
	@$(CARGO) run $(LAB) --quiet --locked --package demo -- images

# libFuzzer needs no nightly toolchain where no sanitizer is asked for: these options are stable.
FUZZ := agent/fuzz
FUZZ_TARGETS := scan json edits framing inflate segment config status upstream connection
FUZZ_SECONDS := 60
FUZZ_BUILD := $(abspath $(TARGET))/fuzz
FUZZ_COVERAGE := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares

.PHONY: fuzz
fuzz: rust ## Fuzz everything in the agent that parses bytes, FUZZ_SECONDS each (60), two at a time
	$(call heading,'build the fuzz targets')
	cd $(FUZZ) && RUSTFLAGS='$(FUZZ_COVERAGE)' $(CARGO) build --release --locked --bins --quiet \
	    --target $(TRIPLE) --target-dir $(FUZZ_BUILD)
	$(call heading,'fuzz for $(FUZZ_SECONDS) s each')
	@mkdir -p $(addprefix $(FUZZ_BUILD)/corpus/,$(FUZZ_TARGETS)) $(FUZZ_BUILD)/found
	@printf '%s\n' $(FUZZ_TARGETS) | xargs -P 2 -I NAME bash -c '\
	    if $(FUZZ_BUILD)/$(TRIPLE)/release/NAME -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 \
	        -max_len=8192 -artifact_prefix=$(FUZZ_BUILD)/found/NAME- \
	        $(FUZZ_BUILD)/corpus/NAME $(FUZZ)/seeds/NAME > $(FUZZ_BUILD)/NAME.log 2>&1; \
	    then echo "NAME: $$(tail -n 1 $(FUZZ_BUILD)/NAME.log)"; \
	    else echo "NAME failed; its input is in $(FUZZ_BUILD)/found:"; tail -n 30 $(FUZZ_BUILD)/NAME.log; exit 1; fi'

.PHONY: lint
lint: rust format sizes clippy doc cycles deny generated ## The product without its tests: format, clippy, docs, import cycles, dependencies, generated files

.PHONY: lint-lab
lint-lab: prerequisites format-lab clippy-lab deny-lab workflows ## The same of lab, and the workflows; needs Go

.PHONY: format
format:
	$(call heading,'format')
	$(CARGO) fmt --all --check
	$(CARGO) fmt --check --manifest-path agent/fuzz/Cargo.toml

.PHONY: format-lab
format-lab:
	$(call heading,'format of lab')
	$(CARGO) fmt --all --check --manifest-path lab/Cargo.toml
	$(CARGO) fmt --all --check --manifest-path lab/apps/Cargo.toml
	files=$$(gofmt -l lab); if [ -n "$$files" ]; then echo "run gofmt -w $$files"; exit 1; fi

# clippy.toml has the limit of a function.
.PHONY: sizes
sizes:
	$(call heading,'files of at most 600 lines')
	files=$$(find src crates agent tests lab -name target -prune -o -name '*.rs' -exec awk 'FNR == 601 {print FILENAME}' {} +); \
	    if [ -n "$$files" ]; then echo 'split these files, which have more than 600 lines:'; echo "$$files"; exit 1; fi

.PHONY: clippy
clippy:
	$(call heading,'clippy')
	$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings
	@# What the operator uses of the agent; the workspace as a whole always builds all of it.
	$(CARGO) clippy --package otelagent-agent --no-default-features --locked -- --deny warnings

.PHONY: clippy-lab
clippy-lab:
	$(call heading,'clippy of lab')
	$(CARGO) clippy $(LAB_ALL) --all-targets --locked -- --deny warnings
	$(CARGO) clippy $(CYCLES) --all-targets --locked -- --deny warnings
	$(CARGO) clippy $(APPS) --all-targets --locked -- --deny warnings

# Nothing is published, so that documentation always holds private items and may link to them.
.PHONY: doc
doc:
	$(call heading,'documentation')
	RUSTDOCFLAGS='--deny warnings --allow rustdoc::private-intra-doc-links' $(CARGO) doc --workspace --no-deps --document-private-items --locked --quiet

.PHONY: workflows
workflows: $(ACTIONLINT)
	$(call heading,'workflows')
	$(ACTIONLINT) -shellcheck= -pyflakes= $(wildcard .github/workflows/*.yml)

$(ACTIONLINT):
	$(call heading,'build actionlint $(ACTIONLINT_VERSION)')
	mkdir -p $(@D)
	GOBIN=$(@D) go install github.com/rhysd/actionlint/cmd/actionlint@v$(ACTIONLINT_VERSION)

.PHONY: cycles
cycles:
	$(call heading,'import cycles')
	$(CARGO) run $(CYCLES) --quiet --locked -- Cargo.toml

.PHONY: deny
deny: $(DENY)
	$(call heading,'dependencies')
	$(call check-dependencies,deny.toml,Cargo.toml)

.PHONY: deny-lab
deny-lab: $(DENY)
	$(call heading,'dependencies of lab')
	$(call check-dependencies,lab/deny.toml,lab/Cargo.toml)

# The two files: what is allowed, and the workspace. Advisories where their database can be fetched.
define check-dependencies
	$(DENY) --locked --config $(1) --manifest-path $(2) --workspace check --hide-inclusion-graph bans licenses sources
	@if timeout 120 $(DENY) --config $(1) --manifest-path $(2) fetch db > $(TOOLS)/fetch.log 2>&1; then \
	    $(DENY) --locked --config $(1) --manifest-path $(2) --workspace \
	        check --disable-fetch --hide-inclusion-graph advisories; \
	else \
	    echo 'advisories not checked: their database cannot be fetched from here'; \
	fi
endef

# A debug build: it runs for two seconds, and an optimized one would take minutes to build.
$(DENY):
	$(call heading,'build cargo-deny $(DENY_VERSION)')
	mkdir -p $(TOOLS)
	CARGO_PROFILE_DEV_DEBUG=false $(CARGO) install cargo-deny --version $(DENY_VERSION) --locked --debug --quiet \
	    --root $(TOOLS)/cargo-deny-$(DENY_VERSION) --target-dir $(TOOLS)/build
	rm -rf $(TOOLS)/build

.PHONY: generated
generated:
	$(call heading,'generated files')
	@# As a workspace, of which make test-unit builds the same.
	$(CARGO) test --workspace --locked --test tests --test agent -- --exact \
	    pure::crd::committed_crd_is_the_generated_one \
	    chart::chart_has_the_present_crd_and_a_readme_of_its_values \
	    book::measured::measured_losses_are_those_of_the_documentation \
	    book::modes::mode_tables_are_those_of_the_rules \
	    book::reference::api_reference_is_that_of_the_crd \
	    observability::documentation_has_the_metrics_of_the_operator \
	    config::fields::documentation_holds_the_reference_as_the_code_has_it \
	    metrics::documentation_has_the_metrics_of_the_agent

.PHONY: crd
crd: rust ## Write the CRD anew from the Rust types
	$(CARGO) run --quiet --locked --package otelagent-operator -- crd > $(TARGET)/otelagents.yaml
	mv $(TARGET)/otelagents.yaml crds/otelagents.yaml

.PHONY: chart
chart: rust ## Write what the Helm chart has from elsewhere: the CRD, and the README's table of values
	OTELAGENT_WRITE_CHART=1 $(CARGO) test --quiet --locked --package otelagent-operator --test tests -- \
	    --exact chart::chart_has_the_present_crd_and_a_readme_of_its_values

.PHONY: pin-release
pin-release: rust ## Pin what this release renders; say why it differs in docs/upgrading.md
	OTELAGENT_PIN_RELEASE=1 $(CARGO) test --quiet --locked --package otelagent-operator --test tests -- \
	    --exact pure::releases::this_release_renders_what_is_pinned_for_it

.PHONY: demo
demo: prerequisites ## Watch spans arrive while the topology is switched through every mode; leaves the cluster up
	@echo 'On two processors this takes up to 20 minutes the first time, in which Kubernetes and all images are built,'
	@echo 'and 3 minutes from then on.'
	@$(CARGO) run $(LAB) --quiet --locked --package demo -- up

.PHONY: demo-down
demo-down: prerequisites ## Remove the demo's cluster
	@$(CARGO) run $(LAB) --quiet --locked --package demo -- down

.PHONY: switch-matrix
switch-matrix: prerequisites ## Make all 20 switches under load, and write what was lost into docs/switching.md (7 minutes)
	@OTELAGENT_SHIPPED=1 $(CARGO) run $(LAB) --quiet --locked --package demo -- matrix --document docs/switching.md $(MATRIX)

.PHONY: agent-demo
agent-demo: rust ## Watch the agent alone at work: rates, memory and CPU in the terminal
	@echo 'The first build takes a minute or two. It is a quick one: as shipped, the agent takes less memory and CPU.'
	@$(CARGO) build --quiet --profile quick --locked --package otelagent-agent
	@$(CARGO) run $(LAB) --quiet --profile quick --locked --package agent-demo -- --agent $(TARGET)/quick/otelagent-agent $(DEMO_ARGS)

.PHONY: reference
reference: rust ## Write docs/reference/api.md anew from the CRD, the tables of docs/agent.md, docs/metrics.md and docs/modes.md from the code, and measured losses in the code from docs/switching.md
	@# As a workspace, of which make test-unit builds the same. One test at a time: two of them write one file.
	OTELAGENT_WRITE_REFERENCE=1 $(CARGO) test --quiet --workspace --locked --test tests --test agent -- \
	    --test-threads=1 --exact \
	    book::measured::measured_losses_are_those_of_the_documentation \
	    book::modes::mode_tables_are_those_of_the_rules \
	    book::reference::api_reference_is_that_of_the_crd \
	    observability::documentation_has_the_metrics_of_the_operator \
	    config::fields::documentation_holds_the_reference_as_the_code_has_it \
	    metrics::documentation_has_the_metrics_of_the_agent

.PHONY: book
book: $(MDBOOK) ## Build the documentation as a web site, in target/book
	$(MDBOOK) build --dest-dir $(abspath $(TARGET))/book
	@echo 'open $(abspath $(TARGET))/book/index.html'

$(MDBOOK): rust
	$(call heading,'build mdBook $(MDBOOK_VERSION)')
	mkdir -p $(TOOLS)
	CARGO_PROFILE_DEV_DEBUG=false $(CARGO) install mdbook --version $(MDBOOK_VERSION) --locked --debug --quiet \
	    --no-default-features --features search --root $(TOOLS)/mdbook-$(MDBOOK_VERSION) --target-dir $(TOOLS)/build
	rm -rf $(TOOLS)/build

.PHONY: bench-operator
bench-operator: prerequisites ## Measure the operator: reconcile time, admission latency, memory
	$(CARGO) bench $(LAB) --locked --package operator-bench --bench operator

.PHONY: bench-start-gate
bench-start-gate: prerequisites ## Measure what a start gate adds to a pod whose agent is ready, on a real node
	OTELAGENT_SHIPPED=1 $(CARGO) bench $(LAB) --locked --package operator-bench --bench start_gate

NODES ?= 1000
PODS ?= 20000
AGENTS ?= 50
NAMESPACES ?= 500
SECTION ?= scale

.PHONY: bench-scale
bench-scale: prerequisites ## Measure the operator with NODES (1000), PODS (20000), AGENTS (50) and NAMESPACES (500), all simulated
	$(CARGO) bench $(LAB) --locked --package operator-bench --bench scale -- \
	    --nodes $(NODES) --pods $(PODS) --agents $(AGENTS) --namespaces $(NAMESPACES) \
	    --document $(abspath docs/benchmarks.md) --section $(SECTION) \
	    --command 'make bench-scale NODES=$(NODES) PODS=$(PODS) AGENTS=$(AGENTS) NAMESPACES=$(NAMESPACES)'

BENCH_PARTS ?= costs losses outage

.PHONY: bench-agent
bench-agent: prerequisites released-agent ## Measure the agent against its peers, and write the table of docs/benchmarks.md (40 minutes)
	$(call heading,'load generator and plain forwarder')
	$(CARGO) build $(LAB) --release --locked --package agent-bench
	$(call heading,'measure')
	for part in $(BENCH_PARTS); do \
	    $(TARGET)/release/agent-bench --agent $(RELEASED_AGENT) --part $$part \
	        --scratch $(TARGET)/bench-agent --document docs/benchmarks.md \
	        --command "make bench-agent BENCH_PARTS=$$part" $(BENCH); done

.PHONY: clean
clean: ## Remove what was built here; the caches of the test bed and of tools stay
	$(CARGO) clean

.PHONY: prerequisites
prerequisites: rust
	@command -v go > /dev/null || { echo 'go is missing: install Go 1.26 or newer'; exit 1; }
	@go version | awk '{split(substr($$3, 3), v, "."); exit !(v[1] > 1 || v[1] == 1 && v[2] >= 26)}' \
	    || { echo "$$(go version) is too old: install Go 1.26 or newer"; exit 1; }

.PHONY: rust
rust:
	@command -v cargo > /dev/null || { echo 'cargo is missing: install rustup, which brings the toolchain of rust-toolchain.toml'; exit 1; }
	@command -v cc > /dev/null || { \
	    [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
	        || { echo 'cc is missing: on Debian, sudo apt-get install build-essential'; exit 1; }; \
	    echo 'installing build-essential, for cc'; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq build-essential > /dev/null; }

# Two kinds of targets. Those of the first kind write nothing outside target/ (and DESTDIR) and run no container; packagers use them.
# Those of the second install packages where some are missing and run real podman, in scratch storage of its own (tests/enter).

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
# What podman, CRI-O and buildah read.
HOOKSDIR ?= $(DATADIR)/containers/oci/hooks.d
DOCDIR ?= $(DATADIR)/doc/skillctl
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
CARGO ?= cargo
CARGO_TARGET_DIR ?= target
# For cargo and clippy, for example --offline.
CARGOFLAGS ?= --locked

# Where what is built is; who builds otherwise than by `make build` names the place, and uses doc and install-built.
OUT ?= $(CARGO_TARGET_DIR)/release
SCRIPTS = .ci/run contrib/demo packaging/dist packaging/rpm-test tests/enter tests/run tests/setup
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

export CARGO_TARGET_DIR
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help build man doc install install-built lint msrv clean dist rpm rpm-test demo test test-long bench

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 } /^## / { printf "\n%s\n", substr($$0, 4) }' $(MAKEFILE_LIST)

## Without side effects

build: ## Build target/release/skillctl and skillctl-hook
	$(CARGO) build --release $(CARGOFLAGS)

man: ## Build the man pages and completions, in target/release/doc
	$(CARGO) build --release $(CARGOFLAGS) --bins --example man
	$(MAKE) --no-print-directory doc

doc: # What the programs that are built write.
	rm -rf $(OUT)/doc
	mkdir -p $(OUT)/doc
	$(OUT)/examples/man $(OUT)/doc
	set -e; for shell in bash zsh fish; do $(OUT)/skillctl completion $$shell >$(OUT)/doc/skillctl.$$shell; done

install: man ## Install below $(DESTDIR)$(PREFIX)
	$(MAKE) --no-print-directory install-built

install-built: # Installs what is in $(OUT).
	install -D -m 0755 $(OUT)/skillctl $(DESTDIR)$(BINDIR)/skillctl
	install -m 0755 $(OUT)/skillctl-hook $(DESTDIR)$(BINDIR)/skillctl-hook
	install -d $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man5 $(DESTDIR)$(MANDIR)/man7 $(DESTDIR)$(DOCDIR)
	install -p -m 0644 $(OUT)/doc/*.1 $(DESTDIR)$(MANDIR)/man1
	install -p -m 0644 contrib/man/*.5 $(DESTDIR)$(MANDIR)/man5
	install -p -m 0644 contrib/man/*.7 $(DESTDIR)$(MANDIR)/man7
	install -D -p -m 0644 $(OUT)/doc/skillctl.bash $(DESTDIR)$(DATADIR)/bash-completion/completions/skillctl
	install -D -p -m 0644 $(OUT)/doc/skillctl.zsh $(DESTDIR)$(DATADIR)/zsh/site-functions/_skillctl
	install -D -p -m 0644 $(OUT)/doc/skillctl.fish $(DESTDIR)$(DATADIR)/fish/vendor_completions.d/skillctl.fish
	install -d $(DESTDIR)$(HOOKSDIR) $(DESTDIR)$(DATADIR)/skillctl/hooks.d
	sed 's|@BINDIR@|$(BINDIR)|' hooks/50-skillctl.json >$(DESTDIR)$(HOOKSDIR)/50-skillctl.json
	sed 's|@BINDIR@|$(BINDIR)|' hooks/podman/50-skillctl.json >$(DESTDIR)$(DATADIR)/skillctl/hooks.d/50-skillctl.json
	sed 's|/usr/share/skillctl|$(DATADIR)/skillctl|' contrib/99-skillctl.conf >$(DESTDIR)$(DATADIR)/skillctl/99-skillctl.conf
	install -D -p -m 0644 packaging/skillctl.tmpfiles $(DESTDIR)$(TMPFILESDIR)/skillctl.conf
	install -d $(DESTDIR)$(DOCDIR)/docs
	install -p -m 0644 LICENSE README.md CHANGELOG.md CONTRIBUTING.md $(DESTDIR)$(DOCDIR)
	install -p -m 0644 docs/*.md $(DESTDIR)$(DOCDIR)/docs
	cp -R examples $(DESTDIR)$(DOCDIR)

lint: msrv ## Check format, lints, scripts and the minimum Rust version
	$(CARGO) fmt --check
	$(CARGO) clippy $(CARGOFLAGS) --all-targets -- -D warnings
	shellcheck $(SCRIPTS)

# With rustup's toolchain of that version the code is compiled; anywhere, no dependency may ask for a newer one.
msrv:
	@if cargo +$(MSRV) --version >/dev/null 2>&1; then cargo +$(MSRV) check $(CARGOFLAGS); \
	else echo "msrv: SKIPPED compiling with Rust $(MSRV) (rustup toolchain install $(MSRV)); looking at the dependencies"; fi
	@$(CARGO) metadata $(CARGOFLAGS) --format-version 1 --filter-platform $$(rustc -vV | sed -n 's/^host: //p') | jq -er --arg msrv $(MSRV) \
	  'def v: split(".") | map(tonumber) | .[:2]; [.packages[] | select(.rust_version and (.rust_version | v) > ($$msrv | v)) | "\(.name) \(.version) needs Rust \(.rust_version)"] | if . == [] then "msrv: nothing needs more than Rust \($$msrv)" else error(join("\n")) end'

dist: ## Make the tarballs of HEAD and of all crates, in target/dist
	packaging/dist $(CARGO_TARGET_DIR)/dist

rpm: dist ## Build RPMs of them, in target/rpm, on Fedora or RHEL
	mkdir -p $(CARGO_TARGET_DIR)/rpm
	rpmbuild -ba -D "_topdir $(abspath $(CARGO_TARGET_DIR)/rpm)" -D "_sourcedir $(abspath $(CARGO_TARGET_DIR)/dist)" packaging/skillctl.spec

rpm-test: ## Build RPMs anywhere, without the network; lint, install, verify and erase them, in a root of their own
	packaging/rpm-test

clean: ## Remove what was built
	$(CARGO) clean

## On real podman

demo: ## From a bare machine to a skill that runs in containers, three ways
	contrib/demo

test: ## Run every tier: lints, units, integration, real podman
	tests/run

test-long: ## The same with hundreds of crashes where `test` has tens, and the demo
	tests/run --long

bench: build ## One table: figure, ours, peer, ratio
	$(CARGO) bench $(CARGOFLAGS)

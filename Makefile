# Tallow. `make run` builds everything and serves the page; `make test` runs every check.

GO       ?= go
WASM     := bin/tallow.wasm
SERVER   := bin/tallow-server
EVIL     := bin/evil
CAPTURE  := bin/capture
ADDR     ?= 127.0.0.1:8080
SUDO     := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# What runs a test in network namespaces.
AS_ROOT  := $(if $(SUDO),$(SUDO) env PATH="$$PATH" $(foreach v,$(filter TALLOW_%,$(.VARIABLES)),$(v)="$($(v))"))
JS       := GOOS=js GOARCH=wasm
# What compiles for the browser.
CLIENT   := ./internal/... ./wasm
FUZZTIME ?= 10s
GO_SOURCES  := $(shell find internal wasm -name '*.go' -not -name '*_test.go') go.mod go.sum $(shell find internal -name '*.txt')
WEB_SOURCES := $(wildcard web/*.html web/*.js web/*.css web/*.svg web/*.webmanifest web/*.d.ts web/*.png) wasm_exec.js
SERVER_SOURCES := $(shell find server web internal/core/wire -name '*.go' -not -name '*_test.go') go.mod go.sum
EVIL_SOURCES := $(shell find e2e/evil internal/core/wire internal/core/seal -name '*.go' -not -name '*_test.go') internal/core/seal/words.txt go.mod go.sum

.PHONY: all build run test check fmt vet staticcheck unit unit-js check-then-js e2e e2e-page e2e-api e2e-networks deps soak fuzz verify-build bench-throughput bench-small bench-load bench-group bench-compression bench-memory clean

all: build

build: $(SERVER)

run: build
	$(SERVER) -addr $(ADDR)

# The support file must be that of the toolchain which compiles the WebAssembly.
wasm_exec.js: $(shell $(GO) env GOROOT)/lib/wasm/wasm_exec.js
	cp $< $@

# Without inlining our own packages are 40 kB smaller on the wire, and no slower where it counts: in WebCrypto and the browser.
# -trimpath, an empty build id and no word of the commit make two builds of the same sources the same bytes: `make verify-build`.
$(WASM): $(GO_SOURCES)
	@mkdir -p bin
	$(JS) $(GO) build -trimpath -buildvcs=false -gcflags='tallow/...=-l' -ldflags='-s -w -buildid=' -o $@ ./wasm

web/dist/build.json: $(WASM) $(WEB_SOURCES) web/pack/main.go
	$(GO) run ./web/pack -wasm $(WASM)
	@touch $@ # what it says may be as before, while a file beside it has changed

$(SERVER): web/dist/build.json $(SERVER_SOURCES)
	$(GO) build -trimpath -ldflags='-s -w' -o $@ ./server

# A signaling server gone bad, for the browser tests.
$(EVIL): $(EVIL_SOURCES)
	$(GO) build -o $@ ./e2e/evil

# Counts the packets of a host, for the browser tests in network namespaces.
$(CAPTURE): e2e/capture/main.go
	$(GO) build -o $@ ./e2e/capture

# The native tests wait for much of their time, so what comes before the browsers' end-to-end tests runs in lanes, too.
test: deps $(SERVER)
	$(MAKE) --no-print-directory -j2 unit check-then-js
	$(MAKE) --no-print-directory e2e

check-then-js: check
	$(MAKE) --no-print-directory unit-js

check: fmt vet staticcheck

fmt:
	@files=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); if [ -n "$$files" ]; then echo "gofmt:"; echo "$$files"; exit 1; fi

vet:
	$(GO) vet ./...
	$(JS) $(GO) vet $(CLIENT)

staticcheck:
	@mkdir -p bin
	$(GO) build -o bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	bin/staticcheck ./...
	$(JS) bin/staticcheck $(CLIENT)

unit: $(SERVER)
	$(GO) test -race -timeout 20m ./...

# The core and the bridge in a real browser.
unit-js: deps
	$(JS) $(GO) test -exec="node $(CURDIR)/e2e/gotest.mjs" -timeout 10m $(CLIENT)

# One test at a time in each of three lanes: people wait for much of what they do, and so do networks. The last lane needs root, for network
# namespaces: where we are not, it is run with sudo.
API      := $(addsuffix .test.mjs,api control embed files resume shape zip)
NETWORKS := $(addsuffix .test.mjs,compression facades firefox full guide kill limits link network qr relay stats)
e2e: deps $(SERVER) $(EVIL) $(CAPTURE)
	$(MAKE) --no-print-directory -j3 e2e-page e2e-api e2e-networks

e2e-page:
	cd e2e && node --test --test-concurrency=1 --test-reporter=spec $(filter-out $(API) $(NETWORKS),$(notdir $(sort $(wildcard e2e/*.test.mjs))))

e2e-api:
	cd e2e && node --test --test-concurrency=1 --test-reporter=spec $(API)

e2e-networks:
	cd e2e && $(AS_ROOT) node --test --test-concurrency=1 --test-reporter=spec $(NETWORKS)

# Installs packages and starts none of their services. Debian's coturn would be a relay without authentication for everybody who reaches
# the machine, at once and after each boot.
define APT_INSTALL
policy=/usr/sbin/policy-rc.d
if [ ! -e $$policy ]; then
	trap 'rm -f $$policy' EXIT
	printf '#!/bin/sh\nexit 101\n' > $$policy
	chmod 755 $$policy
fi
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$$@"
case " $$* " in *" coturn "*) update-rc.d coturn disable ;; esac
endef
export APT_INSTALL

# Browsers and the driver for them: installed where they are missing.
deps: e2e/node_modules/.package-lock.json
	@missing=; for p in chromium firefox-esr; do command -v $$p >/dev/null || missing="$$missing $$p"; done; \
	for p in ip:iproute2 tc:iproute2 turnserver:coturn unzip:unzip python3:python3 node:nodejs npm:npm; do command -v $${p%%:*} >/dev/null || missing="$$missing $${p#*:}"; done; \
	if [ -n "$$missing" ]; then $(SUDO) apt-get update -qq && $(SUDO) sh -ec "$$APT_INSTALL" install $$missing; fi

e2e/node_modules/.package-lock.json: e2e/package-lock.json
	@command -v npm >/dev/null || { $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq nodejs npm; }
	cd e2e && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# Long forms: every bit of the handshake, big files. Hours are not needed, but minutes are.
soak: deps $(SERVER) $(EVIL) $(CAPTURE)
	TALLOW_SOAK=1 $(GO) test -timeout 60m -skip '^TestAttempts$$' ./internal/... ./server/...
	TALLOW_SOAK=1 $(GO) test -timeout 30m -run '^TestAttempts$$' -v ./internal/core/room
	TALLOW_SOAK=1 $(GO) test -timeout 180m -v ./e2e/kill
	cd e2e && node --test --test-concurrency=1 --test-reporter=spec --test-timeout=3600000 $(filter-out reconnect.soak.mjs relay.soak.mjs,$(notdir $(sort $(wildcard e2e/*.soak.mjs))))
	cd e2e && $(AS_ROOT) node --test --test-reporter=spec --test-timeout=3600000 relay.soak.mjs
# In a process of its own, whose last line is the figures.
	cd e2e && $(AS_ROOT) node --test-reporter=spec --test-timeout=3600000 reconnect.soak.mjs

# What was built is what is served: two builds of this commit from clean checkouts, in folders and with build caches of their
# own, give the same WebAssembly, and so does this tree if it has no changes.
verify-build:
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; want=; \
	check() { \
		echo "$$1  $$2"; \
		if [ -z "$$1" ] || [ "$$1" != "$${want:=$$1}" ]; then echo "verify-build: $$2 differs" >&2; exit 1; fi; \
	}; \
	for checkout in one a-longer/second; do \
		git clone --quiet --no-local . "$$dir/$$checkout"; \
		GOCACHE="$$dir/cache/$$checkout" $(MAKE) --no-print-directory -s -C "$$dir/$$checkout" $(WASM); \
		check "$$(sha256sum < "$$dir/$$checkout/$(WASM)" | cut -d ' ' -f 1)" "$(WASM) in checkout $$checkout"; \
	done; \
	if [ -n "$$(git status --porcelain)" ]; then echo "this tree has changes: not compared"; exit 0; fi; \
	$(MAKE) --no-print-directory -s web/dist/build.json; \
	check "$$(sed -n 's/.*"wasmSHA256":"\([0-9a-f]*\)".*/\1/p' web/dist/build.json)" "web/dist/build.json in this tree"

# Every fuzz target of the tree for FUZZTIME each.
fuzz:
	@set -e; for package in $$($(GO) list ./...); do \
	for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	echo "$$package $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$package; done; done

bench-throughput: deps $(SERVER)
	node bench/throughput/bench.mjs

bench-small: deps $(SERVER)
	node bench/small/bench.mjs

bench-load: deps $(SERVER)
	node bench/load/bench.mjs

bench-memory: deps $(SERVER)
	node bench/memory/bench.mjs

# Needs root too.
bench-group: deps $(SERVER)
	$(AS_ROOT) node bench/group/bench.mjs

# Needs root too.
bench-compression: deps $(SERVER)
	$(AS_ROOT) node bench/compression/bench.mjs

clean:
	rm -rf bin $(filter-out web/dist/.gitkeep,$(wildcard web/dist/*))

# `make help` lists all targets. They need Go, make and git; the tests' race detector needs a C compiler too.

export GOFLAGS += -buildvcs=false
VERSION := $(shell packaging/version)
REVISION := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
# Programs that run here are built in the way of a release, and lint uses the flags of the tests: each package is then
# compiled only in these two ways.
PLAIN   := CGO_ENABLED=0 go build -trimpath
BUILD   := $(PLAIN) -ldflags '-s -w -X main.version=$(VERSION) -X main.revision=$(REVISION)'
# Without a C compiler the tests run without the race detector: that is a warning here and an error in CI.
RACE    := $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)
# Tests also wait, so more packages, and more of the tests that call t.Parallel, run side by side than there are
# processors, but not many more: two processors are busy all the time with these. The packages that take longest come
# first. lint makes the checks of vet.
LONG    := ./e2e ./proxy ./discovery
TEST    := go test $(RACE) -vet off -timeout 25m -p 3 -parallel 6
MODULES := $(patsubst %/go.mod,%,$(wildcard go.mod */go.mod */*/go.mod .ci/*/go.mod))
PREFIX  ?= /usr/local
FUZZTIME ?= 10s
ARCHES  ?= amd64 arm64

.PHONY: build demo test test-each test-faults test-portable e2e race consul fuzz lint check screenshots browser prometheus bench bench-peers bench-ghostunnel bench-discovery patroni patroni-install soak install packages packaging-tools release test-deb check-reproducible generate generate-install clean help

build: ## build bin/lictor
	$(BUILD) -o bin/lictor ./cmd/lictor

demo: build ## show Lictor at work until Ctrl-C; ONCE=1: end after the tour
	$(PLAIN) -o bin/demo ./e2e/demo
	bin/demo -lictor bin/lictor $(if $(ONCE),-once)

test: test-each test-faults test-portable ## run all tests, with the race detector; -j3: the three runs side by side

test-each: race consul
	for m in $(filter-out go.mod,$(MODULES)); do go -C $$m list -m all >/dev/null || exit; done
	$(TEST) $(LONG) ./...

test-faults: race
	if [ "$$(go env GOOS)" = linux ]; then $(TEST) -tags faults ./proxy/...; fi

test-portable: race consul
	LICTOR_E2E_ENGINE=portable $(TEST) ./e2e

e2e: race consul ## run only the end-to-end tests; RUN=regexp: those whose names match; CONSUL_VERSION=v1.21.5: with that Consul
	$(TEST) -count 1 $(if $(RUN),-run '$(RUN)') -v ./e2e

race:
	@test -n '$(RACE)' || { echo "no C compiler, so no race detector; install one, such as gcc and libc6-dev" >&2; test -z "$$CI"; }

consul: ## print the path of the Consul for the tests; build it first if it is missing
	@CGO_ENABLED=0 go run -trimpath ./e2e/consulpath

fuzz: ## run each fuzz test for FUZZTIME (10s)
	.ci/fuzz $(FUZZTIME)

lint: ## gofmt, vet, staticcheck, errcheck, import arrows, tidy modules
	RACE=$(RACE) .ci/lint

check: lint test ## lint and test

generate: ## compile the eBPF programs of internal/kernel again; needs clang 14, see generate-install
	go build -C .ci/tools -o '$(CURDIR)/bin/' github.com/cilium/ebpf/cmd/bpf2go
	C_INCLUDE_PATH=/usr/include/$$(clang -print-multiarch) BPF2GO_CFLAGS='-O2 -Wall -Werror -mcpu=v3' go generate ./internal/kernel

generate-install: ## install what generate needs (Debian, as root)
	e2e/install clang llvm libbpf-dev

screenshots: consul ## make the pictures in docs/screenshots again
	go test -count 1 -run '^(TestPageOnAPhoneAndInBothSchemes|TestTopShowsWhatIsWrongInRed)$$' ./e2e -screenshots

browser: ## install Chromium and tmux for the tests of the page and of top (Debian, as root)
	apt-get install -y --no-install-recommends chromium fonts-dejavu-core tmux

prometheus: ## install Prometheus for the tests of the alert rules and of the dashboard (Debian), without starting it
	e2e/install prometheus

bench: ## compare with HAProxy and nginx in ten minutes; QUICK=1: in one; PERF=1: with profiles; BENCH='...': flags
	$(if $(PERF),$(subst -s -w,,$(BUILD)),$(BUILD)) -o bin/lictor ./cmd/lictor
	$(PLAIN) -o bin/bench ./e2e/bench
	$(if $(PERF),mkdir -p bin/perf)
	bin/bench -json bin/bench.json -svg bin/bench.svg $(if $(QUICK),-quick) $(if $(PERF),-perf bin/perf) $(BENCH)

bench-peers: ## install HAProxy and nginx (Debian), without starting them
	e2e/install haproxy nginx libnginx-mod-stream

# The folder vendor of the module does not agree with its go.mod, and a build without cgo fails.
bench-ghostunnel: ## build bin/ghostunnel, which bench compares in the mesh; needs a C compiler
	dir=$$(go mod download -json github.com/ghostunnel/ghostunnel@v1.8.4 | sed -n 's/.*"Dir": "\(.*\)".*/\1/p') && \
		CGO_ENABLED=1 go -C "$$dir" build -mod=readonly -trimpath -o '$(CURDIR)/bin/ghostunnel' .

bench-discovery: build consul ## measure in eight minutes how Lictor follows Consul; BENCH='...': flags
	$(PLAIN) -o bin/benchdiscovery ./e2e/benchdiscovery
	bin/benchdiscovery -lictor bin/lictor $(BENCH)

patroni: build consul ## measure in 35 minutes how long writes fail while Patroni's primary moves; BENCH='...': flags
	$(PLAIN) -o bin/patroni ./e2e/patroni
	bin/patroni -lictor bin/lictor $(BENCH)

patroni-install: ## install Patroni, PostgreSQL, PgBouncer and HAProxy (Debian), without starting them
	e2e/install patroni python3-consul postgresql pgbouncer haproxy

soak: build ## run Lictor under changing load for ten minutes; fail if it then holds more memory or descriptors
	$(PLAIN) -o bin/bench ./e2e/bench
	bin/bench -soak 9m $(BENCH)

install: build ## install the binary and its manual pages to PREFIX (/usr/local)
	packaging/man bin/lictor bin/man
	install -D -m 755 bin/lictor $(DESTDIR)$(PREFIX)/bin/lictor
	install -D -m 644 bin/man/lictor.8 $(DESTDIR)$(PREFIX)/share/man/man8/lictor.8
	install -D -m 644 bin/man/lictor.hcl.5 $(DESTDIR)$(PREFIX)/share/man/man5/lictor.hcl.5

packages: build packaging-tools ## build a Debian package and an RPM for amd64 and arm64 in bin/
	for arch in $(ARCHES); do \
		GOOS=linux GOARCH=$$arch $(BUILD) -o bin/linux-$$arch/lictor ./cmd/lictor && \
		MANPAGES_BY=bin/lictor packaging/packages bin/linux-$$arch/lictor $$arch '$(VERSION)' bin || exit; \
	done

packaging-tools:
	CGO_ENABLED=0 go build -C packaging/tools -trimpath -o '$(CURDIR)/bin/' tool ./...

release: build packaging-tools ## build what a release has in dist/: make release VERSION=v0.1.0
	packaging/release '$(VERSION)' dist

test-deb: ## install, run, upgrade and remove the package under systemd in a throw-away copy of this system; needs root
	$(MAKE) packages VERSION=v0.0.1 ARCHES=$$(dpkg --print-architecture)
	$(MAKE) packages VERSION=v0.0.2 ARCHES=$$(dpkg --print-architecture)
	packaging/test-deb bin/lictor_0.0.[12]_$$(dpkg --print-architecture).deb

check-reproducible: ## build the release twice in different ways and compare; takes minutes, because no cache is used
	packaging/check-reproducible '$(VERSION)'

clean: ## remove the build results; the Consul in the user's cache folder stays
	rm -rf bin dist

help: ## list all targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

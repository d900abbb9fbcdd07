# quantgate. `make` lists the targets; each one sets up what it needs and can be repeated.

GOLANGCI_LINT_VERSION := v2.15.0
BENCHSTAT_VERSION := v0.0.0-20260908200009-22c9c6c9d4da
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
DATA    := .data/fashion-mnist
OUT     := out/fashion-mnist
MODELS  := cnn resnet_bn dwsep_hswish
# Packages whose code runs on several goroutines.
RACE    := ./calib/... ./dataset/... ./engine/... ./ort/... ./pipeline/... ./trt/... ./internal/...
LINT    := .deps/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

# Where scripts/setup puts a libturbojpeg that it could not install.
export LD_LIBRARY_PATH := $(CURDIR)/.deps/turbojpeg/lib$(if $(LD_LIBRARY_PATH),:$(LD_LIBRARY_PATH))
export CGO_ENABLED := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Fetch ONNX Runtime, libturbojpeg and the default data set
	@scripts/setup

.PHONY: build
build: ## Build bin/quantgate
	go build -trimpath -ldflags '-X main.buildVersion=$(VERSION)' -o bin/quantgate ./cmd/quantgate

.PHONY: run
run: deps build ## Calibrate and score three models on 50,000 real images
	bin/quantgate run --images $(DATA) --format idx \
		$(foreach m,$(MODELS),--model testdata/models/$(m).onnx) \
		--preset unit --input-size 28 --resize none \
		--batch-size 25 --calib-batches 50 --precisions fp32,fp16,int8 \
		--class-names $(DATA)/classes.txt --exit-zero --out $(OUT)
	@echo
	@echo "Next, a model of your own (see bin/quantgate run --help):"
	@echo "  bin/quantgate run --model MODEL.onnx --images IMAGES --labels LABELS.txt --preset imagenet"

.PHONY: test
test: deps ## Vet and test everything; with CI=true under the race detector too
	go vet ./...
	go test ./...
	$(if $(filter true,$(CI)),$(MAKE) --no-print-directory test-race)

.PHONY: test-race
test-race: deps ## Test the concurrent packages under the race detector
	go test -race -short $(RACE)

.PHONY: lint
lint: $(LINT) ## Check format, go.mod, Go code, imports and shell scripts
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "lint: run gofmt -w on the files above" >&2; exit 1; }
	go mod tidy -diff
	$(LINT) run ./...
	@if command -v shellcheck >/dev/null; then shellcheck scripts/setup scripts/peers scripts/screenshot scripts/gpu/run .ci/run; else echo "lint: shellcheck is not installed, shell scripts not checked"; fi

$(LINT):
	GOBIN=$(CURDIR)/.deps/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv .deps/bin/golangci-lint $@

# NVIDIA's headers of TensorRT 10.16 come with a crate of Rust bindings; they are read, never kept in this repository.
SLOTS := .deps/slots

.PHONY: slots
slots: ## Compare trt's tables with TensorRT's headers: TENSORRT_INCLUDE names them, or 10.16's are fetched with cargo
	@[ -n "$(TENSORRT_INCLUDE)" ] || [ -f $(SLOTS)/Cargo.toml ] || { \
		mkdir -p $(SLOTS)/src && touch $(SLOTS)/src/lib.rs && \
		printf '[package]\nname = "slots"\nversion = "0.0.0"\n[dependencies]\ntrtx-sys = "=0.5.0"\n[workspace]\n' >$(SLOTS)/Cargo.toml; }
	@[ -n "$(TENSORRT_INCLUDE)" ] || (cd $(SLOTS) && CARGO_HOME="$$PWD/cargo" cargo fetch --quiet)
	TENSORRT_INCLUDE="$${TENSORRT_INCLUDE:-$$(echo "$$PWD"/$(SLOTS)/cargo/registry/src/*/trtx-sys-0.5.0/TensorRT-Headers/TRT-Enterprise-10.16)}" \
		go test -count=1 -run TestSlotsAgainstHeaders -v ./trt/internal/nvinfer

# What Go's benchmarks are repeated for is benchstat, which tells a change from noise.
BENCHCOUNT ?= 6
BENCHTIME  ?= 0.3s
PAIRS      ?= 5
BENCHSTAT  := .deps/bin/benchstat-$(BENCHSTAT_VERSION)

.PHONY: bench
bench: bench-go ## Go's benchmarks, compared with the last ones; then everything beside its peers, into docs/BENCHMARKS.md
	go run ./benchmarks/collect -pairs $(PAIRS)

.PHONY: bench-go
bench-go: deps build $(BENCHSTAT) ## Go's benchmarks alone
	@mkdir -p out/bench
	@[ ! -f out/bench/go.txt ] || mv out/bench/go.txt out/bench/go.before.txt
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -count $(BENCHCOUNT) ./... >out/bench/go.txt || { cat out/bench/go.txt; exit 1; }
	$(BENCHSTAT) $(if $(wildcard out/bench/go.txt),before=out/bench/go.before.txt now=)out/bench/go.txt

$(BENCHSTAT):
	GOBIN=$(CURDIR)/.deps/bin go install golang.org/x/perf/cmd/benchstat@$(BENCHSTAT_VERSION)
	mv .deps/bin/benchstat $@

.PHONY: bench-peers
bench-peers: ## Install what make bench measures beside, into .deps/peers; TORCHVISION=1: torchvision too
	@scripts/peers

.PHONY: bench-50k
bench-50k: deps build ## Score 50,000 synthetic JPEGs and watch the memory; half an hour and 7 GB, goes on where it was stopped
	go run ./benchmarks/collect -only imagenet50k

.PHONY: verify
verify: deps build ## Slow checks against the shared ImageNet and TensorRT reference
	QUANTGATE_VERIFY=1 go test -count=1 -timeout 60m -run 'Reference' -v ./...

FUZZTIME ?= 10s

.PHONY: fuzz
fuzz: ## Fuzz every parser for FUZZTIME each (10s)
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$package || exit 1; \
		done; \
	done

.PHONY: clean
clean: ## Remove what was built and written; keeps .deps and .data
	rm -rf bin out

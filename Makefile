# quantgate. `make` lists the targets; each one sets up what it needs and can be repeated.

GOLANGCI_LINT_VERSION := v2.15.0
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
	@if command -v shellcheck >/dev/null; then shellcheck scripts/setup scripts/screenshot scripts/gpu/run .ci/run; else echo "lint: shellcheck is not installed, shell scripts not checked"; fi

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

.PHONY: bench
bench: deps ## Run the Go benchmarks
	go test -run '^$$' -bench . -benchmem ./...

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

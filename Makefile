# Short verbs; each is one command that also works by hand. `make` alone lists them.

# What takes long to build is kept outside of the checkout.
CACHE := $(or $(SHOOT_BACKUP_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/shoot-backup)
export SHOOT_BACKUP_CACHE := $(CACHE)
export CARGO_TARGET_DIR ?= $(CACHE)/target

.DEFAULT_GOAL := help
.PHONY: help demo test lint gen landscape

help: ## List the verbs.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Tell the whole story on a local landscape, from nothing to a restored application (KEEP=1 leaves it running).
	@hack/setup.sh
	@hack/build.sh
	@"$$CARGO_TARGET_DIR/debug/demo"

test: ## Run every test: unit, engine against restic, Azure emulator, end to end on the landscape.
	@hack/setup.sh
	@hack/test.sh

lint: ## Check format, lints, generated files, charts, licences and documentation.
	@hack/lint.sh

gen: ## Write what is generated: CRDs, the delivered manifests, reference pages.
	@hack/build.sh shoot-backup-gen
	@"$$CARGO_TARGET_DIR/debug/shoot-backup-gen" --root .

landscape: ## Start the local landscape and leave it running; `hack/landscape.sh` does the rest.
	@hack/setup.sh
	@hack/landscape.sh up

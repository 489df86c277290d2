# `make` alone lists the targets. Each is one command that can be run by itself.
#   STACK=standalone|multicluster|…  the stack of preview, up, destroy, verify, verify-network
#   ARGS='…'                         further arguments of the command behind the target

STACK ?= standalone
ARGS ?=
PULUMI := lab/toolchain/pulumi
PYTHON := venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup engine preview up destroy demo verify verify-network bench chaos prove-kernel lab lab-status lab-down test test-unit \
	test-toolchain test-lab lint docs

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## prepare this machine for the lab and the tests (Debian packages, engine, plugins)
	@lab/toolchain/setup

engine: ## prepare only what preview and up against your own machines need
	@lab/toolchain/setup engine

preview: engine ## what `up` would change on the machines of STACK
	@$(PULUMI) stack select --create $(STACK)
	@$(PULUMI) preview --stack $(STACK) $(ARGS)

up: engine ## deploy STACK on the machines its settings name
	@$(PULUMI) stack select --create $(STACK)
	@# What fails stops only what depends on it: one cluster that is away does not hold up the others.
	@$(PULUMI) up --continue-on-error --stack $(STACK) $(ARGS)

destroy: engine ## remove STACK from its machines
	@$(PULUMI) destroy --stack $(STACK) $(ARGS)

demo: setup ## STACK, standalone or multicluster, in a lab on this machine, deployed and checked (needs root)
	@lab/demo $(ARGS)

verify: engine ## check a deployed STACK from outside
	@PULUMI=$(PULUMI) $(PYTHON) -m verify --stack $(STACK) $(ARGS)

verify-network: engine ## prove the network contract of STACK by packets between all its hosts
	@PULUMI=$(PULUMI) $(PYTHON) -m verify.network --stack $(STACK) $(ARGS)

bench: setup ## speed and memory, as figures (a benchmark, not a test)
	@$(PYTHON) -m bench $(ARGS)

# Without a lab that runs, the demo of STACK is brought up first.
chaos: STACK = multicluster
chaos: setup ## break what stands in the lab, and measure what clients notice (needs root)
	@STACK=$(STACK) $(PYTHON) -m chaos $(ARGS)

prove-kernel: setup ## run the host phases on virtual machines with kernels of their own (needs root, an hour)
	@$(PYTHON) -m lab.kernel --write docs/kernel $(ARGS)

lab: setup ## start the lab's data centre without deploying anything
	@lab/lab up $(ARGS)

lab-status: ## what of the lab runs
	@lab/lab status $(ARGS)

lab-down: ## stop the lab and leave nothing of it behind
	@lab/lab down $(ARGS)

test: setup ## every test: unit, then toolchain, then the lab end to end
	@lab/toolchain/run-tests unit toolchain lab quiet

test-unit: engine ## settings, plan and components without an engine (under two minutes)
	@lab/toolchain/run-tests unit

test-toolchain: setup ## the built engine, providers, doubles and host scripts
	@lab/toolchain/run-tests toolchain

test-lab: setup ## standalone end to end in the lab (needs root)
	@lab/toolchain/run-tests lab quiet

lint: setup ## shellcheck, ruff, gofmt and go vet
	@lab/toolchain/lint

docs: engine ## write again the pages and pictures that are made from settings and plan
	@for page in settings picture zones tools budget sso; do $(PYTHON) -m docs.$$page || exit 1; done

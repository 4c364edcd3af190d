# Thin on purpose: what each target does is in scripts/.
.DEFAULT_GOAL := help
.PHONY: help demo test check build deb web fmt deny advisories counts soak schema fuzz bench clean-demo

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: ## three nodes, a platform and a video on this machine; VIDEO=file yours, ONCE=1 check it and end, PORT=n, KEEP=1
	@VIDEO='$(VIDEO)' ONCE='$(ONCE)' PORT='$(PORT)' KEEP='$(KEEP)' UNTIL='$(UNTIL)' scripts/demo.sh

test: ## everything that CI runs
	@scripts/test.sh

check: ## format, clippy, unit tests: the inner loop
	@scripts/check.sh

build: ## the programs and the web pages
	@scripts/build.sh

deb: build ## the Debian package of imira-node; DEB_DIR=folder
	@DEB_DIR='$(DEB_DIR)' scripts/deb.sh

web: ## the web pages only
	@scripts/web.sh build

fmt: ## format the Rust code
	cargo fmt --all

deny: ## licences, bans and sources of the dependencies
	@scripts/deny.sh

advisories: ## known vulnerabilities of the dependencies (needs cargo-deny and its database)
	cargo deny check advisories

counts: ## kills, freezes, cuts off and deceives real nodes, and shows how many copies there are afterwards
	@scripts/counts.sh

soak: ## the long tests, again and again; MINUTES=30
	@MINUTES='$(MINUTES)' scripts/soak.sh

schema: ## schemathesis asks real nodes what their OpenAPI document allows; EXAMPLES=n for each group of endpoints (2000)
	@IMIRA_SCHEMA_EXAMPLES='$(or $(EXAMPLES),2000)' scripts/python.sh -m unittest -v test_openapi

fuzz: ## fuzz targets, a minute each; SECONDS_EACH=n (needs cargo-fuzz and, at best, a nightly toolchain)
	@SECONDS_EACH='$(SECONDS_EACH)' scripts/fuzz.sh

bench: ## our speed beside a plain reference's; SUITE=chunkstore that one only, QUICK=1 fewer blocks
	@SUITE='$(SUITE)' QUICK='$(QUICK)' scripts/bench.sh

clean-demo: ## remove what the demo left
	rm -rf .demo

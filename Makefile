# Veneer. `make` builds out/veneer, `make test` runs every test; `make help` lists the rest.

PREFIX  ?= /usr/local
SBINDIR ?= /sbin
LOWER   ?= /usr/share
MNT     ?= /tmp/veneer/merged
STATE   ?= /tmp/veneer/state

export DOTNET_NOLOGO = 1
export DOTNET_CLI_TELEMETRY_OPTOUT = 1
export DOTNET_CLI_UI_LANGUAGE = en
# The command line of .NET wants ICU, or to be told to do without.
export DOTNET_SYSTEM_GLOBALIZATION_INVARIANT = 1

SOURCES := $(shell find src -type f) $(wildcard Directory.*.props) global.json .editorconfig tools/publish.sh

.PHONY: all build test test-options oracle test-real mutation bench bench-smoke bench-micro run man install uninstall clean help

all: out/veneer

out/veneer: $(SOURCES)
	@tools/setup.sh build
	@echo 'Building out/veneer: this takes a minute or two.'
	@tools/publish.sh

# The same, but it checks the order of its locks: for tests.
out-checked/veneer: $(SOURCES)
	@tools/setup.sh build
	@tools/publish.sh --checked

build:
	@tools/setup.sh build
	@dotnet build Veneer.slnx --verbosity quiet

test: out/veneer out-checked/veneer
	@tools/setup.sh test
	@dotnet build Veneer.slnx --verbosity quiet
	@tools/test.sh

# The tests that mount, with one option after the other; OPTIONS='passthrough=off revocable' chooses.
test-options: out/veneer
	@tools/setup.sh test
	@dotnet build Veneer.slnx --verbosity quiet
	@tools/test-options.sh

SECONDS ?= 60

# Random operations on Veneer and on kernel overlayfs, compared; ARGS='--help' tells what else can be asked for.
oracle: out/veneer
	@tools/setup.sh test
	@dotnet build test/Oracle --verbosity quiet
	@dotnet run --project test/Oracle --no-build -- --seconds '$(SECONDS)' $(ARGS)

test-real: out/veneer
	@tools/setup.sh test-real
	@STATE='$(STATE)' test/real/run.sh

ROOMS ?= Format Lookup Tree Upper

# Changes the code and looks whether a test fails; ROOMS='Format Lookup' chooses.
mutation:
	@tools/setup.sh build
	@tools/mutation.sh $(ROOMS)

# Beside kernel overlayfs and others; ARGS='--help' tells what can be asked for.
bench: out/veneer
	@tools/setup.sh bench
	@dotnet build bench/Compare --configuration Release --verbosity quiet >&2
	@dotnet run --project bench/Compare --configuration Release --no-build -- $(ARGS)

bench-smoke: override ARGS += --smoke
bench-smoke: bench

# Our own code without a kernel in the way; ARGS="--filter '*Table*'" runs some.
bench-micro:
	@tools/setup.sh build
	@dotnet run --project bench/Micro --configuration Release -- $(ARGS)

run: out/veneer
	@tools/setup.sh run
	@tools/run.sh '$(LOWER)' '$(MNT)' '$(STATE)'

MANDIR = $(DESTDIR)$(PREFIX)/share/man

# The manual pages, from the texts that --help shows: out/man/man1/veneer.1 and its like.
man: out/veneer
	@rm -rf out/man
	@set -e; for page in $$(out/veneer --roff); do \
		mkdir -p out/man/man$${page##*.}; \
		out/veneer --roff $$page >out/man/man$${page##*.}/$$page; \
	done

install: out/veneer man
	install -D -m 755 out/veneer '$(DESTDIR)$(PREFIX)/bin/veneer'
	install -d '$(DESTDIR)$(SBINDIR)'
	ln -sfn '$(PREFIX)/bin/veneer' '$(DESTDIR)$(SBINDIR)/mount.fuse.veneer'
	ln -sfn '$(PREFIX)/bin/veneer' '$(DESTDIR)$(SBINDIR)/umount.fuse.veneer'
	install -D -m 644 src/Cli/veneer.bash '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/veneer'
	@for page in out/man/*/*; do install -D -m 644 "$$page" '$(MANDIR)'/"$${page#out/man/}" || exit; done

uninstall:
	rm -f '$(DESTDIR)$(PREFIX)/bin/veneer' '$(DESTDIR)$(SBINDIR)/mount.fuse.veneer' '$(DESTDIR)$(SBINDIR)/umount.fuse.veneer'
	rm -f '$(MANDIR)'/man1/veneer.1 '$(MANDIR)'/man1/veneer-*.1 '$(MANDIR)'/man5/veneer.options.5 \
		'$(MANDIR)'/man8/mount.fuse.veneer.8 '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/veneer'

clean:
	rm -rf out out-checked artifacts

help:
	@echo 'make                       out/veneer, one native binary'
	@echo 'make build                 every project, as the tests use it'
	@echo 'make test                  every test; ends with "N passed, N failed"'
	@echo 'make test-options          the tests that mount, once more with each option'
	@echo 'make oracle SECONDS=600    random operations, compared with kernel overlayfs; ARGS=--help'
	@echo 'make test-real             real work in a Debian, beside kernel overlayfs; needs its mirror'
	@echo 'make mutation ROOMS=Format changes the code, and tells which changes no test without a mount notices'
	@echo 'make bench                 Veneer beside kernel overlayfs and others; ARGS=--help'
	@echo 'make bench-smoke           the same in two minutes'
	@echo 'make bench-micro           our own code alone, with BenchmarkDotNet'
	@echo 'make run LOWER=DIR MNT=DIR mount a writable view of LOWER at MNT'
	@echo 'make man                   the manual pages, in out/man'
	@echo 'make install PREFIX=DIR    bin/veneer, its helpers in /sbin, manual pages, completion; DESTDIR too'
	@echo 'make uninstall             what install put there'
	@echo 'make clean                 remove out and artifacts'

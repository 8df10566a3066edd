# SPDX-License-Identifier: GPL-2.0-only
#
# Builds, installs and tests tlssnoop.  "make" needs no network and no privilege; "make
# check" and "make demo" install what they lack (root, Debian or Ubuntu).
#
#   make                 ./tlssnoop
#   make install         to $(DESTDIR)$(PREFIX), with man page and bash completion
#   make check           every test; SAN=1: with address and undefined sanitizers
#   make lint            format and warnings only
#   make demo            traces real programs and shows it
#   make bench           what tracing costs, against empty probes
#   make ARCH=arm64 tlssnoop.bpf.o   the kernel side for another machine

PREFIX ?= /usr/local
CLANG ?= clang
# Ubuntu's wants the tools of the very kernel that runs; to build, those of another do as well
BPFTOOL ?= $(firstword $(shell bpftool version >/dev/null 2>&1 && echo bpftool) \
	$(wildcard /usr/lib/linux-tools/*/bpftool) bpftool)
PKG_CONFIG ?= pkg-config
LLVM_STRIP ?= llvm-strip
ARCH ?= $(shell uname -m | sed -e s/x86_64/x86/ -e s/aarch64/arm64/)

VERSION := 0.1
CFLAGS ?= -O2 -g
WARNINGS := -Wall -Wextra -Werror
ifdef SAN
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
ALL_CFLAGS = -std=c11 -pthread $(WARNINGS) -DVERSION='"$(VERSION)"' $(CFLAGS) $(SANFLAGS) \
	$(shell $(PKG_CONFIG) --cflags libbpf libelf liblzma 2>/dev/null)
LIBS = $(shell $(PKG_CONFIG) --libs libbpf libelf liblzma 2>/dev/null)
# where Debian keeps <asm/types.h>, which <linux/types.h> wants
BPF_INCLUDES = $(addprefix -idirafter /usr/include/,$(shell $(CC) -print-multiarch 2>/dev/null))
BPF_CFLAGS = -g -O2 -target bpf -D__TARGET_ARCH_$(ARCH) $(WARNINGS) $(BPF_INCLUDES)

SYMBOLS := elfsym.o elfsym_debug.o
ELFSYM := $(SYMBOLS) elfsym_tables.o elfsym_image.o elfsym_code.o
OBJECTS := tlssnoop.o correlate.o $(ELFSYM)
HEADERS := tlssnoop.h elfsym.h elfsym_debug.h elfsym_image.h elfsym_code.h correlate.h
TEST_PROGRAMS := tests/ssl_target tests/correlate_test tests/schedules_test tests/replay_test \
	tests/elfsym_test

.PHONY: all check check-tools clean demo bench install lint test-programs uninstall FORCE
.DELETE_ON_ERROR:

all: tlssnoop

tlssnoop: $(OBJECTS)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $(OBJECTS) $(LIBS)

%.o: %.c $(HEADERS) .flags | check-tools
	$(CC) $(ALL_CFLAGS) $(CPPFLAGS) -c -o $@ $<

tlssnoop.o: tlssnoop.skel.h

tlssnoop.bpf.o: tlssnoop.bpf.c tlssnoop.h .flags | check-tools
	$(CLANG) $(BPF_CFLAGS) -c -o $@ $<
	$(LLVM_STRIP) -g $@

tlssnoop.skel.h: tlssnoop.bpf.o
	$(BPFTOOL) gen skeleton $< name tlssnoop_bpf >$@

# Changes only when the flags do, so that another ARCH or SAN builds anew
.flags: FORCE
	@echo '$(ARCH) $(CC) $(CLANG) $(ALL_CFLAGS)' | cmp -s - $@ || \
		echo '$(ARCH) $(CC) $(CLANG) $(ALL_CFLAGS)' >$@

# What is missing, and the package (Debian, Ubuntu) that brings it
missing = { echo "tlssnoop: cannot build: $(1) is missing: apt-get install $(2)" >&2; exit 1; }
need = command -v $(1) >/dev/null || $(call missing,$(1),$(2))
need_lib = $(PKG_CONFIG) --exists "$(1)" || $(call missing,the library $(1),$(firstword $(1))-dev)
check-tools:
	@$(call need,$(CC),gcc)
	@$(call need,$(CLANG),clang)
	@$(call need,$(LLVM_STRIP),llvm)
	@$(BPFTOOL) version >/dev/null 2>&1 || \
		$(call missing,$(BPFTOOL),bpftool$(comma) on Ubuntu linux-tools-generic)
	@$(call need,$(PKG_CONFIG),pkg-config)
	@$(call need_lib,libbpf >= 1.1)
	@$(call need_lib,libelf)
	@$(call need_lib,liblzma)
comma := ,

install: all
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/share/man/man8 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -m 755 tlssnoop $(DESTDIR)$(PREFIX)/sbin/tlssnoop
	install -m 644 man/tlssnoop.8 $(DESTDIR)$(PREFIX)/share/man/man8/tlssnoop.8
	install -m 644 man/tlssnoop.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/tlssnoop

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/sbin/tlssnoop $(DESTDIR)$(PREFIX)/share/man/man8/tlssnoop.8 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/tlssnoop

tests/ssl_target: tests/ssl_target.c .flags
	$(CC) -std=c11 $(WARNINGS) -O2 -o $@ $< -luring -lssl -lcrypto -lpthread

tests/correlate_test tests/schedules_test: tests/%: tests/%.c tests/tap.h correlate.o $(HEADERS)
	$(CC) $(ALL_CFLAGS) -I. -o $@ $< correlate.o

tests/replay_test: tests/replay_test.c tests/tap.h tests/facts.h correlate.o $(HEADERS)
	$(CC) $(ALL_CFLAGS) -I. -o $@ $< correlate.o

# tlssnoop that writes down the facts: makes tests/recordings
tests/recorder: tests/record.c tests/facts.h tlssnoop.o $(ELFSYM) $(HEADERS)
	$(CC) $(ALL_CFLAGS) -I. -o $@ $< tlssnoop.o $(ELFSYM) $(LIBS)

tests/elfsym_test: tests/elfsym_test.c tests/tap.h $(SYMBOLS) $(HEADERS)
	$(CC) $(ALL_CFLAGS) -I. -o $@ $< $(SYMBOLS) $(LIBS)

test-programs: $(TEST_PROGRAMS)

check:
	tests/install build check
	$(MAKE) all test-programs
	tests/run

lint: tlssnoop.skel.h
	tests/lint

demo:
	tests/install build demo
	$(MAKE) all
	tests/demo

bench:
	tests/install build check
	$(MAKE) all
	tests/bench

clean:
	rm -f tlssnoop $(OBJECTS) tlssnoop.bpf.o tlssnoop.skel.h .flags $(TEST_PROGRAMS) \
		tests/recorder

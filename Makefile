# Isoface: set-up, build, tests, demo, benchmarks and installation. See README.md.
#
#   make                set-up, the library and the programs (into build/bin)
#   make test           everything above, and the tests
#   make demo           [IMAGES=DIR]
#   make bench          [BENCH=name]
#   make CUDA=1         with the kernels for a GPU (--device cuda); needs CUDA's toolkit and cuDNN, found by CUDA_HOME=
#                       (/usr/local/cuda) and CUDNN_HOME= (where that is elsewhere)
#   make test-cuda      those kernels against the CPU's, where there is a GPU; make test-cuda-emulated: on the CPU
#   make install        [PREFIX=/usr/local] [DESTDIR=]; make uninstall
#   make clean
#
# V=1 shows the commands, CC=, CFLAGS=, LDFLAGS= add to them, WERROR= lets warnings pass,
# SANITIZE=address,undefined builds and tests with sanitizers, in a build folder of its own.

ifneq ($(firstword $(filter 4.% 5.%,$(MAKE_VERSION))),$(MAKE_VERSION))
$(error GNU make 4 or newer is needed)
endif
ifeq ($(origin CC),default)
CC := gcc
endif
PREFIX ?= /usr/local
WERROR ?= -Werror
SANITIZE ?=
CLANG ?= clang
comma := ,
CUDA_HOME ?= /usr/local/cuda
NVCC ?= $(CUDA_HOME)/bin/nvcc
# The GPUs that kernels are compiled for ahead: 8.0 (A100), 9.0 (H100), and any newer one by its driver.
CUDA_CODE ?= -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90,code=sm_90 -gencode=arch=compute_90,code=compute_90
ifneq ($(filter test-cuda test-cuda-emulated,$(MAKECMDGOALS)),)
override CUDA := 1
endif
override CUDA := $(filter-out 0 no,$(CUDA))

# Everything at once, unless told otherwise (-j1).
ifeq ($(MAKELEVEL)$(filter -j% --jobs%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 1)
endif

BUILD := build$(if $(SANITIZE),/sanitize-$(subst $(comma),-,$(SANITIZE)))
.SUFFIXES:
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all test test-cuda test-cuda-emulated demo bench install uninstall clean lint
all:

ifeq ($(V),1)
quiet = $(2)
else
quiet = @$(if $(findstring s,$(firstword -$(MAKEFLAGS))),,printf '  %-5s %s\n' $(1) '$@';) $(2)
endif

# Writes the text $(2) to the file $(1), only if it is another: what depends on it is then made again. Not with -n, and nothing where nothing has
# changed: `make install` from a tree that cannot be written.
define remember
$(if $(findstring |$(2)|,|$(file <$(1))|)$(findstring n,$(firstword -$(MAKEFLAGS))),,$(shell mkdir -p $(dir $(1)))$(file >$(1),$(2)))
endef

# ------------------------------------------------------------------ set-up

needs_setup := $(filter-out clean uninstall,$(or $(MAKECMDGOALS),all))
ifneq ($(needs_setup),)
# FAISS is compiled for the CPU at hand: on another machine, or with another compiler, set-up looks again.
machine := $(shell $(CC) --version 2>/dev/null | head -n 1) $(shell \
    $(CC) -march=native -Q --help=target 2>/dev/null | cksum)
$(call remember,build/machine,$(machine))

include build/config.mk
build/config.mk: setup/setup.sh build/machine
	setup/setup.sh $@
# A cache that was emptied is filled again.
ifneq ($(words $(wildcard $(FAISS_LIBRARIES))),$(words $(FAISS_LIBRARIES)))
build/config.mk: always
.PHONY: always
endif
endif

# ------------------------------------------------------------------ flags

warnings := -Wall -Wextra $(if $(findstring clang,$(machine)),-Wno-pass-failed) $(WERROR)
language := -std=c11 -D_GNU_SOURCE -I. -Iinclude $(LIBRARY_INCLUDES)
ifeq ($(SANITIZE),)
optimize := -O2 -g
optimize_kernels := -O3 -g -fno-math-errno -fno-trapping-math
else
optimize := -O1 -g -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
optimize_kernels := $(optimize) -fno-math-errno -fno-trapping-math
endif
compile := $(language) $(warnings) -fopenmp -fPIC
# OpenBLAS's OpenMP flavour shares its soname with the one that brings its own threads: the run path picks it.
link := -fopenmp $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -Wl,--as-needed -Wl,-rpath,$(OPENBLAS_LIBDIR)
needed := -L$(OPENBLAS_LIBDIR) -lopenblas $(strip $(LIBRARY_LINKS)) -lstdc++ -lm
libraries := $(FAISS_LIBRARIES) $(needed)

# What a GPU adds is remembered apart: with and without it all else is the same.
ifneq ($(CUDA),)
ifeq ($(wildcard $(NVCC)),)
$(error CUDA=1 needs CUDA's toolkit, and there is no $(NVCC): set CUDA_HOME)
endif
cuda_includes := -isystem $(CUDA_HOME)/include $(CUDNN_HOME:%=-isystem %/include)
# Old dynamic tags: NVRTC loads a library of its own by name, and has no run path. A wheel's cuDNN has only the name with its version.
cuda_libraries := -Wl$(comma)--disable-new-dtags $(foreach d,$(CUDNN_HOME:%=%/lib) $(CUDA_HOME)/lib64,-L$(d) -Wl$(comma)-rpath$(comma)$(d)) \
    -lcudart -lcublas -l:libcudnn.so.9 -lnvrtc
nvcc := $(NVCC) -std=c++17 -O3 -I. -Xcompiler -fPIC$(comma)-Wall$(comma)-Wextra $(if $(WERROR),-Werror all-warnings) $(CUDA_CODE)
endif
ifneq ($(needs_setup),)
$(call remember,$(BUILD)/cuda,$(nvcc) $(cuda_includes) $(cuda_libraries))
$(call remember,$(BUILD)/flags,$(CC) $(shell $(CC) --version | head -n 1) $(compile) $(optimize) $(optimize_kernels) $(link) $(libraries) \
    $(CFLAGS) $(LDFLAGS))
endif

# ------------------------------------------------------------------ library

folders := base model model/graph model/cpu $(if $(CUDA),model/cuda) model/net model/method indexer retriever eval demo
sources := $(sort $(wildcard $(folders:=/*.c)))
objects := $(sources:%.c=$(BUILD)/obj/%.o) $(if $(CUDA),$(BUILD)/obj/model/cuda/kernels.o)
version := $(shell sed -n 's/^.define ISO_VERSION "\(.*\)"/\1/p' include/isoface.h)
soversion := $(firstword $(subst ., ,$(version)))
shared := $(BUILD)/libisoface.so

$(BUILD)/obj/model/cpu/%.o $(BUILD)/obj/retriever/%.o: optimize := $(optimize_kernels)
# Micro-kernels are intrinsics on packed blocks: with sanitizers they would take minutes to compile and all day to run.
gemm_kernels := $(BUILD)/obj/model/cpu/gemm_avx512.o $(BUILD)/obj/model/cpu/gemm_avx2.o $(BUILD)/obj/model/cpu/gemm_amx.o
# Where a loop of theirs begins within a line of the cache is worth up to 8 % of all products.
$(gemm_kernels): optimize := -O3 -g -fno-math-errno -fno-trapping-math -falign-loops=64
# One vector an iteration takes one cycle or two, as the loop happens to lie.
$(BUILD)/obj/model/cpu/elementwise.o $(BUILD)/obj/model/cpu/reduce.o: more := -funroll-loops $(if $(findstring clang,$(machine)),,--param=max-unroll-times=4)
# Sums of products where nobody counts on two roundings.
$(BUILD)/obj/model/cpu/winograd_transform.o $(BUILD)/obj/model/cpu/conv_few.o $(BUILD)/obj/model/cpu/conv_image.o: more := -ffp-contract=fast
$(BUILD)/obj/%.o: %.c $(BUILD)/flags Makefile
	@mkdir -p $(@D)
	$(call quiet,CC,$(CC) $(compile) $(more) $(optimize) $(CFLAGS) -MMD -MP -c $< -o $@)
$(BUILD)/obj/model/cuda/%.o: more := $(cuda_includes)
$(BUILD)/obj/programs/processor.o: more := $(FAISS_NEEDS:%=-DISO_FAISS_%)
$(BUILD)/obj/programs/processor.o: build/config.mk
$(BUILD)/obj/model/device.o: more := $(if $(CUDA),-DISO_CUDA)
$(BUILD)/obj/model/device.o: $(BUILD)/cuda
$(BUILD)/obj/model/cuda/kernels.o: model/cuda/kernels.cu model/cuda/kernels.h $(BUILD)/cuda
	@mkdir -p $(@D)
	$(call quiet,NVCC,$(nvcc) -c $< -o $@)

# With FAISS in it, which no Debian package has as it is needed here: who links this needs nothing of the cache.
unpacked := $(BUILD)/obj/faiss
$(BUILD)/libisoface.a: $(objects) $(BUILD)/cuda $(BUILD)/flags
	@rm -rf $@ $(unpacked) && mkdir -p $(foreach l,$(FAISS_LIBRARIES),$(unpacked)/$(notdir $(l)))
	@$(foreach l,$(FAISS_LIBRARIES),ar x --output=$(unpacked)/$(notdir $(l)) $(l) &&) :
	$(call quiet,AR,ar rcs $@ $(objects) $(unpacked)/*/*.o && rm -r $(unpacked))

# The shared library shows what include/isoface.h declares and nothing else. Nothing in there asks for a GPU. It stays when a host closes it:
# OpenMP's threads go on running what would be gone.
shared_objects := $(filter-out $(BUILD)/obj/model/cuda/% $(BUILD)/obj/model/device.o,$(objects))
$(BUILD)/exports: include/isoface.h
	@mkdir -p $(@D)
	@{ echo '{ global:'; grep -oE '\biso_[a-z0-9_]+ *\(' $< | sed 's/ *(/;/' | sort -u; echo 'local: *; };'; } >$@

# Of what has FAISS for AVX2 in it the dynamic linker is told so: it refuses it on an older processor, with a line or through dlopen,
# where FAISS's own constructors would end the host by an illegal instruction.
marked := $(if $(filter AVX2,$(FAISS_NEEDS)),-Wl$(comma)-z$(comma)x86-64-v3)
$(shared).$(version): private link += $(marked)
$(shared).$(version): $(shared_objects) $(BUILD)/exports build/config.mk
	$(call quiet,LD,$(CC) -shared -Wl$(comma)-soname$(comma)libisoface.so.$(soversion) \
	    -Wl$(comma)--version-script=$(BUILD)/exports -Wl$(comma)-z$(comma)defs -Wl$(comma)-z$(comma)nodelete $(link) $(LDFLAGS) $(shared_objects) $(libraries) -o $@)

$(shared): $(shared).$(version)
	@ln -sf $(notdir $<) $(shared).$(soversion) && ln -sf $(notdir $<) $@

# ------------------------------------------------------------------ programs and tests

# A file of programs/ with a main is a program; NAME_*.c belong to program NAME, the rest to all of them.
program_sources := $(sort $(wildcard programs/*.c))
mains := $(if $(program_sources),$(shell grep -lwE '^int main' $(program_sources)))
names := $(mains:programs/%.c=%)
parts_of = $(filter programs/$(1)_%.c,$(filter-out $(mains),$(program_sources)))
shared_parts := $(filter-out $(mains) $(foreach n,$(names),$(call parts_of,$(n))),$(program_sources))
programs := $(names:%=$(BUILD)/bin/%)

define program_rule
$(BUILD)/bin/$(1): $(patsubst %.c,$(BUILD)/obj/%.o,programs/$(1).c $(call parts_of,$(1)) $(shared_parts))
endef
$(foreach n,$(names),$(eval $(call program_rule,$(n))))
# `evaluate sweep` trains as `indexer train` and `indexer flatten` do; benchencode measures as benchstep does.
$(BUILD)/bin/evaluate: $(patsubst %,$(BUILD)/obj/programs/indexer_%.o,train flatten training)
$(BUILD)/bin/benchencode: $(BUILD)/obj/programs/benchstep_timing.o

$(programs): $(BUILD)/libisoface.a
	@mkdir -p $(@D)
	$(call quiet,LD,$(CC) $(link) $(LDFLAGS) $(filter %.o,$^) $(BUILD)/libisoface.a $(libraries) $(cuda_libraries) -o $@)

test_sources := $(sort $(wildcard tests/test_*.c))
test_support := $(filter-out $(test_sources),$(wildcard tests/*.c))
tests := $(test_sources:tests/%.c=$(BUILD)/tests/%)

# Allocations of Isoface's own go through the test, which refuses some.
refusable := malloc calloc realloc aligned_alloc posix_memalign strdup mmap
$(BUILD)/tests/test_train_memory: private link += $(refusable:%=-Wl$(comma)--wrap=%)
$(BUILD)/tests/test_store_memory: private link += $(patsubst %,-Wl$(comma)--wrap=%,malloc calloc realloc vasprintf mdb_cursor_open)
$(tests): $(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(test_support:%.c=$(BUILD)/obj/%.o) $(BUILD)/libisoface.a
	@mkdir -p $(@D)
	$(call quiet,LD,$(CC) $(link) $(LDFLAGS) $(filter %.o,$^) $(BUILD)/libisoface.a -lcmocka -ljansson $(libraries) $(cuda_libraries) -o $@)

all: $(BUILD)/libisoface.a $(shared) $(programs)

# A second compiler's warnings, where it is there. It takes omp.h from the first, less what only that one knows.
lint_sources := $(sources) $(program_sources) $(test_sources) $(test_support) $(if $(CUDA),$(wildcard tests/cuda/*.c))
lint: $(lint_sources:%.c=$(BUILD)/lint/%.ok)
$(BUILD)/lint/include/omp.h: Makefile $(BUILD)/flags
	@mkdir -p $(@D)
	@sed 's/__malloc__ (omp_free)/__malloc__/' "$$($(CC) -print-file-name=include/omp.h)" >$@
$(BUILD)/lint/%.ok: %.c $(BUILD)/lint/include/omp.h
	@mkdir -p $(@D)
	$(call quiet,LINT,$(CLANG) -fsyntax-only $(language) -isystem $(BUILD)/lint/include -Wall -Wextra -Werror \
	    $(cuda_includes) -fopenmp -MMD -MP -MF $(@:.ok=.d) -MT $@ $< && touch $@)

test: all $(tests)
	@BUILD=$(BUILD) CLANG='$(CLANG)' MAKE='$(MAKE)' tests/run $(tests)

# The CUDA backend against the reference and the CPU: on a GPU; or on the CPU, by an emulator of what it uses of CUDA.
cuda_test := $(BUILD)/obj/tests/cuda/test_cuda.o $(BUILD)/obj/tests/cuda/test_cuda_runs.o
$(BUILD)/tests/test_cuda: $(cuda_test) $(BUILD)/libisoface.a
$(BUILD)/tests/test_engines: $(BUILD)/obj/tests/cuda/test_engines.o $(BUILD)/libisoface.a
$(BUILD)/tests/test_cuda $(BUILD)/tests/test_engines:
	@mkdir -p $(@D)
	$(call quiet,LD,$(CC) $(link) $(LDFLAGS) $^ $(libraries) $(cuda_libraries) -o $@)
test-cuda: all $(BUILD)/tests/test_cuda $(BUILD)/tests/test_engines
	@BUILD=$(BUILD) tests/cuda/run

emulator := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/cuda/emulat*.c)) $(BUILD)/obj/tests/cuda/kernels.o
emulated := $(filter-out $(BUILD)/obj/model/cuda/kernels.o,$(objects)) $(emulator)
$(BUILD)/obj/tests/cuda/%.o: more := $(cuda_includes)
$(BUILD)/obj/tests/cuda/kernels.o: model/cuda/kernels.cu model/cuda/kernels.h tests/cuda/emulator.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(call quiet,CXX,$(CXX) -std=c++17 -O1 -g -w -fPIC -ffp-contract=off -I. $(cuda_includes) -include tests/cuda/emulator.h -x c++ -c $< -o $@)
$(BUILD)/emulated/test_cuda: $(cuda_test) $(emulated)
$(BUILD)/emulated/golden: $(patsubst %.c,$(BUILD)/obj/%.o,programs/golden.c $(call parts_of,golden) $(shared_parts)) $(emulated)
$(BUILD)/emulated/indexer: $(patsubst %.c,$(BUILD)/obj/%.o,programs/indexer.c $(call parts_of,indexer) $(shared_parts)) $(emulated)
$(BUILD)/emulated/%:
	@mkdir -p $(@D)
	$(call quiet,LD,$(CC) $(link) $(LDFLAGS) -rdynamic $(filter %.o,$^) $(libraries) -ldl -o $@)
test-cuda-emulated: $(BUILD)/emulated/test_cuda $(BUILD)/emulated/golden $(BUILD)/emulated/indexer $(BUILD)/bin/drawfaces
	@BUILD=$(BUILD) tests/cuda/run emulated

# ------------------------------------------------------------------ demo, bench, install

demo: all
	@BIN=$(BUILD)/bin IMAGES='$(IMAGES)' demo/run.sh

bench: all
	@BIN=$(BUILD)/bin bench/run.sh $(BENCH)

installed := indexer retrieve evaluate
bindir := $(DESTDIR)$(PREFIX)/bin
libdir := $(DESTDIR)$(PREFIX)/lib
includedir := $(DESTDIR)$(PREFIX)/include

install: all
	$(if $(filter /%,$(firstword $(PREFIX))),,$(error PREFIX is where programs look for the library: it must begin with /, not be $(PREFIX)))
	install -d '$(bindir)' '$(libdir)/pkgconfig' '$(includedir)'
	install -m 755 $(installed:%=$(BUILD)/bin/%) '$(bindir)'
	install -m 644 include/isoface.h '$(includedir)'
	install -m 644 $(BUILD)/libisoface.a '$(libdir)'
	install -m 755 $(shared).$(version) '$(libdir)'
	ln -sf libisoface.so.$(version) '$(libdir)/libisoface.so.$(soversion)'
	ln -sf libisoface.so.$(version) '$(libdir)/libisoface.so'
	printf '%s\n' 'prefix=$(PREFIX)' 'exec_prefix=$${prefix}' 'libdir=$${exec_prefix}/lib' 'includedir=$${prefix}/include' '' \
	    'Name: isoface' 'Description: image retrieval by example' 'Version: $(version)' 'Libs: -L"$${libdir}" -lisoface' \
	    'Libs.private: $(strip $(marked) -Wl,-rpath,$(OPENBLAS_LIBDIR) $(needed) -lgomp)' 'Cflags: -I"$${includedir}"' >'$(libdir)/pkgconfig/isoface.pc'
	chmod 644 '$(libdir)/pkgconfig/isoface.pc'
	@setup/ldconfig.sh '$(PREFIX)/lib' '$(DESTDIR)'

uninstall:
	rm -f $(installed:%='$(bindir)/%') '$(includedir)/isoface.h' '$(libdir)/libisoface.a' \
	    '$(libdir)/libisoface.so' '$(libdir)/libisoface.so.$(soversion)' '$(libdir)/libisoface.so.$(version)' \
	    '$(libdir)/pkgconfig/isoface.pc'

clean:
	rm -rf build

-include $(cuda_test:.o=.d) $(BUILD)/obj/tests/cuda/test_engines.d $(emulator:.o=.d) $(lint_sources:%.c=$(BUILD)/obj/%.d) $(lint_sources:%.c=$(BUILD)/lint/%.d)

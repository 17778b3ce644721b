#!/bin/bash
# The programs on a device that is not there, and on a processor that lacks what they were built for.
name=device
. "$(dirname "$0")/check.bash"

mkdir "$work/images"
for command in "train --images $work/images --model $work/m" "flatten --images $work/images --model $work/m --output $work/m2" \
    "encode --images $work/images --model $work/m --db $work/db"; do
    for device in cuda cuda-float32; do
        call indexer $command --device $device
        expect "$command --device $device" 1
        same "$(wc -l <"$work/said")" 1 "lines about --device $device"
        # Where there is a GPU and a build for it, it is the missing model or the empty folder that is told.
        [[ $said == *'no such file'* || $said == *'No such file'* || $said == *'no images'* || $said == *'no usable image'* ]] ||
            has "$said" 'use --device cpu' "$command --device $device"
        same "$out" '' 'what an error prints on stdout'
    done
    call indexer $command --device tpu
    expect "$command --device tpu" 2
    has "$said" 'cpu|cuda|cuda-float32' 'the choices of --device'
done

# A wish for kernels that are not there is answered, once; one that can be is not.
for wish in portabel neon; do
    ISO_CPU=$wish call retrieve --version
    expect "ISO_CPU=$wish" 0
    same "$(grep -c 'ISO_CPU=.* the best is used' "$work/said")" 1 "ISO_CPU=$wish"
done
for wish in portable ''; do
    ISO_CPU=$wish call retrieve --version
    same "$said" '' "ISO_CPU=$wish"
done

# Kernels know from base/isa.c alone what they may use, so that all heed ISO_CPU.
same "$(cd "$(dirname "$0")/.." && grep -rlE '__builtin_cpu_supports|__get_cpuid|arch_prctl|"ISO_CPU"' base model indexer retriever eval)" base/isa.c 'who asks the processor'

# A processor of before AVX2: the program either runs or says why not. Never an illegal instruction (exit code 132).
if command -v qemu-x86_64 >/dev/null && [[ $(uname -m) == x86_64 ]] && ! grep -qa __asan_init "$bin/retrieve"; then
    for program in retrieve indexer golden drawfaces; do
        qemu-x86_64 -cpu Nehalem "$bin/$program" --version >"$work/out" 2>"$work/said"
        rc=$? out=$(<"$work/out") said=$(<"$work/said")
        if ((rc == 0)); then
            has "$out" "$program 0" "$program on a Nehalem"
        else
            expect "$program on a Nehalem" 1
            has "$said" 'was built for a processor with AVX2' "$program on a Nehalem"
            same "$(wc -l <"$work/said")" 1 'lines about the processor'
        fi
    done
    # A host is told by the dynamic linker, before anything of the library runs. Its exit code is 132 where FAISS's constructors were the first to notice.
    qemu-x86_64 -cpu Nehalem -E LD_PRELOAD="$(readlink -f "$bin/../libisoface.so")" /bin/true >"$work/out" 2>&1
    rc=$? said=$(<"$work/out")
    if qemu-x86_64 -cpu Nehalem "$bin/retrieve" --version >/dev/null 2>&1; then
        expect 'the library on a Nehalem' 0
    else
        expect 'the library on a Nehalem' 127
        has "$said" 'ISA level is lower than required' 'the library on a Nehalem'
    fi
fi
exit $failed

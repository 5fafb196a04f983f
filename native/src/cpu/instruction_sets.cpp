// The one place where an instruction set is added.
#include "cpu/instruction_sets.h"

#include <algorithm>
#include <array>
#include <string>

#include "cpu/attention.h"
#include "error.h"

namespace scaledit::cpu {
namespace {

struct InstructionSet {
    scaledit_instruction_set name;
    bool (*supported)();  // by the processor and the operating system
    const Kernels& kernels;
    scene::Painter painter;
};

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512_vnni() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

// The best first.
const std::array kInstructionSets = {
#if defined(__x86_64__)
    InstructionSet{SCALEDIT_INSTRUCTION_SET_AVX512_VNNI, has_avx512_vnni, kAvx512VnniKernels, scene::paint_avx512vnni},
    InstructionSet{SCALEDIT_INSTRUCTION_SET_AVX2, has_avx2, kAvx2Kernels, scene::paint_avx2},
#endif
    InstructionSet{SCALEDIT_INSTRUCTION_SET_PORTABLE, [] { return true; }, kPortableKernels, scene::paint_portable},
};

const InstructionSet* find(scaledit_instruction_set set) {
    const auto* found = std::ranges::find(kInstructionSets, set, &InstructionSet::name);
    return found == kInstructionSets.end() ? nullptr : found;
}

const InstructionSet& known(scaledit_instruction_set set) {
    const auto* found = find(set);
    if (found == nullptr) {
        fail_invalid("instruction set " + std::to_string(set) + " has no kernels in this build");
    }
    return *found;
}

}  // namespace

bool supported(scaledit_instruction_set set) {
    const auto* found = find(set);
    return found != nullptr && found->supported();
}

scaledit_instruction_set best() {
    return std::ranges::find_if(kInstructionSets, [](const auto& set) { return set.supported(); })->name;
}

bool multiplies_bfloat16() {
#if defined(__x86_64__)
    return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

const Kernels& kernels_of(scaledit_instruction_set set) { return known(set).kernels; }

scene::Painter painter_of(scaledit_instruction_set set) { return known(set).painter; }

}  // namespace scaledit::cpu

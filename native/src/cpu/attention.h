// Attention on the CPU over a geometry's tile lists.
#pragma once

#include <cstddef>

#include "geometry/geometry.h"
#include "scaledit/scaledit.h"

namespace scaledit::cpu {

// What the C ABI's argument checks leave: a valid, supported problem with the instruction set and the number of threads
// resolved (neither BEST nor 0).
struct Problem {
    const Geometry& geometry;
    scaledit_attention_arguments arguments;
};

// Bytes of workspace for a problem.
std::size_t workspace_bytes(const Problem& problem);

// Computes the output and, where asked for, log_sum_exp. The same bits for any number of threads.
void attend(const Problem& problem);

bool supported(scaledit_instruction_set set);
scaledit_instruction_set best();

}  // namespace scaledit::cpu

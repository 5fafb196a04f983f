// Attention on the CPU over a geometry's tile lists.
#pragma once

#include <cstddef>

#include "geometry/geometry.h"
#include "geometry/query_lists.h"
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

// The same for gradients.
struct BackwardProblem {
    const Geometry& geometry;
    const QueryLists& queries;
    scaledit_attention_backward_arguments arguments;
};

std::size_t workspace_bytes(const BackwardProblem& problem);

// Computes the gradients of query, key and value. The same bits for any number of threads.
void propagate_back(const BackwardProblem& problem);

bool supported(scaledit_instruction_set set);
scaledit_instruction_set best();
bool multiplies_bfloat16();

}  // namespace scaledit::cpu

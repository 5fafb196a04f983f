// What a caller can get wrong in the arguments of attention and of its backward pass, and the sentence that says so.
#pragma once

#include <cstddef>

#include "cpu/attention.h"
#include "scaledit/scaledit.h"

namespace scaledit::abi {

// Refuses an instruction set that does not exist (SCALEDIT_INVALID_ARGUMENT) or that this processor or build does not
// have (SCALEDIT_UNSUPPORTED).
void check_instruction_set(std::int32_t set);

// The problem that the arguments describe, with instruction set and threads resolved. Looks at no pointer but the
// geometry's.
cpu::Problem checked_problem(const scaledit_attention_arguments* arguments);
cpu::BackwardProblem checked_problem(const scaledit_attention_backward_arguments* arguments);

// What a call on a GPU reads beside its tensors: the geometry's copy there.
struct DeviceGeometry {
    const void* data;
    std::size_t bytes;
};

// Refuses null, misaligned and overlapping buffers and a workspace smaller than `workspace_bytes`. On a CPU there is no
// `device_geometry`.
void check_buffers(const cpu::Problem& problem, std::size_t workspace_bytes,
                   const DeviceGeometry* device_geometry = nullptr);
void check_buffers(const cpu::BackwardProblem& problem, std::size_t workspace_bytes,
                   const DeviceGeometry* device_geometry = nullptr);

}  // namespace scaledit::abi

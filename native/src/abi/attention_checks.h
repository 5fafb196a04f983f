// What a caller can get wrong in the arguments of attention and of its backward pass, and the sentence that says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cpu/attention.h"
#include "scaledit/scaledit.h"

namespace scaledit::abi {

// Refuses an instruction set that does not exist (SCALEDIT_INVALID_ARGUMENT) or that this processor or build does not
// have (SCALEDIT_UNSUPPORTED).
void check_instruction_set(std::int32_t set);

// The arguments with instruction set and threads resolved. Looks at no pointer but the geometry's.
scaledit_attention_arguments checked(const scaledit_attention_arguments* arguments);
scaledit_attention_backward_arguments checked(const scaledit_attention_backward_arguments* arguments);

// The problem that they describe on a CPU.
cpu::Problem checked_problem(const scaledit_attention_arguments* arguments);
cpu::BackwardProblem checked_problem(const scaledit_attention_backward_arguments* arguments);

struct NamedTensor {
    const char* name;
    const scaledit_tensor& tensor;
    bool written;
};

// Those of a call.
std::vector<NamedTensor> tensors(const scaledit_attention_arguments& arguments);
std::vector<NamedTensor> tensors(const scaledit_attention_backward_arguments& arguments);

// What a call on a GPU reads beside its tensors.
struct ReadMemory {
    const char* name;
    const void* data;
    std::size_t bytes;
};

// Refuses null, misaligned and overlapping buffers and a workspace smaller than `workspace_bytes`, in arguments that
// were checked.
void check_buffers(const scaledit_attention_arguments& arguments, std::size_t workspace_bytes,
                   std::span<const ReadMemory> beside = {});
void check_buffers(const scaledit_attention_backward_arguments& arguments, std::size_t workspace_bytes,
                   std::span<const ReadMemory> beside = {});

}  // namespace scaledit::abi

#include "cpu/attention.h"

#include "abi/attention_checks.h"
#include "abi/guard.h"

namespace abi = scaledit::abi;
namespace cpu = scaledit::cpu;

scaledit_status scaledit_attention_workspace(const scaledit_attention_arguments* arguments, size_t* bytes) {
    return abi::guard([&] {
        abi::expect_pointer(bytes, "bytes", "where to put the number");
        *bytes = cpu::workspace_bytes(abi::checked_problem(arguments));
    });
}

scaledit_status scaledit_attention(const scaledit_attention_arguments* arguments) {
    return abi::guard([&] {
        const cpu::Problem problem = abi::checked_problem(arguments);
        abi::check_buffers(problem.arguments, cpu::workspace_bytes(problem));
        cpu::attend(problem);
    });
}

scaledit_status scaledit_attention_backward_workspace(const scaledit_attention_backward_arguments* arguments,
                                                      size_t* bytes) {
    return abi::guard([&] {
        abi::expect_pointer(bytes, "bytes", "where to put the number");
        *bytes = cpu::workspace_bytes(abi::checked_problem(arguments));
    });
}

scaledit_status scaledit_attention_backward(const scaledit_attention_backward_arguments* arguments) {
    return abi::guard([&] {
        const cpu::BackwardProblem problem = abi::checked_problem(arguments);
        abi::check_buffers(problem.arguments, cpu::workspace_bytes(problem));
        cpu::propagate_back(problem);
    });
}

scaledit_status scaledit_instruction_set_supported(int32_t instruction_set) {
    return abi::guard([&] { abi::check_instruction_set(instruction_set); });
}

int32_t scaledit_instruction_set_best(void) { return cpu::best(); }

int32_t scaledit_multiplies_bfloat16(void) { return cpu::multiplies_bfloat16() ? 1 : 0; }

#include "cuda/kernels.h"

#include <string>

#include "error.h"
#include "scaledit/scaledit.h"

namespace scaledit::cuda {
namespace {

constexpr int kAnyLater = 1 << 30;

struct Choice {
    std::int32_t arithmetic;
    std::int32_t kernels;
    int oldest;  // compute capability that runs it
    int newest;
    Kernel kernel;
};

// The best of an arithmetic first. Every family has each arithmetic once.
constexpr Choice kChoices[] = {
    {SCALEDIT_ARITHMETIC_INT8, SCALEDIT_CUDA_KERNELS_SM90, 90, 90, Kernel::kInt8Wgmma},
    {SCALEDIT_ARITHMETIC_INT8, SCALEDIT_CUDA_KERNELS_SM89, 89, kAnyLater, Kernel::kInt8Fp8Mma},
    {SCALEDIT_ARITHMETIC_INT8, SCALEDIT_CUDA_KERNELS_SM80, 80, kAnyLater, Kernel::kInt8Fp16Mma},
    {SCALEDIT_ARITHMETIC_BFLOAT16, SCALEDIT_CUDA_KERNELS_SM90, 90, 90, Kernel::kBfloat16Wgmma},
    {SCALEDIT_ARITHMETIC_BFLOAT16, SCALEDIT_CUDA_KERNELS_SM89, 89, kAnyLater, Kernel::kBfloat16Mma},
    {SCALEDIT_ARITHMETIC_BFLOAT16, SCALEDIT_CUDA_KERNELS_SM80, 80, kAnyLater, Kernel::kBfloat16Mma},
};

const Choice* find(std::int32_t arithmetic, std::int32_t kernels, auto&& runs) {
    for (const Choice& choice : kChoices) {
        if (choice.arithmetic == arithmetic && (kernels == SCALEDIT_CUDA_KERNELS_BEST || kernels == choice.kernels) &&
            runs(choice)) {
            return &choice;
        }
    }
    return nullptr;
}

}  // namespace

std::string version(int compute_capability) {
    return to_text(compute_capability / 10) + "." + to_text(compute_capability % 10);
}

void check_kernels(std::int32_t kernels) {
    expect(SCALEDIT_CUDA_KERNELS_BEST <= kernels && kernels <= SCALEDIT_CUDA_KERNELS_SM90, "kernels", kernels,
           "0 (best), 1 (SM80), 2 (SM89) or 3 (SM90)");
}

Kernel kernel_of(std::int32_t arithmetic, std::int32_t kernels) {
    return find(arithmetic, kernels, [](const Choice&) { return true; })->kernel;
}

Kernel resolve(std::int32_t arithmetic, std::int32_t kernels, int compute_capability, int code_version) {
    const auto runs_on = [&](const Choice& choice) {
        return choice.oldest <= compute_capability && compute_capability <= choice.newest;
    };
    const Choice* found = find(arithmetic, kernels,
                               [&](const Choice& choice) { return runs_on(choice) && choice.oldest <= code_version; });
    if (found != nullptr) {
        return found->kernel;
    }
    if (find(arithmetic, kernels, runs_on) != nullptr) {
        throw Error(SCALEDIT_UNSUPPORTED,
                    "kernels is " + to_text(kernels) +
                        ", which this build does not have for a GPU of compute capability " +
                        version(compute_capability) + ": " +
                        (code_version == 0 ? "it has no code for it" : "its code is for " + version(code_version)));
    }
    std::string needed = "8.0 or later";
    if (kernels != SCALEDIT_CUDA_KERNELS_BEST) {
        const Choice* named = find(arithmetic, kernels, [](const Choice&) { return true; });
        needed = version(named->oldest) + (named->newest == named->oldest ? "" : " or later");
    }
    throw Error(SCALEDIT_UNSUPPORTED, "kernels is " + to_text(kernels) + ", which needs a GPU of compute capability " +
                                          needed + ", this one has " + version(compute_capability));
}

}  // namespace scaledit::cuda

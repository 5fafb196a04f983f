// How a call queues its kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "cuda/device.h"
#include "cuda/device_tensor.cuh"
#include "error.h"
#include "scaledit/scaledit.h"

namespace scaledit::cuda {

inline DeviceTensor device_tensor(const scaledit_tensor& t) {
    return {static_cast<__nv_bfloat16*>(t.data), t.token_stride, t.head_stride};
}

// Where the kernels of a call go.
struct Queue {
    cudaStream_t stream;
    bool overlaps;  // kernels may begin before the ones before have ended
};

// `kernel` is any of the call's: whether this build's kernels for the GPU wait for those before them, and so may begin
// early (ptx::kOverlapsKernels).
template <typename... Parameters>
Queue queue(void* stream, void (*kernel)(Parameters...)) {
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
    return {static_cast<cudaStream_t>(stream), attributes.ptxVersion >= 90};
}

// `count` things times heads, one for each block or turn of a block; `spare` more must be countable.
inline std::int64_t checked_jobs(std::int64_t count, const char* what, std::int32_t heads, std::int64_t spare = 0) {
    const std::int64_t most = INT32_MAX - spare;
    if (count * heads > most) {
        throw Error(SCALEDIT_UNSUPPORTED, "attention has " + to_text(count * heads) + " " + what +
                                              " times heads, a GPU takes up to " + to_text(most));
    }
    return count * heads;
}

// When a kernel of a call begins.
enum class Start {
    kInOrder,  // after all before it in the stream: the first of a call, since the caller's kernels let nothing begin
    kEarly     // as soon as the one before lets it; it waits by itself (ptx::wait_for_kernels)
};

// `what` names the kernel where it fails.
struct Launch {
    const char* what;
    Start start;
    dim3 blocks;
    int threads;
    std::size_t shared_bytes = 0;
};

template <typename... Parameters>
void launch(const Queue& queue, const Launch& how, void (*kernel)(Parameters...), const Parameters&... parameters) {
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = how.blocks;
    config.blockDim = dim3(static_cast<unsigned>(how.threads));
    config.dynamicSmemBytes = how.shared_bytes;
    config.stream = queue.stream;
    config.attrs = &early;
    config.numAttrs = how.start == Start::kEarly && queue.overlaps ? 1 : 0;
    if (how.shared_bytes > 0) {
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(how.shared_bytes)),
              "cudaFuncSetAttribute");
    }
    check(cudaLaunchKernelEx(&config, kernel, parameters...), how.what);
}

}  // namespace scaledit::cuda

// What callers of kernels ask of CUDA's runtime. All throw Error: SCALEDIT_UNSUPPORTED where the machine cannot,
// SCALEDIT_INVALID_ARGUMENT for memory of another device, SCALEDIT_INTERNAL_ERROR for what CUDA reports.
#pragma once

#include <cuda_runtime.h>

#include <initializer_list>

namespace scaledit::cuda {

void check(cudaError_t result, const char* what);

// For the first call of CUDA's runtime, which fails where there is no GPU or no driver; the same as check() but for
// that.
void expect_gpu(cudaError_t result, const char* what);

int attribute(cudaDeviceAttr which, int device);

// The thread's current GPU.
int current_device();

// 10 * major + minor.
int compute_capability(int device);

// The one that this build's code for a GPU was compiled for, 0 where it has none; the GPU's own may be later.
int code_version(int device);

// The number of the GPU whose memory this is.
int device_of(const void* memory, const char* name);

struct NamedMemory {
    const void* memory;
    const char* name;
};

// The number of the GPU whose memory all of these are. Those that are null are left out, the first is never.
int common_device(const NamedMemory& first, std::initializer_list<NamedMemory> others);

// Makes a GPU the thread's current one, and the one before it again at the end.
class CurrentDevice {
public:
    explicit CurrentDevice(int device);
    ~CurrentDevice();
    CurrentDevice(const CurrentDevice&) = delete;
    CurrentDevice& operator=(const CurrentDevice&) = delete;

private:
    int device_;
    int before_ = 0;
};

}  // namespace scaledit::cuda

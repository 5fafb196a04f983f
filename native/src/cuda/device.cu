#include <string>

#include "cuda/device.h"
#include "error.h"

namespace scaledit::cuda {
namespace {

// Compiled for the same GPUs as all others.
__global__ void any_kernel() {}

bool is_absent(cudaError_t result) {
    return result == cudaErrorNoKernelImageForDevice || result == cudaErrorInvalidDeviceFunction;
}

}  // namespace

void check(cudaError_t result, const char* what) {
    if (result != cudaSuccess) {
        cudaGetLastError();  // a later call must not find it
        throw Error(is_absent(result) ? SCALEDIT_UNSUPPORTED : SCALEDIT_INTERNAL_ERROR,
                    std::string(what) + " failed: " + cudaGetErrorString(result));
    }
}

void expect_gpu(cudaError_t result, const char* what) {
    switch (result) {
        case cudaErrorNoDevice:
        case cudaErrorInsufficientDriver:
        case cudaErrorInitializationError:
        case cudaErrorStubLibrary:
        case cudaErrorSystemNotReady:
        case cudaErrorSystemDriverMismatch:
        case cudaErrorCompatNotSupportedOnDevice:
            cudaGetLastError();
            throw Error(SCALEDIT_UNSUPPORTED, std::string("CUDA finds no GPU: ") + cudaGetErrorString(result));
        default:
            check(result, what);
    }
}

int attribute(cudaDeviceAttr which, int device) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
}

int current_device() {
    int device = 0;
    expect_gpu(cudaGetDevice(&device), "cudaGetDevice");
    return device;
}

int compute_capability(int device) {
    return 10 * attribute(cudaDevAttrComputeCapabilityMajor, device) +
           attribute(cudaDevAttrComputeCapabilityMinor, device);
}

int code_version(int device) {
    const CurrentDevice current(device);
    cudaFuncAttributes attributes{};
    const cudaError_t result = cudaFuncGetAttributes(&attributes, any_kernel);
    if (is_absent(result)) {
        cudaGetLastError();
        return 0;
    }
    check(result, "cudaFuncGetAttributes");
    return attributes.ptxVersion;
}

int device_of(const void* memory, const char* name) {
    cudaPointerAttributes attributes{};
    expect_gpu(cudaPointerGetAttributes(&attributes, memory), "cudaPointerGetAttributes");
    if (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged) {
        fail_invalid(std::string(name) + " is in the host's memory, expected a GPU's");
    }
    return attributes.device;
}

int common_device(const NamedMemory& first, std::initializer_list<NamedMemory> others) {
    const int device = device_of(first.memory, first.name);
    for (const auto& [memory, name] : others) {
        if (memory == nullptr) {
            continue;
        }
        const int other = device_of(memory, name);
        if (other != device) {
            fail_invalid(std::string(name) + " is on GPU " + to_text(other) + ", expected GPU " + to_text(device) +
                         " as for " + first.name);
        }
    }
    return device;
}

CurrentDevice::CurrentDevice(int device) : device_(device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (device_ != before_) {
        check(cudaSetDevice(device_), "cudaSetDevice");
    }
}

CurrentDevice::~CurrentDevice() {
    if (device_ != before_ && cudaSetDevice(before_) != cudaSuccess) {
        cudaGetLastError();  // a later call must not find it
    }
}

}  // namespace scaledit::cuda

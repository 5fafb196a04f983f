#include <cuda_runtime.h>

#include <string>

#include "cuda/attention.h"
#include "cuda/attention_bfloat16.cuh"
#include "cuda/device_geometry.h"
#include "error.h"

namespace scaledit::cuda {
namespace {

constexpr int kOldestMajor = 8;

void check(cudaError_t result, const char* what) {
    if (result != cudaSuccess) {
        cudaGetLastError();  // a later call must not find it
        throw Error(SCALEDIT_INTERNAL_ERROR, std::string(what) + " failed: " + cudaGetErrorString(result));
    }
}

// Makes a GPU the thread's current one, and the one before it again at the end.
class CurrentDevice {
public:
    explicit CurrentDevice(int device) {
        check(cudaGetDevice(&before_), "cudaGetDevice");
        check(cudaSetDevice(device), "cudaSetDevice");
    }
    ~CurrentDevice() { cudaSetDevice(before_); }
    CurrentDevice(const CurrentDevice&) = delete;
    CurrentDevice& operator=(const CurrentDevice&) = delete;

private:
    int before_ = 0;
};

DeviceTensor device_tensor(const scaledit_tensor& t) {
    return {static_cast<__nv_bfloat16*>(t.data), t.token_stride, t.head_stride};
}

template <int kHeadDim>
void launch(const Geometry& geometry, const Bfloat16Parameters& parameters, cudaStream_t stream) {
    constexpr int bytes = kBfloat16SharedBytes<kHeadDim>;
    check(cudaFuncSetAttribute(attend_bfloat16<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "cudaFuncSetAttribute");
    const std::int64_t blocks = geometry.info().tiles * parameters.heads;
    if (blocks > INT32_MAX) {
        throw Error(SCALEDIT_UNSUPPORTED,
                    "attention has " + to_text(blocks) + " tiles times heads, a GPU takes up to " + to_text(INT32_MAX));
    }
    attend_bfloat16<kHeadDim><<<static_cast<unsigned>(blocks), kBlockThreads, bytes, stream>>>(parameters);
    check(cudaGetLastError(), "the attention kernel");
}

}  // namespace

void check_device(std::int32_t device) {
    int devices = 0;
    const cudaError_t result = cudaGetDeviceCount(&devices);
    if (result != cudaSuccess) {
        cudaGetLastError();
        throw Error(SCALEDIT_UNSUPPORTED, std::string("CUDA finds no GPU: ") + cudaGetErrorString(result));
    }
    expect(0 <= device && device < devices, "device", device, "0 to " + to_text(devices - 1));
    int major = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
    cudaFuncAttributes attributes{};
    const CurrentDevice current(device);
    if (major < kOldestMajor || cudaFuncGetAttributes(&attributes, attend_bfloat16<128>) != cudaSuccess) {
        cudaGetLastError();
        throw Error(SCALEDIT_UNSUPPORTED, "GPU " + to_text(device) + " has compute capability " + to_text(major) +
                                              ".x, for which this build has no kernels");
    }
}

int device_of(const void* memory, const char* name) {
    cudaPointerAttributes attributes{};
    const cudaError_t result = cudaPointerGetAttributes(&attributes, memory);
    if (result != cudaSuccess) {
        cudaGetLastError();
        throw Error(SCALEDIT_UNSUPPORTED, std::string("CUDA finds no GPU: ") + cudaGetErrorString(result));
    }
    if (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged) {
        fail_invalid(std::string(name) + " is in the host's memory, expected a GPU's");
    }
    return attributes.device;
}

void upload(const Geometry& geometry, void* device_memory, void* stream) {
    const CurrentDevice current(device_of(device_memory, "device_memory"));
    const auto block = pack(geometry);
    // From pageable memory: the call returns once the block has been read.
    check(cudaMemcpyAsync(device_memory, block.data(), block.size(), cudaMemcpyHostToDevice,
                          static_cast<cudaStream_t>(stream)),
          "copying the geometry");
}

void attend(const Geometry& geometry, const scaledit_cuda_attention_arguments& a) {
    const int device = device_of(a.query.data, "query.data");
    const struct {
        const void* memory;
        const char* name;
    } others[] = {{a.key.data, "key.data"},
                  {a.value.data, "value.data"},
                  {a.output.data, "output.data"},
                  {a.device_geometry, "device_geometry"},
                  {a.log_sum_exp, "log_sum_exp"}};
    for (const auto& [memory, name] : others) {
        if (memory != nullptr && device_of(memory, name) != device) {
            fail_invalid(std::string(name) + " is on GPU " + to_text(device_of(memory, name)) + ", expected GPU " +
                         to_text(device) + " as for query");
        }
    }
    const CurrentDevice current(device);
    const DeviceGeometryLayout at = layout(geometry);
    const auto* block = static_cast<const std::byte*>(a.device_geometry);
    const Bfloat16Parameters parameters{reinterpret_cast<const TokenRange*>(block + at.queries),
                                        reinterpret_cast<const TokenRange*>(block + at.keys),
                                        reinterpret_cast<const std::int32_t*>(block + at.offsets),
                                        reinterpret_cast<const std::int32_t*>(block + at.schedule),
                                        device_tensor(a.query),
                                        device_tensor(a.key),
                                        device_tensor(a.value),
                                        device_tensor(a.output),
                                        a.log_sum_exp,
                                        geometry.info().tokens,
                                        a.heads,
                                        a.scale};
    auto* stream = static_cast<cudaStream_t>(a.stream);
    if (a.head_dim == 128) {
        launch<128>(geometry, parameters, stream);
    } else {
        launch<64>(geometry, parameters, stream);
    }
}

}  // namespace scaledit::cuda

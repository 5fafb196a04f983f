#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "abi/attention_checks.h"
#include "abi/cuda.h"
#include "abi/guard.h"
#include "abi/handle.h"
#include "cuda/attention_backward.h"
#include "cuda/device_geometry.h"
#include "cuda/kernels.h"
#include "cuda/packed.h"
#include "error.h"
#if SCALEDIT_CUDA
#include "cuda/attention.h"
#include "cuda/device.h"
#endif

namespace abi = scaledit::abi;
namespace cuda = scaledit::cuda;

namespace {

// What the CPU's checks leave open, without a look at pointers.
void check_for_gpu(const std::vector<abi::NamedTensor>& tensors) {
    for (const auto& [name_of_tensor, tensor, written] : tensors) {
        const std::string name = name_of_tensor;
        scaledit::expect(tensor.dtype == SCALEDIT_BFLOAT16, name + ".dtype", tensor.dtype, "1 (bfloat16) on a GPU");
        abi::expect_gpu_stride(tensor.token_stride, name + ".token_stride");
        abi::expect_gpu_stride(tensor.head_stride, name + ".head_stride");
    }
}

// Sizes, strides and overlaps are the CPU's too.
scaledit_attention_arguments checked_for_gpu(const scaledit_cuda_attention_arguments* arguments) {
    abi::expect_pointer(arguments, "arguments", "a scaledit_cuda_attention_arguments");
    const scaledit_cuda_attention_arguments& a = *arguments;
    scaledit::expect(a.arithmetic == SCALEDIT_ARITHMETIC_INT8 || a.arithmetic == SCALEDIT_ARITHMETIC_BFLOAT16,
                     "arithmetic", a.arithmetic, "1 (INT8) or 2 (bfloat16) on a GPU");
    cuda::check_kernels(a.kernels);
    scaledit_attention_arguments same{};
    same.geometry = a.geometry;
    same.heads = a.heads;
    same.head_dim = a.head_dim;
    same.scale = a.scale;
    same.arithmetic = SCALEDIT_ARITHMETIC_FLOAT32;
    same.threads = 1;
    same.query = a.query;
    same.key = a.key;
    same.value = a.value;
    same.output = a.output;
    same.log_sum_exp = a.log_sum_exp;
    same.workspace = a.workspace;
    same.workspace_bytes = a.workspace_bytes;
    same = abi::checked(&same);
    check_for_gpu(abi::tensors(same));
    return same;
}

std::size_t workspace_bytes(const scaledit_cuda_attention_arguments& a, cuda::Kernel kernel) {
    return a.arithmetic == SCALEDIT_ARITHMETIC_INT8
               ? cuda::workspace(kernel, a.geometry->value.info().tiles,
                                 cuda::split(a.geometry->device_layout(), a.heads), a.heads, a.head_dim)
                     .bytes
               : 0;
}

#if SCALEDIT_CUDA
cuda::Kernel kernel_on(int device, std::int32_t arithmetic, std::int32_t kernels) {
    return cuda::resolve(arithmetic, kernels, cuda::compute_capability(device), cuda::code_version(device));
}
#endif

// Whether the kernel, or what it needs of a workspace, can be told without a GPU.
bool knows_workspace(const scaledit_cuda_attention_arguments& a) {
    return a.kernels != SCALEDIT_CUDA_KERNELS_BEST || a.arithmetic == SCALEDIT_ARITHMETIC_BFLOAT16;  // needs none
}

// The kernel whose workspace is asked for.
cuda::Kernel kernel_without_memory(const scaledit_cuda_attention_arguments& a) {
    if (knows_workspace(a)) {
        return cuda::kernel_of(a.arithmetic, a.kernels);
    }
#if SCALEDIT_CUDA
    return kernel_on(cuda::current_device(), a.arithmetic, a.kernels);
#else
    abi::refuse_without_cuda();
#endif
}

// What prepares queries and keys: all of a norm or nothing, and only where there is a pre-pass. Appends what of it is
// given.
void check_preparation(const scaledit_cuda_attention_arguments& a, std::vector<abi::ReadMemory>& read) {
    const std::size_t norm_bytes = std::size_t{2} * static_cast<std::size_t>(a.head_dim);
    const auto tokens = static_cast<std::size_t>(a.geometry->value.info().tokens);
    for (const abi::ReadMemory& part : {abi::ReadMemory{"query_norm", a.query_norm, norm_bytes},
                                        {"key_norm", a.key_norm, norm_bytes},
                                        {"text_query_norm", a.text_query_norm, norm_bytes},
                                        {"text_key_norm", a.text_key_norm, norm_bytes},
                                        {"rotation", a.rotation, 2 * norm_bytes * tokens}}) {
        if (part.data == nullptr) {
            continue;
        }
        if (a.arithmetic != SCALEDIT_ARITHMETIC_INT8) {
            scaledit::fail_invalid(std::string(part.name) + " is given, expected null with bfloat16 arithmetic");
        }
        read.push_back(part);
    }
    const bool normed = a.query_norm != nullptr;
    if (normed != (a.key_norm != nullptr) || (a.text_query_norm != nullptr) != (a.text_key_norm != nullptr) ||
        (!normed && a.text_query_norm != nullptr)) {
        scaledit::fail_invalid(
            "the weights of a norm are given in part, expected those of queries and keys, or those and the text's");
    }
    if (normed) {
        scaledit::expect(std::isfinite(a.norm_epsilon) && a.norm_epsilon >= 0, "norm_epsilon", a.norm_epsilon,
                         "a finite number, 0 or above");
    }
}

void check_alignment(const std::vector<abi::NamedTensor>& tensors) {
    for (const auto& [name, tensor, written] : tensors) {
        abi::expect_aligned(tensor.data, abi::kGpuAlignment, std::string(name) + ".data", "bfloat16 numbers");
    }
}

void check_workspace(const void* workspace, std::size_t bytes) {
    abi::expect_aligned(workspace, cuda::kWorkspaceAlignment, "workspace", scaledit::to_text(bytes) + " bytes");
}

// Sizes, strides and overlaps are the CPU's too.
scaledit_attention_backward_arguments checked_for_gpu(const scaledit_cuda_attention_backward_arguments* arguments) {
    abi::expect_pointer(arguments, "arguments", "a scaledit_cuda_attention_backward_arguments");
    const scaledit_cuda_attention_backward_arguments& a = *arguments;
    cuda::check_kernels(a.kernels);
    scaledit_attention_backward_arguments same{};
    same.geometry = a.geometry;
    same.heads = a.heads;
    same.head_dim = a.head_dim;
    same.scale = a.scale;
    same.threads = 1;
    same.query = a.query;
    same.key = a.key;
    same.value = a.value;
    same.output = a.output;
    same.log_sum_exp = a.log_sum_exp;
    same.output_gradient = a.output_gradient;
    same.query_gradient = a.query_gradient;
    same.key_gradient = a.key_gradient;
    same.value_gradient = a.value_gradient;
    same.workspace = a.workspace;
    same.workspace_bytes = a.workspace_bytes;
    same = abi::checked(&same);
    check_for_gpu(abi::tensors(same));
    return same;
}

std::size_t workspace_bytes(const scaledit_cuda_attention_backward_arguments& a) {
    return cuda::backward_workspace(a.geometry->value.info().tiles, a.heads).bytes;
}

}  // namespace

scaledit_status scaledit_cuda_supported([[maybe_unused]] int32_t device) {
    return abi::guard([&] {
#if SCALEDIT_CUDA
        cuda::check_device(device);
#else
        abi::refuse_without_cuda();
#endif
    });
}

scaledit_status scaledit_cuda_geometry_bytes(const scaledit_geometry* geometry, size_t* bytes) {
    return abi::guard([&] {
        abi::expect_pointer(geometry, "geometry", "a geometry from scaledit_geometry_create");
        abi::expect_pointer(bytes, "bytes", "where to put the number");
        *bytes = geometry->device_layout().bytes;
    });
}

scaledit_status scaledit_cuda_geometry_upload(const scaledit_geometry* geometry, void* device_memory, size_t bytes,
                                              [[maybe_unused]] void* stream) {
    return abi::guard([&] {
        abi::expect_pointer(geometry, "geometry", "a geometry from scaledit_geometry_create");
        const std::size_t needed = geometry->device_layout().bytes;
        abi::expect_aligned(device_memory, abi::kGpuAlignment, "device_memory", scaledit::to_text(needed) + " bytes");
        scaledit::expect(bytes >= needed, "bytes", bytes, "at least " + scaledit::to_text(needed));
#if SCALEDIT_CUDA
        cuda::upload(geometry->value, device_memory, stream);
#else
        abi::refuse_without_cuda();
#endif
    });
}

scaledit_status scaledit_cuda_attention_workspace(const scaledit_cuda_attention_arguments* arguments, size_t* bytes) {
    return abi::guard([&] {
        checked_for_gpu(arguments);
        abi::expect_pointer(bytes, "bytes", "where to put the number");
        *bytes = workspace_bytes(*arguments, kernel_without_memory(*arguments));
    });
}

scaledit_status scaledit_cuda_attention(const scaledit_cuda_attention_arguments* arguments) {
    return abi::guard([&] {
        const scaledit_attention_arguments same = checked_for_gpu(arguments);
        const scaledit_cuda_attention_arguments& a = *arguments;
        std::vector<abi::ReadMemory> read{{"device_geometry", a.device_geometry, a.geometry->device_layout().bytes}};
        check_preparation(a, read);
        const auto check_memory = [&](std::size_t bytes) {
            abi::check_buffers(same, bytes, read);
            if (bytes > 0) {
                check_workspace(a.workspace, bytes);
            }
        };
        check_memory(knows_workspace(a) ? workspace_bytes(a, kernel_without_memory(a)) : 0);
        check_alignment(abi::tensors(same));
#if SCALEDIT_CUDA
        const int device = cuda::device_of(a.query.data, "query.data");
        const cuda::Kernel kernel = kernel_on(device, a.arithmetic, a.kernels);
        if (!knows_workspace(a)) {
            check_memory(workspace_bytes(a, kernel));
        }
        cuda::attend(a.geometry->value, a.geometry->device_layout(), kernel, a);
#else
        abi::refuse_without_cuda();
#endif
    });
}

scaledit_status scaledit_cuda_attention_backward_workspace(const scaledit_cuda_attention_backward_arguments* arguments,
                                                           size_t* bytes) {
    return abi::guard([&] {
        checked_for_gpu(arguments);
        abi::expect_pointer(bytes, "bytes", "where to put the number");
        *bytes = workspace_bytes(*arguments);
    });
}

scaledit_status scaledit_cuda_attention_backward(const scaledit_cuda_attention_backward_arguments* arguments) {
    return abi::guard([&] {
        const scaledit_attention_backward_arguments same = checked_for_gpu(arguments);
        const scaledit_cuda_attention_backward_arguments& a = *arguments;
        const abi::ReadMemory lists[] = {{"device_geometry", a.device_geometry, a.geometry->device_layout().bytes}};
        const std::size_t bytes = workspace_bytes(a);
        abi::check_buffers(same, bytes, lists);
        check_alignment(abi::tensors(same));
        check_workspace(a.workspace, bytes);
#if SCALEDIT_CUDA
        const int device = cuda::device_of(a.query.data, "query.data");
        const cuda::Kernel kernel = kernel_on(device, SCALEDIT_ARITHMETIC_BFLOAT16, a.kernels);
        cuda::propagate_back(a.geometry->value, a.geometry->device_layout(), kernel, a);
#else
        abi::refuse_without_cuda();
#endif
    });
}

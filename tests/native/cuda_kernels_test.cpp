// Which kernel a GPU gets, and what the C ABI says of the choice before it asks for a GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "cuda/kernels.h"
#include "cuda/packed.h"
#include "error.h"
#include "geometry_view.h"

namespace scaledit {
namespace {

using cuda::Kernel;

constexpr std::int32_t kInt8 = SCALEDIT_ARITHMETIC_INT8;
constexpr std::int32_t kBfloat16 = SCALEDIT_ARITHMETIC_BFLOAT16;

TEST(CudaKernels, BestIsTheNewestThatTheGpuRuns) {
    const auto best = [](std::int32_t arithmetic, int capability) {
        return cuda::resolve(arithmetic, SCALEDIT_CUDA_KERNELS_BEST, capability, capability);
    };
    for (const int capability : {80, 86, 87}) {
        EXPECT_EQ(best(kInt8, capability), Kernel::kInt8Fp16Mma) << capability;
    }
    for (const int capability : {89, 120}) {
        EXPECT_EQ(best(kInt8, capability), Kernel::kInt8Fp8Mma) << capability;
    }
    EXPECT_EQ(best(kInt8, 90), Kernel::kInt8Wgmma);
    for (const int capability : {80, 86, 89, 120}) {
        EXPECT_EQ(best(kBfloat16, capability), Kernel::kBfloat16Mma) << capability;
    }
    EXPECT_EQ(best(kBfloat16, 90), Kernel::kBfloat16Wgmma);
}

TEST(CudaKernels, AFamilyRunsOnWhatIsNewEnough) {
    for (const int capability : {80, 89, 90, 120}) {
        EXPECT_EQ(cuda::resolve(kInt8, SCALEDIT_CUDA_KERNELS_SM80, capability, capability), Kernel::kInt8Fp16Mma);
        EXPECT_EQ(cuda::resolve(kBfloat16, SCALEDIT_CUDA_KERNELS_SM80, capability, capability), Kernel::kBfloat16Mma);
    }
    for (const int capability : {89, 90, 120}) {
        EXPECT_EQ(cuda::resolve(kInt8, SCALEDIT_CUDA_KERNELS_SM89, capability, capability), Kernel::kInt8Fp8Mma);
        EXPECT_EQ(cuda::resolve(kBfloat16, SCALEDIT_CUDA_KERNELS_SM89, capability, capability), Kernel::kBfloat16Mma);
    }
    EXPECT_EQ(cuda::resolve(kInt8, SCALEDIT_CUDA_KERNELS_SM90, 90, 90), Kernel::kInt8Wgmma);
}

TEST(CudaKernels, RefusesWhatAGpuDoesNotRun) {
    struct Case {
        std::int32_t kernels;
        int capability;
        const char* message;
    };
    for (const std::int32_t arithmetic : {kInt8, kBfloat16}) {
        for (const auto& [kernels, capability, message] :
             {Case{SCALEDIT_CUDA_KERNELS_SM90, 89,
                   "kernels is 3, which needs a GPU of compute capability 9.0, this one has 8.9"},
              Case{SCALEDIT_CUDA_KERNELS_SM90, 120,
                   "kernels is 3, which needs a GPU of compute capability 9.0, this one has 12.0"},
              Case{SCALEDIT_CUDA_KERNELS_SM89, 86,
                   "kernels is 2, which needs a GPU of compute capability 8.9 or later, this one has 8.6"},
              Case{SCALEDIT_CUDA_KERNELS_SM80, 75,
                   "kernels is 1, which needs a GPU of compute capability 8.0 or later, this one has 7.5"},
              Case{SCALEDIT_CUDA_KERNELS_BEST, 75,
                   "kernels is 0, which needs a GPU of compute capability 8.0 or later, this one has 7.5"}}) {
            try {
                cuda::resolve(arithmetic, kernels, capability, capability);
                ADD_FAILURE() << message;
            } catch (const Error& error) {
                EXPECT_EQ(error.status(), SCALEDIT_UNSUPPORTED);
                EXPECT_STREQ(error.what(), message);
            }
        }
    }
}

// A build for an older GPU runs on a later one, with the kernels that it has.
TEST(CudaKernels, AreThoseThatTheBuildHas) {
    const auto best = [](std::int32_t arithmetic, int capability, int code) {
        return cuda::resolve(arithmetic, SCALEDIT_CUDA_KERNELS_BEST, capability, code);
    };
    EXPECT_EQ(best(kInt8, 89, 86), Kernel::kInt8Fp16Mma);
    EXPECT_EQ(best(kInt8, 90, 80), Kernel::kInt8Fp16Mma);
    EXPECT_EQ(best(kInt8, 90, 89), Kernel::kInt8Fp8Mma);
    EXPECT_EQ(best(kBfloat16, 90, 89), Kernel::kBfloat16Mma);
    struct Case {
        std::int32_t kernels;
        int capability;
        int code;
        const char* message;
    };
    for (const auto& [kernels, capability, code, message] :
         {Case{SCALEDIT_CUDA_KERNELS_SM89, 89, 86,
               "kernels is 2, which this build does not have for a GPU of compute capability 8.9: its code is for 8.6"},
          Case{SCALEDIT_CUDA_KERNELS_SM90, 90, 89,
               "kernels is 3, which this build does not have for a GPU of compute capability 9.0: its code is for 8.9"},
          Case{SCALEDIT_CUDA_KERNELS_BEST, 100, 0,
               "kernels is 0, which this build does not have for a GPU of compute capability 10.0: it has no code for "
               "it"},
          Case{SCALEDIT_CUDA_KERNELS_BEST, 75, 0,
               "kernels is 0, which needs a GPU of compute capability 8.0 or later, this one has 7.5"}}) {
        for (const std::int32_t arithmetic : {kInt8, kBfloat16}) {
            try {
                cuda::resolve(arithmetic, kernels, capability, code);
                ADD_FAILURE() << message;
            } catch (const Error& error) {
                EXPECT_EQ(error.status(), SCALEDIT_UNSUPPORTED);
                EXPECT_STREQ(error.what(), message);
            }
        }
    }
}

class CudaWorkspace : public testing::Test {
protected:
    CudaWorkspace() {
        arguments.geometry = geometry.get();
        arguments.heads = 3;
        arguments.head_dim = 128;
        arguments.scale = 0.125F;
        arguments.arithmetic = kInt8;
        for (scaledit_tensor* tensor : {&arguments.query, &arguments.key, &arguments.value, &arguments.output}) {
            *tensor = {nullptr, 3 * 128, 128, SCALEDIT_BFLOAT16};
        }
    }

    std::size_t bytes_of(std::int32_t arithmetic, std::int32_t kernels) {
        arguments.arithmetic = arithmetic;
        arguments.kernels = kernels;
        std::size_t bytes = 1;
        EXPECT_EQ(scaledit_cuda_attention_workspace(&arguments, &bytes), SCALEDIT_OK) << scaledit_last_error();
        return bytes;
    }

    // By the function that tells the workspace, and by the call.
    void expect_refused(const std::string& message) {
        std::size_t bytes = 99;
        EXPECT_EQ(scaledit_cuda_attention_workspace(&arguments, &bytes), SCALEDIT_INVALID_ARGUMENT);
        EXPECT_EQ(scaledit_last_error(), message);
        EXPECT_EQ(bytes, 99U);
        EXPECT_EQ(scaledit_cuda_attention(&arguments), SCALEDIT_INVALID_ARGUMENT);
        EXPECT_EQ(scaledit_last_error(), message);
    }

    GeometryHandle geometry = make_geometry(geometry_options(37, 29, 77));
    scaledit_cuda_attention_arguments arguments{};
};

TEST_F(CudaWorkspace, IsThatOfTheFamily) {
    const std::size_t fp16 = bytes_of(kInt8, SCALEDIT_CUDA_KERNELS_SM80);
    const std::size_t fp8 = bytes_of(kInt8, SCALEDIT_CUDA_KERNELS_SM89);
    const std::size_t wgmma = bytes_of(kInt8, SCALEDIT_CUDA_KERNELS_SM90);
    scaledit_geometry_info info{};
    ASSERT_EQ(scaledit_geometry_describe(geometry.get(), &info), SCALEDIT_OK);
    const auto values = static_cast<std::size_t>(info.tiles * 3 * 64 * 128);
    const auto ones = static_cast<std::size_t>(info.tiles * 3 * 64 * cuda::kOnesRows);
    const auto corrections = static_cast<std::size_t>(info.tiles * 3 * 128) * (2 + sizeof(float));
    EXPECT_EQ(fp16 + ones + corrections, fp8 + values) << "two bytes for each value, no ones, no corrected means";
    EXPECT_GT(wgmma, fp8) << "and the sums of long rows";
    EXPECT_GT(fp8, 3 * values);
    for (const std::int32_t kernels : {SCALEDIT_CUDA_KERNELS_BEST, SCALEDIT_CUDA_KERNELS_SM80,
                                       SCALEDIT_CUDA_KERNELS_SM89, SCALEDIT_CUDA_KERNELS_SM90}) {
        EXPECT_EQ(bytes_of(kBfloat16, kernels), 0U);
    }
}

TEST_F(CudaWorkspace, OfTheBestKernelsNeedsAGpuToKnowThem) {
    if (scaledit_cuda_supported(0) == SCALEDIT_OK) {
        EXPECT_GT(bytes_of(kInt8, SCALEDIT_CUDA_KERNELS_BEST), 0U);
        return;
    }
    std::size_t bytes = 99;
    EXPECT_EQ(scaledit_cuda_attention_workspace(&arguments, &bytes), SCALEDIT_UNSUPPORTED);
    const std::string message = scaledit_last_error();
    EXPECT_NE(message.find(SCALEDIT_CUDA ? "CUDA finds no GPU" : "has no CUDA"), std::string::npos) << message;
    EXPECT_EQ(bytes, 99U);
}

TEST_F(CudaWorkspace, RefusesTensorsThatTheCallRefuses) {
    arguments.value.token_stride += 4;
    expect_refused("value.token_stride is 388, expected a multiple of 8 elements on a GPU");
    for (scaledit_tensor* tensor : {&arguments.query, &arguments.key, &arguments.value, &arguments.output}) {
        tensor->dtype = SCALEDIT_FLOAT32;
    }
    expect_refused("query.dtype is 0, expected 1 (bfloat16) on a GPU");
}

TEST_F(CudaWorkspace, RefusesKernelsThatDoNotExist) {
    for (const std::int32_t arithmetic : {kInt8, kBfloat16}) {
        for (const std::int32_t kernels : {-1, 4}) {
            arguments.arithmetic = arithmetic;
            arguments.kernels = kernels;
            expect_refused("kernels is " + std::to_string(kernels) +
                           ", expected 0 (best), 1 (SM80), 2 (SM89) or 3 (SM90)");
        }
    }
}

using Memory = std::unique_ptr<void, void (*)(void*)>;

Memory aligned_memory(std::size_t bytes) { return {std::aligned_alloc(128, (bytes + 127) / 128 * 128), std::free}; }

// What a call with a pre-pass refuses before it asks for a GPU. The rest it shares with the CPU's.
TEST_F(CudaWorkspace, AndNormsAndRotationAreCheckedWithoutAGpu) {
    const std::size_t bytes = bytes_of(kInt8, SCALEDIT_CUDA_KERNELS_SM90);
    scaledit_geometry_info info{};
    ASSERT_EQ(scaledit_geometry_describe(geometry.get(), &info), SCALEDIT_OK);
    const auto rows = static_cast<std::size_t>(3 * info.tokens);
    const std::size_t tensor_bytes = rows * 128 * 2;
    std::vector<Memory> memory;
    const auto room = [&](std::size_t size) { return memory.emplace_back(aligned_memory(size)).get(); };
    for (scaledit_tensor* tensor : {&arguments.query, &arguments.key, &arguments.value, &arguments.output}) {
        tensor->data = room(tensor_bytes);
    }
    std::size_t geometry_bytes = 0;
    ASSERT_EQ(scaledit_cuda_geometry_bytes(geometry.get(), &geometry_bytes), SCALEDIT_OK);
    arguments.device_geometry = room(geometry_bytes);
    arguments.log_sum_exp = static_cast<float*>(room(rows * sizeof(float)));
    arguments.query_norm = room(256);
    arguments.key_norm = room(256);
    arguments.text_query_norm = room(256);
    arguments.text_key_norm = room(256);
    arguments.norm_epsilon = 1e-6F;
    const auto rotation_bytes = static_cast<std::size_t>(info.tokens) * 128 * sizeof(float);
    arguments.rotation = static_cast<const float*>(room(rotation_bytes));
    arguments.workspace = room(bytes);
    arguments.workspace_bytes = bytes;

    const auto refused = [&](auto change, const std::string& message) {
        scaledit_cuda_attention_arguments spoilt = arguments;
        change(spoilt);
        EXPECT_EQ(scaledit_cuda_attention(&spoilt), SCALEDIT_INVALID_ARGUMENT) << message;
        EXPECT_EQ(scaledit_last_error(), message);
    };
    const auto at = [](const void* data, std::size_t offset) { return static_cast<const std::byte*>(data) + offset; };
    const std::byte* const last_row = at(arguments.output.data, tensor_bytes - 256);
    refused([&](auto& a) { a.query_norm = last_row; }, "query_norm overlaps output.data, expected memory of its own");
    refused([&](auto& a) { a.key_norm = a.output.data; }, "key_norm overlaps output.data, expected memory of its own");
    refused([&](auto& a) { a.text_query_norm = a.log_sum_exp; },
            "text_query_norm overlaps log_sum_exp, expected memory of its own");
    refused([&](auto& a) { a.text_key_norm = at(a.workspace, bytes - 256); },
            "text_key_norm overlaps workspace, expected memory of its own");
    refused([&](auto& a) { a.rotation = static_cast<const float*>(a.workspace); },
            "rotation overlaps workspace, expected memory of its own");
    refused([&](auto& a) { a.log_sum_exp = const_cast<float*>(a.rotation); },
            "rotation overlaps log_sum_exp, expected memory of its own");
    refused([&](auto& a) { a.workspace_bytes = bytes - 1; },
            "workspace_bytes is " + std::to_string(bytes - 1) + ", expected at least " + std::to_string(bytes));
    refused([&](auto& a) { a.workspace = const_cast<std::byte*>(at(a.workspace, 64)); },
            "workspace is at an address that is no multiple of 128 bytes");
    refused([&](auto& a) { a.rotation += 1; }, "rotation is at an address that is no multiple of 16 bytes");
    refused([&](auto& a) { a.key_norm = at(a.key_norm, 8); },
            "key_norm is at an address that is no multiple of 16 bytes");
    refused([&](auto& a) { a.device_geometry = at(a.device_geometry, 8); },
            "device_geometry is at an address that is no multiple of 16 bytes");

    const char* const part =
        "the weights of a norm are given in part, expected those of queries and keys, or those and the text's";
    refused([](auto& a) { a.query_norm = nullptr; }, part);
    refused([](auto& a) { a.key_norm = nullptr; }, part);
    refused([](auto& a) { a.text_query_norm = nullptr; }, part);
    refused([](auto& a) { a.text_key_norm = nullptr; }, part);
    refused([](auto& a) { a.query_norm = a.key_norm = nullptr; }, part);
    refused([](auto& a) { a.norm_epsilon = -1e-6F; }, "norm_epsilon is -1e-06, expected a finite number, 0 or above");
    refused([](auto& a) { a.norm_epsilon = std::nanf(""); },
            "norm_epsilon is nan, expected a finite number, 0 or above");
    refused([](auto& a) { a.norm_epsilon = HUGE_VALF; }, "norm_epsilon is inf, expected a finite number, 0 or above");
    refused([](auto& a) { a.arithmetic = kBfloat16; }, "query_norm is given, expected null with bfloat16 arithmetic");
    refused(
        [](auto& a) {
            a.arithmetic = kBfloat16;
            a.query_norm = a.key_norm = a.text_query_norm = a.text_key_norm = nullptr;
        },
        "rotation is given, expected null with bfloat16 arithmetic");
    // What is read may be the same.
    arguments.text_query_norm = arguments.query_norm;
    arguments.text_key_norm = arguments.query.data;
    if (!SCALEDIT_CUDA) {
        EXPECT_EQ(scaledit_cuda_attention(&arguments), SCALEDIT_UNSUPPORTED);
        EXPECT_STREQ(scaledit_last_error(), "this build of scaledit has no CUDA, expected one made with it");
    }
}

// What the backward pass refuses before it asks for a GPU. The rest it shares with the CPU's.
TEST(CudaBackward, RefusesWhatNoKernelTakes) {
    const GeometryHandle geometry = make_geometry(geometry_options(37, 29, 77));
    scaledit_geometry_info info{};
    ASSERT_EQ(scaledit_geometry_describe(geometry.get(), &info), SCALEDIT_OK);
    scaledit_cuda_attention_backward_arguments arguments{};
    arguments.geometry = geometry.get();
    arguments.heads = 3;
    arguments.head_dim = 128;
    arguments.scale = 0.125F;
    scaledit_tensor* const tensors[] = {&arguments.query,           &arguments.key,
                                        &arguments.value,           &arguments.output,
                                        &arguments.output_gradient, &arguments.query_gradient,
                                        &arguments.key_gradient,    &arguments.value_gradient};
    const std::int64_t row = 3 * 128 + 8;
    const auto elements = static_cast<std::size_t>(info.tokens * row);
    std::vector<std::vector<std::uint16_t>> memory;
    for (scaledit_tensor* tensor : tensors) {
        *tensor = {memory.emplace_back(elements + 8).data(), row, 128, SCALEDIT_BFLOAT16};
    }
    std::vector<float> log_sum_exp(static_cast<std::size_t>(3 * info.tokens));
    arguments.log_sum_exp = log_sum_exp.data();
    std::size_t bytes = 0;
    ASSERT_EQ(scaledit_cuda_attention_backward_workspace(&arguments, &bytes), SCALEDIT_OK) << scaledit_last_error();
    EXPECT_EQ(bytes, static_cast<std::size_t>(3 * info.tiles) * 2 * 64 * sizeof(float) + 128)
        << "two numbers of each query, and two counters";
    const std::unique_ptr<void, void (*)(void*)> workspace(std::aligned_alloc(128, bytes), std::free);
    arguments.workspace = workspace.get();
    arguments.workspace_bytes = bytes;
    std::size_t geometry_bytes = 0;
    ASSERT_EQ(scaledit_cuda_geometry_bytes(geometry.get(), &geometry_bytes), SCALEDIT_OK);
    const std::unique_ptr<void, void (*)(void*)> device_geometry(
        std::aligned_alloc(16, (geometry_bytes + 15) / 16 * 16), std::free);
    arguments.device_geometry = device_geometry.get();

    const auto refused = [&](auto change, const char* message) {
        scaledit_cuda_attention_backward_arguments spoilt = arguments;
        change(spoilt);
        EXPECT_EQ(scaledit_cuda_attention_backward(&spoilt), SCALEDIT_INVALID_ARGUMENT) << message;
        EXPECT_STREQ(scaledit_last_error(), message);
    };
    refused([](auto& a) { a.geometry = nullptr; },
            "geometry is null, expected a geometry from scaledit_geometry_create");
    refused([](auto& a) { a.kernels = 4; }, "kernels is 4, expected 0 (best), 1 (SM80), 2 (SM89) or 3 (SM90)");
    refused([](auto& a) { a.head_dim = 96; }, "head_dim is 96, expected 64 or 128");
    refused([](auto& a) { a.log_sum_exp = nullptr; }, "log_sum_exp is null, expected what the forward pass wrote");
    refused([](auto& a) { a.key_gradient.dtype = SCALEDIT_FLOAT32; },
            "key_gradient.dtype is 0, expected 1 as for query");
    constexpr const char* kStride = "output.token_stride is 396, expected a multiple of 8 elements on a GPU";
    refused([](auto& a) { a.output.token_stride += 4; }, kStride);
    arguments.output.token_stride += 4;
    EXPECT_EQ(scaledit_cuda_attention_backward_workspace(&arguments, &bytes), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), kStride);
    arguments.output.token_stride -= 4;
    refused([](auto& a) { a.query_gradient.data = a.output_gradient.data; },
            "query_gradient.data overlaps output_gradient.data, expected memory of its own");
    refused(
        [&](auto& a) { a.workspace_bytes = bytes - 1; },
        ("workspace_bytes is " + std::to_string(bytes - 1) + ", expected at least " + std::to_string(bytes)).c_str());
    EXPECT_EQ(scaledit_cuda_attention_backward(nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_EQ(scaledit_cuda_attention_backward_workspace(&arguments, nullptr), SCALEDIT_INVALID_ARGUMENT);
    if (!SCALEDIT_CUDA) {
        EXPECT_EQ(scaledit_cuda_attention_backward(&arguments), SCALEDIT_UNSUPPORTED);
        EXPECT_STREQ(scaledit_last_error(), "this build of scaledit has no CUDA, expected one made with it");
    }
}

}  // namespace
}  // namespace scaledit

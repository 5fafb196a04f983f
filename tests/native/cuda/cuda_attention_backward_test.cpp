// The gradients of attention on a GPU against float64, over the grids of the CPU's tests.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "backward_reference.h"
#include "cuda/gpu.h"

namespace scaledit {
namespace {

struct Way {
    const char* name;
    std::int32_t kernels;
};
std::ostream& operator<<(std::ostream& out, const Way& way) { return out << way.name; }

constexpr Way kWays[] = {{"Sm80", SCALEDIT_CUDA_KERNELS_SM80}, {"Sm90", SCALEDIT_CUDA_KERNELS_SM90}};

bool runs(const Way& way) {
    int major = 0;
    EXPECT_EQ(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), cudaSuccess);
    return way.kernels == SCALEDIT_CUDA_KERNELS_SM90 ? major == 9 : major >= 8;
}

class Call {
public:
    Call(const scaledit_geometry_options& options, std::int64_t heads, std::int64_t head_dim, bool fused,
         float key_bias, std::uint32_t seed, std::int32_t kernels)
        : Call(make_geometry(options), options, heads, head_dim, fused, key_bias, seed, kernels) {}

    Call(GeometryHandle made, const scaledit_geometry_options& options, std::int64_t heads, std::int64_t head_dim,
         bool fused, float key_bias, std::uint32_t seed, std::int32_t kernels)
        : geometry(std::move(made)),
          tiles(scaledit::view(options, geometry.get())),
          backward(tiles.info.tokens, heads, head_dim, SCALEDIT_BFLOAT16, fused, key_bias, seed),
          query(backward.inputs.query),
          key(backward.inputs.key),
          value(backward.inputs.value),
          output(backward.inputs.output),
          output_gradient(backward.output_gradient),
          query_gradient(backward.query_gradient),
          key_gradient(backward.key_gradient),
          value_gradient(backward.value_gradient),
          log_sum_exp(static_cast<std::size_t>(tiles.info.tokens * heads) * sizeof(float)) {
        std::size_t bytes = 0;
        EXPECT_EQ(scaledit_cuda_geometry_bytes(geometry.get(), &bytes), SCALEDIT_OK) << scaledit_last_error();
        device_geometry = std::make_unique<DeviceMemory>(bytes);
        EXPECT_EQ(scaledit_cuda_geometry_upload(geometry.get(), device_geometry->data(), bytes, nullptr), SCALEDIT_OK)
            << scaledit_last_error();
        auto* sums = reinterpret_cast<float*>(log_sum_exp.data());

        scaledit_cuda_attention_arguments forward{};
        forward.geometry = geometry.get();
        forward.device_geometry = device_geometry->data();
        forward.heads = static_cast<std::int32_t>(heads);
        forward.head_dim = static_cast<std::int32_t>(head_dim);
        forward.scale = backward.scale();
        forward.arithmetic = SCALEDIT_ARITHMETIC_BFLOAT16;
        forward.kernels = kernels;
        forward.query = query.view();
        forward.key = key.view();
        forward.value = value.view();
        forward.output = output.view();
        forward.log_sum_exp = sums;
        EXPECT_EQ(scaledit_cuda_attention(&forward), SCALEDIT_OK) << scaledit_last_error();

        arguments.geometry = geometry.get();
        arguments.device_geometry = device_geometry->data();
        arguments.heads = forward.heads;
        arguments.head_dim = forward.head_dim;
        arguments.scale = forward.scale;
        arguments.kernels = kernels;
        arguments.query = query.view();
        arguments.key = key.view();
        arguments.value = value.view();
        arguments.output = output.view();
        arguments.log_sum_exp = sums;
        arguments.output_gradient = output_gradient.view();
        arguments.query_gradient = query_gradient.view();
        arguments.key_gradient = key_gradient.view();
        arguments.value_gradient = value_gradient.view();
        EXPECT_EQ(scaledit_cuda_attention_backward_workspace(&arguments, &bytes), SCALEDIT_OK) << scaledit_last_error();
        workspace = std::make_unique<DeviceMemory>(bytes);
        arguments.workspace = workspace->data();
        arguments.workspace_bytes = bytes;
    }

    // Reads the gradients; expects every row written and nothing beside the rows.
    [[nodiscard]] Gradients gradients() const {
        const auto rows = [&](const DeviceCopy& copy, const Tensor& host) {
            Tensor read = host;
            read.memory = std::make_shared<std::vector<std::byte>>(copy.memory.read());
            return rows_alone(read);
        };
        return {rows(query_gradient, backward.query_gradient), rows(key_gradient, backward.key_gradient),
                rows(value_gradient, backward.value_gradient)};
    }

    [[nodiscard]] Gradients run() const {
        for (const DeviceCopy* gradient : {&query_gradient, &key_gradient, &value_gradient}) {
            gradient->poison();
        }
        EXPECT_EQ(scaledit_cuda_attention_backward(&arguments), SCALEDIT_OK) << scaledit_last_error();
        EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        return gradients();
    }

    GeometryHandle geometry;
    GeometryView tiles;
    Backward backward;
    DeviceCopy query, key, value, output, output_gradient, query_gradient, key_gradient, value_gradient;
    DeviceMemory log_sum_exp;
    std::unique_ptr<DeviceMemory> device_geometry, workspace;
    scaledit_cuda_attention_backward_arguments arguments{};
};

struct Case {
    const char* name;
    scaledit_geometry_options options;
    std::int64_t heads;
    std::int64_t head_dim;
    bool fused;
    float key_bias;
    double query_limit = 1e-2;  // of the L2 of queries' gradients
};

const Case kCases[] = {{"one token", grid(1, 1, 0, 0), 2, 128, false, 2},
                       {"one image token", grid(1, 1, 0, 4), 2, 64, false, 2},
                       {"one of each", grid(1, 1, 1, 1), 3, 64, false, 2, 2e-2},  // of two or three keys
                       {"7x5", grid(7, 5, 77, 4), 3, 128, false, 2},
                       {"37x29 fused", grid(37, 29, 77, 4), 2, 128, true, 2},
                       {"37x29 fused, 64", grid(37, 29, 77, 4), 2, 64, true, 2},
                       {"20x19 ratio 1", grid(20, 19, 1, 1), 2, 64, false, 2},
                       {"36x20 ratio 2 local", grid(36, 20, 0, 2, 16, SCALEDIT_GUIDANCE_LOCAL), 1, 128, false, 2},
                       {"36x20 ratio 2 without text", without_text(grid(36, 20, 13, 2)), 1, 128, false, 2},
                       {"21x30 guidance left out", grid(21, 30, 13, 2, 16, SCALEDIT_GUIDANCE_NONE), 2, 128, true, 2},
                       {"33x17 ratio 8", grid(33, 17, 77, 8), 2, 64, true, 2},
                       {"23x31 no guidance", grid(23, 31, 13, 0), 1, 128, false, 2},
                       {"40x24 text 512", grid(40, 24, 512, 4), 1, 64, false, 2},
                       {"45x41 window 32", grid(45, 41, 65, 4, 32), 1, 128, false, 2},
                       // The gradients of a row's scores sum to zero, once rounded not quite: the rest times 50.
                       {"32x32 large key bias", grid(32, 32, 64, 4), 1, 128, false, 50, 0.15}};

class GpuAttentionBackward : public Gpu, public testing::WithParamInterface<Way> {};

TEST_P(GpuAttentionBackward, AgreesWithFloat64) {
    std::uint32_t seed = 61;
    for (const Case& c : kCases) {
        const Call call(c.options, c.heads, c.head_dim, c.fused, c.key_bias, ++seed, GetParam().kernels);
        const Gradients result = call.run();
        const Gradients expected = reference_gradients(call.tiles, call.backward);
        EXPECT_TRUE(all_finite(result.query) && all_finite(result.key) && all_finite(result.value)) << c.name;
        const Difference of_query = compare(result.query, expected.query);
        const Difference of_key = compare(result.key, expected.key);
        const Difference of_value = compare(result.value, expected.value);
        // bfloat16 rounds weights and their gradients, the results, and the output that delta is computed from.
        constexpr double kLimit = 1e-2;
        EXPECT_LE(of_value.l2, kLimit) << c.name;
        if (call.tiles.info.pairs == 1) {  // all gradients of scores are 0, and what is left is rounding
            EXPECT_LE(of_query.largest, kLimit) << c.name;
            EXPECT_LE(of_key.largest, kLimit) << c.name;
        } else {
            EXPECT_LE(of_query.l2, c.query_limit) << c.name;
            EXPECT_LE(of_key.l2, kLimit) << c.name;
        }
        std::printf("%-26s L2 of query's gradient %.1e, key's %.1e, value's %.1e\n", c.name, of_query.l2, of_key.l2,
                    of_value.l2);
        EXPECT_EQ(call.run(), result) << c.name;
    }
}

// Of its imported tokens a shard has gradients of keys and values alone. The last shard owns guidance tokens to which
// nobody in it attends.
TEST_P(GpuAttentionBackward, PropagatesInShards) {
    const scaledit_geometry_options options = grid(34, 38, 13, 2, 16, SCALEDIT_GUIDANCE_NONE);
    const GeometryHandle whole = make_geometry(options);
    constexpr std::int32_t kShards = 5;
    for (std::int32_t index = 0; index < kShards; ++index) {
        scaledit_geometry* shard = nullptr;
        ASSERT_EQ(scaledit_geometry_shard(whole.get(), kShards, index, &shard), SCALEDIT_OK);
        const Call call(GeometryHandle(shard), options, 2, 64, false, 2, 80 + static_cast<std::uint32_t>(index),
                        GetParam().kernels);
        const Gradients result = call.run();
        const Gradients expected = reference_gradients(call.tiles, call.backward);
        EXPECT_TRUE(all_finite(result.query) && all_finite(result.key) && all_finite(result.value)) << index;
        EXPECT_LE(compare(result.query, expected.query).l2, 1e-2) << index;
        EXPECT_LE(compare(result.key, expected.key).l2, 1e-2) << index;
        EXPECT_LE(compare(result.value, expected.value).l2, 1e-2) << index;
        for (std::size_t i = 0; i < expected.value.size(); ++i) {
            if (expected.value[i] == 0) {
                ASSERT_EQ(result.value[i], 0) << i;
                ASSERT_EQ(result.key[i], 0) << i;
            }
        }
    }
}

TEST_P(GpuAttentionBackward, GivesTheSameBitsEveryTime) {
    for (const std::int64_t head_dim : {64, 128}) {
        const Call call(grid(37, 29, 77, 4), 3, head_dim, true, 2, 5, GetParam().kernels);
        const Gradients first = call.run();
        for (int i = 0; i < 5; ++i) {
            EXPECT_EQ(call.run(), first);
        }
    }
}

// Enough jobs for many rounds of every block: what each head gets does not depend on the others.
TEST_P(GpuAttentionBackward, TakesManyJobs) {
    const Call few(grid(96, 80, 512, 4), 2, 64, true, 2, 71, GetParam().kernels);
    const Gradients of_few = few.run();
    const Gradients expected = reference_gradients(few.tiles, few.backward);
    EXPECT_LE(compare(of_few.query, expected.query).l2, 1e-2);
    EXPECT_LE(compare(of_few.key, expected.key).l2, 1e-2);
    EXPECT_LE(compare(of_few.value, expected.value).l2, 1e-2);

    constexpr std::int32_t kHeads = 24;
    const Call many(grid(96, 80, 512, 4), kHeads, 64, true, 2, 71, GetParam().kernels);
    const Gradients together = many.run();
    for (const DeviceCopy* gradient : {&many.query_gradient, &many.key_gradient, &many.value_gradient}) {
        gradient->poison();
    }
    for (std::int32_t head = 0; head < kHeads; head += 2) {
        scaledit_cuda_attention_backward_arguments two = many.arguments;
        two.heads = 2;
        for (scaledit_tensor* tensor : {&two.query, &two.key, &two.value, &two.output, &two.output_gradient,
                                        &two.query_gradient, &two.key_gradient, &two.value_gradient}) {
            tensor->data = static_cast<std::byte*>(tensor->data) + 2 * head * tensor->head_stride;
        }
        two.log_sum_exp += head * many.tiles.info.tokens;
        EXPECT_EQ(scaledit_cuda_attention_backward(&two), SCALEDIT_OK) << scaledit_last_error();
    }
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(many.gradients(), together);
}

// Rows, and then heads, more than 2^31 elements apart: the tensors lie between each other's rows.
TEST_P(GpuAttentionBackward, ReachesRowsFarApart) {
    constexpr std::int64_t kHeads = 2;
    constexpr std::int64_t kHeadDim = 128;
    constexpr std::int64_t kRow = kHeads * kHeadDim;
    constexpr std::int64_t kTensors = 8;
    const Call call(grid(7, 5, 3, 4), kHeads, kHeadDim, false, 2, 9, GetParam().kernels);
    const Gradients expected = call.run();
    const std::int64_t tokens = call.tiles.info.tokens;
    const std::pair<std::int64_t, std::int64_t> strides[] = {{(std::int64_t{1} << 31) / (tokens / 2), kHeadDim},
                                                             {kTensors * kHeadDim, std::int64_t{1} << 31}};
    for (const auto& [wanted, head_stride] : strides) {
        const std::int64_t token_stride = wanted / 8 * 8;
        const bool between_rows = head_stride == kHeadDim;
        const std::int64_t elements = (tokens - 1) * token_stride + (kHeads - 1) * head_stride + kTensors * kRow;
        ASSERT_GT(elements, std::int64_t{1} << 31);
        const DeviceMemory memory(static_cast<std::size_t>(2 * elements));
        scaledit_cuda_attention_backward_arguments arguments = call.arguments;
        const auto each_head = [&](const scaledit_tensor& a, const scaledit_tensor& b, auto copy) {
            for (std::int64_t head = 0; head < kHeads; ++head) {
                copy(static_cast<std::byte*>(a.data) + 2 * head * a.head_stride,
                     static_cast<const std::byte*>(b.data) + 2 * head * b.head_stride, 2 * a.token_stride,
                     2 * b.token_stride);
            }
        };
        const auto copy = [&](void* to, const void* from, std::int64_t to_pitch, std::int64_t from_pitch) {
            EXPECT_EQ(cudaMemcpy2D(to, static_cast<std::size_t>(to_pitch), from, static_cast<std::size_t>(from_pitch),
                                   2 * kHeadDim, static_cast<std::size_t>(tokens), cudaMemcpyDeviceToDevice),
                      cudaSuccess);
        };
        std::int64_t place = 0;
        scaledit_tensor* const tensors[] = {&arguments.query,           &arguments.key,
                                            &arguments.value,           &arguments.output,
                                            &arguments.output_gradient, &arguments.query_gradient,
                                            &arguments.key_gradient,    &arguments.value_gradient};
        for (scaledit_tensor* tensor : tensors) {
            const scaledit_tensor near = *tensor;
            *tensor = {memory.data() + 2 * place++ * (between_rows ? kRow : kHeadDim), token_stride, head_stride,
                       SCALEDIT_BFLOAT16};
            each_head(*tensor, near, copy);
        }
        const std::pair<const DeviceCopy*, const scaledit_tensor*> written[] = {
            {&call.query_gradient, &arguments.query_gradient},
            {&call.key_gradient, &arguments.key_gradient},
            {&call.value_gradient, &arguments.value_gradient}};
        for (const auto& [gradient, far] : written) {
            gradient->poison();
            each_head(*far, gradient->view(), copy);
        }
        EXPECT_EQ(scaledit_cuda_attention_backward(&arguments), SCALEDIT_OK) << scaledit_last_error();
        for (const auto& [gradient, far] : written) {
            each_head(gradient->view(), *far, copy);
        }
        EXPECT_EQ(call.gradients(), expected) << "token stride " << token_stride << ", head stride " << head_stride;
    }
}

// Kernels of a call may begin before those before them have ended, but not before what the caller does to its inputs,
// nor while an earlier call needs the workspace.
TEST_P(GpuAttentionBackward, KeepsToTheOrderOfItsStream) {
    const auto options = grid(48, 40, 512, 4);
    const Call one(options, 3, 128, false, 2, 5, GetParam().kernels);
    Call other(options, 3, 128, false, 2, 6, GetParam().kernels);
    const Gradients expected[] = {one.run(), other.run()};
    other.arguments.workspace = one.arguments.workspace;
    const Call* const calls[] = {&one, &other};
    const DeviceMemory kept[] = {DeviceMemory(one.output_gradient.memory.read()),
                                 DeviceMemory(other.output_gradient.memory.read())};
    for (int i = 0; i < 8; ++i) {
        const Call& call = *calls[i % 2];
        const std::size_t bytes = call.backward.output_gradient.memory->size();
        const auto poison = [](const DeviceCopy& tensor) {
            EXPECT_EQ(cudaMemsetAsync(tensor.memory.data(), static_cast<int>(kPoison), tensor.host.memory->size()),
                      cudaSuccess);
        };
        for (const DeviceCopy* tensor :
             {&call.query_gradient, &call.key_gradient, &call.value_gradient, &call.output_gradient}) {
            poison(*tensor);
        }
        EXPECT_EQ(
            cudaMemcpyAsync(call.output_gradient.memory.data(), kept[i % 2].data(), bytes, cudaMemcpyDeviceToDevice),
            cudaSuccess);
        EXPECT_EQ(scaledit_cuda_attention_backward(&call.arguments), SCALEDIT_OK) << scaledit_last_error();
        poison(call.output_gradient);
    }
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(one.gradients(), expected[0]);
    EXPECT_EQ(other.gradients(), expected[1]);
}

TEST_P(GpuAttentionBackward, IsCapturedByAGraph) {
    const Call call(grid(48, 40, 512, 4), 2, 128, false, 2, 6, GetParam().kernels);
    const Gradients expected = call.run();
    for (const DeviceCopy* gradient : {&call.query_gradient, &call.key_gradient, &call.value_gradient}) {
        gradient->poison();
    }
    run_by_graph(
        [&](cudaStream_t stream) {
            scaledit_cuda_attention_backward_arguments arguments = call.arguments;
            arguments.stream = stream;
            EXPECT_EQ(scaledit_cuda_attention_backward(&arguments), SCALEDIT_OK) << scaledit_last_error();
        },
        2);
    EXPECT_EQ(call.gradients(), expected);
}

// Those that the GPU runs: beside a GPU no test is skipped. Without one all of them are named.
std::vector<Way> runnable() {
    std::vector<Way> those;
    std::ranges::copy_if(kWays, std::back_inserter(those),
                         [](const Way& way) { return !there_is_a_gpu() || runs(way); });
    return those;
}
std::string name_of(const testing::TestParamInfo<Way>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Kernels, GpuAttentionBackward, testing::ValuesIn(runnable()), name_of);

TEST_F(Gpu, RefusesGradientsThatNoKernelMayTouch) {
    const Call call(grid(7, 5, 3, 4), 2, 128, false, 2, 7, SCALEDIT_CUDA_KERNELS_BEST);
    const auto refused = [&](auto change, const std::string& sentence) {
        scaledit_cuda_attention_backward_arguments arguments = call.arguments;
        change(arguments);
        EXPECT_EQ(scaledit_cuda_attention_backward(&arguments), SCALEDIT_INVALID_ARGUMENT);
        EXPECT_NE(std::string(scaledit_last_error()).find(sentence), std::string::npos) << scaledit_last_error();
    };
    std::vector<std::byte> host(call.backward.inputs.key.memory->size() + 16);
    refused(
        [&](auto& a) {
            a.key.data = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(host.data()) + 15) / 16 * 16);
        },
        "key.data is in the host's memory");
    refused([](auto& a) { a.output_gradient.data = static_cast<std::byte*>(a.output_gradient.data) + 2; },
            "multiple of 16 bytes");
    refused([](auto& a) { a.key_gradient.dtype = SCALEDIT_FLOAT32; }, "key_gradient.dtype is 0");
    refused(
        [](auto& a) {
            a.key.head_stride += 1;
            a.key.token_stride += 2;
        },
        "multiple of 8 elements");
    refused([](auto& a) { a.query_gradient.data = a.query.data; }, "query_gradient.data overlaps");
    refused([](auto& a) { a.device_geometry = nullptr; }, "device_geometry is null");
    refused([](auto& a) { a.log_sum_exp = nullptr; }, "log_sum_exp is null");
    refused([](auto& a) { a.workspace_bytes = 0; }, "workspace_bytes is 0, expected at least");
    refused([](auto& a) { a.workspace = static_cast<std::byte*>(a.workspace) + 64; }, "multiple of 128 bytes");
    refused([](auto& a) { a.kernels = 4; }, "kernels is 4, expected 0 (best), 1 (SM80), 2 (SM89) or 3 (SM90)");
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

}  // namespace
}  // namespace scaledit

// Attention on a GPU against float64, over the grids of the CPU's tests.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <limits>
#include <memory>
#include <ostream>
#include <random>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "attention_reference.h"
#include "cuda/gpu.h"

namespace scaledit {
namespace {

TEST(GpuSupport, IsToldApart) {
    if (there_is_a_gpu()) {
        EXPECT_EQ(scaledit_cuda_supported(0), SCALEDIT_OK) << scaledit_last_error();
    } else {
        EXPECT_EQ(scaledit_cuda_supported(0), SCALEDIT_UNSUPPORTED);
        EXPECT_NE(std::string(scaledit_last_error()).find("CUDA finds no GPU"), std::string::npos);
    }
}

int compute_capability() {
    int major = 0;
    int minor = 0;
    EXPECT_EQ(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), cudaSuccess);
    EXPECT_EQ(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), cudaSuccess);
    return 10 * major + minor;
}

// Whether GPU 0 runs a family of kernels.
bool runs(std::int32_t kernels) {
    const int capability = compute_capability();
    return kernels == SCALEDIT_CUDA_KERNELS_SM90   ? capability == 90
           : kernels == SCALEDIT_CUDA_KERNELS_SM89 ? capability >= 89
                                                   : capability >= 80;
}

// How far a result may be off.
struct Bounds {
    double least_cosine;
    double most_l1;
    double most_l2 = std::numeric_limits<double>::infinity();  // for those that the other two say enough of
};

// An arithmetic through a family of kernels.
struct Way {
    const char* name;
    std::int32_t arithmetic;
    std::int32_t kernels;
    Bounds bounds;
    double most_log;  // of the log-sum-exp's error, where the keys' bias is small
    Bounds with_outliers;
};
std::ostream& operator<<(std::ostream& out, const Way& way) { return out << way.name; }

constexpr Way kBfloat16Ways[] = {
    {"Bfloat16Sm80", SCALEDIT_ARITHMETIC_BFLOAT16, SCALEDIT_CUDA_KERNELS_SM80, {0.999992, 4e-3, 4e-3}, 1e-4, {}},
    {"Bfloat16Sm90", SCALEDIT_ARITHMETIC_BFLOAT16, SCALEDIT_CUDA_KERNELS_SM90, {0.999992, 4e-3, 4e-3}, 1e-4, {}}};
// INT8 queries and keys take 1 % off. Rounding to e4m3's three bits takes 2.45 % off weights and 2.65 % off normal
// values, together 3.6 %, a third of the latter's the same for all rows and corrected; FP16 takes nothing that shows.
constexpr Bounds kFp8Bounds = {0.9993, 0.037};
// One channel of the values is 30 times as strong: the cosine is that of this one channel.
constexpr Bounds kFp8OutlierBounds = {0.9992, 0.037};
constexpr Way kInt8Ways[] = {
    {"Int8Sm80", SCALEDIT_ARITHMETIC_INT8, SCALEDIT_CUDA_KERNELS_SM80, {0.9999, 0.013}, 0.05, {0.9999, 0.0135}},
    {"Int8Sm89", SCALEDIT_ARITHMETIC_INT8, SCALEDIT_CUDA_KERNELS_SM89, kFp8Bounds, 0.05, kFp8OutlierBounds},
    {"Int8Sm90", SCALEDIT_ARITHMETIC_INT8, SCALEDIT_CUDA_KERNELS_SM90, kFp8Bounds, 0.05, kFp8OutlierBounds}};

class GpuAttention : public Gpu, public testing::WithParamInterface<Way> {};

struct Call {
    Call(const scaledit_geometry_options& options, std::int64_t heads, std::int64_t head_dim, bool fused,
         std::uint32_t seed, float key_bias, std::int32_t arithmetic, std::int32_t kernels)
        : Call(make_geometry(options), options, heads, head_dim, fused, seed, key_bias, arithmetic, kernels) {}

    Call(GeometryHandle made, const scaledit_geometry_options& options, std::int64_t heads, std::int64_t head_dim,
         bool fused, std::uint32_t seed, float key_bias, std::int32_t arithmetic, std::int32_t kernels)
        : geometry(std::move(made)),
          tiles(scaledit::view(options, geometry.get())),
          inputs(make_inputs(tiles.info.tokens, heads, head_dim, SCALEDIT_BFLOAT16, fused)) {
        fill_normal(inputs, seed, key_bias);
        query = std::make_unique<DeviceCopy>(inputs.query);
        key = std::make_unique<DeviceCopy>(inputs.key);
        value = std::make_unique<DeviceCopy>(inputs.value);
        output = std::make_unique<DeviceCopy>(inputs.output);
        std::size_t bytes = 0;
        EXPECT_EQ(scaledit_cuda_geometry_bytes(geometry.get(), &bytes), SCALEDIT_OK) << scaledit_last_error();
        device_geometry = std::make_unique<DeviceMemory>(bytes);
        EXPECT_EQ(scaledit_cuda_geometry_upload(geometry.get(), device_geometry->data(), bytes, nullptr), SCALEDIT_OK)
            << scaledit_last_error();
        const auto rows = static_cast<std::size_t>(tiles.info.tokens * heads);
        log_sum_exp = std::make_unique<DeviceMemory>(rows * sizeof(float));
        arguments.geometry = geometry.get();
        arguments.device_geometry = device_geometry->data();
        arguments.heads = static_cast<std::int32_t>(heads);
        arguments.head_dim = static_cast<std::int32_t>(head_dim);
        arguments.scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
        arguments.arithmetic = arithmetic;
        arguments.kernels = kernels;
        arguments.query = query->view();
        arguments.key = key->view();
        arguments.value = value->view();
        arguments.output = output->view();
        arguments.log_sum_exp = reinterpret_cast<float*>(log_sum_exp->data());
        EXPECT_EQ(scaledit_cuda_attention_workspace(&arguments, &bytes), SCALEDIT_OK) << scaledit_last_error();
        if (bytes > 0) {
            workspace = std::make_unique<DeviceMemory>(bytes);
            arguments.workspace = workspace->data();
            arguments.workspace_bytes = bytes;
        }
    }

    [[nodiscard]] Result run() const {
        EXPECT_EQ(scaledit_cuda_attention(&arguments), SCALEDIT_OK) << scaledit_last_error();
        EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        Result result;
        *inputs.output.memory = output->memory.read();
        result.output = rows_alone(inputs.output);
        const std::vector<std::byte> sums = log_sum_exp->read();
        for (std::size_t i = 0; i < sums.size(); i += sizeof(float)) {
            float sum = 0;
            std::memcpy(&sum, &sums[i], sizeof(sum));
            result.log_sum_exp.push_back(static_cast<double>(sum));
        }
        return result;
    }

    GeometryHandle geometry;
    GeometryView tiles;
    Inputs inputs;
    std::unique_ptr<DeviceCopy> query, key, value, output;
    std::unique_ptr<DeviceMemory> device_geometry, log_sum_exp, workspace;
    scaledit_cuda_attention_arguments arguments{};
};

struct Case {
    const char* name;
    scaledit_geometry_options options;
    std::int64_t heads;
    std::int64_t head_dim;
    bool fused;
    float key_bias;
};

scaledit_geometry_options reaching(std::int32_t reach, scaledit_geometry_options options) {
    options.reach = reach;
    return options;
}

const Case kCases[] = {{"one token", grid(1, 1, 0, 0), 2, 128, false, 2},
                       {"one of each", grid(1, 1, 1, 1), 3, 64, false, 2},
                       {"7x5", grid(7, 5, 77, 4), 3, 128, false, 2},
                       {"37x29 fused", grid(37, 29, 77, 4), 2, 128, true, 2},
                       {"37x29 fused, 64", grid(37, 29, 77, 4), 2, 64, true, 2},
                       {"20x19 ratio 1", grid(20, 19, 1, 1), 2, 64, false, 2},
                       {"36x20 ratio 2 local", grid(36, 20, 0, 2, 16, SCALEDIT_GUIDANCE_LOCAL), 1, 128, false, 2},
                       {"36x20 ratio 2 without text", without_text(grid(36, 20, 13, 2)), 1, 128, false, 2},
                       {"33x17 ratio 8", grid(33, 17, 77, 8), 2, 64, true, 2},
                       {"23x31 no guidance", grid(23, 31, 13, 0), 1, 128, false, 2},
                       {"40x24 text 512", grid(40, 24, 512, 4), 1, 64, false, 2},
                       {"45x41 window 32", grid(45, 41, 65, 4, 32), 1, 64, false, 2},
                       // Query tiles side by side that share little (int8_hopper_schedule_test.cpp).
                       {"19x19 reach 0", reaching(0, grid(19, 19, 0, 4)), 2, 128, false, 2},
                       {"24x20 reach 0, no guidance", reaching(0, grid(24, 20, 64, 0)), 2, 64, false, 2},
                       {"32x32 large key bias", grid(32, 32, 64, 4), 1, 128, false, 50}};

void expect_close(const Result& result, const Result& expected, const char* name, const Way& way) {
    const Difference off = compare(result.output, expected.output);
    const Difference off_log = compare(result.log_sum_exp, expected.log_sum_exp);
    EXPECT_TRUE(all_finite(result.output)) << name;
    EXPECT_GE(off.cosine, way.bounds.least_cosine) << name;
    EXPECT_LE(off.l1, way.bounds.most_l1) << name;
    EXPECT_LE(off.l2, way.bounds.most_l2) << name;
    EXPECT_LE(off_log.largest, way.most_log) << name;
    std::printf("%-22s cosine %.5f, relative L1 %.4f, log-sum-exp %.1e\n", name, off.cosine, off.l1, off_log.largest);
}

TEST_P(GpuAttention, AgreesWithFloat64) {
    std::uint32_t seed = 51;
    for (const Case& c : kCases) {
        Way way = GetParam();
        if (way.arithmetic == SCALEDIT_ARITHMETIC_BFLOAT16 && c.key_bias > 10) {
            way.most_log = 1e-3;
        }
        const Call call(c.options, c.heads, c.head_dim, c.fused, ++seed, c.key_bias, way.arithmetic, way.kernels);
        const Result result = call.run();
        expect_close(result, reference(call.tiles, call.inputs, static_cast<double>(call.arguments.scale)), c.name,
                     way);
        const Result again = call.run();
        EXPECT_EQ(result.output, again.output) << c.name;
        EXPECT_EQ(result.log_sum_exp, again.log_sum_exp) << c.name;
    }
}

TEST_P(GpuAttention, LeavesOutGuidanceThatAttendsToNobody) {
    const Way& way = GetParam();
    const auto call = [&](std::int32_t guidance) {
        return Call(grid(37, 29, 77, 2, 16, guidance), 3, 128, true, 78, 2, way.arithmetic, way.kernels);
    };
    const Call of_others = call(SCALEDIT_GUIDANCE_NONE);
    expect_guidance_left_out(of_others.tiles, 3, of_others.run(), call(SCALEDIT_GUIDANCE_GLOBAL).run());
}

// Rows of a result that are written: the first tokens'.
Result first_tokens(const Result& result, const GeometryView& tiles, std::int64_t heads, std::int64_t tokens) {
    Result first;
    const auto row = static_cast<std::int64_t>(result.output.size()) / tiles.info.tokens;
    first.output.assign(result.output.begin(), result.output.begin() + tokens * row);
    for (std::int64_t head = 0; head < heads; ++head) {
        const auto of_head = result.log_sum_exp.begin() + head * tiles.info.tokens;
        first.log_sum_exp.insert(first.log_sum_exp.end(), of_head, of_head + tokens);
    }
    return first;
}

// Imported tokens, the last ones, are keys and values alone: without guidance they follow the shard's own.
TEST_P(GpuAttention, AttendsInShards) {
    constexpr std::int64_t kHeads = 2;
    const Way& way = GetParam();
    std::uint32_t seed = 300;
    for (const scaledit_geometry_options& options :
         {grid(37, 61, 77, 4), grid(53, 40, 13, 0), without_text(grid(36, 52, 0, 2, 16, SCALEDIT_GUIDANCE_LOCAL)),
          grid(120, 96, 512, 4)}) {
        const GeometryHandle whole = make_geometry(options);
        for (const std::int32_t shards : {2, 3}) {
            for (std::int32_t index = 0; index < shards; ++index) {
                scaledit_geometry* shard = nullptr;
                ASSERT_EQ(scaledit_geometry_shard(whole.get(), shards, index, &shard), SCALEDIT_OK);
                const Call call(GeometryHandle(shard), options, kHeads, 128, false, ++seed, 2, way.arithmetic,
                                way.kernels);
                const scaledit_geometry_info& info = call.tiles.info;
                const std::int64_t queries = info.tokens - info.imported_tokens;
                const Result result = call.run();
                const Result expected = reference(call.tiles, call.inputs, static_cast<double>(call.arguments.scale));
                const std::string name = std::to_string(options.image_width) + ", " + std::to_string(index) + " of " +
                                         std::to_string(shards);
                expect_close(first_tokens(result, call.tiles, kHeads, queries),
                             first_tokens(expected, call.tiles, kHeads, queries), name.c_str(), way);
                const auto written = result.output.begin() + queries * kHeads * 128;
                EXPECT_TRUE(std::all_of(written, result.output.end(), [](double x) { return std::isnan(x); })) << name;
            }
        }
    }
}

class GpuInt8Attention : public GpuAttention {};

// Normed and rotated by the pre-pass, or before it in float64.
TEST_P(GpuInt8Attention, NormsAndRotates) {
    for (const std::int64_t head_dim : {64, 128}) {
        Call call(grid(37, 29, 77, 4), 7, head_dim, true, 81, 0.5F, GetParam().arithmetic, GetParam().kernels);
        const std::int64_t tokens = call.tiles.info.tokens;
        constexpr double kEpsilon = 1e-6;
        std::mt19937 random(82);
        std::normal_distribution<float> normal;
        std::vector<std::byte> weights(static_cast<std::size_t>(4 * head_dim * 2));
        std::vector<double> weight;
        for (std::size_t i = 0; i < weights.size(); i += 2) {
            const std::uint16_t bits = to_bfloat(1 + normal(random) / 4);
            std::memcpy(&weights[i], &bits, 2);
            weight.push_back(static_cast<double>(from_bfloat(bits)));
        }
        std::vector<std::byte> rotation(static_cast<std::size_t>(tokens * head_dim * 4));
        std::vector<double> turn;
        for (std::int64_t i = 0; i < tokens * head_dim / 2; ++i) {
            const double angle = 3 * static_cast<double>(normal(random));
            for (const double part : {std::cos(angle), std::sin(angle)}) {
                const auto rounded = static_cast<float>(part);
                std::memcpy(&rotation[turn.size() * 4], &rounded, 4);
                turn.push_back(part);
            }
        }
        const DeviceMemory on_gpu(weights);
        const DeviceMemory rotation_on_gpu(rotation);
        const auto part = [&](std::int64_t i) { return on_gpu.data() + i * head_dim * 2; };
        call.arguments.query_norm = part(0);
        call.arguments.key_norm = part(1);
        call.arguments.text_query_norm = part(2);
        call.arguments.text_key_norm = part(3);
        call.arguments.norm_epsilon = static_cast<float>(kEpsilon);
        call.arguments.rotation = reinterpret_cast<const float*>(rotation_on_gpu.data());

        Inputs prepared = make_inputs(tokens, 7, head_dim, SCALEDIT_FLOAT32, false);
        const auto prepare = [&](const Tensor& from, const Tensor& to, std::int64_t which) {
            for (std::int64_t token = 0; token < tokens; ++token) {
                for (std::int64_t head = 0; head < 7; ++head) {
                    double squares = 0;
                    for (std::int64_t i = 0; i < head_dim; ++i) {
                        squares += from.get(token, head, i) * from.get(token, head, i);
                    }
                    const double factor = 1 / std::sqrt(squares / static_cast<double>(head_dim) + kEpsilon);
                    const std::int64_t of = (token < 77 ? 2 + which : which) * head_dim;
                    const auto normed = [&](std::int64_t i) {
                        return from.get(token, head, i) * factor * weight[static_cast<std::size_t>(of + i)];
                    };
                    for (std::int64_t i = 0; i < head_dim; i += 2) {
                        const auto at = static_cast<std::size_t>(token * head_dim + i);
                        const auto x = static_cast<float>(normed(i) * turn[at] - normed(i + 1) * turn[at + 1]);
                        const auto y = static_cast<float>(normed(i + 1) * turn[at] + normed(i) * turn[at + 1]);
                        std::memcpy(to.at(token, head, i), &x, 4);
                        std::memcpy(to.at(token, head, i + 1), &y, 4);
                    }
                }
            }
        };
        prepare(call.inputs.query, prepared.query, 0);
        prepare(call.inputs.key, prepared.key, 1);
        for (std::int64_t token = 0; token < tokens; ++token) {
            for (std::int64_t head = 0; head < 7; ++head) {
                for (std::int64_t i = 0; i < head_dim; ++i) {
                    const auto x = static_cast<float>(call.inputs.value.get(token, head, i));
                    std::memcpy(prepared.value.at(token, head, i), &x, 4);
                }
            }
        }
        expect_close(call.run(), reference(call.tiles, prepared, static_cast<double>(call.arguments.scale)),
                     head_dim == 64 ? "norm, rotation, 64" : "norm, rotation, 128", GetParam());
    }
}

// One head of a call's inputs, and what a call's result has of it.
Inputs of_head(const Inputs& inputs, std::int64_t head) {
    Inputs one = inputs;
    for (Tensor* tensor : {&one.query, &one.key, &one.value, &one.output}) {
        tensor->first += head * tensor->head_stride;
        tensor->heads = 1;
    }
    return one;
}
Result of_head(const Result& result, const Tensor& output, std::int64_t head) {
    Result one;
    for (std::int64_t token = 0; token < output.tokens; ++token) {
        const auto row = result.output.begin() + (token * output.heads + head) * output.head_dim;
        one.output.insert(one.output.end(), row, row + output.head_dim);
    }
    const auto sums = result.log_sum_exp.begin() + head * output.tokens;
    one.log_sum_exp.assign(sums, sums + output.tokens);
    return one;
}

// Text that takes more turns than are summed in one go (cuda::kFlushTurns): whole, and in parts. That it does is for
// device_geometry_test.cpp to say.
TEST_P(GpuInt8Attention, BearsLongRows) {
    const Way& way = GetParam();
    std::uint32_t seed = 95;
    for (const auto& [width, height, heads, head_dim] : {std::tuple{72, 64, 24, 128}, {96, 80, 16, 64}}) {
        const Call call(grid(width, height, 512, 4), heads, head_dim, false, ++seed, 2, way.arithmetic, way.kernels);
        const Result result = call.run();
        for (const std::int64_t head : {0, heads - 1}) {
            const std::string name = std::to_string(width) + "x" + std::to_string(height) + ", " + std::to_string(head);
            expect_close(of_head(result, call.inputs.output, head),
                         reference(call.tiles, of_head(call.inputs, head), static_cast<double>(call.arguments.scale)),
                         name.c_str(), way);
        }
    }
}

// Queries and keys so small that only their scale makes numbers of them.
TEST_P(GpuInt8Attention, BearsSmallQueriesAndKeys) {
    const Way& way = GetParam();
    Call call(grid(20, 19, 13, 4), 2, 64, false, 98, 2, way.arithmetic, way.kernels);
    for (const Tensor* tensor : {&call.inputs.query, &call.inputs.key}) {
        tensor->fill([&](std::int64_t token, std::int64_t head, std::int64_t channel) {
            return std::ldexp(static_cast<float>(tensor->get(token, head, channel)), -24);
        });
    }
    call.query = std::make_unique<DeviceCopy>(call.inputs.query);
    call.key = std::make_unique<DeviceCopy>(call.inputs.key);
    call.arguments.query = call.query->view();
    call.arguments.key = call.key->view();
    call.arguments.scale = std::ldexp(call.arguments.scale, 48);
    expect_close(call.run(), reference(call.tiles, call.inputs, static_cast<double>(call.arguments.scale)), "2^-24",
                 way);
}

// Keys with a strong channel, and values some of whose channels are zeros.
TEST_P(GpuInt8Attention, BearsOutliers) {
    Way way = GetParam();
    Call call(grid(72, 64, 512, 4), 1, 128, false, 91, 2, way.arithmetic, way.kernels);
    for (std::int64_t token = 0; token < call.tiles.info.tokens; ++token) {
        const auto scaled = [&](const Tensor& tensor, std::int64_t channel, double factor) {
            const std::uint16_t bits = to_bfloat(static_cast<float>(tensor.get(token, 0, channel) * factor));
            std::memcpy(tensor.at(token, 0, channel), &bits, 2);
        };
        scaled(call.inputs.key, 7, 4);
        scaled(call.inputs.value, 9, 30);
        scaled(call.inputs.value, 11, 0);
    }
    call.key = std::make_unique<DeviceCopy>(call.inputs.key);
    call.value = std::make_unique<DeviceCopy>(call.inputs.value);
    call.arguments.key = call.key->view();
    call.arguments.value = call.value->view();
    const Result result = call.run();
    way.bounds = way.with_outliers;
    expect_close(result, reference(call.tiles, call.inputs, static_cast<double>(call.arguments.scale)),
                 "72x64 outliers", way);
}

// Values that FP8 and FP16 hold only with a scale of their channel.
TEST_P(GpuInt8Attention, BearsValuesOfAnySize) {
    const Way& way = GetParam();
    Call call(grid(20, 19, 13, 4), 2, 64, false, 92, 2, way.arithmetic, way.kernels);
    const auto size_of = [](std::int64_t channel) { return std::pow(10.0F, static_cast<float>(channel) - 28); };
    call.inputs.value.fill([&](std::int64_t token, std::int64_t head, std::int64_t channel) {
        return static_cast<float>(call.inputs.value.get(token, head, channel)) * size_of(channel);
    });
    call.value = std::make_unique<DeviceCopy>(call.inputs.value);
    call.arguments.value = call.value->view();
    Result result = call.run();
    Result expected = reference(call.tiles, call.inputs, static_cast<double>(call.arguments.scale));
    for (std::size_t i = 0; i < result.output.size(); ++i) {
        const auto size = static_cast<double>(size_of(static_cast<std::int64_t>(i % 64)));
        result.output[i] /= size;
        expected.output[i] /= size;
    }
    expect_close(result, expected, "1e-28 to 1e35", way);
}

// Of long sequences only a sample of keys and values is looked at before they are packed. One head has some beyond it.
class GpuSample : public GpuAttention {
protected:
    static constexpr std::int64_t kHeadDim = 64;
    static constexpr std::int64_t kHeads = 3;
    static constexpr std::int64_t kHead = 1;  // the one with outliers
    static constexpr std::int64_t kChannel = 9;

    void SetUp() override {
        GpuAttention::SetUp();
        if (!IsSkipped()) {
            call_ = std::make_unique<Call>(reaching(0, grid(131, 127, 77, 4)), kHeads, kHeadDim, false, 121, 0.5F,
                                           GetParam().arithmetic, GetParam().kernels);
            ASSERT_GE(tokens(), 16384);
        }
    }

    // What the call gives with other values of some tokens; the workspace has what a forgotten store would leave.
    [[nodiscard]] Result with(const std::vector<std::pair<std::int64_t, float>>& values) const {
        for (const auto& [token, value] : values) {
            call_->inputs.value.set(token, kHead, kChannel, value);
        }
        call_->value->memory.write(*call_->inputs.value.memory);
        EXPECT_EQ(cudaMemset(call_->workspace->data(), static_cast<int>(kPoison), call_->arguments.workspace_bytes),
                  cudaSuccess);
        return call_->run();
    }
    [[nodiscard]] Result expected(std::int64_t head) const {
        return reference(call_->tiles, of_head(call_->inputs, head), static_cast<double>(call_->arguments.scale));
    }
    [[nodiscard]] float value(std::int64_t token) const {
        return static_cast<float>(call_->inputs.value.get(token, kHead, kChannel));
    }
    // What a result has of the channel.
    [[nodiscard]] std::vector<double> of_channel(const Result& of_one_head) const {
        std::vector<double> channel;
        for (std::int64_t token = 0; token < tokens(); ++token) {
            channel.push_back(of_one_head.output[static_cast<std::size_t>(token * kHeadDim + kChannel)]);
        }
        return channel;
    }

    [[nodiscard]] std::int64_t tokens() const { return call_->tiles.info.tokens; }
    // Of each 16 tokens one is looked at.
    static bool is_looked_at(std::int64_t token) { return token % 16 == token / 16 * 5 % 16; }
    static std::int64_t unseen(std::int64_t from) { return is_looked_at(from) ? from + 1 : from; }
    // The last one of the last tile that is not full.
    [[nodiscard]] std::int64_t unseen_in_ragged_tile() const {
        const auto ragged = std::find_if(call_->tiles.tiles.rbegin(), call_->tiles.tiles.rend(),
                                         [](const scaledit_tile& tile) { return tile.tokens < 64; });
        EXPECT_NE(ragged, call_->tiles.tiles.rend());
        const std::int64_t last = ragged->first + ragged->tokens - 1;
        return is_looked_at(last) ? last - 1 : last;
    }

    std::unique_ptr<Call> call_;
};

// 1,000 times as large as all that are looked at. The head is packed anew; the others keep their bits.
TEST_P(GpuSample, BearOutliers) {
    const Way& way = GetParam();
    const Result plain = with({});
    expect_close(of_head(plain, call_->inputs.output, kHead), expected(kHead), "sampled values", way);
    const auto check = [&](std::int64_t token, float outlier, const char* name) {
        const float before = value(token);
        const Result result = with({{token, outlier}});
        for (std::int64_t head = 0; head < kHeads; ++head) {
            const Result own = of_head(result, call_->inputs.output, head);
            if (head == kHead) {
                expect_close(own, expected(head), name, way);
            } else {
                EXPECT_EQ(own.output, of_head(plain, call_->inputs.output, head).output) << name << ", head " << head;
            }
        }
        EXPECT_EQ(result.log_sum_exp, plain.log_sum_exp) << name;
        EXPECT_EQ(with({}).output, result.output) << name << ": other bits the second time";
        EXPECT_EQ(with({{token, before}}).output, plain.output) << name << ": other bits after it";
    };
    check(unseen(9000), 4000, "outlier in the image");
    check(unseen(40), -4000, "outlier in the text");
    check(unseen_in_ragged_tile(), 4000, "outlier, ragged tile");
    check(unseen(call_->tiles.tiles.back().first), -4000, "outlier, last tile");
}

// A channel of one number keeps it; and what is looked at says nothing of the others.
TEST_P(GpuSample, BearChannelsOfOneNumber) {
    for (const auto& [number, other] : {std::pair{0.0F, 1e-3F}, std::pair{0.375F, 40.0F}}) {
        std::vector<std::pair<std::int64_t, float>> values;
        for (std::int64_t token = 0; token < tokens(); ++token) {
            values.emplace_back(token, number);
        }
        const std::vector<double> all_one = of_channel(of_head(with(values), call_->inputs.output, kHead));
        EXPECT_TRUE(std::ranges::all_of(all_one, [&](double x) { return x == number; })) << number;
        const Result result = of_head(with({{unseen(9000), other}}), call_->inputs.output, kHead);
        const Result exact = expected(kHead);
        expect_close(result, exact, "one number but for one", GetParam());
        const Difference off = compare(of_channel(result), of_channel(exact));
        EXPECT_GE(off.cosine, 0.999) << number;
        EXPECT_LE(off.l1, 0.05) << number;
    }
}

// What is no number stays its channel's: a NaN that of those that attend to it, an infinity that of all.
TEST_P(GpuSample, KeepWhatIsNoNumberToItsChannel) {
    const Result plain = with({});
    constexpr std::int64_t kRow = kHeads * kHeadDim;
    const auto check = [&](std::int64_t token, float number) {
        const float before = value(token);
        const Result result = with({{token, number}});
        for (std::size_t tile = 0; tile < call_->tiles.tiles.size(); ++tile) {
            const std::vector<std::int64_t> allowed = allowed_tokens(call_->tiles, tile);
            const bool meets = std::isinf(number) || std::ranges::find(allowed, token) != allowed.end();
            const scaledit_tile& own = call_->tiles.tiles[tile];
            for (std::int64_t i = own.first * kRow; i < (own.first + own.tokens) * kRow; ++i) {
                const double x = result.output[static_cast<std::size_t>(i)];
                if (i % kRow == kHead * kHeadDim + kChannel) {
                    ASSERT_EQ(std::isnan(x), meets) << number << " of token " << token << ": row " << i / kRow;
                } else {
                    ASSERT_EQ(x, plain.output[static_cast<std::size_t>(i)]) << i;
                }
            }
        }
        EXPECT_EQ(result.log_sum_exp, plain.log_sum_exp);
        EXPECT_EQ(with({{token, before}}).output, plain.output) << number << ": other bits after it";
    };
    ASSERT_TRUE(is_looked_at(0));
    for (const std::int64_t token : {std::int64_t{0}, unseen(9000), unseen_in_ragged_tile()}) {
        check(token, std::numeric_limits<float>::quiet_NaN());
        check(token, -std::numeric_limits<float>::infinity());
    }
}

// A NaN in a key that is looked at takes their mean from all keys of its head, and its weights from no row but those
// that attend to it.
TEST_P(GpuSample, KeepsANaNOfAKeyToThoseThatAttendToIt) {
    const std::int64_t token = 9000 / 16 * 16 + 9000 / 16 * 5 % 16;
    ASSERT_TRUE(is_looked_at(token));
    const Result plain = with({});
    call_->inputs.key.set(token, kHead, kChannel, std::numeric_limits<float>::quiet_NaN());
    call_->key->memory.write(*call_->inputs.key.memory);
    const Result result = with({});
    Result spared, exact;
    for (std::int64_t head = 0; head < kHeads; ++head) {
        const Result own = of_head(result, call_->inputs.output, head);
        if (head != kHead) {
            EXPECT_EQ(own.output, of_head(plain, call_->inputs.output, head).output) << head;
            continue;
        }
        const Result reference = expected(head);
        for (std::size_t tile = 0; tile < call_->tiles.tiles.size(); ++tile) {
            const std::vector<std::int64_t> allowed = allowed_tokens(call_->tiles, tile);
            const bool meets = std::ranges::find(allowed, token) != allowed.end();
            const scaledit_tile& of = call_->tiles.tiles[tile];
            for (std::int64_t row = of.first; row < of.first + of.tokens; ++row) {
                const auto at = static_cast<std::size_t>(row);
                const auto begin = static_cast<std::ptrdiff_t>(row * kHeadDim);
                if (meets) {
                    const auto is_nan = [](double x) { return std::isnan(x); };
                    ASSERT_TRUE(std::all_of(own.output.begin() + begin, own.output.begin() + begin + kHeadDim, is_nan))
                        << row;
                    ASSERT_TRUE(std::isnan(own.log_sum_exp[at])) << row;
                    continue;
                }
                for (const auto& [from, to] : {std::pair{&own, &spared}, std::pair{&reference, &exact}}) {
                    to->output.insert(to->output.end(), from->output.begin() + begin,
                                      from->output.begin() + begin + kHeadDim);
                    to->log_sum_exp.push_back(from->log_sum_exp[at]);
                }
            }
        }
    }
    ASSERT_GT(spared.log_sum_exp.size(), 10000U);
    expect_close(spared, exact, "beside a NaN", GetParam());
}

// Rows, and then heads, more than 2^31 elements apart; the four tensors lie between each other's rows.
TEST_P(GpuAttention, ReachesRowsFarApart) {
    constexpr std::int64_t kHeads = 2;
    constexpr std::int64_t kHeadDim = 128;
    constexpr std::int64_t kRow = kHeads * kHeadDim;
    const Call call(grid(7, 5, 3, 4), kHeads, kHeadDim, false, 9, 2, GetParam().arithmetic, GetParam().kernels);
    const Result expected = call.run();
    const std::int64_t tokens = call.tiles.info.tokens;
    const std::pair<std::int64_t, std::int64_t> strides[] = {{(std::int64_t{1} << 31) / (tokens / 2), kHeadDim},
                                                             {4 * kHeadDim, std::int64_t{1} << 31}};
    for (const auto& [token_stride, head_stride] : strides) {
        const std::int64_t a = token_stride / 8 * 8;
        const std::int64_t elements = (tokens - 1) * a + (kHeads - 1) * head_stride + 4 * kRow;
        ASSERT_GT(elements, std::int64_t{1} << 31);
        const DeviceMemory memory(static_cast<std::size_t>(2 * elements));
        scaledit_cuda_attention_arguments arguments = call.arguments;
        const auto copy = [&](const Tensor& tensor, scaledit_tensor& view, std::int64_t place) {
            // Between rows, or between the tokens of a head.
            view = {memory.data() + 2 * place * (head_stride == kHeadDim ? kRow : kHeadDim), a, head_stride,
                    SCALEDIT_BFLOAT16};
            for (std::int64_t head = 0; head < kHeads; ++head) {
                EXPECT_EQ(cudaMemcpy2D(static_cast<std::byte*>(view.data) + 2 * head * head_stride,
                                       static_cast<std::size_t>(2 * a), tensor.at(0, head, 0),
                                       static_cast<std::size_t>(2 * tensor.token_stride), 2 * kHeadDim,
                                       static_cast<std::size_t>(tokens), cudaMemcpyHostToDevice),
                          cudaSuccess);
            }
        };
        copy(call.inputs.query, arguments.query, 0);
        copy(call.inputs.key, arguments.key, 1);
        copy(call.inputs.value, arguments.value, 2);
        const Tensor poisoned = make_inputs(tokens, kHeads, kHeadDim, SCALEDIT_BFLOAT16, false).output;
        copy(poisoned, arguments.output, 3);
        EXPECT_EQ(scaledit_cuda_attention(&arguments), SCALEDIT_OK) << scaledit_last_error();
        for (std::int64_t head = 0; head < kHeads; ++head) {
            EXPECT_EQ(cudaMemcpy2D(poisoned.at(0, head, 0), static_cast<std::size_t>(2 * poisoned.token_stride),
                                   static_cast<std::byte*>(arguments.output.data) + 2 * head * head_stride,
                                   static_cast<std::size_t>(2 * a), 2 * kHeadDim, static_cast<std::size_t>(tokens),
                                   cudaMemcpyDeviceToHost),
                      cudaSuccess);
        }
        EXPECT_EQ(rows_alone(poisoned), expected.output) << "token stride " << a << ", head stride " << head_stride;
    }
}

// The second is one whose text is done in parts (cuda::split).
TEST_P(GpuAttention, GivesTheSameBitsEveryTime) {
    for (const auto& options : {grid(37, 29, 77, 4), grid(48, 40, 512, 4)}) {
        const Call call(options, 3, 128, true, 5, 2, GetParam().arithmetic, GetParam().kernels);
        const Result first = call.run();
        for (int i = 0; i < 5; ++i) {
            const Result again = call.run();
            EXPECT_EQ(first.output, again.output);
            EXPECT_EQ(first.log_sum_exp, again.log_sum_exp);
        }
    }
}

// Kernels of a call may begin before those before them have ended, but not before what the caller does to its inputs,
// nor while an earlier call needs the workspace.
TEST_P(GpuAttention, KeepsToTheOrderOfItsStream) {
    const Way& way = GetParam();
    const auto options = grid(48, 40, 512, 4);
    const Call one(options, 3, 128, true, 5, 2, way.arithmetic, way.kernels);
    Call other(options, 3, 128, true, 6, 2, way.arithmetic, way.kernels);
    const Result expected[] = {one.run(), other.run()};
    other.arguments.workspace = one.arguments.workspace;
    const Call* const calls[] = {&one, &other};
    const DeviceMemory queries[] = {DeviceMemory(*one.inputs.query.memory), DeviceMemory(*other.inputs.query.memory)};
    const DeviceMemory outputs[] = {DeviceMemory(*one.inputs.output.memory), DeviceMemory(*other.inputs.output.memory)};
    const auto poison = [](const DeviceCopy& tensor, const Tensor& like) {
        EXPECT_EQ(cudaMemsetAsync(tensor.memory.data(), static_cast<int>(kPoison), like.memory->size()), cudaSuccess);
    };
    for (int i = 0; i < 8; ++i) {
        const Call& call = *calls[i % 2];
        const std::size_t bytes = call.inputs.query.memory->size();
        poison(*call.query, call.inputs.query);
        poison(*call.output, call.inputs.output);
        EXPECT_EQ(cudaMemcpyAsync(call.query->memory.data(), queries[i % 2].data(), bytes, cudaMemcpyDeviceToDevice),
                  cudaSuccess);
        EXPECT_EQ(scaledit_cuda_attention(&call.arguments), SCALEDIT_OK) << scaledit_last_error();
        poison(*call.query, call.inputs.query);
        EXPECT_EQ(cudaMemcpyAsync(outputs[i % 2].data(), call.output->memory.data(), call.inputs.output.memory->size(),
                                  cudaMemcpyDeviceToDevice),
                  cudaSuccess);
        poison(*call.output, call.inputs.output);
    }
    for (int i = 0; i < 2; ++i) {
        *calls[i]->inputs.output.memory = outputs[i].read();
        EXPECT_EQ(rows_alone(calls[i]->inputs.output), expected[i].output) << "call " << i;
    }
}

TEST_P(GpuAttention, DoesTextInParts) {
    const auto options = grid(48, 40, 512, 4);
    Call call(options, 3, 128, true, 5, 2, GetParam().arithmetic, GetParam().kernels);
    const Result result = call.run();
    expect_close(result, reference(call.tiles, call.inputs, static_cast<double>(call.arguments.scale)),
                 "48x40 in parts", GetParam());
    call.arguments.log_sum_exp = nullptr;
    call.output->memory.write(*make_inputs(call.tiles.info.tokens, 3, 128, SCALEDIT_BFLOAT16, true).output.memory);
    EXPECT_EQ(call.run().output, result.output) << "without a log-sum-exp";
}

TEST_P(GpuAttention, IsCapturedByAGraph) {
    const Call call(grid(48, 40, 512, 4), 2, 128, false, 6, 2, GetParam().arithmetic, GetParam().kernels);
    const Result expected = call.run();
    EXPECT_EQ(cudaMemset(call.output->memory.data(), static_cast<int>(kPoison), call.inputs.output.memory->size()),
              cudaSuccess);
    run_by_graph([&](cudaStream_t stream) {
        scaledit_cuda_attention_arguments arguments = call.arguments;
        arguments.stream = stream;
        EXPECT_EQ(scaledit_cuda_attention(&arguments), SCALEDIT_OK) << scaledit_last_error();
    });
    const std::vector<std::byte> replayed = call.output->memory.read();
    EXPECT_EQ(replayed, *call.inputs.output.memory);
}

TEST_F(Gpu, RefusesToUploadIntoAGraph) {
    const GeometryHandle geometry = make_geometry(grid(7, 5, 3, 4));
    std::size_t bytes = 0;
    ASSERT_EQ(scaledit_cuda_geometry_bytes(geometry.get(), &bytes), SCALEDIT_OK);
    const DeviceMemory memory(bytes);
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    EXPECT_EQ(scaledit_cuda_geometry_upload(geometry.get(), memory.data(), bytes, stream), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(
        scaledit_last_error(),
        "stream is being captured, expected one that is not: a graph would copy from memory that is gone by then");
    EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess) << "and the capture goes on";
    std::size_t nodes = 1;
    EXPECT_EQ(cudaGraphGetNodes(graph, nullptr, &nodes), cudaSuccess);
    EXPECT_EQ(nodes, 0U);
    cudaGraphDestroy(graph);
    EXPECT_EQ(scaledit_cuda_geometry_upload(geometry.get(), memory.data(), bytes, stream), SCALEDIT_OK);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    cudaStreamDestroy(stream);
}

// Those that the GPU runs: beside a GPU no test is skipped. Without one all of them are named.
std::vector<Way> runnable(std::span<const Way> ways) {
    std::vector<Way> those;
    std::ranges::copy_if(ways, std::back_inserter(those),
                         [](const Way& way) { return !there_is_a_gpu() || runs(way.kernels); });
    return those;
}
std::string name_of(const testing::TestParamInfo<Way>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Bfloat16, GpuAttention, testing::ValuesIn(runnable(kBfloat16Ways)), name_of);
INSTANTIATE_TEST_SUITE_P(Int8, GpuAttention, testing::ValuesIn(runnable(kInt8Ways)), name_of);
INSTANTIATE_TEST_SUITE_P(All, GpuInt8Attention, testing::ValuesIn(runnable(kInt8Ways)), name_of);
INSTANTIATE_TEST_SUITE_P(Long, GpuSample, testing::ValuesIn(runnable(kInt8Ways)), name_of);

TEST_F(Gpu, RefusesKernelsThatItDoesNotRun) {
    for (const std::int32_t arithmetic : {SCALEDIT_ARITHMETIC_INT8, SCALEDIT_ARITHMETIC_BFLOAT16}) {
        for (const std::int32_t kernels :
             {SCALEDIT_CUDA_KERNELS_SM80, SCALEDIT_CUDA_KERNELS_SM89, SCALEDIT_CUDA_KERNELS_SM90}) {
            if (runs(kernels)) {
                continue;
            }
            const Call call(grid(7, 5, 3, 4), 2, 128, false, 7, 2, arithmetic, kernels);
            EXPECT_EQ(scaledit_cuda_attention(&call.arguments), SCALEDIT_UNSUPPORTED);
            const std::string sentence =
                "kernels is " + std::to_string(kernels) + ", which needs a GPU of compute capability ";
            EXPECT_NE(std::string(scaledit_last_error()).find(sentence), std::string::npos) << scaledit_last_error();
            EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
            EXPECT_EQ(call.output->memory.read(), *call.inputs.output.memory) << "nothing is launched";
        }
    }
}

TEST_F(Gpu, BestIsTheNewestFamilyThatRuns) {
    for (const std::int32_t arithmetic : {SCALEDIT_ARITHMETIC_INT8, SCALEDIT_ARITHMETIC_BFLOAT16}) {
        std::int32_t newest = SCALEDIT_CUDA_KERNELS_SM90;
        while (!runs(newest)) {
            --newest;
        }
        const auto result = [&](std::int32_t kernels) {
            return Call(grid(37, 29, 77, 4), 2, 128, false, 8, 2, arithmetic, kernels).run();
        };
        EXPECT_EQ(result(SCALEDIT_CUDA_KERNELS_BEST).output, result(newest).output);
    }
}

TEST_F(Gpu, RefusesWhatNoKernelMayTouch) {
    const Call call(grid(7, 5, 3, 4), 2, 128, false, 7, 2, SCALEDIT_ARITHMETIC_BFLOAT16, SCALEDIT_CUDA_KERNELS_BEST);
    const auto refused = [&](auto change, const std::string& sentence) {
        scaledit_cuda_attention_arguments arguments = call.arguments;
        change(arguments);
        EXPECT_EQ(scaledit_cuda_attention(&arguments), SCALEDIT_INVALID_ARGUMENT);
        EXPECT_NE(std::string(scaledit_last_error()).find(sentence), std::string::npos) << scaledit_last_error();
    };
    std::vector<std::byte> host(call.inputs.key.memory->size() + 16);
    refused(
        [&](auto& a) {
            a.key.data = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(host.data()) + 15) / 16 * 16);
        },
        "key.data is in the host's memory");
    refused([](auto& a) { a.query.data = static_cast<std::byte*>(a.query.data) + 2; }, "multiple of 16 bytes");
    refused([](auto& a) { a.value.dtype = SCALEDIT_FLOAT32; }, "value.dtype is 0");
    refused(
        [](auto& a) {  // behind the queries lie keys: they may reach there, where the output might not
            a.query.head_stride += 1;
            a.query.token_stride += 2;
        },
        "multiple of 8 elements");
    refused([](auto& a) { a.output = a.query; }, "output.data overlaps query.data");
    refused([](auto& a) { a.device_geometry = nullptr; }, "device_geometry is null");
    refused([](auto& a) { a.head_dim = 96; }, "head_dim is 96");
    refused([](auto& a) { a.arithmetic = SCALEDIT_ARITHMETIC_FLOAT32; }, "arithmetic is 0");
    refused([](auto& a) { a.arithmetic = SCALEDIT_ARITHMETIC_INT8; }, "workspace_bytes is 0, expected at least");
    refused([](auto& a) { a.kernels = 4; }, "kernels is 4, expected 0 (best), 1 (SM80), 2 (SM89) or 3 (SM90)");
    refused([&](auto& a) { a.key_norm = a.query.data; }, "key_norm is given, expected null");
}

}  // namespace
}  // namespace scaledit

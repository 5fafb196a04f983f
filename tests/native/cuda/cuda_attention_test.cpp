// Attention on a GPU against float64, over the grids of the CPU's tests.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "attention_reference.h"

namespace scaledit {
namespace {

// Memory of the GPU, filled with what a forgotten store would leave.
class DeviceMemory {
public:
    explicit DeviceMemory(std::size_t bytes) : bytes_(bytes) {
        EXPECT_EQ(cudaMalloc(&memory_, bytes), cudaSuccess);
        EXPECT_EQ(cudaMemset(memory_, static_cast<int>(kPoison), bytes), cudaSuccess);
    }
    explicit DeviceMemory(const std::vector<std::byte>& host) : DeviceMemory(host.size()) {
        EXPECT_EQ(cudaMemcpy(memory_, host.data(), host.size(), cudaMemcpyHostToDevice), cudaSuccess);
    }
    ~DeviceMemory() { cudaFree(memory_); }
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;

    [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(memory_); }
    [[nodiscard]] std::vector<std::byte> read() const {
        std::vector<std::byte> host(bytes_);
        EXPECT_EQ(cudaMemcpy(host.data(), memory_, bytes_, cudaMemcpyDeviceToHost), cudaSuccess);
        return host;
    }

private:
    void* memory_ = nullptr;
    std::size_t bytes_;
};

// A tensor's memory on the GPU, and its view there.
struct DeviceCopy {
    explicit DeviceCopy(const Tensor& tensor) : host(tensor), memory(*tensor.memory) {}
    [[nodiscard]] scaledit_tensor view() const {
        scaledit_tensor tensor = host.view();
        tensor.data = memory.data() + (host.at(0, 0, 0) - host.memory->data());
        return tensor;
    }
    Tensor host;
    DeviceMemory memory;
};

bool there_is_a_gpu() {
    int devices = 0;
    return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

TEST(GpuSupport, IsToldApart) {
    if (there_is_a_gpu()) {
        EXPECT_EQ(scaledit_cuda_supported(0), SCALEDIT_OK) << scaledit_last_error();
    } else {
        EXPECT_EQ(scaledit_cuda_supported(0), SCALEDIT_UNSUPPORTED);
        EXPECT_NE(std::string(scaledit_last_error()).find("CUDA finds no GPU"), std::string::npos);
    }
}

// Without a GPU there is nothing to run on; with one nothing is passed over, whatever the library says of it.
class GpuAttention : public testing::Test {
protected:
    void SetUp() override {
        if (!there_is_a_gpu()) {
            GTEST_SKIP() << "no GPU";
        }
    }
};

struct Call {
    Call(const scaledit_geometry_options& options, std::int64_t heads, std::int64_t head_dim, bool fused,
         std::uint32_t seed, float key_bias)
        : geometry(make_geometry(options)),
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
        arguments = {geometry.get(),
                     device_geometry->data(),
                     static_cast<std::int32_t>(heads),
                     static_cast<std::int32_t>(head_dim),
                     1.0F / std::sqrt(static_cast<float>(head_dim)),
                     query->view(),
                     key->view(),
                     value->view(),
                     output->view(),
                     reinterpret_cast<float*>(log_sum_exp->data()),
                     nullptr};
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
    std::unique_ptr<DeviceMemory> device_geometry, log_sum_exp;
    scaledit_cuda_attention_arguments arguments{};
};

TEST_F(GpuAttention, AgreesWithFloat64) {
    const struct {
        const char* name;
        scaledit_geometry_options options;
        std::int64_t heads;
        std::int64_t head_dim;
        bool fused;
        float key_bias;
    } cases[] = {{"one token", grid(1, 1, 0, 0), 2, 128, false, 2},
                 {"one of each", grid(1, 1, 1, 1), 3, 64, false, 2},
                 {"7x5", grid(7, 5, 77, 4), 3, 128, false, 2},
                 {"37x29 fused", grid(37, 29, 77, 4), 2, 128, true, 2},
                 {"37x29 fused, 64", grid(37, 29, 77, 4), 2, 64, true, 2},
                 {"20x19 ratio 1", grid(20, 19, 1, 1), 2, 64, false, 2},
                 {"36x20 ratio 2 local", grid(36, 20, 0, 2, 16, SCALEDIT_GUIDANCE_LOCAL), 1, 128, false, 2},
                 {"33x17 ratio 8", grid(33, 17, 77, 8), 2, 64, true, 2},
                 {"23x31 no guidance", grid(23, 31, 13, 0), 1, 128, false, 2},
                 {"40x24 text 512", grid(40, 24, 512, 4), 1, 64, false, 2},
                 {"45x41 window 32", grid(45, 41, 65, 4, 32), 1, 64, false, 2},
                 {"32x32 large key bias", grid(32, 32, 64, 4), 1, 128, false, 50}};
    std::uint32_t seed = 21;
    for (const auto& c : cases) {
        const Call call(c.options, c.heads, c.head_dim, c.fused, ++seed, c.key_bias);
        const Result expected = reference(call.tiles, call.inputs, static_cast<double>(call.arguments.scale));
        const Result result = call.run();
        const Difference off = compare(result.output, expected.output);
        const Difference off_log = compare(result.log_sum_exp, expected.log_sum_exp);
        EXPECT_TRUE(all_finite(result.output)) << c.name;
        EXPECT_LE(off.l2, 4e-3) << c.name;
        EXPECT_LE(off_log.largest, c.key_bias > 10 ? 1e-3 : 1e-4) << c.name;
        std::printf("%-22s relative L2 %.1e, log-sum-exp %.1e\n", c.name, off.l2, off_log.largest);
    }
}

TEST_F(GpuAttention, GivesTheSameBitsEveryTime) {
    const Call call(grid(37, 29, 77, 4), 3, 128, true, 5, 2);
    const Result first = call.run();
    for (int i = 0; i < 5; ++i) {
        const Result again = call.run();
        EXPECT_EQ(first.output, again.output);
        EXPECT_EQ(first.log_sum_exp, again.log_sum_exp);
    }
}

TEST_F(GpuAttention, IsCapturedByAGraph) {
    const Call call(grid(37, 29, 77, 4), 2, 128, false, 6, 2);
    const Result expected = call.run();
    EXPECT_EQ(cudaMemset(call.output->memory.data(), static_cast<int>(kPoison), call.inputs.output.memory->size()),
              cudaSuccess);
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
    scaledit_cuda_attention_arguments arguments = call.arguments;
    arguments.stream = stream;
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    EXPECT_EQ(scaledit_cuda_attention(&arguments), SCALEDIT_OK) << scaledit_last_error();
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
    EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    const std::vector<std::byte> replayed = call.output->memory.read();
    EXPECT_EQ(replayed, *call.inputs.output.memory);
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
}

TEST_F(GpuAttention, RefusesWhatNoKernelMayTouch) {
    const Call call(grid(7, 5, 3, 4), 2, 128, false, 7, 2);
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
        [](auto& a) {
            a.output.head_stride += 1;
            a.output.token_stride += 2;
        },
        "multiple of 8 elements");
    refused([](auto& a) { a.output.data = a.query.data; }, "output.data overlaps");
    refused([](auto& a) { a.device_geometry = nullptr; }, "device_geometry is null");
    refused([](auto& a) { a.head_dim = 96; }, "head_dim is 96");
}

}  // namespace
}  // namespace scaledit

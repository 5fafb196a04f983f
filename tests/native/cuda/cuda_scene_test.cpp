// Scenes on a GPU have the CPU's bits.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "gpu.h"
#include "scaledit/scaledit.h"
#include "scene_pictures.h"

namespace scaledit {
namespace {

using CudaScene = Gpu;

template <typename Value>
std::vector<std::byte> bytes_of(const std::vector<Value>& values) {
    const auto* first = reinterpret_cast<const std::byte*>(values.data());
    return {first, first + values.size() * sizeof(Value)};
}

// A scene's copy on the GPU, where it paints itself.
template <typename Value>
struct OnGpu {
    explicit OnGpu(const TestScene& test)
        : sprite(bytes_of(test.sprite)),
          blurred(bytes_of(test.blurred)),
          workspace_bytes(test.workspace_bytes()),
          workspace(workspace_bytes + 64),
          output(test.values() * sizeof(Value)),
          items(test.items) {
        for (auto& item : items) {
            item.sprite.argb = reinterpret_cast<const std::uint32_t*>(sprite.data());
            item.shadow.argb = reinterpret_cast<const std::uint32_t*>(blurred.data());
        }
        arguments = {test.scene,      sizeof(Value) == 1 ? SCALEDIT_PIXELS_UINT8 : SCALEDIT_PIXELS_FLOAT32,
                     output.data(),   workspace.data(),
                     workspace_bytes, nullptr};
        arguments.scene.item = items.data();
    }

    void paint() const { ASSERT_EQ(scaledit_cuda_scene_paint(&arguments), SCALEDIT_OK) << scaledit_last_error(); }

    DeviceMemory sprite;
    DeviceMemory blurred;
    std::size_t workspace_bytes;
    DeviceMemory workspace;
    DeviceMemory output;
    std::vector<scaledit_scene_item> items;
    scaledit_cuda_scene_arguments arguments{};
};

TEST_F(CudaScene, IsTheCpusBitForBit) {
    for (std::int32_t background = 0; background < kBackgrounds; ++background) {
        for (const int size : {64, 201, 1024}) {
            TestScene test(background, size);
            test.add_four(background);
            const OnGpu<std::uint8_t> bytes(test);
            bytes.paint();
            EXPECT_EQ(bytes.output.read(), bytes_of(test.painted<std::uint8_t>())) << background << ", " << size;
            const OnGpu<float> floats(test);
            floats.paint();
            EXPECT_EQ(floats.output.read(), bytes_of(test.painted<float>())) << background << ", " << size;
        }
        TestScene test(background, 8192);
        test.add_four(background + 1);
        test.crop({3900, 200, 4000, 333});
        const OnGpu<std::uint8_t> part(test);
        part.paint();
        EXPECT_EQ(part.output.read(), bytes_of(test.painted<std::uint8_t>())) << background;
    }
}

TEST_F(CudaScene, MemoryOfTheHostIsRefused) {
    TestScene test(SCALEDIT_MEADOW, 64);
    test.add(SCALEDIT_FELT, 0.5, 0.5, 0.5);
    OnGpu<std::uint8_t> scene(test);
    scene.items[0].sprite.argb = test.sprite.data();
    EXPECT_EQ(scaledit_cuda_scene_paint(&scene.arguments), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "scene.item[0].sprite.argb is in the host's memory, expected a GPU's");
}

// Prints what it takes; java/NOTES.md has what is expected.
TEST_F(CudaScene, TimesOfEachBackground) {
    for (std::int32_t background = 0; background < kBackgrounds; ++background) {
        for (const int size : {128, 256, 1024}) {
            TestScene test(background, size);
            test.add_four(background);
            const OnGpu<float> scene(test);
            scene.paint();
            ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
            constexpr int pictures = 200;
            const auto start = std::chrono::steady_clock::now();
            for (int i = 0; i < pictures; ++i) {
                scene.paint();
            }
            ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
            const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
            std::printf("background %d, %d^2: %.0f pictures a second, %.3f ns a pixel\n", background, size,
                        pictures / taken.count(), taken.count() / pictures / size / size * 1e9);
            EXPECT_LT(taken.count() / pictures, 0.01);
        }
    }
}

}  // namespace
}  // namespace scaledit

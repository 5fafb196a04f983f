// Scenes for tests: all kinds of backgrounds and items, with sprites of their own.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "scaledit/scaledit.h"

namespace scaledit {

constexpr std::int32_t kBackgrounds = 8;
constexpr std::int32_t kMaterials = 6;
constexpr std::int32_t kSpriteSide = 256;
constexpr std::int32_t kShadowSide = 128;

// A ring of two colours, premultiplied, with a soft rim, and a hole beside its middle.
inline std::vector<std::uint32_t> ring(std::int32_t side) {
    std::vector<std::uint32_t> argb(static_cast<std::size_t>(side) * side);
    for (std::int32_t row = 0; row < side; ++row) {
        for (std::int32_t column = 0; column < side; ++column) {
            const double x = (column + 0.5) / side - 0.5;
            const double y = (row + 0.5) / side - 0.5;
            const double outer = std::clamp((0.45 - std::hypot(x, y)) * 40, 0.0, 1.0);
            const double inner = std::clamp((std::hypot(x - 0.1, y) - 0.15) * 40, 0.0, 1.0);
            const double alpha = outer * inner;
            const bool left = x < 0.02;
            const auto channel = [&](double value) { return static_cast<std::uint32_t>(alpha * value + 0.5); };
            argb[static_cast<std::size_t>(row) * side + column] =
                channel(255) << 24U | channel(left ? 210 : 40) << 16U | channel(120 + 90 * y) << 8U |
                channel(left ? 30 : 200);
        }
    }
    return argb;
}

// A scene that paints itself on the CPU, into memory of its own.
struct TestScene {
    explicit TestScene(std::int32_t background, std::int32_t size) {
        scene.size = size;
        scene.part = {0, size, 0, size};
        scene.background = background;
        scene.seed = 1234567 * (background + 1);
        const bool counts = background == SCALEDIT_WOODEN_TABLE || background == SCALEDIT_BRICK_WALL;
        scene.drawn[0] = counts ? 6 : background == SCALEDIT_PLAIN ? 0.9 : 0.55;
        scene.drawn[1] = 0.7;
        scene.drawn[2] = 0.8;
    }

    // Turned a little; every second one is mirrored, every third has another colour.
    scaledit_scene_item& add(std::int32_t material, double x, double y, double canvas) {
        const auto number = static_cast<std::int32_t>(items.size());
        scaledit_scene_item item{};
        item.x = x;
        item.y = y;
        item.canvas = canvas;
        item.cosine = std::cos(0.3 * number - 0.2);
        item.sine = std::sin(0.3 * number - 0.2);
        item.mirrored = number % 2;
        item.material = material;
        item.seed = 99 + number;
        item.recoloured = number % 3 == 2 ? 1 : 0;
        item.own_hue = 30;
        item.hue = 216;
        item.saturation = 0.9;
        item.value = 1.05;
        item.seen = scene.part;
        item.sprite = {sprite.data(), kSpriteSide, {0, kSpriteSide, 0, kSpriteSide}};
        item.shaded = scene.part;
        item.shadow_x = x + 0.010;
        item.shadow_y = y + 0.016;
        item.shadow_darkness = 0.38;
        item.shadow_deviation = 0.012;
        item.shadow = {blurred.data(), kShadowSide, {0, kShadowSide, 0, kShadowSide}};
        items.push_back(item);
        scene.items = static_cast<std::int32_t>(items.size());
        scene.item = items.data();
        return items.back();
    }

    // The same with everything that there is: four materials in one picture.
    void add_four(std::int32_t first) {
        for (std::int32_t i = 0; i < 4; ++i) {
            add((first + i) % kMaterials, 0.3 + 0.4 * (i % 2), 0.28 + 0.2 * i, 0.25 + 0.15 * i);
        }
    }

    void crop(const scaledit_rectangle& part) {
        scene.part = part;
        for (auto& item : items) {
            item.seen = part;
            item.shaded = part;
        }
    }

    [[nodiscard]] std::size_t values() const { return std::size_t{3} * scene.part.rows * scene.part.columns; }

    [[nodiscard]] std::size_t workspace_bytes() const {
        std::size_t bytes = 0;
        EXPECT_EQ(scaledit_scene_workspace(&scene, &bytes), SCALEDIT_OK) << scaledit_last_error();
        return bytes;
    }

    template <typename Value>
    [[nodiscard]] std::vector<Value> painted(std::int32_t instruction_set = SCALEDIT_INSTRUCTION_SET_BEST) const {
        std::vector<Value> output(values());
        const std::size_t bytes = workspace_bytes();
        const std::unique_ptr<void, void (*)(void*)> room(std::aligned_alloc(64, (bytes / 64 + 1) * 64), std::free);
        const scaledit_scene_arguments arguments{
            scene,           sizeof(Value) == 1 ? SCALEDIT_PIXELS_UINT8 : SCALEDIT_PIXELS_FLOAT32,
            instruction_set, output.data(),
            room.get(),      bytes};
        EXPECT_EQ(scaledit_scene_paint(&arguments), SCALEDIT_OK) << scaledit_last_error();
        return output;
    }

    std::vector<std::uint32_t> sprite = ring(kSpriteSide);
    std::vector<std::uint32_t> blurred = ring(kShadowSide);
    std::vector<scaledit_scene_item> items;
    scaledit_scene scene{};
};

}  // namespace scaledit

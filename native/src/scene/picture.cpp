#include "scene/picture.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace scaledit::scene {
namespace {

// Cells along a scene: two pixels each in the largest picture.
constexpr double kHighestFrequency = 4096;

// Pixels along a cell below which an octave is left at its mean.
constexpr double kFewestPixels = 0.5;

// What is left of a cell's contrast in the mean over a pixel, to 0.5 %: 1 / (1 + 0.137 / pixels^2). So a picture has,
// at the middles of its pixels, what shrinking a larger one would give: from one pixel a cell on the two correlate to
// 0.987.
constexpr double kLost = 0.137;

// Standard deviations that a dot or a shadow reaches.
constexpr double kDeviations = 3;

constexpr int kAnyOctaves = std::numeric_limits<int>::max();

double left_of_contrast(double frequency, int size) {
    const double pixels = size / frequency;
    return 1 / (1 + kLost / (pixels * pixels));
}

// What is left of a wave in the mean over a pixel: 0 ... 1; nothing from two pixels a wave on.
double visible(double waves_in_pixel) {
    const double half = std::numbers::pi * waves_in_pixel;
    if (half < 1e-3) {
        return 1;
    }
    return half > std::numbers::pi / 2 ? 0 : std::sin(half) / half;
}

// What a scene's textures are made from.
struct Maker {
    std::uint32_t seed;
    int size;

    // Octaves: at most so many. Gain: of an octave over the one before.
    [[nodiscard]] Noise noise(int part, double columns, double rows, double gain, int octaves = kAnyOctaves) const {
        Noise noise{};
        noise.seed = seed + static_cast<std::uint32_t>(part);
        noise.columns = columns;
        noise.rows = rows;
        const double frequency = std::max(columns, rows);
        int all = 1;
        while (all < std::min(octaves, kMostOctaves) && std::ldexp(frequency, all) <= kHighestFrequency) {
            ++all;
        }
        const double sum = (1 - std::pow(gain, all)) / (1 - gain);
        double shown = 0;
        while (noise.octaves < all && size >= kFewestPixels * std::ldexp(frequency, noise.octaves)) {
            const int octave = noise.octaves++;
            const double weight = std::pow(gain, octave) / sum * left_of_contrast(std::ldexp(columns, octave), size) *
                                  left_of_contrast(std::ldexp(rows, octave), size);
            noise.weights[octave] = static_cast<float>(weight);
            shown += weight;
        }
        noise.rest = static_cast<float>((1 - shown) / 2);
        return noise;
    }

    // A line that wanders about a height.
    [[nodiscard]] Noise line(int part, double columns) const { return noise(part, columns, columns, 0.5); }

    [[nodiscard]] Dots dots(int part, int cells, double least, double radius, double light) const {
        Dots dots{};
        dots.seed = seed + static_cast<std::uint32_t>(part);
        dots.cells = cells;
        dots.least = least;
        dots.light = static_cast<float>(light);
        dots.radius = radius;
        dots.blur = 0.4 / size;
        dots.reach = kDeviations * std::sqrt(radius * radius + dots.blur * dots.blur);
        return dots;
    }
};

Backdrop backdrop(const scaledit_scene& scene) {
    Backdrop backdrop{};
    backdrop.background = scene.background;
    backdrop.seed = static_cast<std::uint32_t>(scene.seed);
    const Maker of{backdrop.seed, scene.size};
    const double* drawn = scene.drawn;
    switch (scene.background) {
        case SCALEDIT_MEADOW:
            backdrop.meadow = {drawn[0], of.line(50, 2), of.noise(0, 3, 6, 0.5), of.noise(20, 30, 7, 0.8),
                               of.noise(40, 8, 16, 0.6)};
            break;
        case SCALEDIT_NIGHT_SKY:
            backdrop.night_sky = {of.noise(0, 2, 2, 0.55), of.dots(30, 120, 0.9, 0.0007, 220),
                                  of.dots(60, 40, 0.9, 0.0016, 255)};
            break;
        case SCALEDIT_WOODEN_TABLE:
            backdrop.wooden_table = {drawn[0], of.noise(0, 2, 14, 0.5, 3), of.noise(20, 5, 90, 0.65),
                                     of.noise(40, 20, 220, 0.8)};
            break;
        case SCALEDIT_BRICK_WALL:
            backdrop.brick_wall = {drawn[0], of.noise(0, 20, 20, 0.75), of.noise(20, 90, 90, 0.9)};
            break;
        case SCALEDIT_SANDY_BEACH:
            backdrop.sandy_beach = {drawn[0],
                                    drawn[1],
                                    of.line(80, 3),
                                    of.noise(0, 8, 60, 0.7),
                                    of.noise(20, 5, 12, 0.6),
                                    of.noise(40, 80, 80, 0.92),
                                    of.noise(60, 40, 40, 0.8)};
            break;
        case SCALEDIT_SNOWY_FIELD:
            backdrop.snowy_field = {drawn[0], of.line(50, 2), of.noise(0, 3, 9, 0.6), of.noise(20, 100, 100, 0.92),
                                    of.dots(60, 40, 0.82, 0.0035, 1)};
            break;
        case SCALEDIT_SUNSET_SEA:
            backdrop.sunset_sea = {drawn[0], drawn[1], of.noise(0, 2, 12, 0.5), of.noise(20, 10, 90, 0.75)};
            break;
        default:
            backdrop.plain = {
                {static_cast<float>(drawn[0]), static_cast<float>(drawn[1]), static_cast<float>(drawn[2])},
                of.noise(0, 40, 40, 0.9)};
            break;
    }
    return backdrop;
}

Material material(const scaledit_scene_item& item, int size) {
    const Maker of{static_cast<std::uint32_t>(item.seed), size};
    Material material{};
    material.material = item.material;
    auto* noise = material.noise;
    switch (item.material) {
        case SCALEDIT_FELT:
            for (int direction = 0; direction < 3; ++direction) {
                noise[direction] = of.noise(100 * direction, 10, 60, 0.85);
                material.cosine[direction] = std::cos(0.4 + direction * std::numbers::pi / 3);
                material.sine[direction] = std::sin(0.4 + direction * std::numbers::pi / 3);
            }
            noise[3] = of.noise(300, 14, 14, 0.6, 4);
            break;
        case SCALEDIT_KNITTED:
            material.contrast = static_cast<float>(visible(64.0 / size));
            noise[0] = of.noise(0, 60, 60, 0.85);
            noise[1] = of.noise(50, 10, 10, 0.6, 4);
            break;
        case SCALEDIT_WOODEN:
            material.contrast = static_cast<float>(visible(40.0 / size));
            noise[0] = of.noise(0, 1.5, 4, 0.5, 3);
            noise[1] = of.noise(10, 100, 6, 0.8);
            noise[2] = of.noise(30, 300, 14, 0.8);
            break;
        case SCALEDIT_STONE:
            noise[0] = of.noise(0, 9, 9, 0.6);
            noise[1] = of.noise(20, 50, 50, 0.9);
            break;
        case SCALEDIT_CLAY:
            material.contrast = static_cast<float>(visible(110.0 / size));
            noise[0] = of.noise(0, 9, 9, 0.5, 3);
            noise[1] = of.noise(10, 5, 5, 0.5, 2);
            noise[2] = of.noise(20, 60, 60, 0.9);
            break;
        default:
            break;
    }
    return material;
}

// The shadow of an item; its maps are laid out from `room` on, in floats. Without a part it has none.
Shadow shadow(const scaledit_scene_item& item, float* workspace, std::size_t& room) {
    Shadow shadow{};
    if (is_empty(item.shaded)) {
        return shadow;
    }
    const double deviation = item.shadow_deviation / item.canvas * kShadowCanvas;
    shadow.part = item.shaded;
    shadow.x = item.shadow_x;
    shadow.y = item.shadow_y;
    shadow.darkness = static_cast<float>(item.shadow_darkness);
    shadow.reach = static_cast<std::int32_t>(std::min<double>(kShadowReach, std::ceil(kDeviations * deviation)));
    shadow.side = kShadowCanvas + 2 * (shadow.reach + 1);
    shadow.stride = (shadow.side + kShadowLanes - 1) / kShadowLanes * kShadowLanes;
    shadow.argb = item.shadow.argb;
    double weights[kShadowReach + 1];
    double sum = 0;
    for (int i = 0; i <= shadow.reach; ++i) {
        weights[i] = std::exp(-i * i / (2 * deviation * deviation));
        sum += i == 0 ? weights[i] : 2 * weights[i];
    }
    for (int i = 0; i <= shadow.reach; ++i) {
        shadow.kernel[i] = static_cast<float>(weights[i] / sum);
    }
    const std::size_t down = room;
    const std::size_t map = down + static_cast<std::size_t>(kShadowCanvas * shadow.stride);
    room = map + static_cast<std::size_t>(shadow.side * shadow.stride);
    if (workspace != nullptr) {
        shadow.down = workspace + down;
        shadow.map = workspace + map;
    }
    return shadow;
}

Item prepared(const scaledit_scene_item& item, int size, float* workspace, std::size_t& room) {
    Item to{};
    to.x = item.x;
    to.y = item.y;
    to.across[0] = item.mirrored ? -item.cosine : item.cosine;
    to.across[1] = item.mirrored ? -item.sine : item.sine;
    to.down[0] = -item.sine;
    to.down[1] = item.cosine;
    to.canvas = item.canvas;
    to.part = is_empty(item.seen) ? scaledit_rectangle{} : item.seen;
    to.sprite = {item.sprite.argb, item.sprite.side, item.sprite.part};
    to.recoloured = item.recoloured;
    to.own_hue = static_cast<float>(item.own_hue);
    to.hue = static_cast<float>(item.hue);
    to.saturation = static_cast<float>(item.saturation);
    to.value = static_cast<float>(item.value);
    to.material = material(item, size);
    to.shadow = shadow(item, workspace, room);
    return to;
}

}  // namespace

std::size_t workspace_bytes(const scaledit_scene& scene) {
    std::size_t room = 0;
    for (int i = 0; i < scene.items; ++i) {
        shadow(scene.item[i], nullptr, room);
    }
    return room * sizeof(float);
}

Picture picture(const scaledit_scene& scene, std::int32_t pixels, void* output, void* workspace) {
    Picture picture{};
    picture.size = scene.size;
    picture.part = scene.part;
    picture.backdrop = backdrop(scene);
    picture.items = scene.items;
    std::size_t room = 0;
    for (int i = 0; i < scene.items; ++i) {
        picture.item[i] = prepared(scene.item[i], scene.size, static_cast<float*>(workspace), room);
    }
    picture.pixels = pixels;
    picture.output = output;
    return picture;
}

}  // namespace scaledit::scene

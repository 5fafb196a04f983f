// Scenes against what they are defined to be, in double precision, and against themselves.
#include <gtest/gtest.h>
#include <math.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include "scene/picture.h"
#include "scene_pictures.h"

namespace scaledit {
namespace scene {
namespace {

// As a GPU's thread does it: a pixel at a time.
#define SCALEDIT_SCENE inline
#include "scene/painter.inl"

void paint_one_by_one(const Picture& picture) {
    for (int i = 0; i < picture.items; ++i) {
        const Shadow& shadow = picture.item[i].shadow;
        for (int row = 0; row < shadow.side; ++row) {
            for (int column = 0; column < kShadowCanvas; ++column) {
                blur_down<1>(shadow, row, column);
            }
        }
        for (int row = 0; row < shadow.side; ++row) {
            for (int column = 0; column < shadow.side; ++column) {
                blur_across<1>(shadow, row, column);
            }
        }
    }
    const scaledit_rectangle& part = picture.part;
    for (int row = part.first_row; row < part.first_row + part.rows; ++row) {
        for (int column = part.first_column; column < part.first_column + part.columns; ++column) {
            Lanes<float, 1> rgb[3];
            paint<1>(picture, row, column, rgb);
            store<1>(picture, row, column, 1, rgb);
        }
    }
}

}  // namespace

void one_by_one(const Picture& picture) { paint_one_by_one(picture); }

}  // namespace scene

namespace {

using Bytes = std::vector<std::uint8_t>;

// ---- The definition

double hashed(std::int64_t column, std::int64_t row, std::int64_t seed) {
    const auto wrap = [](std::int64_t value) { return static_cast<std::uint32_t>(value); };
    std::uint32_t n = wrap(column) * 374761393U + wrap(row) * 668265263U + wrap(seed) * 2246822519U;
    n ^= n >> 13U;
    n *= 1274126177U;
    n ^= n >> 15U;
    n *= 2654435761U;
    n ^= n >> 16U;
    return (n >> 8U) / 16777216.0;
}

double eased(double t) { return t * t * (3 - 2 * t); }

double smoothed(double t) { return eased(std::clamp(t, 0.0, 1.0)); }

double mixed(double from, double to, double amount) { return from + (to - from) * std::clamp(amount, 0.0, 1.0); }

// A sum over octaves, from one with so many cells to one with 4,096: those that a pixel cannot show stand at 1/2.
double noise(int seed, double columns, double rows, double gain, int size, double x, double y) {
    double sum = 0;
    double all = 0;
    for (int octave = 0; std::max(columns, rows) <= 4096; ++octave, columns *= 2, rows *= 2) {
        const double weight = std::pow(gain, octave);
        all += weight;
        const auto contrast = [&](double cells) { return 1 / (1 + 0.137 * cells * cells / size / size); };
        const double left = contrast(columns) * contrast(rows);
        double value = 0.5;
        if (std::max(columns, rows) <= 2.0 * size) {
            const double ix = std::floor(x * columns);
            const double iy = std::floor(y * rows);
            const auto at = [&](int right, int down) {
                return hashed(std::int64_t(ix) + right, std::int64_t(iy) + down, std::int64_t{seed} + octave);
            };
            const double u = eased(x * columns - ix);
            const double v = eased(y * rows - iy);
            value = (1 - v) * ((1 - u) * at(0, 0) + u * at(1, 0)) + v * ((1 - u) * at(0, 1) + u * at(1, 1));
            value = 0.5 + left * (value - 0.5);
        }
        sum += weight * value;
    }
    return sum / all;
}

using Reference = std::function<std::array<double, 3>(double x, double y)>;

// No channel is farther than a level from what is expected, and few of them are on another side of a half.
void expect_like(const Bytes& painted, int size, const Reference& reference) {
    int others = 0;
    for (int row = 0; row < size; ++row) {
        for (int column = 0; column < size; ++column) {
            const auto expected = reference((column + 0.5) / size, (row + 0.5) / size);
            for (int channel = 0; channel < 3; ++channel) {
                const int value = painted[(static_cast<std::size_t>(row) * size + column) * 3 + channel];
                const double wanted = std::clamp(expected[channel], 0.0, 255.0);
                ASSERT_NEAR(value, wanted, 0.505) << row << ", " << column << ", " << channel;
                others += value != static_cast<int>(wanted + 0.5);
            }
        }
    }
    EXPECT_LE(others, size * size * 3 / 1000);
}

std::array<double, 3> plain_paper(const TestScene& test, double x, double y) {
    const int size = test.scene.size;
    const double fibre = noise(test.scene.seed, 40, 40, 0.9, size, x, y - 0.5);
    const double light = 1.04 - 0.32 * ((x - 0.5) * (x - 0.5) + (y - 0.5) * (y - 0.5)) + 0.22 * (fibre - 0.5);
    std::array<double, 3> rgb{};
    for (int channel = 0; channel < 3; ++channel) {
        rgb[channel] = std::clamp(255 * test.scene.drawn[channel] * light, 0.0, 255.0);
    }
    return rgb;
}

TEST(Scene, PaperIsWhatItsNoiseSays) {
    for (const int size : {64, 300, 1024}) {
        const TestScene test(SCALEDIT_PLAIN, size);
        expect_like(test.painted<std::uint8_t>(), size, [&](double x, double y) { return plain_paper(test, x, y); });
    }
}

TEST(Scene, ASunsetIsWhatItsNoiseSays) {
    constexpr int size = 300;
    const TestScene test(SCALEDIT_SUNSET_SEA, size);
    const double horizon = test.scene.drawn[0];
    expect_like(test.painted<std::uint8_t>(), size, [&](double x, double y) {
        const double cloud = noise(test.scene.seed, 2, 12, 0.5, size, x, y);
        const double wave = noise(test.scene.seed + 20, 10, 90, 0.75, size, x, y);
        const double away = (x - test.scene.drawn[1]) / 0.22;
        const double high = std::pow(std::clamp(y / horizon, 0.0, 1.0), 0.9);
        const double pink = 0.6 * smoothed((cloud - 0.48) / 0.2);
        const double light = 0.3 + 2 * (wave - 0.5) + 0.3 * std::exp(-away * away);
        const double on_sea = smoothed(0.5 + (y - horizon) / (2 * 0.6 / size));
        const std::array<std::array<double, 5>, 3> colours = {
            {{58, 255, 255, 34, 250}, {40, 152, 118, 26, 152}, {110, 78, 122, 74, 96}}};
        std::array<double, 3> rgb{};
        for (int channel = 0; channel < 3; ++channel) {
            const auto& [top, low, clouds, dark, bright] = colours[channel];
            const double sky = mixed(mixed(top, low, high), clouds, pink);
            rgb[channel] = mixed(sky, mixed(dark, bright, light), on_sea);
        }
        return rgb;
    });
}

// Every star of the sky is asked of every pixel, which sees three of its deviations far along the row.
TEST(Scene, ANightSkyHasItsStars) {
    constexpr int size = 128;
    const TestScene test(SCALEDIT_NIGHT_SKY, size);
    struct Star {
        double x, y, square, light;
        int row;
        double cells, far;
    };
    std::vector<Star> stars;
    const auto add = [&](int part, int cells, double radius, double light) {
        const double blur = 0.4 / size;
        for (int row = -20; row < cells + 20; ++row) {
            for (int column = 0; column < cells; ++column) {
                const int seed = test.scene.seed + part;
                const double hash = hashed(column, row, seed);
                if (hash >= 0.9) {
                    const double own = radius * (0.35 + 6.5 * (hash - 0.9));
                    const double square = own * own + blur * blur;
                    stars.push_back({(column + hashed(column, row, seed + 2)) / cells,
                                     (row + hashed(column, row, seed + 1)) / cells, square, light * own * own / square,
                                     row, double(cells), 3 * std::hypot(radius, blur)});
                }
            }
        }
    };
    add(30, 120, 0.0007, 220);
    add(60, 40, 0.0016, 255);
    expect_like(test.painted<std::uint8_t>(), size, [&](double x, double y) {
        double light = 0;
        for (const Star& star : stars) {
            const double reach = 3 * std::sqrt(star.square);
            const double pixel = std::floor(x * size);
            if (pixel >= std::floor((star.x - reach) * size) && pixel <= std::floor((star.x + reach) * size) &&
                star.row >= std::floor((y - star.far) * star.cells) &&
                star.row <= std::floor((y + star.far) * star.cells)) {
                const double right = x - star.x;
                const double down = y - star.y;
                light += star.light * std::exp(-(right * right + down * down) / (2 * star.square));
            }
        }
        const double haze = noise(test.scene.seed, 2, 2, 0.55, size, x, y);
        const double sky = y * 0.9 + 1.6 * (haze - 0.5);
        return std::array<double, 3>{mixed(7, 54, sky) + light, mixed(9, 40, sky) + light, mixed(38, 112, sky) + light};
    });
}

// Bilinear, of a premultiplied sprite.
double sprite_at(const std::vector<std::uint32_t>& argb, int side, double column, double row, unsigned shift) {
    double sum = 0;
    for (int y = int(std::floor(row - 0.5)); y <= int(std::floor(row - 0.5)) + 1; ++y) {
        for (int x = int(std::floor(column - 0.5)); x <= int(std::floor(column - 0.5)) + 1; ++x) {
            if (x >= 0 && y >= 0 && x < side && y < side) {
                const double weight = (1 - std::abs(column - 0.5 - x)) * (1 - std::abs(row - 0.5 - y));
                sum += weight * (argb[static_cast<std::size_t>(y) * side + x] >> shift & 255U);
            }
        }
    }
    return sum;
}

struct OnCanvas {
    double column, row;
};

OnCanvas on_canvas(const scaledit_scene_item& item, double x, double y, int side) {
    const double across = (item.cosine * x + item.sine * y) * (item.mirrored ? -1 : 1);
    const double down = item.cosine * y - item.sine * x;
    return {(across / item.canvas + 0.5) * side, (down / item.canvas + 0.5) * side};
}

TEST(Scene, AnItemIsItsSpriteTurnedAndMirrored) {
    constexpr int size = 200;
    for (const int mirrored : {0, 1}) {
        TestScene test(SCALEDIT_PLAIN, size);
        auto& item = test.add(SCALEDIT_AS_DRAWN, 0.45, 0.6, 0.7);
        item.mirrored = mirrored;
        item.shaded = {};
        expect_like(test.painted<std::uint8_t>(), size, [&](double x, double y) {
            std::array<double, 4> argb{};
            for (int point = 0; point < 4; ++point) {
                const double right = (point % 2 - 0.5) / 2 / size;
                const double down = (point / 2 - 0.5) / 2 / size;
                const auto at = on_canvas(item, x - item.x + right, y - item.y + down, kSpriteSide);
                for (int channel = 0; channel < 4; ++channel) {
                    argb[channel] += sprite_at(test.sprite, kSpriteSide, at.column, at.row, 24U - 8U * channel) / 4;
                }
            }
            auto rgb = plain_paper(test, x, y);
            for (int channel = 0; channel < 3; ++channel) {
                rgb[channel] += argb[channel + 1] - argb[0] / 255 * rgb[channel];
            }
            return rgb;
        });
    }
}

TEST(Scene, AShadowIsABlurredSprite) {
    constexpr int size = 96;
    TestScene test(SCALEDIT_PLAIN, size);
    auto& item = test.add(SCALEDIT_AS_DRAWN, 0.5, 0.45, 0.5);
    item.seen = {};
    constexpr int side = kShadowSide;
    const double deviation = item.shadow_deviation / item.canvas * side;
    const int reach = int(std::ceil(3 * deviation));
    std::vector<double> kernel(2 * reach + 1);
    double sum = 0;
    for (int i = -reach; i <= reach; ++i) {
        sum += kernel[i + reach] = std::exp(-i * i / (2 * deviation * deviation));
    }
    const auto alpha = [&](int row, int column) {
        double blurred = 0;
        for (int y = std::max(0, row - reach); y <= std::min(side - 1, row + reach); ++y) {
            for (int x = std::max(0, column - reach); x <= std::min(side - 1, column + reach); ++x) {
                blurred += kernel[y - row + reach] * kernel[x - column + reach] / sum / sum *
                           (test.blurred[static_cast<std::size_t>(y) * side + x] >> 24U);
            }
        }
        return blurred / 255;
    };
    expect_like(test.painted<std::uint8_t>(), size, [&](double x, double y) {
        const auto at = on_canvas(item, x - item.shadow_x, y - item.shadow_y, side);
        const double column = at.column - 0.5;
        const double row = at.row - 0.5;
        double dark = 0;
        for (int corner = 0; corner < 4; ++corner) {
            const int x0 = int(std::floor(column)) + corner % 2;
            const int y0 = int(std::floor(row)) + corner / 2;
            dark += (1 - std::abs(column - x0)) * (1 - std::abs(row - y0)) * alpha(y0, x0);
        }
        auto rgb = plain_paper(test, x, y);
        for (double& channel : rgb) {
            channel *= 1 - item.shadow_darkness * dark;
        }
        return rgb;
    });
}

TEST(Scene, StoneIsWhatItsNoiseSays) {
    constexpr int size = 160;
    TestScene test(SCALEDIT_PLAIN, size);
    std::fill(test.sprite.begin(), test.sprite.end(), 0xFF8040C0U);
    auto& item = test.add(SCALEDIT_STONE, 0.5, 0.5, 3);
    item.shaded = {};
    expect_like(test.painted<std::uint8_t>(), size, [&](double x, double y) {
        const auto at = on_canvas(item, x - item.x, y - item.y, 1);
        const double across = (at.column - 0.5) * item.canvas;
        const double down = (at.row - 0.5) * item.canvas;
        const double patch = noise(item.seed, 9, 9, 0.6, size, across, down);
        const double rough = noise(item.seed + 20, 50, 50, 0.9, size, across, down) - 0.5;
        const double brightness = 0.98 + 0.55 * (patch - 0.5) + 2.2 * rough - 2.5 * rough * rough;
        const std::array<double, 3> drawn = {128 / 255.0, 64 / 255.0, 192 / 255.0};
        const std::array<double, 3> own = {0.72, 0.71, 0.69};
        const double grey = 0.3 * drawn[0] + 0.59 * drawn[1] + 0.11 * drawn[2];
        std::array<double, 3> rgb{};
        for (int channel = 0; channel < 3; ++channel) {
            const double with_own = drawn[channel] + 0.5 * (own[channel] * (0.35 + 0.8 * grey) - drawn[channel]);
            rgb[channel] = 255 * std::clamp(with_own * brightness, 0.0, 1.0);
        }
        return rgb;
    });
}

// Of a red one that is made blue, red is where blue was: the own hue becomes the new one, and keeps a third of what it
// is off.
TEST(Scene, AHueTurnsAndOthersStay) {
    constexpr int size = 64;
    TestScene test(SCALEDIT_PLAIN, size);
    const auto colour_of = [&](std::uint32_t argb) {
        std::fill(test.sprite.begin(), test.sprite.end(), argb);
        const auto painted = test.painted<std::uint8_t>();
        const std::size_t middle = 3 * (32 * size + 32);
        return std::array<int, 3>{painted[middle], painted[middle + 1], painted[middle + 2]};
    };
    auto& item = test.add(SCALEDIT_AS_DRAWN, 0.5, 0.5, 3);
    item.shaded = {};
    item.recoloured = 1;
    item.own_hue = 0;
    item.hue = 240;
    item.saturation = 1;
    item.value = 1;
    EXPECT_EQ(colour_of(0xFFFF0000U), (std::array{0, 0, 255}));
    EXPECT_EQ(colour_of(0xFFFF8000U), (std::array{43, 0, 255}));  // 30 degrees off: 10 degrees
    EXPECT_EQ(colour_of(0xFF00FF00U), (std::array{0, 255, 0}));
    EXPECT_EQ(colour_of(0xFF777777U), (std::array{0x77, 0x77, 0x77}));
    // Dark and pale: 255 * 0.5^0.8 of the light, and all but (1/2)^1.5 of the saturation
    EXPECT_EQ(colour_of(0xFF804040U), (std::array{52, 52, 147}));
}

// ---- The same everywhere

TEST(Scene, AllInstructionSetsAndSinglePixelsGiveTheSameBits) {
    for (std::int32_t background = 0; background < kBackgrounds; ++background) {
        for (const int size : {64, 201}) {
            TestScene test(background, size);
            test.add_four(background);
            const auto expected = test.painted<std::uint8_t>(SCALEDIT_INSTRUCTION_SET_PORTABLE);
            for (const auto set : {SCALEDIT_INSTRUCTION_SET_AVX2, SCALEDIT_INSTRUCTION_SET_AVX512_VNNI}) {
                if (scaledit_instruction_set_supported(set) == SCALEDIT_OK) {
                    EXPECT_EQ(test.painted<std::uint8_t>(set), expected) << background << ", set " << set;
                }
            }
            std::vector<float> workspace(test.workspace_bytes() / sizeof(float));
            Bytes one_by_one(test.values());
            scene::one_by_one(scene::picture(test.scene, SCALEDIT_PIXELS_UINT8, one_by_one.data(), workspace.data()));
            EXPECT_EQ(one_by_one, expected) << background;
        }
    }
}

TEST(Scene, APartIsWhatTheWholeHasThere) {
    for (std::int32_t background = 0; background < kBackgrounds; ++background) {
        constexpr int size = 150;
        TestScene test(background, size);
        test.add_four(background + 1);
        const auto whole = test.painted<std::uint8_t>();
        test.crop({17, 90, 41, 77});
        const auto part = test.painted<std::uint8_t>();
        for (int row = 0; row < 90; ++row) {
            const auto* from = &whole[3 * ((17 + row) * size + 41)];
            ASSERT_TRUE(std::equal(from, from + 3 * 77, &part[3 * 77 * row])) << background << ", row " << row;
        }
    }
}

TEST(Scene, ASpritesPartIsEnough) {
    constexpr int size = 128;
    TestScene test(SCALEDIT_PLAIN, size);
    auto& item = test.add(SCALEDIT_AS_DRAWN, 0.5, 0.5, 0.8);
    item.cosine = 1;
    item.sine = 0;
    test.crop({20, 40, 30, 50});
    const auto expected = test.painted<std::uint8_t>();
    const scaledit_rectangle part = {10, 150, 40, 170};
    std::vector<std::uint32_t> pixels;
    for (int row = 0; row < part.rows; ++row) {
        const auto first = test.sprite.begin() + (part.first_row + row) * kSpriteSide + part.first_column;
        pixels.insert(pixels.end(), first, first + part.columns);
    }
    item.sprite = {pixels.data(), kSpriteSide, part};
    EXPECT_EQ(test.painted<std::uint8_t>(), expected);
}

TEST(Scene, FloatsAreTheSameNumbers) {
    TestScene test(SCALEDIT_BRICK_WALL, 100);
    test.add_four(1);
    test.crop({10, 30, 20, 70});
    const auto bytes = test.painted<std::uint8_t>();
    const auto floats = test.painted<float>();
    for (int channel = 0; channel < 3; ++channel) {
        for (int pixel = 0; pixel < 30 * 70; ++pixel) {
            ASSERT_EQ(floats[channel * 30 * 70 + pixel], float(bytes[3 * pixel + channel]) / 127.5F - 1);
        }
    }
}

// ---- What is refused

void expect_refused(const TestScene& test, const std::string& message) {
    std::size_t bytes = 0;
    EXPECT_EQ(scaledit_scene_workspace(&test.scene, &bytes), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_EQ(scaledit_last_error(), message);
}

TEST(Scene, WhatCannotBeIsOneSentence) {
    const auto spoilt = [](const std::function<void(TestScene&)>& spoil) {
        TestScene test(SCALEDIT_MEADOW, 100);
        test.add(SCALEDIT_FELT, 0.5, 0.5, 0.4);
        spoil(test);
        return test;
    };
    const auto refuse = [&](const std::function<void(scaledit_scene&, scaledit_scene_item&)>& spoil,
                            const std::string& message) {
        TestScene test(SCALEDIT_MEADOW, 100);
        test.add(SCALEDIT_FELT, 0.5, 0.5, 0.4);
        spoil(test.scene, test.items[0]);
        expect_refused(test, message);
    };
    refuse([](auto& s, auto&) { s.size = 63; }, "scene.size is 63, expected 64 to 8192 pixels");
    refuse([](auto& s, auto&) { s.part.rows = 101; }, "scene.part has rows 0 to 101, expected some of 100");
    refuse([](auto& s, auto&) { s.part.first_column = -1; }, "scene.part has columns -1 to 99, expected some of 100");
    refuse([](auto& s, auto&) { s.background = 8; }, "scene.background is 8, expected 0 to 7");
    refuse([](auto& s, auto&) { s.drawn[0] = 0; }, "scene.drawn[0] is 0, expected 0.1 to 1");
    refuse([](auto& s, auto&) { s.drawn[0] = std::numeric_limits<double>::quiet_NaN(); },
           "scene.drawn[0] is nan, expected 0.1 to 1");
    refuse([](auto& s, auto&) { s.items = 9; }, "scene.items is 9, expected 0 to 8");
    refuse([](auto& s, auto&) { s.item = nullptr; }, "scene.item is null, expected 1 scaledit_scene_item");
    refuse([](auto&, auto& i) { i.canvas = 0; }, "scene.item[0].canvas is 0, expected 0.001 to 16");
    refuse([](auto&, auto& i) { i.cosine = i.sine = 1; }, "scene.item[0].cosine^2 + sine^2 is 2, expected 1");
    refuse([](auto&, auto& i) { i.material = 6; }, "scene.item[0].material is 6, expected 0 to 5");
    refuse([](auto&, auto& i) { i.mirrored = 2; }, "scene.item[0].mirrored is 2, expected 0 (no) or 1 (yes)");
    refuse([](auto&, auto& i) { i.sprite.side = 0; }, "scene.item[0].sprite.side is 0, expected 1 to 16384");
    refuse([](auto&, auto& i) { i.sprite.part.rows = 0; }, "scene.item[0].sprite.part.rows is 0, expected at least 1");
    refuse([](auto&, auto& i) { i.shadow.side = 256; }, "scene.item[0].shadow.side is 256, expected 128");
    refuse([](auto&, auto& i) { i.shadow_deviation = 0; }, "scene.item[0].shadow_deviation is 0, expected 1e-06 to 1");
    refuse([](auto&, auto& i) { i.shadow_deviation = 1e-200; },
           "scene.item[0].shadow_deviation is 1e-200, expected 1e-06 to 1");

    const TestScene test = spoilt([](TestScene& t) { t.items[0].shaded = {}; });
    Bytes output(test.values());
    scaledit_scene_arguments arguments{test.scene, SCALEDIT_PIXELS_UINT8, 0, output.data(), nullptr, 0};
    arguments.scene.item = test.items.data();
    const auto refuse_call = [&](const std::string& message) {
        EXPECT_EQ(scaledit_scene_paint(&arguments), SCALEDIT_INVALID_ARGUMENT);
        EXPECT_EQ(scaledit_last_error(), message);
    };
    arguments.pixels = 2;
    refuse_call("pixels is 2, expected 0 (uint8) or 1 (float32)");
    arguments.pixels = SCALEDIT_PIXELS_FLOAT32;
    arguments.output = output.data() + (reinterpret_cast<std::uintptr_t>(output.data()) % 4 == 1 ? 2 : 1);
    refuse_call("output is at an address that is no multiple of 4 bytes");
    arguments.pixels = SCALEDIT_PIXELS_UINT8;
    arguments.output = nullptr;
    refuse_call("output is null, expected room for the pixels");
    arguments.output = output.data();
    arguments.instruction_set = 7;
    refuse_call("instruction_set is 7, expected 0 (best), 1 (portable), 2 (AVX2) or 3 (AVX-512 VNNI)");
    EXPECT_EQ(scaledit_scene_paint(nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "arguments is null, expected a scaledit_scene_arguments");

    TestScene shaded(SCALEDIT_PLAIN, 64);
    shaded.add(SCALEDIT_FELT, 0.5, 0.5, 0.4);
    arguments.scene = shaded.scene;
    arguments.instruction_set = 0;
    refuse_call("workspace_bytes is 0, expected at least " + std::to_string(shaded.workspace_bytes()));
    std::vector<std::uint8_t> room(shaded.workspace_bytes() + shaded.values() + 64);
    std::uint8_t* const workspace = room.data() + (64 - reinterpret_cast<std::uintptr_t>(room.data()) % 64) % 64;
    arguments.workspace = workspace;
    arguments.workspace_bytes = shaded.workspace_bytes();
    arguments.output = workspace + shaded.workspace_bytes() - 1;
    refuse_call("workspace overlaps output, expected memory of its own");
    arguments.output = const_cast<std::uint32_t*>(shaded.items[0].sprite.argb);
    refuse_call("scene.item[0].sprite.argb overlaps output, expected memory of its own");
    arguments.output = reinterpret_cast<void*>(std::uintptr_t{0} - 64);
    refuse_call("output has 12288 bytes, which reach beyond the end of the address space");
    arguments.output = output.data();
    shaded.items[0].sprite.argb = nullptr;
    refuse_call("scene.item[0].sprite.argb is null, expected the sprite's pixels");
    EXPECT_TRUE(std::all_of(output.begin(), output.end(), [](auto byte) { return byte == 0; }));

    arguments.scene = test.scene;
    arguments.scene.item = test.items.data();
    arguments.workspace = output.data();  // which no shadow needs
    EXPECT_EQ(scaledit_scene_paint(&arguments), SCALEDIT_OK) << scaledit_last_error();
}

TEST(Scene, ItWantsAGpuOfThisBuild) {
    const TestScene test(SCALEDIT_MEADOW, 64);
    Bytes output(test.values());
    const scaledit_cuda_scene_arguments arguments{test.scene, SCALEDIT_PIXELS_UINT8, output.data(), nullptr, 0,
                                                  nullptr};
    const scaledit_status status = scaledit_cuda_scene_paint(&arguments);
#if SCALEDIT_CUDA
    EXPECT_NE(status, SCALEDIT_OK);  // no GPU, or memory that is not its own
#else
    EXPECT_EQ(status, SCALEDIT_UNSUPPORTED);
    EXPECT_STREQ(scaledit_last_error(), "this build of scaledit has no CUDA, expected one made with it");
#endif
}

}  // namespace
}  // namespace scaledit

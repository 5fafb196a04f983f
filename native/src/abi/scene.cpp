#include "cuda/scene.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "abi/attention_checks.h"
#include "abi/cuda.h"
#include "abi/guard.h"
#include "cpu/attention.h"
#include "cpu/instruction_sets.h"
#include "error.h"
#include "scene/picture.h"

namespace abi = scaledit::abi;
namespace cpu = scaledit::cpu;
namespace scene = scaledit::scene;
using scaledit::expect;
using scaledit::to_text;

namespace {

constexpr std::int32_t kSmallest = 64;
constexpr std::int32_t kLargest = 8192;
constexpr std::int32_t kMostSpriteSide = 16384;
constexpr std::size_t kWorkspaceAlignment = 64;

// Lengths and places of items stay so near that every pixel of a sprite has a number.
constexpr double kFarthest = 16;
constexpr double kSmallestCanvas = 0.001;

// Whose square a double still tells from 0, on any canvas.
constexpr double kSmallestDeviation = 1e-6;

void expect_within(double value, const std::string& name, double least, double most) {
    expect(least <= value && value <= most, name, value, to_text(least) + " to " + to_text(most));
}

// Of a square of `side` pixels.
void check_rectangle(const scaledit_rectangle& part, const std::string& name, std::int32_t side) {
    const auto check = [&](const char* what, std::int32_t first, std::int32_t count) {
        if (first < 0 || count < 0 || count > side - first) {
            scaledit::fail_invalid(name + " has " + what + " " + to_text(first) + " to " +
                                   to_text(std::int64_t{first} + count) + ", expected some of " + to_text(side));
        }
    };
    check("rows", part.first_row, part.rows);
    check("columns", part.first_column, part.columns);
}

// Numbers that a background has drawn.
void check_drawn(const scaledit_scene& s) {
    const auto check = [&](int which, double least, double most) {
        expect_within(s.drawn[which], "scene.drawn[" + to_text(which) + "]", least, most);
    };
    constexpr double nearest = 0.001;  // horizon to the picture's upper border, which heights are divided by
    switch (s.background) {
        case SCALEDIT_MEADOW:
        case SCALEDIT_SNOWY_FIELD:
            return check(0, 0.1, 1);  // the line wanders
        case SCALEDIT_WOODEN_TABLE:
        case SCALEDIT_BRICK_WALL:
            return check(0, 1, 100);
        case SCALEDIT_SANDY_BEACH:
        case SCALEDIT_SUNSET_SEA:
            check(0, nearest, 1);
            return check(1, 0, 1);
        case SCALEDIT_PLAIN:
            check(0, 0, 1);
            check(1, 0, 1);
            return check(2, 0, 1);
        default:
            return;
    }
}

void check_sprite(const scaledit_sprite& sprite, const std::string& name) {
    expect(1 <= sprite.side && sprite.side <= kMostSpriteSide, name + ".side", sprite.side,
           "1 to " + to_text(kMostSpriteSide));
    check_rectangle(sprite.part, name + ".part", sprite.side);
    expect(sprite.part.rows > 0, name + ".part.rows", sprite.part.rows, "at least 1");
    expect(sprite.part.columns > 0, name + ".part.columns", sprite.part.columns, "at least 1");
}

void check_item(const scaledit_scene_item& item, const std::string& name, std::int32_t size) {
    expect_within(item.x, name + ".x", -kFarthest, kFarthest);
    expect_within(item.y, name + ".y", -kFarthest, kFarthest);
    expect_within(item.canvas, name + ".canvas", kSmallestCanvas, kFarthest);
    const double square = item.cosine * item.cosine + item.sine * item.sine;
    expect(std::abs(square - 1) < 1e-6, name + ".cosine^2 + sine^2", square, "1");
    abi::expect_flag(item.mirrored, name + ".mirrored");
    expect(SCALEDIT_AS_DRAWN <= item.material && item.material <= SCALEDIT_CLAY, name + ".material", item.material,
           "0 to 5");
    abi::expect_flag(item.recoloured, name + ".recoloured");
    if (item.recoloured != 0) {
        expect_within(item.own_hue, name + ".own_hue", -360, 360);
        expect_within(item.hue, name + ".hue", -360, 360);
        expect_within(item.saturation, name + ".saturation", 0, 1);
        expect_within(item.value, name + ".value", 0, 10);
    }
    check_rectangle(item.seen, name + ".seen", size);
    if (!scene::is_empty(item.seen)) {
        check_sprite(item.sprite, name + ".sprite");
    }
    check_rectangle(item.shaded, name + ".shaded", size);
    if (!scene::is_empty(item.shaded)) {
        expect_within(item.shadow_x, name + ".shadow_x", -kFarthest, kFarthest);
        expect_within(item.shadow_y, name + ".shadow_y", -kFarthest, kFarthest);
        expect_within(item.shadow_darkness, name + ".shadow_darkness", 0, 1);
        expect_within(item.shadow_deviation, name + ".shadow_deviation", kSmallestDeviation, 1);
        check_sprite(item.shadow, name + ".shadow");
        const std::int32_t pixels = item.shadow.part.rows * item.shadow.part.columns;
        expect(item.shadow.side == scene::kShadowCanvas, name + ".shadow.side", item.shadow.side,
               to_text(scene::kShadowCanvas));
        expect(pixels == scene::kShadowCanvas * scene::kShadowCanvas, name + ".shadow.part's pixels", pixels,
               "all of its canvas");
    }
}

// All but the sprites' pixels.
void check_scene(const scaledit_scene& s) {
    expect(kSmallest <= s.size && s.size <= kLargest, "scene.size", s.size,
           to_text(kSmallest) + " to " + to_text(kLargest) + " pixels");
    check_rectangle(s.part, "scene.part", s.size);
    expect(SCALEDIT_MEADOW <= s.background && s.background <= SCALEDIT_PLAIN, "scene.background", s.background,
           "0 to 7");
    check_drawn(s);
    expect(0 <= s.items && s.items <= scene::kMostItems, "scene.items", s.items, "0 to " + to_text(scene::kMostItems));
    if (s.items > 0) {
        abi::expect_pointer(s.item, "scene.item", to_text(s.items) + " scaledit_scene_item");
    }
    for (std::int32_t i = 0; i < s.items; ++i) {
        check_item(s.item[i], "scene.item[" + to_text(i) + "]", s.size);
    }
}

// Bytes, one at least, that a call reads or writes.
struct Memory {
    Memory(std::string named, const void* address, std::size_t size)
        : name(std::move(named)), data(address), bytes(size) {
        abi::expect_addressable(data, bytes, name);
    }
    std::string name;
    const void* data;
    std::size_t bytes;
};

// Checks the sprites' pixels, those that are read.
std::vector<Memory> sprite_pixels(const scaledit_scene& s) {
    std::vector<Memory> read;
    for (std::int32_t i = 0; i < s.items; ++i) {
        const std::string name = "scene.item[" + to_text(i) + "]";
        const auto check = [&](const scaledit_rectangle& part, const scaledit_sprite& sprite, const char* which) {
            if (!scene::is_empty(part)) {
                abi::expect_aligned(sprite.argb, sizeof(std::uint32_t), name + which, "the sprite's pixels");
                read.emplace_back(name + which, sprite.argb,
                                  sizeof(std::uint32_t) * static_cast<std::size_t>(sprite.part.rows) *
                                      static_cast<std::size_t>(sprite.part.columns));
            }
        };
        check(s.item[i].seen, s.item[i].sprite, ".sprite.argb");
        check(s.item[i].shaded, s.item[i].shadow, ".shadow.argb");
    }
    return read;
}

void expect_apart(const Memory& written, const Memory& other) {
    const auto one = reinterpret_cast<std::uintptr_t>(written.data);
    const auto two = reinterpret_cast<std::uintptr_t>(other.data);
    if (one < two + other.bytes && two < one + written.bytes) {
        scaledit::fail_invalid(other.name + " overlaps " + written.name + ", expected memory of its own");
    }
}

// Whether there is anything to paint.
template <typename Arguments>
bool checked(const Arguments* arguments, const char* type) {
    abi::expect_pointer(arguments, "arguments", type);
    const Arguments& a = *arguments;
    check_scene(a.scene);
    expect(a.pixels == SCALEDIT_PIXELS_UINT8 || a.pixels == SCALEDIT_PIXELS_FLOAT32, "pixels", a.pixels,
           "0 (uint8) or 1 (float32)");
    if (scene::is_empty(a.scene.part)) {
        return false;
    }
    const std::vector<Memory> sprites = sprite_pixels(a.scene);
    const std::size_t value_bytes = a.pixels == SCALEDIT_PIXELS_FLOAT32 ? sizeof(float) : 1;
    abi::expect_aligned(a.output, value_bytes, "output", "room for the pixels");
    const std::size_t needed = scene::workspace_bytes(a.scene);
    expect(a.workspace_bytes >= needed, "workspace_bytes", a.workspace_bytes, "at least " + to_text(needed));
    const auto pixels = static_cast<std::size_t>(a.scene.part.rows) * static_cast<std::size_t>(a.scene.part.columns);
    std::vector<Memory> written{{"output", a.output, 3 * pixels * value_bytes}};
    if (needed > 0) {
        abi::expect_aligned(a.workspace, kWorkspaceAlignment, "workspace", to_text(needed) + " bytes");
        written.emplace_back("workspace", a.workspace, needed);
        expect_apart(written[0], written[1]);
    }
    for (const Memory& one : written) {
        for (const Memory& sprite : sprites) {
            expect_apart(one, sprite);
        }
    }
    return true;
}

}  // namespace

scaledit_status scaledit_scene_workspace(const scaledit_scene* scene, size_t* bytes) {
    return abi::guard([&] {
        abi::expect_pointer(scene, "scene", "a scaledit_scene");
        check_scene(*scene);
        abi::expect_pointer(bytes, "bytes", "where to put the number");
        *bytes = scene::workspace_bytes(*scene);
    });
}

scaledit_status scaledit_scene_paint(const scaledit_scene_arguments* arguments) {
    return abi::guard([&] {
        const bool paints = checked(arguments, "a scaledit_scene_arguments");
        const auto& a = *arguments;
        abi::check_instruction_set(a.instruction_set);
        const auto set = a.instruction_set == SCALEDIT_INSTRUCTION_SET_BEST
                             ? cpu::best()
                             : static_cast<scaledit_instruction_set>(a.instruction_set);
        if (paints) {
            cpu::painter_of(set)(scene::picture(a.scene, a.pixels, a.output, a.workspace));
        }
    });
}

scaledit_status scaledit_cuda_scene_paint(const scaledit_cuda_scene_arguments* arguments) {
    return abi::guard([&] {
        [[maybe_unused]] const bool paints = checked(arguments, "a scaledit_cuda_scene_arguments");
#if SCALEDIT_CUDA
        if (paints) {
            scaledit::cuda::run(*arguments);
        }
#else
        abi::refuse_without_cuda();
#endif
    });
}

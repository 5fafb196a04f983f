// A scene as a painter takes it: all that its pixels have in common, computed once. Plain data, which is also what a
// GPU's kernel gets as its parameter.
#pragma once

#include <cstddef>
#include <cstdint>

#include "scaledit/scaledit.h"

namespace scaledit::scene {

inline constexpr int kMostItems = 8;

inline bool is_empty(const scaledit_rectangle& part) { return part.rows == 0 || part.columns == 0; }

inline constexpr int kMostOctaves = 12;

// Fractal value noise over a scene, 0 ... 1, from seed and place alone. Octaves double from a lowest frequency to
// kHighestFrequency, and a picture shows those that its pixels can: the others stand at their mean. All count in the
// sum's norm, so pictures of any size show the same scene, and a larger one has more in it.
struct Noise {
    double columns;  // cells along the scene of the lowest octave
    double rows;
    std::uint32_t seed;
    std::int32_t octaves;         // that are shown
    float rest;                   // the mean of those that are not
    float weights[kMostOctaves];  // of each octave
};

// Soft dots, one in a cell of a grid or none, at any place in it.
struct Dots {
    std::uint32_t seed;
    std::int32_t cells;  // along the scene
    float light;
    double least;   // hash of a cell that has a dot; the higher the hash, the larger the dot
    double radius;  // of the largest
    double blur;    // by a pixel
    double reach;   // of the largest dot
};

struct Meadow {
    double horizon;
    Noise line, clouds, grass, tufts;
};

struct NightSky {
    Noise haze;
    Dots small, large;
};

struct WoodenTable {
    double planks;
    Noise bend, grain, pores;
};

struct BrickWall {
    double courses;
    Noise rough, grain;
};

struct SandyBeach {
    double horizon;
    double shore;
    Noise line, waves, dunes, grains, bubbles;
};

struct SnowyField {
    double horizon;
    Noise line, drifts, crystals;
    Dots flakes;
};

struct SunsetSea {
    double horizon;
    double middle;
    Noise clouds, waves;
};

struct Plain {
    float paper[3];
    Noise fibres;
};

struct Backdrop {
    std::int32_t background;  // a scaledit_background
    std::uint32_t seed;
    union {
        Meadow meadow;
        NightSky night_sky;
        WoodenTable wooden_table;
        BrickWall brick_wall;
        SandyBeach sandy_beach;
        SnowyField snowy_field;
        SunsetSea sunset_sea;
        Plain plain;
    };
};

struct Material {
    std::int32_t material;  // a scaledit_material
    float contrast;         // of what repeats: 0 where pixels are too large for it
    double cosine[3];       // of felt's directions
    double sine[3];
    Noise noise[4];
};

inline constexpr int kShadowCanvas = 128;
inline constexpr int kShadowReach = kShadowCanvas / 2;  // at most
inline constexpr int kShadowLanes = 64;                 // rows of its maps are multiples of it

// An object's alpha on its canvas, blurred, with room around it: the same for a picture of any size.
struct Shadow {
    scaledit_rectangle part;
    double x, y;  // of the canvas' middle
    float darkness;
    std::int32_t reach;  // of the blur
    std::int32_t side;   // of the canvas and the room around it
    std::int32_t stride;
    const std::uint32_t* argb;       // [kShadowCanvas, kShadowCanvas]
    float* down;                     // [kShadowCanvas, stride]: blurred along columns, columns as rows
    float* map;                      // [side, stride], columns as rows
    float kernel[kShadowReach + 1];  // half of a Gaussian, from its middle
};

struct Sprite {
    const std::uint32_t* argb;
    std::int32_t side;
    scaledit_rectangle part;
};

struct Item {
    double x, y;       // of the canvas' middle
    double across[2];  // from the picture's axes to the canvas' own
    double down[2];
    double canvas;
    scaledit_rectangle part;
    Sprite sprite;
    std::int32_t recoloured;
    float own_hue, hue;  // degrees
    float saturation, value;
    Material material;
    Shadow shadow;
};

struct Picture {
    std::int32_t size;
    scaledit_rectangle part;
    Backdrop backdrop;
    std::int32_t items;
    Item item[kMostItems];
    std::int32_t pixels;  // a scaledit_pixels
    void* output;
};

// Bytes of workspace for the shadows of a scene whose numbers are checked already.
std::size_t workspace_bytes(const scaledit_scene& scene);

// Of arguments that are checked already.
Picture picture(const scaledit_scene& scene, std::int32_t pixels, void* output, void* workspace);

}  // namespace scaledit::scene

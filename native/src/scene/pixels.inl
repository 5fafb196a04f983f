// What a pixel of a scene shows, written once for processors and GPUs.
//
// Each translation unit includes this file inside its own unnamed namespace, as the CPU's kernels are: nothing compiled
// for one processor can be merged by the linker with the code of another, so nothing of the standard library is
// instantiated here.
//
// Functions take `lanes` neighbouring pixels of a row: on a CPU a span of them, in loops that the compiler makes
// vectors of, on a GPU one, whose loops vanish. Places are doubles, or a large picture's finest octave would lose its
// fraction; what comes of them is float32. Nothing is contracted and no function of the mathematics library is called,
// so a picture has the same bits everywhere.
//
// SCALEDIT_SCENE: what stands before a function.

template <class Number, int lanes>
using Lanes = Number[lanes];

struct Rgb {
    float red, green, blue;
};

SCALEDIT_SCENE float clamp(float value, float most) { return value < 0 ? 0 : value > most ? most : value; }
SCALEDIT_SCENE float clamp(float value) { return clamp(value, 1); }
SCALEDIT_SCENE float larger(float a, float b) { return a > b ? a : b; }
SCALEDIT_SCENE float smaller(float a, float b) { return a < b ? a : b; }

// 0 below 0, 1 above 1, smooth between.
SCALEDIT_SCENE float smooth(float t) {
    const float clamped = clamp(t);
    return clamped * clamped * (3 - 2 * clamped);
}

SCALEDIT_SCENE float mix(float from, float to, float amount) { return from + (to - from) * clamp(amount); }

SCALEDIT_SCENE Rgb mix(Rgb from, Rgb to, float amount) {
    return {mix(from.red, to.red, amount), mix(from.green, to.green, amount), mix(from.blue, to.blue, amount)};
}

SCALEDIT_SCENE Rgb times(Rgb colour, float light) {
    return {colour.red * light, colour.green * light, colour.blue * light};
}

template <int lanes>
SCALEDIT_SCENE void put(Rgb colour, Lanes<float, lanes> (&rgb)[3], int lane) {
    rgb[0][lane] = clamp(colour.red, 255);
    rgb[1][lane] = clamp(colour.green, 255);
    rgb[2][lane] = clamp(colour.blue, 255);
}

// The integer below, for |x| < 2^31: floor() has no vectors before SSE4.1.
SCALEDIT_SCENE int floor_of(double x) {
    const int cut = static_cast<int>(x);
    return cut - (x < cut ? 1 : 0);
}

// 2^x for x < 128, to 1e-7; below -126 that of -126.
SCALEDIT_SCENE float exp2_of(float x) {
    const float bounded = x < -126 ? -126 : x;
    const int whole = static_cast<int>(bounded + 126.5F) - 126;
    const float f = bounded - static_cast<float>(whole);
    // Minimax of the relative error for |f| <= 0.5, with the constant term held at 1.
    const float power =
        1.0F + f * (6.931469776e-01F +
                    f * (2.402224208e-01F + f * (5.550733744e-02F + f * (9.671512688e-03F + f * 1.326472725e-03F))));
    return power * __builtin_bit_cast(float, (whole + 127) << 23);
}

SCALEDIT_SCENE float exp_of(float x) { return exp2_of(x * 1.442695041F); }

// log2(x) for x > 0 and normal, to 2e-7.
SCALEDIT_SCENE float log2_of(float x) {
    const int bits = __builtin_bit_cast(int, x);
    // The exponent with which the mantissa lies between the roots of 1/2 and 2.
    const int exponent = (bits - 0x3F3504F3) >> 23;
    const float mantissa = __builtin_bit_cast(float, bits - (exponent << 23));
    const float s = (mantissa - 1) / (mantissa + 1);
    const float square = s * s;
    // 2 artanh(s) / ln 2
    const float series =
        2.885390082F +
        square * (0.961796694F + square * (0.577078016F + square * (0.412198583F + square * 0.3205989F)));
    return static_cast<float>(exponent) + s * series;
}

// x^p for x from 0 on.
SCALEDIT_SCENE float power_of(float x, float p) { return exp2_of(p * log2_of(larger(x, 1e-30F))); }

// The sine of so many turns, to 2e-7.
SCALEDIT_SCENE float sine_of_turns(double turns) {
    const auto part = static_cast<float>(turns - floor_of(turns + 0.5));
    const float size = part < 0 ? -part : part;
    const float folded = size > 0.25F ? 0.5F - size : size;
    const float angle = 6.283185307F * folded;
    const float square = angle * angle;
    const float sine =
        angle *
        (1 -
         square * (1.666666667e-01F -
                   square * (8.333333333e-03F -
                             square * (1.984126984e-04F - square * (2.755731922e-06F - square * 2.505210839e-08F)))));
    return part < 0 ? -sine : sine;
}

// What is left of a wave in the mean over a pixel: 0 ... 1; nothing from two pixels a wave on.
SCALEDIT_SCENE float visible(float waves_in_pixel) {
    const float waves = waves_in_pixel < 0 ? -waves_in_pixel : waves_in_pixel;
    const float half = 3.141592654F * waves;
    const float left = sine_of_turns(0.5F * waves) / larger(half, 1e-3F);
    return half < 1e-3F ? 1 : half > 1.570796327F ? 0 : left;
}

// Of a cell: 0 ... 1.
SCALEDIT_SCENE float hash(int column, int row, std::uint32_t seed) {
    std::uint32_t n = static_cast<std::uint32_t>(column) * 374761393U + static_cast<std::uint32_t>(row) * 668265263U +
                      seed * 2246822519U;
    n = (n ^ (n >> 13)) * 1274126177U;
    n = (n ^ (n >> 15)) * 2654435761U;
    return static_cast<float>(static_cast<int>((n ^ (n >> 16)) >> 8)) * 0x1p-24F;
}

SCALEDIT_SCENE float ease(float t) { return t * t * (3 - 2 * t); }

// An octave at a place in cells: 0 ... 1. Cells are counted from one that is left of and above all places, so that to
// truncate is to take the integer below; the fraction keeps 32 bits.
SCALEDIT_SCENE float value_of(double column, double row, std::uint32_t seed) {
    constexpr int origin = 1 << 20;
    const double right = column + origin;
    const double down = row + origin;
    const int whole_columns = static_cast<int>(right);
    const int whole_rows = static_cast<int>(down);
    const float u = ease(static_cast<float>(right - whole_columns));
    const float v = ease(static_cast<float>(down - whole_rows));
    const int ix = whole_columns - origin;
    const int iy = whole_rows - origin;
    const float top_left = hash(ix, iy, seed);
    const float top_right = hash(ix + 1, iy, seed);
    const float on_left = top_left + (hash(ix, iy + 1, seed) - top_left) * v;
    const float on_right = top_right + (hash(ix + 1, iy + 1, seed) - top_right) * v;
    return on_left + (on_right - on_left) * u;
}

template <int lanes>
SCALEDIT_SCENE void sample(const Noise& noise, const Lanes<double, lanes>& x, const Lanes<double, lanes>& y,
                           Lanes<float, lanes>& sum) {
    double columns = noise.columns;
    double rows = noise.rows;
    for (int i = 0; i < lanes; ++i) {
        sum[i] = noise.rest;
    }
    for (int octave = 0; octave < noise.octaves; ++octave) {
        const std::uint32_t seed = noise.seed + static_cast<std::uint32_t>(octave);
        const float weight = noise.weights[octave];
        for (int i = 0; i < lanes; ++i) {
            sum[i] += weight * value_of(x[i] * columns, y[i] * rows, seed);
        }
        columns *= 2;
        rows *= 2;
    }
}

// The token-wise kernels against float64.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "attention_reference.h"
#include "cuda/gpu.h"
#include "cuda/matrix.h"

namespace scaledit {
namespace {

constexpr double kEpsilon = 1e-6;

// e4m3: 4 bits of exponent, 3 of mantissa, no infinities.
double from_e4m3(std::uint8_t code) {
    const int exponent = code >> 3 & 15;
    const double mantissa = (code & 7) / 8.0;
    const double magnitude = exponent == 0 ? std::ldexp(mantissa, -6) : std::ldexp(1 + mantissa, exponent - 7);
    const double value = (code & 0x7f) == 0x7f ? std::numeric_limits<double>::quiet_NaN() : magnitude;
    return (code & 0x80) != 0 ? -value : value;
}

// To nearest, ties to even, as a number.
double rounded_to_e4m3(double value) {
    static const std::vector<double> magnitudes = [] {
        std::vector<double> all;
        for (std::uint8_t code = 0; code < 0x7f; ++code) {
            all.push_back(from_e4m3(code));
        }
        return all;
    }();
    const double magnitude = std::min(std::abs(value), magnitudes.back());
    const auto above = std::ranges::lower_bound(magnitudes, magnitude);
    if (*above == magnitude) {
        return std::copysign(magnitude, value);
    }
    const auto below = above - 1;
    const bool below_is_even = (below - magnitudes.begin()) % 2 == 0;
    const double middle = (*below + *above) / 2;
    return std::copysign(magnitude < middle || (magnitude == middle && below_is_even) ? *below : *above, value);
}

// One float32 for each row.
class Scales {
public:
    explicit Scales(std::int64_t rows) : device_(std::vector<std::byte>(static_cast<std::size_t>(rows) * 4, kPoison)) {}
    [[nodiscard]] float* data() const { return reinterpret_cast<float*>(device_.data()); }
    [[nodiscard]] std::vector<float> read() const {
        const std::vector<std::byte> bytes = device_.read();
        std::vector<float> scales(bytes.size() / 4);
        std::memcpy(scales.data(), bytes.data(), bytes.size());
        return scales;
    }

private:
    DeviceMemory device_;
};

// Shift, scale or gate: row 0 of the matrix for current rows, row 1 for guidance rows.
struct Part {
    Part(std::int64_t width, std::int64_t guidance_rows, std::mt19937& random)
        : vectors(2, width), has_guidance(guidance_rows > 0) {
        std::normal_distribution<float> normal(0, 0.5F);
        vectors.fill([&](std::int64_t, std::int64_t) { return normal(random); });
    }
    [[nodiscard]] scaledit_modulation_part view() const {
        return {vectors.device.data() + vectors.at(0, 0),
                has_guidance ? vectors.device.data() + vectors.at(1, 0) : nullptr};
    }
    [[nodiscard]] double get(bool of_guidance, std::int64_t channel) const {
        return vectors.get(of_guidance ? 1 : 0, channel);
    }
    Matrix vectors;
    bool has_guidance;
};

// Codes and scale of a row, `row[channel]` being what it stands for. Codes may differ from the rounded ones by one
// where the number is so near a border between two that its slack reaches over.
void expect_e4m3_row(const std::vector<Expected>& row, const Matrix& output, std::int64_t number, float scale,
                     const std::string& where) {
    double largest = 0;
    for (const Expected& expected : row) {
        largest = std::max(largest, std::abs(expected.value));
    }
    const double expected_scale = std::max(largest / 448, 0x1p-100);
    ASSERT_NEAR(static_cast<double>(scale) / expected_scale, 1, 1e-5) << where;
    for (std::int64_t channel = 0; channel < output.width; ++channel) {
        const auto [value, slack] = row[static_cast<std::size_t>(channel)];
        const double scaled = value / static_cast<double>(scale);
        const double around = slack / static_cast<double>(scale) + 1e-6 * std::abs(scaled);
        const double got = from_e4m3(output.code(number, channel));
        ASSERT_GE(got, rounded_to_e4m3(scaled - around)) << where << ", channel " << channel << ": " << scaled;
        ASSERT_LE(got, rounded_to_e4m3(scaled + around)) << where << ", channel " << channel << ": " << scaled;
    }
}

class GpuTokenwise : public Gpu {
protected:
    std::mt19937 random{2718};
};

struct Shape {
    std::int64_t rows;
    std::int64_t guidance_rows;
    std::int32_t width;
    std::int64_t gap;
};
std::string name_of(const Shape& shape) {
    return std::to_string(shape.rows) + " x " + std::to_string(shape.width) + ", " +
           std::to_string(shape.guidance_rows) + " of guidance";
}

// FLUX's width, which fills the threads of a block, and others, which do not.
constexpr Shape kShapes[] = {{1, 0, 3072, 0}, {7, 3, 3072, 24}, {513, 100, 3072, 0}, {8, 8, 3072, 0}, {9, 1, 8, 8},
                             {33, 5, 64, 16}, {17, 4, 520, 0},  {16, 2, 4096, 8},    {8, 3, 8192, 0}, {8, 0, 1536, 0}};

// hidden, an update of it, and all that modulates.
struct Block {
    Block(const Shape& of, std::mt19937& random)
        : shape(of),
          hidden(shape.rows, shape.width, SCALEDIT_BFLOAT16, shape.gap),
          update(shape.rows, shape.width, SCALEDIT_BFLOAT16, 2 * shape.gap),
          gate(shape.width, shape.guidance_rows, random),
          shift(shape.width, shape.guidance_rows, random),
          scale(shape.width, shape.guidance_rows, random) {
        fill_rows(hidden, random);
        std::normal_distribution<float> normal;
        update.fill([&](std::int64_t, std::int64_t) { return normal(random); });
    }

    [[nodiscard]] bool is_guidance(std::int64_t row) const { return row >= shape.rows - shape.guidance_rows; }

    void add_gated() {
        const scaledit_cuda_add_gated_arguments arguments = {
            shape.rows, shape.guidance_rows, shape.width, hidden.view(), update.view(), gate.view(), nullptr};
        ASSERT_EQ(scaledit_cuda_add_gated(&arguments), SCALEDIT_OK) << scaledit_last_error();
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        hidden.read();
    }

    [[nodiscard]] scaledit_cuda_modulate_arguments modulate_arguments(bool adds, const Matrix& output,
                                                                      const Scales& scales) const {
        scaledit_cuda_modulate_arguments arguments{};
        arguments.rows = shape.rows;
        arguments.guidance_rows = shape.guidance_rows;
        arguments.width = shape.width;
        arguments.hidden = hidden.view();
        if (adds) {
            arguments.update = update.view();
            arguments.gate = gate.view();
        }
        arguments.shift = shift.view();
        arguments.scale = scale.view();
        arguments.epsilon = static_cast<float>(kEpsilon);
        arguments.output = output.view();
        arguments.output_scale = output.dtype == SCALEDIT_E4M3 ? scales.data() : nullptr;
        return arguments;
    }

    void modulate(bool adds, Matrix& output, const Scales& scales) {
        const scaledit_cuda_modulate_arguments arguments = modulate_arguments(adds, output, scales);
        ASSERT_EQ(scaledit_cuda_modulate(&arguments), SCALEDIT_OK) << scaledit_last_error();
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        hidden.read();
        output.read();
    }

    // Of hidden as it is.
    [[nodiscard]] std::vector<Expected> modulated(std::int64_t row) const {
        const auto width = static_cast<double>(shape.width);
        double mean = 0;
        double mean_magnitude = 0;
        for (std::int64_t channel = 0; channel < shape.width; ++channel) {
            mean += hidden.get(row, channel) / width;
            mean_magnitude += std::abs(hidden.get(row, channel)) / width;
        }
        double variance = 0;
        for (std::int64_t channel = 0; channel < shape.width; ++channel) {
            variance += std::pow(hidden.get(row, channel) - mean, 2) / width;
        }
        const double factor = 1 / std::sqrt(variance + kEpsilon);
        std::vector<Expected> expected;
        for (std::int64_t channel = 0; channel < shape.width; ++channel) {
            const double distance = hidden.get(row, channel) - mean;
            const double stretch = factor * (1 + scale.get(is_guidance(row), channel));
            const double moved = shift.get(is_guidance(row), channel);
            const double slack = 1e-6 * (std::abs(stretch) * (mean_magnitude + 4 * std::abs(distance)) +
                                         factor * std::abs(distance) + std::abs(moved));
            expected.push_back({distance * stretch + moved, slack});
        }
        return expected;
    }

    Shape shape;
    Matrix hidden;
    Matrix update;
    Part gate;
    Part shift;
    Part scale;
};

void expect_modulated(const Block& block, const Matrix& output, const Scales& scales) {
    const std::vector<float> row_scales = scales.read();
    for (std::int64_t row = 0; row < block.shape.rows; ++row) {
        const std::string where = name_of(block.shape) + ", row " + std::to_string(row);
        const std::vector<Expected> expected = block.modulated(row);
        if (output.dtype == SCALEDIT_E4M3) {
            expect_e4m3_row(expected, output, row, row_scales[static_cast<std::size_t>(row)], where);
            continue;
        }
        for (std::int64_t channel = 0; channel < block.shape.width; ++channel) {
            expect_bfloat16(output.get(row, channel), expected[static_cast<std::size_t>(channel)], where);
        }
    }
}

TEST_F(GpuTokenwise, AddsUnderAGate) {
    for (const Shape& shape : kShapes) {
        Block block(shape, random);
        const std::vector<std::byte> bytes = block.hidden.host;
        const auto old = [&](std::int64_t row, std::int64_t channel) {
            std::uint16_t bits = 0;
            std::memcpy(&bits, &bytes[block.hidden.at(row, channel)], 2);
            return static_cast<double>(from_bfloat(bits));
        };
        block.add_gated();
        for (std::int64_t row = 0; row < shape.rows; ++row) {
            for (std::int64_t channel = 0; channel < shape.width; ++channel) {
                const double sum = old(row, channel) +
                                   block.gate.get(block.is_guidance(row), channel) * block.update.get(row, channel);
                expect_bfloat16(block.hidden.get(row, channel), {sum, 0}, name_of(shape));
            }
        }
        EXPECT_TRUE(block.hidden.is_untouched_outside(bytes, 0, shape.width)) << name_of(shape);
    }
}

TEST_F(GpuTokenwise, NormsAndModulates) {
    for (const Shape& shape : kShapes) {
        for (const std::int32_t dtype : {SCALEDIT_BFLOAT16, SCALEDIT_E4M3}) {
            Block block(shape, random);
            const std::vector<std::byte> hidden = block.hidden.host;
            Matrix output(shape.rows, shape.width, dtype, 2 * shape.gap);
            const std::vector<std::byte> poisoned = output.host;
            const Scales scales(shape.rows);
            block.modulate(false, output, scales);
            expect_modulated(block, output, scales);
            EXPECT_EQ(block.hidden.host, hidden) << name_of(shape);
            EXPECT_TRUE(output.is_untouched_outside(poisoned, 0, shape.width)) << name_of(shape);
        }
    }
}

TEST_F(GpuTokenwise, AddsAndModulatesAsInTwoCalls) {
    for (const Shape& shape : kShapes) {
        for (const std::int32_t dtype : {SCALEDIT_BFLOAT16, SCALEDIT_E4M3}) {
            const std::mt19937 seed = random;
            Block block(shape, random);
            Matrix output(shape.rows, shape.width, dtype, 2 * shape.gap);
            const Scales scales(shape.rows);
            block.modulate(true, output, scales);
            expect_modulated(block, output, scales);

            random = seed;
            Block same(shape, random);
            Matrix again(shape.rows, shape.width, dtype, 2 * shape.gap);
            const Scales scales_again(shape.rows);
            same.add_gated();
            same.modulate(false, again, scales_again);
            EXPECT_EQ(block.hidden.host, same.hidden.host) << name_of(shape);
            EXPECT_EQ(output.host, again.host) << name_of(shape);
            if (dtype == SCALEDIT_E4M3) {
                EXPECT_EQ(scales.read(), scales_again.read()) << name_of(shape);
            }
        }
    }
}

// Without variance a row has nothing but its shift, to the bit: no rounding of the mean is blown up by 1 /
// sqrt(epsilon).
TEST_F(GpuTokenwise, NormsRowsOfOneNumberToTheShift) {
    for (const std::int32_t width : {3072, 1160, 56}) {
        Block block({64, 8, width, 0}, random);
        std::normal_distribution<float> normal(0, 100);
        float number = 0;
        block.hidden.fill([&](std::int64_t, std::int64_t channel) {
            number = channel == 0 ? normal(random) : number;
            return number;
        });
        Matrix output(64, width);
        block.modulate(false, output, Scales(64));
        for (std::int64_t row = 0; row < 64; ++row) {
            for (std::int64_t channel = 0; channel < width; ++channel) {
                ASSERT_EQ(output.get(row, channel), block.shift.get(block.is_guidance(row), channel)) << width;
            }
        }
    }
}

// [width plain channels, gelu_width channels to go through GELU] of one buffer or of two.
struct Quantization {
    Quantization(std::int64_t row_count, std::int32_t plain_width, std::int32_t width_of_gelu, bool in_one_buffer)
        : rows(row_count),
          width(plain_width),
          gelu_width(width_of_gelu),
          together(in_one_buffer),
          plain(rows, together ? width + gelu_width : std::max(width, 8)),
          others(rows, together ? 8 : std::max(gelu_width, 8), SCALEDIT_BFLOAT16, 8),
          output(rows, width + gelu_width, SCALEDIT_E4M3, 16),
          scales(rows) {}

    [[nodiscard]] scaledit_cuda_quantize_arguments arguments() const {
        scaledit_cuda_quantize_arguments arguments{};
        arguments.rows = rows;
        arguments.width = width;
        arguments.gelu_width = gelu_width;
        if (width > 0) {
            arguments.input = plain.view();
        }
        if (gelu_width > 0) {
            arguments.gelu_input = together ? plain.view(width) : others.view();
        }
        arguments.output = output.view();
        arguments.output_scale = scales.data();
        return arguments;
    }

    void run() {
        const scaledit_cuda_quantize_arguments a = arguments();
        ASSERT_EQ(scaledit_cuda_quantize(&a), SCALEDIT_OK) << scaledit_last_error();
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        output.read();
    }

    [[nodiscard]] std::vector<Expected> expected(std::int64_t row) const {
        std::vector<Expected> numbers;
        for (std::int64_t channel = 0; channel < width; ++channel) {
            numbers.push_back({plain.get(row, channel), 0});
        }
        for (std::int64_t channel = 0; channel < gelu_width; ++channel) {
            numbers.push_back(gelu(together ? plain.get(row, width + channel) : others.get(row, channel)));
        }
        return numbers;
    }

    void expect_right(const std::string& what) const {
        const std::vector<float> row_scales = scales.read();
        for (std::int64_t row = 0; row < rows; ++row) {
            expect_e4m3_row(expected(row), output, row, row_scales[static_cast<std::size_t>(row)],
                            what + ", " + std::to_string(width) + " + " + std::to_string(gelu_width) + ", row " +
                                std::to_string(row));
        }
        const std::vector<std::byte> poisoned(output.host.size(), kPoison);
        EXPECT_TRUE(output.is_untouched_outside(poisoned, 0, output.width)) << what;
    }

    std::int64_t rows;
    std::int32_t width;
    std::int32_t gelu_width;
    bool together;
    Matrix plain;
    Matrix others;
    Matrix output;
    Scales scales;
};

TEST_F(GpuTokenwise, Quantizes) {
    struct Case {
        std::int64_t rows;
        std::int32_t width;
        std::int32_t gelu_width;
    };
    for (const auto& [rows, width, gelu_width] :
         {Case{513, 3072, 0}, Case{7, 12288, 0}, Case{7, 0, 12288}, Case{8, 3072, 12288}, Case{1, 15360, 0},
          Case{17, 64, 0}, Case{9, 8, 8}, Case{9, 1000, 24}, Case{9, 24, 1000}, Case{8, 8192, 8192}, Case{8, 0, 56}}) {
        for (const bool together : {true, false}) {
            Quantization quantization(rows, width, gelu_width, together);
            fill_rows(quantization.plain, random);
            fill_rows(quantization.others, random);
            quantization.run();
            quantization.expect_right(together ? "one buffer" : "two buffers");
        }
    }
}

// Rows whose largest magnitude is GELU of a negative number, of a small one, and of the dip itself.
TEST_F(GpuTokenwise, QuantizesWhereGeluIsSmall) {
    std::uniform_real_distribution<float> uniform;
    for (const std::int32_t width : {0, 3072}) {
        Quantization quantization(40, width, 12288, true);
        quantization.plain.fill([&](std::int64_t row, std::int64_t channel) {
            const float x = uniform(random);
            if (channel < width) {
                return x * 1e-3F;
            }
            switch (row % 5) {
                case 0:
                    return -2 * x;
                case 1:
                    return -1 - 3 * x;
                case 2:
                    return -0.7F * x;
                case 3:
                    return x > 0.5F ? 0.275F : -0.75F;
                default:
                    return (x - 0.5F) * 1e-3F;
            }
        });
        quantization.run();
        quantization.expect_right("small GELU");
    }
}

// A row for each number, so that its scale tells GELU itself.
TEST_F(GpuTokenwise, QuantizesGeluFarOut) {
    const std::array<float, 16> numbers = {0.0F,  -0.0F, 1e-30F, -1e-30F, 0.75F,  -0.75F, 3.0F,  -3.0F,
                                           -5.0F, -8.0F, -10.0F, -12.0F,  -40.0F, 40.0F,  3e38F, -3e38F};
    Quantization quantization(16, 0, 8, true);
    quantization.plain.fill([&](std::int64_t row, std::int64_t) { return numbers[static_cast<std::size_t>(row)]; });
    quantization.run();
    const std::vector<float> scales = quantization.scales.read();
    for (std::int64_t row = 0; row < 16; ++row) {
        const float number = numbers[static_cast<std::size_t>(row)];
        const double x = quantization.plain.get(row, 0);
        const Expected expected = x < -1e30 ? Expected{0, 0} : x > 1e30 ? Expected{x, 0} : gelu(x);
        expect_e4m3_row(std::vector<Expected>(8, expected), quantization.output, row,
                        scales[static_cast<std::size_t>(row)], std::to_string(number));
    }
}

TEST_F(GpuTokenwise, QuantizesZerosWithAScaleAboveZero) {
    Quantization quantization(3, 64, 32, true);
    quantization.plain.fill([](std::int64_t row, std::int64_t) { return row == 1 ? 1.0F : -0.0F; });
    quantization.run();
    const std::vector<float> scales = quantization.scales.read();
    EXPECT_EQ(scales[0], 0x1p-100F);
    EXPECT_NEAR(scales[1], 1.0F / 448, 1e-8F);
    EXPECT_EQ(scales[2], 0x1p-100F);
    for (std::int64_t channel = 0; channel < 96; ++channel) {
        EXPECT_EQ(from_e4m3(quantization.output.code(0, channel)), 0);
        EXPECT_EQ(from_e4m3(quantization.output.code(2, channel)), 0);
    }
}

// What comes of a NaN or an infinity shows, whichever part of a row it is in.
TEST_F(GpuTokenwise, ShowsWhatIsNotFinite) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (const float number : {kInfinity, -kInfinity, std::nanf("")}) {
        for (const std::int64_t channel : {0, 63, 64, 95}) {
            Quantization quantization(2, 64, 32, true);
            quantization.plain.fill(
                [&](std::int64_t row, std::int64_t c) { return row == 1 && c == channel ? number : 1.0F; });
            quantization.run();
            const std::vector<float> scales = quantization.scales.read();
            EXPECT_NEAR(scales[0], 1.0F / 448, 1e-8F);
            const double value = from_e4m3(quantization.output.code(1, channel)) * static_cast<double>(scales[1]);
            EXPECT_TRUE(std::isnan(value)) << number << " in channel " << channel;
        }
        Block block({2, 0, 64, 0}, random);
        block.hidden.fill(
            [&](std::int64_t row, std::int64_t c) { return row == 1 && c == 9 ? number : static_cast<float>(c); });
        Matrix output(2, 64, SCALEDIT_E4M3);
        const Scales scales(2);
        block.modulate(false, output, scales);
        EXPECT_TRUE(std::isfinite(scales.read()[0]));
        EXPECT_TRUE(std::isnan(scales.read()[1])) << number;
    }
}

TEST_F(GpuTokenwise, GivesTheSameBitsEveryTime) {
    const auto results = [&] {
        std::vector<std::vector<std::byte>> all;
        random.seed(99);
        for (const std::int32_t width : {3072, 520}) {
            Block block({7, 2, width, 8}, random);
            for (const std::int32_t dtype : {SCALEDIT_BFLOAT16, SCALEDIT_E4M3}) {
                Matrix output(7, width, dtype);
                const Scales scales(7);
                block.modulate(true, output, scales);
                all.push_back(output.host);
                all.push_back(block.hidden.host);
            }
            block.add_gated();
            all.push_back(block.hidden.host);
            Quantization quantization(7, width, 4 * width, true);
            fill_rows(quantization.plain, random);
            quantization.run();
            all.push_back(quantization.output.host);
        }
        return all;
    };
    const auto first = results();
    for (int i = 0; i < 3; ++i) {
        EXPECT_TRUE(results() == first);
    }
}

TEST_F(GpuTokenwise, IsCapturedByAGraph) {
    Block block({33, 5, 3072, 0}, random);
    Matrix output(33, 3072, SCALEDIT_E4M3);
    const Scales scales(33);
    Quantization quantization(33, 3072, 12288, true);
    fill_rows(quantization.plain, random);

    run_by_graph([&](cudaStream_t stream) {
        scaledit_cuda_modulate_arguments modulate = block.modulate_arguments(true, output, scales);
        modulate.stream = stream;
        scaledit_cuda_quantize_arguments quantize = quantization.arguments();
        quantize.stream = stream;
        EXPECT_EQ(scaledit_cuda_modulate(&modulate), SCALEDIT_OK) << scaledit_last_error();
        EXPECT_EQ(scaledit_cuda_quantize(&quantize), SCALEDIT_OK) << scaledit_last_error();
    });
    block.hidden.read();
    output.read();
    expect_modulated(block, output, scales);
    quantization.output.read();
    quantization.expect_right("from a graph");
}

TEST_F(GpuTokenwise, RefusesWhatNoKernelMayTouch) {
    Block block({5, 2, 64, 0}, random);
    Matrix output(5, 64, SCALEDIT_E4M3);
    const Scales scales(5);
    alignas(16) static std::byte on_host[5 * 64 * 2];
    const auto refused = [&](auto change, const std::string& sentence) {
        scaledit_cuda_modulate_arguments arguments = block.modulate_arguments(true, output, scales);
        change(arguments);
        EXPECT_EQ(scaledit_cuda_modulate(&arguments), SCALEDIT_INVALID_ARGUMENT);
        EXPECT_NE(std::string(scaledit_last_error()).find(sentence), std::string::npos) << scaledit_last_error();
    };
    refused([](auto& a) { a.hidden.data = on_host; }, "hidden.data is in the host's memory");
    refused([](auto& a) { a.update.data = on_host; }, "update.data is in the host's memory");
    refused([](auto& a) { a.gate.guidance = on_host; }, "gate.guidance is in the host's memory");
    refused([](auto& a) { a.shift.current = on_host; }, "shift.current is in the host's memory");
    refused([](auto& a) { a.output.data = on_host; }, "output.data is in the host's memory");
    refused([](auto& a) { a.output_scale = reinterpret_cast<float*>(on_host); },
            "output_scale is in the host's memory");
    refused([](auto& a) { a.output.data = a.hidden.data; }, "output.data overlaps hidden.data");
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(output.device.read(), output.host) << "nothing is launched";
    EXPECT_EQ(block.hidden.device.read(), block.hidden.host) << "nothing is launched";
}

// Queries or keys of a projection, beside others of it.
struct Heads {
    Heads(std::int64_t row_count, std::int64_t text_row_count, std::int32_t head_count, std::int32_t channels,
          std::uint32_t seed)
        : rows(row_count),
          text_rows(text_row_count),
          heads(head_count),
          head_dim(channels),
          input(rows, heads * head_dim, SCALEDIT_BFLOAT16, 40),
          gradient(rows, heads * head_dim, SCALEDIT_BFLOAT16, 8),
          output(rows, heads * head_dim, SCALEDIT_BFLOAT16, 24),
          norms(2, head_dim) {
        std::mt19937 random(seed);
        std::normal_distribution<float> normal;
        input.fill([&](auto, auto) { return 3 * normal(random); });
        gradient.fill([&](auto, auto) { return normal(random); });
        norms.fill([&](auto, auto) { return 1 + normal(random) / 4; });
        std::vector<std::byte> bytes(static_cast<std::size_t>(rows * head_dim) * sizeof(float));
        for (std::int64_t pair = 0; pair < rows * head_dim / 2; ++pair) {
            const double angle = 3 * static_cast<double>(normal(random));
            for (const double part : {std::cos(angle), std::sin(angle)}) {
                const auto rounded = static_cast<float>(part);
                std::memcpy(&bytes[turns.size() * sizeof(float)], &rounded, sizeof(float));
                turns.push_back(static_cast<double>(rounded));
            }
        }
        rotation = std::make_unique<DeviceMemory>(bytes);
    }

    [[nodiscard]] scaledit_cuda_norm_and_rotate_arguments arguments(bool of_gradient) const {
        scaledit_cuda_norm_and_rotate_arguments a{};
        a.rows = rows;
        a.text_rows = text_rows;
        a.heads = heads;
        a.head_dim = head_dim;
        a.epsilon = static_cast<float>(kEpsilon);
        a.norm = norms.device.data();
        a.text_norm = norms.device.data() + 2 * head_dim;
        a.rotation = reinterpret_cast<const float*>(rotation->data());
        a.input = input.view();
        if (of_gradient) {
            a.output_gradient = gradient.view();
        }
        a.output = output.view();
        return a;
    }

    // What a head of a token becomes, or the gradient of its channels, in float64.
    [[nodiscard]] std::vector<double> expected(std::int64_t row, std::int64_t head, bool of_gradient) const {
        const auto size = static_cast<std::size_t>(head_dim);
        std::vector<double> x(size);
        std::vector<double> weight(size);
        std::vector<double> dy(size);
        double squares = 0;
        for (std::int64_t i = 0; i < head_dim; ++i) {
            const auto at = static_cast<std::size_t>(i);
            x[at] = input.get(row, head * head_dim + i);
            dy[at] = gradient.get(row, head * head_dim + i);
            weight[at] = norms.get(row < text_rows ? 1 : 0, i);
            squares += x[at] * x[at];
        }
        const double factor = 1 / std::sqrt(squares / head_dim + kEpsilon);
        std::vector<double> result(size);
        double both = 0;
        for (std::size_t i = 0; i < size; i += 2) {
            const std::size_t turn = static_cast<std::size_t>(row) * size + i;
            const double cosine = turns[turn];
            const double sine = turns[turn + 1];
            const double a = x[i] * factor * weight[i];
            const double b = x[i + 1] * factor * weight[i + 1];
            if (of_gradient) {
                result[i] = weight[i] * (dy[i] * cosine + dy[i + 1] * sine);
                result[i + 1] = weight[i + 1] * (dy[i + 1] * cosine - dy[i] * sine);
                both += factor * (result[i] * x[i] + result[i + 1] * x[i + 1]);
            } else {
                result[i] = a * cosine - b * sine;
                result[i + 1] = b * cosine + a * sine;
            }
        }
        for (std::size_t i = 0; of_gradient && i < size; ++i) {
            result[i] = factor * (result[i] - x[i] * factor * both / head_dim);
        }
        return result;
    }

    std::int64_t rows;
    std::int64_t text_rows;
    std::int32_t heads;
    std::int32_t head_dim;
    Matrix input, gradient, output, norms;
    std::vector<double> turns;
    std::unique_ptr<DeviceMemory> rotation;
};

TEST_F(GpuTokenwise, NormsAndRotates) {
    for (const bool of_gradient : {false, true}) {
        for (const std::int32_t head_dim : {64, 128}) {
            for (const auto& [rows, text_rows, heads] : {std::tuple{1, 0, 1}, {7, 7, 3}, {37, 5, 24}, {129, 0, 5}}) {
                Heads call(rows, text_rows, heads, head_dim, 7);
                const scaledit_cuda_norm_and_rotate_arguments arguments = call.arguments(of_gradient);
                const std::vector<std::byte> before = call.output.host;
                ASSERT_EQ(scaledit_cuda_norm_and_rotate(&arguments), SCALEDIT_OK) << scaledit_last_error();
                ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
                call.output.read();
                EXPECT_TRUE(call.output.is_untouched_outside(before, 0, call.output.width));
                double off = 0;
                double whole = 0;
                for (std::int64_t row = 0; row < rows; ++row) {
                    for (std::int64_t head = 0; head < heads; ++head) {
                        const std::vector<double> expected = call.expected(row, head, of_gradient);
                        for (std::int64_t i = 0; i < head_dim; ++i) {
                            const double value = expected[static_cast<std::size_t>(i)];
                            const double difference = call.output.get(row, head * head_dim + i) - value;
                            off += difference * difference;
                            whole += value * value;
                        }
                    }
                }
                EXPECT_LE(std::sqrt(off / whole), 2.5e-3) << "bfloat16 rounds the result, " << rows << " rows";
            }
        }
    }
}

// A picture's channels, some far off zero, beside others.
struct Picture {
    Picture(std::int64_t row_count, std::int32_t channel_count, std::int32_t group_count)
        : rows(row_count),
          channels(channel_count),
          groups(group_count),
          input(rows, channels, SCALEDIT_BFLOAT16, 16),
          output(rows, channels, SCALEDIT_BFLOAT16, 8),
          weight(1, channels),
          bias(1, channels) {
        std::mt19937 random(17);
        std::normal_distribution<float> normal;
        // At 2,000 bfloat16 has steps of 8: a variance that was the difference of squares would be lost.
        input.fill([&](auto, auto channel) {
            const float from[] = {20, 0, 2000};
            return normal(random) * (channel / 8 % 3 == 2 ? 16.0F : 1.0F) + from[channel / 8 % 3];
        });
        weight.fill([&](auto, auto) { return 1 + normal(random) / 4; });
        bias.fill([&](auto, auto) { return normal(random); });
        std::size_t bytes = 0;
        scaledit_cuda_group_norm_arguments a = arguments(false);
        EXPECT_EQ(scaledit_cuda_group_norm_workspace(&a, &bytes), SCALEDIT_OK) << scaledit_last_error();
        workspace = std::make_unique<DeviceMemory>(bytes);
        workspace_bytes = bytes;
    }

    [[nodiscard]] scaledit_cuda_group_norm_arguments arguments(bool silu) const {
        scaledit_cuda_group_norm_arguments a{};
        a.rows = rows;
        a.channels = channels;
        a.groups = groups;
        a.epsilon = static_cast<float>(kEpsilon);
        a.silu = silu ? 1 : 0;
        a.weight = weight.device.data();
        a.bias = bias.device.data();
        a.input = input.view();
        a.output = output.view();
        a.workspace = workspace ? workspace->data() : nullptr;
        a.workspace_bytes = workspace_bytes;
        return a;
    }

    // [rows, channels] in float64
    [[nodiscard]] std::vector<double> expected(bool silu) const {
        const std::int32_t size = channels / groups;
        std::vector<double> result(static_cast<std::size_t>(rows * channels));
        for (std::int32_t group = 0; group < groups; ++group) {
            double sum = 0;
            double squares = 0;
            const auto each = [&](auto body) {
                for (std::int64_t row = 0; row < rows; ++row) {
                    for (std::int64_t channel = group * size; channel < (group + 1) * size; ++channel) {
                        body(row, channel, input.get(row, channel));
                    }
                }
            };
            each([&](auto, auto, double x) { sum += x; });
            const double mean = sum / static_cast<double>(rows * size);
            each([&](auto, auto, double x) { squares += (x - mean) * (x - mean); });
            const double factor = 1 / std::sqrt(squares / static_cast<double>(rows * size) + kEpsilon);
            each([&](std::int64_t row, std::int64_t channel, double x) {
                const double y = (x - mean) * factor * weight.get(0, channel) + bias.get(0, channel);
                result[static_cast<std::size_t>(row * channels + channel)] = silu ? y / (1 + std::exp(-y)) : y;
            });
        }
        return result;
    }

    std::int64_t rows;
    std::int32_t channels;
    std::int32_t groups;
    Matrix input, output, weight, bias;
    std::unique_ptr<DeviceMemory> workspace;
    std::size_t workspace_bytes = 0;
};

TEST_F(GpuTokenwise, NormsGroups) {
    for (const auto& [rows, channels, groups] : {std::tuple{1, 8, 1},
                                                 {5, 8, 8},
                                                 {77, 16, 4},
                                                 {1000, 128, 32},
                                                 {70'000, 128, 32},
                                                 {3000, 256, 32},
                                                 {3001, 512, 32},
                                                 {300, 1024, 32},
                                                 {513, 40, 5}}) {
        for (const bool silu : {false, true}) {
            Picture picture(rows, channels, groups);
            const scaledit_cuda_group_norm_arguments arguments = picture.arguments(silu);
            const std::vector<std::byte> before = picture.output.host;
            ASSERT_EQ(scaledit_cuda_group_norm(&arguments), SCALEDIT_OK) << scaledit_last_error();
            ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
            picture.output.read();
            EXPECT_TRUE(picture.output.is_untouched_outside(before, 0, channels));
            const std::vector<double> expected = picture.expected(silu);
            double off = 0;
            double whole = 0;
            for (std::int64_t row = 0; row < rows; ++row) {
                for (std::int64_t channel = 0; channel < channels; ++channel) {
                    const double value = expected[static_cast<std::size_t>(row * channels + channel)];
                    const double difference = picture.output.get(row, channel) - value;
                    off += difference * difference;
                    whole += value * value;
                }
            }
            EXPECT_LE(std::sqrt(off / whole), 2.5e-3) << rows << " x " << channels << ": bfloat16 rounds the result";
            const std::vector<std::byte> once = picture.output.host;
            ASSERT_EQ(scaledit_cuda_group_norm(&arguments), SCALEDIT_OK) << scaledit_last_error();
            picture.output.read();
            EXPECT_EQ(picture.output.host, once) << "the same bits every time";
        }
    }
}

TEST_F(GpuTokenwise, NormsAllHeadsAlikeWithoutANormOfTheText) {
    Heads call(9, 4, 2, 64, 8);
    call.norms.fill([&](auto, auto channel) { return static_cast<float>(call.norms.get(0, channel)); });
    scaledit_cuda_norm_and_rotate_arguments arguments = call.arguments(false);
    ASSERT_EQ(scaledit_cuda_norm_and_rotate(&arguments), SCALEDIT_OK) << scaledit_last_error();
    call.output.read();
    const std::vector<std::byte> with_both = call.output.host;
    arguments.text_norm = nullptr;
    call.output.device.write(std::vector<std::byte>(with_both.size(), kPoison));
    ASSERT_EQ(scaledit_cuda_norm_and_rotate(&arguments), SCALEDIT_OK) << scaledit_last_error();
    call.output.read();
    EXPECT_EQ(call.output.host, with_both);
}

}  // namespace
}  // namespace scaledit

// What training does to the tokens of a batch of pictures: the kernels against float64.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "attention_reference.h"
#include "cuda/gpu.h"
#include "cuda/matrix.h"

namespace scaledit {
namespace {

constexpr double kEpsilon = 1e-6;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class GpuBatch : public Gpu {};

// As many rows for each picture, with room between the rows of each matrix.
struct Shape {
    std::int64_t pictures;
    std::int64_t picture_rows;
    std::int32_t width;
    std::int64_t gap = 0;

    [[nodiscard]] std::int64_t rows() const { return pictures * picture_rows; }
};
std::string name_of(const Shape& shape) {
    return std::to_string(shape.pictures) + " x " + std::to_string(shape.picture_rows) + " x " +
           std::to_string(shape.width);
}

// Rows for a warp each, for a block and for a large one; some fill it, some do not.
constexpr Shape kShapes[] = {{1, 1, 8},       {3, 37, 40, 8},   {3, 37, 256, 16}, {1, 37, 264}, {5, 1, 256},
                             {2, 9, 512, 24}, {2, 20, 3072, 8}, {2, 3, 4104},     {1, 5, 8192}, {2, 300, 256},
                             {1, 150, 1024},  {70'000, 1, 8},   {3, 37, 16},      {2, 11, 4096}};
// Without gradients, whose parts are the caller's: so many that a warp, or a block, has several rows.
constexpr Shape kManyShapes[] = {{3000, 40, 40}, {1500, 13, 264}};

// A bfloat16 matrix of normal numbers.
struct NormalMatrix : Matrix {
    NormalMatrix(std::int64_t row_count, std::int64_t channels, std::int64_t gap, std::uint32_t seed,
                 float deviation = 1)
        : Matrix(row_count, channels, SCALEDIT_BFLOAT16, gap) {
        std::mt19937 random(seed);
        std::normal_distribution<float> normal(0, deviation);
        fill([&](auto, auto) { return normal(random); });
    }
};

scaledit_picture_vectors vectors(const Matrix& matrix) { return {matrix.view().data, matrix.stride}; }
scaledit_picture_gradients gradients(const Matrix& matrix) {
    return {static_cast<float*>(matrix.view().data), matrix.stride};
}

template <typename Arguments>
void run(scaledit_status (*call)(const Arguments*), const Arguments& arguments) {
    ASSERT_EQ(call(&arguments), SCALEDIT_OK) << scaledit_last_error();
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

// Runs a call twice: the same bits, and nothing is written beside the rows. `written` are matrices as they were before.
template <typename Arguments>
void run_twice(scaledit_status (*call)(const Arguments*), const Arguments& arguments,
               const std::vector<Matrix*>& written, const std::string& what) {
    std::vector<std::vector<std::byte>> before;
    for (const Matrix* matrix : written) {
        before.push_back(matrix->host);
    }
    run(call, arguments);
    for (std::size_t i = 0; i < written.size(); ++i) {
        written[i]->read();
        EXPECT_TRUE(written[i]->is_untouched_outside(before[i], 0, written[i]->width)) << what << ", " << i;
        written[i]->device.write(before[i]);
    }
    run(call, arguments);
    for (std::size_t i = 0; i < written.size(); ++i) {
        EXPECT_TRUE(written[i]->device.read() == written[i]->host) << "the same bits every time: " << what << ", " << i;
    }
}

// expected(row, channel) is what a bfloat16 matrix holds but for its rounding.
template <typename Value>
void expect_rows(const Matrix& got, const Value& expected, const std::string& what) {
    for (std::int64_t row = 0; row < got.rows; ++row) {
        for (std::int64_t channel = 0; channel < got.width; ++channel) {
            const Expected number = expected(row, channel);
            const double off = std::abs(got.get(row, channel) - number.value);
            if (!(off <= 1.001 * 0x1p-8 * std::abs(number.value) + number.slack)) {
                FAIL() << what << ", row " << row << ", channel " << channel << ": " << got.get(row, channel)
                       << ", expected " << number.value << " with a slack of " << number.slack;
            }
        }
    }
}

// A sum in float64, and that of the magnitudes, of which float32 may lose its share.
struct Sum {
    double value = 0;
    double magnitude = 0;
    double slack = 0;

    void add(double number, double of_number = 0) {
        value += number;
        magnitude += std::abs(number);
        slack += of_number;
    }
};

// Parts of vectors add up to what is expected: part p of vector i is row p * vectors + i.
void expect_sums(const Matrix& got, const std::vector<Sum>& expected, const std::string& what) {
    const std::int64_t count = static_cast<std::int64_t>(expected.size()) / got.width;
    for (std::int64_t vector = 0; vector < count; ++vector) {
        for (std::int64_t channel = 0; channel < got.width; ++channel) {
            const Sum& sum = expected[static_cast<std::size_t>(vector * got.width + channel)];
            double all = 0;
            for (std::int64_t row = vector; row < got.rows; row += count) {
                all += got.get(row, channel);
            }
            if (!(std::abs(all - sum.value) <= 1e-5 * sum.magnitude + sum.slack)) {
                FAIL() << what << ", vector " << vector << ", channel " << channel << ": " << all << ", expected "
                       << sum.value << " of magnitudes " << sum.magnitude;
            }
        }
    }
}

// So many parts that some have no row, or as few as one.
std::vector<std::int32_t> parts_of(const Shape& shape) {
    std::vector<std::int32_t> parts = {1};
    for (const std::int64_t other : {std::int64_t{3}, shape.picture_rows}) {
        if (parts.back() < other && other <= shape.picture_rows) {
            parts.push_back(static_cast<std::int32_t>(other));
        }
    }
    return parts;
}

// hidden in float64, as its norm leaves it.
struct NormedRow {
    double mean = 0;
    double magnitude = 0;  // the mean of them
    double factor = 0;
    std::vector<double> distance;

    NormedRow(const Matrix& hidden, std::int64_t row) {
        const auto width = static_cast<double>(hidden.width);
        for (std::int64_t channel = 0; channel < hidden.width; ++channel) {
            distance.push_back(hidden.get(row, channel));
            mean += distance.back() / width;
            magnitude += std::abs(distance.back()) / width;
        }
        double variance = 0;
        for (double& x : distance) {
            x -= mean;
            variance += x * x / width;
        }
        factor = 1 / std::sqrt(variance + kEpsilon);
    }
};

struct Modulation {
    explicit Modulation(const Shape& of)
        : shape(of),
          hidden(shape.rows(), shape.width, SCALEDIT_BFLOAT16, shape.gap),
          shift(shape.pictures, shape.width, 2 * shape.gap, 1, 0.5F),
          scale(shape.pictures, shape.width, shape.gap, 2, 0.5F),
          output(shape.rows(), shape.width, SCALEDIT_BFLOAT16, 3 * shape.gap) {
        std::mt19937 random(3);
        fill_rows(hidden, random);
    }

    [[nodiscard]] scaledit_cuda_batch_modulate_arguments arguments() const {
        return {shape.rows(),   shape.picture_rows,           shape.width,   hidden.view(), vectors(shift),
                vectors(scale), static_cast<float>(kEpsilon), output.view(), nullptr};
    }

    void expect_right() const {
        std::int64_t known = -1;
        std::unique_ptr<NormedRow> norm;
        expect_rows(
            output,
            [&](std::int64_t row, std::int64_t channel) -> Expected {
                if (row != known) {
                    norm = std::make_unique<NormedRow>(hidden, row);
                    known = row;
                }
                const std::int64_t picture = row / shape.picture_rows;
                const double distance = norm->distance[static_cast<std::size_t>(channel)];
                const double stretch = norm->factor * (1 + scale.get(picture, channel));
                const double moved = shift.get(picture, channel);
                const double slack = 1e-6 * (std::abs(stretch) * (norm->magnitude + 4 * std::abs(distance)) +
                                             norm->factor * std::abs(distance) + std::abs(moved));
                return {distance * stretch + moved, slack};
            },
            name_of(shape));
    }

    Shape shape;
    Matrix hidden;
    NormalMatrix shift, scale;
    Matrix output;
};

TEST_F(GpuBatch, NormsAndModulates) {
    for (const auto& shapes : {std::vector(std::begin(kShapes), std::end(kShapes)),
                               std::vector(std::begin(kManyShapes), std::end(kManyShapes))}) {
        for (const Shape& shape : shapes) {
            Modulation modulation(shape);
            run_twice(scaledit_cuda_batch_modulate, modulation.arguments(), {&modulation.output}, name_of(shape));
            modulation.expect_right();
            EXPECT_TRUE(modulation.hidden.device.read() == modulation.hidden.host) << name_of(shape);
        }
    }
}

struct ModulationGradient {
    ModulationGradient(const Shape& of, std::int32_t part_count, bool is_added)
        : shape(of),
          parts(part_count),
          adds(is_added),
          hidden(shape.rows(), shape.width, SCALEDIT_BFLOAT16, shape.gap),
          scale(shape.pictures, shape.width, shape.gap, 5, 0.5F),
          output_gradient(shape.rows(), shape.width, 2 * shape.gap, 6),
          hidden_gradient(shape.rows(), shape.width, SCALEDIT_BFLOAT16, 3 * shape.gap),
          shift_gradient(parts * shape.pictures, shape.width, SCALEDIT_FLOAT32, 2 * shape.gap),
          scale_gradient(parts * shape.pictures, shape.width, SCALEDIT_FLOAT32, shape.gap) {
        std::mt19937 random(7);
        fill_rows(hidden, random);
        if (adds) {
            std::normal_distribution<float> normal;
            hidden_gradient.fill([&](auto, auto) { return normal(random); });
        }
        before = hidden_gradient.host;
    }

    [[nodiscard]] scaledit_cuda_batch_modulate_gradient_arguments arguments() const {
        scaledit_cuda_batch_modulate_gradient_arguments a{};
        a.rows = shape.rows();
        a.picture_rows = shape.picture_rows;
        a.width = shape.width;
        a.parts = parts;
        a.adds = adds ? 1 : 0;
        a.epsilon = static_cast<float>(kEpsilon);
        a.hidden = hidden.view();
        a.scale = vectors(scale);
        a.output_gradient = output_gradient.view();
        a.hidden_gradient = hidden_gradient.view();
        a.shift_gradient = gradients(shift_gradient);
        a.scale_gradient = gradients(scale_gradient);
        return a;
    }

    [[nodiscard]] std::vector<Matrix*> written() { return {&hidden_gradient, &shift_gradient, &scale_gradient}; }

    // What the gradient of hidden was where it is added to.
    [[nodiscard]] double old(std::int64_t row, std::int64_t channel) const {
        std::uint16_t bits = 0;
        std::memcpy(&bits, &before[hidden_gradient.at(row, channel)], sizeof(bits));
        return adds ? static_cast<double>(from_bfloat(bits)) : 0;
    }

    [[nodiscard]] std::string what() const {
        return name_of(shape) + ", " + std::to_string(parts) + " parts" + (adds ? ", added" : "");
    }

    // Of a row: the gradients of hidden, and what is added to those of shift and scale.
    std::vector<Expected> row_gradient(std::int64_t row, Sum* shift_sums, Sum* scale_sums) const {
        const NormedRow norm(hidden, row);
        const std::int64_t picture = row / shape.picture_rows;
        const auto width = static_cast<double>(shape.width);
        std::vector<double> stretched;
        double mean = 0;
        double magnitude = 0;
        double product = 0;
        double product_magnitude = 0;
        for (std::int64_t channel = 0; channel < shape.width; ++channel) {
            const double gradient = output_gradient.get(row, channel);
            const double distance = norm.distance[static_cast<std::size_t>(channel)];
            stretched.push_back(gradient * (1 + scale.get(picture, channel)));
            mean += stretched.back() / width;
            magnitude += std::abs(stretched.back()) / width;
            product += stretched.back() * distance / width;
            product_magnitude += std::abs(stretched.back() * distance) / width;
            shift_sums[channel].add(gradient);
            scale_sums[channel].add(gradient * distance * norm.factor,
                                    1e-6 * std::abs(gradient) * norm.factor * norm.magnitude);
        }
        const double slope = product * norm.factor * norm.factor;
        const double slope_slack =
            norm.factor * norm.factor * (product_magnitude + magnitude * norm.magnitude) + std::abs(slope);
        std::vector<Expected> expected;
        for (std::int64_t channel = 0; channel < shape.width; ++channel) {
            const double distance = norm.distance[static_cast<std::size_t>(channel)];
            const double of_row = stretched[static_cast<std::size_t>(channel)];
            const double value = norm.factor * (of_row - mean - distance * slope) + old(row, channel);
            const double slack =
                2e-6 * norm.factor *
                (std::abs(of_row) + magnitude + std::abs(distance) * slope_slack + norm.magnitude * std::abs(slope));
            expected.push_back({value, slack + 1e-7 * std::abs(old(row, channel))});
        }
        return expected;
    }

    void expect_right() const {
        const std::size_t count = static_cast<std::size_t>(shape.pictures * shape.width);
        std::vector<Sum> shift_sums(count);
        std::vector<Sum> scale_sums(count);
        std::int64_t known = -1;
        std::vector<Expected> expected;
        expect_rows(
            hidden_gradient,
            [&](std::int64_t row, std::int64_t channel) {
                if (row != known) {
                    const std::int64_t first = row / shape.picture_rows * shape.width;
                    expected = row_gradient(row, &shift_sums[static_cast<std::size_t>(first)],
                                            &scale_sums[static_cast<std::size_t>(first)]);
                    known = row;
                }
                return expected[static_cast<std::size_t>(channel)];
            },
            what());
        if (!testing::Test::HasFailure()) {
            expect_sums(shift_gradient, shift_sums, "shift, " + what());
            expect_sums(scale_gradient, scale_sums, "scale, " + what());
        }
    }

    Shape shape;
    std::int32_t parts;
    bool adds;
    Matrix hidden;
    NormalMatrix scale, output_gradient;
    Matrix hidden_gradient, shift_gradient, scale_gradient;
    std::vector<std::byte> before;
};

TEST_F(GpuBatch, GivesTheGradientOfModulation) {
    for (const Shape& shape : kShapes) {
        for (const std::int32_t parts : parts_of(shape)) {
            for (const bool adds : {false, true}) {
                ModulationGradient gradient(shape, parts, adds);
                run_twice(scaledit_cuda_batch_modulate_gradient, gradient.arguments(), gradient.written(),
                          gradient.what());
                gradient.expect_right();
                if (HasFailure()) {
                    return;
                }
            }
        }
    }
}

struct GatedSum {
    explicit GatedSum(const Shape& of)
        : shape(of),
          hidden(shape.rows(), shape.width, shape.gap, 11, 3),
          update(shape.rows(), shape.width, 2 * shape.gap, 12),
          gate(shape.pictures, shape.width, shape.gap, 13),
          output(shape.rows(), shape.width, SCALEDIT_BFLOAT16, 3 * shape.gap) {}

    [[nodiscard]] scaledit_cuda_batch_add_gated_arguments arguments() const {
        return {shape.rows(),  shape.picture_rows, shape.width,   hidden.view(),
                update.view(), vectors(gate),      output.view(), nullptr};
    }

    void expect_right() const {
        expect_rows(
            output,
            [&](std::int64_t row, std::int64_t channel) -> Expected {
                return {
                    hidden.get(row, channel) + gate.get(row / shape.picture_rows, channel) * update.get(row, channel),
                    0};
            },
            name_of(shape));
    }

    Shape shape;
    NormalMatrix hidden, update, gate;
    Matrix output;
};

TEST_F(GpuBatch, AddsUnderAGate) {
    for (const auto& shapes : {std::vector(std::begin(kShapes), std::end(kShapes)),
                               std::vector(std::begin(kManyShapes), std::end(kManyShapes))}) {
        for (const Shape& shape : shapes) {
            GatedSum sum(shape);
            run_twice(scaledit_cuda_batch_add_gated, sum.arguments(), {&sum.output}, name_of(shape));
            sum.expect_right();
            EXPECT_TRUE(sum.hidden.device.read() == sum.hidden.host) << name_of(shape);
        }
    }
}

struct GatedSumGradient {
    GatedSumGradient(const Shape& of, std::int32_t part_count)
        : shape(of),
          parts(part_count),
          update(shape.rows(), shape.width, shape.gap, 21),
          gate(shape.pictures, shape.width, shape.gap, 22),
          output_gradient(shape.rows(), shape.width, 2 * shape.gap, 23),
          update_gradient(shape.rows(), shape.width, SCALEDIT_BFLOAT16, 3 * shape.gap),
          gate_gradient(parts * shape.pictures, shape.width, SCALEDIT_FLOAT32, shape.gap) {}

    [[nodiscard]] scaledit_cuda_batch_add_gated_gradient_arguments arguments() const {
        return {shape.rows(),
                shape.picture_rows,
                shape.width,
                parts,
                update.view(),
                vectors(gate),
                output_gradient.view(),
                update_gradient.view(),
                gradients(gate_gradient),
                nullptr};
    }

    [[nodiscard]] std::vector<Matrix*> written() { return {&update_gradient, &gate_gradient}; }
    [[nodiscard]] std::string what() const { return name_of(shape) + ", " + std::to_string(parts) + " parts"; }

    void expect_right() const {
        std::vector<Sum> sums(static_cast<std::size_t>(shape.pictures * shape.width));
        expect_rows(
            update_gradient,
            [&](std::int64_t row, std::int64_t channel) -> Expected {
                const std::int64_t picture = row / shape.picture_rows;
                const double gradient = output_gradient.get(row, channel);
                sums[static_cast<std::size_t>(picture * shape.width + channel)].add(gradient *
                                                                                    update.get(row, channel));
                return {gradient * gate.get(picture, channel), 0};
            },
            what());
        if (!testing::Test::HasFailure()) {
            expect_sums(gate_gradient, sums, what());
        }
    }

    Shape shape;
    std::int32_t parts;
    NormalMatrix update, gate, output_gradient;
    Matrix update_gradient, gate_gradient;
};

TEST_F(GpuBatch, GivesTheGradientOfAGatedAddition) {
    for (const Shape& shape : kShapes) {
        for (const std::int32_t parts : parts_of(shape)) {
            GatedSumGradient gradient(shape, parts);
            run_twice(scaledit_cuda_batch_add_gated_gradient, gradient.arguments(), gradient.written(),
                      gradient.what());
            gradient.expect_right();
            if (HasFailure()) {
                return;
            }
        }
    }
}

// A stream's heads, and where its rows are in the sequences.
struct Heads {
    std::int64_t pictures;
    std::int64_t picture_rows;
    std::int64_t sequence_rows;
    std::int64_t first;
    std::int32_t heads;
    std::int32_t head_dim;

    [[nodiscard]] std::int64_t rows() const { return pictures * picture_rows; }
    [[nodiscard]] std::int32_t width() const { return heads * head_dim; }
    [[nodiscard]] std::int64_t place(std::int64_t row) const { return first + row % picture_rows; }
    [[nodiscard]] std::int64_t row_of_sequence(std::int64_t row) const {
        return row / picture_rows * sequence_rows + place(row);
    }
};
constexpr Heads kHeads[] = {{1, 1, 1, 0, 1, 64},      {3, 37, 40, 2, 2, 128}, {3, 37, 37, 0, 1, 128},
                            {5, 1, 4, 3, 3, 64},      {2, 9, 11, 1, 24, 128}, {2, 9, 12, 3, 24, 64},
                            {2, 5, 6, 0, 64, 128},    {1, 3, 5, 1, 128, 64},  {2, 20, 21, 1, 3, 128},
                            {300, 150, 151, 1, 1, 64}};

struct HeadCall {
    explicit HeadCall(const Heads& of, std::int32_t part_count = 1)
        : heads(of),
          parts(part_count),
          norm(1, heads.head_dim),
          input(heads.rows(), heads.width(), 40, 31, 3),
          output(heads.pictures * heads.sequence_rows, heads.width(), SCALEDIT_BFLOAT16, 24),
          output_gradient(heads.pictures * heads.sequence_rows, heads.width(), 8, 32),
          input_gradient(heads.rows(), heads.width(), SCALEDIT_BFLOAT16, 16),
          norm_gradient(parts, heads.head_dim, SCALEDIT_FLOAT32) {
        std::mt19937 random(33);
        std::normal_distribution<float> normal;
        norm.fill([&](auto, auto) { return 1 + normal(random) / 4; });
        std::vector<std::byte> bytes(static_cast<std::size_t>(heads.sequence_rows * heads.head_dim) * sizeof(float));
        for (std::int64_t pair = 0; pair < heads.sequence_rows * heads.head_dim / 2; ++pair) {
            const double angle = 3 * static_cast<double>(normal(random));
            for (const double part : {std::cos(angle), std::sin(angle)}) {
                const auto rounded = static_cast<float>(part);
                std::memcpy(&bytes[turns.size() * sizeof(float)], &rounded, sizeof(float));
                turns.push_back(static_cast<double>(rounded));
            }
        }
        rotation = std::make_unique<DeviceMemory>(bytes);
    }

    [[nodiscard]] scaledit_cuda_batch_norm_and_rotate_arguments arguments() const {
        scaledit_cuda_batch_norm_and_rotate_arguments a{};
        fill(a);
        a.output = output.view();
        return a;
    }
    [[nodiscard]] scaledit_cuda_batch_norm_and_rotate_gradient_arguments gradient_arguments() const {
        scaledit_cuda_batch_norm_and_rotate_gradient_arguments a{};
        fill(a);
        a.parts = parts;
        a.output_gradient = output_gradient.view();
        a.input_gradient = input_gradient.view();
        a.norm_gradient = static_cast<float*>(norm_gradient.view().data);
        return a;
    }
    template <typename Arguments>
    void fill(Arguments& a) const {
        a.rows = heads.rows();
        a.picture_rows = heads.picture_rows;
        a.sequence_rows = heads.sequence_rows;
        a.first = heads.first;
        a.heads = heads.heads;
        a.head_dim = heads.head_dim;
        a.epsilon = static_cast<float>(kEpsilon);
        a.norm = norm.view().data;
        a.rotation = reinterpret_cast<const float*>(rotation->data());
        a.input = input.view();
    }

    [[nodiscard]] std::string what() const {
        return std::to_string(heads.pictures) + " x " + std::to_string(heads.picture_rows) + ", " +
               std::to_string(heads.heads) + " x " + std::to_string(heads.head_dim) + ", " + std::to_string(parts) +
               " parts";
    }

    // Cosine and sine of a pair.
    [[nodiscard]] std::pair<double, double> turn(std::int64_t row, std::int64_t channel) const {
        const std::int64_t pair = channel % heads.head_dim / 2 * 2;
        const auto at = static_cast<std::size_t>(heads.place(row) * heads.head_dim + pair);
        return {turns[at], turns[at + 1]};
    }
    [[nodiscard]] double factor(std::int64_t row, std::int64_t first) const {
        double squares = 0;
        for (std::int64_t i = first; i < first + heads.head_dim; ++i) {
            squares += std::pow(input.get(row, i), 2);
        }
        return 1 / std::sqrt(squares / heads.head_dim + kEpsilon);
    }

    void expect_right() const {
        Matrix stream(heads.rows(), heads.width());  // of the sequences
        for (std::int64_t row = 0; row < heads.rows(); ++row) {
            std::memcpy(&stream.host[stream.at(row, 0)], &output.host[output.at(heads.row_of_sequence(row), 0)],
                        static_cast<std::size_t>(heads.width()) * 2);
        }
        double size = 0;
        expect_rows(
            stream,
            [&](std::int64_t row, std::int64_t channel) -> Expected {
                if (channel % heads.head_dim == 0) {
                    size = factor(row, channel);
                }
                const auto [cosine, sine] = turn(row, channel);
                const auto normed = [&](std::int64_t i) {
                    return input.get(row, i) * size * norm.get(0, i % heads.head_dim);
                };
                const double a = normed(channel) * cosine;
                const double b = channel % 2 == 0 ? -normed(channel + 1) * sine : normed(channel - 1) * sine;
                return {a + b, 2e-6 * (std::abs(a) + std::abs(b))};
            },
            what());
    }

    void expect_right_gradient() const {
        std::vector<Sum> sums(static_cast<std::size_t>(heads.head_dim));
        std::vector<Expected> of_head(static_cast<std::size_t>(heads.head_dim));
        expect_rows(
            input_gradient,
            [&](std::int64_t row, std::int64_t channel) {
                if (channel % heads.head_dim == 0) {
                    of_head = head_gradient(row, channel, sums);
                }
                return of_head[static_cast<std::size_t>(channel % heads.head_dim)];
            },
            what());
        if (!testing::Test::HasFailure()) {
            expect_sums(norm_gradient, sums, what());
        }
    }

    [[nodiscard]] std::vector<Expected> head_gradient(std::int64_t row, std::int64_t first,
                                                      std::vector<Sum>& sums) const {
        const std::int64_t from = heads.row_of_sequence(row);
        const double size = factor(row, first);
        std::vector<Expected> weighted;  // and their magnitudes
        double mean = 0;
        double magnitude = 0;
        for (std::int64_t i = 0; i < heads.head_dim; ++i) {
            const std::int64_t channel = first + i;
            const auto [cosine, sine] = turn(row, channel);
            const double a = output_gradient.get(from, channel) * cosine;
            const double b = i % 2 == 0 ? output_gradient.get(from, channel + 1) * sine
                                        : -output_gradient.get(from, channel - 1) * sine;
            const double normed = input.get(row, channel) * size;
            const double weight = norm.get(0, i);
            sums[static_cast<std::size_t>(i)].add((a + b) * normed,
                                                  2e-6 * (std::abs(a) + std::abs(b)) * std::abs(normed));
            weighted.push_back({weight * (a + b), std::abs(weight) * (std::abs(a) + std::abs(b))});
            mean += weighted.back().value * normed / heads.head_dim;
            magnitude += weighted.back().slack * std::abs(normed) / heads.head_dim;
        }
        std::vector<Expected> expected;
        for (std::int64_t i = 0; i < heads.head_dim; ++i) {
            const double normed = input.get(row, first + i) * size;
            const auto [value, around] = weighted[static_cast<std::size_t>(i)];
            expected.push_back({size * (value - normed * mean), 2e-6 * size * (around + std::abs(normed) * magnitude)});
        }
        return expected;
    }

    Heads heads;
    std::int32_t parts;
    Matrix norm;
    NormalMatrix input;
    Matrix output;
    NormalMatrix output_gradient;
    Matrix input_gradient, norm_gradient;
    std::vector<double> turns;
    std::unique_ptr<DeviceMemory> rotation;
};

// Whether all is as it was in the rows of sequences that are not the stream's.
void expect_others_untouched(const HeadCall& call) {
    std::vector<bool> is_written(static_cast<std::size_t>(call.output.rows));
    for (std::int64_t row = 0; row < call.heads.rows(); ++row) {
        is_written[static_cast<std::size_t>(call.heads.row_of_sequence(row))] = true;
    }
    for (std::int64_t row = 0; row < call.output.rows; ++row) {
        const auto begin = call.output.host.begin() + static_cast<std::ptrdiff_t>(call.output.at(row, 0));
        ASSERT_TRUE(is_written[static_cast<std::size_t>(row)] ||
                    std::all_of(begin, begin + 2 * call.output.width, [](std::byte b) { return b == kPoison; }))
            << call.what() << ", row " << row;
    }
}

TEST_F(GpuBatch, NormsAndRotates) {
    for (const Heads& heads : kHeads) {
        HeadCall call(heads);
        run_twice(scaledit_cuda_batch_norm_and_rotate, call.arguments(), {&call.output}, call.what());
        call.expect_right();
        expect_others_untouched(call);
    }
}

TEST_F(GpuBatch, GivesTheGradientOfNormAndRotation) {
    for (const Heads& heads : kHeads) {
        for (const std::int32_t parts : {1, 3, 528}) {
            HeadCall call(heads, parts);
            run_twice(scaledit_cuda_batch_norm_and_rotate_gradient, call.gradient_arguments(),
                      {&call.input_gradient, &call.norm_gradient}, call.what());
            call.expect_right_gradient();
            if (HasFailure()) {
                return;
            }
        }
    }
}

TEST_F(GpuBatch, WritesAllPartsOfANorm) {
    HeadCall call({2, 3, 4, 1, 2, 64}, 65535);
    run(scaledit_cuda_batch_norm_and_rotate_gradient, call.gradient_arguments());
    call.input_gradient.read();
    call.norm_gradient.read();
    call.expect_right_gradient();
}

// [width plain channels, gelu_width channels that go through GELU]
struct Join {
    Join(std::int64_t row_count, std::int32_t plain_width, std::int32_t width_of_gelu)
        : rows(row_count),
          width(plain_width),
          gelu_width(width_of_gelu),
          plain(rows, std::max(width, 8), 16, 41),
          others(rows, gelu_width, 8, 42, 2),
          output(rows, width + gelu_width, SCALEDIT_BFLOAT16, 24) {}

    [[nodiscard]] scaledit_cuda_join_gelu_arguments arguments() const {
        scaledit_matrix first = plain.view();
        first.data = width > 0 ? first.data : nullptr;
        return {rows, width, gelu_width, first, others.view(), output.view(), nullptr};
    }

    void expect_right() const {
        expect_rows(
            output,
            [&](std::int64_t row, std::int64_t channel) {
                return channel < width ? Expected{plain.get(row, channel), 0} : gelu(others.get(row, channel - width));
            },
            what());
    }

    [[nodiscard]] std::string what() const {
        return std::to_string(rows) + " x " + std::to_string(width) + " + " + std::to_string(gelu_width);
    }

    std::int64_t rows;
    std::int32_t width;
    std::int32_t gelu_width;
    NormalMatrix plain, others;
    Matrix output;
};

TEST_F(GpuBatch, JoinsGelu) {
    struct Case {
        std::int64_t rows;
        std::int32_t width;
        std::int32_t gelu_width;
    };
    for (const auto& [rows, width, gelu_width] :
         {Case{1, 0, 8}, Case{37, 256, 1024}, Case{9, 0, 1024}, Case{9, 8, 8}, Case{7, 264, 40}, Case{5, 1000, 3072},
          Case{3, 3072, 12288}, Case{3, 0, 16384}, Case{3, 8192, 8192}, Case{40'000, 8, 24}}) {
        Join join(rows, width, gelu_width);
        run_twice(scaledit_cuda_join_gelu, join.arguments(), {&join.output}, join.what());
        join.expect_right();
    }
}

// The derivative of GELU, in its tanh form.
Expected gelu_slope(double x) {
    const double linear = 2 * std::sqrt(2 / 3.141592653589793);
    const double twice = linear * (x + 0.044715 * x * x * x);
    const double sigmoid = 1 / (1 + std::exp(-twice));
    const double bend = x * sigmoid * (1 - sigmoid) * linear * (1 + 3 * 0.044715 * x * x);
    const double around = std::abs(x) * sigmoid * linear * (1 + 3 * 0.044715 * x * x);  // 1 - sigmoid loses digits
    return {sigmoid + bend, (sigmoid + std::abs(bend)) * (1e-6 + 4e-7 * std::abs(twice)) + 2e-7 * around + 1e-35};
}

struct GeluGradient {
    GeluGradient(std::int64_t rows, std::int32_t width)
        : input(rows, width, 8, 51, 2),
          output_gradient(rows, width, 16, 52),
          input_gradient(rows, width, SCALEDIT_BFLOAT16, 24) {}

    [[nodiscard]] scaledit_cuda_gelu_gradient_arguments arguments() const {
        return {input.rows,
                static_cast<std::int32_t>(input.width),
                input.view(),
                output_gradient.view(),
                input_gradient.view(),
                nullptr};
    }

    void expect_right() const {
        expect_rows(
            input_gradient,
            [&](std::int64_t row, std::int64_t channel) -> Expected {
                const Expected slope = gelu_slope(input.get(row, channel));
                const double gradient = output_gradient.get(row, channel);
                return {slope.value * gradient, slope.slack * std::abs(gradient)};
            },
            std::to_string(input.rows) + " x " + std::to_string(input.width));
    }

    NormalMatrix input, output_gradient;
    Matrix input_gradient;
};

TEST_F(GpuBatch, GivesTheGradientOfGelu) {
    for (const auto& [rows, width] : {std::pair<std::int64_t, std::int32_t>{1, 8},
                                      {37, 1024},
                                      {9, 40},
                                      {7, 264},
                                      {3, 12288},
                                      {3, 16384},
                                      {40'000, 16}}) {
        GeluGradient gradient(rows, width);
        run_twice(scaledit_cuda_gelu_gradient, gradient.arguments(), {&gradient.input_gradient}, "GELU");
        gradient.expect_right();
    }
}

// Numbers far out, whose powers are infinite, and those where GELU turns.
TEST_F(GpuBatch, BearsGeluFarOut) {
    const std::vector<float> numbers = {0.0F,  -0.0F,  1e-30F, -1e-30F, 0.75F,  -0.75F, 3.0F,  -3.0F,
                                        -8.0F, -10.0F, -12.0F, 40.0F,   -40.0F, 1e20F,  3e38F, -3e38F};
    Join join(1, 0, 16);
    GeluGradient gradient(1, 16);
    const auto number = [&](auto, std::int64_t channel) { return numbers[static_cast<std::size_t>(channel)]; };
    join.others.fill(number);
    gradient.input.fill(number);
    run_twice(scaledit_cuda_join_gelu, join.arguments(), {&join.output}, "far out");
    run_twice(scaledit_cuda_gelu_gradient, gradient.arguments(), {&gradient.input_gradient}, "far out");
    for (std::int64_t channel = 0; channel < 16; ++channel) {
        const double x = join.others.get(0, channel);
        const Expected value = x < -30 ? Expected{0, 1e-35} : x > 30 ? Expected{x, 0} : gelu(x);
        expect_bfloat16(join.output.get(0, channel), value, std::to_string(x));
        const double of_output = gradient.output_gradient.get(0, channel);
        const Expected slope = x < -30 ? Expected{0, 1e-35} : x > 30 ? Expected{1, 0} : gelu_slope(x);
        expect_bfloat16(gradient.input_gradient.get(0, channel),
                        {slope.value * of_output, slope.slack * std::abs(of_output)}, std::to_string(x));
    }
}

// Parts of one buffer, as a projection leaves them and its gradient is gathered.
TEST_F(GpuBatch, TakesColumnsOfOneBuffer) {
    const Shape shape = {3, 37, 256};
    ModulationGradient alone(shape, 3, false);
    run(scaledit_cuda_batch_modulate_gradient, alone.arguments());
    for (Matrix* matrix : alone.written()) {
        matrix->read();
    }
    Matrix buffer(shape.rows(), 3 * shape.width);
    Matrix vectors_of_all(3 * shape.pictures, 3 * shape.width, SCALEDIT_FLOAT32);
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        std::memcpy(&buffer.host[buffer.at(row, 256)], &alone.hidden.host[alone.hidden.at(row, 0)], 512);
        std::memcpy(&buffer.host[buffer.at(row, 0)], &alone.output_gradient.host[alone.output_gradient.at(row, 0)],
                    512);
    }
    buffer.device.write(buffer.host);
    const std::vector<std::byte> before = buffer.host;
    const std::vector<std::byte> poisoned = vectors_of_all.host;
    scaledit_cuda_batch_modulate_gradient_arguments a = alone.arguments();
    a.hidden = buffer.view(256);
    a.output_gradient = buffer.view(0);
    a.hidden_gradient = buffer.view(512);
    a.shift_gradient = {static_cast<float*>(vectors_of_all.view(512).data), vectors_of_all.stride};
    a.scale_gradient = {static_cast<float*>(vectors_of_all.view(256).data), vectors_of_all.stride};
    run(scaledit_cuda_batch_modulate_gradient, a);
    buffer.read();
    vectors_of_all.read();
    EXPECT_TRUE(buffer.is_untouched_outside(before, 512, 768));
    EXPECT_TRUE(vectors_of_all.is_untouched_outside(poisoned, 256, 768));
    for (std::int64_t channel = 0; channel < shape.width; ++channel) {
        for (std::int64_t row = 0; row < shape.rows(); ++row) {
            ASSERT_EQ(buffer.bits(row, 512 + channel), alone.hidden_gradient.bits(row, channel));
        }
        for (std::int64_t row = 0; row < vectors_of_all.rows; ++row) {
            ASSERT_EQ(vectors_of_all.get(row, 512 + channel), alone.shift_gradient.get(row, channel));
            ASSERT_EQ(vectors_of_all.get(row, 256 + channel), alone.scale_gradient.get(row, channel));
        }
    }
}

// The matrix is NaN where `is_nan` says so and nowhere else.
void expect_nans(Matrix& matrix, const std::function<bool(std::int64_t, std::int64_t)>& is_nan,
                 const std::string& what) {
    matrix.read();
    for (std::int64_t row = 0; row < matrix.rows; ++row) {
        for (std::int64_t channel = 0; channel < matrix.width; ++channel) {
            ASSERT_EQ(std::isnan(matrix.get(row, channel)), is_nan(row, channel))
                << what << ", row " << row << ", channel " << channel;
        }
    }
}
void spoil(Matrix& matrix, std::int64_t row, std::int64_t channel) {
    const std::uint16_t bits = to_bfloat(kNan);
    std::memcpy(&matrix.host[matrix.at(row, channel)], &bits, sizeof(bits));
    matrix.device.write(matrix.host);
}

TEST_F(GpuBatch, KeepsANanToItsRowAndPicture) {
    constexpr std::int64_t kRow = 13;  // of 3 x 9, in picture 1, in part 1 of 3
    const auto is_row = [](std::int64_t row, std::int64_t) { return row == kRow; };
    const auto is_part = [](std::int64_t row, std::int64_t) { return row == 3 + 1; };
    const auto nowhere = [](std::int64_t, std::int64_t) { return false; };
    for (const std::int32_t width : {40, 256, 264, 4104}) {
        const Shape shape = {3, 9, width};
        const std::string what = name_of(shape);
        const std::int64_t spoilt = width - 3;
        const auto is_channel = [&](std::int64_t row, std::int64_t channel) {
            return row == kRow && channel == spoilt;
        };
        const auto is_channel_of_part = [&](std::int64_t row, std::int64_t channel) {
            return row == 3 + 1 && channel == spoilt;
        };
        Modulation modulation(shape);
        spoil(modulation.hidden, kRow, spoilt);
        run(scaledit_cuda_batch_modulate, modulation.arguments());
        expect_nans(modulation.output, is_row, what);

        ModulationGradient gradient(shape, 3, true);
        spoil(gradient.hidden, kRow, spoilt);
        run(scaledit_cuda_batch_modulate_gradient, gradient.arguments());
        expect_nans(gradient.hidden_gradient, is_row, what);
        expect_nans(gradient.scale_gradient, is_part, what);
        expect_nans(gradient.shift_gradient, nowhere, what);

        GatedSum sum(shape);
        spoil(sum.update, kRow, spoilt);
        run(scaledit_cuda_batch_add_gated, sum.arguments());
        expect_nans(sum.output, is_channel, what);

        GatedSumGradient gated(shape, 3);
        spoil(gated.update, kRow, spoilt);
        run(scaledit_cuda_batch_add_gated_gradient, gated.arguments());
        expect_nans(gated.update_gradient, nowhere, what);
        expect_nans(gated.gate_gradient, is_channel_of_part, what);

        GeluGradient gelu_gradient(shape.rows(), width);
        spoil(gelu_gradient.input, kRow, spoilt);
        run(scaledit_cuda_gelu_gradient, gelu_gradient.arguments());
        expect_nans(gelu_gradient.input_gradient, is_channel, what);

        Join join(shape.rows(), 16, width);
        spoil(join.others, kRow, spoilt);
        spoil(join.plain, kRow, 3);
        run(scaledit_cuda_join_gelu, join.arguments());
        expect_nans(
            join.output,
            [&](std::int64_t row, std::int64_t channel) {
                return row == kRow && (channel == 3 || channel == 16 + spoilt);
            },
            what);
    }
    for (const std::int32_t heads : {2, 5, 40}) {
        HeadCall call({3, 9, 9, 0, heads, 128}, 27);  // a part has one row
        spoil(call.input, kRow, 128 + 77);
        const auto is_head = [](std::int64_t row, std::int64_t channel) { return row == kRow && channel / 128 == 1; };
        run(scaledit_cuda_batch_norm_and_rotate, call.arguments());
        expect_nans(call.output, is_head, call.what());
        run(scaledit_cuda_batch_norm_and_rotate_gradient, call.gradient_arguments());
        expect_nans(call.input_gradient, is_head, call.what());
        expect_nans(call.norm_gradient, is_row, call.what());
    }
}

// Rows without variance have nothing but their shift, to the bit.
TEST_F(GpuBatch, NormsRowsOfOneNumberToTheShift) {
    for (const std::int32_t width : {56, 256, 1160}) {
        Modulation modulation({2, 9, width});
        modulation.hidden.fill([](std::int64_t row, std::int64_t) { return 0.37F * static_cast<float>(row) - 1; });
        run(scaledit_cuda_batch_modulate, modulation.arguments());
        modulation.output.read();
        for (std::int64_t row = 0; row < modulation.shape.rows(); ++row) {
            for (std::int64_t channel = 0; channel < width; ++channel) {
                ASSERT_EQ(modulation.output.get(row, channel), modulation.shift.get(row / 9, channel)) << width;
            }
        }
    }
}

TEST_F(GpuBatch, WithoutRowsDoesNothing) {
    const auto done = [](auto* call, auto arguments) {
        arguments.rows = 0;
        EXPECT_EQ(call(&arguments), SCALEDIT_OK) << scaledit_last_error();
    };
    ModulationGradient gradient({1, 2, 16}, 1, false);
    const HeadCall heads({1, 2, 2, 0, 1, 64});
    done(scaledit_cuda_batch_modulate, Modulation({1, 2, 16}).arguments());
    done(scaledit_cuda_batch_modulate_gradient, gradient.arguments());
    done(scaledit_cuda_batch_add_gated, GatedSum({1, 2, 16}).arguments());
    done(scaledit_cuda_batch_add_gated_gradient, GatedSumGradient({1, 2, 16}, 1).arguments());
    done(scaledit_cuda_batch_norm_and_rotate, heads.arguments());
    done(scaledit_cuda_batch_norm_and_rotate_gradient, heads.gradient_arguments());
    done(scaledit_cuda_join_gelu, Join(2, 8, 8).arguments());
    done(scaledit_cuda_gelu_gradient, GeluGradient(2, 8).arguments());
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    for (Matrix* matrix : gradient.written()) {
        EXPECT_EQ(matrix->device.read(), matrix->host);
    }
}

// Wide rows too, which ask for more shared memory than a kernel has unasked: in one graph as much for each call.
TEST_F(GpuBatch, IsCapturedByAGraph) {
    ModulationGradient widest({2, 5, 4096}, 3, true);
    ModulationGradient wide({2, 5, 512}, 3, true);
    GatedSumGradient gated({3, 9, 256}, 2);
    HeadCall heads({2, 9, 11, 1, 24, 128}, 5);
    Join join(9, 256, 1024);
    run_by_graph([&](cudaStream_t stream) {
        const auto queue = [&](auto* call, auto arguments) {
            arguments.stream = stream;
            EXPECT_EQ(call(&arguments), SCALEDIT_OK) << scaledit_last_error();
        };
        queue(scaledit_cuda_batch_modulate_gradient, widest.arguments());
        queue(scaledit_cuda_batch_modulate_gradient, wide.arguments());
        queue(scaledit_cuda_batch_add_gated_gradient, gated.arguments());
        queue(scaledit_cuda_batch_norm_and_rotate, heads.arguments());
        queue(scaledit_cuda_batch_norm_and_rotate_gradient, heads.gradient_arguments());
        queue(scaledit_cuda_join_gelu, join.arguments());
    });
    for (ModulationGradient* gradient : {&widest, &wide}) {
        for (Matrix* matrix : gradient->written()) {
            matrix->read();
        }
        gradient->expect_right();
    }
    for (Matrix* matrix : gated.written()) {
        matrix->read();
    }
    gated.expect_right();
    heads.output.read();
    heads.input_gradient.read();
    heads.norm_gradient.read();
    heads.expect_right();
    heads.expect_right_gradient();
    join.output.read();
    join.expect_right();
}

TEST_F(GpuBatch, RefusesTheHostsMemory) {
    ModulationGradient gradient({1, 4, 64}, 1, false);
    HeadCall heads({1, 4, 4, 0, 1, 64});
    Join join(4, 64, 64);
    alignas(16) static std::byte on_host[4 * 64 * 4];
    auto* const floats = reinterpret_cast<float*>(on_host);
    const auto refused = [](auto* call, auto arguments, auto change, const std::string& sentence) {
        change(arguments);
        EXPECT_EQ(call(&arguments), SCALEDIT_INVALID_ARGUMENT) << sentence;
        EXPECT_NE(std::string(scaledit_last_error()).find(sentence), std::string::npos) << scaledit_last_error();
    };
    const auto modulate = [&](auto change, const std::string& sentence) {
        refused(scaledit_cuda_batch_modulate_gradient, gradient.arguments(), change, sentence);
    };
    modulate([](auto& a) { a.hidden.data = on_host; }, "hidden.data is in the host's memory");
    modulate([](auto& a) { a.scale.data = on_host; }, "scale.data is in the host's memory");
    modulate([](auto& a) { a.output_gradient.data = on_host; }, "output_gradient.data is in the host's memory");
    modulate([](auto& a) { a.hidden_gradient.data = on_host; }, "hidden_gradient.data is in the host's memory");
    modulate([&](auto& a) { a.shift_gradient.data = floats; }, "shift_gradient.data is in the host's memory");
    modulate([&](auto& a) { a.scale_gradient.data = floats; }, "scale_gradient.data is in the host's memory");
    const auto rotate = [&](auto change, const std::string& sentence) {
        refused(scaledit_cuda_batch_norm_and_rotate_gradient, heads.gradient_arguments(), change, sentence);
    };
    rotate([](auto& a) { a.norm = on_host; }, "norm is in the host's memory");
    rotate([&](auto& a) { a.rotation = floats; }, "rotation is in the host's memory");
    rotate([](auto& a) { a.output_gradient.data = on_host; }, "output_gradient.data is in the host's memory");
    rotate([](auto& a) { a.input_gradient.data = on_host; }, "input_gradient.data is in the host's memory");
    rotate([&](auto& a) { a.norm_gradient = floats; }, "norm_gradient is in the host's memory");
    refused(
        scaledit_cuda_join_gelu, join.arguments(), [](auto& a) { a.input.data = on_host; },
        "input.data is in the host's memory");
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(gradient.hidden_gradient.device.read(), gradient.hidden_gradient.host) << "nothing is launched";
    EXPECT_EQ(heads.input_gradient.device.read(), heads.input_gradient.host) << "nothing is launched";
    EXPECT_EQ(join.output.device.read(), join.output.host) << "nothing is launched";
}

}  // namespace
}  // namespace scaledit

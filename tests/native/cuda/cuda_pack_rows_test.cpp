// Keys and values in 8 bits, as GPUs exchange them: the kernels against their definition.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "attention_reference.h"
#include "cuda/gpu.h"

namespace scaledit {
namespace {

constexpr std::int64_t kGroup = 32;  // channels that share a scale

template <typename Number>
std::vector<std::byte> bytes_of(const std::vector<Number>& numbers) {
    std::vector<std::byte> bytes(numbers.size() * sizeof(Number));
    std::memcpy(bytes.data(), numbers.data(), bytes.size());
    return bytes;
}

template <typename Number>
Number at_bytes(const std::vector<std::byte>& bytes, std::int64_t first) {
    Number number{};
    std::memcpy(&number, &bytes[static_cast<std::size_t>(first)], sizeof(number));
    return number;
}

// Queries, keys and values side by side as a projection leaves them, and a copy of it.
struct Projection {
    Projection(std::int64_t token_count, std::int32_t channels)
        : tokens(token_count),
          width(channels),
          host(static_cast<std::size_t>(tokens * 3 * width * 2), kPoison),
          device(host) {}

    // `part` is 1 for keys, 2 for values.
    [[nodiscard]] std::int64_t first(std::int64_t token, int part) const { return (token * 3 + part) * width * 2; }
    [[nodiscard]] float get(std::int64_t token, int part, std::int64_t channel) const {
        return from_bfloat(at_bytes<std::uint16_t>(host, first(token, part) + 2 * channel));
    }
    void set(std::int64_t token, int part, std::int64_t channel, std::uint16_t bits) {
        std::memcpy(&host[static_cast<std::size_t>(first(token, part) + 2 * channel)], &bits, 2);
    }
    template <class Value>
    void fill(const Value& value) {  // value(token, part, channel)
        for (std::int64_t token = 0; token < tokens; ++token) {
            for (const int part : {1, 2}) {
                for (std::int64_t channel = 0; channel < width; ++channel) {
                    set(token, part, channel, to_bfloat(value(token, part, channel)));
                }
            }
        }
        device.write(host);
    }
    [[nodiscard]] scaledit_matrix view(int part) const {
        return {device.data() + first(0, part), 3 * std::int64_t{width}, SCALEDIT_BFLOAT16};
    }

    std::int64_t tokens;
    std::int32_t width;
    std::vector<std::byte> host;
    DeviceMemory device;
};

// Keys and values as a model has them, and as none should: of any size, of one number, of zeros, with strong channels.
void fill_rows(Projection& projection, std::uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    projection.fill([&](std::int64_t token, int part, std::int64_t channel) {
        const float x = normal(random) * (channel % 100 == 5 ? 40.0F : 1.0F) + (part == 1 ? 0.5F : 0.0F);
        switch (token % 8) {
            case 2:
                return x * 1e36F;
            case 3:
                return x * 1e-8F;
            case 4:
                return x * 1e-20F;
            case 5:
                return -1234.0F;
            case 6:
                return 0.0F;
            default:
                return x;
        }
    });
}

std::int64_t row_bytes(std::int32_t width) {
    std::size_t bytes = 0;
    EXPECT_EQ(scaledit_cuda_packed_row_bytes(width, &bytes), SCALEDIT_OK) << scaledit_last_error();
    EXPECT_EQ(bytes * 8, static_cast<std::size_t>(width) * 17);
    return static_cast<std::int64_t>(bytes);
}

// Packed rows on the GPU with room behind them, and a copy.
struct Packed {
    Packed(std::int64_t row_count, std::int32_t channels)
        : rows(row_count),
          width(channels),
          bytes(row_bytes(width)),
          host(static_cast<std::size_t>(rows * bytes + kRoom), kPoison),
          device(host) {}

    [[nodiscard]] int code(std::int64_t row, int part, std::int64_t channel) const {
        return at_bytes<std::int8_t>(host, row * bytes + (part - 1) * width + channel);
    }
    [[nodiscard]] std::uint16_t scale(std::int64_t row, int part, std::int64_t channel) const {
        const std::int64_t group = ((part - 1) * width + channel) / kGroup;
        return at_bytes<std::uint16_t>(host, row * bytes + std::int64_t{2} * width + 2 * group);
    }
    // What a number becomes again, in bfloat16.
    [[nodiscard]] std::uint16_t number(std::int64_t row, int part, std::int64_t channel) const {
        return to_bfloat(static_cast<float>(code(row, part, channel)) * from_bfloat(scale(row, part, channel)));
    }
    void read() {
        host = device.read();
        EXPECT_TRUE(std::all_of(host.end() - kRoom, host.end(), [](std::byte byte) { return byte == kPoison; }));
    }

    static constexpr std::ptrdiff_t kRoom = 256;
    std::int64_t rows;
    std::int32_t width;
    std::int64_t bytes;
    std::vector<std::byte> host;
    DeviceMemory device;
};

// The largest magnitude of those that a number shares its scale with.
float largest(const Projection& projection, std::int64_t token, int part, std::int64_t channel) {
    float most = 0;
    const std::int64_t from = channel / kGroup * kGroup;
    for (std::int64_t other = from; other < from + kGroup; ++other) {
        most = std::max(most, std::abs(projection.get(token, part, other)));
    }
    return most;
}

struct Packing {
    Packing(std::int64_t tokens, std::int32_t width, std::vector<std::int64_t> numbers)
        : projection(tokens, width),
          token(std::move(numbers)),
          device_token(bytes_of(token)),
          packed(static_cast<std::int64_t>(token.size()), width) {
        fill_rows(projection, 31);
    }

    [[nodiscard]] scaledit_cuda_pack_rows_arguments arguments() const {
        return {packed.rows,          projection.tokens,
                projection.width,     projection.view(1),
                projection.view(2),   reinterpret_cast<const std::int64_t*>(device_token.data()),
                packed.device.data(), nullptr};
    }
    void run() {
        const scaledit_cuda_pack_rows_arguments a = arguments();
        ASSERT_EQ(scaledit_cuda_pack_rows(&a), SCALEDIT_OK) << scaledit_last_error();
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        packed.read();
    }
    void expect_right() const {
        for (std::int64_t row = 0; row < packed.rows; ++row) {
            for (const int part : {1, 2}) {
                for (std::int64_t channel = 0; channel < packed.width; ++channel) {
                    expect_right(row, part, channel);
                    if (testing::Test::HasFailure()) {
                        return;
                    }
                }
            }
        }
    }
    void expect_right(std::int64_t row, int part, std::int64_t channel) const {
        const std::int64_t from = token[static_cast<std::size_t>(row)];
        const auto where = [&] {
            return "row " + std::to_string(row) + " of " + std::to_string(packed.rows) + ", token " +
                   std::to_string(from) + ", part " + std::to_string(part) + ", channel " + std::to_string(channel) +
                   " of " + std::to_string(packed.width);
        };
        const float wanted = std::max(largest(projection, from, part, channel) * (1.0F / 127.0F), 0x1p-40F);
        ASSERT_EQ(packed.scale(row, part, channel), to_bfloat(wanted)) << where();
        const auto scale = static_cast<double>(from_bfloat(packed.scale(row, part, channel)));
        const auto x = static_cast<double>(projection.get(from, part, channel));
        ASSERT_LE(std::abs(packed.code(row, part, channel) - x / scale), 0.5001) << where() << ": " << x;
    }

    Projection projection;
    std::vector<std::int64_t> token;
    DeviceMemory device_token;
    Packed packed;
};

void unpack(const Packed& packed, Projection& to) {
    const scaledit_cuda_unpack_rows_arguments a = {packed.rows, packed.width, packed.device.data(),
                                                   to.view(1),  to.view(2),   nullptr};
    ASSERT_EQ(scaledit_cuda_unpack_rows(&a), SCALEDIT_OK) << scaledit_last_error();
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

// Keys and values of so many rows are what was packed, and all else is as it was.
void expect_unpacked(const Packed& packed, Projection& to) {
    for (std::int64_t row = 0; row < packed.rows; ++row) {
        for (const int part : {1, 2}) {
            for (std::int64_t channel = 0; channel < packed.width; ++channel) {
                to.set(row, part, channel, packed.number(row, part, channel));
            }
        }
    }
    EXPECT_TRUE(to.device.read() == to.host) << packed.rows << " rows of " << packed.width;
}

std::vector<std::int64_t> random_tokens(std::int64_t rows, std::int64_t tokens) {
    std::mt19937 random(7);
    std::uniform_int_distribution<std::int64_t> any(0, tokens - 1);
    std::vector<std::int64_t> numbers(static_cast<std::size_t>(rows));
    std::ranges::generate(numbers, [&] { return any(random); });
    return numbers;
}

struct Shape {
    std::int64_t rows;
    std::int64_t tokens;
    std::int32_t width;
};
// Rows that fill their blocks and others, some named again and again.
constexpr Shape kShapes[] = {{1, 1, 64},       {7, 5, 64},     {100, 9, 192},  {257, 1000, 1536},
                             {500, 300, 3072}, {64, 64, 1024}, {13, 50, 8192}, {5, 8, 576}};

class GpuPackRows : public Gpu {};

TEST_F(GpuPackRows, PacksTheRowsThatAreNamed) {
    for (const auto& [rows, tokens, width] : kShapes) {
        Packing packing(tokens, width, random_tokens(rows, tokens));
        packing.run();
        packing.expect_right();
        EXPECT_EQ(packing.projection.device.read(), packing.projection.host) << "what is read stays as it is";
        const std::vector<std::byte> once = packing.packed.host;
        packing.run();
        EXPECT_EQ(packing.packed.host, once) << "the same bits every time";
    }
}

// Between queries, which stay as they are, and before rows of other tokens.
TEST_F(GpuPackRows, UnpacksWhatWasPacked) {
    for (const auto& [rows, tokens, width] : kShapes) {
        Packing packing(tokens, width, random_tokens(rows, tokens));
        packing.run();
        Projection unpacked(rows + 2, width);
        unpack(packing.packed, unpacked);
        expect_unpacked(packing.packed, unpacked);
    }
}

// Codes and scales that no packing makes, too.
TEST_F(GpuPackRows, UnpacksEveryCode) {
    Packed packed(4, 128);
    for (std::size_t i = 0; i + Packed::kRoom < packed.host.size(); ++i) {
        packed.host[i] = static_cast<std::byte>(i);
    }
    for (std::int64_t row = 0; row < 4; ++row) {
        for (std::int64_t group = 0; group < 8; ++group) {
            const std::uint16_t scale =
                to_bfloat(std::ldexp(1.0F + static_cast<float>(group) / 8, static_cast<int>(9 * row)));
            std::memcpy(&packed.host[static_cast<std::size_t>(row * packed.bytes + 256 + 2 * group)], &scale, 2);
        }
    }
    packed.device.write(packed.host);
    Projection unpacked(4, 128);
    unpack(packed, unpacked);
    expect_unpacked(packed, unpacked);
}

TEST_F(GpuPackRows, LosesLittle) {
    constexpr std::int64_t kTokens = 256;
    constexpr std::int32_t kWidth = 1536;
    std::vector<std::int64_t> all(kTokens);
    for (std::size_t i = 0; i < all.size(); ++i) {
        all[i] = static_cast<std::int64_t>(i);
    }
    Packing packing(kTokens, kWidth, all);
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    packing.projection.fill([&](auto...) { return normal(random); });
    packing.run();
    double off = 0;
    double whole = 0;
    for (std::int64_t row = 0; row < kTokens; ++row) {
        for (const int part : {1, 2}) {
            for (std::int64_t channel = 0; channel < kWidth; ++channel) {
                const auto x = static_cast<double>(packing.projection.get(row, part, channel));
                const auto y = static_cast<double>(from_bfloat(packing.packed.number(row, part, channel)));
                off += (x - y) * (x - y);
                whole += x * x;
            }
        }
    }
    EXPECT_LE(std::sqrt(off / whole), 6.5e-3) << "e4m3 has 2.6e-2";
}

TEST_F(GpuPackRows, ShowsWhatIsNotFinite) {
    constexpr std::uint16_t kNan = 0x7fc0;
    constexpr std::uint16_t kInfinity = 0x7f80;
    for (const std::uint16_t bad : {kNan, kInfinity, static_cast<std::uint16_t>(kInfinity | 0x8000)}) {
        Packing packing(3, 128, {2, 0, 1, 0});
        Projection good(4, 128);
        packing.run();
        unpack(packing.packed, good);
        good.host = good.device.read();
        packing.projection.set(0, 1, 70, bad);
        packing.projection.set(1, 2, 127, bad);
        packing.projection.device.write(packing.projection.host);
        Projection spoilt(4, 128);
        packing.run();
        unpack(packing.packed, spoilt);
        spoilt.host = spoilt.device.read();
        for (std::int64_t row = 0; row < 4; ++row) {
            for (const int part : {1, 2}) {
                for (std::int64_t channel = 0; channel < 128; ++channel) {
                    const std::int64_t token = packing.token[static_cast<std::size_t>(row)];
                    const float found = spoilt.get(row, part, channel);
                    const std::string where = "row " + std::to_string(row) + ", part " + std::to_string(part) +
                                              ", channel " + std::to_string(channel);
                    if ((token == 0 && part == 1 && channel / kGroup == 2) ||
                        (token == 1 && part == 2 && channel / kGroup == 3)) {
                        ASSERT_FALSE(std::isfinite(found)) << where;
                    } else {
                        ASSERT_EQ(found, good.get(row, part, channel)) << where;
                    }
                }
            }
        }
    }
}

TEST_F(GpuPackRows, MakesNansOfTokensThatAreNot) {
    Packing packing(8, 64, {0, -1, 7, 8, std::numeric_limits<std::int64_t>::max(), 1});
    packing.run();
    for (std::int64_t row = 0; row < 6; ++row) {
        for (const int part : {1, 2}) {
            for (std::int64_t channel = 0; channel < 64; ++channel) {
                if (row == 1 || row == 3 || row == 4) {
                    ASSERT_TRUE(std::isnan(from_bfloat(packing.packed.scale(row, part, channel)))) << row;
                } else {
                    packing.expect_right(row, part, channel);
                }
            }
        }
    }
}

// Rows that lie so far apart that the third begins behind 2^31 elements.
TEST_F(GpuPackRows, FindsRowsBehindTwoToThe31) {
    constexpr std::int64_t kStride = (std::int64_t{1} << 30) + 64;
    constexpr std::int32_t kWidth = 128;
    constexpr std::size_t kBytes = static_cast<std::size_t>(2 * kStride + 2 * kWidth) * 2;
    Packing near(3, kWidth, {2, 1, 0, 2});
    const DeviceMemory far(kBytes);
    const auto matrix = [&](int part) {
        return scaledit_matrix{far.data() + (part - 1) * kWidth * 2, kStride, SCALEDIT_BFLOAT16};
    };
    for (std::int64_t token = 0; token < 3; ++token) {
        for (const int part : {1, 2}) {
            ASSERT_EQ(cudaMemcpy(far.data() + (token * kStride + (part - 1) * kWidth) * 2,
                                 &near.projection.host[static_cast<std::size_t>(near.projection.first(token, part))],
                                 kWidth * 2, cudaMemcpyHostToDevice),
                      cudaSuccess);
        }
    }
    scaledit_cuda_pack_rows_arguments a = near.arguments();
    a.key = matrix(1);
    a.value = matrix(2);
    ASSERT_EQ(scaledit_cuda_pack_rows(&a), SCALEDIT_OK) << scaledit_last_error();
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    near.packed.read();
    near.expect_right();

    const scaledit_cuda_unpack_rows_arguments back = {3,         kWidth,    near.packed.device.data(),
                                                      matrix(1), matrix(2), nullptr};
    ASSERT_EQ(scaledit_cuda_unpack_rows(&back), SCALEDIT_OK) << scaledit_last_error();
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    for (std::int64_t row = 0; row < 3; ++row) {
        std::vector<std::byte> found(kWidth * 4);
        ASSERT_EQ(cudaMemcpy(found.data(), far.data() + row * kStride * 2, found.size(), cudaMemcpyDeviceToHost),
                  cudaSuccess);
        for (const int part : {1, 2}) {
            for (std::int64_t channel = 0; channel < kWidth; ++channel) {
                ASSERT_EQ(at_bytes<std::uint16_t>(found, ((part - 1) * kWidth + channel) * 2),
                          near.packed.number(row, part, channel))
                    << row;
            }
        }
    }
}

TEST_F(GpuPackRows, WithoutRowsDoesNothing) {
    const scaledit_matrix nothing = {nullptr, 64, SCALEDIT_BFLOAT16};
    const scaledit_cuda_pack_rows_arguments pack = {0, 0, 64, nothing, nothing, nullptr, nullptr, nullptr};
    EXPECT_EQ(scaledit_cuda_pack_rows(&pack), SCALEDIT_OK) << scaledit_last_error();
    const scaledit_cuda_unpack_rows_arguments unpack = {0, 64, nullptr, nothing, nothing, nullptr};
    EXPECT_EQ(scaledit_cuda_unpack_rows(&unpack), SCALEDIT_OK) << scaledit_last_error();
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

TEST_F(GpuPackRows, IsCapturedByAGraph) {
    Packing packing(50, 1536, random_tokens(33, 50));
    Projection unpacked(33, 1536);
    run_by_graph([&](cudaStream_t stream) {
        scaledit_cuda_pack_rows_arguments pack = packing.arguments();
        pack.stream = stream;
        const scaledit_cuda_unpack_rows_arguments unpack = {
            33, 1536, pack.packed, unpacked.view(1), unpacked.view(2), stream};
        EXPECT_EQ(scaledit_cuda_pack_rows(&pack), SCALEDIT_OK) << scaledit_last_error();
        EXPECT_EQ(scaledit_cuda_unpack_rows(&unpack), SCALEDIT_OK) << scaledit_last_error();
    });
    packing.packed.read();
    packing.expect_right();
    expect_unpacked(packing.packed, unpacked);
}

TEST_F(GpuPackRows, RefusesTheHostsMemory) {
    Packing packing(4, 64, {3, 1});
    alignas(16) static std::byte on_host[4 * 64 * 2];
    const auto refused = [&](auto change, const std::string& sentence) {
        scaledit_cuda_pack_rows_arguments arguments = packing.arguments();
        change(arguments);
        EXPECT_EQ(scaledit_cuda_pack_rows(&arguments), SCALEDIT_INVALID_ARGUMENT);
        EXPECT_NE(std::string(scaledit_last_error()).find(sentence), std::string::npos) << scaledit_last_error();
    };
    refused([](auto& a) { a.key = {on_host, 64, SCALEDIT_BFLOAT16}; }, "key.data is in the host's memory");
    refused([](auto& a) { a.value = {on_host, 64, SCALEDIT_BFLOAT16}; }, "value.data is in the host's memory");
    refused([](auto& a) { a.token = reinterpret_cast<const std::int64_t*>(on_host); }, "token is in the host's memory");
    refused([](auto& a) { a.packed = on_host; }, "packed is in the host's memory");
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(packing.packed.device.read(), packing.packed.host) << "nothing is launched";
}

}  // namespace
}  // namespace scaledit

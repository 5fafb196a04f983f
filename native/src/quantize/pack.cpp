#include "quantize/pack.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>

namespace scaledit::quantize {
namespace {

constexpr float kInt8Limit = 127.0F;
constexpr std::int32_t kQueryOffset = 128;

// Below this all are taken for zero: what is divided by their scale must not overflow.
constexpr float kSmallestMaximum = 1e-30F;

// Nearest integer, ties to even, for |value| < 2^22: 1.5 * 2^23 leaves the integer in the low bits of the sum. Unlike
// std::lrint it becomes vector instructions on every processor.
std::int32_t round_to_int(float value) {
    constexpr float shift = 12582912.0F;
    return std::bit_cast<std::int32_t>(value + shift) - std::bit_cast<std::int32_t>(shift);
}

// Bits of |value|: they order as the numbers do, and integers are the ones whose maximum compilers vectorise.
std::int32_t magnitude_bits(float value) { return std::bit_cast<std::int32_t>(value) & 0x7fffffff; }

struct Scale {
    float forward;  // number -> integer
    float back;     // integer -> number; for zeros any number will do
};

// A NaN and an infinity are above all magnitudes: they make NaNs of all that shares their scale.
Scale scale_of(std::int32_t maximum_bits, float limit) {
    const auto maximum = std::bit_cast<float>(maximum_bits);
    if (!std::isfinite(maximum)) {
        return {0.0F, std::numeric_limits<float>::quiet_NaN()};
    }
    return maximum < kSmallestMaximum ? Scale{0.0F, 1.0F} : Scale{limit / maximum, maximum / limit};
}

Scale row_scale(const float* row, int head_dim) {
    std::int32_t maximum = 0;
    for (int i = 0; i < head_dim; ++i) {
        maximum = std::max(maximum, magnitude_bits(row[i]));
    }
    return scale_of(maximum, kInt8Limit);
}

// chunks = the row's integers plus an offset, as `Stored`. Returns the sum of the integers.
template <class Stored>
std::int32_t quantise_row(const float* row, int head_dim, float forward, std::int32_t offset, std::uint32_t* chunks) {
    std::array<Stored, kMaxHeadDim> stored{};
    std::uint32_t sum = 0;  // unsigned: an input that is not a number must not become undefined behaviour
    for (int i = 0; i < head_dim; ++i) {
        const std::int32_t integer = round_to_int(row[i] * forward);
        sum += static_cast<std::uint32_t>(integer);
        stored[static_cast<std::size_t>(i)] = static_cast<Stored>(integer + offset);
    }
    std::memcpy(chunks, stored.data(), static_cast<std::size_t>(head_dim) * sizeof(Stored));
    return static_cast<std::int32_t>(sum);
}

std::int32_t quantise_row(Element element, const float* row, int head_dim, float forward, std::int32_t offset,
                          std::uint32_t* chunks) {
    switch (element) {
        case Element::kFloat32:
            return quantise_row<float>(row, head_dim, forward, 0, chunks);
        case Element::kInt16:
            return quantise_row<std::int16_t>(row, head_dim, forward, 0, chunks);
        case Element::kInt8:
            return quantise_row<std::uint8_t>(row, head_dim, forward, offset, chunks);
    }
    return 0;
}

// What a sum of (q + kQueryOffset) * k must start from to end as the sum of q * k.
std::int32_t start_of(std::int32_t key_sum) {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(key_sum) * static_cast<std::uint32_t>(-kQueryOffset));
}

// panels <- rows[kTileTokens][chunks], transposed.
void transpose_into_panels(const std::uint32_t* rows, int chunks, int panel, std::uint32_t* panels) {
    for (int first = 0; first < kTileTokens; first += panel) {
        for (int chunk = 0; chunk < chunks; ++chunk) {
            for (int column = 0; column < panel; ++column) {
                *panels++ = rows[(first + column) * chunks + chunk];
            }
        }
    }
}

std::uint32_t pair_up(std::int32_t even, std::int32_t odd) {
    return static_cast<std::uint32_t>(static_cast<std::uint16_t>(even)) |
           static_cast<std::uint32_t>(static_cast<std::uint16_t>(odd)) << 16;
}

void pack_float_values(const float* rows, int tokens, int head_dim, const float* forward, int panel,
                       std::uint32_t* panels) {
    for (int first = 0; first < head_dim; first += panel) {
        for (int token = 0; token < kTileTokens; ++token, panels += panel) {
            std::array<float, kMaxHeadDim> row{};
            if (token < tokens) {
                const float* source = rows + token * head_dim + first;
                for (int i = 0; i < panel; ++i) {
                    row[static_cast<std::size_t>(i)] =
                        forward == nullptr ? source[i]
                                           : static_cast<float>(round_to_int(source[i] * forward[first + i]));
                }
            }
            std::memcpy(panels, row.data(), static_cast<std::size_t>(panel) * sizeof(float));
        }
    }
}

void pack_int16_values(const float* rows, int tokens, int head_dim, const float* forward, int panel,
                       std::uint32_t* panels) {
    static constexpr std::array<float, kMaxHeadDim> zeros{};
    for (int first = 0; first < head_dim; first += panel) {
        for (int token = 0; token < kTileTokens; token += 2, panels += panel) {
            const float* even = token < tokens ? rows + token * head_dim + first : zeros.data();
            const float* odd = token + 1 < tokens ? rows + (token + 1) * head_dim + first : zeros.data();
            for (int i = 0; i < panel; ++i) {
                panels[i] =
                    pair_up(round_to_int(even[i] * forward[first + i]), round_to_int(odd[i] * forward[first + i]));
            }
        }
    }
}

std::uint32_t* chunks_after(std::byte* tile, std::size_t header) {
    return reinterpret_cast<std::uint32_t*>(tile + header);
}

}  // namespace

void add_to_sums(const float* rows, int tokens, int head_dim, double* sums) {
    for (int token = 0; token < tokens; ++token, rows += head_dim) {
        for (int i = 0; i < head_dim; ++i) {
            sums[i] += static_cast<double>(rows[i]);
        }
    }
}

void pack_queries(Arithmetic arithmetic, Element element, const float* rows, int tokens, int head_dim,
                  std::uint32_t* chunks, float* scale) {
    for (int token = 0; token < tokens; ++token, rows += head_dim, chunks += kMaxHeadDim) {
        if (arithmetic == Arithmetic::kFloat32) {
            std::memcpy(chunks, rows, static_cast<std::size_t>(head_dim) * sizeof(float));
            scale[token] = 1.0F;
        } else {
            const Scale row = row_scale(rows, head_dim);
            quantise_row(element, rows, head_dim, row.forward, kQueryOffset, chunks);
            scale[token] = row.back;
        }
    }
}

void pack_keys(Arithmetic arithmetic, const TileLayout& layout, const float* rows, int tokens, int head_dim,
               std::byte* tile) {
    const int chunks = head_dim / elements_per_chunk(layout.key);
    std::array<std::uint32_t, std::size_t{kTileTokens} * kMaxHeadDim> packed;  // [kTileTokens][chunks]
    auto* header = new (tile) KeyScales;
    for (int token = 0; token < kTileTokens; ++token) {
        const float* row = rows + token * head_dim;
        std::uint32_t* target = packed.data() + token * chunks;
        header->scale[token] = 0.0F;
        header->start[token] = 0;
        if (token >= tokens) {
            std::memset(target, 0, static_cast<std::size_t>(chunks) * sizeof(std::uint32_t));
        } else if (arithmetic == Arithmetic::kFloat32) {
            std::memcpy(target, row, static_cast<std::size_t>(head_dim) * sizeof(float));
        } else {
            const Scale scale = row_scale(row, head_dim);
            header->start[token] = start_of(quantise_row(layout.key, row, head_dim, scale.forward, 0, target));
            header->scale[token] = scale.back;
        }
    }
    transpose_into_panels(packed.data(), chunks, layout.panel, chunks_after(tile, sizeof(KeyScales)));
}

void pack_values(Arithmetic arithmetic, const TileLayout& layout, const float* rows, int tokens, int head_dim,
                 std::byte* tile) {
    auto* header = new (tile) ValueScales;
    std::uint32_t* panels = chunks_after(tile, sizeof(ValueScales));
    if (arithmetic == Arithmetic::kFloat32) {
        pack_float_values(rows, tokens, head_dim, nullptr, layout.panel, panels);
        return;
    }
    std::array<std::int32_t, kMaxHeadDim> maximum{};
    for (int token = 0; token < tokens; ++token) {
        for (int i = 0; i < head_dim; ++i) {
            auto& of_channel = maximum[static_cast<std::size_t>(i)];
            of_channel = std::max(of_channel, magnitude_bits(rows[token * head_dim + i]));
        }
    }
    std::array<float, kMaxHeadDim> forward{};
    for (std::size_t i = 0; i < static_cast<std::size_t>(head_dim); ++i) {
        const Scale scale = scale_of(maximum[i], kValueLimit);
        forward[i] = scale.forward;
        header->scale[i] = scale.back;
    }
    if (layout.value == Element::kFloat32) {
        pack_float_values(rows, tokens, head_dim, forward.data(), layout.panel, panels);
    } else {
        pack_int16_values(rows, tokens, head_dim, forward.data(), layout.panel, panels);
    }
}

}  // namespace scaledit::quantize

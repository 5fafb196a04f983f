// The attention kernel, written once over a vector type and a product.
//
// Each instruction set's translation unit includes this file inside its own unnamed namespace. So nothing compiled for
// one processor can be merged by the linker with the code of another; for the same reason nothing of the standard
// library is instantiated here.
//
// Vector: float32 and 32-bit integer lanes of one instruction set.
// Product: how chunks of two operands are multiplied and summed, and how weights become chunks.

// 2^f for |f| <= 0.5, lowest power first: minimax of the relative error, 9.1e-8, with the constant term held at 1.
constexpr float kExp2Coefficients[6] = {
    1.0F, 6.931469776e-01F, 2.402224208e-01F, 5.550733744e-02F, 9.671512688e-03F, 1.326472725e-03F};

// body(0), body(1), ... body(count - 1), without a loop: what the bodies index stays in registers.
template <int count, class Body>
[[gnu::always_inline]] inline void unroll(const Body& body) {
    if constexpr (count > 0) {
        unroll<count - 1>(body);
        body(count - 1);
    }
}

// Numbers of rows that a micro-kernel multiplies at once are types, so that its accumulators are registers.
template <int value>
struct Rows {
    static constexpr int count = value;
};

template <int rows, class Body>
[[gnu::always_inline]] inline void run_last_block(int first, int left, const Body& body) {
    if (left == rows) {
        body(Rows<rows>{}, first);
    } else if constexpr (rows > 1) {
        run_last_block<rows - 1>(first, left, body);
    }
}

// body(Rows<n>, first row) for blocks of `rows` rows and one for what is left.
template <int rows, class Body>
[[gnu::always_inline]] inline void for_row_blocks(int count, const Body& body) {
    int first = 0;
    for (; first + rows <= count; first += rows) {
        body(Rows<rows>{}, first);
    }
    if constexpr (rows > 1) {
        run_last_block<rows - 1>(first, count - first, body);
    }
}

// Chunks that the micro-kernel's loop takes in one go. The depth is always a multiple: head_dim is 64 or 128, and the
// tokens of a key tile are rounded up to whole panels.
constexpr int kDepthStep = 4;

// The micro-kernel: finish(row, half, sum) for rows x two vectors of columns, with
// sum = start + rows[rows][depth chunks] x panel[depth chunks][2 vectors].
template <class Vector, class Product, int rows, int row_stride, class Finish>
[[gnu::always_inline]] inline void multiply_panel(const std::uint32_t* left, const std::uint32_t* panel, int depth,
                                                  const typename Product::Sum (&start)[2], const Finish& finish) {
    typename Product::Sum sum[rows][2];
    unroll<rows>([&](int row) __attribute__((always_inline)) {
        sum[row][0] = start[0];
        sum[row][1] = start[1];
    });
    for (int chunk = 0; chunk < depth; chunk += kDepthStep) {
        unroll<kDepthStep>([&](int step) __attribute__((always_inline)) {
            const auto column0 = Vector::load_chunks(panel + step * 2 * Vector::lanes);
            const auto column1 = Vector::load_chunks(panel + step * 2 * Vector::lanes + Vector::lanes);
            unroll<rows>([&](int row) __attribute__((always_inline)) {
                const auto element = Vector::splat_chunk(left + row * row_stride + step);
                sum[row][0] = Product::add(sum[row][0], element, column0);
                sum[row][1] = Product::add(sum[row][1], element, column1);
            });
        });
        left += kDepthStep;
        panel += kDepthStep * 2 * Vector::lanes;
    }
    unroll<rows>([&](int row) __attribute__((always_inline)) {
        finish(row, 0, Product::to_float(sum[row][0]));
        finish(row, 1, Product::to_float(sum[row][1]));
    });
}

// x[i] = 2^(x[i] * scale + exponent), to 1e-7, for powers of -126 ... 127. Each step is taken for all vectors before
// the next: one vector's chain of dependent steps would leave the processor waiting.
template <class Vector, int count>
[[gnu::always_inline]] inline void exp2(typename Vector::Float (&x)[count], typename Vector::Float scale,
                                        float exponent) {
    using Float = typename Vector::Float;
    // A sum with 1.5 * 2^23 is rounded to an integer, which stands in its low bits.
    const auto shift = Vector::splat(12582912.0F + exponent);
    Float shifted[count];
    Float power[count];
    unroll<count>([&](int i) __attribute__((always_inline)) { shifted[i] = Vector::fma(x[i], scale, shift); });
    unroll<count>([&](int i) __attribute__((always_inline)) {
        x[i] = Vector::fma(x[i], scale, Vector::sub(shift, shifted[i]));  // the fraction, -0.5 ... 0.5
        power[i] = Vector::splat(kExp2Coefficients[5]);
    });
    unroll<5>([&](int step) __attribute__((always_inline)) {
        unroll<count>([&](int i) __attribute__((always_inline)) {
            power[i] = Vector::fma(power[i], x[i], Vector::splat(kExp2Coefficients[4 - step]));
        });
    });
    unroll<count>([&](int i) __attribute__((always_inline)) { x[i] = Vector::add_exponent(power[i], shifted[i]); });
}

// Loaded at kTileTokens - n + i: +inf for token i of a tile with n tokens, -inf past its end.
struct TokenLimits {
    float limit[2 * kTileTokens] = {};
    constexpr TokenLimits() {
        for (int i = 0; i < kTileTokens; ++i) {
            limit[i] = __builtin_inff();
            limit[kTileTokens + i] = -__builtin_inff();
        }
    }
};
constexpr TokenLimits kTokenLimits;

template <class Vector, class ScoreProduct, class ValueProduct, bool quantised>
struct Attention {
    using Float = typename Vector::Float;
    static constexpr int lanes = Vector::lanes;
    static constexpr int panel = 2 * lanes;

    static constexpr Kernel kernel() {
        return {{ScoreProduct::element, ValueProduct::element, panel}, ValueProduct::weight_exponent, attend_tile};
    }

    static void attend_tile(const KeyValueTile& keys, QueryTile& queries) {
        multiply_keys(keys, queries);
        if (keys.tokens == kTileTokens) {
            update_weights<true>(kTileTokens, queries);
        } else {
            update_weights<false>(keys.tokens, queries);
        }
        multiply_values(keys, queries);
    }

    // scores[queries][tokens] = query x key. Columns up to the end of the last panel are written.
    static void multiply_keys(const KeyValueTile& keys, QueryTile& queries) {
        using Sum = typename ScoreProduct::Sum;
        const int depth = queries.head_dim / quantize::elements_per_chunk(ScoreProduct::element);
        const auto* scales = reinterpret_cast<const quantize::KeyScales*>(keys.key);
        const auto* chunks = reinterpret_cast<const std::uint32_t*>(scales + 1);
        for (int first = 0; first < keys.tokens; first += panel) {
            const Sum start[2] = {ScoreProduct::start(scales->start + first),
                                  ScoreProduct::start(scales->start + first + lanes)};
            for_row_blocks<Vector::rows>(queries.tokens, [&](auto block, int first_row) {
                multiply_panel<Vector, ScoreProduct, decltype(block)::count, kMaxHeadDim>(
                    queries.query[first_row], chunks + first * depth, depth, start,
                    [&](int row, int half, Float score) {
                        const int column = first + half * lanes;
                        if constexpr (quantised) {
                            score = Vector::mul(score, Vector::load(scales->scale + column));
                        }
                        Vector::store(queries.scores[first_row + row] + column, score);
                    });
            });
        }
    }

    // Scores become weights; maximum, reference, rescale and sum follow.
    template <bool full>
    static void update_weights(int tokens, QueryTile& queries) {
        for (int row = 0; row < queries.tokens; ++row) {
            queries.tile_maximum[row] = row_maximum<full>(queries.scores[row], tokens);
        }
        for (int row = 0; row < queries.tokens; row += lanes) {
            move_reference(queries, row);
        }
        for (int row = 0; row < queries.tokens; ++row) {
            weigh_row<full>(queries, row, tokens);
        }
    }

    // +inf for tokens that the tile has, -inf for the others.
    [[gnu::always_inline]] static inline Float limit(int token, int tokens) {
        return Vector::load(kTokenLimits.limit + kTileTokens - tokens + token);
    }

    template <bool full>
    [[gnu::always_inline]] static inline float row_maximum(const float* scores, int tokens) {
        auto maximum = Vector::load(scores);
        if constexpr (full) {
            unroll<kTileTokens / lanes>([&](int i) __attribute__((always_inline)) {
                maximum = Vector::max(maximum, Vector::load(scores + i * lanes));
            });
        } else {
            maximum = Vector::min(maximum, limit(0, tokens));
            for (int token = lanes; token < tokens; token += lanes) {
                maximum = Vector::max(maximum, Vector::min(Vector::load(scores + token), limit(token, tokens)));
            }
        }
        return Vector::highest_lane(maximum);
    }

    // For rows row ... row + lanes - 1.
    [[gnu::always_inline]] static inline void move_reference(QueryTile& queries, int row) {
        const auto tile_maximum = Vector::load(queries.tile_maximum + row);
        const auto maximum = Vector::load(queries.maximum + row);
        const auto old_reference = Vector::load(queries.reference + row);
        const auto reference = Vector::max(tile_maximum, Vector::sub(maximum, Vector::load(queries.descent + row)));
        const auto distance = Vector::mul(Vector::sub(old_reference, reference), Vector::load(queries.scale + row));
        Float rescale[1] = {Vector::max(distance, Vector::splat(-126.0F))};
        exp2<Vector>(rescale, Vector::splat(1.0F), 0.0F);
        Vector::store(queries.maximum + row, Vector::max(maximum, tile_maximum));
        Vector::store(queries.reference + row, reference);
        Vector::store(queries.rescale + row, rescale[0]);
    }

    template <bool full>
    [[gnu::always_inline]] static inline void weigh_row(QueryTile& queries, int row, int tokens) {
        constexpr int elements = quantize::elements_per_chunk(ValueProduct::element);
        const float* scores = queries.scores[row];
        auto* chunks = reinterpret_cast<std::uint32_t*>(queries.scores[row]);
        const auto scale = Vector::splat(queries.scale[row]);
        const auto reference = Vector::splat(queries.reference[row]);
        auto sum = Vector::mul(Vector::load(queries.sum[row]), Vector::splat(queries.rescale[row]));
        const auto lowest = Vector::splat(queries.lowest[row]);
        constexpr int vectors = full ? 4 : 2;
        for (int token = 0; token < tokens; token += vectors * lanes) {
            Float weight[vectors];
            unroll<vectors>([&](int i) __attribute__((always_inline)) {
                // Subtracted before it is scaled: however large the scores, the weight is not a NaN.
                weight[i] = Vector::sub(Vector::load(scores + token + i * lanes), reference);
                if constexpr (!full) {
                    weight[i] = Vector::min(weight[i], limit(token + i * lanes, tokens));
                }
                weight[i] = Vector::max(weight[i], lowest);
            });
            exp2<Vector>(weight, scale, static_cast<float>(ValueProduct::weight_exponent));
            unroll<vectors / 2>([&](int i) __attribute__((always_inline)) {
                sum = Vector::add(sum, Vector::add(weight[2 * i], weight[2 * i + 1]));
                ValueProduct::store_weights(chunks + (token + i * panel) / elements, weight[2 * i], weight[2 * i + 1]);
            });
        }
        Vector::store(queries.sum[row], sum);
    }

    // output = output * rescale + weights x value.
    static void multiply_values(const KeyValueTile& keys, QueryTile& queries) {
        using Sum = typename ValueProduct::Sum;
        constexpr int elements = quantize::elements_per_chunk(ValueProduct::element);
        const int depth = (keys.tokens + panel - 1) / panel * panel / elements;
        const auto* scales = reinterpret_cast<const quantize::ValueScales*>(keys.value);
        const auto* chunks = reinterpret_cast<const std::uint32_t*>(scales + 1);
        const auto* weights = reinterpret_cast<const std::uint32_t*>(queries.scores);
        const Sum zero[2] = {ValueProduct::zero(), ValueProduct::zero()};
        for (int first = 0; first < queries.head_dim; first += panel) {
            for_row_blocks<Vector::rows>(queries.tokens, [&](auto block, int first_row) {
                multiply_panel<Vector, ValueProduct, decltype(block)::count, kTileTokens>(
                    weights + first_row * kTileTokens, chunks + first * (kTileTokens / elements), depth, zero,
                    [&](int row, int half, Float sum) {
                        const int column = first + half * lanes;
                        if constexpr (quantised) {
                            sum = Vector::mul(sum, Vector::load(scales->scale + column));
                        }
                        float* output = queries.output[first_row + row] + column;
                        const auto rescale = Vector::splat(queries.rescale[first_row + row]);
                        Vector::store(output, Vector::fma(Vector::load(output), rescale, sum));
                    });
            });
        }
    }
};

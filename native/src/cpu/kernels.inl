// The attention kernel, written once over a vector type and a product.
//
// Each instruction set's translation unit includes this file inside its own unnamed namespace. So nothing compiled for
// one processor can be merged by the linker with the code of another; for the same reason nothing of the standard
// library is instantiated here.
//
// Vector: float32 and 32-bit integer lanes of one instruction set. min(a, b) and max(a, b) are b where one of them is a
// NaN: a limit stands first, so that a NaN shows in what comes of it.
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

// x[i] = 2^(x[i] * scale + exponent), to 1e-7, for powers of -126 ... 127; a NaN stays one. Each step is taken for all
// vectors before the next: one vector's chain of dependent steps would leave the processor waiting.
template <class Vector, int count>
[[gnu::always_inline]] inline void exp2(typename Vector::Float (&x)[count], typename Vector::Float scale,
                                        float exponent) {
    using Float = typename Vector::Float;
    // A sum with 1.5 * 2^23 is rounded to an integer, which stands in its low bits: a power's exponent, 127 for 2^0.
    const auto shift = Vector::splat(12582912.0F + 127.0F + exponent);
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
    // A product: to add to the exponent's bits would make a number of many a NaN.
    unroll<count>([&](int i) __attribute__((always_inline)) {
        x[i] = Vector::mul(power[i], Vector::power_of_two(shifted[i]));
    });
}

// finish(row, column, products) for left[rows][head_dim] x key tile, rows kMaxHeadDim apart; columns go up to the end
// of the last panel with a token.
template <class Vector, class Product, class Finish>
[[gnu::always_inline]] inline void multiply_packed_keys(const std::uint32_t* left, int rows, int head_dim,
                                                        const std::byte* key, int tokens, const Finish& finish) {
    using Sum = typename Product::Sum;
    constexpr int lanes = Vector::lanes;
    const int depth = head_dim / quantize::elements_per_chunk(Product::element);
    const auto* scales = reinterpret_cast<const quantize::KeyScales*>(key);
    const auto* chunks = reinterpret_cast<const std::uint32_t*>(scales + 1);
    for (int first = 0; first < tokens; first += 2 * lanes) {
        const Sum start[2] = {Product::start(scales->start + first), Product::start(scales->start + first + lanes)};
        for_row_blocks<Vector::rows>(rows, [&](auto block, int first_row) {
            multiply_panel<Vector, Product, decltype(block)::count, kMaxHeadDim>(
                left + first_row * kMaxHeadDim, chunks + first * depth, depth, start,
                [&](int row, int half, typename Vector::Float product) {
                    finish(first_row + row, first + half * lanes, product);
                });
        });
    }
}

// finish(row, column, products) for left[rows][tokens] x value tile, rows kTileTokens apart.
template <class Vector, class Product, class Finish>
[[gnu::always_inline]] inline void multiply_packed_values(const std::uint32_t* left, int rows, int head_dim,
                                                          const std::byte* value, int tokens, const Finish& finish) {
    using Sum = typename Product::Sum;
    constexpr int lanes = Vector::lanes;
    constexpr int panel = 2 * lanes;
    constexpr int elements = quantize::elements_per_chunk(Product::element);
    const int depth = (tokens + panel - 1) / panel * panel / elements;
    const auto* chunks =
        reinterpret_cast<const std::uint32_t*>(reinterpret_cast<const quantize::ValueScales*>(value) + 1);
    const Sum zero[2] = {Product::zero(), Product::zero()};
    for (int first = 0; first < head_dim; first += panel) {
        for_row_blocks<Vector::rows>(rows, [&](auto block, int first_row) {
            multiply_panel<Vector, Product, decltype(block)::count, kTileTokens>(
                left + first_row * kTileTokens, chunks + first * (kTileTokens / elements), depth, zero,
                [&](int row, int half, typename Vector::Float product) {
                    finish(first_row + row, first + half * lanes, product);
                });
        });
    }
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

// +inf for tokens that a tile of `tokens` has, -inf for the others.
template <class Vector>
[[gnu::always_inline]] inline typename Vector::Float token_limit(int token, int tokens) {
    return Vector::load(kTokenLimits.limit + kTileTokens - tokens + token);
}

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
        const auto* scales = reinterpret_cast<const quantize::KeyScales*>(keys.key);
        multiply_packed_keys<Vector, ScoreProduct>(
            queries.query[0], queries.tokens, queries.head_dim, keys.key,
            keys.tokens, [&](int row, int column, Float score) __attribute__((always_inline)) {
                if constexpr (quantised) {
                    score = Vector::mul(score, Vector::load(scales->scale + column));
                }
                Vector::store(queries.scores[row] + column, score);
            });
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

    // Any number where one of the scores is a NaN: weigh_row() makes a NaN of the row's sum whatever the reference.
    template <bool full>
    [[gnu::always_inline]] static inline float row_maximum(const float* scores, int tokens) {
        auto maximum = Vector::load(scores);
        if constexpr (full) {
            unroll<kTileTokens / lanes>([&](int i) __attribute__((always_inline)) {
                maximum = Vector::max(maximum, Vector::load(scores + i * lanes));
            });
        } else {
            maximum = Vector::min(token_limit<Vector>(0, tokens), maximum);
            for (int token = lanes; token < tokens; token += lanes) {
                maximum =
                    Vector::max(maximum, Vector::min(token_limit<Vector>(token, tokens), Vector::load(scores + token)));
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
        Float rescale[1] = {Vector::max(Vector::splat(-126.0F), distance)};
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
                // Subtracted before it is scaled: however large the scores, the weight is not a NaN. Of a score that is
                // one, and of one that is infinite, it is, and with it the row's sum, by which the row is divided.
                weight[i] = Vector::sub(Vector::load(scores + token + i * lanes), reference);
                if constexpr (!full) {
                    weight[i] = Vector::min(token_limit<Vector>(token + i * lanes, tokens), weight[i]);
                }
                weight[i] = Vector::max(lowest, weight[i]);
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
        const auto* scales = reinterpret_cast<const quantize::ValueScales*>(keys.value);
        multiply_packed_values<Vector, ValueProduct>(
            reinterpret_cast<const std::uint32_t*>(queries.scores), queries.tokens, queries.head_dim, keys.value,
            keys.tokens, [&](int row, int column, Float sum) __attribute__((always_inline)) {
                if constexpr (quantised) {
                    sum = Vector::mul(sum, Vector::load(scales->scale + column));
                }
                float* output = queries.output[row] + column;
                const auto rescale = Vector::splat(queries.rescale[row]);
                Vector::store(output, Vector::fma(Vector::load(output), rescale, sum));
            });
    }
};

// Backward, in float32. With p the weight of a key for a query and g the output's gradient, the gradient of the score
// is p (g . value - delta).
template <class Vector, class Product>
struct AttentionGradient {
    using Float = typename Vector::Float;
    static constexpr int lanes = Vector::lanes;

    static constexpr GradientKernels kernels() {
        return {{Product::element, Product::element, 2 * lanes}, propagate<false>, propagate<true>};
    }

    // `to_keys`: the own tile is one of keys, and its columns are queries.
    template <bool to_keys>
    static void propagate(const MetTile& met, GradientTile& own) {
        multiply_columns(met.left, met.tokens, own, own.left, own.weights);
        multiply_columns(met.right, met.tokens, own, own.right, own.score_gradients);
        for (int row = 0; row < own.tokens; ++row) {
            weigh_row<to_keys>(met, own, row);
        }
        add_rows(met.left_rows, met.tokens, own.score_gradients, own, own.left_gradient);
        if constexpr (to_keys) {
            add_rows(met.right_rows, met.tokens, own.weights, own, own.right_gradient);
        }
    }

    // products[rows][met tokens] = rows x met
    static void multiply_columns(const std::byte* met, int tokens, const GradientTile& own,
                                 const float (&rows)[kTileTokens][kMaxHeadDim],
                                 float (&products)[kTileTokens][kTileTokens]) {
        multiply_packed_keys<Vector, Product>(
            reinterpret_cast<const std::uint32_t*>(rows), own.tokens, own.head_dim, met,
            tokens, [&](int row, int column, Float product) __attribute__((always_inline)) {
                Vector::store(products[row] + column, product);
            });
    }

    // Columns beyond the met tokens get the smallest of weights: they meet rows of zeros.
    template <bool to_keys>
    [[gnu::always_inline]] static inline void weigh_row(const MetTile& met, GradientTile& own, int row) {
        const auto own_log2 = Vector::splat(to_keys ? 0.0F : own.log2_sum_exp[row]);
        const auto own_delta = Vector::splat(to_keys ? 0.0F : own.delta[row]);
        for (int column = 0; column < met.tokens; column += 2 * lanes) {
            Float weight[2];
            unroll<2>([&](int i) __attribute__((always_inline)) {
                const int token = column + i * lanes;
                weight[i] = Vector::sub(Vector::load(own.weights[row] + token),
                                        to_keys ? Vector::load(met.log2_sum_exp + token) : own_log2);
                weight[i] =
                    Vector::min(Vector::min(token_limit<Vector>(token, met.tokens), Vector::splat(126.0F)), weight[i]);
                weight[i] = Vector::max(Vector::splat(-126.0F), weight[i]);
            });
            exp2<Vector>(weight, Vector::splat(1.0F), 0.0F);
            unroll<2>([&](int i) __attribute__((always_inline)) {
                const int token = column + i * lanes;
                const auto delta = to_keys ? Vector::load(met.delta + token) : own_delta;
                float* gradient = own.score_gradients[row] + token;
                Vector::store(gradient, Vector::mul(weight[i], Vector::sub(Vector::load(gradient), delta)));
                if constexpr (to_keys) {
                    Vector::store(own.weights[row] + token, weight[i]);
                }
            });
        }
    }

    // gradient[rows] += factors x met
    static void add_rows(const std::byte* met, int tokens, const float (&factors)[kTileTokens][kTileTokens],
                         const GradientTile& own, float (&gradient)[kTileTokens][kMaxHeadDim]) {
        multiply_packed_values<Vector, Product>(
            reinterpret_cast<const std::uint32_t*>(factors), own.tokens, own.head_dim, met,
            tokens, [&](int row, int column, Float sum) __attribute__((always_inline)) {
                float* to = gradient[row] + column;
                Vector::store(to, Vector::add(Vector::load(to), sum));
            });
    }
};

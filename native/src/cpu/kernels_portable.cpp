// Kernels in plain C++ with the vector extension of GCC and Clang, for any processor.
//
// Quantised integers are kept as floats: sums of 128 products of INT8 stay below 2^24 and are exact.
#include "cpu/kernels.h"

namespace scaledit::cpu {
namespace {

#include "cpu/kernels.inl"

struct Portable {
    using Float = float __attribute__((vector_size(16)));
    using Chunks = Float;
    static constexpr int lanes = 4;
    static constexpr int rows = 4;

    static Float load(const void* from) {
        Float value;
        __builtin_memcpy(&value, from, sizeof(value));
        return value;
    }
    static void store(void* to, Float value) { __builtin_memcpy(to, &value, sizeof(value)); }
    static Float splat(float value) { return Float{value, value, value, value}; }
    static Chunks load_chunks(const std::uint32_t* from) { return load(from); }
    static Chunks splat_chunk(const std::uint32_t* from) {
        float value = 0.0F;
        __builtin_memcpy(&value, from, sizeof(value));
        return splat(value);
    }

    static Float add(Float a, Float b) { return a + b; }
    static Float sub(Float a, Float b) { return a - b; }
    static Float mul(Float a, Float b) { return a * b; }
    static Float fma(Float a, Float b, Float c) { return a * b + c; }
    static Float min(Float a, Float b) { return a < b ? a : b; }
    static Float max(Float a, Float b) { return a > b ? a : b; }

    static float highest_lane(Float value) {
        const float low = value[0] > value[1] ? value[0] : value[1];
        const float high = value[2] > value[3] ? value[2] : value[3];
        return low > high ? low : high;
    }

    // The integer in the low bits of `shifted` as an exponent.
    static Float power_of_two(Float shifted) {
        using Bits = std::uint32_t __attribute__((vector_size(16)));
        return reinterpret_cast<Float>(reinterpret_cast<Bits>(shifted) << 23);
    }
};

struct FloatProduct {
    using Sum = Portable::Float;
    static constexpr auto element = quantize::Element::kFloat32;
    static constexpr int weight_exponent = 0;

    static Sum zero() { return Sum{}; }
    static Sum start(const std::int32_t* /*start*/) { return zero(); }
    static Sum add(Sum sum, Sum a, Sum b) { return sum + a * b; }
    static Sum to_float(Sum sum) { return sum; }
    static void store_weights(std::uint32_t* to, Sum weight0, Sum weight1) {
        Portable::store(to, weight0);
        Portable::store(to + Portable::lanes, weight1);
    }
};

// Integers in float32.
struct IntegerProduct : FloatProduct {
    static constexpr int weight_exponent = kWeightExponent;

    static void store_weights(std::uint32_t* to, Sum weight0, Sum weight1) {
        FloatProduct::store_weights(to, round(weight0), round(weight1));
    }

private:
    // Nearest, ties to even.
    static Sum round(Sum value) {
        const Sum shift = Portable::splat(12582912.0F);
        return (value + shift) - shift;
    }
};

}  // namespace

const Kernels kPortableKernels = {Attention<Portable, FloatProduct, FloatProduct, false>::kernel(),
                                  Attention<Portable, IntegerProduct, IntegerProduct, true>::kernel(),
                                  AttentionGradient<Portable, FloatProduct>::kernels()};

}  // namespace scaledit::cpu

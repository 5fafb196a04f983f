// Kernels for AVX-512 with VNNI.
//
// Queries and keys are INT8: vpdpbusd multiplies four unsigned by four signed bytes and adds them to an int32. Weights
// and values are int16: vpdpwssd does the same with two of them.
#include "cpu/kernels.h"

#if defined(__x86_64__)

// GCC 12 takes the operand that its own intrinsics leave undefined on purpose for a mistake (its bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

namespace scaledit::cpu {
namespace {

#include "cpu/kernels.inl"

struct Avx512 {
    using Float = __m512;
    using Chunks = __m512i;
    static constexpr int lanes = 16;
    static constexpr int rows = 8;  // 16 accumulators: two ports times a latency of 4 to 5 clocks need 10

    static Float load(const float* from) { return _mm512_loadu_ps(from); }
    static void store(float* to, Float value) { _mm512_storeu_ps(to, value); }
    static Float splat(float value) { return _mm512_set1_ps(value); }
    static Chunks load_chunks(const std::uint32_t* from) { return _mm512_loadu_si512(from); }
    static Chunks splat_chunk(const std::uint32_t* from) { return _mm512_set1_epi32(static_cast<int>(*from)); }

    static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
    static Float sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
    static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
    static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
    static Float min(Float a, Float b) { return _mm512_min_ps(a, b); }
    static Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
    static float highest_lane(Float value) { return _mm512_reduce_max_ps(value); }

    // The integer in the low bits of `shifted` as an exponent.
    static Float power_of_two(Float shifted) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(shifted), 23));
    }
};

struct FloatProduct {
    using Sum = __m512;
    static constexpr auto element = quantize::Element::kFloat32;
    static constexpr int weight_exponent = 0;

    static Sum zero() { return _mm512_setzero_ps(); }
    static Sum start(const std::int32_t* /*start*/) { return zero(); }
    static Sum add(Sum sum, __m512i a, __m512i b) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
    }
    static __m512 to_float(Sum sum) { return sum; }
    static void store_weights(std::uint32_t* to, __m512 weight0, __m512 weight1) {
        _mm512_storeu_ps(to, weight0);
        _mm512_storeu_ps(to + Avx512::lanes, weight1);
    }
};

// Pairs of int16.
struct PairProduct {
    using Sum = __m512i;
    static constexpr auto element = quantize::Element::kInt16;
    static constexpr int weight_exponent = kWeightExponent;

    static Sum zero() { return _mm512_setzero_si512(); }
    static Sum add(Sum sum, __m512i a, __m512i b) { return _mm512_dpwssd_epi32(sum, a, b); }
    static __m512 to_float(Sum sum) { return _mm512_cvtepi32_ps(sum); }
    static void store_weights(std::uint32_t* to, __m512 weight0, __m512 weight1) {
        auto* halves = reinterpret_cast<__m256i*>(to);
        _mm256_storeu_si256(halves, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(weight0)));
        _mm256_storeu_si256(halves + 1, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(weight1)));
    }
};

// Four unsigned bytes of a query by four signed ones of a key.
struct QuadProduct {
    using Sum = __m512i;
    static constexpr auto element = quantize::Element::kInt8;

    static Sum start(const std::int32_t* start) { return _mm512_loadu_si512(start); }
    static Sum add(Sum sum, __m512i query, __m512i key) { return _mm512_dpbusd_epi32(sum, query, key); }
    static __m512 to_float(Sum sum) { return _mm512_cvtepi32_ps(sum); }
};

}  // namespace

const Kernels kAvx512VnniKernels = {Attention<Avx512, FloatProduct, FloatProduct, false>::kernel(),
                                    Attention<Avx512, QuadProduct, PairProduct, true>::kernel(),
                                    AttentionGradient<Avx512, FloatProduct>::kernels()};

}  // namespace scaledit::cpu

#endif

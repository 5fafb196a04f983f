// Kernels for AVX2 with FMA.
//
// INT8 operands are kept as int16, because vpmaddubsw saturates: vpmaddwd multiplies and adds neighbours into int32.
#include "cpu/kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

namespace scaledit::cpu {
namespace {

#include "cpu/kernels.inl"

struct Avx2 {
    using Float = __m256;
    using Chunks = __m256i;
    static constexpr int lanes = 8;
    static constexpr int rows = 5;  // 10 sums, 2 columns, 1 element and 1 product: 6 rows spill, 4 load more

    static Float load(const float* from) { return _mm256_loadu_ps(from); }
    static void store(float* to, Float value) { _mm256_storeu_ps(to, value); }
    static Float splat(float value) { return _mm256_set1_ps(value); }
    static Chunks load_chunks(const std::uint32_t* from) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    }
    static Chunks splat_chunk(const std::uint32_t* from) {
        return _mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float*>(from)));
    }

    static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
    static Float sub(Float a, Float b) { return _mm256_sub_ps(a, b); }
    static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
    static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
    static Float min(Float a, Float b) { return _mm256_min_ps(a, b); }
    static Float max(Float a, Float b) { return _mm256_max_ps(a, b); }

    static float highest_lane(Float value) {
        __m128 half = _mm_max_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
        half = _mm_max_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
    }

    // The integer in the low bits of `shifted` as an exponent.
    static Float power_of_two(Float shifted) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23));
    }
};

struct FloatProduct {
    using Sum = __m256;
    static constexpr auto element = quantize::Element::kFloat32;
    static constexpr int weight_exponent = 0;

    static Sum zero() { return _mm256_setzero_ps(); }
    static Sum start(const std::int32_t* /*start*/) { return zero(); }
    static Sum add(Sum sum, __m256i a, __m256i b) {
        return _mm256_fmadd_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), sum);
    }
    static __m256 to_float(Sum sum) { return sum; }
    static void store_weights(std::uint32_t* to, __m256 weight0, __m256 weight1) {
        _mm256_storeu_ps(reinterpret_cast<float*>(to), weight0);
        _mm256_storeu_ps(reinterpret_cast<float*>(to) + Avx2::lanes, weight1);
    }
};

// Pairs of int16.
struct PairProduct {
    using Sum = __m256i;
    static constexpr auto element = quantize::Element::kInt16;
    static constexpr int weight_exponent = kWeightExponent;

    static Sum zero() { return _mm256_setzero_si256(); }
    static Sum start(const std::int32_t* /*start*/) { return zero(); }
    static Sum add(Sum sum, __m256i a, __m256i b) {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
        // Says that the sum is needed now: GCC would otherwise reorder the sums of the unrolled loop, which are
        // integers, into trees that no longer fit the registers (half the speed).
        __asm__("" : "+x"(sum));
        return sum;
    }
    static __m256 to_float(Sum sum) { return _mm256_cvtepi32_ps(sum); }
    static void store_weights(std::uint32_t* to, __m256 weight0, __m256 weight1) {
        const __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(weight0), _mm256_cvtps_epi32(weight1));
        // vpackssdw works on each half: put the quarters in order.
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(packed, 0b11'01'10'00));
    }
};

}  // namespace

const Kernels kAvx2Kernels = {Attention<Avx2, FloatProduct, FloatProduct, false>::kernel(),
                              Attention<Avx2, PairProduct, PairProduct, true>::kernel(),
                              AttentionGradient<Avx2, FloatProduct>::kernels()};

}  // namespace scaledit::cpu

#endif

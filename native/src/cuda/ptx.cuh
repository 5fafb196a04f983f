// The PTX instructions that the kernels use, each wrapped once.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

namespace scaledit::cuda::ptx {

// threadIdx.x, read anew each time, so that no register holds it in between.
__device__ inline int thread() {
    int number;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
    return number;
}

// From compute capability 9.0 on a kernel may begin before the ones before it have ended (a programmatic launch).
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr bool kOverlapsKernels = false;
#else
constexpr bool kOverlapsKernels = true;
#endif
// Until the kernels before this one have ended, and all that they wrote is there. Each block of a kernel does so before
// it ends: thus the one before this has ended only after those before it.
__device__ inline void wait_for_kernels() {
    if constexpr (kOverlapsKernels) {
        asm volatile("griddepcontrol.wait;" ::: "memory");
    }
}
// Lets the next kernel begin once every block has come here.
__device__ inline void launch_dependents() {
    if constexpr (kOverlapsKernels) {
        asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    }
}

// A shared-memory address as PTX takes it.
__device__ inline std::uint32_t shared_address(const void* pointer) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes to shared memory, or writes 16 zero bytes there where `bytes` is 0; the source is then not read.
__device__ inline void copy_async(std::uint32_t destination, const void* source, std::uint32_t bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(source), "r"(bytes)
                 : "memory");
}
// Copies 8 or 16 bytes.
template <int kBytes>
__device__ inline void copy_async(std::uint32_t destination, const void* source) {
    static_assert(kBytes == 8 || kBytes == 16);
    if constexpr (kBytes == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(destination), "l"(source) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(destination), "l"(source) : "memory");
    }
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `kLeft` of this thread's groups of copies are under way.
template <int kLeft>
__device__ inline void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// Four 8x8 matrices of 16-bit elements; lanes 8i .. 8i+7 give the rows of matrix i.
__device__ inline void load_matrices(std::uint32_t (&r)[4], std::uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
__device__ inline void load_matrices_transposed(std::uint32_t (&r)[4], std::uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// c [16, 8] += a [16, 16] b [16, 8], bfloat16 operands, float32 sums.
__device__ inline void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same with FP16 operands.
__device__ inline void multiply_add_half(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                         std::uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// c [16, 8] = a [16, 32] b [32, 8] + start, INT8 operands, exact sums.
__device__ inline void multiply_int8(std::uint32_t (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                     std::uint32_t b1, std::uint32_t start) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %10, %10, %10};"
        : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(start));
}
// c += a b.
__device__ inline void multiply_add_int8(std::uint32_t (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                         std::uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// FP8 matrix instructions exist from compute capability 8.9 on.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 890
constexpr bool kHasFp8 = false;
#else
constexpr bool kHasFp8 = true;
#endif

// c [16, 8] += a [16, 32] b [32, 8], e4m3 operands. The instruction sums with about 22 bits, so the product is summed
// apart and added in float32. For compute capability 9.0 ptxas does the same by itself: it has no such instruction for
// one warp and converts to FP16.
__device__ inline void multiply_add_fp8(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                        std::uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
    float(&product)[4] = c;
#else
    float product[4] = {};
#endif
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(product[0]), "+f"(product[1]), "+f"(product[2]), "+f"(product[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ != 900
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        c[i] += product[i];
    }
#endif
}

constexpr float kLog2E = 1.4426950408889634F;

__device__ inline float exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The larger; a NaN if one is.
__device__ inline float max_nan(float a, float b) {
    float larger;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
    return larger;
}

// The same of two bfloat16 in a register each.
__device__ inline std::uint32_t max_nan_bfloat(std::uint32_t a, std::uint32_t b) {
    std::uint32_t larger;
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));
    return larger;
}

// To a relative error of 2^-23.
__device__ inline float reciprocal(float x) {
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

// 16 bytes that are not read again soon: they leave the first cache to others.
__device__ inline uint4 load_once(const void* from) {
    uint4 bits;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
                 : "l"(from));
    return bits;
}

// Two bfloat16 in one register, the first in the lower half.
__device__ inline std::uint32_t pack_bfloat(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&pair);
}

// Two FP16 in one register, the first in the lower half.
__device__ inline std::uint32_t pack_half(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&pair);
}

// Four e4m3, the first in the lowest byte. Saturates; a NaN stays one.
__device__ inline std::uint32_t pack_fp8(float a, float b, float c, float d) {
    const std::uint32_t low = __nv_cvt_float2_to_fp8x2({a, b}, __NV_SATFINITE, __NV_E4M3);
    const std::uint32_t high = __nv_cvt_float2_to_fp8x2({c, d}, __NV_SATFINITE, __NV_E4M3);
    return low | high << 16;
}

// The same from FP16.
__device__ inline std::uint32_t pack_fp8(__half2 ab, __half2 cd) {
    const std::uint32_t low = __nv_cvt_halfraw2_to_fp8x2(ab, __NV_SATFINITE, __NV_E4M3);
    const std::uint32_t high = __nv_cvt_halfraw2_to_fp8x2(cd, __NV_SATFINITE, __NV_E4M3);
    return low | high << 16;
}
// The two in the lower half.
__device__ inline __half2 unpack_fp8(std::uint32_t bits) {
    return __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(bits), __NV_E4M3);
}
__device__ inline __half2 mask(__half2 pair, std::uint32_t bits) {
    const std::uint32_t masked = *reinterpret_cast<const std::uint32_t*>(&pair) & bits;
    return *reinterpret_cast<const __half2*>(&masked);
}

}  // namespace scaledit::cuda::ptx

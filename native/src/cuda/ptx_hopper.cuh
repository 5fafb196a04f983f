// Hopper's warpgroup matrix instructions, mbarriers and bulk copies (sm_90a), each wrapped once.
#pragma once

#include <cstdint>

namespace scaledit::cuda::ptx {

// A matrix operand in shared memory, [rows, bytes] with bytes summed over, in the swizzle of its row length
// (swizzled_chunk). Eight rows are an atom; atoms follow each other. Begins at a multiple of an atom.
template <int kRowBytes>
class Matrix {
public:
    __device__ explicit Matrix(std::uint32_t address) : low_(address >> 4 | 1U << 16) {}

    // Its descriptor from the 32 bytes of each row on that step `step` sums over; of the matrix so many bytes further.
    __device__ std::uint64_t step(int step, std::uint32_t offset = 0) const {
        return static_cast<std::uint64_t>(kHigh) << 32 | (low_ + (offset >> 4) + static_cast<std::uint32_t>(2 * step));
    }

private:
    static_assert(kRowBytes == 64 || kRowBytes == 128);
    static constexpr std::uint32_t kSwizzle = kRowBytes == 128 ? 1 : 2;
    static constexpr std::uint32_t kHigh = (8 * kRowBytes >> 4) | kSwizzle << 30;
    std::uint32_t low_;  // shared memory ends below 2^18: no step carries into the next field
};

// Before the first matrix instruction, and where registers of one were written since.
__device__ inline void order_matrices() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_matrices() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kLeft>
__device__ inline void wait_matrices() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}
// Keeps the compiler from moving uses of accumulators across a wait.
template <int kCount>
__device__ inline void pin(float (&registers)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        asm volatile("" : "+f"(registers[i])::"memory");
    }
}
template <int kCount>
__device__ inline void pin(std::uint32_t (&registers)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        asm volatile("" : "+r"(registers[i])::"memory");
    }
}

// s [64, kKeys] (+)= q [64, 32] k [kKeys, 32]^T, both in shared memory: rows 16 w + l / 4 (+ 8), columns
// 8 n + 2 (l % 4) (+ 1) of a warp w's lane l. `accumulate` is 0 where s starts from nothing, and with 64 keys
// the first half of s is used.
template <int kKeys>
__device__ inline void multiply_int8(std::uint32_t (&s)[64], std::uint64_t q, std::uint64_t k, int accumulate) {
    static_assert(kKeys == 64 || kKeys == 128);
    if constexpr (kKeys == 128) {
        asm volatile(
            "{ .reg .pred a; setp.ne.b32 a, %66, 0; "
            "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 "
            "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
            "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
            "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
            "%64, %65, a; }"
            : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3]), "+r"(s[4]), "+r"(s[5]), "+r"(s[6]), "+r"(s[7]),
              "+r"(s[8]), "+r"(s[9]), "+r"(s[10]), "+r"(s[11]), "+r"(s[12]), "+r"(s[13]), "+r"(s[14]), "+r"(s[15]),
              "+r"(s[16]), "+r"(s[17]), "+r"(s[18]), "+r"(s[19]), "+r"(s[20]), "+r"(s[21]), "+r"(s[22]), "+r"(s[23]),
              "+r"(s[24]), "+r"(s[25]), "+r"(s[26]), "+r"(s[27]), "+r"(s[28]), "+r"(s[29]), "+r"(s[30]), "+r"(s[31]),
              "+r"(s[32]), "+r"(s[33]), "+r"(s[34]), "+r"(s[35]), "+r"(s[36]), "+r"(s[37]), "+r"(s[38]), "+r"(s[39]),
              "+r"(s[40]), "+r"(s[41]), "+r"(s[42]), "+r"(s[43]), "+r"(s[44]), "+r"(s[45]), "+r"(s[46]), "+r"(s[47]),
              "+r"(s[48]), "+r"(s[49]), "+r"(s[50]), "+r"(s[51]), "+r"(s[52]), "+r"(s[53]), "+r"(s[54]), "+r"(s[55]),
              "+r"(s[56]), "+r"(s[57]), "+r"(s[58]), "+r"(s[59]), "+r"(s[60]), "+r"(s[61]), "+r"(s[62]), "+r"(s[63])
            : "l"(q), "l"(k), "r"(accumulate));
    } else {
        asm volatile(
            "{ .reg .pred a; setp.ne.b32 a, %34, 0; "
            "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 "
            "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
            "%32, %33, a; }"
            : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3]), "+r"(s[4]), "+r"(s[5]), "+r"(s[6]), "+r"(s[7]),
              "+r"(s[8]), "+r"(s[9]), "+r"(s[10]), "+r"(s[11]), "+r"(s[12]), "+r"(s[13]), "+r"(s[14]), "+r"(s[15]),
              "+r"(s[16]), "+r"(s[17]), "+r"(s[18]), "+r"(s[19]), "+r"(s[20]), "+r"(s[21]), "+r"(s[22]), "+r"(s[23]),
              "+r"(s[24]), "+r"(s[25]), "+r"(s[26]), "+r"(s[27]), "+r"(s[28]), "+r"(s[29]), "+r"(s[30]), "+r"(s[31])
            : "l"(q), "l"(k), "r"(accumulate));
    }
}

// o [64, 136] (+)= p [64, 32] v [136, 32]^T, e4m3 operands. `accumulate` is 0 where o starts from nothing.
__device__ inline void multiply_fp8(float (&o)[68], const std::uint32_t (&p)[4], std::uint64_t v, int accumulate) {
    asm volatile(
        "{ .reg .pred a; setp.ne.b32 a, %73, 0; "
        "wgmma.mma_async.sync.aligned.m64n136k32.f32.e4m3.e4m3 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67}, "
        "{%68, %69, %70, %71}, %72, a, 1, 1; }"
        : "+f"(o[0]), "+f"(o[1]), "+f"(o[2]), "+f"(o[3]), "+f"(o[4]), "+f"(o[5]), "+f"(o[6]), "+f"(o[7]), "+f"(o[8]),
          "+f"(o[9]), "+f"(o[10]), "+f"(o[11]), "+f"(o[12]), "+f"(o[13]), "+f"(o[14]), "+f"(o[15]), "+f"(o[16]),
          "+f"(o[17]), "+f"(o[18]), "+f"(o[19]), "+f"(o[20]), "+f"(o[21]), "+f"(o[22]), "+f"(o[23]), "+f"(o[24]),
          "+f"(o[25]), "+f"(o[26]), "+f"(o[27]), "+f"(o[28]), "+f"(o[29]), "+f"(o[30]), "+f"(o[31]), "+f"(o[32]),
          "+f"(o[33]), "+f"(o[34]), "+f"(o[35]), "+f"(o[36]), "+f"(o[37]), "+f"(o[38]), "+f"(o[39]), "+f"(o[40]),
          "+f"(o[41]), "+f"(o[42]), "+f"(o[43]), "+f"(o[44]), "+f"(o[45]), "+f"(o[46]), "+f"(o[47]), "+f"(o[48]),
          "+f"(o[49]), "+f"(o[50]), "+f"(o[51]), "+f"(o[52]), "+f"(o[53]), "+f"(o[54]), "+f"(o[55]), "+f"(o[56]),
          "+f"(o[57]), "+f"(o[58]), "+f"(o[59]), "+f"(o[60]), "+f"(o[61]), "+f"(o[62]), "+f"(o[63]), "+f"(o[64]),
          "+f"(o[65]), "+f"(o[66]), "+f"(o[67])
        : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v), "r"(accumulate));
}

// o [64, 72] (+)= p [64, 32] v [72, 32]^T, e4m3 operands. `accumulate` is 0 where o starts from nothing.
__device__ inline void multiply_fp8(float (&o)[36], const std::uint32_t (&p)[4], std::uint64_t v, int accumulate) {
    asm volatile(
        "{ .reg .pred a; setp.ne.b32 a, %41, 0; "
        "wgmma.mma_async.sync.aligned.m64n72k32.f32.e4m3.e4m3 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35}, "
        "{%36, %37, %38, %39}, %40, a, 1, 1; }"
        : "+f"(o[0]), "+f"(o[1]), "+f"(o[2]), "+f"(o[3]), "+f"(o[4]), "+f"(o[5]), "+f"(o[6]), "+f"(o[7]), "+f"(o[8]),
          "+f"(o[9]), "+f"(o[10]), "+f"(o[11]), "+f"(o[12]), "+f"(o[13]), "+f"(o[14]), "+f"(o[15]), "+f"(o[16]),
          "+f"(o[17]), "+f"(o[18]), "+f"(o[19]), "+f"(o[20]), "+f"(o[21]), "+f"(o[22]), "+f"(o[23]), "+f"(o[24]),
          "+f"(o[25]), "+f"(o[26]), "+f"(o[27]), "+f"(o[28]), "+f"(o[29]), "+f"(o[30]), "+f"(o[31]), "+f"(o[32]),
          "+f"(o[33]), "+f"(o[34]), "+f"(o[35])
        : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v), "r"(accumulate));
}

template <int kRegisters>
__device__ inline void grow_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void shrink_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// What this thread stored to shared memory comes before copies into it that are ordered after by a barrier.
__device__ inline void order_copies_after_stores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Waits for the other threads of a warpgroup; `group` counts from 0.
__device__ inline void sync_warpgroup(int group) {
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");  // 0 is __syncthreads'
}

__device__ inline void barrier_init(std::uint32_t barrier, std::uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes initialised barriers visible to the copy engine.
__device__ inline void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ inline void barrier_arrive(std::uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives, and lets the barrier wait for so many bytes of copies too.
__device__ inline void barrier_arrive_expect(std::uint32_t barrier, std::uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// A warp arrives, after all that its lanes did before. One lane arrives for it; where SCALEDIT_EVERY_LANE_ARRIVES all
// do: compute-sanitizer's racecheck knows what a barrier orders by who arrives on it, and does not know that
// __syncwarp() orders the others before the one.
#if defined(SCALEDIT_EVERY_LANE_ARRIVES)
constexpr std::uint32_t kWarpArrivals = 32;
#else
constexpr std::uint32_t kWarpArrivals = 1;
#endif
__device__ inline void warp_arrive(std::uint32_t barrier, int lane) {
    __syncwarp();
    if (kWarpArrivals == 32 || lane == 0) {
        barrier_arrive(barrier);
    }
}
// The same, with so many bytes of copies.
__device__ inline void warp_arrive_expect(std::uint32_t barrier, std::uint32_t bytes, int lane) {
    __syncwarp();
    if (lane == 0) {
        barrier_arrive_expect(barrier, bytes);
    } else if (kWarpArrivals == 32) {
        barrier_arrive(barrier);
    }
}
__device__ inline void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
    asm volatile(
        "{ .reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @done bra ready; bra "
        "again; "
        "ready: }" ::"r"(barrier),
        "r"(parity)
        : "memory");
}
// 16-byte aligned on both sides, a multiple of 16 bytes.
__device__ inline void copy_bulk(std::uint32_t destination, const void* source, std::uint32_t bytes,
                                 std::uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(destination),
        "l"(source), "r"(bytes), "r"(barrier)
        : "memory");
}

// Rows of 16-bit elements in shared memory as a matrix operand: panels of 64 channels that follow each other, each
// [kRows, 128 bytes] in the swizzle of 128-byte rows. Begins at a multiple of 1,024 bytes, as eight rows of a panel.
//
// A descriptor has, in units of 16 bytes, the address (bits 0 to 13), a leading (16 to 29) and a stride offset (32 to
// 45), and in bits 62 and 63 the swizzle: 1 for that of 128 bytes. What the offsets mean depends on the order:
//
//   Summed over channels, which are contiguous ("K-major"): the 16 channels of an instruction lie inside the 128 bytes
//   of a row, so nothing is led to (the field is 1), and the stride is from eight rows to the next eight, 1,024 bytes.
//   16 channels on are 32 bytes on; the swizzle counts from the address's own bits.
//
//   Summed over rows ("MN-major", the instruction's transpose bit): the instruction takes 16 rows and all channels. The
//   leading offset is from 64 channels to the next 64, a panel; the stride is from eight rows that are summed over to
//   the next eight, 1,024 bytes. 16 rows on are 2,048 bytes on.
template <int kRows>
class Panels {
public:
    __device__ explicit Panels(std::uint32_t address) : low_(address >> 4) {}

    // From channel 16 * `step` on.
    __device__ std::uint64_t over_channels(int step) const {
        return descriptor(static_cast<std::uint32_t>(step / 4 * kPanel + step % 4 * 2), 1);
    }
    // From row 16 * `step` on.
    __device__ std::uint64_t over_rows(int step) const {
        return descriptor(static_cast<std::uint32_t>(step * 2 * kEightRows), kPanel);
    }

private:
    static constexpr std::uint32_t kEightRows = 8 * 128 >> 4;
    static constexpr std::uint32_t kPanel = kRows / 8 * kEightRows;
    static constexpr std::uint32_t kHigh = kEightRows | 1U << 30;

    // Shared memory ends below 2^18: no sum carries into the next field.
    __device__ std::uint64_t descriptor(std::uint32_t offset, std::uint32_t leading) const {
        return static_cast<std::uint64_t>(kHigh) << 32 | (low_ + (offset + (leading << 16)));
    }
    std::uint32_t low_;
};

// s [64, 128] (+)= q [64, 16] k [128, 16]^T in bfloat16, both in shared memory, summed over channels: s[c / 64][i] for
// the lane and columns c as with multiply_int8. `accumulate` is 0 where s starts from nothing.
__device__ inline void multiply_bfloat16(float (&s)[2][32], std::uint64_t q, std::uint64_t k, int accumulate) {
    asm volatile(
        "{ .reg .pred a; setp.ne.b32 a, %66, 0; "
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "
        "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, "
        "%45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, a, 1, 1, 0, 0; }"
        : "+f"(s[0][0]), "+f"(s[0][1]), "+f"(s[0][2]), "+f"(s[0][3]), "+f"(s[0][4]), "+f"(s[0][5]), "+f"(s[0][6]),
          "+f"(s[0][7]), "+f"(s[0][8]), "+f"(s[0][9]), "+f"(s[0][10]), "+f"(s[0][11]), "+f"(s[0][12]), "+f"(s[0][13]),
          "+f"(s[0][14]), "+f"(s[0][15]), "+f"(s[0][16]), "+f"(s[0][17]), "+f"(s[0][18]), "+f"(s[0][19]),
          "+f"(s[0][20]), "+f"(s[0][21]), "+f"(s[0][22]), "+f"(s[0][23]), "+f"(s[0][24]), "+f"(s[0][25]),
          "+f"(s[0][26]), "+f"(s[0][27]), "+f"(s[0][28]), "+f"(s[0][29]), "+f"(s[0][30]), "+f"(s[0][31]), "+f"(s[1][0]),
          "+f"(s[1][1]), "+f"(s[1][2]), "+f"(s[1][3]), "+f"(s[1][4]), "+f"(s[1][5]), "+f"(s[1][6]), "+f"(s[1][7]),
          "+f"(s[1][8]), "+f"(s[1][9]), "+f"(s[1][10]), "+f"(s[1][11]), "+f"(s[1][12]), "+f"(s[1][13]), "+f"(s[1][14]),
          "+f"(s[1][15]), "+f"(s[1][16]), "+f"(s[1][17]), "+f"(s[1][18]), "+f"(s[1][19]), "+f"(s[1][20]),
          "+f"(s[1][21]), "+f"(s[1][22]), "+f"(s[1][23]), "+f"(s[1][24]), "+f"(s[1][25]), "+f"(s[1][26]),
          "+f"(s[1][27]), "+f"(s[1][28]), "+f"(s[1][29]), "+f"(s[1][30]), "+f"(s[1][31])
        : "l"(q), "l"(k), "r"(accumulate));
}

// s [64, 64] (+)= q [64, 16] k [64, 16]^T, in the same way.
__device__ inline void multiply_bfloat16(float (&s)[1][32], std::uint64_t q, std::uint64_t k, int accumulate) {
    asm volatile(
        "{ .reg .pred a; setp.ne.b32 a, %34, 0; "
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "
        "%23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, a, 1, 1, 0, 0; }"
        : "+f"(s[0][0]), "+f"(s[0][1]), "+f"(s[0][2]), "+f"(s[0][3]), "+f"(s[0][4]), "+f"(s[0][5]), "+f"(s[0][6]),
          "+f"(s[0][7]), "+f"(s[0][8]), "+f"(s[0][9]), "+f"(s[0][10]), "+f"(s[0][11]), "+f"(s[0][12]), "+f"(s[0][13]),
          "+f"(s[0][14]), "+f"(s[0][15]), "+f"(s[0][16]), "+f"(s[0][17]), "+f"(s[0][18]), "+f"(s[0][19]),
          "+f"(s[0][20]), "+f"(s[0][21]), "+f"(s[0][22]), "+f"(s[0][23]), "+f"(s[0][24]), "+f"(s[0][25]),
          "+f"(s[0][26]), "+f"(s[0][27]), "+f"(s[0][28]), "+f"(s[0][29]), "+f"(s[0][30]), "+f"(s[0][31])
        : "l"(q), "l"(k), "r"(accumulate));
}

// o [64, 128] += p [64, 16] v [16, 128] in bfloat16, v in shared memory, summed over rows.
__device__ inline void multiply_bfloat16(float (&o)[64], const std::uint32_t (&p)[4], std::uint64_t v) {
    asm volatile(
        "{ .reg .pred a; setp.eq.b32 a, 0, 0; "
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "
        "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, "
        "%45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, a, 1, 1, 1; }"
        : "+f"(o[0]), "+f"(o[1]), "+f"(o[2]), "+f"(o[3]), "+f"(o[4]), "+f"(o[5]), "+f"(o[6]), "+f"(o[7]), "+f"(o[8]),
          "+f"(o[9]), "+f"(o[10]), "+f"(o[11]), "+f"(o[12]), "+f"(o[13]), "+f"(o[14]), "+f"(o[15]), "+f"(o[16]),
          "+f"(o[17]), "+f"(o[18]), "+f"(o[19]), "+f"(o[20]), "+f"(o[21]), "+f"(o[22]), "+f"(o[23]), "+f"(o[24]),
          "+f"(o[25]), "+f"(o[26]), "+f"(o[27]), "+f"(o[28]), "+f"(o[29]), "+f"(o[30]), "+f"(o[31]), "+f"(o[32]),
          "+f"(o[33]), "+f"(o[34]), "+f"(o[35]), "+f"(o[36]), "+f"(o[37]), "+f"(o[38]), "+f"(o[39]), "+f"(o[40]),
          "+f"(o[41]), "+f"(o[42]), "+f"(o[43]), "+f"(o[44]), "+f"(o[45]), "+f"(o[46]), "+f"(o[47]), "+f"(o[48]),
          "+f"(o[49]), "+f"(o[50]), "+f"(o[51]), "+f"(o[52]), "+f"(o[53]), "+f"(o[54]), "+f"(o[55]), "+f"(o[56]),
          "+f"(o[57]), "+f"(o[58]), "+f"(o[59]), "+f"(o[60]), "+f"(o[61]), "+f"(o[62]), "+f"(o[63])
        : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v));
}

// o [64, 64] += p [64, 16] v [16, 64] in bfloat16, v in shared memory, summed over rows.
__device__ inline void multiply_bfloat16(float (&o)[32], const std::uint32_t (&p)[4], std::uint64_t v) {
    asm volatile(
        "{ .reg .pred a; setp.eq.b32 a, 0, 0; "
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "
        "%23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, a, 1, 1, 1; }"
        : "+f"(o[0]), "+f"(o[1]), "+f"(o[2]), "+f"(o[3]), "+f"(o[4]), "+f"(o[5]), "+f"(o[6]), "+f"(o[7]), "+f"(o[8]),
          "+f"(o[9]), "+f"(o[10]), "+f"(o[11]), "+f"(o[12]), "+f"(o[13]), "+f"(o[14]), "+f"(o[15]), "+f"(o[16]),
          "+f"(o[17]), "+f"(o[18]), "+f"(o[19]), "+f"(o[20]), "+f"(o[21]), "+f"(o[22]), "+f"(o[23]), "+f"(o[24]),
          "+f"(o[25]), "+f"(o[26]), "+f"(o[27]), "+f"(o[28]), "+f"(o[29]), "+f"(o[30]), "+f"(o[31])
        : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v));
}

}  // namespace scaledit::cuda::ptx

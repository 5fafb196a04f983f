#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cuda/batch.cuh"
#include "cuda/batch_norm_and_rotate.cuh"
#include "cuda/batch_rows.cuh"
#include "cuda/device.h"
#include "cuda/tokenwise.cuh"
#include "cuda/tokenwise.h"

namespace scaledit::cuda {
namespace {

using namespace tokenwise;

// Of a call whose number of blocks is ours: enough to keep every multiprocessor busy to the end, few enough that each
// has several rows under way.
constexpr std::int64_t kBlocks = 4096;

// A kernel for each way to share out rows.
template <typename... Parameters>
struct RowKernels {
    void (*by_warp)(Parameters...);
    void (*by_block)(Parameters...);
    void (*by_large_block)(Parameters...);
};

bool is_by_warp(int chunks) { return chunks <= kWarpThreads; }
std::int64_t rows_at_once(int chunks) { return is_by_warp(chunks) ? ByWarp::kRowsAtOnce : 1; }

// `copies` is how many matrices a kernel copies rows of.
template <typename Shape, typename... Parameters>
void launch_shape(void (*kernel)(Parameters...), int threads, int copies, dim3 blocks, void* stream, const char* what,
                  const Parameters&... parameters) {
    const int thread_bytes = Shape::kSlots * copies * kChunkBytes;
    // 48 KB are granted without asking, but to a kernel's own shared memory and this together. Always as much for a
    // kernel, lest a graph has a call that asked for more than the last one.
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, thread_bytes * Shape::kMostThreads),
          "cudaFuncSetAttribute");
    kernel<<<blocks, static_cast<unsigned>(threads), static_cast<std::size_t>(thread_bytes * threads),
             static_cast<cudaStream_t>(stream)>>>(parameters...);
    check(cudaGetLastError(), what);
}

template <typename... Parameters>
void launch_rows(const RowKernels<Parameters...>& kernels, int chunks, int copies, std::int64_t blocks, void* stream,
                 const char* what, const Parameters&... parameters) {
    const dim3 grid(static_cast<unsigned>(blocks));
    const int threads = (chunks + kWarpThreads - 1) / kWarpThreads * kWarpThreads;
    if (is_by_warp(chunks)) {
        launch_shape<ByWarp>(kernels.by_warp, ByWarp::kMostThreads, copies, grid, stream, what, parameters...);
    } else if (threads <= ByBlock::kMostThreads) {
        launch_shape<ByBlock>(kernels.by_block, threads, copies, grid, stream, what, parameters...);
    } else {
        launch_shape<ByLargeBlock>(kernels.by_large_block, threads, copies, grid, stream, what, parameters...);
    }
}

std::int64_t ceiling(std::int64_t number, std::int64_t by) { return (number + by - 1) / by; }

template <typename Arguments>  // with rows, picture_rows and width
Pictures pictures(const Arguments& a, std::int32_t parts) {
    return {a.rows / a.picture_rows, a.picture_rows, parts, chunks_of(a.width)};
}
template <typename Arguments>
Pictures pictures(const Arguments& a) {
    const std::int64_t most = ceiling(a.picture_rows, rows_at_once(chunks_of(a.width)));
    const std::int64_t wanted = std::max<std::int64_t>(1, kBlocks / (a.rows / a.picture_rows));
    return pictures(a, static_cast<std::int32_t>(std::min(wanted, most)));
}

Bfloat16Rows vectors(const scaledit_picture_vectors& given) {
    return {static_cast<__nv_bfloat16*>(const_cast<void*>(given.data)), given.stride};
}
Rows<float> gradients(const scaledit_picture_gradients& given) { return {given.data, given.stride}; }
Bfloat16Rows bfloat16(const scaledit_matrix& matrix) { return rows_of<__nv_bfloat16>(matrix); }

template <typename Arguments>  // forward or back
BatchNormAndRotateParameters norm_and_rotate_parameters(const Arguments& a, const scaledit_matrix& sequence) {
    return {a.rows,
            chunks_of(a.heads * a.head_dim),
            {Divisor(a.picture_rows), a.picture_rows, a.sequence_rows, a.first},
            a.epsilon,
            static_cast<const __nv_bfloat16*>(a.norm),
            a.rotation,
            bfloat16(a.input),
            bfloat16(sequence)};
}

template <int kHeadDim>
void norm_and_rotate_batch(const scaledit_cuda_batch_norm_and_rotate_arguments& a) {
    const BatchNormAndRotateParameters parameters = norm_and_rotate_parameters(a, a.output);
    const int chunks = parameters.chunks;
    launch_rows<BatchNormAndRotateParameters>(
        {batch_norm_and_rotate<kHeadDim, ByWarp>, batch_norm_and_rotate<kHeadDim, ByBlock>,
         batch_norm_and_rotate<kHeadDim, ByLargeBlock>},
        chunks, 1, std::min(kBlocks, ceiling(a.rows, rows_at_once(chunks))), a.stream,
        "the kernel that norms and rotates a batch", parameters);
}

template <int kHeadDim>
void norm_and_rotate_batch_gradient(const scaledit_cuda_batch_norm_and_rotate_gradient_arguments& a) {
    const BatchNormAndRotateParameters parameters = norm_and_rotate_parameters(a, a.output_gradient);
    launch_rows<BatchNormAndRotateParameters, Bfloat16Rows, float*>(
        {batch_norm_and_rotate_gradient<kHeadDim, ByWarp>, batch_norm_and_rotate_gradient<kHeadDim, ByBlock>,
         batch_norm_and_rotate_gradient<kHeadDim, ByLargeBlock>},
        parameters.chunks, 2, a.parts, a.stream, "the kernel of a batch's norm and rotation, back", parameters,
        bfloat16(a.input_gradient), a.norm_gradient);
}

// Neighbouring blocks have neighbouring tiles.
dim3 tile_blocks(const Tiles& tiles) {
    const std::int64_t across = ceiling(tiles.chunks, kWarpThreads);
    const std::int64_t down = std::min(ceiling(kBlocks, across), ceiling(tiles.rows, ByWarp::kRowsAtOnce));
    return {static_cast<unsigned>(across), static_cast<unsigned>(down)};
}

}  // namespace

void run(const scaledit_cuda_batch_modulate_arguments& a) {
    const CurrentDevice current(
        common_device({a.hidden.data, "hidden.data"},
                      {{a.shift.data, "shift.data"}, {a.scale.data, "scale.data"}, {a.output.data, "output.data"}}));
    const Pictures all = pictures(a);
    launch_rows<BatchModulateParameters>(
        {batch_modulate<ByWarp>, batch_modulate<ByBlock>, batch_modulate<ByLargeBlock>}, all.chunks, 1,
        all.count * all.parts, a.stream, "the kernel that norms and modulates a batch",
        {all,
         {row_width(a.width), a.epsilon},
         bfloat16(a.hidden),
         vectors(a.shift),
         vectors(a.scale),
         bfloat16(a.output)});
}

void run(const scaledit_cuda_batch_modulate_gradient_arguments& a) {
    const CurrentDevice current(
        common_device({a.hidden.data, "hidden.data"}, {{a.scale.data, "scale.data"},
                                                       {a.output_gradient.data, "output_gradient.data"},
                                                       {a.hidden_gradient.data, "hidden_gradient.data"},
                                                       {a.shift_gradient.data, "shift_gradient.data"},
                                                       {a.scale_gradient.data, "scale_gradient.data"}}));
    const Pictures all = pictures(a, a.parts);
    using Kernels = RowKernels<BatchModulateGradientParameters>;
    const bool adds = a.adds != 0;
    launch_rows<BatchModulateGradientParameters>(
        adds ? Kernels{batch_modulate_gradient<true, ByWarp>, batch_modulate_gradient<true, ByBlock>,
                       batch_modulate_gradient<true, ByLargeBlock>}
             : Kernels{batch_modulate_gradient<false, ByWarp>, batch_modulate_gradient<false, ByBlock>,
                       batch_modulate_gradient<false, ByLargeBlock>},
        all.chunks, adds ? 3 : 2, all.count * all.parts, a.stream, "the kernel of a batch's modulation, back",
        {all,
         {row_width(a.width), a.epsilon},
         bfloat16(a.hidden),
         vectors(a.scale),
         bfloat16(a.output_gradient),
         bfloat16(a.hidden_gradient),
         gradients(a.shift_gradient),
         gradients(a.scale_gradient)});
}

void run(const scaledit_cuda_batch_add_gated_arguments& a) {
    const CurrentDevice current(
        common_device({a.hidden.data, "hidden.data"},
                      {{a.update.data, "update.data"}, {a.gate.data, "gate.data"}, {a.output.data, "output.data"}}));
    const Pictures all = pictures(a);
    launch_rows<BatchAddGatedParameters>(
        {batch_add_gated<ByWarp>, batch_add_gated<ByBlock>, batch_add_gated<ByLargeBlock>}, all.chunks, 2,
        all.count * all.parts, a.stream, "the kernel that adds under a batch's gates",
        {all, bfloat16(a.hidden), bfloat16(a.update), vectors(a.gate), bfloat16(a.output)});
}

void run(const scaledit_cuda_batch_add_gated_gradient_arguments& a) {
    const CurrentDevice current(
        common_device({a.update.data, "update.data"}, {{a.gate.data, "gate.data"},
                                                       {a.output_gradient.data, "output_gradient.data"},
                                                       {a.update_gradient.data, "update_gradient.data"},
                                                       {a.gate_gradient.data, "gate_gradient.data"}}));
    const Pictures all = pictures(a, a.parts);
    launch_rows<BatchAddGatedGradientParameters>(
        {batch_add_gated_gradient<ByWarp>, batch_add_gated_gradient<ByBlock>, batch_add_gated_gradient<ByLargeBlock>},
        all.chunks, 2, all.count * all.parts, a.stream, "the kernel of additions under a batch's gates, back",
        {all, bfloat16(a.update), vectors(a.gate), bfloat16(a.output_gradient), bfloat16(a.update_gradient),
         gradients(a.gate_gradient)});
}

void run(const scaledit_cuda_batch_norm_and_rotate_arguments& a) {
    const CurrentDevice current(common_device(
        {a.input.data, "input.data"}, {{a.norm, "norm"}, {a.rotation, "rotation"}, {a.output.data, "output.data"}}));
    a.head_dim == 128 ? norm_and_rotate_batch<128>(a) : norm_and_rotate_batch<64>(a);
}

void run(const scaledit_cuda_batch_norm_and_rotate_gradient_arguments& a) {
    const CurrentDevice current(
        common_device({a.input.data, "input.data"}, {{a.norm, "norm"},
                                                     {a.rotation, "rotation"},
                                                     {a.output_gradient.data, "output_gradient.data"},
                                                     {a.input_gradient.data, "input_gradient.data"},
                                                     {a.norm_gradient, "norm_gradient"}}));
    a.head_dim == 128 ? norm_and_rotate_batch_gradient<128>(a) : norm_and_rotate_batch_gradient<64>(a);
}

void run(const scaledit_cuda_join_gelu_arguments& a) {
    const CurrentDevice current(common_device({a.gelu_input.data, "gelu_input.data"},
                                              {{a.input.data, "input.data"}, {a.output.data, "output.data"}}));
    const Tiles tiles = {a.rows, chunks_of(a.width + a.gelu_width)};
    launch_shape<ByWarp>(join_gelu_rows, ByWarp::kMostThreads, 1, tile_blocks(tiles), a.stream, "the kernel of GELU",
                         {tiles, bfloat16(a.input), bfloat16(a.gelu_input), chunks_of(a.width), bfloat16(a.output)});
}

void run(const scaledit_cuda_gelu_gradient_arguments& a) {
    const CurrentDevice current(common_device(
        {a.input.data, "input.data"},
        {{a.output_gradient.data, "output_gradient.data"}, {a.input_gradient.data, "input_gradient.data"}}));
    const Tiles tiles = {a.rows, chunks_of(a.width)};
    launch_shape<ByWarp>(gelu_gradient_rows, ByWarp::kMostThreads, 2, tile_blocks(tiles), a.stream,
                         "the kernel of GELU, back",
                         {tiles, bfloat16(a.input), bfloat16(a.output_gradient), bfloat16(a.input_gradient)});
}

}  // namespace scaledit::cuda

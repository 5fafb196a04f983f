#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "cuda/device.h"
#include "cuda/group_norm.cuh"
#include "cuda/norm_and_rotate.cuh"
#include "cuda/pack_rows.cuh"
#include "cuda/tokenwise.cuh"
#include "cuda/tokenwise.h"
#include "error.h"

namespace scaledit::cuda {
namespace {

using namespace tokenwise;

ModulationPart part(const scaledit_modulation_part& vectors) {
    return {static_cast<const __nv_bfloat16*>(vectors.current), static_cast<const __nv_bfloat16*>(vectors.guidance)};
}

// A kernel of rows that fill their block, and the same of any rows.
template <typename Parameters>
struct Kernels {
    void (*whole)(Parameters);
    void (*ragged)(Parameters);
};

// A block for each row of a call, with room for so many rows in shared memory.
template <int kCopiedRows, typename Parameters, typename Arguments>
void launch(const Kernels<Parameters>& kernels, const Parameters& parameters, int chunks, const Arguments& a,
            const char* what) {
    const int threads = row_threads(chunks);
    const auto kernel = threads * kThreadChunks == chunks ? kernels.whole : kernels.ragged;
    kernel<<<static_cast<unsigned>(a.rows), static_cast<unsigned>(threads),
             static_cast<std::size_t>(kCopiedRows * chunks * kChunkBytes), static_cast<cudaStream_t>(a.stream)>>>(
        parameters);
    check(cudaGetLastError(), what);
}

template <typename Arguments>  // with hidden, update and gate
AddGatedParameters gated_sum(const Arguments& a) {
    return {rows_of<__nv_bfloat16>(a.hidden), rows_of<__nv_bfloat16>(a.update), part(a.gate), a.rows - a.guidance_rows,
            chunks_of(a.width)};
}

template <bool kAdds, typename Output>
void modulate_to(const scaledit_cuda_modulate_arguments& a) {
    const ModulateParameters<Output> parameters{gated_sum(a),       part(a.shift), part(a.scale),
                                                row_width(a.width), a.epsilon,     rows_of<Output>(a.output),
                                                a.output_scale};
    launch<kAdds ? 2 : 1>(
        Kernels<ModulateParameters<Output>>{modulate_rows<kAdds, true, Output>, modulate_rows<kAdds, false, Output>},
        parameters, chunks_of(a.width), a, "the kernel that norms and modulates");
}

template <int kHeadDim, bool kGradient>
void norm_and_rotate_heads(const scaledit_cuda_norm_and_rotate_arguments& a) {
    const NormAndRotateParameters parameters{a.rows,
                                             a.text_rows,
                                             a.heads,
                                             a.epsilon,
                                             static_cast<const __nv_bfloat16*>(a.norm),
                                             static_cast<const __nv_bfloat16*>(a.text_norm ? a.text_norm : a.norm),
                                             a.rotation,
                                             rows_of<__nv_bfloat16>(a.input),
                                             rows_of<__nv_bfloat16>(a.output_gradient),
                                             rows_of<__nv_bfloat16>(a.output)};
    constexpr std::int64_t kBlockHeads = kHeadThreads / (kHeadDim / kChunkChannels);
    const std::int64_t blocks = (a.rows * a.heads + kBlockHeads - 1) / kBlockHeads;
    if (blocks > INT32_MAX) {
        throw Error(SCALEDIT_UNSUPPORTED, "rows times heads are " + to_text(a.rows * a.heads) + ", a GPU takes up to " +
                                              to_text(INT32_MAX * kBlockHeads));
    }
    norm_and_rotate<kHeadDim, kGradient>
        <<<static_cast<unsigned>(blocks), kHeadThreads, 0, static_cast<cudaStream_t>(a.stream)>>>(parameters);
    check(cudaGetLastError(), "the kernel that norms and rotates");
}

template <typename Arguments>  // with key, value and packed
PackedRowsParameters packed_rows(const Arguments& a) {
    const void* packed = a.packed;
    return {{rows_of<__nv_bfloat16>(a.key), rows_of<__nv_bfloat16>(a.value)},
            chunks_of(a.width),
            {static_cast<std::uint8_t*>(const_cast<void*>(packed)), packed_row_bytes(a.width)}};
}

dim3 packed_blocks(std::int64_t rows, int chunks) {
    return {static_cast<unsigned>(rows), static_cast<unsigned>((chunks + kPackThreads - 1) / kPackThreads)};
}

}  // namespace

void run(const scaledit_cuda_add_gated_arguments& a) {
    const CurrentDevice current(common_device(
        {a.hidden.data, "hidden.data"},
        {{a.update.data, "update.data"}, {a.gate.current, "gate.current"}, {a.gate.guidance, "gate.guidance"}}));
    launch<2>(Kernels<AddGatedParameters>{add_gated_rows<true>, add_gated_rows<false>}, gated_sum(a),
              chunks_of(a.width), a, "the kernel that adds under a gate");
}

void run(const scaledit_cuda_modulate_arguments& a) {
    const CurrentDevice current(common_device({a.hidden.data, "hidden.data"}, {{a.update.data, "update.data"},
                                                                               {a.gate.current, "gate.current"},
                                                                               {a.gate.guidance, "gate.guidance"},
                                                                               {a.shift.current, "shift.current"},
                                                                               {a.shift.guidance, "shift.guidance"},
                                                                               {a.scale.current, "scale.current"},
                                                                               {a.scale.guidance, "scale.guidance"},
                                                                               {a.output.data, "output.data"},
                                                                               {a.output_scale, "output_scale"}}));
    const bool adds = a.update.data != nullptr;
    if (a.output.dtype == SCALEDIT_E4M3) {
        adds ? modulate_to<true, std::uint8_t>(a) : modulate_to<false, std::uint8_t>(a);
    } else {
        adds ? modulate_to<true, __nv_bfloat16>(a) : modulate_to<false, __nv_bfloat16>(a);
    }
}

void run(const scaledit_cuda_norm_and_rotate_arguments& a) {
    const CurrentDevice current(
        common_device({a.input.data, "input.data"}, {{a.norm, "norm"},
                                                     {a.text_norm, "text_norm"},
                                                     {a.rotation, "rotation"},
                                                     {a.output_gradient.data, "output_gradient.data"},
                                                     {a.output.data, "output.data"}}));
    if (a.output_gradient.data != nullptr) {
        a.head_dim == 128 ? norm_and_rotate_heads<128, true>(a) : norm_and_rotate_heads<64, true>(a);
    } else {
        a.head_dim == 128 ? norm_and_rotate_heads<128, false>(a) : norm_and_rotate_heads<64, false>(a);
    }
}

void run(const scaledit_cuda_group_norm_arguments& a) {
    const CurrentDevice current(common_device(
        {a.input.data, "input.data"},
        {{a.weight, "weight"}, {a.bias, "bias"}, {a.output.data, "output.data"}, {a.workspace, "workspace"}}));
    auto* sums = static_cast<float*>(a.workspace);
    const GroupNormParameters parameters{
        a.rows,
        chunks_of(a.channels),
        a.groups,
        a.epsilon,
        static_cast<const __nv_bfloat16*>(a.weight),
        static_cast<const __nv_bfloat16*>(a.bias),
        rows_of<__nv_bfloat16>(a.input),
        rows_of<__nv_bfloat16>(a.output),
        sums,
        sums + std::size_t{2} * kGroupNormBlocks * static_cast<std::size_t>(a.channels)};
    const auto stream = static_cast<cudaStream_t>(a.stream);
    measure_channels<<<kGroupNormBlocks, kGroupNormThreads, 0, stream>>>(parameters);
    check(cudaGetLastError(), "the kernel that measures channels");
    conclude_groups<<<1, static_cast<unsigned>(a.channels), 0, stream>>>(parameters);
    check(cudaGetLastError(), "the kernel that measures groups");
    (a.silu != 0 ? norm_channels<true>
                 : norm_channels<false>)<<<kGroupNormBlocks, kGroupNormThreads, 0, stream>>>(parameters);
    check(cudaGetLastError(), "the kernel that norms channels");
}

void run(const scaledit_cuda_pack_rows_arguments& a) {
    const CurrentDevice current(common_device(
        {a.key.data, "key.data"}, {{a.value.data, "value.data"}, {a.token, "token"}, {a.packed, "packed"}}));
    const PackedRowsParameters parameters = packed_rows(a);
    pack_rows<<<packed_blocks(a.rows, parameters.chunks), kPackThreads, 0, static_cast<cudaStream_t>(a.stream)>>>(
        parameters, a.token, a.tokens);
    check(cudaGetLastError(), "the kernel that packs rows");
}

void run(const scaledit_cuda_unpack_rows_arguments& a) {
    const CurrentDevice current(
        common_device({a.packed, "packed"}, {{a.key.data, "key.data"}, {a.value.data, "value.data"}}));
    const PackedRowsParameters parameters = packed_rows(a);
    unpack_rows<<<packed_blocks(a.rows, parameters.chunks), kPackThreads, 0, static_cast<cudaStream_t>(a.stream)>>>(
        parameters);
    check(cudaGetLastError(), "the kernel that unpacks rows");
}

void run(const scaledit_cuda_quantize_arguments& a) {
    const CurrentDevice current(common_device(
        {a.output.data, "output.data"},
        {{a.output_scale, "output_scale"}, {a.input.data, "input.data"}, {a.gelu_input.data, "gelu_input.data"}}));
    const int plain_chunks = chunks_of(a.width);
    const QuantizeParameters parameters{
        rows_of<__nv_bfloat16>(a.input),        rows_of<__nv_bfloat16>(a.gelu_input), plain_chunks,
        plain_chunks + chunks_of(a.gelu_width), rows_of<std::uint8_t>(a.output),      a.output_scale};
    launch<1>(Kernels<QuantizeParameters>{quantize_rows<true>, quantize_rows<false>}, parameters, parameters.chunks, a,
              "the kernel that quantises");
}

}  // namespace scaledit::cuda

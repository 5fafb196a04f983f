#include <cuda_runtime.h>

#include <algorithm>
#include <string>

#include "cuda/attention.h"
#include "cuda/attention_bfloat16.cuh"
#include "cuda/attention_bfloat16_hopper.cuh"
#include "cuda/attention_int8_hopper.cuh"
#include "cuda/attention_int8_mma.cuh"
#include "cuda/device.h"
#include "cuda/device_geometry.h"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/packed.h"
#include "cuda/prepare.cuh"
#include "error.h"

namespace scaledit::cuda {
namespace {

constexpr int kOldest = 80;  // compute capability

// One call, on the GPU that is current.
struct Call {
    const Geometry& geometry;
    const DeviceGeometryLayout& at;
    const scaledit_cuda_attention_arguments& arguments;
    int device;
    Queue queue;

    template <typename Element>
    const Element* part(std::size_t offset) const {
        return reinterpret_cast<const Element*>(static_cast<const std::byte*>(arguments.device_geometry) + offset);
    }
};

// Of the kernels that take groups of tiles times heads one after the other.
unsigned persistent_blocks(const Call& call, std::int64_t groups) {
    // A block counts beyond the last.
    const std::int64_t jobs = checked_jobs(groups, "groups of tiles", call.arguments.heads, kMostBlocks);
    const std::int64_t processors = std::min(attribute(cudaDevAttrMultiProcessorCount, call.device), kMostBlocks);
    return static_cast<unsigned>(std::min(jobs, processors));
}

template <int kHeadDim>
void attend_in_bfloat16_wgmma(const Call& call) {
    const auto& a = call.arguments;
    const Bfloat16HopperParameters parameters{call.part<TokenRange>(call.at.queries),
                                              call.part<TileGroup>(call.at.groups),
                                              call.part<KeyRun>(call.at.runs),
                                              call.at.group_count,
                                              call.at.long_groups,
                                              a.heads,
                                              call.geometry.info().tokens,
                                              device_tensor(a.query),
                                              device_tensor(a.key),
                                              device_tensor(a.value),
                                              device_tensor(a.output),
                                              a.log_sum_exp,
                                              a.scale};
    launch(call.queue,
           {"the attention kernel", Start::kInOrder, persistent_blocks(call, call.at.group_count),
            bfloat16_hopper::kThreads, kBfloat16HopperSharedBytes<kHeadDim>},
           attend_bfloat16_hopper<kHeadDim>, parameters);
}

template <int kHeadDim>
void attend_in_bfloat16_mma(const Call& call) {
    const auto& a = call.arguments;
    const Bfloat16Parameters parameters{call.part<TokenRange>(call.at.queries),
                                        call.part<TokenRange>(call.at.keys),
                                        call.part<std::int32_t>(call.at.offsets),
                                        call.part<std::int32_t>(call.at.schedule),
                                        device_tensor(a.query),
                                        device_tensor(a.key),
                                        device_tensor(a.value),
                                        device_tensor(a.output),
                                        a.log_sum_exp,
                                        call.geometry.info().tokens,
                                        a.heads,
                                        a.scale};
    const std::int64_t blocks = checked_jobs(call.geometry.info().query_tiles, "tiles", a.heads);
    launch(call.queue,
           {"the attention kernel", Start::kInOrder, static_cast<unsigned>(blocks), kBlockThreads,
            kBfloat16SharedBytes<kHeadDim>},
           attend_bfloat16<kHeadDim>, parameters);
}

const __nv_bfloat16* weights(const void* data) { return static_cast<const __nv_bfloat16*>(data); }

// The pre-pass. Whoever calls it has checked that pairs of tiles times heads can be counted.
template <int kHeadDim, ValueFormat kFormat>
void pack_tiles(const Call& call, const Workspace& at, bool with_mean) {
    const auto& a = call.arguments;
    const scaledit_geometry_info& info = call.geometry.info();
    auto* memory = static_cast<std::byte*>(a.workspace);
    const auto tiles = static_cast<std::int32_t>(info.tiles);
    const bool text_differs = a.text_query_norm != nullptr;
    const PrepareParameters preparation{call.part<TokenRange>(call.at.queries),
                                        tiles,
                                        a.heads,
                                        info.tokens,
                                        info.text_tokens,
                                        device_tensor(a.query),
                                        device_tensor(a.key),
                                        device_tensor(a.value),
                                        weights(a.query_norm),
                                        weights(a.key_norm),
                                        weights(text_differs ? a.text_query_norm : a.query_norm),
                                        weights(text_differs ? a.text_key_norm : a.key_norm),
                                        a.norm_epsilon,
                                        reinterpret_cast<const float2*>(a.rotation),
                                        a.scale,
                                        with_mean,
                                        measure_blocks(a.heads),
                                        block_heads(info.tiles, a.heads),
                                        call.at.pair_count,
                                        call.at.long_pairs,
                                        memory,
                                        at};
    const auto heads = static_cast<unsigned>(a.heads);
    launch(call.queue,
           {"the kernel that measures keys and values", Start::kInOrder,
            dim3(heads, static_cast<unsigned>(measure_blocks(a.heads))), kMeasureThreads},
           measure<kHeadDim>, preparation);
    launch(call.queue,
           {"the kernel that scales keys and values", Start::kEarly, heads * (kHeadDim / kConcludeChannels),
            kConcludeThreads},
           conclude<kHeadDim, kFormat>, preparation);
    launch(call.queue,
           {"the kernel that packs queries, keys and values", Start::kEarly,
            static_cast<unsigned>(tiles * head_blocks(a.heads, preparation.block_heads) * kParts),
            kPrepareThreads<kHeadDim>, sizeof(PrepareMemory<kHeadDim>)},
           prepare<kHeadDim, kFormat>, preparation);
    if (is_sampled(info.tokens)) {
        launch(call.queue,
               {"the kernel that packs values anew", Start::kEarly, kAnewBlocks, kPrepareThreads<kHeadDim>,
                sizeof(PrepareMemory<kHeadDim>)},
               pack_values_anew<kHeadDim, kFormat>, preparation);
    }
    if constexpr (kFormat == ValueFormat::kFp8) {
        launch(call.queue,
               {"the kernel that corrects means", Start::kEarly,
                static_cast<unsigned>(correct_blocks<kHeadDim>(call.at.pair_count, call.at.long_pairs, a.heads)),
                kCorrectThreads},
               correct<kHeadDim>, preparation, call.part<TilePair>(call.at.pairs),
               call.part<TileRun>(call.at.pair_runs), call.part<std::int32_t>(call.at.key_tokens));
    }
}

template <int kHeadDim>
void attend_in_int8_wgmma(const Call& call) {
    const auto& a = call.arguments;
    const scaledit_geometry_info& info = call.geometry.info();
    const Split parts = split(call.at, a.heads);
    const Workspace at = workspace(Kernel::kInt8Wgmma, info.tiles, parts, a.heads, kHeadDim);
    checked_jobs(call.at.group_count + parts.groups * (parts.parts - 1), "groups of tiles", a.heads, kMostBlocks);
    checked_jobs(call.at.pair_count, "pairs of tiles", a.heads);
    // Parts are joined by their log-sum-exp, to which the kernel adds the mean key's part: it must be a number.
    pack_tiles<kHeadDim, ValueFormat::kFp8>(call, at, a.log_sum_exp != nullptr || parts.groups > 0);

    auto* memory = static_cast<std::byte*>(a.workspace);
    auto* next = reinterpret_cast<std::int32_t*>(memory + at.next);
    Int8Parameters parameters{call.part<TokenRange>(call.at.queries),
                              call.part<TileGroup>(call.at.groups),
                              call.part<KeyRun>(call.at.runs),
                              static_cast<std::int32_t>(info.tiles),
                              call.at.group_count,
                              call.at.long_groups,
                              1,
                              parts.groups > 0,
                              a.heads,
                              info.tokens,
                              device_tensor(a.output),
                              a.log_sum_exp,
                              next,
                              memory,
                              at};
    const auto attend_groups = [&](const Int8Parameters& p) {
        launch(call.queue,
               {"the attention kernel", Start::kEarly, persistent_blocks(call, std::int64_t{p.group_count} * p.parts),
                hopper::kThreads, kHopperSharedBytes<kHeadDim>},
               attend_int8_hopper<kHeadDim>, p);
    };
    Int8Parameters of_parts = parameters;
    if (parts.groups > 0) {
        of_parts.group_count = of_parts.long_groups = parts.groups;
        of_parts.parts = parts.parts;
        of_parts.beside_parts = false;
        of_parts.output = {reinterpret_cast<__nv_bfloat16*>(memory + at.part_output), kHeadDim,
                           parts.rows() * kHeadDim};
        of_parts.log_sum_exp = reinterpret_cast<float*>(memory + at.part_log_sum_exp);
        of_parts.tokens = parts.rows();
        of_parts.at.totals = at.part_totals;
        attend_groups(of_parts);
        parameters.groups += parts.groups;
        parameters.group_count -= parts.groups;
        parameters.long_groups -= parts.groups;
        ++parameters.next;
    }
    attend_groups(parameters);  // the image's at least
    if (parts.groups > 0) {
        constexpr int kBlocks = kTileTokens / kJoinRows<kHeadDim>;
        launch(call.queue,
               {"the kernel that joins parts", Start::kEarly,
                dim3(static_cast<unsigned>(parts.groups * kGroupTiles * kBlocks), static_cast<unsigned>(a.heads)),
                kJoinThreads},
               join_parts<kHeadDim>, of_parts, device_tensor(a.output), a.log_sum_exp, info.tokens);
    }
}

template <int kHeadDim, ValueFormat kFormat>
void attend_in_int8_mma(const Call& call, Kernel kernel) {
    const auto& a = call.arguments;
    const scaledit_geometry_info& info = call.geometry.info();
    const std::int64_t blocks = checked_jobs(call.at.pair_count, "pairs of tiles", a.heads);
    const Workspace at = workspace(kernel, info.tiles, {}, a.heads, kHeadDim);
    pack_tiles<kHeadDim, kFormat>(call, at, a.log_sum_exp != nullptr);

    const auto* memory = static_cast<const std::byte*>(a.workspace);
    const Int8MmaParameters parameters{call.part<TokenRange>(call.at.queries),
                                       call.part<TilePair>(call.at.pairs),
                                       call.part<TileRun>(call.at.pair_runs),
                                       static_cast<std::int32_t>(info.tiles),
                                       call.at.pair_count,
                                       call.at.long_pairs,
                                       a.heads,
                                       info.tokens,
                                       memory + at.query,
                                       memory + at.key,
                                       memory + at.value,
                                       reinterpret_cast<const float*>(memory + at.query_scale),
                                       reinterpret_cast<const float*>(memory + at.query_mean),
                                       reinterpret_cast<const KeyRecord*>(memory + at.key_record),
                                       reinterpret_cast<const float*>(memory + at.value_limits),
                                       reinterpret_cast<const float*>(memory + at.output_mean),
                                       device_tensor(a.output),
                                       a.log_sum_exp};
    launch(call.queue,
           {"the attention kernel", Start::kEarly, static_cast<unsigned>(blocks), mma::kThreads,
            kMmaSharedBytes<kHeadDim, kFormat>},
           attend_int8_mma<kHeadDim, kFormat>, parameters);
}

template <int kHeadDim>
void attend_with(Kernel kernel, const Call& call) {
    switch (kernel) {
        case Kernel::kBfloat16Mma:
            return attend_in_bfloat16_mma<kHeadDim>(call);
        case Kernel::kBfloat16Wgmma:
            return attend_in_bfloat16_wgmma<kHeadDim>(call);
        case Kernel::kInt8Fp16Mma:
            return attend_in_int8_mma<kHeadDim, ValueFormat::kFp16>(call, kernel);
        case Kernel::kInt8Fp8Mma:
            return attend_in_int8_mma<kHeadDim, ValueFormat::kFp8>(call, kernel);
        case Kernel::kInt8Wgmma:
            return attend_in_int8_wgmma<kHeadDim>(call);
    }
}

}  // namespace

void check_device(std::int32_t device) {
    int devices = 0;
    expect_gpu(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
    expect(0 <= device && device < devices, "device", device, "0 to " + to_text(devices - 1));
    const int capability = compute_capability(device);
    if (capability < kOldest || code_version(device) == 0) {
        throw Error(SCALEDIT_UNSUPPORTED, "GPU " + to_text(device) + " has compute capability " + version(capability) +
                                              ", for which this build has no kernels");
    }
}

void upload(const Geometry& geometry, void* device_memory, void* stream) {
    const CurrentDevice current(device_of(device_memory, "device_memory"));
    cudaStreamCaptureStatus capture{};
    check(cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &capture), "cudaStreamIsCapturing");
    if (capture != cudaStreamCaptureStatusNone) {
        fail_invalid(
            "stream is being captured, expected one that is not: a graph would copy from memory that is gone by then");
    }
    const auto block = pack(geometry);
    // From pageable memory: the call returns once the block has been read.
    check(cudaMemcpyAsync(device_memory, block.data(), block.size(), cudaMemcpyHostToDevice,
                          static_cast<cudaStream_t>(stream)),
          "copying the geometry");
}

void attend(const Geometry& geometry, const DeviceGeometryLayout& at, Kernel kernel,
            const scaledit_cuda_attention_arguments& a) {
    const int device = common_device({a.query.data, "query.data"},
                                     {{a.key.data, "key.data"},
                                      {a.value.data, "value.data"},
                                      {a.output.data, "output.data"},
                                      {a.device_geometry, "device_geometry"},
                                      {a.log_sum_exp, "log_sum_exp"},
                                      {a.query_norm, "query_norm"},
                                      {a.key_norm, "key_norm"},
                                      {a.text_query_norm, "text_query_norm"},
                                      {a.text_key_norm, "text_key_norm"},
                                      {a.rotation, "rotation"},
                                      {a.arithmetic == SCALEDIT_ARITHMETIC_INT8 ? a.workspace : nullptr, "workspace"}});
    const CurrentDevice current(device);
    const Call call{geometry, at, a, device, queue(a.stream, measure<128>)};
    a.head_dim == 128 ? attend_with<128>(kernel, call) : attend_with<64>(kernel, call);
}

}  // namespace scaledit::cuda

#include <cuda_runtime.h>

#include <algorithm>
#include <utility>

#include "cuda/attention_backward.cuh"
#include "cuda/attention_backward.h"
#include "cuda/attention_backward_hopper.cuh"
#include "cuda/backward.cuh"
#include "cuda/device.h"
#include "cuda/launch.cuh"

namespace scaledit::cuda {
namespace {

// A pass through wgmma.
template <int kHeadDim, bool kOfKeys>
void propagate_with_wgmma(const Queue& queue, const char* what, const BackwardParameters& p, int device) {
    const std::int64_t processors = attribute(cudaDevAttrMultiProcessorCount, device);
    // A block counts beyond the last.
    const std::int64_t jobs = checked_jobs(p.pair_count, "pairs of tiles", p.heads, 2 * processors);
    launch(queue,
           {what, Start::kEarly, static_cast<unsigned>(std::min(jobs, processors)), bfloat16_hopper::backward::kThreads,
            kBackwardHopperSharedBytes<kHeadDim>},
           propagate_bfloat16_hopper<kHeadDim, kOfKeys>, p);
}

// A pass through mma.sync.
template <int kHeadDim, bool kOfKeys>
void propagate_with_mma(const Queue& queue, const char* what, const BackwardParameters& p, int device) {
    const auto jobs = static_cast<unsigned>(checked_jobs(p.pair_count, "pairs of tiles", p.heads));
    const auto start = [&]<int kStages>() {
        launch(queue, {what, Start::kEarly, jobs, kBackwardThreads, BackwardMemory<kHeadDim, kStages>::kBytes},
               propagate_bfloat16<kHeadDim, kOfKeys, kStages>, p);
    };
    if (attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device) >=
        static_cast<int>(BackwardMemory<kHeadDim, 2>::kBytes)) {
        start.template operator()<2>();
    } else {
        start.template operator()<1>();
    }
}

template <int kHeadDim>
void propagate_back(const Geometry& geometry, const DeviceGeometryLayout& at, Kernel kernel,
                    const scaledit_cuda_attention_backward_arguments& a, int device) {
    const auto* lists = static_cast<const std::byte*>(a.device_geometry);
    auto* memory = static_cast<std::byte*>(a.workspace);
    const scaledit_geometry_info& info = geometry.info();
    const BackwardWorkspace places = backward_workspace(info.tiles, a.heads);
    auto* statistics = reinterpret_cast<float*>(memory + places.statistics);
    auto* next = reinterpret_cast<std::int32_t*>(memory + places.next);
    const auto* tiles = reinterpret_cast<const TokenRange*>(lists + at.queries);
    const Queue queue = cuda::queue(a.stream, find_statistics<kHeadDim>);

    const StatisticsParameters measured{tiles,
                                        reinterpret_cast<const std::int32_t*>(lists + at.key_tokens),
                                        reinterpret_cast<const std::int32_t*>(lists + at.query_tokens),
                                        info.tokens,
                                        device_tensor(a.output),
                                        device_tensor(a.output_gradient),
                                        device_tensor(a.query_gradient),
                                        device_tensor(a.key_gradient),
                                        device_tensor(a.value_gradient),
                                        a.log_sum_exp,
                                        statistics,
                                        next};
    launch(queue,
           {"the kernel that prepares gradients", Start::kInOrder,
            dim3(static_cast<unsigned>(info.tiles), static_cast<unsigned>(a.heads)), kStatisticsThreads},
           find_statistics<kHeadDim>, measured);

    BackwardParameters of_queries{};
    of_queries.tiles = tiles;
    of_queries.tile_count = static_cast<std::int32_t>(info.tiles);
    of_queries.heads = a.heads;
    of_queries.pairs = reinterpret_cast<const TilePair*>(lists + at.pairs);
    of_queries.runs = reinterpret_cast<const TileRun*>(lists + at.pair_runs);
    of_queries.pair_count = at.pair_count;
    of_queries.long_pairs = at.long_pairs;
    of_queries.own_left = device_tensor(a.query);
    of_queries.own_right = device_tensor(a.output_gradient);
    of_queries.met_left = device_tensor(a.key);
    of_queries.met_right = device_tensor(a.value);
    of_queries.left_gradient = device_tensor(a.query_gradient);
    of_queries.statistics = statistics;
    of_queries.next = next;
    of_queries.scale = a.scale;

    BackwardParameters of_keys = of_queries;
    of_keys.pairs = reinterpret_cast<const TilePair*>(lists + at.key_pairs);
    of_keys.runs = reinterpret_cast<const TileRun*>(lists + at.key_pair_runs);
    of_keys.pair_count = at.key_pair_count;
    of_keys.long_pairs = at.long_key_pairs;
    std::swap(of_keys.own_left, of_keys.met_left);
    std::swap(of_keys.own_right, of_keys.met_right);
    of_keys.left_gradient = device_tensor(a.key_gradient);
    of_keys.right_gradient = device_tensor(a.value_gradient);
    of_keys.next = next + 1;

    constexpr const char* kQueries = "the kernel of queries' gradients";
    constexpr const char* kKeys = "the kernel of keys' gradients";
    const bool wgmma = kernel == Kernel::kBfloat16Wgmma;
    (wgmma ? propagate_with_wgmma<kHeadDim, false> : propagate_with_mma<kHeadDim, false>)(queue, kQueries, of_queries,
                                                                                          device);
    (wgmma ? propagate_with_wgmma<kHeadDim, true> : propagate_with_mma<kHeadDim, true>)(queue, kKeys, of_keys, device);
}

}  // namespace

void propagate_back(const Geometry& geometry, const DeviceGeometryLayout& at, Kernel kernel,
                    const scaledit_cuda_attention_backward_arguments& a) {
    const int device = common_device({a.query.data, "query.data"}, {{a.key.data, "key.data"},
                                                                    {a.value.data, "value.data"},
                                                                    {a.output.data, "output.data"},
                                                                    {a.output_gradient.data, "output_gradient.data"},
                                                                    {a.query_gradient.data, "query_gradient.data"},
                                                                    {a.key_gradient.data, "key_gradient.data"},
                                                                    {a.value_gradient.data, "value_gradient.data"},
                                                                    {a.log_sum_exp, "log_sum_exp"},
                                                                    {a.device_geometry, "device_geometry"},
                                                                    {a.workspace, "workspace"}});
    const CurrentDevice current(device);
    a.head_dim == 128 ? propagate_back<128>(geometry, at, kernel, a, device)
                      : propagate_back<64>(geometry, at, kernel, a, device);
}

}  // namespace scaledit::cuda

// Two passes over a geometry's tile lists, so that every gradient is summed by one thread in one order: query tiles
// gather from their keys, then key tiles from their queries. Scores and weights are computed in both.
#include <algorithm>
#include <array>
#include <cstdint>
#include <numbers>

#include "cpu/arena.h"
#include "cpu/attention.h"
#include "cpu/instruction_sets.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/tile_order.h"
#include "quantize/pack.h"
#include "quantize/rows.h"

namespace scaledit::cpu {
namespace {

struct ThreadState {
    GradientTile own;
    alignas(64) float rows[std::size_t{kTileTokens} * kMaxHeadDim];
};

class BackwardPass {
public:
    BackwardPass(const BackwardProblem& problem, void* workspace)
        : geometry_(problem.geometry),
          queries_(problem.queries.lists()),
          arguments_(problem.arguments),
          kernels_(kernels_of(static_cast<scaledit_instruction_set>(arguments_.instruction_set)).gradients),
          tiles_(geometry_.info().tiles),
          head_dim_(arguments_.head_dim),
          base2_scale_(arguments_.scale * std::numbers::log2e_v<float>),
          column_bytes_(align(quantize::key_tile_bytes(kernels_.layout, head_dim_))),
          row_bytes_(align(quantize::value_tile_bytes(kernels_.layout, head_dim_))),
          query_order_(geometry_.keys()),
          key_order_(queries_),
          group_heads_(query_order_.heads_in_group(arguments_.heads, arguments_.threads,
                                                   size(tiles_) * 2 * (column_bytes_ + row_bytes_))) {
        Arena arena(workspace);
        const std::size_t tiles = size(group_heads_ * tiles_);
        threads_ = arena.take<ThreadState>(size(arguments_.threads));
        log2_sum_exp_ = arena.take<float>(tiles * kTileTokens);
        delta_ = arena.take<float>(tiles * kTileTokens);
        left_ = arena.take<std::byte>(tiles * column_bytes_);
        right_ = arena.take<std::byte>(tiles * column_bytes_);
        left_rows_ = arena.take<std::byte>(tiles * row_bytes_);
        right_rows_ = arena.take<std::byte>(tiles * row_bytes_);
        bytes_ = arena.used();
    }

    [[nodiscard]] std::size_t bytes() const { return bytes_; }

    void run() {
        for (first_head_ = 0; first_head_ < arguments_.heads; first_head_ += group_heads_) {
            heads_ = std::min<std::int64_t>(group_heads_, arguments_.heads - first_head_);
            for_each(tiles_ * heads_, [this](std::int64_t item, ThreadState& thread) {
                pack_keys(item % heads_, item / heads_, thread);
            });
            for_each(query_order_.tiles() * heads_, [this](std::int64_t item, ThreadState& thread) {
                const TileOrder::Work work = query_order_.work_of(item, heads_);
                propagate_to_queries(work.head, work.tile, thread);
            });
            for_each(tiles_ * heads_, [this](std::int64_t item, ThreadState& thread) {
                pack_queries(item % heads_, item / heads_, thread);
            });
            for_each(key_order_.tiles() * heads_, [this](std::int64_t item, ThreadState& thread) {
                const TileOrder::Work work = key_order_.work_of(item, heads_);
                propagate_to_keys(work.head, work.tile, thread);
            });
        }
    }

private:
    static std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

    [[nodiscard]] const scaledit_tile& tile(std::int64_t index) const { return geometry_.tiles()[size(index)]; }

    template <class Body>
    void for_each(std::int64_t items, const Body& body) const {
        parallel_for(arguments_.threads, items,
                     [&](std::int64_t item, int thread) { body(item, threads_[size(thread)]); });
    }

    // rows[tokens, head_dim] of one head of the group and one tile, times `factor`.
    void read_rows(const scaledit_tensor& tensor, std::int64_t head, const scaledit_tile& of, float factor,
                   float* rows) const {
        quantize::read_rows(tensor, first_head_ + head, of.first, of.tokens, head_dim_, rows);
        for (int i = 0; i < of.tokens * head_dim_; ++i) {
            rows[i] *= factor;
        }
    }

    // The same with rows kMaxHeadDim apart.
    void read_tile(const scaledit_tensor& tensor, std::int64_t head, const scaledit_tile& of, float factor,
                   ThreadState& thread, float (&tile)[kTileTokens][kMaxHeadDim]) const {
        read_rows(tensor, head, of, factor, thread.rows);
        for (int row = 0; row < of.tokens; ++row) {
            std::copy_n(thread.rows + row * head_dim_, head_dim_, tile[row]);
        }
    }

    void write_tile(const float (&tile)[kTileTokens][kMaxHeadDim], float factor, const scaledit_tensor& tensor,
                    std::int64_t head, const scaledit_tile& of) const {
        std::array<float, kTileTokens> factors{};
        factors.fill(factor);
        quantize::write_rows(tile[0], kMaxHeadDim, factors.data(), tensor, first_head_ + head, of.first, of.tokens,
                             head_dim_);
    }

    void pack_columns(const scaledit_tile& packed, const ThreadState& thread, std::byte* to) const {
        quantize::pack_keys(quantize::Arithmetic::kFloat32, kernels_.layout, thread.rows, packed.tokens, head_dim_, to);
    }

    void pack_rows(const scaledit_tile& packed, const ThreadState& thread, std::byte* to) const {
        quantize::pack_values(quantize::Arithmetic::kFloat32, kernels_.layout, thread.rows, packed.tokens, head_dim_,
                              to);
    }

    void pack_keys(std::int64_t head, std::int64_t index, ThreadState& thread) const {
        const std::size_t slot = size(head * tiles_ + index);
        read_rows(arguments_.key, head, tile(index), 1.0F, thread.rows);
        pack_columns(tile(index), thread, left_ + slot * column_bytes_);
        pack_rows(tile(index), thread, left_rows_ + slot * row_bytes_);
        read_rows(arguments_.value, head, tile(index), 1.0F, thread.rows);
        pack_columns(tile(index), thread, right_ + slot * column_bytes_);
    }

    // Queries times base2_scale_, as in the forward pass: scores come out with the same bits. Those that attend to
    // nobody are met by no key, and their gradients are zero.
    void pack_queries(std::int64_t head, std::int64_t index, ThreadState& thread) const {
        if (geometry_.ranges(index).empty()) {
            start(tile(index), thread.own);
            write_tile(thread.own.left_gradient, 1.0F, arguments_.query_gradient, head, tile(index));
            return;
        }
        const std::size_t slot = size(head * tiles_ + index);
        read_rows(arguments_.query, head, tile(index), base2_scale_, thread.rows);
        pack_columns(tile(index), thread, left_ + slot * column_bytes_);
        pack_rows(tile(index), thread, left_rows_ + slot * row_bytes_);
        read_rows(arguments_.output_gradient, head, tile(index), 1.0F, thread.rows);
        pack_columns(tile(index), thread, right_ + slot * column_bytes_);
        pack_rows(tile(index), thread, right_rows_ + slot * row_bytes_);
    }

    [[nodiscard]] MetTile met(std::int64_t head, std::int64_t index) const {
        const std::size_t slot = size(head * tiles_ + index);
        return {left_ + slot * column_bytes_,
                right_ + slot * column_bytes_,
                left_rows_ + slot * row_bytes_,
                right_rows_ + slot * row_bytes_,
                log2_sum_exp_ + slot * kTileTokens,
                delta_ + slot * kTileTokens,
                tile(index).tokens};
    }

    // Starts a tile whose gradients are zero.
    void start(const scaledit_tile& of, GradientTile& own) const {
        own.tokens = of.tokens;
        own.head_dim = head_dim_;
        std::fill_n(own.left_gradient[0], kTileTokens * kMaxHeadDim, 0.0F);
        std::fill_n(own.right_gradient[0], kTileTokens * kMaxHeadDim, 0.0F);
    }

    void meet(std::int64_t head, std::span<const scaledit_tile_range> ranges, PropagateTile propagate,
              GradientTile& own) const {
        for (const auto& range : ranges) {
            for (std::int64_t other = range.first; other < range.first + range.count; ++other) {
                propagate(met(head, other), own);
            }
        }
    }

    void propagate_to_queries(std::int64_t head, std::int64_t index, ThreadState& thread) const {
        const scaledit_tile& of = tile(index);
        GradientTile& own = thread.own;
        start(of, own);
        read_tile(arguments_.query, head, of, base2_scale_, thread, own.left);
        read_tile(arguments_.output_gradient, head, of, 1.0F, thread, own.right);
        find_statistics(head, index, thread);
        meet(head, geometry_.ranges(index), kernels_.to_queries, own);
        write_tile(own.left_gradient, arguments_.scale, arguments_.query_gradient, head, of);
    }

    // What a query's weights and their gradients need, for the tile itself and kept for its keys.
    void find_statistics(std::int64_t head, std::int64_t index, ThreadState& thread) const {
        const scaledit_tile& of = tile(index);
        GradientTile& own = thread.own;
        const float* log_sum_exp = arguments_.log_sum_exp + (first_head_ + head) * geometry_.info().tokens + of.first;
        read_rows(arguments_.output, head, of, 1.0F, thread.rows);
        for (int row = 0; row < kTileTokens; ++row) {
            double product = 0.0;
            double logarithm = 0.0;
            if (row < of.tokens) {
                for (int i = 0; i < head_dim_; ++i) {
                    product +=
                        static_cast<double>(thread.rows[row * head_dim_ + i]) * static_cast<double>(own.right[row][i]);
                }
                logarithm = static_cast<double>(log_sum_exp[row]) * std::numbers::log2e;
            }
            own.delta[row] = static_cast<float>(product);
            own.log2_sum_exp[row] = static_cast<float>(logarithm);
        }
        const std::size_t slot = size(head * tiles_ + index) * kTileTokens;
        std::copy_n(own.delta, kTileTokens, delta_ + slot);
        std::copy_n(own.log2_sum_exp, kTileTokens, log2_sum_exp_ + slot);
    }

    void propagate_to_keys(std::int64_t head, std::int64_t index, ThreadState& thread) const {
        const scaledit_tile& of = tile(index);
        GradientTile& own = thread.own;
        start(of, own);
        read_tile(arguments_.key, head, of, 1.0F, thread, own.left);
        read_tile(arguments_.value, head, of, 1.0F, thread, own.right);
        meet(head, queries_.ranges_of(index), kernels_.to_keys, own);
        // The queries it met were multiplied by scale * log2(e).
        write_tile(own.left_gradient, std::numbers::ln2_v<float>, arguments_.key_gradient, head, of);
        write_tile(own.right_gradient, 1.0F, arguments_.value_gradient, head, of);
    }

    const Geometry& geometry_;
    TileLists queries_;  // of each key tile
    const scaledit_attention_backward_arguments& arguments_;
    const GradientKernels& kernels_;
    std::int64_t tiles_;
    std::int32_t head_dim_;
    float base2_scale_;
    std::size_t column_bytes_;
    std::size_t row_bytes_;
    TileOrder query_order_;
    TileOrder key_order_;
    std::int64_t group_heads_;

    ThreadState* threads_ = nullptr;  // [threads]
    float* log2_sum_exp_ = nullptr;   // [group_heads, tiles, kTileTokens]
    float* delta_ = nullptr;          // likewise
    // [group_heads, tiles] packed tiles: of keys and values, then of queries and output gradients
    std::byte* left_ = nullptr;
    std::byte* right_ = nullptr;
    std::byte* left_rows_ = nullptr;
    std::byte* right_rows_ = nullptr;
    std::size_t bytes_ = 0;

    std::int64_t first_head_ = 0;  // of the group at work
    std::int64_t heads_ = 0;
};

}  // namespace

std::size_t workspace_bytes(const BackwardProblem& problem) { return BackwardPass(problem, nullptr).bytes(); }

void propagate_back(const BackwardProblem& problem) { BackwardPass(problem, problem.arguments.workspace).run(); }

}  // namespace scaledit::cpu

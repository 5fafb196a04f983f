#include "cpu/attention.h"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>
#include <new>
#include <numbers>
#include <span>

#include "cpu/arena.h"
#include "cpu/instruction_sets.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/tile_order.h"
#include "quantize/pack.h"
#include "quantize/rows.h"

namespace scaledit::cpu {
namespace {

// Tiles whose keys are summed by one thread on the way to the mean.
constexpr std::int64_t kTilesPerSum = 16;

// In base 2 logits, see QueryTile: weights this far below a row's maximum no longer gain precision. 2^16 times the
// largest weight and 2^24 tokens leave float32 ample room.
constexpr float kDescent = 16.0F;

// Of weights, before they are multiplied by 2^weight_exponent.
constexpr float kLowestPower = -126.0F;

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

struct ThreadState {
    QueryTile queries;
    alignas(64) float rows[std::size_t{kTileTokens} * kMaxHeadDim];
};

class AttentionPass {
public:
    AttentionPass(const Problem& problem, void* workspace)
        : geometry_(problem.geometry),
          arguments_(problem.arguments),
          arithmetic_(arguments_.arithmetic == SCALEDIT_ARITHMETIC_INT8 ? quantize::Arithmetic::kInt8
                                                                        : quantize::Arithmetic::kFloat32),
          kernel_(choose_kernel(arithmetic_, arguments_)),
          tiles_(geometry_.info().tiles),
          head_dim_(arguments_.head_dim),
          key_bytes_(align(quantize::key_tile_bytes(kernel_.layout, head_dim_))),
          value_bytes_(align(quantize::value_tile_bytes(kernel_.layout, head_dim_))),
          order_(geometry_.keys()),
          group_heads_(
              order_.heads_in_group(arguments_.heads, arguments_.threads, size(tiles_) * (key_bytes_ + value_bytes_))) {
        Arena arena(workspace);
        threads_ = arena.take<ThreadState>(static_cast<std::size_t>(arguments_.threads));
        sums_ = arena.take<double>(smoothed() ? size(group_heads_ * sums_per_head() * head_dim_) : 0);
        means_ = arena.take<float>(smoothed() ? size(group_heads_ * head_dim_) : 0);
        keys_ = arena.take<std::byte>(size(group_heads_ * tiles_) * key_bytes_);
        values_ = arena.take<std::byte>(size(group_heads_ * tiles_) * value_bytes_);
        bytes_ = arena.used();
    }

    [[nodiscard]] std::size_t bytes() const { return bytes_; }

    // Items of packing go through the heads of one tile before the next tile: heads of a token are neighbours in
    // memory.
    void run() {
        for (first_head_ = 0; first_head_ < arguments_.heads; first_head_ += group_heads_) {
            heads_ = std::min<std::int64_t>(group_heads_, arguments_.heads - first_head_);
            if (smoothed()) {
                average_keys();
            }
            for_each(tiles_ * heads_, [this](std::int64_t item, ThreadState& thread) {
                pack_tile(item % heads_, item / heads_, thread);
            });
            for_each(heads_ * order_.tiles(), [this](std::int64_t item, ThreadState& thread) {
                const TileOrder::Work work = order_.work_of(item, heads_);
                attend_tile(work.head, work.tile, thread);
            });
        }
    }

private:
    static std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

    static const Kernel& choose_kernel(quantize::Arithmetic arithmetic, const scaledit_attention_arguments& arguments) {
        const Kernels& kernels = kernels_of(static_cast<scaledit_instruction_set>(arguments.instruction_set));
        return arithmetic == quantize::Arithmetic::kInt8 ? kernels.int8 : kernels.float32;
    }

    [[nodiscard]] bool smoothed() const { return arithmetic_ == quantize::Arithmetic::kInt8; }
    [[nodiscard]] std::int64_t sums_per_head() const { return divide_up(tiles_, kTilesPerSum); }
    [[nodiscard]] const scaledit_tile& tile(std::int64_t index) const { return geometry_.tiles()[size(index)]; }
    [[nodiscard]] std::byte* key_tile(std::int64_t head, std::int64_t index) const {
        return keys_ + size(head * tiles_ + index) * key_bytes_;
    }
    [[nodiscard]] std::byte* value_tile(std::int64_t head, std::int64_t index) const {
        return values_ + size(head * tiles_ + index) * value_bytes_;
    }

    template <class Body>
    void for_each(std::int64_t items, const Body& body) const {
        parallel_for(arguments_.threads, items,
                     [&](std::int64_t item, int thread) { body(item, threads_[size(thread)]); });
    }

    // rows[tokens, head_dim] of one head of the group and one tile.
    void read_rows(const scaledit_tensor& tensor, std::int64_t head, const scaledit_tile& of, float* rows) const {
        quantize::read_rows(tensor, first_head_ + head, of.first, of.tokens, head_dim_, rows);
    }

    // means[heads of the group, head_dim], the same for any number of threads.
    void average_keys() {
        const std::int64_t parts = sums_per_head();
        for_each(parts * heads_, [this](std::int64_t item, ThreadState& thread) {
            double* sums = sums_ + item * head_dim_;
            std::fill_n(sums, head_dim_, 0.0);
            const std::int64_t first = item / heads_ * kTilesPerSum;
            for (std::int64_t index = first; index < std::min(first + kTilesPerSum, tiles_); ++index) {
                read_rows(arguments_.key, item % heads_, tile(index), thread.rows);
                quantize::add_to_sums(thread.rows, tile(index).tokens, head_dim_, sums);
            }
        });
        for (std::int64_t head = 0; head < heads_; ++head) {
            for (std::int64_t channel = 0; channel < head_dim_; ++channel) {
                double sum = 0.0;
                for (std::int64_t part = 0; part < parts; ++part) {
                    sum += sums_[(part * heads_ + head) * head_dim_ + channel];
                }
                // A sum that a NaN joined says nothing of the other keys: any mean will do for them.
                means_[head * head_dim_ + channel] =
                    std::isfinite(sum) ? static_cast<float>(sum / static_cast<double>(geometry_.info().tokens)) : 0.0F;
            }
        }
    }

    void pack_tile(std::int64_t head, std::int64_t index, ThreadState& thread) const {
        const scaledit_tile& packed = tile(index);
        read_rows(arguments_.key, head, packed, thread.rows);
        if (smoothed()) {
            const float* mean = means_ + head * head_dim_;
            for (int row = 0; row < packed.tokens; ++row) {
                for (int i = 0; i < head_dim_; ++i) {
                    thread.rows[row * head_dim_ + i] -= mean[i];
                }
            }
        }
        quantize::pack_keys(arithmetic_, kernel_.layout, thread.rows, packed.tokens, head_dim_, key_tile(head, index));
        read_rows(arguments_.value, head, packed, thread.rows);
        quantize::pack_values(arithmetic_, kernel_.layout, thread.rows, packed.tokens, head_dim_,
                              value_tile(head, index));
    }

    void attend_tile(std::int64_t head, std::int64_t index, ThreadState& thread) const {
        QueryTile& queries = thread.queries;
        start_queries(head, tile(index), thread);
        for (const auto& range : geometry_.ranges(index)) {
            for (std::int64_t key = range.first; key < range.first + range.count; ++key) {
                kernel_.attend_tile({key_tile(head, key), value_tile(head, key), tile(key).tokens}, queries);
            }
        }
        finish_queries(head, tile(index), thread);
    }

    // Reads and packs the queries; leaves them, times scale and in base 2, in thread.rows.
    void start_queries(std::int64_t head, const scaledit_tile& of, ThreadState& thread) const {
        const float base2_scale = arguments_.scale * std::numbers::log2e_v<float>;
        read_rows(arguments_.query, head, of, thread.rows);
        for (int i = 0; i < of.tokens * head_dim_; ++i) {
            thread.rows[i] *= base2_scale;
        }
        QueryTile& queries = thread.queries;
        queries.tokens = of.tokens;
        queries.head_dim = head_dim_;
        quantize::pack_queries(arithmetic_, kernel_.layout.key, thread.rows, of.tokens, head_dim_, queries.query[0],
                               queries.scale);
        for (int row = 0; row < kTileTokens; ++row) {
            if (row >= of.tokens) {
                queries.scale[row] = 1.0F;
            }
            queries.descent[row] = kDescent / queries.scale[row];
            queries.lowest[row] = kLowestPower / queries.scale[row];
            queries.tile_maximum[row] = 0.0F;
            queries.maximum[row] = -FLT_MAX;
            queries.reference[row] = -FLT_MAX;
            std::fill_n(queries.sum[row], kMaxLanes, 0.0F);
            std::fill_n(queries.output[row], kMaxHeadDim, 0.0F);
        }
    }

    void finish_queries(std::int64_t head, const scaledit_tile& of, const ThreadState& thread) const {
        const QueryTile& queries = thread.queries;
        std::array<float, kTileTokens> inverse{};
        for (int row = 0; row < of.tokens; ++row) {
            float sum = 0.0F;
            for (const float part : queries.sum[row]) {
                sum += part;
            }
            if (queries.maximum[row] == -FLT_MAX) {  // all scores are -inf: there is no weight to speak of
                sum = std::numeric_limits<float>::quiet_NaN();
            }
            inverse[size(row)] = 1.0F / sum;
            if (arguments_.log_sum_exp != nullptr) {
                const std::int64_t token = (first_head_ + head) * geometry_.info().tokens + of.first + row;
                arguments_.log_sum_exp[token] = log_sum_exp(head, thread, row, sum);
            }
        }
        quantize::write_rows(queries.output[0], kMaxHeadDim, inverse.data(), arguments_.output, first_head_ + head,
                             of.first, of.tokens, head_dim_);
    }

    // Scores lack query * mean(key) where the keys were smoothed.
    [[nodiscard]] float log_sum_exp(std::int64_t head, const ThreadState& thread, int row, float sum) const {
        const QueryTile& queries = thread.queries;
        double logit = static_cast<double>(queries.scale[row]) * static_cast<double>(queries.reference[row]) +
                       std::log2(static_cast<double>(sum)) - kernel_.weight_exponent;
        if (smoothed()) {
            for (int i = 0; i < head_dim_; ++i) {
                logit += static_cast<double>(thread.rows[row * head_dim_ + i]) *
                         static_cast<double>(means_[head * head_dim_ + i]);
            }
        }
        return static_cast<float>(logit * std::numbers::ln2);
    }

    const Geometry& geometry_;
    const scaledit_attention_arguments& arguments_;
    quantize::Arithmetic arithmetic_;
    const Kernel& kernel_;
    std::int64_t tiles_;
    std::int32_t head_dim_;
    std::size_t key_bytes_;
    std::size_t value_bytes_;
    TileOrder order_;
    std::int64_t group_heads_;

    ThreadState* threads_ = nullptr;  // [threads]
    double* sums_ = nullptr;          // [sums_per_head, heads of the group, head_dim]
    float* means_ = nullptr;          // [group_heads, head_dim]
    std::byte* keys_ = nullptr;       // [group_heads, tiles] packed key tiles
    std::byte* values_ = nullptr;
    std::size_t bytes_ = 0;

    std::int64_t first_head_ = 0;  // of the group at work
    std::int64_t heads_ = 0;
};

}  // namespace

std::size_t workspace_bytes(const Problem& problem) { return AttentionPass(problem, nullptr).bytes(); }

void attend(const Problem& problem) { AttentionPass(problem, problem.arguments.workspace).run(); }

}  // namespace scaledit::cpu

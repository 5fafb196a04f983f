#include "abi/attention_checks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "abi/cuda.h"
#include "abi/guard.h"
#include "abi/handle.h"
#include "error.h"

namespace scaledit::abi {

std::vector<NamedTensor> tensors(const scaledit_attention_arguments& a) {
    return {{"query", a.query, false}, {"key", a.key, false}, {"value", a.value, false}, {"output", a.output, true}};
}

std::vector<NamedTensor> tensors(const scaledit_attention_backward_arguments& a) {
    return {{"query", a.query, false},
            {"key", a.key, false},
            {"value", a.value, false},
            {"output", a.output, false},
            {"output_gradient", a.output_gradient, false},
            {"query_gradient", a.query_gradient, true},
            {"key_gradient", a.key_gradient, true},
            {"value_gradient", a.value_gradient, true}};
}

namespace {

constexpr std::int32_t kMaxHeads = 4096;
constexpr std::int32_t kMaxThreads = 1024;
constexpr std::size_t kWorkspaceAlignment = 64;

std::int64_t element_bytes(const scaledit_tensor& tensor) { return tensor.dtype == SCALEDIT_FLOAT32 ? 4 : 2; }

// The sizes that all tensors share.
struct Shape {
    std::int64_t tokens;
    std::int64_t heads;
    std::int64_t head_dim;

    // Elements from the first to one past the last.
    [[nodiscard]] std::int64_t extent(const scaledit_tensor& t) const {
        return (tokens - 1) * t.token_stride + (heads - 1) * t.head_stride + head_dim;
    }

    // Whether no two rows share an element, with the heads of a token side by side or the tokens of a head.
    [[nodiscard]] bool rows_are_disjoint(const scaledit_tensor& t) const {
        const auto nested = [&](std::int64_t inner, std::int64_t inner_stride, std::int64_t outer,
                                std::int64_t outer_stride) {
            return (inner == 1 || inner_stride >= head_dim) &&
                   (outer == 1 || outer_stride >= (inner - 1) * inner_stride + head_dim);
        };
        return nested(heads, t.head_stride, tokens, t.token_stride) ||
               nested(tokens, t.token_stride, heads, t.head_stride);
    }

    // Whether their rows are as far apart; a stride from one row to the next means nothing where there is no next.
    [[nodiscard]] bool same_strides(const scaledit_tensor& a, const scaledit_tensor& b) const {
        return (tokens == 1 || a.token_stride == b.token_stride) && (heads == 1 || a.head_stride == b.head_stride);
    }

    // Whether any row of one tensor shares an element with any row of another of the same strides, which begins
    // `distance` elements after it: two parts of one fused buffer interleave without meeting.
    [[nodiscard]] bool rows_meet(const scaledit_tensor& t, std::int64_t distance) const {
        for (std::int64_t head = 1 - heads; head < heads; ++head) {
            const std::int64_t gap = distance + head * t.head_stride;
            const std::int64_t nearest = -gap / t.token_stride;  // rounded towards 0, so try both neighbours too
            for (const std::int64_t candidate : {nearest - 1, nearest, nearest + 1}) {
                const std::int64_t token = std::clamp(candidate, 1 - tokens, tokens - 1);
                if (std::abs(gap + token * t.token_stride) < head_dim) {
                    return true;
                }
            }
        }
        return false;
    }
};

template <class Arguments>
Shape shape(const Arguments& a) {
    return {a.geometry->value.info().tokens, a.heads, a.head_dim};
}

void check_tensor(const NamedTensor& named, const Shape& shape, std::int32_t dtype) {
    const std::string name = named.name;
    const scaledit_tensor& tensor = named.tensor;
    expect(tensor.dtype == SCALEDIT_FLOAT32 || tensor.dtype == SCALEDIT_BFLOAT16, name + ".dtype", tensor.dtype,
           "0 (float32) or 1 (bfloat16)");
    expect(tensor.dtype == dtype, name + ".dtype", tensor.dtype, to_text(dtype) + " as for query");

    const auto check_stride = [&](std::string_view stride_name, std::int64_t stride, std::int64_t size) {
        const std::int64_t most = kMostElements / size;
        expect(1 <= stride && stride <= most, name + "." + std::string(stride_name), stride,
               "1 to " + to_text(most) + " elements");
    };
    check_stride("token_stride", tensor.token_stride, shape.tokens);
    check_stride("head_stride", tensor.head_stride, shape.heads);
    if (!shape.rows_are_disjoint(tensor)) {
        fail_invalid(name + " has token_stride " + to_text(tensor.token_stride) + " and head_stride " +
                     to_text(tensor.head_stride) + ", expected strides that keep the rows of " +
                     to_text(shape.head_dim) + " elements of " + to_text(shape.tokens) + " tokens and " +
                     to_text(shape.heads) + " heads apart");
    }
}

// Bytes that a call reads or writes.
struct Region {
    std::string name;
    std::uintptr_t first;
    std::uintptr_t last;  // included, so that it exists at the end of the address space too
    bool written;
    const scaledit_tensor* tensor;  // null for a region without gaps
};

Region region(std::string name, const void* data, std::int64_t bytes, std::size_t alignment, bool written,
              const scaledit_tensor* tensor = nullptr) {
    expect_aligned(data, alignment, name, to_text(bytes) + " bytes");
    expect_addressable(data, static_cast<std::uintptr_t>(bytes), name);
    const auto first = reinterpret_cast<std::uintptr_t>(data);
    return {std::move(name), first, first + static_cast<std::uintptr_t>(bytes) - 1, written, tensor};
}

bool overlap(const Region& a, const Region& b, const Shape& shape) {
    if (a.last < b.first || b.last < a.first) {
        return false;
    }
    if (a.tensor == nullptr || b.tensor == nullptr || !shape.same_strides(*a.tensor, *b.tensor)) {
        return true;
    }
    const auto bytes = static_cast<std::int64_t>(b.first - a.first);
    return shape.rows_meet(*a.tensor, bytes / element_bytes(*a.tensor));
}

// What both passes have in common.
template <class Arguments>
void check_arguments(const Arguments& a) {
    expect_pointer(a.geometry, "geometry", "a geometry from scaledit_geometry_create");
    expect(1 <= a.heads && a.heads <= kMaxHeads, "heads", a.heads, "1 to " + to_text(kMaxHeads));
    expect(a.head_dim == 64 || a.head_dim == 128, "head_dim", a.head_dim, "64 or 128");
    expect(std::isfinite(a.scale) && a.scale > 0, "scale", a.scale, "a finite number above 0");
    expect(std::isfinite(a.scale * std::numbers::log2e_v<float>), "scale", a.scale,
           "a number whose product with log2(e) is finite");
    check_instruction_set(a.instruction_set);
    expect(0 <= a.threads && a.threads <= kMaxThreads, "threads", a.threads,
           "1 to " + to_text(kMaxThreads) + ", or 0 for one for each processor");
    for (const NamedTensor& named : tensors(a)) {
        check_tensor(named, shape(a), a.query.dtype);
    }
}

template <class Arguments>
Arguments resolved(Arguments a) {
    if (a.instruction_set == SCALEDIT_INSTRUCTION_SET_BEST) {
        a.instruction_set = cpu::best();
    }
    if (a.threads == 0) {
        const auto processors = static_cast<std::int32_t>(std::thread::hardware_concurrency());
        a.threads = std::clamp(processors, 1, kMaxThreads);
    }
    return a;
}

// Refuses null and misaligned buffers, and those that overlap one that is written.
template <class Arguments>
void check_buffers(const Arguments& a, bool writes_log_sum_exp, std::size_t workspace_bytes,
                   std::span<const ReadMemory> beside) {
    const Shape sizes = shape(a);
    const std::vector<NamedTensor> named = tensors(a);
    std::vector<Region> regions;
    for (const auto& [name, tensor, written] : named) {
        const std::int64_t element = element_bytes(tensor);
        regions.push_back(region(std::string(name) + ".data", tensor.data, sizes.extent(tensor) * element,
                                 static_cast<std::size_t>(element), written, &tensor));
    }
    if (a.log_sum_exp != nullptr) {
        const std::int64_t bytes = sizes.heads * sizes.tokens * std::int64_t{sizeof(float)};
        regions.push_back(region("log_sum_exp", a.log_sum_exp, bytes, alignof(float), writes_log_sum_exp));
    }
    expect(a.workspace_bytes >= workspace_bytes, "workspace_bytes", a.workspace_bytes,
           "at least " + to_text(workspace_bytes));
    if (workspace_bytes > 0) {
        regions.push_back(
            region("workspace", a.workspace, static_cast<std::int64_t>(workspace_bytes), kWorkspaceAlignment, true));
    }
    for (const auto& [name, data, bytes] : beside) {
        regions.push_back(region(name, data, static_cast<std::int64_t>(bytes), kGpuAlignment, false));
    }

    for (auto one = regions.begin(); one != regions.end(); ++one) {
        for (auto other = one + 1; other != regions.end(); ++other) {
            if ((one->written || other->written) && overlap(*one, *other, sizes)) {
                fail_invalid(other->name + " overlaps " + one->name + ", expected memory of its own");
            }
        }
    }
}

}  // namespace

void check_instruction_set(std::int32_t set) {
    expect(SCALEDIT_INSTRUCTION_SET_BEST <= set && set <= SCALEDIT_INSTRUCTION_SET_AVX512_VNNI, "instruction_set", set,
           "0 (best), 1 (portable), 2 (AVX2) or 3 (AVX-512 VNNI)");
    if (set != SCALEDIT_INSTRUCTION_SET_BEST && !cpu::supported(static_cast<scaledit_instruction_set>(set))) {
        throw Error(SCALEDIT_UNSUPPORTED,
                    "instruction_set is " + to_text(set) + ", which this processor or this build does not have");
    }
}

scaledit_attention_arguments checked(const scaledit_attention_arguments* arguments) {
    expect_pointer(arguments, "arguments", "a scaledit_attention_arguments");
    check_arguments(*arguments);
    expect(arguments->arithmetic == SCALEDIT_ARITHMETIC_FLOAT32 || arguments->arithmetic == SCALEDIT_ARITHMETIC_INT8,
           "arithmetic", arguments->arithmetic, "0 (float32) or 1 (INT8)");
    return resolved(*arguments);
}

scaledit_attention_backward_arguments checked(const scaledit_attention_backward_arguments* arguments) {
    expect_pointer(arguments, "arguments", "a scaledit_attention_backward_arguments");
    check_arguments(*arguments);
    return resolved(*arguments);
}

cpu::Problem checked_problem(const scaledit_attention_arguments* arguments) {
    const scaledit_attention_arguments a = checked(arguments);
    return {a.geometry->value, a};
}

cpu::BackwardProblem checked_problem(const scaledit_attention_backward_arguments* arguments) {
    const scaledit_attention_backward_arguments a = checked(arguments);
    return {a.geometry->value, a.geometry->queries(), a};
}

void check_buffers(const scaledit_attention_arguments& a, std::size_t workspace_bytes,
                   std::span<const ReadMemory> beside) {
    check_buffers(a, true, workspace_bytes, beside);
}

void check_buffers(const scaledit_attention_backward_arguments& a, std::size_t workspace_bytes,
                   std::span<const ReadMemory> beside) {
    expect_pointer(a.log_sum_exp, "log_sum_exp", "what the forward pass wrote");
    check_buffers(a, false, workspace_bytes, beside);
}

}  // namespace scaledit::abi

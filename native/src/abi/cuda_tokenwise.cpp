#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "abi/cuda.h"
#include "abi/guard.h"
#include "cuda/tokenwise.h"
#include "error.h"

namespace abi = scaledit::abi;
namespace cuda = scaledit::cuda;
using scaledit::expect;
using scaledit::to_text;

namespace {

constexpr std::int64_t kMostRows = INT32_MAX;  // blocks of a kernel
constexpr std::int32_t kWidthMultiple = 8;

// Rows of `row_bytes` bytes that begin `stride_bytes` apart.
struct Region {
    std::string name;
    std::uintptr_t first;
    std::uintptr_t row_bytes;
    std::uintptr_t stride_bytes;
    std::uintptr_t rows;
    bool written;

    [[nodiscard]] std::uintptr_t extent() const { return (rows - 1) * stride_bytes + row_bytes; }
};

// Whether two regions share a byte; `low` is the one that begins first. Rows of the same stride may lie between each
// other, as parts of one buffer; other regions may not.
bool meet(const Region& low, const Region& high) {
    const std::uintptr_t distance = high.first - low.first;
    if (distance >= low.extent()) {
        return false;
    }
    if (low.stride_bytes != high.stride_bytes || low.rows != high.rows) {
        return true;
    }
    const std::uintptr_t rows_between = distance / low.stride_bytes;
    const std::uintptr_t behind_row = distance % low.stride_bytes;
    const std::uintptr_t before_next = low.stride_bytes - behind_row;
    return behind_row < low.row_bytes || (rows_between + 1 < low.rows && before_next < high.row_bytes);
}

// Refuses what is wrong with one thing of a call, and remembers the memory for overlaps(). Without rows no
// pointer is looked at.
class Checks {
public:
    explicit Checks(std::int64_t rows) : rows_(rows) {
        expect(0 <= rows && rows <= kMostRows, "rows", rows, "0 to " + to_text(kMostRows));
    }

    void width(const std::string& name, std::int32_t width, std::int32_t least, std::int32_t most) const {
        expect(least <= width && width <= most && width % kWidthMultiple == 0, name, width,
               "a multiple of 8 from " + to_text(least) + " to " + to_text(most));
    }

    void guidance_rows(std::int64_t guidance_rows) {
        expect(0 <= guidance_rows && guidance_rows <= rows_, "guidance_rows", guidance_rows, "0 to " + to_text(rows_));
        guidance_rows_ = guidance_rows;
    }

    void matrix(const std::string& name, const scaledit_matrix& given, std::int32_t width, bool written) {
        matrix(name, given, rows_, width, written);
    }

    void matrix(const std::string& name, const scaledit_matrix& matrix, std::int64_t rows, std::int32_t width,
                bool written) {
        const std::int64_t element_bytes = matrix.dtype == SCALEDIT_E4M3 ? 1 : 2;
        const std::int64_t most = abi::kMostElements / (rows + 1);
        expect(width <= matrix.row_stride && matrix.row_stride <= most, name + ".row_stride", matrix.row_stride,
               to_text(width) + " to " + to_text(most) + " elements");
        abi::expect_gpu_stride(matrix.row_stride, name + ".row_stride");
        add(name + ".data", matrix.data, rows, width * element_bytes, matrix.row_stride * element_bytes, written);
    }

    void bfloat16_matrix(const std::string& name, const scaledit_matrix& given, std::int32_t width, bool written) {
        bfloat16_matrix(name, given, rows_, width, written);
    }

    // Of other rows than the call's.
    void bfloat16_matrix(const std::string& name, const scaledit_matrix& given, std::int64_t rows, std::int32_t width,
                         bool written) {
        expect(given.dtype == SCALEDIT_BFLOAT16, name + ".dtype", given.dtype, "1 (bfloat16)");
        matrix(name, given, rows, width, written);
    }

    void part(const std::string& name, const scaledit_modulation_part& part, std::int32_t width) {
        const std::int64_t bytes = std::int64_t{2} * width;
        add(name + ".current", part.current, 1, bytes, bytes, false);
        if (guidance_rows_ > 0) {
            add(name + ".guidance", part.guidance, 1, bytes, bytes, false);
        } else {
            absent(name + ".guidance", part.guidance, "without guidance rows");
        }
    }

    // Numbers of one row that a call reads.
    void vector(const std::string& name, const void* data, std::int64_t bytes) {
        add(name, data, 1, bytes, bytes, false);
    }

    // Memory that a call writes.
    void room(const std::string& name, const void* data, std::int64_t bytes) { add(name, data, 1, bytes, bytes, true); }

    void scales(const float* data) {
        const std::int64_t bytes = rows_ * std::int64_t{sizeof(float)};
        add("output_scale", data, 1, bytes, bytes, true);
    }

    void absent(const std::string& name, const void* data, const std::string& when) const {
        if (rows_ > 0 && data != nullptr) {
            scaledit::fail_invalid(name + " is given, expected null " + when);
        }
    }

    void overlaps() const {
        for (auto one = regions_.begin(); one != regions_.end(); ++one) {
            for (auto other = one + 1; other != regions_.end(); ++other) {
                if ((one->written || other->written) &&
                    (one->first <= other->first ? meet(*one, *other) : meet(*other, *one))) {
                    scaledit::fail_invalid(other->name + " overlaps " + one->name + ", expected memory of its own");
                }
            }
        }
    }

private:
    void add(const std::string& name, const void* data, std::int64_t rows, std::int64_t row_bytes,
             std::int64_t stride_bytes, bool written) {
        if (rows_ == 0) {
            return;
        }
        abi::expect_aligned(data, abi::kGpuAlignment, name,
                            (rows > 1 ? to_text(rows) + " rows of " : "") + to_text(row_bytes) + " bytes");
        regions_.push_back({name, reinterpret_cast<std::uintptr_t>(data), static_cast<std::uintptr_t>(row_bytes),
                            static_cast<std::uintptr_t>(stride_bytes), static_cast<std::uintptr_t>(rows), written});
    }

    std::int64_t rows_;
    std::int64_t guidance_rows_ = 0;
    std::vector<Region> regions_;
};

void check(const scaledit_cuda_add_gated_arguments& a) {
    Checks checks(a.rows);
    checks.guidance_rows(a.guidance_rows);
    checks.width("width", a.width, kWidthMultiple, cuda::kMostHiddenWidth);
    checks.bfloat16_matrix("hidden", a.hidden, a.width, true);
    checks.bfloat16_matrix("update", a.update, a.width, false);
    checks.part("gate", a.gate, a.width);
    checks.overlaps();
}

void check(const scaledit_cuda_modulate_arguments& a) {
    Checks checks(a.rows);
    checks.guidance_rows(a.guidance_rows);
    checks.width("width", a.width, kWidthMultiple, cuda::kMostHiddenWidth);
    expect(std::isfinite(a.epsilon) && a.epsilon > 0, "epsilon", a.epsilon, "a finite number above 0");
    const bool adds = a.update.data != nullptr;
    checks.bfloat16_matrix("hidden", a.hidden, a.width, adds);
    if (adds) {
        checks.bfloat16_matrix("update", a.update, a.width, false);
        checks.part("gate", a.gate, a.width);
    } else {
        checks.absent("gate.current", a.gate.current, "without an update");
        checks.absent("gate.guidance", a.gate.guidance, "without an update");
    }
    checks.part("shift", a.shift, a.width);
    checks.part("scale", a.scale, a.width);
    expect(a.output.dtype == SCALEDIT_BFLOAT16 || a.output.dtype == SCALEDIT_E4M3, "output.dtype", a.output.dtype,
           "1 (bfloat16) or 2 (e4m3)");
    checks.matrix("output", a.output, a.width, true);
    if (a.output.dtype == SCALEDIT_E4M3) {
        checks.scales(a.output_scale);
    } else {
        checks.absent("output_scale", a.output_scale, "with an output in bfloat16");
    }
    checks.overlaps();
}

void check(const scaledit_cuda_quantize_arguments& a) {
    Checks checks(a.rows);
    checks.width("width", a.width, 0, cuda::kMostWidth);
    checks.width("gelu_width", a.gelu_width, 0, cuda::kMostWidth);
    checks.width("width + gelu_width", a.width + a.gelu_width, kWidthMultiple, cuda::kMostWidth);
    if (a.width > 0) {
        checks.bfloat16_matrix("input", a.input, a.width, false);
    } else {
        checks.absent("input.data", a.input.data, "where width is 0");
    }
    if (a.gelu_width > 0) {
        checks.bfloat16_matrix("gelu_input", a.gelu_input, a.gelu_width, false);
    } else {
        checks.absent("gelu_input.data", a.gelu_input.data, "where gelu_width is 0");
    }
    expect(a.output.dtype == SCALEDIT_E4M3, "output.dtype", a.output.dtype, "2 (e4m3)");
    checks.matrix("output", a.output, a.width + a.gelu_width, true);
    checks.scales(a.output_scale);
    checks.overlaps();
}

void check(const scaledit_cuda_norm_and_rotate_arguments& a) {
    Checks checks(a.rows);
    expect(0 <= a.text_rows && a.text_rows <= a.rows, "text_rows", a.text_rows, "0 to " + to_text(a.rows));
    expect(a.head_dim == 64 || a.head_dim == 128, "head_dim", a.head_dim, "64 or 128");
    const std::int32_t most = cuda::kMostHiddenWidth / a.head_dim;
    expect(1 <= a.heads && a.heads <= most, "heads", a.heads, "1 to " + to_text(most));
    expect(std::isfinite(a.epsilon) && a.epsilon >= 0, "epsilon", a.epsilon, "a finite number, 0 or above");
    const std::int64_t norm_bytes = std::int64_t{2} * a.head_dim;
    checks.vector("norm", a.norm, norm_bytes);
    if (a.text_norm != nullptr) {
        checks.vector("text_norm", a.text_norm, norm_bytes);
    }
    checks.vector("rotation", a.rotation, a.rows * a.head_dim * std::int64_t{sizeof(float)});
    const std::int32_t width = a.heads * a.head_dim;
    checks.bfloat16_matrix("input", a.input, width, false);
    if (a.output_gradient.data != nullptr) {
        checks.bfloat16_matrix("output_gradient", a.output_gradient, width, false);
    }
    checks.bfloat16_matrix("output", a.output, width, true);
    checks.overlaps();
}

// What of it needs no memory.
void check_sizes(const scaledit_cuda_group_norm_arguments& a, const Checks& checks) {
    checks.width("channels", a.channels, kWidthMultiple, cuda::kMostNormChannels);
    expect(1 <= a.groups && a.groups <= a.channels && a.channels % a.groups == 0, "groups", a.groups,
           "a divisor of the " + to_text(a.channels) + " channels");
    expect(std::isfinite(a.epsilon) && a.epsilon > 0, "epsilon", a.epsilon, "a finite number above 0");
    expect(a.silu == 0 || a.silu == 1, "silu", a.silu, "0 (no) or 1 (yes)");
}

void check(const scaledit_cuda_group_norm_arguments& a) {
    Checks checks(a.rows);
    check_sizes(a, checks);
    const std::int64_t bytes = std::int64_t{2} * a.channels;
    checks.vector("weight", a.weight, bytes);
    checks.vector("bias", a.bias, bytes);
    checks.bfloat16_matrix("input", a.input, a.channels, false);
    checks.bfloat16_matrix("output", a.output, a.channels, true);
    const std::size_t needed = cuda::group_norm_workspace(a.channels);
    expect(a.workspace_bytes >= needed, "workspace_bytes", a.workspace_bytes, "at least " + to_text(needed));
    checks.room("workspace", a.workspace, static_cast<std::int64_t>(needed));
    checks.overlaps();
}

void check_packed_width(std::int32_t width) {
    expect(0 < width && width <= cuda::kMostHiddenWidth && width % cuda::kPackedWidthMultiple == 0, "width", width,
           "a multiple of 64 from 64 to " + to_text(cuda::kMostHiddenWidth));
}

void check(const scaledit_cuda_pack_rows_arguments& a) {
    Checks checks(a.rows);
    const std::int64_t least = a.rows > 0 ? 1 : 0;
    expect(least <= a.tokens && a.tokens <= kMostRows, "tokens", a.tokens,
           to_text(least) + " to " + to_text(kMostRows));
    check_packed_width(a.width);
    checks.bfloat16_matrix("key", a.key, a.tokens, a.width, false);
    checks.bfloat16_matrix("value", a.value, a.tokens, a.width, false);
    checks.vector("token", a.token, a.rows * std::int64_t{sizeof(std::int64_t)});
    checks.room("packed", a.packed, a.rows * cuda::packed_row_bytes(a.width));
    checks.overlaps();
}

void check(const scaledit_cuda_unpack_rows_arguments& a) {
    Checks checks(a.rows);
    check_packed_width(a.width);
    checks.vector("packed", a.packed, a.rows * cuda::packed_row_bytes(a.width));
    checks.bfloat16_matrix("key", a.key, a.width, true);
    checks.bfloat16_matrix("value", a.value, a.width, true);
    checks.overlaps();
}

// Checks a call's arguments and, where there are rows, hands them on.
template <typename Arguments>
scaledit_status checked_run(const Arguments* arguments, const char* type) {
    return abi::guard([&] {
        abi::expect_pointer(arguments, "arguments", type);
        check(*arguments);
#if SCALEDIT_CUDA
        if (arguments->rows > 0) {
            cuda::run(*arguments);
        }
#else
        abi::refuse_without_cuda();
#endif
    });
}

}  // namespace

scaledit_status scaledit_cuda_add_gated(const scaledit_cuda_add_gated_arguments* arguments) {
    return checked_run(arguments, "a scaledit_cuda_add_gated_arguments");
}

scaledit_status scaledit_cuda_modulate(const scaledit_cuda_modulate_arguments* arguments) {
    return checked_run(arguments, "a scaledit_cuda_modulate_arguments");
}

scaledit_status scaledit_cuda_quantize(const scaledit_cuda_quantize_arguments* arguments) {
    return checked_run(arguments, "a scaledit_cuda_quantize_arguments");
}

scaledit_status scaledit_cuda_norm_and_rotate(const scaledit_cuda_norm_and_rotate_arguments* arguments) {
    return checked_run(arguments, "a scaledit_cuda_norm_and_rotate_arguments");
}

scaledit_status scaledit_cuda_group_norm_workspace(const scaledit_cuda_group_norm_arguments* arguments, size_t* bytes) {
    return abi::guard([&] {
        abi::expect_pointer(arguments, "arguments", "a scaledit_cuda_group_norm_arguments");
        check_sizes(*arguments, Checks(arguments->rows));
        abi::expect_pointer(bytes, "bytes", "where to put the number");
        *bytes = cuda::group_norm_workspace(arguments->channels);
    });
}

scaledit_status scaledit_cuda_group_norm(const scaledit_cuda_group_norm_arguments* arguments) {
    return checked_run(arguments, "a scaledit_cuda_group_norm_arguments");
}

scaledit_status scaledit_cuda_packed_row_bytes(int32_t width, size_t* bytes) {
    return abi::guard([&] {
        check_packed_width(width);
        abi::expect_pointer(bytes, "bytes", "where to put the number");
        *bytes = static_cast<std::size_t>(cuda::packed_row_bytes(width));
    });
}

scaledit_status scaledit_cuda_pack_rows(const scaledit_cuda_pack_rows_arguments* arguments) {
    return checked_run(arguments, "a scaledit_cuda_pack_rows_arguments");
}

scaledit_status scaledit_cuda_unpack_rows(const scaledit_cuda_unpack_rows_arguments* arguments) {
    return checked_run(arguments, "a scaledit_cuda_unpack_rows_arguments");
}

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "abi/guard.h"
#include "abi/row_checks.h"
#include "cuda/tokenwise.h"
#include "error.h"

namespace abi = scaledit::abi;
namespace cuda = scaledit::cuda;
using abi::Checks;
using abi::kMostRows;
using abi::kWidthMultiple;
using scaledit::expect;
using scaledit::to_text;

namespace {

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
    abi::expect_flag(a.silu, "silu");
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
    expect(a.rows == 0 || a.workspace_bytes >= needed, "workspace_bytes", a.workspace_bytes,
           "at least " + to_text(needed));
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

}  // namespace

scaledit_status scaledit_cuda_add_gated(const scaledit_cuda_add_gated_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_add_gated_arguments", check);
}

scaledit_status scaledit_cuda_modulate(const scaledit_cuda_modulate_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_modulate_arguments", check);
}

scaledit_status scaledit_cuda_quantize(const scaledit_cuda_quantize_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_quantize_arguments", check);
}

scaledit_status scaledit_cuda_norm_and_rotate(const scaledit_cuda_norm_and_rotate_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_norm_and_rotate_arguments", check);
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
    return abi::checked_run(arguments, "a scaledit_cuda_group_norm_arguments", check);
}

scaledit_status scaledit_cuda_packed_row_bytes(int32_t width, size_t* bytes) {
    return abi::guard([&] {
        check_packed_width(width);
        abi::expect_pointer(bytes, "bytes", "where to put the number");
        *bytes = static_cast<std::size_t>(cuda::packed_row_bytes(width));
    });
}

scaledit_status scaledit_cuda_pack_rows(const scaledit_cuda_pack_rows_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_pack_rows_arguments", check);
}

scaledit_status scaledit_cuda_unpack_rows(const scaledit_cuda_unpack_rows_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_unpack_rows_arguments", check);
}

#include <cmath>
#include <cstdint>

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

void check_parts(std::int32_t parts, std::int64_t most) {
    expect(1 <= parts && parts <= most, "parts", parts, "1 to " + to_text(most));
}

void check(const scaledit_cuda_batch_modulate_arguments& a) {
    Checks checks(a.rows);
    const std::int64_t pictures = checks.pictures(a.picture_rows);
    checks.width("width", a.width, kWidthMultiple, cuda::kMostHiddenWidth);
    expect(std::isfinite(a.epsilon) && a.epsilon > 0, "epsilon", a.epsilon, "a finite number above 0");
    checks.bfloat16_matrix("hidden", a.hidden, a.width, false);
    checks.vectors("shift", a.shift, pictures, a.width);
    checks.vectors("scale", a.scale, pictures, a.width);
    checks.bfloat16_matrix("output", a.output, a.width, true);
    checks.overlaps();
}

void check(const scaledit_cuda_batch_modulate_gradient_arguments& a) {
    Checks checks(a.rows);
    const std::int64_t pictures = checks.pictures(a.picture_rows);
    checks.width("width", a.width, kWidthMultiple, cuda::kMostHiddenWidth);
    check_parts(a.parts, a.picture_rows);
    abi::expect_flag(a.adds, "adds");
    expect(std::isfinite(a.epsilon) && a.epsilon > 0, "epsilon", a.epsilon, "a finite number above 0");
    checks.bfloat16_matrix("hidden", a.hidden, a.width, false);
    checks.vectors("scale", a.scale, pictures, a.width);
    checks.bfloat16_matrix("output_gradient", a.output_gradient, a.width, false);
    checks.bfloat16_matrix("hidden_gradient", a.hidden_gradient, a.width, true);
    checks.gradients("shift_gradient", a.shift_gradient, a.parts * pictures, a.width);
    checks.gradients("scale_gradient", a.scale_gradient, a.parts * pictures, a.width);
    checks.overlaps();
}

void check(const scaledit_cuda_batch_add_gated_arguments& a) {
    Checks checks(a.rows);
    const std::int64_t pictures = checks.pictures(a.picture_rows);
    checks.width("width", a.width, kWidthMultiple, cuda::kMostHiddenWidth);
    checks.bfloat16_matrix("hidden", a.hidden, a.width, false);
    checks.bfloat16_matrix("update", a.update, a.width, false);
    checks.vectors("gate", a.gate, pictures, a.width);
    checks.bfloat16_matrix("output", a.output, a.width, true);
    checks.overlaps();
}

void check(const scaledit_cuda_batch_add_gated_gradient_arguments& a) {
    Checks checks(a.rows);
    const std::int64_t pictures = checks.pictures(a.picture_rows);
    checks.width("width", a.width, kWidthMultiple, cuda::kMostHiddenWidth);
    check_parts(a.parts, a.picture_rows);
    checks.bfloat16_matrix("update", a.update, a.width, false);
    checks.vectors("gate", a.gate, pictures, a.width);
    checks.bfloat16_matrix("output_gradient", a.output_gradient, a.width, false);
    checks.bfloat16_matrix("update_gradient", a.update_gradient, a.width, true);
    checks.gradients("gate_gradient", a.gate_gradient, a.parts * pictures, a.width);
    checks.overlaps();
}

// What norms and rotations of a batch have in common, forward and back. Hands back the rows of all sequences.
template <typename Arguments>
std::int64_t check_heads(const Arguments& a, Checks& checks) {
    const std::int64_t pictures = checks.pictures(a.picture_rows);
    expect(a.picture_rows <= a.sequence_rows && a.sequence_rows <= kMostRows, "sequence_rows", a.sequence_rows,
           to_text(a.picture_rows) + " to " + to_text(kMostRows));
    const std::int64_t rows = pictures * a.sequence_rows;
    expect(rows <= kMostRows, "pictures * sequence_rows", rows, "up to " + to_text(kMostRows));
    const std::int64_t last = a.sequence_rows - a.picture_rows;
    expect(0 <= a.first && a.first <= last, "first", a.first, "0 to " + to_text(last));
    expect(a.head_dim == 64 || a.head_dim == 128, "head_dim", a.head_dim, "64 or 128");
    const std::int32_t most = cuda::kMostHiddenWidth / a.head_dim;
    expect(1 <= a.heads && a.heads <= most, "heads", a.heads, "1 to " + to_text(most));
    expect(std::isfinite(a.epsilon) && a.epsilon >= 0, "epsilon", a.epsilon, "a finite number, 0 or above");
    checks.vector("norm", a.norm, std::int64_t{2} * a.head_dim);
    checks.vector("rotation", a.rotation, a.sequence_rows * a.head_dim * std::int64_t{sizeof(float)});
    checks.bfloat16_matrix("input", a.input, a.heads * a.head_dim, false);
    return rows;
}

void check(const scaledit_cuda_batch_norm_and_rotate_arguments& a) {
    Checks checks(a.rows);
    const std::int64_t rows = check_heads(a, checks);
    checks.bfloat16_matrix("output", a.output, rows, a.heads * a.head_dim, true);
    checks.overlaps();
}

void check(const scaledit_cuda_batch_norm_and_rotate_gradient_arguments& a) {
    Checks checks(a.rows);
    const std::int64_t rows = check_heads(a, checks);
    check_parts(a.parts, cuda::kMostNormParts);
    const std::int32_t width = a.heads * a.head_dim;
    checks.bfloat16_matrix("output_gradient", a.output_gradient, rows, width, false);
    checks.bfloat16_matrix("input_gradient", a.input_gradient, width, true);
    checks.room("norm_gradient", a.norm_gradient, std::int64_t{a.parts} * a.head_dim * std::int64_t{sizeof(float)});
    checks.overlaps();
}

void check(const scaledit_cuda_join_gelu_arguments& a) {
    Checks checks(a.rows);
    checks.width("width", a.width, 0, cuda::kMostWidth);
    checks.width("gelu_width", a.gelu_width, kWidthMultiple, cuda::kMostWidth);
    checks.width("width + gelu_width", a.width + a.gelu_width, kWidthMultiple, cuda::kMostWidth);
    if (a.width > 0) {
        checks.bfloat16_matrix("input", a.input, a.width, false);
    } else {
        checks.absent("input.data", a.input.data, "where width is 0");
    }
    checks.bfloat16_matrix("gelu_input", a.gelu_input, a.gelu_width, false);
    checks.bfloat16_matrix("output", a.output, a.width + a.gelu_width, true);
    checks.overlaps();
}

void check(const scaledit_cuda_gelu_gradient_arguments& a) {
    Checks checks(a.rows);
    checks.width("width", a.width, kWidthMultiple, cuda::kMostWidth);
    checks.bfloat16_matrix("input", a.input, a.width, false);
    checks.bfloat16_matrix("output_gradient", a.output_gradient, a.width, false);
    checks.bfloat16_matrix("input_gradient", a.input_gradient, a.width, true);
    checks.overlaps();
}

}  // namespace

scaledit_status scaledit_cuda_batch_modulate(const scaledit_cuda_batch_modulate_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_batch_modulate_arguments", check);
}

scaledit_status scaledit_cuda_batch_modulate_gradient(
    const scaledit_cuda_batch_modulate_gradient_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_batch_modulate_gradient_arguments", check);
}

scaledit_status scaledit_cuda_batch_add_gated(const scaledit_cuda_batch_add_gated_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_batch_add_gated_arguments", check);
}

scaledit_status scaledit_cuda_batch_add_gated_gradient(
    const scaledit_cuda_batch_add_gated_gradient_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_batch_add_gated_gradient_arguments", check);
}

scaledit_status scaledit_cuda_batch_norm_and_rotate(const scaledit_cuda_batch_norm_and_rotate_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_batch_norm_and_rotate_arguments", check);
}

scaledit_status scaledit_cuda_batch_norm_and_rotate_gradient(
    const scaledit_cuda_batch_norm_and_rotate_gradient_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_batch_norm_and_rotate_gradient_arguments", check);
}

scaledit_status scaledit_cuda_join_gelu(const scaledit_cuda_join_gelu_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_join_gelu_arguments", check);
}

scaledit_status scaledit_cuda_gelu_gradient(const scaledit_cuda_gelu_gradient_arguments* arguments) {
    return abi::checked_run(arguments, "a scaledit_cuda_gelu_gradient_arguments", check);
}

// What the C ABI's functions of a batch's tokens refuse before they ask for a GPU, and how they say so.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "abi_rooms.h"
#include "scaledit/scaledit.h"

namespace scaledit {
namespace {

constexpr std::int64_t kRows = 6;
constexpr std::int64_t kPictureRows = 3;
constexpr std::int32_t kWidth = 16;
constexpr std::int64_t kSequenceRows = 4;

// Arguments in which everything is right, but for the memory, which is the host's. Tests spoil one thing.
class AbiBatch : public Rooms {
protected:
    AbiBatch() {
        const scaledit_matrix hidden = bfloat16(0, kWidth);
        const scaledit_matrix update = bfloat16(1, kWidth);
        const scaledit_matrix output = bfloat16(2, kWidth);
        const scaledit_matrix output_gradient = bfloat16(3, kWidth);
        const scaledit_matrix written = bfloat16(4, kWidth);
        const auto* const rotation = reinterpret_cast<const float*>(at(8));  // and the next room
        modulate = {kRows, kPictureRows, kWidth, hidden, {at(8), kWidth}, {at(9), kWidth}, 1e-6F, output, nullptr};
        modulate_gradient = {
            kRows,   kPictureRows,  kWidth,        2,      0, 1e-6F, hidden, {at(9), kWidth}, output_gradient,
            written, gradients(10), gradients(11), nullptr};
        add_gated = {kRows, kPictureRows, kWidth, hidden, update, {at(8), kWidth}, output, nullptr};
        add_gated_gradient = {kRows,           kPictureRows, kWidth,        2,      update, {at(8), kWidth},
                              output_gradient, written,      gradients(10), nullptr};
        norm_and_rotate = {kRows,    kPictureRows,    kSequenceRows,   1,      1, 64, 1e-6F, at(7),
                           rotation, bfloat16(0, 64), bfloat16(2, 64), nullptr};
        norm_and_rotate_gradient = {kRows,
                                    kPictureRows,
                                    kSequenceRows,
                                    1,
                                    1,
                                    64,
                                    3,
                                    1e-6F,
                                    at(7),
                                    rotation,
                                    bfloat16(0, 64),
                                    bfloat16(2, 64),
                                    bfloat16(4, 64),
                                    reinterpret_cast<float*>(at(10)),
                                    nullptr};
        join_gelu = {kRows, kWidth, 24, hidden, bfloat16(1, 24), bfloat16(2, 40), nullptr};
        gelu_gradient = {kRows, kWidth, hidden, output_gradient, written, nullptr};
    }

    scaledit_picture_gradients gradients(std::size_t room) { return {reinterpret_cast<float*>(at(room)), kWidth}; }

    scaledit_cuda_batch_modulate_arguments modulate{};
    scaledit_cuda_batch_modulate_gradient_arguments modulate_gradient{};
    scaledit_cuda_batch_add_gated_arguments add_gated{};
    scaledit_cuda_batch_add_gated_gradient_arguments add_gated_gradient{};
    scaledit_cuda_batch_norm_and_rotate_arguments norm_and_rotate{};
    scaledit_cuda_batch_norm_and_rotate_gradient_arguments norm_and_rotate_gradient{};
    scaledit_cuda_join_gelu_arguments join_gelu{};
    scaledit_cuda_gelu_gradient_arguments gelu_gradient{};

    // body(function, arguments that are right) for each function
    template <typename Body>
    void each(const Body& body) {
        body(scaledit_cuda_batch_modulate, modulate);
        body(scaledit_cuda_batch_modulate_gradient, modulate_gradient);
        body(scaledit_cuda_batch_add_gated, add_gated);
        body(scaledit_cuda_batch_add_gated_gradient, add_gated_gradient);
        body(scaledit_cuda_batch_norm_and_rotate, norm_and_rotate);
        body(scaledit_cuda_batch_norm_and_rotate_gradient, norm_and_rotate_gradient);
        body(scaledit_cuda_join_gelu, join_gelu);
        body(scaledit_cuda_gelu_gradient, gelu_gradient);
    }
};

TEST_F(AbiBatch, TakesTheRightArguments) {
    each([this](auto* call, auto& good) { expect_right(call, good); });
}

TEST_F(AbiBatch, TakesEveryKindOfCall) {
    modulate_gradient.adds = 1;
    modulate_gradient.parts = 3;
    expect_right(scaledit_cuda_batch_modulate_gradient, modulate_gradient);
    modulate.picture_rows = kRows;
    expect_right(scaledit_cuda_batch_modulate, modulate);
    modulate.picture_rows = 1;
    expect_right(scaledit_cuda_batch_modulate, modulate);
    norm_and_rotate.epsilon = 0;
    norm_and_rotate.first = 0;
    expect_right(scaledit_cuda_batch_norm_and_rotate, norm_and_rotate);
    join_gelu.width = 0;
    join_gelu.input.data = nullptr;
    expect_right(scaledit_cuda_join_gelu, join_gelu);
}

// Rows of one buffer, between each other: queries, keys and values, and shift, scale and gate.
TEST_F(AbiBatch, TakesColumnsOfOneBuffer) {
    const auto column = [&](std::size_t room, std::size_t number) {
        return scaledit_matrix{at(room) + number * kWidth * 2, 3 * kWidth, SCALEDIT_BFLOAT16};
    };
    modulate_gradient.hidden = column(0, 1);
    modulate_gradient.output_gradient = column(0, 0);
    modulate_gradient.hidden_gradient = column(0, 2);
    const auto gradient = [&](std::size_t number) {
        return scaledit_picture_gradients{reinterpret_cast<float*>(at(10)) + number * kWidth, 3 * kWidth};
    };
    modulate_gradient.shift_gradient = gradient(2);
    modulate_gradient.scale_gradient = gradient(0);
    expect_right(scaledit_cuda_batch_modulate_gradient, modulate_gradient);
    modulate.scale = {at(8) + 2 * kWidth, 6 * kWidth};
    modulate.shift.stride = 6 * kWidth;
    expect_right(scaledit_cuda_batch_modulate, modulate);
}

TEST_F(AbiBatch, WithoutRowsNoPointerIsLookedAt) {
    modulate.hidden.data = modulate.output.data = nullptr;
    modulate.shift.data = at(0) + 1;
    modulate_gradient.shift_gradient.data = nullptr;
    add_gated.gate.data = nullptr;
    add_gated_gradient.gate_gradient.data = nullptr;
    norm_and_rotate.rotation = nullptr;
    norm_and_rotate_gradient.norm_gradient = nullptr;
    join_gelu.gelu_input.data = nullptr;
    gelu_gradient.input_gradient.data = nullptr;
    each([](auto* call, auto& arguments) {
        arguments.rows = 0;
        EXPECT_EQ(call(&arguments), SCALEDIT_CUDA ? SCALEDIT_OK : SCALEDIT_UNSUPPORTED) << scaledit_last_error();
    });
}

TEST_F(AbiBatch, RefusesNoArguments) {
    EXPECT_EQ(scaledit_cuda_batch_modulate(nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "arguments is null, expected a scaledit_cuda_batch_modulate_arguments");
    EXPECT_EQ(scaledit_cuda_gelu_gradient(nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "arguments is null, expected a scaledit_cuda_gelu_gradient_arguments");
}

TEST_F(AbiBatch, RefusesRowsThatAreNoPictures) {
    each([this]<typename Arguments>(scaledit_status (*call)(const Arguments*), const Arguments& good) {
        expect_refused(
            call, good,
            {{[](Arguments& a) { a.rows = -1; }, "rows is -1, expected 0 to 2147483647"},
             {[](Arguments& a) { a.rows = std::int64_t{1} << 31; }, "rows is 2147483648, expected 0 to 2147483647"}});
        if constexpr (requires(Arguments a) { a.picture_rows; }) {
            expect_refused(
                call, good,
                {{[](Arguments& a) { a.picture_rows = 0; }, "picture_rows is 0, expected 1 to 2147483647"},
                 {[](Arguments& a) { a.picture_rows = -3; }, "picture_rows is -3, expected 1 to 2147483647"},
                 {[](Arguments& a) { a.picture_rows = 4; }, "rows is 6, expected a multiple of the picture_rows, 4"},
                 {[](Arguments& a) { a.picture_rows = 12; },
                  "rows is 6, expected a multiple of the picture_rows, 12"}});
        }
    });
}

TEST_F(AbiBatch, ModulateRefuses) {
    using Arguments = scaledit_cuda_batch_modulate_arguments;
    expect_refused<Arguments>(
        scaledit_cuda_batch_modulate, modulate,
        {
            {[](Arguments& a) { a.width = 0; }, "width is 0, expected a multiple of 8 from 8 to 8192"},
            {[](Arguments& a) { a.width = 12; }, "width is 12, expected a multiple of 8 from 8 to 8192"},
            {[](Arguments& a) { a.width = 8200; }, "width is 8200, expected a multiple of 8 from 8 to 8192"},
            {[](Arguments& a) { a.epsilon = 0; }, "epsilon is 0, expected a finite number above 0"},
            {[](Arguments& a) { a.epsilon = std::nanf(""); }, "epsilon is nan, expected a finite number above 0"},
            {[](Arguments& a) { a.hidden.dtype = SCALEDIT_FLOAT32; }, "hidden.dtype is 0, expected 1 (bfloat16)"},
            {[](Arguments& a) { a.output.dtype = SCALEDIT_E4M3; }, "output.dtype is 2, expected 1 (bfloat16)"},
            {[](Arguments& a) { a.hidden.row_stride = 8; },
             "hidden.row_stride is 8, expected 16 to 82351536043346212 elements"},
            {[](Arguments& a) { a.output.row_stride = 20; },
             "output.row_stride is 20, expected a multiple of 8 elements on a GPU"},
            {[](Arguments& a) { a.hidden.data = nullptr; }, "hidden.data is null, expected 6 rows of 32 bytes"},
            {[this](Arguments& a) { a.output.data = at(2) + 8; },
             "output.data is at an address that is no multiple of 16 bytes"},
            {[](Arguments& a) { a.shift.data = nullptr; }, "shift.data is null, expected 2 rows of 32 bytes"},
            {[this](Arguments& a) { a.scale.data = at(9) + 2; },
             "scale.data is at an address that is no multiple of 16 bytes"},
            {[](Arguments& a) { a.shift.stride = 8; }, "shift.stride is 8, expected 16 to 192153584101141162 elements"},
            {[](Arguments& a) { a.scale.stride = 28; },
             "scale.stride is 28, expected a multiple of 8 elements on a GPU"},
            {[](Arguments& a) { a.output.data = a.hidden.data; },
             "output.data overlaps hidden.data, expected memory of its own"},
            {[this](Arguments& a) { a.shift.data = at(2) + 160; },
             "output.data overlaps shift.data, expected memory of its own"},
            {[](Arguments& a) { a.output.data = const_cast<void*>(a.scale.data); },
             "output.data overlaps scale.data, expected memory of its own"},
        });
}

TEST_F(AbiBatch, ModulateGradientRefuses) {
    using Arguments = scaledit_cuda_batch_modulate_gradient_arguments;
    expect_refused<Arguments>(
        scaledit_cuda_batch_modulate_gradient, modulate_gradient,
        {
            {[](Arguments& a) { a.width = 8200; }, "width is 8200, expected a multiple of 8 from 8 to 8192"},
            {[](Arguments& a) { a.parts = 0; }, "parts is 0, expected 1 to 3"},
            {[](Arguments& a) { a.parts = 4; }, "parts is 4, expected 1 to 3"},
            {[](Arguments& a) { a.adds = 2; }, "adds is 2, expected 0 (no) or 1 (yes)"},
            {[](Arguments& a) { a.adds = -1; }, "adds is -1, expected 0 (no) or 1 (yes)"},
            {[](Arguments& a) { a.epsilon = -1; }, "epsilon is -1, expected a finite number above 0"},
            {[](Arguments& a) { a.hidden.dtype = SCALEDIT_E4M3; }, "hidden.dtype is 2, expected 1 (bfloat16)"},
            {[](Arguments& a) { a.scale.data = nullptr; }, "scale.data is null, expected 2 rows of 32 bytes"},
            {[](Arguments& a) { a.output_gradient.dtype = SCALEDIT_FLOAT32; },
             "output_gradient.dtype is 0, expected 1 (bfloat16)"},
            {[](Arguments& a) { a.output_gradient.data = nullptr; },
             "output_gradient.data is null, expected 6 rows of 32 bytes"},
            {[](Arguments& a) { a.hidden_gradient.row_stride = 12; },
             "hidden_gradient.row_stride is 12, expected 16 to 82351536043346212 elements"},
            {[](Arguments& a) { a.hidden_gradient.data = nullptr; },
             "hidden_gradient.data is null, expected 6 rows of 32 bytes"},
            {[](Arguments& a) { a.shift_gradient.data = nullptr; },
             "shift_gradient.data is null, expected 4 rows of 64 bytes"},
            {[](Arguments& a) { a.shift_gradient.stride = 12; },
             "shift_gradient.stride is 12, expected 16 to 115292150460684697 elements"},
            {[](Arguments& a) { a.scale_gradient.stride = 18; },
             "scale_gradient.stride is 18, expected a multiple of 4 elements on a GPU"},
            {[](Arguments& a) { a.scale_gradient.data += 1; },
             "scale_gradient.data is at an address that is no multiple of 16 bytes"},
            {[](Arguments& a) { a.hidden_gradient.data = a.hidden.data; },
             "hidden_gradient.data overlaps hidden.data, expected memory of its own"},
            {[](Arguments& a) { a.hidden_gradient.data = a.output_gradient.data; },
             "hidden_gradient.data overlaps output_gradient.data, expected memory of its own"},
            {[](Arguments& a) { a.scale_gradient.data = a.shift_gradient.data + 32; },
             "scale_gradient.data overlaps shift_gradient.data, expected memory of its own"},
            {[this](Arguments& a) { a.shift_gradient.data = reinterpret_cast<float*>(at(9)); },
             "shift_gradient.data overlaps scale.data, expected memory of its own"},
        });
}

TEST_F(AbiBatch, AddGatedRefuses) {
    using Arguments = scaledit_cuda_batch_add_gated_arguments;
    expect_refused<Arguments>(
        scaledit_cuda_batch_add_gated, add_gated,
        {
            {[](Arguments& a) { a.width = 20; }, "width is 20, expected a multiple of 8 from 8 to 8192"},
            {[](Arguments& a) { a.hidden.dtype = SCALEDIT_E4M3; }, "hidden.dtype is 2, expected 1 (bfloat16)"},
            {[](Arguments& a) { a.update.data = nullptr; }, "update.data is null, expected 6 rows of 32 bytes"},
            {[](Arguments& a) { a.gate.data = nullptr; }, "gate.data is null, expected 2 rows of 32 bytes"},
            {[](Arguments& a) { a.gate.stride = 0; }, "gate.stride is 0, expected 16 to 192153584101141162 elements"},
            {[](Arguments& a) { a.output.dtype = SCALEDIT_FLOAT32; }, "output.dtype is 0, expected 1 (bfloat16)"},
            {[](Arguments& a) { a.output.data = a.hidden.data; },
             "output.data overlaps hidden.data, expected memory of its own"},
            {[](Arguments& a) { a.output.data = a.update.data; },
             "output.data overlaps update.data, expected memory of its own"},
        });
}

TEST_F(AbiBatch, AddGatedGradientRefuses) {
    using Arguments = scaledit_cuda_batch_add_gated_gradient_arguments;
    expect_refused<Arguments>(
        scaledit_cuda_batch_add_gated_gradient, add_gated_gradient,
        {
            {[](Arguments& a) { a.width = -8; }, "width is -8, expected a multiple of 8 from 8 to 8192"},
            {[](Arguments& a) { a.parts = 4; }, "parts is 4, expected 1 to 3"},
            {[](Arguments& a) { a.update.data = nullptr; }, "update.data is null, expected 6 rows of 32 bytes"},
            {[](Arguments& a) { a.gate.data = nullptr; }, "gate.data is null, expected 2 rows of 32 bytes"},
            {[](Arguments& a) { a.output_gradient.row_stride = 20; },
             "output_gradient.row_stride is 20, expected a multiple of 8 elements on a GPU"},
            {[](Arguments& a) { a.update_gradient.dtype = SCALEDIT_E4M3; },
             "update_gradient.dtype is 2, expected 1 (bfloat16)"},
            {[](Arguments& a) { a.update_gradient.data = a.update.data; },
             "update_gradient.data overlaps update.data, expected memory of its own"},
            {[](Arguments& a) { a.gate_gradient.data = nullptr; },
             "gate_gradient.data is null, expected 4 rows of 64 bytes"},
            {[](Arguments& a) { a.gate_gradient.data = static_cast<float*>(a.update_gradient.data); },
             "gate_gradient.data overlaps update_gradient.data, expected memory of its own"},
        });
}

// What norms and rotations refuse forward and back.
template <typename Arguments>
std::vector<Case<Arguments>> heads_cases() {
    return {
        {[](Arguments& a) { a.sequence_rows = 2; }, "sequence_rows is 2, expected 3 to 2147483647"},
        {[](Arguments& a) { a.sequence_rows = std::int64_t{1} << 31; },
         "sequence_rows is 2147483648, expected 3 to 2147483647"},
        {[](Arguments& a) { a.sequence_rows = 1'073'741'824; },
         "pictures * sequence_rows is 2147483648, expected up to 2147483647"},
        {[](Arguments& a) { a.first = 2; }, "first is 2, expected 0 to 1"},
        {[](Arguments& a) { a.first = -1; }, "first is -1, expected 0 to 1"},
        {[](Arguments& a) { a.head_dim = 96; }, "head_dim is 96, expected 64 or 128"},
        {[](Arguments& a) { a.heads = 0; }, "heads is 0, expected 1 to 128"},
        {[](Arguments& a) { a.heads = 129; }, "heads is 129, expected 1 to 128"},
        {[](Arguments& a) { a.epsilon = -1; }, "epsilon is -1, expected a finite number, 0 or above"},
        {[](Arguments& a) { a.norm = nullptr; }, "norm is null, expected 128 bytes"},
        {[](Arguments& a) { a.rotation = nullptr; }, "rotation is null, expected 1024 bytes"},
        {[](Arguments& a) { a.rotation += 1; }, "rotation is at an address that is no multiple of 16 bytes"},
        {[](Arguments& a) { a.input.dtype = SCALEDIT_FLOAT32; }, "input.dtype is 0, expected 1 (bfloat16)"},
        {[](Arguments& a) { a.input.row_stride = 56; },
         "input.row_stride is 56, expected 64 to 82351536043346212 elements"},
        {[](Arguments& a) { a.input.data = nullptr; }, "input.data is null, expected 6 rows of 128 bytes"},
    };
}

TEST_F(AbiBatch, NormAndRotateRefuses) {
    using Arguments = scaledit_cuda_batch_norm_and_rotate_arguments;
    expect_refused(scaledit_cuda_batch_norm_and_rotate, norm_and_rotate, heads_cases<Arguments>());
    expect_refused<Arguments>(
        scaledit_cuda_batch_norm_and_rotate, norm_and_rotate,
        {
            {[](Arguments& a) { a.output.dtype = SCALEDIT_E4M3; }, "output.dtype is 2, expected 1 (bfloat16)"},
            {[](Arguments& a) { a.output.row_stride = 56; },
             "output.row_stride is 56, expected 64 to 64051194700380387 elements"},
            {[](Arguments& a) { a.output.data = nullptr; }, "output.data is null, expected 8 rows of 128 bytes"},
            {[](Arguments& a) { a.output.data = a.input.data; },
             "output.data overlaps input.data, expected memory of its own"},
            {[this](Arguments& a) { a.norm = at(2) + 896; }, "output.data overlaps norm, expected memory of its own"},
        });
}

TEST_F(AbiBatch, NormAndRotateGradientRefuses) {
    using Arguments = scaledit_cuda_batch_norm_and_rotate_gradient_arguments;
    expect_refused(scaledit_cuda_batch_norm_and_rotate_gradient, norm_and_rotate_gradient, heads_cases<Arguments>());
    expect_refused<Arguments>(
        scaledit_cuda_batch_norm_and_rotate_gradient, norm_and_rotate_gradient,
        {
            {[](Arguments& a) { a.parts = 0; }, "parts is 0, expected 1 to 65535"},
            {[](Arguments& a) { a.parts = 65536; }, "parts is 65536, expected 1 to 65535"},
            {[](Arguments& a) { a.output_gradient.data = nullptr; },
             "output_gradient.data is null, expected 8 rows of 128 bytes"},
            {[](Arguments& a) { a.input_gradient.dtype = SCALEDIT_FLOAT32; },
             "input_gradient.dtype is 0, expected 1 (bfloat16)"},
            {[](Arguments& a) { a.input_gradient.data = nullptr; },
             "input_gradient.data is null, expected 6 rows of 128 bytes"},
            {[](Arguments& a) { a.input_gradient.data = a.output_gradient.data; },
             "input_gradient.data overlaps output_gradient.data, expected memory of its own"},
            {[](Arguments& a) { a.norm_gradient = nullptr; }, "norm_gradient is null, expected 768 bytes"},
            {[](Arguments& a) { a.norm_gradient += 2; },
             "norm_gradient is at an address that is no multiple of 16 bytes"},
            {[](Arguments& a) { a.norm_gradient = const_cast<float*>(a.rotation); },
             "norm_gradient overlaps rotation, expected memory of its own"},
        });
}

TEST_F(AbiBatch, JoinGeluRefuses) {
    using Arguments = scaledit_cuda_join_gelu_arguments;
    expect_refused<Arguments>(
        scaledit_cuda_join_gelu, join_gelu,
        {
            {[](Arguments& a) { a.width = -8; }, "width is -8, expected a multiple of 8 from 0 to 16384"},
            {[](Arguments& a) { a.gelu_width = 0; }, "gelu_width is 0, expected a multiple of 8 from 8 to 16384"},
            {[](Arguments& a) { a.gelu_width = 16376; },
             "width + gelu_width is 16392, expected a multiple of 8 from 8 to 16384"},
            {[](Arguments& a) { a.width = 0; }, "input.data is given, expected null where width is 0"},
            {[](Arguments& a) { a.input.data = nullptr; }, "input.data is null, expected 6 rows of 32 bytes"},
            {[](Arguments& a) { a.input.dtype = SCALEDIT_E4M3; }, "input.dtype is 2, expected 1 (bfloat16)"},
            {[](Arguments& a) { a.gelu_input.row_stride = 16; },
             "gelu_input.row_stride is 16, expected 24 to 82351536043346212 elements"},
            {[](Arguments& a) { a.output.dtype = SCALEDIT_E4M3; }, "output.dtype is 2, expected 1 (bfloat16)"},
            {[](Arguments& a) { a.output.data = a.input.data; },
             "output.data overlaps input.data, expected memory of its own"},
            {[](Arguments& a) { a.output.data = a.gelu_input.data; },
             "output.data overlaps gelu_input.data, expected memory of its own"},
        });
}

TEST_F(AbiBatch, GeluGradientRefuses) {
    using Arguments = scaledit_cuda_gelu_gradient_arguments;
    expect_refused<Arguments>(
        scaledit_cuda_gelu_gradient, gelu_gradient,
        {
            {[](Arguments& a) { a.width = 0; }, "width is 0, expected a multiple of 8 from 8 to 16384"},
            {[](Arguments& a) { a.width = 16392; }, "width is 16392, expected a multiple of 8 from 8 to 16384"},
            {[](Arguments& a) { a.input.dtype = SCALEDIT_E4M3; }, "input.dtype is 2, expected 1 (bfloat16)"},
            {[](Arguments& a) { a.output_gradient.data = nullptr; },
             "output_gradient.data is null, expected 6 rows of 32 bytes"},
            {[](Arguments& a) { a.input_gradient.data = a.input.data; },
             "input_gradient.data overlaps input.data, expected memory of its own"},
            {[](Arguments& a) { a.input_gradient.data = a.output_gradient.data; },
             "input_gradient.data overlaps output_gradient.data, expected memory of its own"},
        });
}

}  // namespace
}  // namespace scaledit

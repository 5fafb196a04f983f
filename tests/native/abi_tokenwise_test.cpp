// What the C ABI's token-wise functions refuse before they ask for a GPU, and how they say so.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "abi_rooms.h"
#include "scaledit/scaledit.h"

namespace scaledit {
namespace {

constexpr std::int64_t kRows = 5;
constexpr std::int64_t kGuidanceRows = 2;
constexpr std::int32_t kWidth = 16;
constexpr std::int32_t kGeluWidth = 64;

scaledit_status call(const scaledit_cuda_add_gated_arguments* a) { return scaledit_cuda_add_gated(a); }
scaledit_status call(const scaledit_cuda_modulate_arguments* a) { return scaledit_cuda_modulate(a); }
scaledit_status call(const scaledit_cuda_quantize_arguments* a) { return scaledit_cuda_quantize(a); }
scaledit_status call(const scaledit_cuda_norm_and_rotate_arguments* a) { return scaledit_cuda_norm_and_rotate(a); }
scaledit_status call(const scaledit_cuda_group_norm_arguments* a) { return scaledit_cuda_group_norm(a); }
scaledit_status call(const scaledit_cuda_pack_rows_arguments* a) { return scaledit_cuda_pack_rows(a); }
scaledit_status call(const scaledit_cuda_unpack_rows_arguments* a) { return scaledit_cuda_unpack_rows(a); }

// Arguments in which everything is right, but for the memory, which is the host's. Tests spoil one thing.
class AbiTokenwise : public Rooms {
protected:
    AbiTokenwise() {
        const scaledit_modulation_part gate = {at(8), at(9)};
        const scaledit_modulation_part shift = {at(10), at(11)};
        const scaledit_modulation_part scale = {at(12), at(13)};
        const scaledit_matrix hidden = bfloat16(0, kWidth);
        const scaledit_matrix update = bfloat16(1, kWidth);
        add_gated = {kRows, kGuidanceRows, kWidth, hidden, update, gate, nullptr};
        modulate = {kRows, kGuidanceRows, kWidth, hidden,          update,   gate,
                    shift, scale,         1e-6F,  e4m3(2, kWidth), scales(), nullptr};
        quantize = {kRows,    kWidth, kGeluWidth, hidden, bfloat16(3, kGeluWidth), e4m3(2, kWidth + kGeluWidth),
                    scales(), nullptr};
        norm_and_rotate = {kRows,
                           2,
                           1,
                           64,
                           1e-6F,
                           at(8),
                           at(9),
                           reinterpret_cast<const float*>(at(10)),  // and the next room
                           bfloat16(0, 64),
                           bfloat16(1, 64),
                           bfloat16(2, 64),
                           nullptr};
        group_norm = {kRows,
                      kWidth,
                      4,
                      1e-6F,
                      1,
                      at(8),
                      at(9),
                      bfloat16(0, 16),
                      bfloat16(1, 16),
                      norm_workspace,
                      sizeof(norm_workspace),
                      nullptr};
        pack_rows = {kRows, 3,      64, bfloat16(0, 64), bfloat16(1, 64), reinterpret_cast<const std::int64_t*>(at(2)),
                     at(3), nullptr};
        unpack_rows = {kRows, 64, at(3), bfloat16(0, 128), bfloat16(4, 128), nullptr};
    }

    float* scales() { return reinterpret_cast<float*>(at(14)); }

    template <typename Arguments, typename Message>  // a sentence, or cases
    void expect_refused(const Arguments& arguments, const Message& message) {
        Rooms::expect_refused(call, arguments, message);
    }
    template <typename Arguments>
    void expect_right(const Arguments& good) {
        Rooms::expect_right(call, good);
    }

    scaledit_cuda_add_gated_arguments add_gated{};
    scaledit_cuda_modulate_arguments modulate{};
    scaledit_cuda_quantize_arguments quantize{};
    scaledit_cuda_norm_and_rotate_arguments norm_and_rotate{};
    scaledit_cuda_group_norm_arguments group_norm{};
    scaledit_cuda_pack_rows_arguments pack_rows{};
    scaledit_cuda_unpack_rows_arguments unpack_rows{};
    alignas(64) std::byte norm_workspace[(528 + 1) * 2 * 16 * sizeof(float)];
};

TEST_F(AbiTokenwise, TakesTheRightArguments) {
    expect_right(add_gated);
    expect_right(modulate);
    expect_right(quantize);
    expect_right(norm_and_rotate);
    expect_right(group_norm);
    expect_right(pack_rows);
    expect_right(unpack_rows);
}

TEST_F(AbiTokenwise, TakesEveryKindOfCall) {
    norm_and_rotate.text_norm = nullptr;
    norm_and_rotate.output_gradient = {};
    expect_right(norm_and_rotate);
    add_gated.guidance_rows = 0;
    add_gated.gate.guidance = nullptr;
    expect_right(add_gated);
    modulate.guidance_rows = kRows;
    expect_right(modulate);
    modulate.update.data = nullptr;
    modulate.gate = {};
    expect_right(modulate);
    modulate.output.dtype = SCALEDIT_BFLOAT16;
    modulate.output_scale = nullptr;
    expect_right(modulate);
    quantize.width = 0;
    quantize.input.data = nullptr;
    expect_right(quantize);
    quantize.width = kWidth;
    quantize.input.data = at(0);
    quantize.gelu_width = 0;
    quantize.gelu_input.data = nullptr;
    expect_right(quantize);
}

TEST_F(AbiTokenwise, WithoutRowsNoPointerIsLookedAt) {
    const auto expect_done = [](auto& arguments) {
        arguments.rows = 0;
        EXPECT_EQ(call(&arguments), SCALEDIT_CUDA ? SCALEDIT_OK : SCALEDIT_UNSUPPORTED) << scaledit_last_error();
    };
    add_gated.guidance_rows = modulate.guidance_rows = 0;
    expect_done(add_gated);
    add_gated.hidden.data = nullptr;
    expect_done(add_gated);
    expect_done(modulate);
    modulate.output.data = nullptr;
    modulate.update.data = nullptr;
    expect_done(modulate);
    quantize.input.data = at(0) + 1;
    expect_done(quantize);
    quantize.output_scale = nullptr;
    expect_done(quantize);
    norm_and_rotate.text_rows = 0;
    norm_and_rotate.rotation = nullptr;
    expect_done(norm_and_rotate);
    group_norm.workspace = nullptr;
    group_norm.workspace_bytes = 0;
    expect_done(group_norm);
    pack_rows.tokens = 0;
    pack_rows.token = nullptr;
    expect_done(pack_rows);
    unpack_rows.packed = nullptr;
    expect_done(unpack_rows);
}

TEST_F(AbiTokenwise, RefusesNoArguments) {
    EXPECT_EQ(scaledit_cuda_add_gated(nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "arguments is null, expected a scaledit_cuda_add_gated_arguments");
    EXPECT_EQ(scaledit_cuda_modulate(nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "arguments is null, expected a scaledit_cuda_modulate_arguments");
    EXPECT_EQ(scaledit_cuda_quantize(nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "arguments is null, expected a scaledit_cuda_quantize_arguments");
}

TEST_F(AbiTokenwise, AddGatedRefuses) {
    using Arguments = scaledit_cuda_add_gated_arguments;
    const std::vector<Case<Arguments>> cases = {
        {[](Arguments& a) { a.rows = -1; }, "rows is -1, expected 0 to 2147483647"},
        {[](Arguments& a) { a.rows = std::int64_t{1} << 31; }, "rows is 2147483648, expected 0 to 2147483647"},
        {[](Arguments& a) { a.guidance_rows = 6; }, "guidance_rows is 6, expected 0 to 5"},
        {[](Arguments& a) { a.guidance_rows = -1; }, "guidance_rows is -1, expected 0 to 5"},
        {[](Arguments& a) { a.width = 0; }, "width is 0, expected a multiple of 8 from 8 to 8192"},
        {[](Arguments& a) { a.width = 12; }, "width is 12, expected a multiple of 8 from 8 to 8192"},
        {[](Arguments& a) { a.width = 8200; }, "width is 8200, expected a multiple of 8 from 8 to 8192"},
        {[](Arguments& a) { a.hidden.dtype = SCALEDIT_FLOAT32; }, "hidden.dtype is 0, expected 1 (bfloat16)"},
        {[](Arguments& a) { a.update.dtype = SCALEDIT_E4M3; }, "update.dtype is 2, expected 1 (bfloat16)"},
        {[](Arguments& a) { a.hidden.row_stride = 8; },
         "hidden.row_stride is 8, expected 16 to 96076792050570581 elements"},
        {[](Arguments& a) { a.hidden.row_stride = std::int64_t{1} << 57; },
         "hidden.row_stride is 144115188075855872, expected 16 to 96076792050570581 elements"},
        {[](Arguments& a) { a.update.row_stride = 20; },
         "update.row_stride is 20, expected a multiple of 8 elements on a GPU"},
        {[](Arguments& a) { a.hidden.data = nullptr; }, "hidden.data is null, expected 5 rows of 32 bytes"},
        {[](Arguments& a) { a.hidden.data = reinterpret_cast<void*>(std::uintptr_t{0} - 32); },
         "hidden.data has 160 bytes, which reach beyond the end of the address space"},
        {[this](Arguments& a) { a.update.data = at(1) + 8; },
         "update.data is at an address that is no multiple of 16 bytes"},
        {[](Arguments& a) { a.gate.current = nullptr; }, "gate.current is null, expected 32 bytes"},
        {[](Arguments& a) { a.gate.guidance = nullptr; }, "gate.guidance is null, expected 32 bytes"},
        {[](Arguments& a) { a.guidance_rows = 0; }, "gate.guidance is given, expected null without guidance rows"},
        {[](Arguments& a) { a.update.data = a.hidden.data; },
         "update.data overlaps hidden.data, expected memory of its own"},
        {[this](Arguments& a) { a.gate.current = at(0) + 144; },
         "gate.current overlaps hidden.data, expected memory of its own"},
    };
    expect_refused(add_gated, cases);
}

TEST_F(AbiTokenwise, ModulateRefuses) {
    using Arguments = scaledit_cuda_modulate_arguments;
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const std::vector<Case<Arguments>> cases = {
        {[](Arguments& a) { a.rows = -7; }, "rows is -7, expected 0 to 2147483647"},
        {[](Arguments& a) { a.guidance_rows = 9; }, "guidance_rows is 9, expected 0 to 5"},
        {[](Arguments& a) { a.width = 8200; }, "width is 8200, expected a multiple of 8 from 8 to 8192"},
        {[](Arguments& a) { a.epsilon = 0; }, "epsilon is 0, expected a finite number above 0"},
        {[](Arguments& a) { a.epsilon = kInfinity; }, "epsilon is inf, expected a finite number above 0"},
        {[](Arguments& a) { a.epsilon = std::nanf(""); }, "epsilon is nan, expected a finite number above 0"},
        {[](Arguments& a) { a.hidden.dtype = SCALEDIT_E4M3; }, "hidden.dtype is 2, expected 1 (bfloat16)"},
        {[](Arguments& a) { a.update.data = nullptr; }, "gate.current is given, expected null without an update"},
        {[](Arguments& a) {
             a.update.data = nullptr;
             a.gate.current = nullptr;
         },
         "gate.guidance is given, expected null without an update"},
        {[](Arguments& a) { a.gate.current = nullptr; }, "gate.current is null, expected 32 bytes"},
        {[](Arguments& a) { a.shift.current = nullptr; }, "shift.current is null, expected 32 bytes"},
        {[](Arguments& a) { a.shift.guidance = nullptr; }, "shift.guidance is null, expected 32 bytes"},
        {[this](Arguments& a) { a.scale.current = at(12) + 2; },
         "scale.current is at an address that is no multiple of 16 bytes"},
        {[](Arguments& a) { a.scale.guidance = nullptr; }, "scale.guidance is null, expected 32 bytes"},
        {[](Arguments& a) { a.output.dtype = SCALEDIT_FLOAT32; },
         "output.dtype is 0, expected 1 (bfloat16) or 2 (e4m3)"},
        {[](Arguments& a) { a.output.row_stride = 8; },
         "output.row_stride is 8, expected 16 to 96076792050570581 elements"},
        {[](Arguments& a) { a.output.row_stride = 28; },
         "output.row_stride is 28, expected a multiple of 8 elements on a GPU"},
        {[](Arguments& a) { a.output.data = nullptr; }, "output.data is null, expected 5 rows of 16 bytes"},
        {[](Arguments& a) { a.output.dtype = SCALEDIT_BFLOAT16; },
         "output_scale is given, expected null with an output in bfloat16"},
        {[](Arguments& a) { a.output_scale = nullptr; }, "output_scale is null, expected 20 bytes"},
        {[](Arguments& a) { a.output_scale += 1; }, "output_scale is at an address that is no multiple of 16 bytes"},
        {[](Arguments& a) { a.output.data = a.hidden.data; },
         "output.data overlaps hidden.data, expected memory of its own"},
        {[](Arguments& a) { a.output.data = a.update.data; },
         "output.data overlaps update.data, expected memory of its own"},
        {[](Arguments& a) { a.update.data = a.hidden.data; },
         "update.data overlaps hidden.data, expected memory of its own"},
        {[this](Arguments& a) { a.output_scale = reinterpret_cast<float*>(at(2) + 64); },
         "output_scale overlaps output.data, expected memory of its own"},
    };
    expect_refused(modulate, cases);
}

TEST_F(AbiTokenwise, QuantizeRefuses) {
    using Arguments = scaledit_cuda_quantize_arguments;
    const std::vector<Case<Arguments>> cases = {
        {[](Arguments& a) { a.rows = -1; }, "rows is -1, expected 0 to 2147483647"},
        {[](Arguments& a) { a.width = -8; }, "width is -8, expected a multiple of 8 from 0 to 16384"},
        {[](Arguments& a) { a.gelu_width = 4; }, "gelu_width is 4, expected a multiple of 8 from 0 to 16384"},
        {[](Arguments& a) { a.gelu_width = 16376; },
         "width + gelu_width is 16392, expected a multiple of 8 from 8 to 16384"},
        {[](Arguments& a) { a.width = a.gelu_width = 0; },
         "width + gelu_width is 0, expected a multiple of 8 from 8 to 16384"},
        {[](Arguments& a) { a.width = 0; }, "input.data is given, expected null where width is 0"},
        {[](Arguments& a) { a.gelu_width = 0; }, "gelu_input.data is given, expected null where gelu_width is 0"},
        {[](Arguments& a) { a.input.dtype = SCALEDIT_FLOAT32; }, "input.dtype is 0, expected 1 (bfloat16)"},
        {[](Arguments& a) { a.gelu_input.dtype = SCALEDIT_E4M3; }, "gelu_input.dtype is 2, expected 1 (bfloat16)"},
        {[](Arguments& a) { a.output.dtype = SCALEDIT_BFLOAT16; }, "output.dtype is 1, expected 2 (e4m3)"},
        {[](Arguments& a) { a.output.row_stride = 72; },
         "output.row_stride is 72, expected 80 to 96076792050570581 elements"},
        {[](Arguments& a) { a.output.data = nullptr; }, "output.data is null, expected 5 rows of 80 bytes"},
        {[](Arguments& a) { a.output_scale = nullptr; }, "output_scale is null, expected 20 bytes"},
        {[](Arguments& a) { a.output.data = a.input.data; },
         "output.data overlaps input.data, expected memory of its own"},
        {[](Arguments& a) { a.output.data = a.gelu_input.data; },
         "output.data overlaps gelu_input.data, expected memory of its own"},
    };
    expect_refused(quantize, cases);
}

TEST_F(AbiTokenwise, NormAndRotateRefuses) {
    using Arguments = scaledit_cuda_norm_and_rotate_arguments;
    const std::vector<Case<Arguments>> cases = {
        {[](Arguments& a) { a.rows = -1; }, "rows is -1, expected 0 to 2147483647"},
        {[](Arguments& a) { a.text_rows = 6; }, "text_rows is 6, expected 0 to 5"},
        {[](Arguments& a) { a.head_dim = 96; }, "head_dim is 96, expected 64 or 128"},
        {[](Arguments& a) { a.heads = 0; }, "heads is 0, expected 1 to 128"},
        {[](Arguments& a) { a.heads = 129; }, "heads is 129, expected 1 to 128"},
        {[](Arguments& a) { a.epsilon = -1; }, "epsilon is -1, expected a finite number, 0 or above"},
        {[](Arguments& a) { a.norm = nullptr; }, "norm is null, expected 128 bytes"},
        {[](Arguments& a) { a.rotation = nullptr; }, "rotation is null, expected 1280 bytes"},
        {[](Arguments& a) { a.rotation += 1; }, "rotation is at an address that is no multiple of 16 bytes"},
        {[](Arguments& a) { a.input.dtype = SCALEDIT_FLOAT32; }, "input.dtype is 0, expected 1 (bfloat16)"},
        {[](Arguments& a) { a.input.row_stride = 56; },
         "input.row_stride is 56, expected 64 to 96076792050570581 elements"},
        {[](Arguments& a) { a.output_gradient.dtype = SCALEDIT_E4M3; },
         "output_gradient.dtype is 2, expected 1 (bfloat16)"},
        {[](Arguments& a) { a.output.data = nullptr; }, "output.data is null, expected 5 rows of 128 bytes"},
        {[](Arguments& a) { a.output.data = a.input.data; },
         "output.data overlaps input.data, expected memory of its own"},
        {[](Arguments& a) { a.output.data = a.output_gradient.data; },
         "output.data overlaps output_gradient.data, expected memory of its own"},
    };
    expect_refused(norm_and_rotate, cases);
}

TEST_F(AbiTokenwise, GroupNormRefuses) {
    using Arguments = scaledit_cuda_group_norm_arguments;
    std::size_t bytes = 0;
    ASSERT_EQ(scaledit_cuda_group_norm_workspace(&group_norm, &bytes), SCALEDIT_OK) << scaledit_last_error();
    EXPECT_EQ(bytes, sizeof(norm_workspace)) << "two sums of each of 528 blocks, a factor and a term";
    EXPECT_EQ(scaledit_cuda_group_norm_workspace(&group_norm, nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_EQ(scaledit_cuda_group_norm_workspace(nullptr, &bytes), SCALEDIT_INVALID_ARGUMENT);
    const std::vector<Case<Arguments>> cases = {
        {[](Arguments& a) { a.rows = -1; }, "rows is -1, expected 0 to 2147483647"},
        {[](Arguments& a) { a.channels = 12; }, "channels is 12, expected a multiple of 8 from 8 to 1024"},
        {[](Arguments& a) { a.channels = 1032; }, "channels is 1032, expected a multiple of 8 from 8 to 1024"},
        {[](Arguments& a) { a.groups = 5; }, "groups is 5, expected a divisor of the 16 channels"},
        {[](Arguments& a) { a.groups = 0; }, "groups is 0, expected a divisor of the 16 channels"},
        {[](Arguments& a) { a.epsilon = 0; }, "epsilon is 0, expected a finite number above 0"},
        {[](Arguments& a) { a.silu = 2; }, "silu is 2, expected 0 (no) or 1 (yes)"},
        {[](Arguments& a) { a.weight = nullptr; }, "weight is null, expected 32 bytes"},
        {[](Arguments& a) { a.bias = nullptr; }, "bias is null, expected 32 bytes"},
        {[](Arguments& a) { a.input.dtype = SCALEDIT_FLOAT32; }, "input.dtype is 0, expected 1 (bfloat16)"},
        {[](Arguments& a) { a.output.row_stride = 8; },
         "output.row_stride is 8, expected 16 to 96076792050570581 elements"},
        {[](Arguments& a) { a.output.data = a.input.data; },
         "output.data overlaps input.data, expected memory of its own"},
        {[](Arguments& a) { a.workspace_bytes -= 1; }, "workspace_bytes is 67711, expected at least 67712"},
        {[](Arguments& a) { a.workspace = nullptr; }, "workspace is null, expected 67712 bytes"},
        {[](Arguments& a) { a.workspace = static_cast<std::byte*>(a.workspace) + 8; },
         "workspace is at an address that is no multiple of 16 bytes"},
    };
    expect_refused(group_norm, cases);
}

TEST_F(AbiTokenwise, PackRowsRefuses) {
    std::size_t bytes = 0;
    ASSERT_EQ(scaledit_cuda_packed_row_bytes(3072, &bytes), SCALEDIT_OK) << scaledit_last_error();
    EXPECT_EQ(bytes, 2 * 3072 + 2 * 2 * 3072 / 32) << "codes, and a scale for 32 of them";
    EXPECT_EQ(scaledit_cuda_packed_row_bytes(3072, nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_EQ(scaledit_cuda_packed_row_bytes(96, &bytes), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "width is 96, expected a multiple of 64 from 64 to 8192");
    using Arguments = scaledit_cuda_pack_rows_arguments;
    const std::vector<Case<Arguments>> cases = {
        {[](Arguments& a) { a.rows = -1; }, "rows is -1, expected 0 to 2147483647"},
        {[](Arguments& a) { a.tokens = 0; }, "tokens is 0, expected 1 to 2147483647"},
        {[](Arguments& a) { a.width = 0; }, "width is 0, expected a multiple of 64 from 64 to 8192"},
        {[](Arguments& a) { a.width = 8256; }, "width is 8256, expected a multiple of 64 from 64 to 8192"},
        {[](Arguments& a) { a.key.dtype = SCALEDIT_E4M3; }, "key.dtype is 2, expected 1 (bfloat16)"},
        {[](Arguments& a) { a.value.dtype = SCALEDIT_FLOAT32; }, "value.dtype is 0, expected 1 (bfloat16)"},
        {[](Arguments& a) { a.key.row_stride = 56; },
         "key.row_stride is 56, expected 64 to 144115188075855872 elements"},
        {[](Arguments& a) { a.key.data = nullptr; }, "key.data is null, expected 3 rows of 128 bytes"},
        {[](Arguments& a) { a.value.data = static_cast<std::byte*>(a.value.data) + 8; },
         "value.data is at an address that is no multiple of 16 bytes"},
        {[](Arguments& a) { a.token = nullptr; }, "token is null, expected 40 bytes"},
        {[](Arguments& a) { a.packed = nullptr; }, "packed is null, expected 680 bytes"},
        {[](Arguments& a) { a.packed = a.value.data; }, "packed overlaps value.data, expected memory of its own"},
        {[this](Arguments& a) { a.token = reinterpret_cast<const std::int64_t*>(at(3) + 640); },
         "packed overlaps token, expected memory of its own"},
    };
    expect_refused(pack_rows, cases);
}

TEST_F(AbiTokenwise, UnpackRowsRefuses) {
    using Arguments = scaledit_cuda_unpack_rows_arguments;
    const std::vector<Case<Arguments>> cases = {
        {[](Arguments& a) { a.rows = -1; }, "rows is -1, expected 0 to 2147483647"},
        {[](Arguments& a) { a.width = 72; }, "width is 72, expected a multiple of 64 from 64 to 8192"},
        {[](Arguments& a) { a.packed = nullptr; }, "packed is null, expected 680 bytes"},
        {[](Arguments& a) { a.key.dtype = SCALEDIT_FLOAT32; }, "key.dtype is 0, expected 1 (bfloat16)"},
        {[](Arguments& a) { a.value.row_stride = 132; },
         "value.row_stride is 132, expected a multiple of 8 elements on a GPU"},
        {[](Arguments& a) { a.value.data = nullptr; }, "value.data is null, expected 5 rows of 128 bytes"},
        {[](Arguments& a) { a.key.data = const_cast<void*>(a.packed); },
         "key.data overlaps packed, expected memory of its own"},
        {[](Arguments& a) { a.value.data = static_cast<std::byte*>(a.key.data) + 64; },
         "value.data overlaps key.data, expected memory of its own"},
    };
    expect_refused(unpack_rows, cases);
    unpack_rows.value.data = static_cast<std::byte*>(unpack_rows.key.data) + 128;  // between the key's rows
    expect_right(unpack_rows);
}

// hidden and its update as parts of one buffer, at every distance: refused if and only if an element is shared.
TEST_F(AbiTokenwise, PartsOfOneBufferMayInterleave) {
    constexpr std::int64_t kStride = 5 * kWidth;
    std::vector<std::byte> buffer(static_cast<std::size_t>(4 * (kRows + 1) * kStride * 2) + 16);
    const std::size_t padding = 16 - reinterpret_cast<std::uintptr_t>(buffer.data()) % 16;
    constexpr std::int64_t kMiddle = 2 * (kRows + 1) * kStride;
    for (std::int64_t distance = -(kRows + 1) * kStride; distance <= (kRows + 1) * kStride; distance += 8) {
        bool shared = false;
        for (std::int64_t row = 0; row < kRows; ++row) {
            for (std::int64_t other = 0; other < kRows; ++other) {
                shared |= std::abs(distance + (other - row) * kStride) < kWidth;
            }
        }
        std::byte* const first = buffer.data() + padding;
        add_gated.hidden = {first + 2 * kMiddle, kStride, SCALEDIT_BFLOAT16};
        add_gated.update = {first + 2 * (kMiddle + distance), kStride, SCALEDIT_BFLOAT16};
        if (shared) {
            expect_refused(add_gated, std::string("update.data overlaps hidden.data, expected memory of its own"));
        } else {
            expect_right(add_gated);
        }
    }
}

}  // namespace
}  // namespace scaledit

// What the backward half of attention's C ABI refuses, and how it says so. What it shares with the forward half is
// tested there.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "geometry_view.h"

namespace scaledit {
namespace {

constexpr float kPoison = -12345.0F;
constexpr std::int64_t kHeads = 3;
constexpr std::int64_t kHeadDim = 64;
constexpr std::int64_t kRow = kHeads * kHeadDim;

using Arguments = scaledit_attention_backward_arguments;

// A small problem in which everything is right; rows [tokens, heads, head_dim] without gaps. Tests spoil one thing.
class AbiAttentionBackward : public testing::Test {
protected:
    AbiAttentionBackward() {
        const auto elements = static_cast<std::size_t>(kTokens * kRow);
        for (auto* input : {&query, &key, &value, &output, &output_gradient}) {
            input->assign(elements, 0.5F);
        }
        for (auto* gradient : {&query_gradient, &key_gradient, &value_gradient}) {
            gradient->assign(elements, kPoison);
        }
        log_sum_exp.assign(static_cast<std::size_t>(kTokens * kHeads), 5.0F);
        arguments.geometry = geometry.get();
        arguments.heads = kHeads;
        arguments.head_dim = kHeadDim;
        arguments.scale = 0.125F;
        arguments.threads = 1;
        arguments.query = tensor(query);
        arguments.key = tensor(key);
        arguments.value = tensor(value);
        arguments.output = tensor(output);
        arguments.log_sum_exp = log_sum_exp.data();
        arguments.output_gradient = tensor(output_gradient);
        arguments.query_gradient = tensor(query_gradient);
        arguments.key_gradient = tensor(key_gradient);
        arguments.value_gradient = tensor(value_gradient);
        EXPECT_EQ(scaledit_attention_backward_workspace(&arguments, &arguments.workspace_bytes), SCALEDIT_OK)
            << scaledit_last_error();
        workspace.reset(std::aligned_alloc(64, (arguments.workspace_bytes + 127) / 64 * 64));
        arguments.workspace = workspace.get();
    }

    static scaledit_tensor tensor(std::vector<float>& data) { return {data.data(), kRow, kHeadDim, SCALEDIT_FLOAT32}; }

    // Both functions refuse what is no pointer's fault.
    void expect_refused(const Arguments& bad, const std::string& message,
                        scaledit_status status = SCALEDIT_INVALID_ARGUMENT) {
        std::size_t bytes = 99;
        EXPECT_EQ(scaledit_attention_backward_workspace(&bad, &bytes), status) << message;
        EXPECT_EQ(scaledit_last_error(), message);
        EXPECT_EQ(bytes, 99U);
        expect_backward_refused(bad, message, status);
    }

    void expect_backward_refused(const Arguments& bad, const std::string& message,
                                 scaledit_status status = SCALEDIT_INVALID_ARGUMENT) {
        EXPECT_EQ(scaledit_attention_backward(&bad), status) << message;
        EXPECT_EQ(scaledit_last_error(), message);
        for (const auto* gradient : {&query_gradient, &key_gradient, &value_gradient}) {
            EXPECT_TRUE(std::ranges::all_of(*gradient, [](float number) { return number == kPoison; })) << message;
        }
    }

    static constexpr std::int64_t kTokens = 10 + 5 * 4 + 2 * 1;
    GeometryHandle geometry = make_geometry(geometry_options(5, 4, 10));
    std::vector<float> query, key, value, output, output_gradient, query_gradient, key_gradient, value_gradient;
    std::vector<float> log_sum_exp;
    std::unique_ptr<void, void (*)(void*)> workspace{nullptr, std::free};
    Arguments arguments{};
};

TEST_F(AbiAttentionBackward, AcceptsTheRightArguments) {
    ASSERT_EQ(scaledit_attention_backward(&arguments), SCALEDIT_OK) << scaledit_last_error();
    for (const auto* gradient : {&query_gradient, &key_gradient, &value_gradient}) {
        EXPECT_TRUE(std::ranges::none_of(*gradient, [](float number) { return number == kPoison; }));
    }
}

TEST_F(AbiAttentionBackward, RefusesNumbers) {
    struct Case {
        std::function<void(Arguments&)> spoil;
        const char* message;
    };
    const std::vector<Case> cases = {
        {[](Arguments& a) { a.heads = 0; }, "heads is 0, expected 1 to 4096"},
        {[](Arguments& a) { a.head_dim = 96; }, "head_dim is 96, expected 64 or 128"},
        {[](Arguments& a) { a.scale = 0; }, "scale is 0, expected a finite number above 0"},
        {[](Arguments& a) { a.scale = std::numeric_limits<float>::quiet_NaN(); },
         "scale is nan, expected a finite number above 0"},
        {[](Arguments& a) { a.scale = 3e38F; },
         "scale is 3e+38, expected a number whose product with log2(e) is finite"},
        {[](Arguments& a) { a.instruction_set = 4; },
         "instruction_set is 4, expected 0 (best), 1 (portable), 2 (AVX2) or 3 (AVX-512 VNNI)"},
        {[](Arguments& a) { a.threads = 1025; },
         "threads is 1025, expected 1 to 1024, or 0 for one for each processor"},
        {[](Arguments& a) { a.query.dtype = 2; }, "query.dtype is 2, expected 0 (float32) or 1 (bfloat16)"},
        {[](Arguments& a) { a.output.dtype = SCALEDIT_BFLOAT16; }, "output.dtype is 1, expected 0 as for query"},
        {[](Arguments& a) { a.output_gradient.dtype = SCALEDIT_BFLOAT16; },
         "output_gradient.dtype is 1, expected 0 as for query"},
        {[](Arguments& a) { a.query_gradient.dtype = SCALEDIT_BFLOAT16; },
         "query_gradient.dtype is 1, expected 0 as for query"},
        {[](Arguments& a) { a.key_gradient.dtype = 9; },
         "key_gradient.dtype is 9, expected 0 (float32) or 1 (bfloat16)"},
        {[](Arguments& a) { a.value_gradient.head_stride = 63; },
         "value_gradient has token_stride 192 and head_stride 63, expected strides that keep the rows of 64 elements "
         "of "
         "32 tokens and 3 heads apart"},
        {[](Arguments& a) { a.output_gradient.head_stride = 0; },
         "output_gradient.head_stride is 0, expected 1 to 192153584101141162 elements"},
    };
    for (const Case& bad : cases) {
        Arguments spoilt = arguments;
        bad.spoil(spoilt);
        expect_refused(spoilt, bad.message);
    }
}

TEST_F(AbiAttentionBackward, RefusesNull) {
    std::size_t bytes = 0;
    EXPECT_EQ(scaledit_attention_backward_workspace(nullptr, &bytes), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "arguments is null, expected a scaledit_attention_backward_arguments");
    EXPECT_EQ(scaledit_attention_backward_workspace(&arguments, nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "bytes is null, expected where to put the number");
    EXPECT_EQ(scaledit_attention_backward(nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "arguments is null, expected a scaledit_attention_backward_arguments");

    Arguments spoilt = arguments;
    spoilt.geometry = nullptr;
    expect_refused(spoilt, "geometry is null, expected a geometry from scaledit_geometry_create");

    const std::vector<std::pair<scaledit_tensor Arguments::*, std::string>> tensors = {
        {&Arguments::query, "query"},
        {&Arguments::key, "key"},
        {&Arguments::value, "value"},
        {&Arguments::output, "output"},
        {&Arguments::output_gradient, "output_gradient"},
        {&Arguments::query_gradient, "query_gradient"},
        {&Arguments::key_gradient, "key_gradient"},
        {&Arguments::value_gradient, "value_gradient"}};
    for (const auto& [member, name] : tensors) {
        spoilt = arguments;
        (spoilt.*member).data = nullptr;
        EXPECT_EQ(scaledit_attention_backward_workspace(&spoilt, &bytes), SCALEDIT_OK) << "does not look at it";
        expect_backward_refused(spoilt, name + ".data is null, expected 24576 bytes");  // 32 * 3 * 64 * 4
    }
    spoilt = arguments;
    spoilt.log_sum_exp = nullptr;
    EXPECT_EQ(scaledit_attention_backward_workspace(&spoilt, &bytes), SCALEDIT_OK) << "does not look at it";
    expect_backward_refused(spoilt, "log_sum_exp is null, expected what the forward pass wrote");
    spoilt = arguments;
    spoilt.workspace = nullptr;
    expect_backward_refused(spoilt,
                            "workspace is null, expected " + std::to_string(arguments.workspace_bytes) + " bytes");
}

TEST_F(AbiAttentionBackward, RefusesMisalignedAndSmallBuffers) {
    Arguments spoilt = arguments;
    spoilt.key_gradient.data = reinterpret_cast<std::byte*>(key_gradient.data()) + 2;
    expect_backward_refused(spoilt, "key_gradient.data is at an address that is no multiple of 4 bytes");
    spoilt = arguments;
    spoilt.workspace = static_cast<std::byte*>(workspace.get()) + 32;
    expect_backward_refused(spoilt, "workspace is at an address that is no multiple of 64 bytes");
    spoilt = arguments;
    spoilt.workspace_bytes -= 1;
    expect_backward_refused(spoilt, "workspace_bytes is " + std::to_string(spoilt.workspace_bytes) +
                                        ", expected at least " + std::to_string(arguments.workspace_bytes));
}

TEST_F(AbiAttentionBackward, RefusesOverlap) {
    const auto refused = [&](const std::function<void(Arguments&)>& spoil, const std::string& other,
                             const std::string& one) {
        Arguments spoilt = arguments;
        spoil(spoilt);
        expect_backward_refused(spoilt, other + " overlaps " + one + ", expected memory of its own");
    };
    refused([&](Arguments& a) { a.query_gradient.data = query.data(); }, "query_gradient.data", "query.data");
    refused([&](Arguments& a) { a.key_gradient.data = key.data(); }, "key_gradient.data", "key.data");
    refused([&](Arguments& a) { a.value_gradient.data = output_gradient.data(); }, "value_gradient.data",
            "output_gradient.data");
    refused([&](Arguments& a) { a.value_gradient.data = key_gradient.data(); }, "value_gradient.data",
            "key_gradient.data");
    refused([&](Arguments& a) { a.log_sum_exp = query_gradient.data(); }, "log_sum_exp", "query_gradient.data");
    refused([&](Arguments& a) { a.output.data = workspace.get(); }, "workspace", "output.data");
    refused([&](Arguments& a) { a.log_sum_exp = static_cast<float*>(workspace.get()); }, "workspace", "log_sum_exp");
}

// What is read may be the same; gradients may interleave.
TEST_F(AbiAttentionBackward, BuffersMayBeShared) {
    std::vector<float> fused(static_cast<std::size_t>(kTokens * 3 * kRow), kPoison);
    const auto part = [&](std::int64_t which) {
        return scaledit_tensor{fused.data() + which * kRow, 3 * kRow, kHeadDim, SCALEDIT_FLOAT32};
    };
    arguments.key = arguments.value = arguments.output = arguments.output_gradient = arguments.query;
    arguments.query_gradient = part(0);
    arguments.key_gradient = part(1);
    arguments.value_gradient = part(2);
    ASSERT_EQ(scaledit_attention_backward(&arguments), SCALEDIT_OK) << scaledit_last_error();
    EXPECT_TRUE(std::ranges::none_of(fused, [](float number) { return number == kPoison; }));
}

}  // namespace
}  // namespace scaledit

// What the attention half of the C ABI refuses, and how it says so.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "geometry_view.h"

namespace scaledit {
namespace {

constexpr float kPoison = -12345.0F;
constexpr std::int64_t kHeads = 3;
constexpr std::int64_t kHeadDim = 64;
constexpr std::int64_t kRow = kHeads * kHeadDim;

struct FreeAligned {
    void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t{64}); }
};
using AlignedBytes = std::unique_ptr<std::byte[], FreeAligned>;

AlignedBytes aligned_bytes(std::size_t bytes) {
    return AlignedBytes(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{64})));
}

// A small problem in which everything is right: 5 x 4 image tokens, 2 x 1 guidance tokens, 10 of text; rows [tokens,
// heads, head_dim] without gaps. Tests spoil one thing.
class AbiAttention : public testing::Test {
protected:
    AbiAttention() {
        const auto elements = static_cast<std::size_t>(kTokens * kRow);
        for (std::vector<float>* input : {&query, &key, &value}) {
            input->assign(elements, 0.5F);
        }
        output.assign(elements, kPoison);
        log_sum_exp.assign(static_cast<std::size_t>(kTokens * kHeads), kPoison);

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
        EXPECT_EQ(scaledit_attention_workspace(&arguments, &arguments.workspace_bytes), SCALEDIT_OK)
            << scaledit_last_error();
        workspace = aligned_bytes(arguments.workspace_bytes + 128);
        arguments.workspace = workspace.get();
    }

    static scaledit_tensor tensor(std::vector<float>& data) { return {data.data(), kRow, kHeadDim, SCALEDIT_FLOAT32}; }

    // Both functions refuse what is no pointer's fault.
    void expect_refused(const scaledit_attention_arguments& bad, const std::string& message,
                        scaledit_status status = SCALEDIT_INVALID_ARGUMENT) {
        std::size_t bytes = 99;
        EXPECT_EQ(scaledit_attention_workspace(&bad, &bytes), status) << message;
        EXPECT_EQ(scaledit_last_error(), message);
        EXPECT_EQ(bytes, 99U);
        expect_attention_refused(bad, message, status);
    }

    void expect_attention_refused(const scaledit_attention_arguments& bad, const std::string& message,
                                  scaledit_status status = SCALEDIT_INVALID_ARGUMENT) {
        EXPECT_EQ(scaledit_attention(&bad), status) << message;
        EXPECT_EQ(scaledit_last_error(), message);
        const auto untouched = [](float number) { return number == kPoison; };
        EXPECT_TRUE(std::all_of(output.begin(), output.end(), untouched)) << message;
        EXPECT_TRUE(std::all_of(log_sum_exp.begin(), log_sum_exp.end(), untouched)) << message;
    }

    static constexpr std::int64_t kTokens = 10 + 5 * 4 + 2 * 1;
    GeometryHandle geometry = make_geometry(geometry_options(5, 4, 10));
    std::vector<float> query, key, value, output, log_sum_exp;
    AlignedBytes workspace;
    scaledit_attention_arguments arguments{};
};

TEST_F(AbiAttention, AcceptsTheRightArguments) {
    ASSERT_EQ(scaledit_attention(&arguments), SCALEDIT_OK) << scaledit_last_error();
    for (const float number : output) {
        ASSERT_NEAR(number, 0.5F, 1e-6F);
    }
}

TEST_F(AbiAttention, RefusesNumbers) {
    struct Case {
        std::function<void(scaledit_attention_arguments&)> spoil;
        const char* message;
    };
    using Arguments = scaledit_attention_arguments;
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const std::vector<Case> cases = {
        {[](Arguments& a) { a.heads = 0; }, "heads is 0, expected 1 to 4096"},
        {[](Arguments& a) { a.heads = -1; }, "heads is -1, expected 1 to 4096"},
        {[](Arguments& a) { a.heads = 4097; }, "heads is 4097, expected 1 to 4096"},
        {[](Arguments& a) { a.head_dim = 96; }, "head_dim is 96, expected 64 or 128"},
        {[](Arguments& a) { a.head_dim = 0; }, "head_dim is 0, expected 64 or 128"},
        {[](Arguments& a) { a.scale = 0; }, "scale is 0, expected a finite number above 0"},
        {[](Arguments& a) { a.scale = -0.5F; }, "scale is -0.5, expected a finite number above 0"},
        {[](Arguments& a) { a.scale = kInfinity; }, "scale is inf, expected a finite number above 0"},
        {[](Arguments& a) { a.scale = std::nanf(""); }, "scale is nan, expected a finite number above 0"},
        {[](Arguments& a) { a.scale = 3e38F; },
         "scale is 3e+38, expected a number whose product with log2(e) is finite"},
        {[](Arguments& a) { a.arithmetic = 2; }, "arithmetic is 2, expected 0 (float32) or 1 (INT8)"},
        {[](Arguments& a) { a.instruction_set = 4; },
         "instruction_set is 4, expected 0 (best), 1 (portable), 2 (AVX2) or 3 (AVX-512 VNNI)"},
        {[](Arguments& a) { a.instruction_set = -1; },
         "instruction_set is -1, expected 0 (best), 1 (portable), 2 (AVX2) or 3 (AVX-512 VNNI)"},
        {[](Arguments& a) { a.threads = -1; }, "threads is -1, expected 1 to 1024, or 0 for one for each processor"},
        {[](Arguments& a) { a.threads = 1025; },
         "threads is 1025, expected 1 to 1024, or 0 for one for each processor"},
        {[](Arguments& a) { a.query.dtype = 7; }, "query.dtype is 7, expected 0 (float32) or 1 (bfloat16)"},
        {[](Arguments& a) { a.key.dtype = -1; }, "key.dtype is -1, expected 0 (float32) or 1 (bfloat16)"},
        {[](Arguments& a) { a.key.dtype = SCALEDIT_BFLOAT16; }, "key.dtype is 1, expected 0 as for query"},
        {[](Arguments& a) { a.value.dtype = SCALEDIT_BFLOAT16; }, "value.dtype is 1, expected 0 as for query"},
        {[](Arguments& a) { a.output.dtype = SCALEDIT_BFLOAT16; }, "output.dtype is 1, expected 0 as for query"},
    };
    for (const Case& bad : cases) {
        Arguments spoilt = arguments;
        bad.spoil(spoilt);
        expect_refused(spoilt, bad.message);
    }
}

TEST_F(AbiAttention, RefusesStrides) {
    const std::string most = std::to_string((std::int64_t{1} << 59) / kTokens);
    const std::string most_heads = std::to_string((std::int64_t{1} << 59) / kHeads);
    const auto refused = [&](scaledit_tensor scaledit_attention_arguments::*which, std::int64_t token_stride,
                             std::int64_t head_stride, const std::string& message) {
        scaledit_attention_arguments spoilt = arguments;
        (spoilt.*which).token_stride = token_stride;
        (spoilt.*which).head_stride = head_stride;
        expect_refused(spoilt, message);
    };
    const auto apart = [](std::string_view name, std::int64_t token_stride, std::int64_t head_stride) {
        return std::string(name) + " has token_stride " + std::to_string(token_stride) + " and head_stride " +
               std::to_string(head_stride) +
               ", expected strides that keep the rows of 64 elements of 32 tokens and 3 heads apart";
    };
    using A = scaledit_attention_arguments;
    constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
    refused(&A::query, 0, 64, "query.token_stride is 0, expected 1 to " + most + " elements");
    refused(&A::key, -192, 64, "key.token_stride is -192, expected 1 to " + most + " elements");
    refused(&A::value, kHuge, 64, "value.token_stride is 9223372036854775807, expected 1 to " + most + " elements");
    refused(&A::output, 192, 0, "output.head_stride is 0, expected 1 to " + most_heads + " elements");
    refused(&A::output, 192, kHuge,
            "output.head_stride is 9223372036854775807, expected 1 to " + most_heads + " elements");
    refused(&A::output, 192, 63, apart("output", 192, 63));     // heads overlap
    refused(&A::output, 191, 64, apart("output", 191, 64));     // a token begins before the last one's heads end
    refused(&A::query, 64, 64, apart("query", 64, 64));         // every head is the next token's
    refused(&A::key, 64, 2047, apart("key", 64, 2047));         // [heads, tokens] with too little room for a head
    refused(&A::value, 63, 32 * 64, apart("value", 63, 2048));  // tokens overlap
}

TEST_F(AbiAttention, RefusesNull) {
    std::size_t bytes = 0;
    EXPECT_EQ(scaledit_attention_workspace(nullptr, &bytes), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "arguments is null, expected a scaledit_attention_arguments");
    EXPECT_EQ(scaledit_attention_workspace(&arguments, nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "bytes is null, expected where to put the number");
    EXPECT_EQ(scaledit_attention(nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "arguments is null, expected a scaledit_attention_arguments");

    scaledit_attention_arguments spoilt = arguments;
    spoilt.geometry = nullptr;
    expect_refused(spoilt, "geometry is null, expected a geometry from scaledit_geometry_create");

    const std::vector<std::pair<scaledit_tensor scaledit_attention_arguments::*, std::string>> tensors = {
        {&scaledit_attention_arguments::query, "query"},
        {&scaledit_attention_arguments::key, "key"},
        {&scaledit_attention_arguments::value, "value"},
        {&scaledit_attention_arguments::output, "output"}};
    for (const auto& [member, name] : tensors) {
        spoilt = arguments;
        (spoilt.*member).data = nullptr;
        EXPECT_EQ(scaledit_attention_workspace(&spoilt, &bytes), SCALEDIT_OK) << "does not look at it";
        expect_attention_refused(spoilt, name + ".data is null, expected 24576 bytes");  // 32 * 3 * 64 * 4
    }
    spoilt = arguments;
    spoilt.workspace = nullptr;
    expect_attention_refused(spoilt,
                             "workspace is null, expected " + std::to_string(arguments.workspace_bytes) + " bytes");
}

TEST_F(AbiAttention, RefusesMisalignedBuffers) {
    const auto off_by = [](void* pointer, std::ptrdiff_t bytes) {
        return static_cast<void*>(static_cast<std::byte*>(pointer) + bytes);
    };
    scaledit_attention_arguments spoilt = arguments;
    spoilt.query.data = off_by(query.data(), 2);
    expect_attention_refused(spoilt, "query.data is at an address that is no multiple of 4 bytes");

    spoilt = arguments;
    spoilt.log_sum_exp = static_cast<float*>(off_by(log_sum_exp.data(), 1));
    expect_attention_refused(spoilt, "log_sum_exp is at an address that is no multiple of 4 bytes");

    spoilt = arguments;
    spoilt.workspace = off_by(workspace.get(), 32);
    expect_attention_refused(spoilt, "workspace is at an address that is no multiple of 64 bytes");

    spoilt = arguments;
    for (scaledit_tensor* tensor : {&spoilt.query, &spoilt.key, &spoilt.value, &spoilt.output}) {
        tensor->dtype = SCALEDIT_BFLOAT16;
    }
    spoilt.output.data = off_by(output.data(), 1);
    expect_attention_refused(spoilt, "output.data is at an address that is no multiple of 2 bytes");
}

TEST_F(AbiAttention, RefusesTooSmallAWorkspace) {
    ASSERT_GT(arguments.workspace_bytes, 0U);
    const std::string needed = std::to_string(arguments.workspace_bytes);
    scaledit_attention_arguments spoilt = arguments;
    spoilt.workspace_bytes -= 1;
    expect_attention_refused(
        spoilt, "workspace_bytes is " + std::to_string(spoilt.workspace_bytes) + ", expected at least " + needed);
    spoilt.workspace_bytes = 0;
    expect_attention_refused(spoilt, "workspace_bytes is 0, expected at least " + needed);
}

TEST_F(AbiAttention, RefusesTensorsBeyondTheAddressSpace) {
    scaledit_attention_arguments spoilt = arguments;
    spoilt.value.data = reinterpret_cast<void*>(std::uintptr_t{0} - 24572);
    expect_attention_refused(spoilt, "value.data has 24576 bytes, which reach beyond the end of the address space");
}

TEST_F(AbiAttention, RefusesOverlap) {
    const auto refused = [&](const std::function<void(scaledit_attention_arguments&)>& spoil, const std::string& other,
                             const std::string& one) {
        scaledit_attention_arguments spoilt = arguments;
        spoil(spoilt);
        expect_attention_refused(spoilt, other + " overlaps " + one + ", expected memory of its own");
    };
    using Arguments = scaledit_attention_arguments;
    const std::size_t last = query.size() - 1;
    auto* const scratch = reinterpret_cast<float*>(workspace.get());
    refused([&](Arguments& a) { a.output.data = query.data(); }, "output.data", "query.data");
    refused([&](Arguments& a) { a.key.data = output.data(); }, "output.data", "key.data");
    refused([&](Arguments& a) { a.value.data = output.data(); }, "output.data", "value.data");
    refused([&](Arguments& a) { a.log_sum_exp = query.data() + last; }, "log_sum_exp", "query.data");
    refused([&](Arguments& a) { a.log_sum_exp = output.data() + 7; }, "log_sum_exp", "output.data");
    refused([&](Arguments& a) { a.output.data = scratch; }, "workspace", "output.data");
    refused([&](Arguments& a) { a.key.data = scratch; }, "workspace", "key.data");
    refused([&](Arguments& a) { a.log_sum_exp = scratch; }, "workspace", "log_sum_exp");

    // One element of the output is one of the query, at either end.
    std::vector<float> both(2 * query.size() - 1, kPoison);
    refused(
        [&](Arguments& a) {
            a.query.data = both.data();
            a.output.data = both.data() + last;
        },
        "output.data", "query.data");
    refused(
        [&](Arguments& a) {
            a.output.data = both.data();
            a.query.data = both.data() + last;
        },
        "output.data", "query.data");
}

// [tokens, 4, heads, head_dim]: query, key, value and output interleave row by row, and share nothing.
TEST_F(AbiAttention, OutputMayLieBetweenTheRowsOfAFusedBuffer) {
    std::vector<float> fused(static_cast<std::size_t>(kTokens * 4 * kRow), 0.25F);
    const auto part = [&](std::int64_t which, std::int64_t shift = 0) {
        return scaledit_tensor{fused.data() + which * kRow + shift, 4 * kRow, kHeadDim, SCALEDIT_FLOAT32};
    };
    arguments.query = part(0);
    arguments.key = part(1);
    arguments.value = part(2);
    arguments.output = part(3);
    ASSERT_EQ(scaledit_attention(&arguments), SCALEDIT_OK) << scaledit_last_error();

    output.assign(output.size(), kPoison);
    log_sum_exp.assign(log_sum_exp.size(), kPoison);
    const std::vector<float> before = fused;
    for (const std::int64_t shift : {-1, -63, -191}) {
        arguments.output = part(3, shift);
        expect_attention_refused(arguments, "output.data overlaps value.data, expected memory of its own");
    }
    arguments.output = part(3, -kRow);
    expect_attention_refused(arguments, "output.data overlaps value.data, expected memory of its own");
    arguments.output = part(2);
    arguments.value = part(3);
    arguments.output.head_stride = 1;
    expect_attention_refused(arguments,
                             "output has token_stride 768 and head_stride 1, expected strides that keep the rows of 64 "
                             "elements of 32 tokens and 3 heads apart");
    EXPECT_EQ(fused, before);
}

// Of one head there is no next one: how far that would be says nothing.
TEST_F(AbiAttention, TheStrideOfASingleHeadIsNoReasonToRefuse) {
    std::vector<float> fused(static_cast<std::size_t>(kTokens * 4 * kHeadDim), 0.25F);
    const auto part = [&](std::int64_t which, std::int64_t head_stride) {
        return scaledit_tensor{fused.data() + which * kHeadDim, 4 * kHeadDim, head_stride, SCALEDIT_FLOAT32};
    };
    arguments.heads = 1;
    arguments.query = part(0, kHeadDim);
    arguments.key = part(1, kHeadDim);
    arguments.value = part(2, 1);
    arguments.output = part(3, 4 * kHeadDim);
    EXPECT_EQ(scaledit_attention(&arguments), SCALEDIT_OK) << scaledit_last_error();
    log_sum_exp.assign(log_sum_exp.size(), kPoison);
    arguments.output = part(0, 1);
    expect_attention_refused(arguments, "output.data overlaps query.data, expected memory of its own");
}

// Output and query of the same strides, at random distances: refused if and only if they share an element.
TEST_F(AbiAttention, SharedElementsAreFoundExactly) {
    std::mt19937 random(7);
    const auto between = [&](std::int64_t low, std::int64_t high) {
        return std::uniform_int_distribution<std::int64_t>(low, high)(random);
    };
    constexpr std::int64_t kMiddle = 400'000;
    std::vector<float> buffer(2 * kMiddle, 0.5F);
    int accepted = 0;
    for (int round = 0; round < 400; ++round) {
        // Heads of a token side by side or tokens of a head, with gaps in both directions.
        const std::int64_t inner = kHeadDim * between(2, 6) / 2;
        const bool token_major = between(0, 1) == 1;
        const std::int64_t outer = (token_major ? kHeads : kTokens) * inner * between(1, 3);
        const std::int64_t token_stride = token_major ? outer : inner;
        const std::int64_t head_stride = token_major ? inner : outer;
        const std::int64_t distance = between(-2, 2) * outer + between(-3, 3) * inner + between(-130, 130);
        SCOPED_TRACE(testing::Message() << "round " << round << ": token_stride " << token_stride << ", head_stride "
                                        << head_stride << ", distance " << distance);

        std::vector<char> in_query(buffer.size());
        const auto any = [&](std::int64_t first, const auto& visit) {
            bool found = false;
            for (std::int64_t token = 0; token < kTokens; ++token) {
                for (std::int64_t head = 0; head < kHeads; ++head) {
                    for (std::int64_t d = 0; d < kHeadDim; ++d) {
                        found |= visit(static_cast<std::size_t>(first + token * token_stride + head * head_stride + d));
                    }
                }
            }
            return found;
        };
        any(kMiddle, [&](std::size_t i) { return (in_query[i] = 1, false); });
        const bool shared = any(kMiddle + distance, [&](std::size_t i) { return in_query[i] != 0; });

        arguments.query = {buffer.data() + kMiddle, token_stride, head_stride, SCALEDIT_FLOAT32};
        arguments.output = {buffer.data() + kMiddle + distance, token_stride, head_stride, SCALEDIT_FLOAT32};
        ASSERT_EQ(scaledit_attention(&arguments), shared ? SCALEDIT_INVALID_ARGUMENT : SCALEDIT_OK)
            << scaledit_last_error();
        accepted += shared ? 0 : 1;
    }
    EXPECT_GT(accepted, 40) << "both answers must occur";
    EXPECT_LT(accepted, 360) << "both answers must occur";
}

// Query, key and value of one buffer, [tokens, 3, heads, head_dim] or [3, heads, tokens, head_dim]; or all the same.
TEST_F(AbiAttention, InputsMayShareABuffer) {
    std::vector<float> fused(static_cast<std::size_t>(kTokens * 3 * kRow), 0.5F);
    const auto expect_accepted = [&](std::int64_t step, std::int64_t token_stride, std::int64_t head_stride) {
        arguments.query = {fused.data(), token_stride, head_stride, SCALEDIT_FLOAT32};
        arguments.key = {fused.data() + step, token_stride, head_stride, SCALEDIT_FLOAT32};
        arguments.value = {fused.data() + 2 * step, token_stride, head_stride, SCALEDIT_FLOAT32};
        output.assign(output.size(), kPoison);
        ASSERT_EQ(scaledit_attention(&arguments), SCALEDIT_OK) << scaledit_last_error();
        for (const float number : output) {
            ASSERT_NEAR(number, 0.5F, 1e-6F);
        }
    };
    expect_accepted(kRow, 3 * kRow, kHeadDim);
    expect_accepted(kTokens * kRow, kHeadDim, kTokens * kHeadDim);
    expect_accepted(0, kRow, kHeadDim);
}

// Output inside a buffer of other strides is refused, even where its rows would fall into gaps.
TEST_F(AbiAttention, RefusesOutputAmongOtherStrides) {
    std::vector<float> fused(static_cast<std::size_t>(kTokens * 4 * kRow), 0.5F);
    arguments.query = {fused.data(), 4 * kRow, kHeadDim, SCALEDIT_FLOAT32};
    arguments.output = {fused.data() + kRow, 8 * kRow, kHeadDim, SCALEDIT_FLOAT32};
    expect_attention_refused(arguments, "output.data overlaps query.data, expected memory of its own");
}

TEST_F(AbiAttention, UnsupportedInstructionSetIsSaid) {
    EXPECT_EQ(scaledit_instruction_set_supported(SCALEDIT_INSTRUCTION_SET_BEST), SCALEDIT_OK);
    EXPECT_EQ(scaledit_instruction_set_supported(SCALEDIT_INSTRUCTION_SET_PORTABLE), SCALEDIT_OK);
    EXPECT_EQ(scaledit_instruction_set_supported(scaledit_instruction_set_best()), SCALEDIT_OK);
    EXPECT_NE(scaledit_instruction_set_best(), SCALEDIT_INSTRUCTION_SET_BEST);
    if (scaledit_multiplies_bfloat16() != 0) {  // no processor has it without the others
        EXPECT_EQ(scaledit_multiplies_bfloat16(), 1);
        EXPECT_EQ(scaledit_instruction_set_best(), SCALEDIT_INSTRUCTION_SET_AVX512_VNNI);
    }
    EXPECT_EQ(scaledit_instruction_set_supported(4), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(),
                 "instruction_set is 4, expected 0 (best), 1 (portable), 2 (AVX2) or 3 (AVX-512 VNNI)");
    for (const std::int32_t set : {SCALEDIT_INSTRUCTION_SET_AVX2, SCALEDIT_INSTRUCTION_SET_AVX512_VNNI}) {
        if (scaledit_instruction_set_supported(set) != SCALEDIT_OK) {
            arguments.instruction_set = set;
            expect_refused(
                arguments,
                "instruction_set is " + std::to_string(set) + ", which this processor or this build does not have",
                SCALEDIT_UNSUPPORTED);
        }
    }
}

}  // namespace
}  // namespace scaledit

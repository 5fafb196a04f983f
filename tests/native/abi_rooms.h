// What tests of the C ABI's functions of rows have in common: memory that no call may touch, and what a refusal is.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "scaledit/scaledit.h"

namespace scaledit {

// What is spoilt in arguments that are right, and the sentence that refuses them.
template <typename Arguments>
struct Case {
    std::function<void(Arguments&)> spoil;
    const char* message;
};

class Rooms : public testing::Test {
protected:
    static constexpr std::byte kUntouched{0x5a};

    void SetUp() override { std::fill(std::begin(memory), std::end(memory), kUntouched); }

    // Rooms of 1 KB.
    std::byte* at(std::size_t room) { return memory + 1024 * room; }
    scaledit_matrix bfloat16(std::size_t room, std::int64_t stride) { return {at(room), stride, SCALEDIT_BFLOAT16}; }
    scaledit_matrix e4m3(std::size_t room, std::int64_t stride) { return {at(room), stride, SCALEDIT_E4M3}; }

    template <typename Arguments>
    void expect_refused(scaledit_status (*call)(const Arguments*), const Arguments& bad, const std::string& message) {
        EXPECT_EQ(call(&bad), SCALEDIT_INVALID_ARGUMENT) << message;
        EXPECT_EQ(scaledit_last_error(), message);
        for (const std::byte byte : memory) {
            ASSERT_EQ(byte, kUntouched) << message;
        }
    }

    template <typename Arguments>
    void expect_refused(scaledit_status (*call)(const Arguments*), const Arguments& good,
                        const std::vector<Case<Arguments>>& cases) {
        for (const auto& [spoil, message] : cases) {
            Arguments bad = good;
            spoil(bad);
            expect_refused(call, bad, std::string(message));
        }
    }

    // What is right is refused for want of CUDA, of a GPU, or of memory that is a GPU's.
    template <typename Arguments>
    void expect_right(scaledit_status (*call)(const Arguments*), const Arguments& good) {
        EXPECT_NE(call(&good), SCALEDIT_OK);
        const std::string message = scaledit_last_error();
        EXPECT_TRUE(message == "this build of scaledit has no CUDA, expected one made with it" ||
                    message.starts_with("CUDA finds no GPU: ") ||
                    message.ends_with(" is in the host's memory, expected a GPU's"))
            << message;
    }

    alignas(64) std::byte memory[16 * 1024];
};

}  // namespace scaledit

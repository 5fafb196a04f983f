// The one exception the core throws for a caller's mistake; the C ABI turns it into a status and a message.
#pragma once

#include <array>
#include <charconv>
#include <stdexcept>
#include <string>
#include <string_view>

#include "scaledit/scaledit.h"

namespace scaledit {

class Error : public std::runtime_error {
public:
    Error(scaledit_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
    [[nodiscard]] scaledit_status status() const { return status_; }

private:
    scaledit_status status_;
};

[[noreturn]] inline void fail_invalid(const std::string& message) { throw Error(SCALEDIT_INVALID_ARGUMENT, message); }

// A number as text, whatever the process's locale.
template <typename Number>
std::string to_text(Number number) {
    std::array<char, 32> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
    return {digits.data(), end};
}

// Refuses an argument with the sentence "window is 24, expected 16, 32 or 64".
template <typename Number>
void expect(bool holds, std::string_view argument, Number given, std::string_view expected) {
    if (!holds) {
        fail_invalid(std::string(argument) + " is " + to_text(given) + ", expected " + std::string(expected));
    }
}

}  // namespace scaledit

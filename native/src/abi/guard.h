// Turns the core's exceptions into the C ABI's statuses and messages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "error.h"
#include "scaledit/scaledit.h"

namespace scaledit::abi {

// Strides times sizes stay below this many elements, so that no sum or product of them overflows, in bytes neither.
constexpr std::int64_t kMostElements = std::int64_t{1} << 59;

// Remembers the message for scaledit_last_error() and hands back the status. Never throws.
scaledit_status fail(scaledit_status status, std::string_view message) noexcept;

// Runs the body of a C function. No exception leaves it.
template <typename Body>
scaledit_status guard(Body&& body) noexcept {
    try {
        body();
        return SCALEDIT_OK;
    } catch (const Error& error) {
        return fail(error.status(), error.what());
    } catch (const std::bad_alloc&) {
        return fail(SCALEDIT_OUT_OF_MEMORY, "out of memory");
    } catch (const std::exception& error) {
        return fail(SCALEDIT_INTERNAL_ERROR, error.what());
    } catch (...) {
        return fail(SCALEDIT_INTERNAL_ERROR, "unknown exception");
    }
}

// Refuses a null pointer with the sentence "options is null, expected scaledit_geometry_options".
inline void expect_pointer(const void* pointer, std::string_view argument, std::string_view expected) {
    if (pointer == nullptr) {
        fail_invalid(std::string(argument) + " is null, expected " + std::string(expected));
    }
}

// Refuses a null pointer, and the address that is no multiple of `alignment` bytes.
inline void expect_aligned(const void* pointer, std::size_t alignment, std::string_view argument,
                           std::string_view expected) {
    expect_pointer(pointer, argument, expected);
    if (reinterpret_cast<std::uintptr_t>(pointer) % alignment != 0) {
        fail_invalid(std::string(argument) + " is at an address that is no multiple of " + to_text(alignment) +
                     " bytes");
    }
}

// Refuses memory that the address space has no room for.
inline void expect_addressable(const void* data, std::uintptr_t bytes, std::string_view argument) {
    if (bytes > 0 && bytes - 1 > UINTPTR_MAX - reinterpret_cast<std::uintptr_t>(data)) {
        fail_invalid(std::string(argument) + " has " + to_text(bytes) +
                     " bytes, which reach beyond the end of the address space");
    }
}

inline void expect_flag(std::int32_t flag, std::string_view argument) {
    expect(flag == 0 || flag == 1, argument, flag, "0 (no) or 1 (yes)");
}

// Refuses an array whose length is not the one that `unit` has.
inline void expect_count(std::int64_t given, std::string_view argument, std::int64_t count, std::string_view unit) {
    expect(given == count, argument, given, to_text(count) + ", one for each " + std::string(unit));
}

}  // namespace scaledit::abi

// Pieces of the caller's workspace.
#pragma once

#include <cstddef>

namespace scaledit::cpu {

// Of 64 bytes, a cache line and the widest vector.
constexpr std::size_t align(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Hands out pieces of the workspace; without memory it counts their bytes.
class Arena {
public:
    explicit Arena(void* memory) : memory_(static_cast<std::byte*>(memory)) {}

    template <class T>
    T* take(std::size_t count) {
        std::byte* piece = memory_ == nullptr ? nullptr : memory_ + used_;
        used_ += align(count * sizeof(T));
        return reinterpret_cast<T*>(piece);
    }

    [[nodiscard]] std::size_t used() const { return used_; }

private:
    std::byte* memory_;
    std::size_t used_ = 0;
};

}  // namespace scaledit::cpu

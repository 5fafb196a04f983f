// What a caller can get wrong in the arguments of the functions that treat rows of matrices on a GPU, and the sentence
// that says so.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "abi/cuda.h"
#include "abi/guard.h"
#include "cuda/tokenwise.h"
#include "scaledit/scaledit.h"

namespace scaledit::abi {

constexpr std::int64_t kMostRows = INT32_MAX;  // blocks of a kernel
constexpr std::int32_t kWidthMultiple = 8;

// Rows of `row_bytes` bytes that begin `stride_bytes` apart.
struct Region {
    std::string name;
    std::uintptr_t first;
    std::uintptr_t row_bytes;
    std::uintptr_t stride_bytes;
    std::uintptr_t rows;
    bool written;

    [[nodiscard]] std::uintptr_t extent() const { return (rows - 1) * stride_bytes + row_bytes; }
};

// Refuses what is wrong with one thing of a call, and remembers the memory for overlaps(). Without rows no
// pointer is looked at.
class Checks {
public:
    explicit Checks(std::int64_t rows);

    void width(const std::string& name, std::int32_t width, std::int32_t least, std::int32_t most) const;
    void guidance_rows(std::int64_t guidance_rows);

    // How many pictures the rows are.
    [[nodiscard]] std::int64_t pictures(std::int64_t picture_rows) const;

    void matrix(const std::string& name, const scaledit_matrix& given, std::int32_t width, bool written) {
        matrix(name, given, rows_, width, written);
    }
    void bfloat16_matrix(const std::string& name, const scaledit_matrix& given, std::int32_t width, bool written) {
        bfloat16_matrix(name, given, rows_, width, written);
    }
    // Of other rows than the call's.
    void bfloat16_matrix(const std::string& name, const scaledit_matrix& given, std::int64_t rows, std::int32_t width,
                         bool written);

    void part(const std::string& name, const scaledit_modulation_part& part, std::int32_t width);

    // A vector of each picture, and gradients of such vectors, which are written.
    void vectors(const std::string& name, const scaledit_picture_vectors& given, std::int64_t pictures,
                 std::int32_t width);
    void gradients(const std::string& name, const scaledit_picture_gradients& given, std::int64_t vectors,
                   std::int32_t width);

    // Numbers of one row that a call reads.
    void vector(const std::string& name, const void* data, std::int64_t bytes);
    // Memory that a call writes.
    void room(const std::string& name, const void* data, std::int64_t bytes);
    void scales(const float* data);

    void absent(const std::string& name, const void* data, const std::string& when) const;

    // Refuses written memory that something else of the call shares.
    void overlaps() const;

private:
    void matrix(const std::string& name, const scaledit_matrix& matrix, std::int64_t rows, std::int32_t width,
                bool written);
    void add(const std::string& name, const void* data, std::int64_t rows, std::int64_t row_bytes,
             std::int64_t stride_bytes, bool written);

    std::int64_t rows_;
    std::int64_t guidance_rows_ = 0;
    std::vector<Region> regions_;
};

// Checks a call's arguments and, where there are rows, hands them on.
template <typename Arguments>
scaledit_status checked_run(const Arguments* arguments, const char* type, void (*check)(const Arguments&)) {
    return guard([&] {
        expect_pointer(arguments, "arguments", type);
        check(*arguments);
#if SCALEDIT_CUDA
        if (arguments->rows > 0) {
            cuda::run(*arguments);
        }
#else
        refuse_without_cuda();
#endif
    });
}

}  // namespace scaledit::abi

#include "abi/row_checks.h"

#include <cstddef>

#include "error.h"

namespace scaledit::abi {
namespace {

constexpr std::int64_t kBfloat16Bytes = 2;
constexpr std::int64_t kFloatBytes = sizeof(float);
constexpr std::int64_t kFloatMultiple = kGpuAlignment / sizeof(float);

// Whether two regions share a byte; `low` is the one that begins first. Rows of the same stride may lie between each
// other, as parts of one buffer; other regions may not.
bool meet(const Region& low, const Region& high) {
    const std::uintptr_t distance = high.first - low.first;
    if (distance >= low.extent()) {
        return false;
    }
    if (low.stride_bytes != high.stride_bytes || low.rows != high.rows) {
        return true;
    }
    const std::uintptr_t rows_between = distance / low.stride_bytes;
    const std::uintptr_t behind_row = distance % low.stride_bytes;
    const std::uintptr_t before_next = low.stride_bytes - behind_row;
    return behind_row < low.row_bytes || (rows_between + 1 < low.rows && before_next < high.row_bytes);
}

void expect_stride(const std::string& name, std::int64_t stride, std::int64_t rows, std::int32_t width) {
    const std::int64_t most = kMostElements / (rows + 1);
    expect(width <= stride && stride <= most, name, stride, to_text(width) + " to " + to_text(most) + " elements");
}

}  // namespace

Checks::Checks(std::int64_t rows) : rows_(rows) {
    expect(0 <= rows && rows <= kMostRows, "rows", rows, "0 to " + to_text(kMostRows));
}

void Checks::width(const std::string& name, std::int32_t width, std::int32_t least, std::int32_t most) const {
    expect(least <= width && width <= most && width % kWidthMultiple == 0, name, width,
           "a multiple of 8 from " + to_text(least) + " to " + to_text(most));
}

void Checks::guidance_rows(std::int64_t guidance_rows) {
    expect(0 <= guidance_rows && guidance_rows <= rows_, "guidance_rows", guidance_rows, "0 to " + to_text(rows_));
    guidance_rows_ = guidance_rows;
}

std::int64_t Checks::pictures(std::int64_t picture_rows) const {
    expect(1 <= picture_rows && picture_rows <= kMostRows, "picture_rows", picture_rows, "1 to " + to_text(kMostRows));
    expect(rows_ % picture_rows == 0, "rows", rows_, "a multiple of the picture_rows, " + to_text(picture_rows));
    return rows_ / picture_rows;
}

void Checks::matrix(const std::string& name, const scaledit_matrix& matrix, std::int64_t rows, std::int32_t width,
                    bool written) {
    const std::int64_t element_bytes = matrix.dtype == SCALEDIT_E4M3 ? 1 : kBfloat16Bytes;
    expect_stride(name + ".row_stride", matrix.row_stride, rows, width);
    expect_gpu_stride(matrix.row_stride, name + ".row_stride");
    add(name + ".data", matrix.data, rows, width * element_bytes, matrix.row_stride * element_bytes, written);
}

void Checks::bfloat16_matrix(const std::string& name, const scaledit_matrix& given, std::int64_t rows,
                             std::int32_t width, bool written) {
    expect(given.dtype == SCALEDIT_BFLOAT16, name + ".dtype", given.dtype, "1 (bfloat16)");
    matrix(name, given, rows, width, written);
}

void Checks::part(const std::string& name, const scaledit_modulation_part& part, std::int32_t width) {
    const std::int64_t bytes = kBfloat16Bytes * width;
    add(name + ".current", part.current, 1, bytes, bytes, false);
    if (guidance_rows_ > 0) {
        add(name + ".guidance", part.guidance, 1, bytes, bytes, false);
    } else {
        absent(name + ".guidance", part.guidance, "without guidance rows");
    }
}

void Checks::vectors(const std::string& name, const scaledit_picture_vectors& given, std::int64_t pictures,
                     std::int32_t width) {
    expect_stride(name + ".stride", given.stride, pictures, width);
    expect_gpu_stride(given.stride, name + ".stride");
    add(name + ".data", given.data, pictures, width * kBfloat16Bytes, given.stride * kBfloat16Bytes, false);
}

void Checks::gradients(const std::string& name, const scaledit_picture_gradients& given, std::int64_t vectors,
                       std::int32_t width) {
    expect_stride(name + ".stride", given.stride, vectors, width);
    expect(given.stride % kFloatMultiple == 0, name + ".stride", given.stride,
           "a multiple of " + to_text(kFloatMultiple) + " elements on a GPU");
    add(name + ".data", given.data, vectors, width * kFloatBytes, given.stride * kFloatBytes, true);
}

void Checks::vector(const std::string& name, const void* data, std::int64_t bytes) {
    add(name, data, 1, bytes, bytes, false);
}

void Checks::room(const std::string& name, const void* data, std::int64_t bytes) {
    add(name, data, 1, bytes, bytes, true);
}

void Checks::scales(const float* data) { room("output_scale", data, rows_ * kFloatBytes); }

void Checks::absent(const std::string& name, const void* data, const std::string& when) const {
    if (rows_ > 0 && data != nullptr) {
        fail_invalid(name + " is given, expected null " + when);
    }
}

void Checks::overlaps() const {
    for (auto one = regions_.begin(); one != regions_.end(); ++one) {
        for (auto other = one + 1; other != regions_.end(); ++other) {
            if ((one->written || other->written) &&
                (one->first <= other->first ? meet(*one, *other) : meet(*other, *one))) {
                fail_invalid(other->name + " overlaps " + one->name + ", expected memory of its own");
            }
        }
    }
}

void Checks::add(const std::string& name, const void* data, std::int64_t rows, std::int64_t row_bytes,
                 std::int64_t stride_bytes, bool written) {
    if (rows_ == 0) {
        return;
    }
    expect_aligned(data, kGpuAlignment, name,
                   (rows > 1 ? to_text(rows) + " rows of " : "") + to_text(row_bytes) + " bytes");
    const Region region{name,
                        reinterpret_cast<std::uintptr_t>(data),
                        static_cast<std::uintptr_t>(row_bytes),
                        static_cast<std::uintptr_t>(stride_bytes),
                        static_cast<std::uintptr_t>(rows),
                        written};
    expect_addressable(data, region.extent(), name);
    regions_.push_back(region);
}

}  // namespace scaledit::abi

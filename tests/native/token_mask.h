// An independent reading of the mask: tokens with coordinates, and one question about two of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <ostream>
#include <vector>

#include "scaledit/scaledit.h"

namespace scaledit {

struct Token {
    std::int32_t stream;
    std::int32_t row;
    std::int32_t column;
};

inline std::ostream& operator<<(std::ostream& out, const Token& token) {
    constexpr std::array kStreams{"text", "image", "guidance"};
    return out << kStreams.at(static_cast<std::size_t>(token.stream)) << " token (" << token.row << ", " << token.column
               << ")";
}

class TokenMask {
public:
    TokenMask(const scaledit_geometry_options& options, const scaledit_geometry_info& info)
        : o_(options), guidance_width_(info.guidance_width), guidance_height_(info.guidance_height) {
        for (std::int64_t row = 0; row < o_.image_height; ++row) {
            sees_guidance_rows_.push_back(region(row, o_.image_height, guidance_height_));
        }
        for (std::int64_t column = 0; column < o_.image_width; ++column) {
            sees_guidance_columns_.push_back(region(column, o_.image_width, guidance_width_));
        }
    }

    [[nodiscard]] Token token(std::int64_t raster) const {
        const auto at = [](std::int32_t stream, std::int64_t index, std::int64_t width) {
            return Token{stream, static_cast<std::int32_t>(index / width), static_cast<std::int32_t>(index % width)};
        };
        const std::int64_t image = o_.text_tokens;
        const std::int64_t guidance = image + o_.image_width * o_.image_height;
        return raster < image      ? at(SCALEDIT_TEXT, raster, 1)
               : raster < guidance ? at(SCALEDIT_IMAGE, raster - image, o_.image_width)
                                   : at(SCALEDIT_GUIDANCE, raster - guidance, guidance_width_);
    }

    [[nodiscard]] bool attends(const Token& query, const Token& key) const {
        if (query.stream == SCALEDIT_GUIDANCE && o_.guidance_attention == SCALEDIT_GUIDANCE_NONE) {
            return false;
        }
        if (key.stream == SCALEDIT_TEXT) {
            return query.stream != SCALEDIT_GUIDANCE || o_.guidance_without_text == 0;
        }
        if (query.stream == SCALEDIT_TEXT) {
            return key.stream == SCALEDIT_IMAGE;
        }
        if (query.stream == SCALEDIT_GUIDANCE) {
            const bool near = within(query.row, key.row, 1) && within(query.column, key.column, 1);
            return key.stream == SCALEDIT_GUIDANCE && (o_.guidance_attention == SCALEDIT_GUIDANCE_GLOBAL || near);
        }
        if (key.stream == SCALEDIT_GUIDANCE) {
            return sees_guidance_rows_[static_cast<std::size_t>(query.row)][static_cast<std::size_t>(key.row)] &&
                   sees_guidance_columns_[static_cast<std::size_t>(query.column)][static_cast<std::size_t>(key.column)];
        }
        const bool near = within(query.row, key.row, o_.reach) && within(query.column, key.column, o_.reach);
        const bool own_window =
            query.row / o_.window == key.row / o_.window && query.column / o_.window == key.column / o_.window;
        return near || own_window;
    }

private:
    static bool within(std::int32_t a, std::int32_t b, std::int32_t cells) { return std::abs(a / 8 - b / 8) <= cells; }

    // Which guidance rows (or columns) the image tokens of a row (or column) attend to, step by step: the tokens of its
    // cell, what lies below them, the margin, and then whole cells.
    [[nodiscard]] std::vector<bool> region(std::int64_t token, std::int64_t side, std::int64_t guidance_side) const {
        std::vector<bool> seen(static_cast<std::size_t>(guidance_side));
        for (std::int64_t t = token - token % 8; t <= token - token % 8 + 7 && t < side && o_.ratio > 0; ++t) {
            for (std::int64_t g = 0; g < guidance_side; ++g) {
                if (std::abs(g - t / o_.ratio) <= o_.guidance_margin) {
                    for (std::int64_t other = 0; other < guidance_side; ++other) {
                        seen[static_cast<std::size_t>(other)] =
                            seen[static_cast<std::size_t>(other)] || other / 8 == g / 8;
                    }
                }
            }
        }
        return seen;
    }

    scaledit_geometry_options o_;
    std::int64_t guidance_width_;
    std::int64_t guidance_height_;
    std::vector<std::vector<bool>> sees_guidance_rows_;     // [image row][guidance row]
    std::vector<std::vector<bool>> sees_guidance_columns_;  // [image column][guidance column]
};

}  // namespace scaledit

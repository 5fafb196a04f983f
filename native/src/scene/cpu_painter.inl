// The painter of an instruction set: spans of pixels, rows after rows. Included in a namespace, as painter.inl is.

#define SCALEDIT_SCENE [[gnu::always_inline]] inline
#include "scene/painter.inl"

// Pixels that are painted together.
constexpr int kSpan = 64;
static_assert(kShadowLanes % kSpan == 0 && kShadowCanvas % kSpan == 0);

void make(const Shadow& shadow) {
    for (int row = 0; row < shadow.side; ++row) {
        for (int column = 0; column < kShadowCanvas; column += kSpan) {
            blur_down<kSpan>(shadow, row, column);
        }
    }
    for (int row = 0; row < shadow.side; ++row) {
        for (int column = 0; column < shadow.side; column += kSpan) {
            blur_across<kSpan>(shadow, row, column);
        }
    }
}

void paint_picture(const Picture& picture) {
    for (int i = 0; i < picture.items; ++i) {
        if (picture.item[i].shadow.part.rows > 0) {
            make(picture.item[i].shadow);
        }
    }
    const scaledit_rectangle& part = picture.part;
    const int end = part.first_column + part.columns;
    for (int row = part.first_row; row < part.first_row + part.rows; ++row) {
        for (int column = part.first_column; column < end; column += kSpan) {
            Lanes<float, kSpan> rgb[3];
            paint<kSpan>(picture, row, column, rgb);
            const int left = end - column;
            store<kSpan>(picture, row, column, left < kSpan ? left : kSpan, rgb);
        }
    }
}

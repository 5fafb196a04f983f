// A pixel's layers, from the background up; see pixels.inl.

#include "scene/items.inl"

SCALEDIT_SCENE bool meets(const scaledit_rectangle& part, int row, int column, int columns) {
    return row >= part.first_row && row - part.first_row < part.rows && column + columns > part.first_column &&
           column - part.first_column < part.columns;
}

// A channel of 8 bits.
SCALEDIT_SCENE int rounded(float value) {
    const float above = clamp(value, 255) + 0.5F;
    return static_cast<int>(above);
}

// `lanes` pixels of a row of the picture, from a column on: red, green and blue, 0 ... 255.
template <int lanes>
SCALEDIT_SCENE void paint(const Picture& picture, int row, int column, Lanes<float, lanes> (&rgb)[3]) {
    Place<lanes> at;
    at.size = picture.size;
    at.column = column;
    for (int i = 0; i < lanes; ++i) {
        at.x[i] = (column + i + 0.5) / picture.size;
        at.y[i] = (row + 0.5) / picture.size;
    }
    paint<lanes>(picture.backdrop, at, rgb);
    for (int i = 0; i < picture.items; ++i) {
        const Item& item = picture.item[i];
        if (meets(item.shadow.part, row, column, lanes)) {
            paint_shadow<lanes>(item, at, rgb);
        }
        if (meets(item.part, row, column, lanes)) {
            paint<lanes>(item, at, rgb);
        }
    }
}

// Writes the first `count` of them.
template <int lanes>
SCALEDIT_SCENE void store(const Picture& picture, int row, int column, int count, const Lanes<float, lanes> (&rgb)[3]) {
    const std::int64_t columns = picture.part.columns;
    const std::int64_t plane = picture.part.rows * columns;
    const std::int64_t first = (row - picture.part.first_row) * columns + column - picture.part.first_column;
    for (int channel = 0; channel < 3; ++channel) {
        if (picture.pixels == SCALEDIT_PIXELS_FLOAT32) {
            float* to = static_cast<float*>(picture.output) + channel * plane + first;
            for (int i = 0; i < count; ++i) {
                to[i] = static_cast<float>(rounded(rgb[channel][i])) / 127.5F - 1;
            }
        } else {
            auto* to = static_cast<std::uint8_t*>(picture.output) + 3 * first + channel;
            for (int i = 0; i < count; ++i) {
                to[3 * i] = static_cast<std::uint8_t>(rounded(rgb[channel][i]));
            }
        }
    }
}
